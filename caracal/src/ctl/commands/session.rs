//! From flags to a client: the configuration, the connection, and the check that program and cluster fit together.

use std::path::Path;

use caracal_datastore::Config;
use serde_json::Value;

use crate::ctl::args::Connection;
use crate::ctl::client::Client;

/// This program's version.
pub(super) const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));
/// Versions of Calico whose objects this program reads and writes as they do.
const CALICO: [&str; 2] = ["3.32", "3.33"];

/// Connects and refuses a cluster of a version that does not fit, unless that is allowed.
pub(in crate::ctl) async fn open(connection: &Connection, allow_mismatch: bool) -> Result<Client, String> {
    let client = connect(connection).await?;
    if !allow_mismatch {
        check_version(&client).await?;
    }
    Ok(client)
}

/// Connects, whatever the cluster's version.
pub(in crate::ctl) async fn connect(connection: &Connection) -> Result<Client, String> {
    let failed = |error: caracal_datastore::Error| format!("Failed to create Calico API client: {error}");
    let config = config(&connection.config)?;
    Client::connect(&config).await.map_err(failed)
}

fn config(file: &str) -> Result<Config, String> {
    let path = Path::new(file);
    let named = file != caracal_datastore::DEFAULT_FILE;
    if named && !path.exists() {
        return Err(format!("Error reading config file: {file} (no such file)"));
    }
    let lookup = |name: &str| std::env::var(name).ok();
    Config::load(named.then_some(path), &lookup)
        .map_err(|error| format!("Failed to create Calico API client: {error}"))
}

async fn check_version(client: &Client) -> Result<(), String> {
    let found = client
        .cluster_information()
        .await
        .map_err(|e| format!("unable to get Cluster Information to verify version mismatch: {e}"))?;
    let cluster = found
        .as_ref()
        .and_then(|f| f.value.pointer("/spec/calicoVersion"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    if fits(cluster) {
        return Ok(());
    }
    let bare = cluster.trim_start_matches('v');
    Err(format!(
        "version mismatch.\nClient Version:   {VERSION} (Calico v{})\nCluster Version:  {bare}\nUse --allow-version-mismatch to override",
        CALICO.join(", v")
    ))
}

/// Whether objects of a cluster of that version are ours: no version, our own, or a known one of Calico.
fn fits(cluster: &str) -> bool {
    let bare = cluster.trim_start_matches('v');
    let minor = bare.split(['-', '+']).next().and_then(|v| v.rsplit_once('.')).map_or("", |(minor, _)| minor);
    bare.is_empty() || cluster == VERSION || CALICO.contains(&minor) || CALICO.contains(&bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_fit() {
        for version in ["", VERSION, "v3.33.0", "3.32.1", "v3.33.0-0.dev-12-gabc", "v3.33"] {
            assert!(fits(version), "{version}");
        }
        for version in ["v0.0.1", "v3.31.2", "v3.330.0", "master"] {
            assert!(!fits(version), "{version}");
        }
    }
}
