//! Network namespaces: open, compare, work inside, create and delete named ones.
//!
//! A thread that joins a namespace never goes back here: work inside one happens on a thread of its own
//! that ends with the work, so no thread of a pool is left somewhere unexpected.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::error::{Error, Result};

/// `linux/sched.h`.
const CLONE_NEWNET: i32 = CloneFlags::CLONE_NEWNET.bits();
/// Where `ip netns` keeps its names.
pub const NAMED: &str = "/run/netns";
/// This thread's namespace; `/proc/self` would be the main thread's.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// What identifies a namespace while it exists: two paths with equal ids are one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    /// Device of the namespace file system.
    pub dev: u64,
    /// Inode, as in `net:[4026531840]`.
    pub ino: u64,
}

/// An open network namespace. Holding it keeps the namespace alive; clones are cheap.
#[derive(Debug, Clone)]
pub struct Netns {
    fd: Arc<OwnedFd>,
    path: PathBuf,
    id: NetnsId,
}

impl Netns {
    /// Opens the namespace at `path`, and checks that it is one and a network namespace.
    pub fn open(path: &Path) -> Result<Self> {
        let ns = Self::open_unchecked(path)?;
        let magic = fstatfs(&*ns.fd).map_err(|e| wrong(path, "cannot be examined", Some(e.into())))?;
        if magic.filesystem_type() != NSFS_MAGIC {
            return Err(wrong(path, "is not a namespace", None));
        }
        match kind(&ns.fd) {
            Ok(CLONE_NEWNET) => Ok(ns),
            Ok(_) => Err(wrong(path, "is not a network namespace", None)),
            Err(e) => Err(wrong(path, "cannot be examined", Some(e.into()))),
        }
    }

    /// The calling thread's namespace.
    pub fn current() -> Result<Self> {
        Self::open_unchecked(Path::new(CURRENT))
    }

    /// Opens a namespace of `ip netns`, by name.
    pub fn named(name: &str) -> Result<Self> {
        Self::open(&named_path(name)?)
    }

    /// What identifies it.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// The path it was opened by; the namespace there may be another one now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` inside the namespace, on a thread of its own, and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || {
            setns(&*self.fd, CloneFlags::CLONE_NEWNET)
                .map_err(|e| wrong(&self.path, "cannot be entered", Some(e.into())))?;
            Ok(work())
        };
        on_own_thread(inside).map_err(|e| wrong(&self.path, "needs a thread to enter it", Some(e)))?
    }

    fn open_unchecked(path: &Path) -> Result<Self> {
        // Not to block on a FIFO that somebody put in its place.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
            .open(path)
            .map_err(|e| wrong(path, "cannot be opened", Some(e)))?;
        let meta = file.metadata().map_err(|e| wrong(path, "cannot be examined", Some(e)))?;
        let id = NetnsId { dev: meta.dev(), ino: meta.ino() };
        Ok(Self { fd: Arc::new(file.into()), path: path.to_owned(), id })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs `work` inside the namespace at `path`, on a thread of its own.
pub fn with<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
    Netns::open(path)?.run(work)
}

/// Moves the calling thread into a namespace for good. For threads that their owner started for it.
pub fn enter(netns: &Netns) -> Result<()> {
    setns(netns, CloneFlags::CLONE_NEWNET)
        .map_err(|e| wrong(netns.path(), "cannot be entered", Some(e.into())))
}

/// What identifies the namespace at `path`, having checked that it is one.
pub fn id(path: &Path) -> Result<NetnsId> {
    Netns::open(path).map(|ns| ns.id())
}

/// Makes a namespace that `ip netns` sees under `name`. Its loopback link is down, as `ip netns add` leaves it.
pub fn create_named(name: &str) -> Result<Netns> {
    let path = named_path(name)?;
    let fail = |reason| {
        let path = path.clone();
        move |e: io::Error| wrong(&path, reason, Some(e))
    };
    prepare_directory().map_err(fail("cannot prepare /run/netns"))?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(&path)
        .map_err(fail("name cannot be created"))?;
    let made = on_own_thread(|| -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(Some(CURRENT), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    });
    match made.and_then(|r| r) {
        Ok(()) => Netns::open(&path),
        Err(e) => {
            let _ = fs::remove_file(&path);
            Err(fail("cannot be created")(e))
        }
    }
}

/// Removes a named namespace. It lives on while a process or an open [`Netns`] holds it; one that does not
/// exist is no error.
pub fn delete_named(name: &str) -> Result<()> {
    let path = named_path(name)?;
    match umount2(&path, MntFlags::MNT_DETACH) {
        // EINVAL: nothing mounted there, a left-over file.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(e) => return Err(wrong(&path, "cannot be unmounted", Some(e.into()))),
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(wrong(&path, "name cannot be removed", Some(e))),
        _ => Ok(()),
    }
}

/// Names of the namespaces that `ip netns` knows.
pub fn list_named() -> Result<Vec<String>> {
    let entries = match fs::read_dir(NAMED) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(wrong(Path::new(NAMED), "cannot be listed", Some(e))),
    };
    let mut names: Vec<String> =
        entries.filter_map(|e| e.ok().and_then(|e| e.file_name().into_string().ok())).collect();
    names.sort_unstable();
    Ok(names)
}

/// Path of a named namespace.
pub fn named_path(name: &str) -> Result<PathBuf> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(wrong(Path::new(name), "is no name for a namespace", None));
    }
    Ok(Path::new(NAMED).join(name))
}

/// As `ip netns add` does: a shared mount, so that names made or removed here show in other mount namespaces.
fn prepare_directory() -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(NAMED)?;
    let share =
        || mount(None::<&str>, NAMED, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    // Two creators at once would mount it over itself twice.
    let _lock = nix::fcntl::Flock::lock(File::open(NAMED)?, nix::fcntl::FlockArg::LockExclusive)
        .map_err(|(_, e)| io::Error::from(e))?;
    match share() {
        Ok(()) => Ok(()),
        Err(Errno::EINVAL) => {
            mount(Some(NAMED), NAMED, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
            share().map_err(Into::into)
        }
        Err(e) => Err(e.into()),
    }
}

/// Which kind of namespace a descriptor is, as `clone`'s flag for it (`linux/nsfs.h` `NS_GET_NSTYPE`, since 4.11).
#[allow(unsafe_code, reason = "the ioctl takes a descriptor and returns a number")]
fn kind(fd: &OwnedFd) -> Result<i32, Errno> {
    nix::ioctl_none!(get_kind, 0xb7, 0x3);
    // SAFETY: the descriptor is open while it is borrowed, and this request neither reads nor writes memory.
    unsafe { get_kind(fd.as_raw_fd()) }
}

/// Runs `work` on a new thread and waits; a panic goes on in the caller.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let handle = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        Ok(handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn wrong(path: &Path, reason: &'static str, source: Option<io::Error>) -> Error {
    Error::Netns { path: path.to_owned(), reason, source }
}
