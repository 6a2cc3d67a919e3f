//! The frame that every resource shares: kind, version, metadata, spec, status.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::json::{Other, nullable, record};
use crate::kind::Kind;
use crate::resource::Spec;

/// The only API version in the datastore.
pub const API_VERSION: &str = "projectcalico.org/v3";

record! {
    /// Who an object is. The resource version is never stored: it is the key's mod_revision.
    pub struct Metadata {
        /// Name, the last part of the key.
        pub name: Option<String>,
        /// Prefix that Kubernetes made the name from.
        pub generate_name: Option<String>,
        /// Namespace of a namespaced kind.
        pub namespace: Option<String>,
        /// Random UUID given at creation.
        pub uid: Option<String>,
        /// mod_revision in decimal, only outside the datastore.
        pub resource_version: Option<String>,
        /// RFC 3339 in UTC, to the second.
        pub creation_timestamp: Option<String>,
        /// Labels that selectors see.
        pub labels: BTreeMap<String, String>,
        /// Everything else that tools attach.
        pub annotations: BTreeMap<String, String>,
    }
}

impl Metadata {
    /// The name, empty when unset.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The namespace, empty when unset.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }
}

/// One resource as it is stored. Unknown fields are kept at every level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    bound(serialize = "S: Serialize", deserialize = "S: DeserializeOwned + Default")
)]
pub struct Object<S> {
    /// Kind name, such as `IPPool`.
    #[serde(default, deserialize_with = "nullable")]
    pub kind: String,
    /// Always [`API_VERSION`].
    #[serde(default, deserialize_with = "nullable")]
    pub api_version: String,
    /// Name, labels and the like.
    #[serde(default, deserialize_with = "nullable")]
    pub metadata: Metadata,
    /// What the user wants.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: S,
    /// What a component reports; untyped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<serde_json::Value>,
    /// Fields this model has no name for.
    #[serde(flatten)]
    pub other: Other,
}

impl<S: Spec> Default for Object<S> {
    fn default() -> Self {
        Object {
            kind: S::KIND.kind_name().to_owned(),
            api_version: API_VERSION.to_owned(),
            metadata: Metadata::default(),
            spec: S::default(),
            status: None,
            other: Other::new(),
        }
    }
}

impl<S: Spec> Object<S> {
    /// An object of that name; namespaced kinds also need `metadata.namespace`.
    pub fn new(name: impl Into<String>, spec: S) -> Self {
        let mut object = Object { spec, ..Self::default() };
        object.metadata.name = Some(name.into());
        object
    }

    /// A namespaced object.
    pub fn namespaced(namespace: impl Into<String>, name: impl Into<String>, spec: S) -> Self {
        let mut object = Self::new(name, spec);
        object.metadata.namespace = Some(namespace.into());
        object
    }
}

impl<S> Object<S> {
    /// The object's name, empty when unset.
    pub fn name(&self) -> &str {
        self.metadata.name()
    }

    /// The object's namespace, empty when unset.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace()
    }

    /// Value of a label.
    pub fn label(&self, label: &str) -> Option<&str> {
        self.metadata.labels.get(label).map(String::as_str)
    }

    /// Value of an annotation.
    pub fn annotation(&self, annotation: &str) -> Option<&str> {
        self.metadata.annotations.get(annotation).map(String::as_str)
    }
}

/// The kind an object of this spec has.
pub fn kind_of<S: Spec>() -> Kind {
    S::KIND
}
