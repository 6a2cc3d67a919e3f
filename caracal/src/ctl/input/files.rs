//! Which texts `-f` names.

use std::io::Read as _;
use std::path::{Path, PathBuf};

/// One text with its name for messages.
#[derive(Debug)]
pub(crate) struct Source {
    /// The path as found, `-` for standard input.
    pub(crate) name: String,
    /// The content.
    pub(crate) text: String,
}

/// The text of `-`, of a file, or of every .yaml, .yml and .json file of a directory in order of names, its
/// subdirectories too if `recursive`.
pub(crate) fn sources(name: &str, recursive: bool) -> Result<Vec<Source>, String> {
    if name == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|e| format!("failed to execute command: read standard input: {e}"))?;
        return Ok(vec![Source { name: name.to_owned(), text }]);
    }
    let path = Path::new(name);
    if !path.is_dir() {
        return Ok(vec![read(path)?]);
    }
    let mut files = Vec::new();
    walk(path, recursive, &mut files)?;
    files.iter().map(|file| read(file)).collect()
}

fn read(path: &Path) -> Result<Source, String> {
    let name = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Source { name, text }),
            Err(e) => Err(format!("failed to execute command: {name} is not UTF-8 text: {e}")),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("failed to execute command: open {name}: no such file or directory"))
        }
        Err(e) => Err(format!("failed to execute command: open {name}: {e}")),
    }
}

fn walk(directory: &Path, recursive: bool, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let fail =
        |e: std::io::Error| format!("failed to execute command: read directory {}: {e}", directory.display());
    let mut entries: Vec<PathBuf> = std::fs::read_dir(directory)
        .map_err(fail)?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()
        .map_err(fail)?;
    entries.sort();
    for path in entries {
        // A link to a directory is no directory here, so a circle of links ends.
        let kind = path.symlink_metadata().map_err(fail)?;
        if kind.is_dir() {
            if recursive {
                walk(&path, recursive, files)?;
            }
        } else if path
            .extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| ["yaml", "yml", "json"].contains(&e.to_ascii_lowercase().as_str()))
        {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_walked_in_order_of_names() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("sub/deep")).unwrap();
        for name in ["b.YML", "a.yaml", "notes.txt", "sub/e.yaml", "sub/deep/h.json"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let root = dir.path().to_str().unwrap();
        let texts =
            |recursive| sources(root, recursive).unwrap().into_iter().map(|s| s.text).collect::<Vec<_>>();
        assert_eq!(texts(false), ["a.yaml", "b.YML"]);
        assert_eq!(texts(true), ["a.yaml", "b.YML", "sub/deep/h.json", "sub/e.yaml"]);
        let missing = sources("absent.yaml", false).unwrap_err();
        assert_eq!(missing, "failed to execute command: open absent.yaml: no such file or directory");
    }
}
