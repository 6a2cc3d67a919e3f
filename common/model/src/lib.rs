//! Calico's etcd v3 data model, typed both ways: keys to paths, objects to JSON, and back.
//!
//! What it is: the one place that knows how resources, IPAM objects and status reports are named and written, how selectors
//! are read and matched, and what calicoctl fills in and refuses. What it is not: a client. It does no I/O, reads no clock and
//! draws no randomness.
//!
//! Start from [`Key::parse`] and [`Value::parse`] for what a datastore delivers, from [`Resource`] for what a user writes:
//!
//! ```text
//!   "/calico/resources/v3/projectcalico.org/ippools/main"  --Key::parse-->  Key::Resource { IpPool, "main" }
//!   {"kind":"IPPool",...}  --Value::parse(&key, ..)-->  Value::Resource(Resource::IpPool(Box<Object<IpPoolSpec>>))
//! ```
//!
//! Fields that a newer Calico knows and we do not survive in `other` at every level. Optional texts are `None` when they are empty or null,
//! as in Go; empty lists and maps are not written, as in Go.

#[cfg(test)]
mod agreement;
pub mod annotation;
pub mod bgp;
pub mod block;
pub mod cluster;
pub mod defaults;
pub mod duration;
pub mod endpoint;
mod error;
pub mod felix_config;
pub mod ipam;
pub mod ippool;
mod json;
pub mod key;
pub mod kind;
pub mod kubernetes;
pub mod names;
pub mod net;
pub mod node;
pub mod numorstring;
pub mod object;
pub mod policy;
pub mod resource;
pub mod selector;
pub mod status;
pub mod validate;
pub mod value;

pub use bgp::{
    AddCommunity, BgpConfiguration, BgpConfigurationSpec, BgpFilter, BgpFilterAction, BgpFilterOperation,
    BgpFilterRule, BgpFilterSpec, BgpPassword, BgpPeer, BgpPeerSpec, BindMode, CidrBlock, Community,
    CommunityMatch, FilterPeerType, FilterSource, MatchOperator, NextHopMode, PrefixAdvertisement,
    PrefixLengthRange, PrependAsPath, ProgramClusterRoutes, ReversePeering, SecretKeyRef, ServiceAggregation,
    SetPriority, SourceAddress,
};
pub use block::{AllocationAttribute, Block, Utilisation};
pub use cluster::{
    BgpDaemonStatus, CalicoNodeStatus, CalicoNodeStatusReport, CalicoNodeStatusSpec, ClusterInformation,
    ClusterInformationSpec, LearnedFrom, NodeAgentStatus, NodeBgpStatus, NodePeerStatus, NodeRouteStatus,
    NodeRoutesStatus, NodeStatusClass,
};
pub use duration::GoDuration;
pub use endpoint::{
    EndpointPort, HostEndpoint, HostEndpointSpec, IpNat, QosControls, WorkloadEndpoint, WorkloadEndpointPort,
    WorkloadEndpointSpec,
};
pub use error::{KeyError, ValueError};
pub use felix_config::{
    FelixConfiguration, FelixConfigurationSpec, HealthTimeoutOverride, ProtoPort, RouteTableRange,
};
pub use ipam::{
    AffinityState, BlockAffinity, BlockAffinitySpec, BlockAffinityValue, IpamConfig, IpamConfiguration,
    IpamConfigurationSpec, IpamHandle, IpamHost, Owner,
};
pub use ippool::{AssignmentMode, EncapMode, IpPool, IpPoolSpec, IpReservation, IpReservationSpec, PoolUse};
pub use json::{Other, Text};
pub use key::{Key, prefix};
pub use kind::Kind;
pub use kubernetes::{
    AutoHostEndpointConfig, ControllersConfig, HostEndpointTemplate, IpBlock, K8sEgressRule, K8sIngressRule,
    K8sPeer, K8sPort, KubeControllersConfiguration, KubeControllersConfigurationSpec, LabelOperator,
    LabelRequirement, LabelSelector, LoadBalancerControllerConfig, MigrationControllerConfig,
    NodeControllerConfig, ReconcilerConfig, StagedKubernetesNetworkPolicy, StagedKubernetesNetworkPolicySpec,
};
pub use names::WepName;
pub use node::{Node, NodeAddress, NodeBgpSpec, NodeInterface, NodeSpec, NodeWireguardSpec, OrchRef};
pub use numorstring::{AsNumber, Port, Protocol};
pub use object::{API_VERSION, Metadata, Object};
pub use policy::{
    Action, EntityRule, GlobalNetworkPolicy, GlobalNetworkPolicySpec, GlobalNetworkSet, GlobalNetworkSetSpec,
    HttpMatch, HttpPath, IcmpFields, NetworkPolicy, NetworkPolicySpec, NetworkSet, NetworkSetSpec,
    PolicyType, Profile, ProfileSpec, Rule, RuleMetadata, ServiceAccountMatch, ServiceMatch, StagedAction,
    StagedGlobalNetworkPolicy, StagedGlobalNetworkPolicySpec, StagedNetworkPolicy, StagedNetworkPolicySpec,
    Tier, TierSpec,
};
pub use resource::{Resource, Spec};
pub use selector::Selector;
pub use status::{EndpointState, EndpointStatus, FelixStatusReport, Status};
pub use value::{MAX_VALUE_BYTES, Value};
