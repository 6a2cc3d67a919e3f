//! Root for the lab without root on the machine: a user namespace in which we are.

use anyhow::Context as _;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Gives this process its own mount namespace with an empty `/run`, and, unless it is root, its own user
/// namespace in which it is root. Must be called before the first thread.
///
/// Namespaces made afterwards are seen by this process and its children only.
pub fn enter() -> anyhow::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        unshare(CloneFlags::CLONE_NEWNS).context("sandbox: a mount namespace")?;
    } else {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context(
            "sandbox: this kernel gives no user namespaces to ordinary users; run as root, \
             or allow them: sysctl kernel.unprivileged_userns_clone=1",
        )?;
        std::fs::write("/proc/self/setgroups", "deny").context("sandbox: setgroups")?;
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("sandbox: uid_map")?;
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("sandbox: gid_map")?;
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("sandbox: private mounts")?;
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), none)
        .context("sandbox: a /run of our own")?;
    Ok(())
}
