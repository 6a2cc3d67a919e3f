//! A network namespace with a name under `/run/netns`, so that `ip netns exec` finds it too.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::process::kill_pid;

const RUN_NETNS: &str = "/run/netns";

/// A named network namespace. Cloning names the same one; nothing is removed on drop (see [`super::Lab`]).
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace and brings its loopback up.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        let space = Self { name: name.into() };
        let path = space.path();
        std::fs::create_dir_all(RUN_NETNS).context("lab: /run/netns; run as root or in a user namespace")?;
        File::create(&path).with_context(|| format!("lab: {}", path.display()))?;
        thread::spawn(move || -> anyhow::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET).context("lab: a new network namespace needs CAP_SYS_ADMIN")?;
            mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .with_context(|| format!("lab: bind {}", path.display()))?;
            Ok(())
        })
        .join()
        .map_err(|_| anyhow!("lab: namespace thread"))??;
        space.sysctl("net/ipv6/conf/default/accept_dad", "0");
        space.sysctl("net/ipv6/conf/all/accept_dad", "0");
        super::link::loopback_up(&space)?;
        Ok(space)
    }

    /// Its name below `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path, as the annotation `caracal.io/netns` wants it.
    pub fn path(&self) -> PathBuf {
        Path::new(RUN_NETNS).join(&self.name)
    }

    /// Runs `f` on a thread that lives in this namespace.
    pub fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        let path = self.path();
        let work = move || {
            let file = File::open(&path).expect("invariant: a lab namespace exists while its Lab does");
            setns(file, CloneFlags::CLONE_NEWNET).expect("invariant: the lab may enter its own namespace");
            f()
        };
        match thread::spawn(work).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a program to its end in this namespace and returns its standard output.
    pub fn sh(&self, line: &str) -> anyhow::Result<String> {
        let (name, text) = (self.name.clone(), line.to_owned());
        let output =
            self.run(move || Command::new("sh").args([OsStr::new("-c"), OsStr::new(&text)]).output())?;
        if !output.status.success() {
            return Err(anyhow!("{name}: {line}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Writes `/proc/sys/<key>` as seen from this namespace; a key that the kernel lacks is skipped.
    pub fn sysctl(&self, key: &str, value: &str) {
        let (path, value) = (format!("/proc/sys/{key}"), value.to_owned());
        self.run(move || {
            let _ = std::fs::write(path, value);
        });
    }

    /// Ends what still runs inside and removes the namespace.
    pub(super) fn remove(&self) {
        for pid in self.processes() {
            kill_pid(pid);
        }
        let path = self.path();
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        let _ = std::fs::remove_file(&path);
    }

    /// Processes whose network namespace this is.
    fn processes(&self) -> Vec<i32> {
        use std::os::linux::fs::MetadataExt as _;
        let Ok(own) = std::fs::metadata(self.path()) else { return Vec::new() };
        let mut pids = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
            if let Ok(other) = std::fs::metadata(entry.path().join("ns/net"))
                && other.st_ino() == own.st_ino()
                && pid != std::process::id().cast_signed()
            {
                pids.push(pid);
            }
        }
        pids
    }
}

/// Removes namespaces `<name>-<pid>-*` of runs whose process is gone.
pub(super) fn sweep(name: &str) {
    for entry in std::fs::read_dir(RUN_NETNS).into_iter().flatten().flatten() {
        let Ok(file) = entry.file_name().into_string() else { continue };
        let rest = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        let Some((pid, _)) = rest.and_then(|rest| rest.split_once('-')) else { continue };
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            Namespace { name: file }.remove();
        }
    }
}
