//! `datastore`: the lock, and policies under their old names.

use caracal_datastore::Expect;
use caracal_model::validate::to_json;
use caracal_model::{Key, defaults};
use serde_json::Value;

use super::console::{complain, line};
use super::session;
use crate::ctl::args::{Connection, Datastore, Migrate};
use crate::ctl::client::{self, Client, metadata};
use crate::ctl::error::{Error, identifier};
use crate::ctl::kinds::{KindInfo, by_kind};

/// `datastore …`.
pub(super) async fn run(command: &Datastore, allow_mismatch: bool) -> Result<bool, String> {
    match command {
        Datastore::Migrate(Migrate::Lock(connection)) => lock(connection, false, allow_mismatch).await,
        Datastore::Migrate(Migrate::Unlock(connection)) => lock(connection, true, allow_mismatch).await,
        Datastore::Migrate(Migrate::Export(connection)) => export(connection, allow_mismatch).await,
        Datastore::Migrate(Migrate::Import(_)) => Err(
            "invalid datastore type: etcdv3 to import to for datastore migration. Datastore type must be kubernetes, which this program does not serve"
                .to_owned(),
        ),
        Datastore::MigratePolicyNames(connection) => policy_names(connection, allow_mismatch).await,
    }
}

async fn lock(connection: &Connection, ready: bool, allow_mismatch: bool) -> Result<bool, String> {
    let client = session::open(connection, allow_mismatch).await?;
    let what = if ready { "unlock" } else { "lock" };
    client::set_ready(&client, ready)
        .await
        .map_err(|e| format!("error: cannot {what} the datastore: {e}"))?;
    line(format!("Datastore {what}ed."));
    Ok(true)
}

async fn export(connection: &Connection, allow_mismatch: bool) -> Result<bool, String> {
    let client = session::open(connection, allow_mismatch).await?;
    let found = client
        .cluster_information()
        .await
        .map_err(|e| format!("error retrieving ClusterInformation for export: {e}"))?;
    if found.is_some_and(|f| f.value.pointer("/spec/datastoreReady") != Some(&Value::Bool(false))) {
        return Err(
            "datastore is not locked. Run the `calicoctl datastore migrate lock` command in order to begin migration".to_owned()
        );
    }
    Err("exporting for a move to the Kubernetes datastore is not supported; use get -o yaml for the objects of a kind".to_owned())
}

/// What stands before the names of policies of the default tier in datastores of before Calico 3.32.
const OLD_PREFIX: &str = "default.";

async fn policy_names(connection: &Connection, allow_mismatch: bool) -> Result<bool, String> {
    let client = session::open(connection, allow_mismatch).await?;
    let (mut migrated, mut failed) = (0, 0);
    for kind in ["GlobalNetworkPolicy", "NetworkPolicy", "StagedGlobalNetworkPolicy", "StagedNetworkPolicy"] {
        let kind = by_kind(kind).expect("invariant: a known kind");
        for policy in client
            .list(kind, "")
            .await
            .map_err(|e| format!("error listing {} objects: {e}", kind.name))?
            .items
        {
            let (namespace, name) =
                (metadata(&policy.value, "namespace").to_owned(), metadata(&policy.raw, "name").to_owned());
            let Some(new) = name.strip_prefix(OLD_PREFIX).filter(|new| !new.is_empty()) else { continue };
            match rename(&client, kind, &namespace, &name, new).await {
                Ok(()) => migrated += 1,
                Err(error) => {
                    failed += 1;
                    complain(format!("{}: not renamed: {error}", identifier(kind.name, &namespace, &name)));
                }
            }
        }
    }
    if failed > 0 {
        return Err(format!(
            "migrated {migrated} policies, failed for {failed}; mend what is named above and run it again"
        ));
    }
    line(format!("Policy name migration complete, migrated {migrated} policies."));
    Ok(true)
}

/// Stores the policy under its new name, then deletes the old one as it was read; a new one that is there already is
/// the same policy from an interrupted run, or a conflict.
async fn rename(
    client: &Client,
    kind: &KindInfo,
    namespace: &str,
    old: &str,
    new: &str,
) -> Result<(), Error> {
    let key = |name: &str| {
        let key = if kind.namespaced() {
            Key::namespaced(kind.kind, namespace, name)
        } else {
            Key::global(kind.kind, name)
        };
        key.path()
    };
    let stored = client.get(kind, namespace, old).await?;
    let mut value = stored.raw.clone();
    value["metadata"]["name"] = new.into();
    let annotation = serde_json::json!({"name": new}).to_string();
    match value["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        Some(annotations) => {
            annotations.insert(defaults::METADATA_ANNOTATION.to_owned(), annotation.into());
        }
        None => {
            value["metadata"]["annotations"] = serde_json::json!({defaults::METADATA_ANNOTATION: annotation});
        }
    }
    let written =
        client.store.put(&key(new), to_json(kind.name, &value).into_bytes(), Expect::Absent, None).await;
    if let Err(caracal_datastore::Error::Conflict { .. }) = written {
        let there = client.get(kind, namespace, new).await?;
        if metadata(&there.value, "uid") != metadata(&stored.value, "uid") {
            return Err(Error::Other(format!(
                "another policy is called {new}; rename or delete one of the two"
            )));
        }
    } else {
        written?;
    }
    match client.store.delete(&key(old), Expect::Rev(stored.rev)).await {
        Ok(_) | Err(caracal_datastore::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
