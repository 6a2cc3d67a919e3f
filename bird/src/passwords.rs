//! The passwords of BGP sessions: a file, or a directory as Kubernetes mounts secrets, read again when it changes.
//!
//! What is known stays until something better is read: a file that vanishes, cannot be parsed or is open to everybody takes
//! no password away, because a session without its password is worse than one with the last. Nothing here prints a password,
//! and errors of the YAML parser, which could quote one, are reduced to their line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bird_intent::SecretRef;

use crate::plan::Secret;
use crate::sock::MAX_MD5_KEY;

/// Names the file or directory of BGP passwords.
pub const VARIABLE: &str = "CARACAL_BGP_PASSWORDS";

/// Which secrets the environment of this process gives access to, and what is wrong there.
pub fn known() -> (BTreeSet<SecretRef>, Vec<String>) {
    let mut passwords = Passwords::from_env();
    let complaints = passwords.read().complaints;
    (passwords.known.into_keys().collect(), complaints)
}

/// The passwords that are known, and where they are from.
#[derive(Default)]
pub(crate) struct Passwords {
    path: Option<PathBuf>,
    /// What the files looked like when they were read.
    seen: Option<Vec<Look>>,
    said: Vec<String>,
    known: BTreeMap<SecretRef, Secret>,
}

/// What tells that a file is another than before.
type Look = (PathBuf, u64, u64, i64, i64, u64, u32);

/// What reading brought.
#[derive(Default)]
struct Outcome {
    /// Other passwords than before.
    changed: bool,
    /// Each with its fix.
    complaints: Vec<String>,
}

impl Passwords {
    /// From the file or directory that the environment names; none: no passwords.
    pub(crate) fn from_env() -> Self {
        Self::at(std::env::var_os(VARIABLE).filter(|p| !p.is_empty()).map(PathBuf::from))
    }

    fn at(path: Option<PathBuf>) -> Self {
        Self { path, ..Self::default() }
    }

    /// The password of a secret.
    pub(crate) fn get(&self, secret: &SecretRef) -> Option<&Secret> {
        self.known.get(secret)
    }

    /// Every secret with a password.
    pub(crate) fn secrets(&self) -> BTreeSet<SecretRef> {
        self.known.keys().cloned().collect()
    }

    /// Reads again what changed since the last time, and says once what is wrong; true when passwords changed.
    pub(crate) fn reload(&mut self) -> bool {
        let Some(path) = &self.path else { return false };
        let look = look(path);
        if self.seen.as_ref() == Some(&look) {
            return false;
        }
        let path = path.display().to_string();
        let outcome = self.read();
        self.seen = Some(look);
        for complaint in outcome.complaints.iter().filter(|c| !self.said.contains(c)) {
            tracing::warn!(
                path,
                err = complaint,
                "BGP passwords are not taken as they are; those known stay"
            );
        }
        self.said = outcome.complaints;
        if outcome.changed {
            tracing::info!(path, count = self.known.len(), "BGP passwords read");
        }
        outcome.changed
    }

    fn read(&mut self) -> Outcome {
        let Some(path) = &self.path else { return Outcome::default() };
        let mut complaints = Vec::new();
        let texts = if path.is_dir() { directory(path, &mut complaints) } else { file(path) };
        let texts = match texts {
            Ok(texts) => texts,
            Err(err) => return Outcome { changed: false, complaints: vec![err] },
        };
        let mut known = BTreeMap::new();
        for (secret, text) in texts {
            match password(text) {
                Ok(password) => {
                    known.insert(secret, password);
                }
                Err(why) => {
                    complaints.push(format!("key {} of secret {}: {why}", secret.key, secret.name));
                    if let Some(last) = self.known.get(&secret) {
                        known.insert(secret, last.clone());
                    }
                }
            }
        }
        let changed = known != self.known;
        self.known = known;
        Outcome { changed, complaints }
    }
}

