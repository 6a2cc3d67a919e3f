//! Create, update, delete: what clientv3 of libcalico-go does with each kind.

use std::time::Duration;

use caracal_datastore::Expect;
use caracal_model::validate::{Unknown, carry_unknown, decode, to_json, validate_value};
use caracal_model::{Kind, defaults};
use serde_json::{Map, Value};

use super::{Client, Stored, checks, metadata, path};
use crate::ctl::error::{Error, identifier};
use crate::ctl::kinds::KindInfo;

/// The profile that every cluster has and no datastore holds.
pub(crate) const DEFAULT_PROFILE: &str = "projectcalico-default-allow";
/// Attempts at an update that loses races.
pub(crate) const ATTEMPTS: u32 = 10;

/// Now, as Kubernetes writes times.
pub(crate) fn now() -> String {
    jiff::Timestamp::from_second(jiff::Timestamp::now().as_second())
        .map_or_else(|_| String::new(), |t| t.to_string())
}

/// Gives a new object its identity.
pub(super) fn stamp(value: &mut Value) {
    value["metadata"]["uid"] = uuid::Uuid::new_v4().to_string().into();
    value["metadata"]["creationTimestamp"] = now().into();
}

/// A wait before the next attempt, longer each time and never the same on two machines.
pub(crate) async fn pause(attempt: u32) {
    let jitter = uuid::Uuid::new_v4().as_bytes()[0];
    tokio::time::sleep(Duration::from_millis(u64::from(10 * (1 << attempt.min(6)) + u32::from(jitter) / 4)))
        .await;
}

fn id_of(kind: &KindInfo, value: &Value) -> String {
    identifier(kind.name, metadata(value, "namespace"), metadata(value, "name"))
}

impl Client {
    /// Fills in defaults and checks the object by itself and against others. `old` is what it replaces.
    pub(crate) async fn prepare(
        &self,
        kind: &KindInfo,
        mut value: Value,
        old: Option<&Stored>,
    ) -> Result<Value, Error> {
        checks::before(self, kind, &value, old).await?;
        if kind.kind == Kind::WorkloadEndpoint {
            checks::endpoint_name(&mut value)?;
        }
        let value = valid(kind, value)?;
        checks::after(self, kind, &value, old).await?;
        Ok(value)
    }

