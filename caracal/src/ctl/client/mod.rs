//! Calico's objects in the datastore: every write is one compare-and-swap on the key's revision.

mod blocks;
mod checks;
mod init;
mod node;
mod resources;

use std::sync::Arc;

use caracal_datastore::{Config, KeyValue, Store};
use caracal_model::validate::{Unknown, decode};
use caracal_model::{Key, Kind, defaults, prefix};
use serde_json::{Value, json};

pub(crate) use blocks::{Release, StoredBlock, blocks, delete_handle, handles, ipam_config, release};
pub(crate) use init::{ensure_initialized, set_ready};
pub(crate) use resources::{ATTEMPTS, pause, shaped, valid_alone};

use crate::ctl::error::{Error, identifier};
use crate::ctl::kinds::KindInfo;

/// The cluster's AS number when nobody has set one.
const DEFAULT_AS_NUMBER: &str = "64512";

/// A connection to the datastore.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) store: Arc<dyn Store>,
}

/// An object as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// The form that clients show, with its resourceVersion.
    pub(crate) value: Value,
    /// The bytes' JSON.
    pub(crate) raw: Value,
    /// The revision that last wrote it.
    pub(crate) rev: i64,
}

/// The objects of a kind, and the datastore's revision.
#[derive(Debug)]
pub(crate) struct StoredList {
    pub(crate) items: Vec<Stored>,
    pub(crate) rev: i64,
}

impl Client {
    /// Connects, or says within seconds which endpoint does not answer and why.
    pub(crate) async fn connect(config: &Config) -> Result<Client, caracal_datastore::Error> {
        Ok(Client { store: caracal_datastore::connect(config).await? })
    }

    /// The object, in the form that clients show.
    pub(crate) async fn get(&self, kind: &KindInfo, namespace: &str, name: &str) -> Result<Stored, Error> {
        let id = identifier(kind.name, namespace, name);
        if kind.kind == Kind::Profile && name == resources::DEFAULT_PROFILE {
            return Ok(default_profile());
        }
        // Names with a slash would reach into other keys.
        if name.is_empty() || name.contains('/') || namespace.contains('/') {
            return Err(Error::DoesNotExist(id));
        }
        match self.store.get(&path(kind, namespace, name)).await? {
            Some(kv) => stored(kind, &kv).map_err(Error::Other),
            None => Err(Error::DoesNotExist(id)),
        }
    }

    /// Every object of a kind, of one namespace or of all (empty). What cannot be read is told on standard error and left out.
    pub(crate) async fn list(&self, kind: &KindInfo, namespace: &str) -> Result<StoredList, Error> {
        let listing = self.store.list(&directory(kind, namespace)).await?;
        let mut items = Vec::with_capacity(listing.items.len());
        for kv in &listing.items {
            match stored(kind, kv) {
                Ok(stored) => items.push(stored),
                Err(reason) => eprintln!("warning: {reason}"),
            }
        }
        if kind.kind == Kind::Tier {
            for item in &mut items {
                defaults::from_storage_list(kind.name, &mut item.value);
            }
            let order = |item: &Stored| {
                item.value.pointer("/spec/order").and_then(Value::as_f64).unwrap_or(f64::INFINITY)
            };
            items.sort_by(|a, b| order(a).total_cmp(&order(b)));
        }
        if kind.kind == Kind::Profile {
            items.push(default_profile());
        }
        Ok(StoredList { items, rev: listing.rev })
    }

    /// The AS number of nodes that have none of their own.
    pub(crate) async fn as_number(&self) -> String {
        let kind = crate::ctl::kinds::by_kind("BGPConfiguration").expect("invariant: a known kind");
        match self.get(kind, "", "default").await {
            Ok(found) => found
                .value
                .pointer("/spec/asNumber")
                .map_or_else(|| DEFAULT_AS_NUMBER.to_owned(), ToString::to_string),
            Err(Error::DoesNotExist(_)) => DEFAULT_AS_NUMBER.to_owned(),
            Err(_) => "unknown".to_owned(),
        }
    }

    /// ClusterInformation, if there is one.
    pub(crate) async fn cluster_information(&self) -> Result<Option<Stored>, Error> {
        let kind = crate::ctl::kinds::by_kind("ClusterInformation").expect("invariant: a known kind");
        match self.get(kind, "", "default").await {
            Ok(found) => Ok(Some(found)),
            Err(Error::DoesNotExist(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The key of an object.
fn path(kind: &KindInfo, namespace: &str, name: &str) -> String {
    let key = if kind.namespaced() {
        Key::namespaced(kind.kind, namespace, name)
    } else {
        Key::global(kind.kind, name)
    };
    key.path()
}

fn directory(kind: &KindInfo, namespace: &str) -> String {
    if namespace.is_empty() { prefix::kind(kind.kind) } else { prefix::namespace(kind.kind, namespace) }
}

fn stored(kind: &KindInfo, kv: &KeyValue) -> Result<Stored, String> {
    let wrong =
        |reason: &str| format!("{} holds no valid {}: {reason}; repair or delete it", kv.key, kind.name);
    let raw: Value = serde_json::from_slice(&kv.value).map_err(|e| wrong(&format!("not JSON ({e})")))?;
    if !raw.is_object() {
        return Err(wrong("not a JSON object"));
    }
    let mut value = decode(kind.name, &raw, Unknown::Keep).map_err(|e| wrong(&e.to_string()))?;
    value["kind"] = kind.name.into();
    value["apiVersion"] = caracal_model::API_VERSION.into();
    defaults::from_storage(kind.name, &mut value);
    value["metadata"]["resourceVersion"] = kv.rev.to_string().into();
    Ok(Stored { value, raw, rev: kv.rev })
}

/// The profile that every cluster has and no datastore holds.
fn default_profile() -> Stored {
    let value = json!({
        "kind": "Profile",
        "apiVersion": caracal_model::API_VERSION,
        "metadata": {"name": resources::DEFAULT_PROFILE, "resourceVersion": "1"},
        "spec": {"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]},
    });
    Stored { raw: value.clone(), value, rev: 1 }
}

/// The text of a field of metadata.
pub(crate) fn metadata<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}
