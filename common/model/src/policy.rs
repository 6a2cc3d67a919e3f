//! Policy, tiers, profiles and network sets.

use std::collections::BTreeMap;

use crate::json::{record, text_enum};
use crate::numorstring::{Port, Protocol};
use crate::object::Object;

/// Policy for endpoints of all namespaces and for hosts.
pub type GlobalNetworkPolicy = Object<GlobalNetworkPolicySpec>;
/// Policy for workloads of one namespace.
pub type NetworkPolicy = Object<NetworkPolicySpec>;
/// A global policy that is not enforced.
pub type StagedGlobalNetworkPolicy = Object<StagedGlobalNetworkPolicySpec>;
/// A namespaced policy that is not enforced.
pub type StagedNetworkPolicy = Object<StagedNetworkPolicySpec>;
/// A group of policies with a place in the order.
pub type Tier = Object<TierSpec>;
/// Rules and labels for endpoints that name it.
pub type Profile = Object<ProfileSpec>;
/// Prefixes with labels, visible to all namespaces.
pub type GlobalNetworkSet = Object<GlobalNetworkSetSpec>;
/// Prefixes with labels, of one namespace.
pub type NetworkSet = Object<NetworkSetSpec>;

text_enum! {
    /// What a rule does with a packet.
    pub enum Action { Allow = "Allow", Deny = "Deny", Log = "Log", Pass = "Pass", }
    /// Directions of a policy.
    pub enum PolicyType { Ingress = "Ingress", Egress = "Egress", }
    /// What staging would do.
    pub enum StagedAction { Set = "Set", Delete = "Delete", Learn = "Learn", Ignore = "Ignore", }
}

