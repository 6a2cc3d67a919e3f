//! Any resource, as one enum over the typed objects.

use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

use crate::bgp::{BgpConfiguration, BgpConfigurationSpec, BgpFilter, BgpFilterSpec, BgpPeer, BgpPeerSpec};
use crate::cluster::{CalicoNodeStatus, CalicoNodeStatusSpec, ClusterInformation, ClusterInformationSpec};
use crate::endpoint::{HostEndpoint, HostEndpointSpec, WorkloadEndpoint, WorkloadEndpointSpec};
use crate::error::ValueError;
use crate::felix_config::{FelixConfiguration, FelixConfigurationSpec};
use crate::ipam::{BlockAffinity, BlockAffinitySpec, IpamConfiguration, IpamConfigurationSpec};
use crate::ippool::{IpPool, IpPoolSpec, IpReservation, IpReservationSpec};
use crate::key::Key;
use crate::kind::Kind;
use crate::kubernetes::{
    KubeControllersConfiguration, KubeControllersConfigurationSpec, StagedKubernetesNetworkPolicy,
    StagedKubernetesNetworkPolicySpec,
};
use crate::node::{Node, NodeSpec};
use crate::object::{Metadata, Object};
use crate::policy::{
    GlobalNetworkPolicy, GlobalNetworkPolicySpec, GlobalNetworkSet, GlobalNetworkSetSpec, NetworkPolicy,
    NetworkPolicySpec, NetworkSet, NetworkSetSpec, Profile, ProfileSpec, StagedGlobalNetworkPolicy,
    StagedGlobalNetworkPolicySpec, StagedNetworkPolicy, StagedNetworkPolicySpec, Tier, TierSpec,
};
use crate::value;

/// The spec of one kind: ties the typed object to its [`Kind`] and to [`Resource`].
pub trait Spec: Default + Serialize + DeserializeOwned {
    /// The kind that has this spec.
    const KIND: Kind;
    /// The object as any resource.
    fn wrap(object: Object<Self>) -> Resource;
    /// The object in a resource of this kind.
    fn of(resource: &Resource) -> Option<&Object<Self>>;
    /// The object in a resource of this kind, to change.
    fn of_mut(resource: &mut Resource) -> Option<&mut Object<Self>>;
    /// The object out of a resource of this kind, or the resource back.
    fn unwrap(resource: Resource) -> Result<Object<Self>, Resource>;
}

macro_rules! resources {
    ($( $variant:ident, $spec:ident; )*) => {
        /// A resource of any kind.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Resource { $( #[doc = concat!("A ", stringify!($variant), ".")] $variant(Box<$variant>), )* }

        impl Resource {
            /// An empty resource of a kind, with kind and apiVersion set.
            pub fn new(kind: Kind) -> Resource {
                match kind { $( Kind::$variant => Resource::$variant(Box::default()), )* }
            }

            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self { $( Resource::$variant(_) => Kind::$variant, )* }
            }

            /// Its metadata.
            pub fn metadata(&self) -> &Metadata {
                match self { $( Resource::$variant(object) => &object.metadata, )* }
            }

            /// Its metadata, to change.
            pub fn metadata_mut(&mut self) -> &mut Metadata {
                match self { $( Resource::$variant(object) => &mut object.metadata, )* }
            }

            /// Its status.
            pub fn status(&self) -> Option<&serde_json::Value> {
                match self { $( Resource::$variant(object) => object.status.as_ref(), )* }
            }

            /// Its status, to change.
            pub fn status_mut(&mut self) -> &mut Option<serde_json::Value> {
                match self { $( Resource::$variant(object) => &mut object.status, )* }
            }

            /// Reads a stored value; `key` is for the error only.
            pub(crate) fn parse(kind: Kind, key: &str, bytes: &[u8]) -> Result<Resource, ValueError> {
                let resource = match kind {
                    $( Kind::$variant => Resource::$variant(Box::new(value::decode::<$variant>(key, bytes)?)), )*
                };
                resource.check_kind(key)?;
                Ok(resource)
            }

            /// Reads decoded JSON.
            pub fn from_value(kind: Kind, json: serde_json::Value) -> Result<Resource, ValueError> {
                let resource = match kind {
                    $( Kind::$variant => Resource::$variant(Box::new(value::decode_value::<$variant>(kind.kind_name(), json)?)), )*
                };
                resource.check_kind(kind.kind_name())?;
                Ok(resource)
            }

            fn stated_kind(&self) -> &str {
                match self { $( Resource::$variant(object) => &object.kind, )* }
            }
        }

        impl Serialize for Resource {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $( Resource::$variant(object) => object.serialize(serializer), )* }
            }
        }

        $(
            impl Spec for $spec {
                const KIND: Kind = Kind::$variant;
                fn wrap(object: Object<Self>) -> Resource {
                    Resource::$variant(Box::new(object))
                }
                fn of(resource: &Resource) -> Option<&Object<Self>> {
                    if let Resource::$variant(object) = resource { Some(object) } else { None }
                }
                fn of_mut(resource: &mut Resource) -> Option<&mut Object<Self>> {
                    if let Resource::$variant(object) = resource { Some(object) } else { None }
                }
                fn unwrap(resource: Resource) -> Result<Object<Self>, Resource> {
                    if let Resource::$variant(object) = resource { Ok(*object) } else { Err(resource) }
                }
            }
        )*
    };
}

