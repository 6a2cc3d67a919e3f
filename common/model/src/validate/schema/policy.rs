//! Policies, staged policies, network sets, tiers.

use super::{
    CONDITIONS, Default, Field, Keep, Rule, Shape, field, flag, int, int32, list, object, record, text,
    text_map, texts,
};
use crate::validate::text::{is_any_network, is_cidr, is_selector};

const SELECTOR: &str = "must be a selector, as role == 'web' && has(app)";
const NET: &str = "must be a CIDR without host bits, as 10.0.0.0/8";

const fn selector(name: &'static str) -> Field {
    text(name).rule(Rule::MaxLength(1024)).test(is_selector, SELECTOR)
}

const ICMP: &[Field] =
    &[int("type").given().rule(Rule::Range(0, 254)), int("code").given().rule(Rule::Range(0, 255))];

const ENTITY: Shape = Shape::Record(&[
    texts("nets").rule(Rule::Items(0, 256)).each(is_any_network, NET),
    selector("selector"),
    selector("namespaceSelector"),
    record(
        "services",
        &[text("name").rule(Rule::MaxLength(253)), text("namespace").rule(Rule::MaxLength(253))],
    ),
    list("ports", &Shape::Port).rule(Rule::Items(0, 50)),
    texts("notNets").rule(Rule::Items(0, 256)).each(is_any_network, NET),
    selector("notSelector"),
    list("notPorts", &Shape::Port).rule(Rule::Items(0, 50)),
    record("serviceAccounts", &[texts("names"), text("selector").test(is_selector, SELECTOR)]),
]);

/// A rule of a policy or profile. Its action is checked per kind: a Profile takes any word.
pub(super) const RULE: &Shape = &Shape::Record(&[
    text("action").always(),
    int("ipVersion").given(),
    field("protocol", Shape::Protocol).given(),
    record("icmp", ICMP),
    field("notProtocol", Shape::Protocol).given(),
    record("notICMP", ICMP),
    field("source", ENTITY),
    field("destination", ENTITY),
    record(
        "http",
        &[
            texts("methods").rule(Rule::Items(0, 20)),
            list(
                "paths",
                &Shape::Record(&[
                    text("exact").rule(Rule::MaxLength(1024)),
                    text("prefix").rule(Rule::MaxLength(1024)),
                ]),
            )
            .rule(Rule::Items(0, 20)),
        ],
    ),
    record("metadata", &[text_map("annotations")]),
]);

const TIER_NAME: Field = text("tier").default_text("default");
const ORDER: Field = field("order", Shape::Float).given();
const INGRESS: Field = list("ingress", RULE).rule(Rule::Items(0, 1024));
const EGRESS: Field = list("egress", RULE).rule(Rule::Items(0, 1024));
const TYPES: Field = texts("types").rule(Rule::EachOneOf(&["Ingress", "Egress"]));
const HINTS: Field = texts("performanceHints").rule(Rule::EachOneOf(&["AssumeNeededOnEveryNode"]));
const STAGED: Field = Field {
    name: "stagedAction",
    shape: Shape::Text,
    keep: Keep::Filled,
    rules: [Rule::OneOf(&["Set", "Delete", "Learn", "Ignore"]), Rule::None, Rule::None],
    default: Default::Text("Set"),
};

/// GlobalNetworkPolicy.
pub(super) const GLOBAL_NETWORK_POLICY: &[Field] = object!(&[
    TIER_NAME,
    ORDER,
    INGRESS,
    EGRESS,
    selector("selector"),
    TYPES,
    flag("doNotTrack"),
    flag("preDNAT"),
    flag("applyOnForward"),
    selector("serviceAccountSelector"),
    selector("namespaceSelector"),
    HINTS,
]);
/// NetworkPolicy.
pub(super) const NETWORK_POLICY: &[Field] = object!(&[
    TIER_NAME,
    ORDER,
    INGRESS,
    EGRESS,
    selector("selector"),
    TYPES,
    selector("serviceAccountSelector"),
    HINTS,
]);
/// StagedGlobalNetworkPolicy.
pub(super) const STAGED_GLOBAL_NETWORK_POLICY: &[Field] = object!(&[
    STAGED,
    TIER_NAME,
    ORDER,
    INGRESS,
    EGRESS,
    selector("selector"),
    TYPES,
    flag("doNotTrack"),
    flag("preDNAT"),
    flag("applyOnForward"),
    selector("serviceAccountSelector"),
    selector("namespaceSelector"),
    HINTS,
]);
/// StagedNetworkPolicy.
pub(super) const STAGED_NETWORK_POLICY: &[Field] = object!(&[
    STAGED,
    TIER_NAME,
    ORDER,
    INGRESS,
    EGRESS,
    selector("selector"),
    TYPES,
    selector("serviceAccountSelector"),
    HINTS,
]);

const LABEL_SELECTOR: &[Field] = &[
    text_map("matchLabels"),
    list(
        "matchExpressions",
        &Shape::Record(&[text("key").always(), text("operator").always(), texts("values")]),
    ),
];
const K8S_PEER: &Shape = &Shape::Record(&[
    record("podSelector", LABEL_SELECTOR),
    record("namespaceSelector", LABEL_SELECTOR),
    record(
        "ipBlock",
        &[
            text("cidr").always().test(is_cidr, "must be a CIDR"),
            texts("except").each(is_cidr, "must be a CIDR"),
        ],
    ),
]);
const K8S_PORT: &Shape = &Shape::Record(&[
    text("protocol").given(),
    field("port", Shape::IntOrText).given(),
    int32("endPort").given(),
]);

/// StagedKubernetesNetworkPolicy.
pub(super) const STAGED_KUBERNETES_NETWORK_POLICY: &[Field] = object!(&[
    STAGED,
    field("podSelector", Shape::Record(LABEL_SELECTOR)).always(),
    list("ingress", &Shape::Record(&[list("ports", K8S_PORT), list("from", K8S_PEER)])),
    list("egress", &Shape::Record(&[list("ports", K8S_PORT), list("to", K8S_PEER)])),
    texts("policyTypes"),
]);

/// NetworkSet and GlobalNetworkSet.
pub(super) const NETWORK_SET: &[Field] =
    object!(&[texts("nets").each(is_cidr, "must be a CIDR or an address")]);

/// Tier.
pub(super) const TIER: &[Field] = object!(
    &[ORDER, text("defaultAction").given().one_of(&["Pass", "Deny"]).default_text("Deny")],
    field("status", Shape::Record(&[list("conditions", CONDITIONS)])).always()
);
