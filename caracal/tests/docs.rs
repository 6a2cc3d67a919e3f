//! Links between the project's Markdown files lead somewhere, and no manual is left out of the README.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn manuals(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect();
    found.sort();
    found
}

#[test]
fn links_lead_to_files() {
    let root = root();
    let dirs = [
        "",
        "docs",
        "manifests",
        "integration",
        "integration/bench/node",
        "integration/bench/bgpload",
        "bird/fuzz",
    ];
    let mut seen = 0;
    for file in dirs.iter().flat_map(|dir| manuals(&root.join(dir))) {
        let text = fs::read_to_string(&file).expect("a text");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.contains(' ') {
                continue;
            }
            seen += 1;
            let there = file.parent().expect("a directory").join(path).exists();
            assert!(there, "{}: the link to {target} leads nowhere", file.display());
        }
    }
    assert!(seen > 10, "links were looked at: {seen}");
}

#[test]
fn the_readme_names_every_manual() {
    let root = root();
    let readme = fs::read_to_string(root.join("README.md")).expect("a text");
    for file in manuals(&root.join("docs")) {
        let name = file.file_name().expect("a name").to_string_lossy();
        assert!(readme.contains(&format!("(docs/{name})")), "README.md does not name docs/{name}");
    }
}
