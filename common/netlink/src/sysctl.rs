//! Sysctls of the network, by file. They are those of the calling thread's namespace; inside another one
//! use [`crate::Netns::run`].

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::Family;
use crate::error::{Error, Result};

const ROOT: &str = "/proc/sys/net";

/// The switches of one namespace, its folders opened once.
///
/// For who sets many: the kernel finds `/proc/sys/net/ipv4` in a list that is as long as there are namespaces whose
/// switches anybody has touched, so that with a thousand workloads the way there costs more than the switch.
#[derive(Debug)]
pub struct Sysctls {
    v4: OwnedFd,
    /// Absent while the kernel has no IPv6.
    v6: Option<OwnedFd>,
}

impl Sysctls {
    /// Those of the calling thread's namespace, from wherever they are set later.
    pub fn open() -> Result<Self> {
        let folder = |family: &str| open(&Path::new(ROOT).join(family));
        let v6 = match folder("ipv6") {
            Ok(fd) => Some(fd),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(failed(Path::new(ROOT).join("ipv6"), "cannot be opened", errno)),
        };
        let v4 = folder("ipv4")
            .map_err(|errno| failed(Path::new(ROOT).join("ipv4"), "cannot be opened", errno))?;
        Ok(Self { v4, v6 })
    }

    /// Like [`set_for_interface`].
    pub fn set_for_interface(&self, family: Family, interface: &str, key: &str, value: &str) -> Result<bool> {
        self.write(family, "conf", interface, key, value)
    }

    /// Like [`set_for_neighbours`].
    pub fn set_for_neighbours(
        &self,
        family: Family,
        interface: &str,
        key: &str,
        value: &str,
    ) -> Result<bool> {
        self.write(family, "neigh", interface, key, value)
    }

    /// Whether an interface has a switch.
    pub fn has(&self, family: Family, interface: &str, key: &str) -> Result<bool> {
        let full = interface_path(family, "conf", interface, key)?;
        match self.file(family, &below(family, &full), OFlag::O_PATH) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(failed(full, "cannot be opened", errno)),
        }
    }

    fn write(&self, family: Family, what: &str, interface: &str, key: &str, value: &str) -> Result<bool> {
        let full = interface_path(family, what, interface, key)?;
        let path = below(family, &full);
        let equal = |fd: OwnedFd| {
            let mut now = String::new();
            File::from(fd).read_to_string(&mut now).is_ok() && now.trim() == value
        };
        if self.file(family, &path, OFlag::O_RDONLY).is_ok_and(equal) {
            return Ok(false);
        }
        let fd = self.file(family, &path, OFlag::O_WRONLY);
        let fd = fd.map_err(|errno| failed(full.clone(), "cannot be written", errno))?;
        match File::from(fd).write_all(value.as_bytes()) {
            Ok(()) => Ok(true),
            Err(source) => {
                Err(Error::Sysctl { path: full, reason: "cannot be written", source: Some(source) })
            }
        }
    }

    fn file(&self, family: Family, path: &Path, flags: OFlag) -> std::result::Result<OwnedFd, Errno> {
        let folder = match family {
            Family::V4 => &self.v4,
            Family::V6 => self.v6.as_ref().ok_or(Errno::ENOENT)?,
        };
        openat(folder, path, flags | OFlag::O_CLOEXEC, Mode::empty())
    }
}

fn open(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// A path as seen from its family's folder.
fn below(family: Family, full: &Path) -> PathBuf {
    full.strip_prefix(Path::new(ROOT).join(folder(family))).unwrap_or(full).to_owned()
}

fn folder(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn failed(path: PathBuf, reason: &'static str, errno: Errno) -> Error {
    Error::Sysctl { path, reason, source: Some(errno.into()) }
}

/// Sets `net.<family>.conf.<interface>.<key>`, where `interface` may be `all` or `default`. Returns
/// whether it had to be changed; an equal value is not written.
pub fn set_for_interface(family: Family, interface: &str, key: &str, value: &str) -> Result<bool> {
    write(interface_path(family, "conf", interface, key)?, value)
}

/// Reads `net.<family>.conf.<interface>.<key>`; `None` if the interface or the key does not exist.
pub fn read_for_interface(family: Family, interface: &str, key: &str) -> Result<Option<String>> {
    read_path(interface_path(family, "conf", interface, key)?)
}

/// Sets `net.<family>.neigh.<interface>.<key>`, like [`set_for_interface`].
pub fn set_for_neighbours(family: Family, interface: &str, key: &str, value: &str) -> Result<bool> {
    write(interface_path(family, "neigh", interface, key)?, value)
}

/// Sets `net.<key>`, the key with slashes such as `ipv4/ip_forward`. Returns whether it had to be changed.
pub fn set(key: &str, value: &str) -> Result<bool> {
    write(path(key)?, value)
}

/// Reads `net.<key>`; `None` if it does not exist.
pub fn read(key: &str) -> Result<Option<String>> {
    read_path(path(key)?)
}

fn interface_path(family: Family, what: &str, interface: &str, key: &str) -> Result<PathBuf> {
    // An interface name may hold dots, which is why the path is built from parts.
    let path = Path::new(ROOT).join(folder(family)).join(what).join(interface).join(key);
    if [interface, key].iter().all(|part| is_name(part)) { Ok(path) } else { Err(no_name(path)) }
}

fn path(key: &str) -> Result<PathBuf> {
    let path = Path::new(ROOT).join(key);
    if key.split('/').all(is_name) { Ok(path) } else { Err(no_name(path)) }
}

fn is_name(part: &str) -> bool {
    !part.is_empty() && part != "." && part != ".." && !part.contains(['/', '\0'])
}

fn no_name(path: PathBuf) -> Error {
    Error::Sysctl { path, reason: "no such name can exist", source: None }
}

fn write(path: PathBuf, value: &str) -> Result<bool> {
    let fail =
        |path: PathBuf, source| Error::Sysctl { path, reason: "cannot be written", source: Some(source) };
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(false);
    }
    match fs::write(&path, value) {
        Ok(()) => Ok(true),
        Err(e) => Err(fail(path, e)),
    }
}

fn read_path(path: PathBuf) -> Result<Option<String>> {
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Sysctl { path, reason: "cannot be read", source: Some(source) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opened_folders_lead_to_the_same_switches() {
        let sysctls = Sysctls::open().unwrap();
        let now = read_for_interface(Family::V4, "lo", "forwarding").unwrap().unwrap();
        assert!(sysctls.has(Family::V4, "lo", "forwarding").unwrap());
        assert!(!sysctls.has(Family::V4, "lo", "no_such_key").unwrap());
        assert!(
            !sysctls.set_for_interface(Family::V4, "lo", "forwarding", &now).unwrap(),
            "it has that value"
        );
        let err = sysctls.set_for_interface(Family::V4, "no-such-link", "forwarding", "1").unwrap_err();
        assert!(err.to_string().contains("/proc/sys/net/ipv4/conf/no-such-link/forwarding"), "{err}");
        assert!(sysctls.set_for_neighbours(Family::V4, "..", "proxy_delay", "0").is_err());
    }

    #[test]
    fn a_name_cannot_leave_its_place() {
        for bad in ["", ".", "..", "a/b"] {
            assert!(set_for_interface(Family::V4, bad, "forwarding", "1").is_err(), "{bad:?}");
            assert!(read_for_interface(Family::V4, "lo", bad).is_err(), "{bad:?}");
        }
        assert!(read("ipv4/../../kernel/hostname").is_err());
        assert_eq!(read("ipv4/no_such_key").unwrap(), None);
    }
}
