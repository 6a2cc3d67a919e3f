//! What is built on has a licence and a source that deny.toml allows. `cargo deny check` says the same, and advisories too,
//! where it is installed; this needs nothing but cargo.

use std::path::Path;
use std::process::Command;

/// The words in quotes of the first list in `text` that is called `name`.
fn list<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let body = text.split_once(&format!("{name} = [")).and_then(|(_, rest)| rest.split_once(']'));
    body.expect("deny.toml has this list").0.split('"').skip(1).step_by(2).collect()
}

/// Whether these licences do for an SPDX expression. A nested one is read more strictly than it is meant, never less.
fn fulfilled(expression: &str, allowed: &[&str]) -> bool {
    let flat = expression.replace(['(', ')'], "").replace('/', " OR ");
    flat.split(" AND ").all(|part| part.split(" OR ").any(|licence| allowed.contains(&licence.trim())))
}

#[test]
fn every_dependency_has_a_licence_and_a_source_that_deny_toml_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let deny = std::fs::read_to_string(root.join("deny.toml")).expect("deny.toml");
    let exceptions: Vec<&str> = deny.split("[[licenses.exceptions]]").skip(1).collect();
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--format-version", "1", "--locked", "--manifest-path"]);
    let output = metadata.arg(root.join("Cargo.toml")).output().expect("cargo metadata runs");
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let mut wrong = Vec::new();
    for package in packages.iter().filter(|p| !p["source"].is_null()) {
        let (name, licence) = (package["name"].as_str().unwrap_or("?"), package["license"].as_str());
        let own = exceptions.iter().find(|text| text.contains(&format!("name = \"{name}\"")));
        if !licence.is_some_and(|text| fulfilled(text, &list(own.unwrap_or(&deny.as_str()), "allow"))) {
            wrong.push(format!(
                "{name}: deny.toml does not allow {licence:?}; use another crate or add it there"
            ));
        }
        if package["source"] != "registry+https://github.com/rust-lang/crates.io-index" {
            wrong.push(format!("{name}: is from {}; use a release of crates.io", package["source"]));
        }
    }
    assert!(packages.len() > 100 && wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn expressions_are_read() {
    for (expression, with_mit, with_both) in [
        ("MIT", true, true),
        ("GPL-3.0", false, false),
        ("Apache-2.0 / MIT", true, true),
        ("(MIT OR GPL-3.0) AND ISC", false, true),
        ("ISC WITH LLVM-exception", false, false),
    ] {
        let read = (fulfilled(expression, &["MIT"]), fulfilled(expression, &["MIT", "ISC"]));
        assert_eq!(read, (with_mit, with_both), "{expression}");
    }
}