resources! {
    Node, NodeSpec;
    WorkloadEndpoint, WorkloadEndpointSpec;
    HostEndpoint, HostEndpointSpec;
    IpPool, IpPoolSpec;
    IpReservation, IpReservationSpec;
    BgpPeer, BgpPeerSpec;
    BgpConfiguration, BgpConfigurationSpec;
    BgpFilter, BgpFilterSpec;
    FelixConfiguration, FelixConfigurationSpec;
    ClusterInformation, ClusterInformationSpec;
    GlobalNetworkPolicy, GlobalNetworkPolicySpec;
    NetworkPolicy, NetworkPolicySpec;
    StagedGlobalNetworkPolicy, StagedGlobalNetworkPolicySpec;
    StagedNetworkPolicy, StagedNetworkPolicySpec;
    StagedKubernetesNetworkPolicy, StagedKubernetesNetworkPolicySpec;
    GlobalNetworkSet, GlobalNetworkSetSpec;
    NetworkSet, NetworkSetSpec;
    Tier, TierSpec;
    Profile, ProfileSpec;
    CalicoNodeStatus, CalicoNodeStatusSpec;
    KubeControllersConfiguration, KubeControllersConfigurationSpec;
    IpamConfiguration, IpamConfigurationSpec;
    BlockAffinity, BlockAffinitySpec;
}

impl Resource {
    /// Reads a resource from JSON bytes; an unset kind is taken as `kind`, another one is an error.
    pub fn from_json(kind: Kind, bytes: &[u8]) -> Result<Resource, ValueError> {
        Self::parse(kind, kind.kind_name(), bytes)
    }

    /// Compact JSON in the order of Calico's structs, as it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        value::encode(self)
    }

    /// Decoded JSON.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("invariant: resources have string keys and finite numbers")
    }

    /// The typed object if it is of that kind: `resource.get::<NodeSpec>()`.
    pub fn get<S: Spec>(&self) -> Option<&Object<S>> {
        S::of(self)
    }

    /// The key its metadata names.
    pub fn key(&self) -> Key {
        let (kind, metadata) = (self.kind(), self.metadata());
        let namespace = kind.namespaced().then(|| metadata.namespace().to_owned());
        Key::Resource { kind, namespace, name: metadata.name().to_owned() }
    }

    fn check_kind(&self, key: &str) -> Result<(), ValueError> {
        let (stated, kind) = (self.stated_kind(), self.kind().kind_name());
        if stated.is_empty() || stated == kind {
            return Ok(());
        }
        Err(ValueError::new(
            key,
            "kind",
            format!("the object is not of kind {kind}"),
            format!("set kind to {kind}, or delete the key"),
        ))
    }
}

impl<S: Spec> From<Object<S>> for Resource {
    fn from(object: Object<S>) -> Self {
        S::wrap(object)
    }
}
