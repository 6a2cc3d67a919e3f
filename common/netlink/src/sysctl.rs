//! Sysctls of the network, by file. They are those of the calling thread's namespace; inside another one
//! use [`crate::Netns::run`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Family;
use crate::error::{Error, Result};

const ROOT: &str = "/proc/sys/net";

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
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    // An interface name may hold dots, which is why the path is built from parts.
    let path = Path::new(ROOT).join(family).join(what).join(interface).join(key);
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
    fn a_name_cannot_leave_its_place() {
        for bad in ["", ".", "..", "a/b"] {
            assert!(set_for_interface(Family::V4, bad, "forwarding", "1").is_err(), "{bad:?}");
            assert!(read_for_interface(Family::V4, "lo", bad).is_err(), "{bad:?}");
        }
        assert!(read("ipv4/../../kernel/hostname").is_err());
        assert_eq!(read("ipv4/no_such_key").unwrap(), None);
    }
}
