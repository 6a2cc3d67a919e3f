//! Tables: what is good, and which field is named when it is not.

use serde_json::{Value, json};

use super::{Unknown, decode, validate_value};

fn errors(kind: &str, spec: &Value) -> Vec<String> {
    let name = match kind {
        "IPAMConfiguration" | "Tier" => "default",
        _ => "x",
    };
    let object = json!({"kind": kind, "metadata": {"name": name}, "spec": spec});
    let mut object = decode(kind, &object, Unknown::Refuse(None)).expect("shape");
    crate::defaults::apply_value(kind, &mut object);
    validate_value(kind, &object).iter().map(ToString::to_string).collect()
}

#[track_caller]
fn good(kind: &str, spec: Value) {
    assert_eq!(errors(kind, &spec), Vec::<String>::new(), "{kind} {spec}");
}

#[track_caller]
fn bad(kind: &str, spec: Value, says: &str) {
    let errors = errors(kind, &spec);
    assert!(errors.iter().any(|e| e.contains(says)), "{kind} {spec}: {errors:?} lack {says:?}");
}

#[test]
fn pools() {
    let pool = |cidr: &str, more: Value| {
        let mut spec = json!({ "cidr": cidr });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    good("IPPool", pool("10.60.1.1/32", json!({"blockSize": 32})));
    good("IPPool", pool("10.60.2.0/28", json!({"disabled": true})));
    good("IPPool", pool("fd60::/64", json!({"blockSize": 116})));
    good("IPPool", pool("10.0.0.0/16", json!({"allowedUses": ["LoadBalancer"]})));
    for (cidr, more, says) in [
        ("10.44.0.0/24", json!({"blockSize": 19}), "between 20 and 32"),
        ("10.44.0.0/24", json!({"blockSize": -1}), "spec.blockSize = '-1'"),
        ("10.44.0.0/27", json!({}), "too small"),
        ("fd44::/64", json!({"blockSize": 26}), "116 and 128"),
        ("10.44.0.1/16", json!({}), "not strictly masked"),
        ("169.254.1.0/24", json!({}), "link-local"),
        ("fe80::/64", json!({}), "link-local"),
        ("x", json!({}), "spec.cidr = 'x'"),
        ("", json!({}), "must be given"),
        (
            "10.0.0.0/16",
            json!({"ipipMode": "Sometimes"}),
            "spec.ipipMode = 'Sometimes' (supported values: \"Never\"",
        ),
        ("10.0.0.0/16", json!({"ipipMode": "Always", "vxlanMode": "Always"}), "cannot both be enabled"),
        ("fd44::/64", json!({"ipipMode": "Always"}), "IPv6"),
        ("10.0.0.0/16", json!({"allowedUses": ["Everything"]}), "spec.allowedUses[0] = 'Everything'"),
        ("10.0.0.0/16", json!({"allowedUses": ["LoadBalancer", "Workload"]}), "cannot be combined"),
        ("10.0.0.0/16", json!({"nodeSelector": "global()"}), "global()"),
        ("10.0.0.0/16", json!({"nodeSelector": "rack = 'a'"}), "must be a selector"),
        ("10.0.0.0/16", json!({"namespaceSelector": "team == 'x'"}), "AllowedUse Tunnel"),
    ] {
        bad("IPPool", pool(cidr, more), says);
    }
}

#[test]
fn bgp() {
    good(
        "BGPPeer",
        json!({"peerIP": "10.0.0.2:1790", "asNumber": 4_200_000_001_u32, "reachableBy": "10.0.0.254"}),
    );
    bad("BGPPeer", json!({"node": "a", "nodeSelector": "all()"}), "cannot both be set");
    bad("BGPPeer", json!({"peerIP": "10.0.0.1", "reachableBy": "fd00::1"}), "same address family");
    bad("BGPPeer", json!({"localWorkloadSelector": "all()"}), "asNumber is required");
    bad("BGPPeer", json!({"peerIP": "x", "asNumber": 1}), "spec.peerIP = 'x'");
    good(
        "BGPConfiguration",
        json!({"prefixAdvertisements": [{"cidr": "10.0.0.0/26", "communities": ["65123:7"]}]}),
    );
    bad("BGPConfiguration", json!({"asNumber": 65001}), "other than 'default'");
    bad("BGPConfiguration", json!({"communities": [{"name": "a", "value": "1:2"}]}), "not used");
    bad(
        "BGPConfiguration",
        json!({"prefixAdvertisements": [{"cidr": "10.0.0.0/26", "communities": ["gone"]}]}),
        "communities[0]",
    );
    bad("BGPConfiguration", json!({"ignoredInterfaces": ["*"]}), "spec.ignoredInterfaces[0] = '*'");
    bad("BGPConfiguration", json!({"ipv4NormalRoutePriority": 0}), "between 1 and 2147483646");
    bad("BGPConfiguration", json!({"logSeverityScreen": "Loud"}), "Trace");
    good("BGPConfiguration", json!({"logSeverityScreen": "error"}));
    good(
        "BGPFilter",
        json!({"exportV4": [{"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"max": 32},
            "operations": [{"setPriority": {"value": 512}}]}]}),
    );
    bad(
        "BGPFilter",
        json!({"exportV4": [{"cidr": "10.0.0.0/8", "matchOperator": "In"}]}),
        "spec.exportV4[0].action (must be given)",
    );
    bad(
        "BGPFilter",
        json!({"importV6": [{"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In"}]}),
        "IPv6 CIDR",
    );
    bad(
        "BGPFilter",
        json!({"exportV4": [{"action": "Accept", "prefixLength": {"min": 8}}]}),
        "cidr is required",
    );
    bad(
        "BGPFilter",
        json!({"exportV4": [{"action": "Reject", "operations": [{"setPriority": {"value": 1}}]}]}),
        "only be used with action Accept",
    );
    bad(
        "BGPFilter",
        json!({"exportV4": [{"action": "Accept", "communities": {"values": ["70000:1"]}}]}),
        "community",
    );
}

#[test]
fn policies() {
    let rule = |rule: Value| json!({ "ingress": [rule] });
    good(
        "NetworkPolicy",
        rule(
            json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": [80, "8080:8090", "https"]}}),
        ),
    );
    good("GlobalNetworkPolicy", rule(json!({"action": "Allow", "destination": {"ports": ["https"]}})));
    for (one, says) in [
        (json!({"action": "Accept"}), "spec.ingress[0].action = 'Accept'"),
        (json!({}), "spec.ingress[0].action"),
        (json!({"action": "Allow", "destination": {"ports": [80]}}), "rules with numeric port"),
        (
            json!({"action": "Allow", "protocol": "ICMP", "destination": {"ports": ["http"]}}),
            "rules that specify ports",
        ),
        (json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": [0]}}), "between 1 and 65535"),
        (json!({"action": "Allow", "protocol": "tcp"}), "spec.ingress[0].protocol = 'tcp'"),
        (json!({"action": "Allow", "protocol": 0}), "begin at 1"),
        (json!({"action": "Allow", "source": {"nets": ["10.0.0.0/33"]}}), "spec.ingress[0].source.nets"),
        (json!({"action": "Allow", "source": {"nets": ["10.0.0.1/8"]}}), "without host bits"),
        (json!({"action": "Allow", "source": {"nets": ["10.0.0.9"]}}), "prefix length"),
        (json!({"action": "Allow", "source": {"nets": ["10.0.0.0/8", "fd00::/8"]}}), "both IPv4 and IPv6"),
        (
            json!({"action": "Allow", "source": {"nets": ["10.0.0.0/8"]}, "destination": {"nets": ["fd00::/8"]}}),
            "both IPv4 and IPv6",
        ),
        (json!({"action": "Allow", "ipVersion": 6, "source": {"nets": ["10.0.0.0/8"]}}), "doesn't match"),
        (json!({"action": "Allow", "source": {"notNets": ["0.0.0.0/0"]}}), "logical contradiction"),
        (json!({"action": "Allow", "icmp": {"type": 8}}), "require protocol"),
        (json!({"action": "Allow", "protocol": "ICMP", "icmp": {"code": 0}}), "without an ICMP type"),
        (json!({"action": "Allow", "protocol": "ICMP", "ipVersion": 6}), "requires ipVersion 4"),
        (json!({"action": "Deny", "http": {"methods": ["GET"]}}), "only valid on Allow"),
        (json!({"action": "Allow", "http": {"paths": [{"exact": "x"}]}}), "must start with '/'"),
        (json!({"action": "Allow", "source": {"selector": "global()"}}), "global()"),
        (
            json!({"action": "Allow", "source": {"services": {"name": "a"}, "nets": ["10.0.0.0/8"]}}),
            "cannot specify nets",
        ),
        (
            json!({"action": "Allow", "destination": {"services": {"name": "a"}}}),
            "not allowed in ingress rule destination",
        ),
    ] {
        bad("NetworkPolicy", rule(one), says);
    }
    bad("GlobalNetworkPolicy", json!({"preDNAT": true}), "applyOnForward");
    bad("GlobalNetworkPolicy", json!({"types": ["Ingress", "Ingress"]}), "more than once");
    bad("GlobalNetworkPolicy", json!({"selector": "("}), "spec.selector = '('");
    bad(
        "StagedNetworkPolicy",
        json!({"stagedAction": "Delete", "selector": "all()"}),
        "stagedAction is Delete",
    );
    good("StagedKubernetesNetworkPolicy", json!({"stagedAction": "Delete", "podSelector": {}}));
    // Calico takes these; so do we.
    good("Profile", json!({"ingress": [{"action": "Ok"}]}));
    good("NetworkSet", json!({"nets": ["", "10.0.0.1/8"]}));
    bad("Profile", json!({"labelsToApply": {"a b": "c"}}), "a b");
}

#[test]
fn the_rest() {
    bad("Node", json!({"bgp": {}}), "spec.bgp");
    bad("Node", json!({"bgp": {"ipv4Address": "fd00::1/64"}}), "IPv4");
    good("Node", json!({"addresses": [{"address": "here", "type": "Secret"}]}));
    bad("WorkloadEndpoint", json!({"ipNetworks": ["10.0.0.0/24"]}), "multiple addresses");
    bad(
        "WorkloadEndpoint",
        json!({"ipNetworks": ["10.0.0.1/32"], "ipNATs": [{"internalIP": "10.0.0.2", "externalIP": "192.0.2.1"}]}),
        "not in the endpoint",
    );
    bad("HostEndpoint", json!({"interfaceName": "eth0"}), "node must be specified");
    bad("HostEndpoint", json!({"node": "a", "expectedIPs": ["10.0.0.0/24"]}), "spec.expectedIPs[0]");
    good("HostEndpoint", json!({"node": "a", "interfaceName": "*"}));
    good("Tier", json!({}));
    bad("Tier", json!({"order": 5}), "order must be 1000000");
    bad("Tier", json!({"defaultAction": "Pass"}), "must have default action 'Deny'");
    bad(
        "CalicoNodeStatus",
        json!({"node": "a", "classes": ["BGP"]}),
        "spec.updatePeriodSeconds (must be given)",
    );
    bad(
        "CalicoNodeStatus",
        json!({"node": "a", "classes": ["BGP", "BGP"], "updatePeriodSeconds": 1}),
        "more than once",
    );
    bad(
        "CalicoNodeStatus",
        json!({"node": "a", "classes": ["Weather"], "updatePeriodSeconds": 1}),
        "spec.classes[0]",
    );
    bad("IPAMConfiguration", json!({"maxBlocksPerHost": -1}), "between 0 and 1000000");
    bad("FelixConfiguration", json!({"routeTableRange": {"min": 0, "max": 9}}), "1..250");
    bad("FelixConfiguration", json!({"kubeNodePortRanges": ["http"]}), "named ports");
    bad("FelixConfiguration", json!({"chainInsertMode": "prepend"}), "Insert");
    good(
        "FelixConfiguration",
        json!({"chainInsertMode": "insert", "iptablesPostWriteCheckInterval": "1.5s", "failsafeInboundHostPorts": []}),
    );
    bad("IPReservation", json!({"reservedCIDRs": ["10.0.0.1"]}), "prefix length");
}

#[test]
fn names() {
    for (kind, name, fine) in [
        ("Node", "node-1.rack", true),
        ("Node", "Node-A", false),
        ("Node", "", false),
        ("Tier", "a.b", false),
        ("GlobalNetworkPolicy", "default.allow", true),
        ("GlobalNetworkPolicy", "a.b.c", false),
        ("NetworkPolicy", "knp.default.a.b", true),
        ("WorkloadEndpoint", "node--1-k8s-db--0-eth0", true),
    ] {
        let object = json!({"metadata": {"name": name}, "spec": {"order": 5}});
        let errors = validate_value(kind, &object);
        let complained = errors.iter().any(|e| e.field == "metadata.name");
        assert_eq!(complained, !fine, "{kind} {name}: {errors:?}");
    }
    let long = "n".repeat(254);
    let errors = validate_value("Node", &json!({"metadata": {"name": long}, "spec": {}}));
    assert!(errors[0].reason.contains("too long by 1 bytes"));
}

#[test]
fn our_annotations_are_checked_like_fields() {
    let said = |kind: &str, annotations: Value, spec: Value| -> Vec<String> {
        let object =
            json!({"kind": kind, "metadata": {"name": "default", "annotations": annotations}, "spec": spec});
        let object = decode(kind, &object, Unknown::Refuse(None)).expect("shape");
        validate_value(kind, &object).iter().map(ToString::to_string).collect()
    };
    let peer = json!({"peerIP": "10.0.0.1", "asNumber": 65000});
    let good = json!({"caracal.io/bfd": "on", "caracal.io/hold-time": "9s", "caracal.io/of-tomorrow": "x", "a.b/c": "?"});
    assert_eq!(said("BGPPeer", good, peer.clone()), Vec::<String>::new());
    assert_eq!(
        said("BGPPeer", json!({"caracal.io/hold-time": "2s"}), peer.clone()),
        [
            "metadata.annotations[caracal.io/hold-time] = '2s' (must be 0s, or a duration of whole seconds from 3s to 65535s)"
        ]
    );
    assert_eq!(
        said("BGPPeer", json!({"caracal.io/keepalive": "2s"}), peer),
        [
            "metadata.annotations[caracal.io/keepalive] = '2s' (is for a BGPConfiguration only; here set spec.keepaliveTime)"
        ]
    );
    let eth1 = json!({"caracal.io/interface": "eth1", "caracal.io/remote-as": "external"});
    assert_eq!(said("BGPPeer", eth1.clone(), json!({"peerSelector": "!all()"})), Vec::<String>::new());
    let errors = said("BGPPeer", eth1, json!({"peerIP": "10.0.0.1", "asNumber": 65000}));
    assert!(errors.len() == 1 && errors[0].contains("spec"), "{errors:?}");
    let errors = said("BGPPeer", json!({"caracal.io/default-gateway": "ipv4"}), json!({}));
    assert!(errors[0].contains("asNumber") && errors[0].contains("nodes that run Calico"), "{errors:?}");
    let errors = said("BGPPeer", json!({"caracal.io/default-gateway": "both"}), json!({}));
    assert!(errors.len() == 1 && errors[0].contains("must be ipv4 or ipv6"), "{errors:?}");
    let errors = said("BGPConfiguration", json!({"caracal.io/passive": "on"}), json!({}));
    assert!(errors[0].contains("is for a BGPPeer only"), "{errors:?}");
    // Other kinds have other annotations.
    assert_eq!(said("BGPFilter", json!({"caracal.io/bfd": "perhaps"}), json!({})), Vec::<String>::new());
}
