//! Results: the file in which a run is recorded, and the table made of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::features::FEATURES;
use crate::peers::Kind;

/// Where a run is recorded.
pub(crate) fn record() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/results.json")
}

/// How a cell ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Good,
    /// What was asserted held, but the daemon cannot everything: what not.
    Partly(String),
    /// The daemon cannot: why.
    Lacks(String),
    Failed(String),
}

/// A run of the whole matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Results {
    /// By name of the daemon.
    pub(crate) versions: BTreeMap<String, String>,
    /// By name of the daemon and of the feature.
    pub(crate) cells: BTreeMap<(String, String), Outcome>,
}

impl Results {
    pub(crate) fn to_json(&self) -> String {
        let mut cells = serde_json::Map::new();
        for ((kind, feature), outcome) in &self.cells {
            let value = match outcome {
                Outcome::Good => json!("ok"),
                Outcome::Partly(why) => json!({ "partly": why }),
                Outcome::Lacks(why) => json!({ "lacks": why }),
                Outcome::Failed(why) => json!({ "failed": why }),
            };
            cells.insert(format!("{kind} {feature}"), value);
        }
        let all = json!({ "versions": self.versions, "cells": cells });
        format!("{all:#}\n")
    }

    pub(crate) fn from_json(text: &str) -> anyhow::Result<Self> {
        let all: Value = serde_json::from_str(text)?;
        let mut results = Self::default();
        for (kind, version) in all["versions"].as_object().context("versions")? {
            results.versions.insert(kind.clone(), version.as_str().context("version")?.to_owned());
        }
        for (key, value) in all["cells"].as_object().context("cells")? {
            let (kind, feature) = key.split_once(' ').with_context(|| format!("cell {key}"))?;
            let word = |word: &str| value[word].as_str().map(str::to_owned);
            let outcome = match (value.as_str(), word("partly"), word("lacks"), word("failed")) {
                (Some("ok"), ..) => Outcome::Good,
                (_, Some(why), ..) => Outcome::Partly(why),
                (_, _, Some(why), _) => Outcome::Lacks(why),
                (.., Some(why)) => Outcome::Failed(why),
                _ => anyhow::bail!("cell {key}: neither ok, partly, lacks nor failed"),
            };
            results.cells.insert((kind.to_owned(), feature.to_owned()), outcome);
        }
        Ok(results)
    }

    /// What keeps these results from being those of the matrix as it is now.
    pub(crate) fn out_of_step(&self) -> Vec<String> {
        let mut wanted: Vec<(String, String)> = Vec::new();
        for kind in Kind::ALL {
            wanted.extend(FEATURES.iter().map(|f| (kind.name().to_owned(), f.name.to_owned())));
        }
        let missing = wanted.iter().filter(|c| !self.cells.contains_key(c));
        let missing = missing.map(|(k, f)| format!("{k} {f}: not recorded"));
        let unknown = self.cells.keys().filter(|c| !wanted.contains(c));
        missing.chain(unknown.map(|(k, f)| format!("{k} {f}: no such cell any more"))).collect()
    }

    /// The recorded run.
    pub(crate) fn recorded() -> anyhow::Result<Self> {
        let path = record();
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Self::from_json(&text).with_context(|| path.display().to_string())
    }

    /// What is wrong with a table: it is not of the recorded run, or that is not of this matrix.
    pub(crate) fn check(table: &Path) -> anyhow::Result<Vec<String>> {
        let results = Self::recorded()?;
        let mut wrong = results.out_of_step();
        let text = std::fs::read_to_string(table).with_context(|| table.display().to_string())?;
        if text != results.to_markdown() {
            wrong.push(format!("{}: is not the table of {}", table.display(), record().display()));
        }
        Ok(wrong)
    }

    /// The table and its legend.
    pub(crate) fn to_markdown(&self) -> String {
        let mut text = String::from(HEAD);
        let mut notes: Vec<&str> = Vec::new();
        text += "| feature |";
        for kind in Kind::ALL {
            let version = self.versions.get(kind.name()).map_or("not run", String::as_str);
            let _ = write!(text, " {} {version} |", kind.name());
        }
        text += "\n|---|";
        text += &"---|".repeat(Kind::ALL.len());
        text.push('\n');
        for feature in FEATURES {
            let _ = write!(text, "| {} |", feature.title);
            for kind in Kind::ALL {
                let key = (kind.name().to_owned(), feature.name.to_owned());
                let mut note = |word: &str, why| {
                    let at = notes.iter().position(|n| *n == why).unwrap_or_else(|| {
                        notes.push(why);
                        notes.len() - 1
                    });
                    format!("{word} ({})", at + 1)
                };
                let cell = match self.cells.get(&key) {
                    Some(Outcome::Good) => "ok".to_owned(),
                    Some(Outcome::Partly(why)) => note("partly", why),
                    Some(Outcome::Lacks(why)) => note("–", why),
                    Some(Outcome::Failed(why)) => note("**failed**", why),
                    None => "not run".to_owned(),
                };
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
        text.push('\n');
        for (at, why) in notes.iter().enumerate() {
            let _ = writeln!(text, "{}. {why}", at + 1);
        }
        text += "\n## What each row asserts\n\n";
        for feature in FEATURES {
            let _ = writeln!(text, "- **{}**: {}.", feature.title, feature.what);
        }
        text
    }
}

const HEAD: &str = "\
# Interoperation with other BGP speakers

Written by `cargo run -p integration --bin interop -- --write docs/interop.md`; do not edit. Each cell is a real daemon \
(the Debian package of that version) and `caracal bird --config`, each in its own network namespace on one LAN. Every \
cell asserts at both ends: ours by what `caracal ctl bgp` asks and by the kernel's routes, theirs by its own client (`birdc`, \
`vtysh`, `gobgp`, `bgpctl`, ExaBGP's reports), and, where neither would know, by a packet capture.

`ok`: everything asserted held. `partly`: what was asserted held, and the note says what that daemon cannot. `–`: it cannot \
do it, or not in this version; the note says why.

";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn the_table_in_the_docs_is_of_the_recorded_results_and_of_this_matrix() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/interop.md");
        assert_eq!(
            Results::check(&docs).unwrap(),
            Vec::<String>::new(),
            "run interop --write docs/interop.md"
        );
    }

    #[test]
    fn results_survive_their_file() {
        let mut results = Results::default();
        results.versions.insert("BIRD".into(), "2.0.12".into());
        let cell = |feature: &str| ("BIRD".to_owned(), feature.to_owned());
        results.cells.insert(cell("ebgp"), Outcome::Good);
        results.cells.insert(cell("ibgp"), Outcome::Failed("no session".into()));
        results.cells.insert(cell("dual"), Outcome::Partly("half".into()));
        results.cells.insert(cell("gone"), Outcome::Lacks("not built".into()));
        assert_eq!(Results::from_json(&results.to_json()).unwrap(), results);
        assert!(results.out_of_step().iter().any(|line| line == "BIRD gone: no such cell any more"));
        assert!(results.out_of_step().iter().any(|line| line == "FRR ebgp: not recorded"));
        let table = results.to_markdown();
        assert!(table.contains("| **failed** (1) |") && table.contains("| partly (2) |"), "{table}");
    }
}
