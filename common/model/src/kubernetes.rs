//! Staged Kubernetes policy and the configuration of Calico's Kubernetes controllers: stored and shown, not acted on.

use std::collections::BTreeMap;

use crate::duration::GoDuration;
use crate::json::{record, text_enum};
use crate::numorstring::Port;
use crate::object::Object;
use crate::policy::StagedAction;

/// A Kubernetes policy that is not enforced.
pub type StagedKubernetesNetworkPolicy = Object<StagedKubernetesNetworkPolicySpec>;
/// Settings of Calico's Kubernetes controllers.
pub type KubeControllersConfiguration = Object<KubeControllersConfigurationSpec>;

text_enum! {
    /// Operator of a Kubernetes label requirement.
    pub enum LabelOperator { In = "In", NotIn = "NotIn", Exists = "Exists", DoesNotExist = "DoesNotExist", }
}

record! {
    /// A Kubernetes NetworkPolicy with a staging action.
    pub struct StagedKubernetesNetworkPolicySpec {
        /// What staging would do.
        pub staged_action: Option<StagedAction>,
        /// Pods of the namespace it would apply to; empty means all.
        pub pod_selector: Option<LabelSelector>,
        /// Who may reach the pods.
        pub ingress: Vec<K8sIngressRule>,
        /// Whom the pods may reach.
        pub egress: Vec<K8sEgressRule>,
        /// Directions.
        pub policy_types: Vec<String>,
    }
    /// Kubernetes label selector; all parts must hold.
    pub struct LabelSelector {
        /// Labels with exactly these values.
        pub match_labels: BTreeMap<String, String>,
        /// Requirements.
        pub match_expressions: Vec<LabelRequirement>,
    }
    /// One requirement on a label.
    pub struct LabelRequirement {
        /// Label.
        pub key: Option<String>,
        /// How to compare.
        pub operator: Option<LabelOperator>,
        /// Values for In and NotIn.
        pub values: Vec<String>,
    }
    /// Traffic to the pods.
    pub struct K8sIngressRule {
        /// Ports of the pods; none means all.
        pub ports: Vec<K8sPort>,
        /// Sources; none means all.
        pub from: Vec<K8sPeer>,
    }
    /// Traffic from the pods.
    pub struct K8sEgressRule {
        /// Ports of the destination; none means all.
        pub ports: Vec<K8sPort>,
        /// Destinations; none means all.
        pub to: Vec<K8sPeer>,
    }
    /// A port or range.
    pub struct K8sPort {
        /// TCP when unset.
        pub protocol: Option<String>,
        /// Number or name.
        pub port: Option<Port>,
        /// Last port of a range.
        pub end_port: Option<i32>,
    }
    /// A source or destination.
    pub struct K8sPeer {
        /// Pods.
        pub pod_selector: Option<LabelSelector>,
        /// Namespaces.
        pub namespace_selector: Option<LabelSelector>,
        /// Addresses.
        pub ip_block: Option<IpBlock>,
    }
    /// A prefix with holes.
    pub struct IpBlock {
        /// The prefix.
        pub cidr: Option<String>,
        /// Prefixes in it that do not count.
        pub except: Vec<String>,
    }
    /// Settings of the controllers.
    pub struct KubeControllersConfigurationSpec {
        /// Log level.
        pub log_severity_screen: Option<String>,
        /// Enabled or Disabled.
        pub health_checks: Option<String>,
        /// Time between etcd compactions, zero for never.
        pub etcd_v3_compaction_period: Option<GoDuration>,
        /// Metrics port, zero for none.
        pub prometheus_metrics_port: Option<i32>,
        /// Each controller; unset means off.
        pub controllers: Option<ControllersConfig>,
        /// Profiling port.
        pub debug_profile_port: Option<i32>,
    }
    /// Each controller; unset means off.
    pub struct ControllersConfig {
        /// Cleans up after nodes.
        pub node: Option<NodeControllerConfig>,
        /// Copies Kubernetes policy.
        pub policy: Option<ReconcilerConfig>,
        /// Copies pod labels.
        pub workload_endpoint: Option<ReconcilerConfig>,
        /// Copies service accounts.
        pub service_account: Option<ReconcilerConfig>,
        /// Copies namespaces.
        pub namespace: Option<ReconcilerConfig>,
        /// Gives addresses to services.
        pub load_balancer: Option<LoadBalancerControllerConfig>,
        /// Renames old policies.
        pub policy_migration: Option<MigrationControllerConfig>,
    }
    /// How often a controller compares everything.
    pub struct ReconcilerConfig {
        /// Time between comparisons.
        pub reconciler_period: Option<GoDuration>,
    }
    /// The controller that cleans up after nodes.
    pub struct NodeControllerConfig {
        /// Time between comparisons.
        pub reconciler_period: Option<GoDuration>,
        /// Enabled or Disabled.
        pub sync_labels: Option<String>,
        /// Host endpoints for nodes.
        pub host_endpoint: Option<AutoHostEndpointConfig>,
        /// How long an address may look leaked.
        pub leak_grace_period: Option<GoDuration>,
    }
    /// Host endpoints made for every node.
    pub struct AutoHostEndpointConfig {
        /// Enabled or Disabled.
        pub auto_create: Option<String>,
        /// Enabled or Disabled.
        pub create_default_host_endpoint: Option<String>,
        /// Templates of others.
        pub templates: Vec<HostEndpointTemplate>,
    }
    /// A template of host endpoints.
    pub struct HostEndpointTemplate {
        /// End of their names.
        pub generate_name: Option<String>,
        /// Prefixes that choose expected addresses.
        #[serde(rename = "interfaceCIDRs")]
        pub interface_cidrs: Vec<String>,
        /// Pattern that chooses interfaces.
        pub interface_pattern: Option<String>,
        /// Their labels.
        pub labels: BTreeMap<String, String>,
        /// Nodes that get them.
        pub node_selector: Option<String>,
    }
    /// The controller that gives addresses to services.
    pub struct LoadBalancerControllerConfig {
        /// AllServices or RequestedServicesOnly.
        #[serde(rename = "assignIPs")]
        pub assign_ips: Option<String>,
    }
    /// The controller that renames old policies.
    pub struct MigrationControllerConfig {
        /// Enabled or Disabled.
        #[serde(rename = "enabled")]
        pub policy_name_migrator: Option<String>,
    }
}
