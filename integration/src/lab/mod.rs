//! One run: a name prefix, a scratch directory, and everything that has to be gone afterwards.

mod link;
mod namespace;
mod ping;
mod process;
mod show;
mod stream;
mod wait;
mod watch;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

pub use namespace::Namespace;
pub use process::{Process, kill_pid, run_in};
pub use show::show_routes;
pub use stream::{Stream, StreamReport};
pub use wait::eventually;
pub use watch::{RouteChange, RouteWatch};

/// Where runs keep their files: in memory where the system has a place for that, so that no figure holds the wait of a
/// datastore for a disk that others write to.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if nix::unistd::access(&memory, nix::unistd::AccessFlags::W_OK).is_ok() {
        memory
    } else {
        std::env::temp_dir()
    }
}

/// One run of a test, a bench or the demo. Dropping it ends its processes and removes its namespaces.
#[derive(Debug)]
pub struct Lab {
    tag: String,
    dir: tempfile::TempDir,
    spaces: Vec<Namespace>,
    keep_logs: bool,
}

impl Lab {
    /// A run named `name`: namespaces are called `<name>-<pid>-<host>`.
    ///
    /// Leftovers of earlier runs whose process is gone are removed first.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        namespace::sweep(name);
        let tag = format!("{name}-{}", std::process::id());
        let dir = tempfile::Builder::new()
            .prefix(&format!("{tag}-"))
            .tempdir_in(scratch())
            .context("lab: scratch directory")?;
        Ok(Self { tag, dir, spaces: Vec::new(), keep_logs: std::env::var_os("LAB_KEEP_LOGS").is_some() })
    }

    /// Scratch directory of this run: logs, configuration, sockets.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file below [`Lab::dir`].
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new host: an empty namespace with loopback up.
    pub fn host(&mut self, name: &str) -> anyhow::Result<Namespace> {
        let space = Namespace::create(&format!("{}-{name}", self.tag))?;
        self.spaces.push(space.clone());
        Ok(space)
    }

    /// Removes a host with everything in it and makes an empty one of the same name and path.
    pub fn recreate(&self, space: &Namespace) -> anyhow::Result<()> {
        space.remove();
        Namespace::create(space.name()).map(drop)
    }

    /// The end of every log of this run, for a failing test's message.
    pub fn logs(&self, lines: usize) -> String {
        let mut text = String::new();
        let mut files: Vec<_> =
            std::fs::read_dir(self.dir()).into_iter().flatten().flatten().map(|e| e.path()).collect();
        files.sort();
        for path in files.iter().filter(|p| p.extension().is_some_and(|e| e == "log")) {
            let log = std::fs::read_to_string(path).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(lines).collect();
            text.push_str("--- ");
            text.push_str(&path.file_name().unwrap_or_default().to_string_lossy());
            text.push('\n');
            for line in tail.iter().rev() {
                text += line;
                text.push('\n');
            }
        }
        text
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for space in &self.spaces {
            space.remove();
        }
        if self.keep_logs {
            eprintln!("lab: logs kept in {}", self.dir().display());
            self.dir.disable_cleanup(true);
        }
    }
}