/// Checks a password's form.
pub(crate) fn password(text: String) -> Result<Secret, String> {
    if text.is_empty() || text.len() > MAX_MD5_KEY || text.contains('\0') {
        return Err(format!("a BGP password has 1 to {MAX_MD5_KEY} octets and no NUL; it is not used"));
    }
    Ok(Secret(text.into_bytes()))
}

/// Reads a password that stands alone in a file, without the end of its line.
pub(crate) fn alone(path: &Path) -> Result<Secret, String> {
    let cannot = |err: &dyn std::fmt::Display| format!("{}: {err}", path.display());
    let text = guarded(path)?;
    password(text.trim_end_matches(['\n', '\r']).to_owned()).map_err(|err| cannot(&err))
}

type Texts = Vec<(SecretRef, String)>;

/// YAML, secret -> key -> password.
fn file(path: &Path) -> Result<Texts, String> {
    let text = guarded(path)?;
    let parsed: BTreeMap<String, BTreeMap<String, String>> = serde_yaml::from_str(&text).map_err(|e| {
        let line = e.location().map_or_else(String::new, |l| format!(", line {}", l.line()));
        format!(
            "{}: not YAML of the form secret: {{ key: password }}{line}; write passwords in quotes",
            path.display()
        )
    })?;
    let of = |(name, keys): (String, BTreeMap<String, String>)| {
        keys.into_iter().map(move |(key, text)| (SecretRef { name: name.clone(), key }, text))
    };
    Ok(parsed.into_iter().flat_map(of).collect())
}

/// `SECRET/KEY`, as Kubernetes mounts secrets; what begins with a dot is its bookkeeping.
fn directory(path: &Path, complaints: &mut Vec<String>) -> Result<Texts, String> {
    let mut texts = Vec::new();
    for secret in entries(path)? {
        let folder = path.join(&secret);
        if !folder.is_dir() {
            complaints.push(format!(
                "{}: neither a directory nor wanted here; passwords are in {}/SECRET/KEY",
                folder.display(),
                path.display()
            ));
            continue;
        }
        for key in entries(&folder)? {
            match guarded(&folder.join(&key)) {
                Ok(text) => texts.push((
                    SecretRef { name: secret.clone(), key },
                    text.trim_end_matches(['\n', '\r']).to_owned(),
                )),
                // One bad file must not take the others' passwords away: nothing is taken.
                Err(err) => return Err(err),
            }
        }
    }
    Ok(texts)
}

