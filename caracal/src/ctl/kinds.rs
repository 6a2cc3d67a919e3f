//! What the command line knows of each kind: the words for it and the columns of its tables.

use caracal_model::Kind;
use caracal_model::validate::go_float;
use serde_json::Value;

use crate::ctl::output::go_value;

/// A column: its heading, and its cell for an object; the text is the cluster's AS number.
type Column = (&'static str, fn(&Value, &str) -> String);

/// One kind.
#[derive(Debug)]
pub(crate) struct KindInfo {
    /// `IPPool`.
    pub(crate) name: &'static str,
    /// The model's kind.
    pub(crate) kind: Kind,
    /// Words beside those of the model.
    also: &'static [&'static str],
    /// Columns of `-o ps`.
    pub(crate) ps: &'static [&'static str],
    /// Columns of `-o wide`.
    pub(crate) wide: &'static [&'static str],
    /// Every column.
    columns: &'static [Column],
}

impl KindInfo {
    /// Whether its objects live in namespaces.
    pub(crate) fn namespaced(&self) -> bool {
        self.kind.namespaced()
    }

    /// The cell of a column, None if the kind has no such column.
    pub(crate) fn column(&self, heading: &str) -> Option<fn(&Value, &str) -> String> {
        let own = self.columns.iter().find(|(name, _)| *name == heading);
        let namespace = (self.namespaced() && heading == "NAMESPACE")
            .then_some(&("NAMESPACE", namespace as fn(&Value, &str) -> String));
        own.or(namespace).map(|(_, cell)| *cell)
    }

    /// Every heading, for messages.
    pub(crate) fn headings(&self) -> Vec<&'static str> {
        let mut all: Vec<_> = self.columns.iter().map(|(name, _)| *name).collect();
        if self.namespaced() {
            all.push("NAMESPACE");
        }
        all
    }
}

/// The kind with exactly this name.
pub(crate) fn by_kind(name: &str) -> Option<&'static KindInfo> {
    KINDS.iter().find(|k| k.name == name)
}

/// The kind of `IPPoolList`.
pub(crate) fn list_kind(name: &str) -> Option<&'static KindInfo> {
    name.strip_suffix("List").and_then(by_kind)
}

/// The kind that a word on the command line means, in any case.
pub(crate) fn by_alias(word: &str) -> Option<&'static KindInfo> {
    let meant = Kind::from_alias(word).and_then(|kind| KINDS.iter().find(|k| k.kind == kind));
    meant.or_else(|| KINDS.iter().find(|k| k.also.iter().any(|a| a.eq_ignore_ascii_case(word))))
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
fn name(object: &Value, _: &str) -> String {
    text(object, "/metadata/name")
}
fn namespace(object: &Value, _: &str) -> String {
    text(object, "/metadata/namespace")
}
fn tier(object: &Value, _: &str) -> String {
    text(object, "/spec/tier")
}
fn order(object: &Value, _: &str) -> String {
    object.pointer("/spec/order").and_then(Value::as_f64).map_or_else(|| "<nil>".to_owned(), go_float)
}
fn selector(object: &Value, _: &str) -> String {
    text(object, "/spec/selector")
}
fn node(object: &Value, _: &str) -> String {
    text(object, "/spec/node")
}
fn interface(object: &Value, _: &str) -> String {
    text(object, "/spec/interfaceName")
}
fn number(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default().to_string()
}
fn flag(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or_default().to_string()
}
/// A pointer's value, `-` when it is unset.
fn or_dash(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).filter(|v| !v.is_null()).map_or_else(|| "-".to_owned(), ToString::to_string)
}
fn or(value: String, otherwise: &str) -> String {
    if value.is_empty() { otherwise.to_owned() } else { value }
}
fn join(object: &Value, pointer: &str) -> String {
    join_up_to(object, pointer, 0)
}
fn join_up_to(object: &Value, pointer: &str, limit: usize) -> String {
    object.pointer(pointer).map_or_else(String::new, |items| go_value::join(items, ",", limit))
}
fn count(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len).to_string()
}
fn profiles(object: &Value, _: &str) -> String {
    join(object, "/spec/profiles")
}

const NAME: Column = ("NAME", name);
const TIER: Column = ("TIER", tier);
const ORDER: Column = ("ORDER", order);
const SELECTOR: Column = ("SELECTOR", selector);
const POLICY: &[Column] = &[NAME, TIER, ORDER, SELECTOR];
const NETS: &[Column] = &[NAME, ("NETS", |o, _| join_up_to(o, "/spec/nets", 80))];

const fn plain(
    kind: Kind,
    also: &'static [&'static str],
    ps: &'static [&'static str],
    wide: &'static [&'static str],
    columns: &'static [Column],
) -> KindInfo {
    KindInfo { name: kind.kind_name(), kind, also, ps, wide, columns }
}

