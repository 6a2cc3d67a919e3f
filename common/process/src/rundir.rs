//! The run directory: sockets, and the lock that keeps a second agent away.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};

/// Where agents of the real Calico keep their sockets, so that its clients find ours.
const DEFAULT: &str = "/var/run/calico";

/// A directory for this node's sockets and locks.
#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// `CARACAL_RUN_DIR`, else `/var/run/calico`; made when it is missing.
    pub fn from_env() -> anyhow::Result<Self> {
        Self::at(std::env::var_os("CARACAL_RUN_DIR").map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from))
    }

    /// A given directory; made when it is missing.
    pub fn at(path: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&path).with_context(|| {
            format!("run directory {}: cannot be made; set CARACAL_RUN_DIR to a writable one", path.display())
        })?;
        Ok(Self(path))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Takes the lock of `role`; it is held until the guard is dropped or the process dies.
    pub fn lock(&self, role: &str) -> anyhow::Result<Flock<File>> {
        let path = self.file(&format!("caracal-{role}.lock"));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("lock {}: cannot be opened", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(lock),
            Err((_, err)) => bail!(
                "lock {}: held by another {role} ({err}); stop that one, or set CARACAL_RUN_DIR when this is another node",
                path.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_turned_away() {
        let dir = std::env::temp_dir().join(format!("caracal-rundir-{}", std::process::id()));
        let run = RunDir::at(dir.clone()).unwrap();
        let first = run.lock("felix").unwrap();
        let err = run.lock("felix").unwrap_err().to_string();
        assert!(err.contains("held by another felix"), "{err}");
        assert!(run.lock("bird").is_ok());
        drop(first);
        assert!(run.lock("felix").is_ok());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