    /// Creates an object; of its metadata only name, namespace, labels and annotations count.
    pub(crate) async fn create(&self, kind: &KindInfo, value: &Value) -> Result<Stored, Error> {
        let mut value = value.clone();
        let version = metadata(&value, "resourceVersion").to_owned();
        if !version.is_empty() {
            return Err(Error::field(
                "metadata.resourceVersion",
                version,
                "field must not be set for a Create request",
            ));
        }
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata
                .retain(|name, _| ["name", "namespace", "labels", "annotations"].contains(&name.as_str()));
        }
        let value = self.prepare(kind, value, None).await?;
        self.insert(kind, value).await
    }

    /// Creates an object that need not fit with others, as the parts of a pool beside the whole.
    pub(crate) async fn create_unchecked(&self, kind: &KindInfo, value: Value) -> Result<Stored, Error> {
        self.insert(kind, valid(kind, value)?).await
    }

    async fn insert(&self, kind: &KindInfo, mut value: Value) -> Result<Stored, Error> {
        stamp(&mut value);
        let path = path(kind, metadata(&value, "namespace"), metadata(&value, "name"));
        defaults::to_storage(kind.name, &mut value);
        match self.store.put(&path, to_json(kind.name, &value).into_bytes(), Expect::Absent, None).await {
            Ok(rev) => Ok(Stored { raw: value.clone(), value, rev }),
            Err(caracal_datastore::Error::Conflict { .. }) => Err(Error::AlreadyExists(id_of(kind, &value))),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces an object: identity and times stay, labels, annotations and spec are the new ones. With a resourceVersion the
    /// stored one must be that; without, races are tried again.
    pub(crate) async fn update(&self, kind: &KindInfo, value: &Value) -> Result<Stored, Error> {
        let wanted = metadata(value, "resourceVersion").to_owned();
        for attempt in 0..ATTEMPTS {
            let old = self.get(kind, metadata(value, "namespace"), metadata(value, "name")).await?;
            if !wanted.is_empty() && wanted != old.rev.to_string() {
                let id = id_of(kind, value);
                let latest = old.rev;
                let help = format!(
                    ": resource version '{wanted}' is out of date (latest: {latest}); get the object again, or leave resourceVersion out to overwrite it"
                );
                return Err(Error::Conflict(id, help));
            }
            match self.update_from(kind, value, &old).await {
                Err(Error::Conflict(..)) if wanted.is_empty() => pause(attempt).await,
                other => return other,
            }
        }
        Err(Error::Conflict(
            id_of(kind, value),
            format!(": it was changed {ATTEMPTS} times meanwhile; try again"),
        ))
    }

    /// Replaces this very state of an object.
    pub(crate) async fn update_from(
        &self,
        kind: &KindInfo,
        value: &Value,
        old: &Stored,
    ) -> Result<Stored, Error> {
        let new = self.successor(kind, value, old).await?;
        let path = path(kind, metadata(&new, "namespace"), metadata(&new, "name"));
        match self.store.put(&path, to_json(kind.name, &new).into_bytes(), Expect::Rev(old.rev), None).await {
            Ok(rev) => Ok(Stored { raw: new.clone(), value: new, rev }),
            Err(caracal_datastore::Error::Conflict { .. }) => {
                Err(Error::Conflict(id_of(kind, value), String::new()))
            }
            Err(caracal_datastore::Error::NotFound { .. }) => Err(Error::DoesNotExist(id_of(kind, value))),
            Err(error) => Err(error.into()),
        }
    }

    /// What is stored when `value` replaces `old`.
    async fn successor(&self, kind: &KindInfo, value: &Value, old: &Stored) -> Result<Value, Error> {
        let mut new = value.clone();
        let mut kept: Map<String, Value> = old.value["metadata"].as_object().cloned().unwrap_or_default();
        kept.remove("resourceVersion");
        for field in ["labels", "annotations"] {
            match value["metadata"].get(field) {
                Some(given) => kept.insert(field.to_owned(), given.clone()),
                None => kept.remove(field),
            };
        }
        new["metadata"] = Value::Object(kept);
        let mut new = self.prepare(kind, new, Some(old)).await?;
        carry_unknown(kind.name, &old.raw, &mut new);
        let metadata_of = |field: &str| metadata(&new, field).to_owned();
        if metadata_of("uid").is_empty() || metadata_of("creationTimestamp").is_empty() {
            // Written by hand into the datastore: it gets its identity now.
            let (uid, created) = (metadata_of("uid"), metadata_of("creationTimestamp"));
            stamp(&mut new);
            for (field, value) in [("uid", uid), ("creationTimestamp", created)] {
                if !value.is_empty() {
                    new["metadata"][field] = value.into();
                }
            }
        }
        defaults::to_storage(kind.name, &mut new);
        Ok(new)
    }

    /// The key and the bytes that `apply` would store, without storing them.
    pub(crate) async fn foretell(&self, kind: &KindInfo, value: &Value) -> Result<(String, Vec<u8>), Error> {
        let (namespace, name) = (metadata(value, "namespace"), metadata(value, "name"));
        let stored = match self.get(kind, namespace, name).await {
            Ok(old) => self.successor(kind, value, &old).await?,
            Err(Error::DoesNotExist(_)) => {
                let mut new = self.prepare(kind, value.clone(), None).await?;
                defaults::to_storage(kind.name, &mut new);
                new
            }
            Err(error) => return Err(error),
        };
        let key = path(kind, metadata(&stored, "namespace"), metadata(&stored, "name"));
        Ok((key, to_json(kind.name, &stored).into_bytes()))
    }

    /// The key of an object.
    pub(crate) fn key_of(kind: &KindInfo, value: &Value) -> String {
        path(kind, metadata(value, "namespace"), metadata(value, "name"))
    }

    /// Creates the object, or replaces it if it exists.
    pub(crate) async fn apply(&self, kind: &KindInfo, value: &Value) -> Result<Stored, Error> {
        if kind.kind == Kind::ClusterInformation {
            return Err(read_only("apply"));
        }
        let mut fresh = value.clone();
        if let Some(metadata) = fresh.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
        }
        match self.create(kind, &fresh).await {
            Err(Error::AlreadyExists(_) | Error::NotSupported { .. }) => self.update(kind, value).await,
            other => other,
        }
    }

    /// Deletes an object with what belongs to it. With a resourceVersion the stored one must be that.
    pub(crate) async fn delete(
        &self,
        kind: &KindInfo,
        namespace: &str,
        name: &str,
        version: &str,
    ) -> Result<(), Error> {
        let id = identifier(kind.name, namespace, name);
        if name.is_empty() || name.contains('/') || namespace.contains('/') {
            return Err(Error::DoesNotExist(id));
        }
        checks::before_delete(self, kind, name).await?;
        let mut expect = match version {
            "" => Expect::Any,
            version => match version.parse() {
                Ok(rev) => Expect::Rev(rev),
                Err(_) => return Err(Error::field("metadata.resourceVersion", version, "must be a number")),
            },
        };
        match kind.kind {
            Kind::Node => super::node::release(self, name).await?,
            Kind::IpPool => {
                self.drain_pool(kind, name, expect).await?;
                expect = Expect::Any;
            }
            _ => {}
        }
        match self.store.delete(&path(kind, namespace, name), expect).await {
            Ok(_) => Ok(()),
            Err(caracal_datastore::Error::NotFound { .. }) => Err(Error::DoesNotExist(id)),
            Err(caracal_datastore::Error::Conflict { .. }) => {
                Err(Error::Conflict(id, ": its resourceVersion is another".to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes an object alone, whatever belongs to it.
    pub(crate) async fn delete_unchecked(
        &self,
        kind: &KindInfo,
        name: &str,
        expect: Expect,
    ) -> Result<(), Error> {
        let id = identifier(kind.name, "", name);
        match self.store.delete(&path(kind, "", name), expect).await {
            Ok(_) => Ok(()),
            Err(caracal_datastore::Error::NotFound { .. }) => Err(Error::DoesNotExist(id)),
            Err(caracal_datastore::Error::Conflict { .. }) => {
                Err(Error::Conflict(id, ": it was changed meanwhile".to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Stops allocation from a pool and gives back the claims on its blocks.
    async fn drain_pool(&self, kind: &KindInfo, name: &str, expect: Expect) -> Result<(), Error> {
        let pool = self.get(kind, "", name).await?;
        if let Expect::Rev(rev) = expect
            && rev != pool.rev
        {
            return Err(Error::Conflict(
                identifier(kind.name, "", name),
                ": its resourceVersion is another".to_owned(),
            ));
        }
        if pool.value.pointer("/spec/disabled") != Some(&Value::Bool(true)) {
            let mut disabled = pool.value.clone();
            disabled["spec"]["disabled"] = true.into();
            self.update_from(kind, &disabled, &pool).await?;
        }
        let cidr = pool.value.pointer("/spec/cidr").and_then(Value::as_str).and_then(|c| c.parse().ok());
        if let Some(cidr) = cidr {
            // Allocations that are under way may end.
            tokio::time::sleep(Duration::from_millis(500)).await;
            super::blocks::release_pool(self, cidr).await?;
        }
        Ok(())
    }
}

/// Defaults, then every check that needs nothing but the object.
fn valid(kind: &KindInfo, mut value: Value) -> Result<Value, Error> {
    defaults::apply_value(kind.name, &mut value);
    let errors = validate_value(kind.name, &value);
    if errors.is_empty() { Ok(value) } else { Err(Error::Invalid(errors)) }
}

/// Whether the object is acceptable by itself, whatever else is stored.
pub(crate) fn valid_alone(kind: &KindInfo, mut value: Value) -> Result<(), Error> {
    if kind.kind == Kind::WorkloadEndpoint {
        checks::endpoint_name(&mut value)?;
    }
    valid(kind, value).map(|_| ())
}

/// The object in its shape, fields that its kind does not have refused unless the stored one has them.
pub(crate) fn shaped(kind: &KindInfo, value: &Value, stored: Option<&Value>) -> Result<Value, String> {
    decode(kind.name, value, Unknown::Refuse(stored)).map_err(|e| e.to_string())
}

pub(super) fn read_only(operation: &'static str) -> Error {
    Error::NotSupported {
        operation,
        object: "ClusterInformation".to_owned(),
        reason: "resource is readonly: the nodes of the cluster keep it".to_owned(),
    }
}