fn entries(path: &Path) -> Result<Vec<String>, String> {
    let cannot = |err: std::io::Error| format!("{}: cannot be read: {err}", path.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name();
        names.extend(name.to_str().filter(|n| !n.starts_with('.')).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// The text of a file that only its owner may write, and not everybody may read.
fn guarded(path: &Path) -> Result<String, String> {
    let cannot = |err: std::io::Error| format!("{}: cannot be read: {err}", path.display());
    check(&std::fs::metadata(path).map_err(cannot)?).map_err(|why| format!("{}: {why}", path.display()))?;
    std::fs::read_to_string(path).map_err(cannot)
}

fn check(meta: &Metadata) -> Result<(), String> {
    let mode = meta.mode() & 0o777;
    let why = match (mode & 0o022, mode & 0o004) {
        (0, 0) => return Ok(()),
        (0, _) => "everybody may read it",
        _ => "others than its owner may write it",
    };
    Err(format!(
        "has mode {mode:04o}: {why}, so it is not used; chmod 0600 it, or 0640 with a group of its own (in Kubernetes \
         defaultMode: 0400)"
    ))
}

/// How everything below a path looks.
fn look(path: &Path) -> Vec<Look> {
    let mut looks = Vec::new();
    let mut see = |path: PathBuf| {
        if let Ok(m) = std::fs::metadata(&path) {
            looks.push((path, m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.len(), m.mode()));
        }
    };
    see(path.to_owned());
    if path.is_dir() {
        for secret in entries(path).unwrap_or_default() {
            let folder = path.join(secret);
            for key in entries(&folder).unwrap_or_default() {
                see(folder.join(key));
            }
            see(folder);
        }
    }
    looks
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn secret(name: &str, key: &str) -> SecretRef {
        SecretRef { name: name.into(), key: key.into() }
    }

    fn of(passwords: &Passwords, name: &str, key: &str) -> Option<String> {
        Some(String::from_utf8(passwords.get(&secret(name, key))?.0.clone()).unwrap())
    }

    #[test]
    fn a_file_is_read_again_when_it_changes_and_what_is_known_stays_when_it_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords.yaml");
        let mut passwords = Passwords::at(Some(path.clone()));
        assert!(!passwords.reload(), "there is no file yet");
        assert!(passwords.said[0].contains("cannot be read"), "{:?}", passwords.said);
        write(&path, "bgp: { tor: first, spine: other }\n", 0o600);
        assert!(passwords.reload());
        assert!(!passwords.reload(), "nothing changed");
        assert_eq!(of(&passwords, "bgp", "tor").as_deref(), Some("first"));
        write(&path, "bgp: { tor: second! }\n", 0o600);
        assert!(passwords.reload());
        assert_eq!(of(&passwords, "bgp", "tor").as_deref(), Some("second!"));
        assert_eq!(passwords.secrets().len(), 1);
        for (text, mode, needle) in [
            ("bgp: { tor: third }", 0o604, "has mode 0604: everybody may read it"),
            ("bgp: { tor: third }", 0o660, "others than its owner may write it"),
            ("bgp: { tor: [third] }", 0o600, "line 1"),
            ("bgp:\n  tor: {third: x}\n", 0o600, "line 2"),
        ] {
            write(&path, text, mode);
            assert!(!passwords.reload(), "{text}");
            assert!(passwords.said[0].contains(needle), "{:?}", passwords.said);
            assert!(!passwords.said[0].contains("third"), "a complaint shows the password");
            assert_eq!(of(&passwords, "bgp", "tor").as_deref(), Some("second!"));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(!passwords.reload());
        assert_eq!(of(&passwords, "bgp", "tor").as_deref(), Some("second!"));
        write(&path, &format!("bgp: {{ tor: {}, spine: fine }}", "x".repeat(81)), 0o640);
        assert!(passwords.reload());
        assert!(passwords.said[0].contains("key tor of secret bgp: a BGP password has 1 to 80"));
        assert_eq!(of(&passwords, "bgp", "tor").as_deref(), Some("second!"), "the last good one stays");
        assert_eq!(of(&passwords, "bgp", "spine").as_deref(), Some("fine"));
    }

    #[test]
    fn a_directory_is_read_as_kubernetes_mounts_it() {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join("bgp");
        // ..data points at a directory with a date, the keys at ..data.
        for (version, text) in [("..1", "first\n"), ("..2", "second\n")] {
            std::fs::create_dir_all(mount.join(version)).unwrap();
            write(&mount.join(version).join("tor"), text, 0o400);
        }
        std::os::unix::fs::symlink("..1", mount.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/tor", mount.join("tor")).unwrap();
        let mut passwords = Passwords::at(Some(dir.path().to_owned()));
        assert!(passwords.reload());
        assert_eq!(of(&passwords, "bgp", "tor").as_deref(), Some("first"));
        assert_eq!(passwords.secrets(), BTreeSet::from([secret("bgp", "tor")]));
        std::os::unix::fs::symlink("..2", mount.join("..new")).unwrap();
        std::fs::rename(mount.join("..new"), mount.join("..data")).unwrap();
        assert!(passwords.reload());
        assert_eq!(of(&passwords, "bgp", "tor").as_deref(), Some("second"));
    }

    #[test]
    fn nothing_prints_a_password() {
        let shown = format!("{:?}", password("hush".into()).unwrap());
        assert!(!shown.contains("hush") && !shown.contains("104"), "{shown}");
    }
}
