//! The listening socket: made aside, given to its group, and put in its place in one step.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::unistd::Group;

use super::{DEFAULT_GROUP, Socket};

/// The owner and a group may connect, nobody else.
const MODE: u32 = 0o660;
/// Everybody may come as far as the socket.
const DIR_MODE: u32 = 0o755;

/// A socket in the file system.
#[derive(Debug)]
pub(super) struct Listener {
    path: PathBuf,
    /// Device and inode, to tell ours from one that took its place.
    id: (u64, u64),
    token: Token,
    socket: UnixListener,
}

impl Listener {
    pub(super) fn open(wanted: &Socket, registry: &Registry, token: Token) -> anyhow::Result<Self> {
        let path = &wanted.path;
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            bail!(
                "{}: another speaker of this host serves it; give this one a path of its own (CARACAL_BGP_SOCKET, or api: \
                 {{socket: PATH}} in a router's file)",
                path.display()
            );
        }
        if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
            fs::create_dir_all(dir)
                .and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(DIR_MODE)))
                .with_context(|| format!("{}: cannot be made", dir.display()))?;
        }
        let aside = aside(path);
        let _ = fs::remove_file(&aside);
        let placed = Self::place(wanted, &aside, registry, token);
        if placed.is_err() {
            let _ = fs::remove_file(&aside);
        }
        placed.with_context(|| format!("{}", path.display()))
    }

    fn place(wanted: &Socket, aside: &Path, registry: &Registry, token: Token) -> anyhow::Result<Self> {
        let mut socket = UnixListener::bind(aside)?;
        registry.register(&mut socket, token, Interest::READABLE)?;
        if let Some(group) = group(wanted)? {
            nix::unistd::chown(aside, None, Some(group.gid)).with_context(|| {
                format!("it cannot be given to the group {}: the agent's user must be a member", group.name)
            })?;
        }
        fs::set_permissions(aside, fs::Permissions::from_mode(MODE))?;
        let of = fs::metadata(aside)?;
        fs::rename(aside, &wanted.path)?;
        Ok(Self { path: wanted.path.clone(), id: (of.dev(), of.ino()), token, socket })
    }

    pub(super) fn token(&self) -> Token {
        self.token
    }

    pub(super) fn accept(&self) -> Option<UnixStream> {
        loop {
            match self.socket.accept() {
                Ok((stream, _)) => return Some(stream),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|of| (of.dev(), of.ino()) == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

/// The group that may connect; one that is named must exist.
fn group(wanted: &Socket) -> anyhow::Result<Option<Group>> {
    let Some(name) = &wanted.group else { return Ok(Group::from_name(DEFAULT_GROUP).ok().flatten()) };
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(Some(group)),
        Ok(None) => bail!("there is no group {name}; make it (groupadd {name}), or name another"),
        Err(err) => bail!("the group {name} cannot be looked up: {err}"),
    }
}
