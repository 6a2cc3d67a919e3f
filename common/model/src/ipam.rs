//! IPAM beside the blocks: affinities, handles, configuration.

use std::collections::BTreeMap;
use std::fmt;

use crate::json::{record, text_enum};
use crate::object::Object;

/// The resource kind IPAMConfiguration. In etcd mode the allocator reads [`IpamConfig`] instead; this one changes nothing.
pub type IpamConfiguration = Object<IpamConfigurationSpec>;
/// The resource kind BlockAffinity. In etcd mode affinities live under their own keys; real deployments have none of these.
pub type BlockAffinity = Object<BlockAffinitySpec>;

text_enum! {
    /// How far a claim on a block has come.
    pub enum AffinityState { Pending = "pending", Confirmed = "confirmed", PendingDeletion = "pendingDeletion", }
}

record! {
    /// A claim on a block. An empty value and a missing state mean confirmed.
    pub struct BlockAffinityValue {
        /// State as stored; ask [`BlockAffinityValue::state`].
        #[serde(rename = "state")]
        pub stored_state: Option<AffinityState>,
        /// Always false in etcd.
        pub deleted: Option<bool>,
    }
    /// How many addresses of which blocks an owner has.
    pub struct IpamHandle {
        /// Addresses by block prefix.
        pub block: BTreeMap<String, u32>,
        /// Always false in etcd.
        pub deleted: Option<bool>,
    }
    /// How the allocator works. A missing object means [`IpamConfig::when_absent`]; a missing field means false or zero.
    pub struct IpamConfig {
        /// Hosts use their own blocks only.
        #[serde(rename = "strict_affinity")]
        pub strict_affinity: Option<bool>,
        /// Hosts claim blocks as they need them.
        #[serde(rename = "auto_allocate_blocks")]
        pub auto_allocate_blocks: Option<bool>,
        /// Most blocks of one host; 0 for the built-in 20.
        pub max_blocks_per_host: Option<i64>,
        /// Whether virtual machines keep addresses.
        #[serde(rename = "kubeVirtVMAddressPersistence")]
        pub kube_virt_vm_address_persistence: Option<String>,
        /// Seconds that a released address is not given again.
        pub ip_cooldown_seconds: Option<i64>,
    }
    /// Legacy marker of a host.
    pub struct IpamHost {
        /// Always false in etcd.
        pub deleted: Option<bool>,
    }
    /// The fields of [`IpamConfig`] as a resource.
    pub struct IpamConfigurationSpec {
        /// Hosts use their own blocks only.
        pub strict_affinity: Option<bool>,
        /// Hosts claim blocks as they need them.
        pub auto_allocate_blocks: Option<bool>,
        /// Most blocks of one host.
        pub max_blocks_per_host: Option<i64>,
        /// Whether virtual machines keep addresses.
        #[serde(rename = "kubeVirtVMAddressPersistence")]
        pub kube_virt_vm_address_persistence: Option<String>,
        /// Seconds that a released address is not given again.
        pub ip_cooldown_seconds: Option<i64>,
    }
    /// A claim on a block as a resource.
    pub struct BlockAffinitySpec {
        /// State of the claim.
        pub state: Option<AffinityState>,
        /// Claimant.
        pub node: Option<String>,
        /// host or virtual.
        #[serde(rename = "type")]
        pub kind: Option<String>,
        /// The block.
        pub cidr: Option<String>,
        /// The text "true" or "false" in storage; a boolean in later releases.
        pub deleted: Option<serde_json::Value>,
    }
}

impl BlockAffinityValue {
    /// A claim in a state, as Calico writes it.
    pub fn new(state: AffinityState) -> Self {
        BlockAffinityValue { stored_state: Some(state), deleted: Some(false), ..Self::default() }
    }

    /// The state; missing means confirmed.
    pub fn state(&self) -> &AffinityState {
        self.stored_state.as_ref().unwrap_or(&AffinityState::Confirmed)
    }

    /// Whether the claim stands.
    pub fn is_confirmed(&self) -> bool {
        *self.state() == AffinityState::Confirmed
    }
}

impl IpamHandle {
    /// An empty handle, as Calico writes it.
    pub fn new() -> Self {
        IpamHandle { deleted: Some(false), ..Self::default() }
    }
}

impl IpamConfig {
    /// What holds while nothing is stored: blocks on demand, borrowing allowed.
    pub fn when_absent() -> Self {
        IpamConfig { auto_allocate_blocks: Some(true), ..Self::default() }
    }
}

/// Who owns a block: `host:<name>` or `virtual:<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A host.
    Host(String),
    /// An owner that is no host, such as `load-balancer`.
    Virtual(String),
}

impl Owner {
    /// From the text of a block's affinity.
    pub fn parse(text: &str) -> Option<Owner> {
        match text.split_once(':') {
            Some(("host", name)) if !name.is_empty() => Some(Owner::Host(name.to_owned())),
            Some(("virtual", name)) if !name.is_empty() => Some(Owner::Virtual(name.to_owned())),
            _ => None,
        }
    }

    /// The host, if it is one.
    pub fn host(&self) -> Option<&str> {
        match self {
            Owner::Host(name) => Some(name),
            Owner::Virtual(_) => None,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Host(name) => write!(f, "host:{name}"),
            Owner::Virtual(name) => write!(f, "virtual:{name}"),
        }
    }
}