record! {
    /// A global policy.
    pub struct GlobalNetworkPolicySpec {
        /// Tier it belongs to; `default` when unset.
        pub tier: Option<String>,
        /// Place in the tier; unset comes last.
        #[serde(serialize_with = "crate::json::go_float")]
        pub order: Option<f64>,
        /// Rules for traffic to the endpoint, first match decides.
        pub ingress: Vec<Rule>,
        /// Rules for traffic from the endpoint, first match decides.
        pub egress: Vec<Rule>,
        /// Endpoints it applies to.
        pub selector: Option<String>,
        /// Directions it applies to.
        pub types: Vec<PolicyType>,
        /// Before connection tracking.
        pub do_not_track: Option<bool>,
        /// Before destination NAT.
        #[serde(rename = "preDNAT")]
        pub pre_dnat: Option<bool>,
        /// To forwarded traffic too.
        pub apply_on_forward: Option<bool>,
        /// Service accounts it applies to.
        pub service_account_selector: Option<String>,
        /// Namespaces it applies to.
        pub namespace_selector: Option<String>,
        /// Hints for the dataplane.
        pub performance_hints: Vec<String>,
    }
    /// A namespaced policy.
    pub struct NetworkPolicySpec {
        /// Tier it belongs to; `default` when unset.
        pub tier: Option<String>,
        /// Place in the tier; unset comes last.
        #[serde(serialize_with = "crate::json::go_float")]
        pub order: Option<f64>,
        /// Rules for traffic to the endpoint, first match decides.
        pub ingress: Vec<Rule>,
        /// Rules for traffic from the endpoint, first match decides.
        pub egress: Vec<Rule>,
        /// Endpoints of the namespace it applies to.
        pub selector: Option<String>,
        /// Directions it applies to.
        pub types: Vec<PolicyType>,
        /// Service accounts it applies to.
        pub service_account_selector: Option<String>,
        /// Hints for the dataplane.
        pub performance_hints: Vec<String>,
    }
    /// A staged global policy.
    pub struct StagedGlobalNetworkPolicySpec {
        /// What staging would do; Set when unset.
        pub staged_action: Option<StagedAction>,
        /// Tier it belongs to.
        pub tier: Option<String>,
        /// Place in the tier.
        #[serde(serialize_with = "crate::json::go_float")]
        pub order: Option<f64>,
        /// Rules for traffic to the endpoint.
        pub ingress: Vec<Rule>,
        /// Rules for traffic from the endpoint.
        pub egress: Vec<Rule>,
        /// Endpoints it would apply to.
        pub selector: Option<String>,
        /// Directions it would apply to.
        pub types: Vec<PolicyType>,
        /// Before connection tracking.
        pub do_not_track: Option<bool>,
        /// Before destination NAT.
        #[serde(rename = "preDNAT")]
        pub pre_dnat: Option<bool>,
        /// To forwarded traffic too.
        pub apply_on_forward: Option<bool>,
        /// Service accounts it would apply to.
        pub service_account_selector: Option<String>,
        /// Namespaces it would apply to.
        pub namespace_selector: Option<String>,
        /// Hints for the dataplane.
        pub performance_hints: Vec<String>,
    }
    /// A staged namespaced policy.
    pub struct StagedNetworkPolicySpec {
        /// What staging would do; Set when unset.
        pub staged_action: Option<StagedAction>,
        /// Tier it belongs to.
        pub tier: Option<String>,
        /// Place in the tier.
        #[serde(serialize_with = "crate::json::go_float")]
        pub order: Option<f64>,
        /// Rules for traffic to the endpoint.
        pub ingress: Vec<Rule>,
        /// Rules for traffic from the endpoint.
        pub egress: Vec<Rule>,
        /// Endpoints it would apply to.
        pub selector: Option<String>,
        /// Directions it would apply to.
        pub types: Vec<PolicyType>,
        /// Service accounts it would apply to.
        pub service_account_selector: Option<String>,
        /// Hints for the dataplane.
        pub performance_hints: Vec<String>,
    }
    /// One rule; all that it says must hold for a packet.
    pub struct Rule {
        /// What to do with the packet.
        pub action: Option<Action>,
        /// 4 or 6; both when unset.
        pub ip_version: Option<i32>,
        /// IP protocol.
        pub protocol: Option<Protocol>,
        /// ICMP type and code.
        pub icmp: Option<IcmpFields>,
        /// Not this IP protocol.
        pub not_protocol: Option<Protocol>,
        /// Not this ICMP type and code.
        #[serde(rename = "notICMP")]
        pub not_icmp: Option<IcmpFields>,
        /// Where the packet comes from.
        pub source: Option<EntityRule>,
        /// Where the packet goes to.
        pub destination: Option<EntityRule>,
        /// HTTP request; a packet filter cannot see it.
        pub http: Option<HttpMatch>,
        /// Notes on the rule.
        pub metadata: Option<RuleMetadata>,
    }
    /// ICMP type and code.
    pub struct IcmpFields {
        /// 0 to 254.
        #[serde(rename = "type")]
        pub icmp_type: Option<i32>,
        /// 0 to 255, only with a type.
        pub code: Option<i32>,
    }
    /// One end of a packet.
    pub struct EntityRule {
        /// Address in one of these.
        pub nets: Vec<String>,
        /// Endpoints and network sets.
        pub selector: Option<String>,
        /// Namespaces of these.
        pub namespace_selector: Option<String>,
        /// Endpoints of a Kubernetes service.
        pub services: Option<ServiceMatch>,
        /// One of these ports.
        pub ports: Vec<Port>,
        /// Address in none of these.
        pub not_nets: Vec<String>,
        /// Not these endpoints and network sets.
        pub not_selector: Option<String>,
        /// None of these ports.
        pub not_ports: Vec<Port>,
        /// Pods that run as these.
        pub service_accounts: Option<ServiceAccountMatch>,
    }
    /// A Kubernetes service.
    pub struct ServiceMatch {
        /// Service name.
        pub name: Option<String>,
        /// Its namespace; the policy's when unset.
        pub namespace: Option<String>,
    }
    /// Service accounts; both parts must hold.
    pub struct ServiceAccountMatch {
        /// One of these names.
        pub names: Vec<String>,
        /// Labels of the account.
        pub selector: Option<String>,
    }
    /// An HTTP request; both parts must hold.
    pub struct HttpMatch {
        /// One of these methods.
        pub methods: Vec<String>,
        /// One of these paths.
        pub paths: Vec<HttpPath>,
    }
    /// A path; exactly one field is set.
    pub struct HttpPath {
        /// The whole path.
        pub exact: Option<String>,
        /// What the path begins with.
        pub prefix: Option<String>,
    }
    /// Notes on a rule.
    pub struct RuleMetadata {
        /// Free text by key.
        pub annotations: BTreeMap<String, String>,
    }
    /// A tier's place and what becomes of packets that none of its policies decided.
    pub struct TierSpec {
        /// Smaller comes first; unset comes last.
        #[serde(serialize_with = "crate::json::go_float")]
        pub order: Option<f64>,
        /// Deny or Pass; Deny when unset.
        pub default_action: Option<Action>,
    }
    /// Rules and labels of a profile.
    pub struct ProfileSpec {
        /// Rules for traffic to the endpoint.
        pub ingress: Vec<Rule>,
        /// Rules for traffic from the endpoint.
        pub egress: Vec<Rule>,
        /// Labels that its endpoints inherit.
        pub labels_to_apply: BTreeMap<String, String>,
    }
    /// Prefixes of a global network set.
    pub struct GlobalNetworkSetSpec {
        /// Prefixes.
        pub nets: Vec<String>,
    }
    /// Prefixes of a network set.
    pub struct NetworkSetSpec {
        /// Prefixes.
        pub nets: Vec<String>,
    }
}

/// Name of the profile that every reader adds and nobody stores.
pub const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

impl Profile {
    /// The profile `projectcalico-default-allow`: allows everything. Clients add it to what they read; it is never stored.
    pub fn default_allow() -> Profile {
        let allow = || vec![Rule { action: Some(Action::Allow), ..Rule::default() }];
        Profile::new(
            DEFAULT_ALLOW,
            ProfileSpec { ingress: allow(), egress: allow(), ..ProfileSpec::default() },
        )
    }
}