const ONLY_NAME: &[&str] = &["NAME"];
const IN_TIER: &[&str] = &["NAME", "TIER"];
const IN_TIER_WIDE: &[&str] = &["NAME", "TIER", "ORDER", "SELECTOR"];
const WITH_NETS: &[&str] = &["NAME", "NETS"];
const PEER: &[&str] = &["NAME", "PEERIP", "NODE", "ASN"];
const BGP: &[&str] = &["NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"];
const FILTER: &[&str] = &["NAME", "NUMEXPORTV4", "NUMIMPORTV4", "NUMEXPORTV6", "NUMIMPORTV6"];
const CLUSTER: &[&str] = &["NAME", "CLUSTERGUID", "CLUSTERTYPE", "CALICOVERSION", "DATASTOREREADY"];

/// Every kind of the command line.
pub(crate) static KINDS: &[KindInfo] = &[
    plain(
        Kind::Node,
        &[],
        ONLY_NAME,
        &["NAME", "ASN", "IPV4", "IPV6"],
        &[
            NAME,
            ("ASN", |o, cluster| match (o.pointer("/spec/bgp"), o.pointer("/spec/bgp/asNumber")) {
                (Some(_), Some(asn)) if asn.as_u64() != Some(0) => asn.to_string(),
                (Some(_), _) => format!("({cluster})"),
                (None, _) => String::new(),
            }),
            ("IPV4", |o, _| text(o, "/spec/bgp/ipv4Address")),
            ("IPV6", |o, _| text(o, "/spec/bgp/ipv6Address")),
        ],
    ),
    plain(
        Kind::WorkloadEndpoint,
        &[],
        &["WORKLOAD", "NODE", "NETWORKS", "INTERFACE"],
        &["NAME", "WORKLOAD", "NODE", "NETWORKS", "INTERFACE", "PROFILES", "NATS"],
        &[
            NAME,
            ("NODE", node),
            ("ORCHESTRATOR", |o, _| text(o, "/spec/orchestrator")),
            ("WORKLOAD", |o, _| or(text(o, "/spec/workload"), &text(o, "/spec/pod"))),
            ("NETWORKS", |o, _| join(o, "/spec/ipNetworks")),
            ("NATS", |o, _| {
                let nats = o.pointer("/spec/ipNATs").and_then(Value::as_array).into_iter().flatten();
                nats.map(|n| format!("{{{} {}}}", text(n, "/internalIP"), text(n, "/externalIP")))
                    .collect::<Vec<_>>()
                    .join(",")
            }),
            ("PROFILES", profiles),
            ("INTERFACE", interface),
        ],
    ),
    plain(
        Kind::HostEndpoint,
        &[],
        &["NAME", "NODE"],
        &["NAME", "NODE", "INTERFACE", "IPS", "PROFILES"],
        &[
            NAME,
            ("NODE", node),
            ("INTERFACE", interface),
            ("IPS", |o, _| join(o, "/spec/expectedIPs")),
            ("PROFILES", profiles),
        ],
    ),
    plain(
        Kind::IpPool,
        &[],
        &["NAME", "CIDR", "SELECTOR"],
        &[
            "NAME",
            "CIDR",
            "NAT",
            "IPIPMODE",
            "VXLANMODE",
            "DISABLED",
            "DISABLEBGPEXPORT",
            "SELECTOR",
            "ASSIGNMENTMODE",
        ],
        &[
            NAME,
            ("CIDR", |o, _| text(o, "/spec/cidr")),
            ("NAT", |o, _| flag(o, "/spec/natOutgoing")),
            ("IPIPMODE", |o, _| or(text(o, "/spec/ipipMode"), "Never")),
            ("VXLANMODE", |o, _| or(text(o, "/spec/vxlanMode"), "Never")),
            ("DISABLED", |o, _| flag(o, "/spec/disabled")),
            ("DISABLEBGPEXPORT", |o, _| flag(o, "/spec/disableBGPExport")),
            ("SELECTOR", |o, _| text(o, "/spec/nodeSelector")),
            ("ASSIGNMENTMODE", |o, _| or(text(o, "/spec/assignmentMode"), "Automatic")),
        ],
    ),
    plain(
        Kind::IpReservation,
        &[],
        ONLY_NAME,
        &["NAME", "CIDRS"],
        &[NAME, ("CIDRS", |o, _| join_up_to(o, "/spec/reservedCIDRs", 80))],
    ),
    plain(
        Kind::BgpPeer,
        &[],
        PEER,
        PEER,
        &[
            NAME,
            ("PEERIP", |o, _| text(o, "/spec/peerIP")),
            ("NODE", |o, _| or(or(text(o, "/spec/node"), &text(o, "/spec/nodeSelector")), "(global)")),
            ("ASN", |o, _| number(o, "/spec/asNumber")),
        ],
    ),
    plain(
        Kind::BgpConfiguration,
        &[],
        BGP,
        BGP,
        &[
            NAME,
            ("LOGSEVERITY", |o, _| text(o, "/spec/logSeverityScreen")),
            ("MESHENABLED", |o, _| or_dash(o, "/spec/nodeToNodeMeshEnabled")),
            ("ASNUMBER", |o, _| or_dash(o, "/spec/asNumber")),
        ],
    ),
    plain(
        Kind::BgpFilter,
        &["bgpfs"],
        FILTER,
        FILTER,
        &[
            NAME,
            ("NUMEXPORTV4", |o, _| count(o, "/spec/exportV4")),
            ("NUMIMPORTV4", |o, _| count(o, "/spec/importV4")),
            ("NUMEXPORTV6", |o, _| count(o, "/spec/exportV6")),
            ("NUMIMPORTV6", |o, _| count(o, "/spec/importV6")),
        ],
    ),
    plain(Kind::FelixConfiguration, &[], ONLY_NAME, ONLY_NAME, &[NAME]),
    plain(
        Kind::ClusterInformation,
        &[],
        CLUSTER,
        CLUSTER,
        &[
            NAME,
            ("CLUSTERGUID", |o, _| text(o, "/spec/clusterGUID")),
            ("CLUSTERTYPE", |o, _| text(o, "/spec/clusterType")),
            ("CALICOVERSION", |o, _| text(o, "/spec/calicoVersion")),
            ("DATASTOREREADY", |o, _| {
                o.pointer("/spec/datastoreReady").map_or_else(|| "<nil>".to_owned(), ToString::to_string)
            }),
        ],
    ),
    plain(Kind::GlobalNetworkPolicy, &[], IN_TIER, IN_TIER_WIDE, POLICY),
    plain(Kind::NetworkPolicy, &[], IN_TIER, IN_TIER_WIDE, POLICY),
    plain(Kind::StagedGlobalNetworkPolicy, &[], IN_TIER, IN_TIER_WIDE, POLICY),
    plain(
        Kind::StagedNetworkPolicy,
        &["stagedpolicy", "stagedpolicies", "spol", "spols"],
        IN_TIER,
        IN_TIER_WIDE,
        POLICY,
    ),
    plain(
        Kind::StagedKubernetesNetworkPolicy,
        &["stagedkubernetespolicy", "stagedkubernetespolicies", "skpol", "skpols"],
        ONLY_NAME,
        &["NAME", "PODSELECTOR"],
        &[
            NAME,
            ("PODSELECTOR", |o, _| {
                go_value::label_selector(o.pointer("/spec/podSelector").unwrap_or(&Value::Null))
            }),
        ],
    ),
    plain(Kind::GlobalNetworkSet, &[], ONLY_NAME, WITH_NETS, NETS),
    plain(Kind::NetworkSet, &[], ONLY_NAME, WITH_NETS, NETS),
    plain(Kind::Tier, &[], &["NAME", "ORDER"], &["NAME", "ORDER"], &[NAME, ORDER]),
    plain(
        Kind::Profile,
        &[],
        ONLY_NAME,
        &["NAME", "LABELS"],
        &[NAME, ("LABELS", |o, _| join(o, "/spec/labelsToApply"))],
    ),
    plain(
        Kind::CalicoNodeStatus,
        &[],
        &["NAME", "NODE"],
        &["NAME", "NODE", "CLASSES"],
        &[NAME, ("NODE", node), ("CLASSES", |o, _| join(o, "/spec/classes"))],
    ),
    plain(Kind::KubeControllersConfiguration, &[], ONLY_NAME, ONLY_NAME, &[NAME]),
    plain(
        Kind::IpamConfiguration,
        &[],
        &["NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS"],
        &["NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS", "MAXBLOCKSPERHOST"],
        &[
            NAME,
            ("STRICTAFFINITY", |o, _| flag(o, "/spec/strictAffinity")),
            ("AUTOALLOCATEBLOCKS", |o, _| flag(o, "/spec/autoAllocateBlocks")),
            ("MAXBLOCKSPERHOST", |o, _| number(o, "/spec/maxBlocksPerHost")),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_column_exists() {
        for kind in KINDS {
            for heading in kind.ps.iter().chain(kind.wide) {
                assert!(kind.column(heading).is_some(), "{} {heading}", kind.name);
            }
        }
    }

    #[test]
    fn words_for_kinds() {
        for (word, kind) in [
            ("IPPool", "IPPool"),
            ("pols", "NetworkPolicy"),
            ("stagedPolicy", "StagedNetworkPolicy"),
            ("no", "Node"),
            ("skpols", "StagedKubernetesNetworkPolicy"),
        ] {
            assert_eq!(by_alias(word).map(|k| k.name), Some(kind), "{word}");
        }
        assert!(by_alias("gizmo").is_none());
        assert!(by_alias("blockaffinity").is_none(), "not a kind of the command line");
    }
}
