//! What `ipam check` writes and `ipam release --from-report` reads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The state of a cluster's addresses at one time.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Report {
    /// Of the program that wrote it.
    pub(super) version: String,
    #[serde(rename = "clusterGUID")]
    pub(super) cluster_guid: String,
    pub(super) datastore_locked: bool,
    pub(super) cluster_information_revision: String,
    pub(super) cluster_type: String,
    /// By address.
    pub(super) allocations: BTreeMap<String, Vec<Allocation>>,
    /// Handles that no block mentions.
    pub(super) leaked_handles: Option<Vec<LeakedHandle>>,
}

/// One allocated address.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Allocation {
    pub(super) ip: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) handle: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sequence_number: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) pod: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) node: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub(super) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) creation_timestamp: String,
    pub(super) in_use: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) borrowed: bool,
    /// Objects that use it.
    pub(super) owners: Option<Vec<String>>,
}

/// A handle and the revision at which it was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct LeakedHandle {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(rename = "UID")]
    pub(super) uid: Option<String>,
    #[serde(rename = "Revision")]
    pub(super) revision: String,
}

impl Report {
    /// Reads a report.
    pub(super) fn read(file: &str) -> Result<Report, String> {
        let text =
            std::fs::read_to_string(file).map_err(|e| format!("cannot read the report {file}: {e}"))?;
        serde_json::from_str(&text).map_err(|e| format!("{file} is not a report of ipam check: {e}"))
    }

    /// The allocations that nobody uses.
    pub(super) fn leaks(&self) -> impl Iterator<Item = &Allocation> {
        self.allocations.values().flatten().filter(|a| !a.in_use)
    }
}
