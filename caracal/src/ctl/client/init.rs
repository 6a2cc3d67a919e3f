//! What every datastore holds before the first write of a user: ClusterInformation and the three built-in tiers.

use caracal_datastore::Expect;
use caracal_model::validate::to_json;
use serde_json::{Value, json};

use super::Client;
use super::resources::stamp;
use crate::ctl::error::Error;
use crate::ctl::kinds::by_kind;

/// Name, order and default action of the built-in tiers.
const TIERS: [(&str, i64, &str); 3] =
    [("kube-admin", 1_000, "Pass"), ("default", 1_000_000, "Deny"), ("kube-baseline", 10_000_000, "Pass")];

/// Creates what is missing and completes a ClusterInformation without GUID or ready flag. What is there stays.
pub(crate) async fn ensure_initialized(client: &Client) -> Result<(), Error> {
    cluster_information(client).await?;
    let kind = by_kind("Tier").expect("invariant: a known kind");
    for (name, order, action) in TIERS {
        let path = super::path(kind, "", name);
        if client.store.get(&path).await?.is_some() {
            continue;
        }
        let mut tier = json!({"kind": "Tier", "apiVersion": caracal_model::API_VERSION, "metadata": {"name": name},
            "spec": {"order": order, "defaultAction": action}, "status": {}});
        stamp(&mut tier);
        // Lost a race: somebody else has made it, which is as good.
        let _ = client.store.put(&path, to_json("Tier", &tier).into_bytes(), Expect::Absent, None).await;
    }
    Ok(())
}

async fn cluster_information(client: &Client) -> Result<(), Error> {
    let kind = by_kind("ClusterInformation").expect("invariant: a known kind");
    let path = super::path(kind, "", "default");
    let guid = || uuid::Uuid::new_v4().simple().to_string();
    match client.cluster_information().await? {
        None => {
            let mut value = json!({"kind": "ClusterInformation", "apiVersion": caracal_model::API_VERSION,
                "metadata": {"name": "default"}, "spec": {"clusterGUID": guid(), "datastoreReady": true}});
            stamp(&mut value);
            let _ =
                client.store.put(&path, to_json(kind.name, &value).into_bytes(), Expect::Absent, None).await;
        }
        Some(found) => {
            let mut value = found.raw.clone();
            let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
            let mut changed = false;
            if spec.get("clusterGUID").and_then(Value::as_str).is_none_or(str::is_empty) {
                spec.insert("clusterGUID".to_owned(), guid().into());
                changed = true;
            }
            if spec.get("datastoreReady").is_none_or(Value::is_null) {
                spec.insert("datastoreReady".to_owned(), true.into());
                changed = true;
            }
            if changed {
                let _ = client
                    .store
                    .put(&path, to_json(kind.name, &value).into_bytes(), Expect::Rev(found.rev), None)
                    .await;
            }
        }
    }
    Ok(())
}

/// Sets the ready flag that locks and unlocks the datastore.
pub(crate) async fn set_ready(client: &Client, ready: bool) -> Result<(), Error> {
    let kind = by_kind("ClusterInformation").expect("invariant: a known kind");
    let path = super::path(kind, "", "default");
    for _ in 0..10 {
        let found = client
            .cluster_information()
            .await?
            .ok_or_else(|| Error::DoesNotExist("ClusterInformation(default)".to_owned()))?;
        let mut value = found.raw.clone();
        if value.pointer("/spec/datastoreReady") == Some(&Value::Bool(ready)) {
            return Ok(());
        }
        value["spec"]["datastoreReady"] = ready.into();
        match client
            .store
            .put(&path, to_json(kind.name, &value).into_bytes(), Expect::Rev(found.rev), None)
            .await
        {
            Ok(_) => return Ok(()),
            Err(caracal_datastore::Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Conflict("ClusterInformation(default)".to_owned(), String::new()))
}
