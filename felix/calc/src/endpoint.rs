//! One endpoint: what its object says, checked, and what the dataplane should make of it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::Config;
use crate::pools::Pools;

/// Longest name of a Linux link (IFNAMSIZ less the terminating zero).
const LINK_NAME_MAX: usize = 15;
/// The link inside the workload when `spec.endpoint` is empty.
const DEFAULT_PEER: &str = "eth0";

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Who an endpoint is: Calico's v1 identity, as its status key and its tie-breaks use it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WepId {
    /// `k8s`, `cni`, …
    pub orchestrator: String,
    /// `<namespace>/<pod or container>`.
    pub workload: String,
    /// Usually `eth0`.
    pub endpoint: String,
}

impl fmt::Display for WepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.orchestrator, self.workload, self.endpoint)
    }
}

/// The fields of a WorkloadEndpoint that the dataplane needs, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// `spec.node`.
    pub node: String,
    /// `metadata.creationTimestamp`; decides between two claims to one address.
    pub created: String,
    /// `spec.interfaceName`.
    pub interface_name: String,
    /// `spec.endpoint`.
    pub endpoint: String,
    /// The annotation `caracal.io/netns`.
    pub netns: Option<String>,
    /// `spec.mac`.
    pub mac: String,
    /// `spec.ipNetworks`.
    pub ip_networks: Vec<String>,
    /// `spec.allowSpoofedSourcePrefixes` is not empty.
    pub spoofs: bool,
}

/// What the dataplane should have for an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The host end of the link.
    pub iface: String,
    /// The workload's namespace, when it is on us to make the link and what is inside.
    pub netns: Option<String>,
    /// The link's name inside the workload.
    pub peer: String,
    /// The workload's own Ethernet address, when it is known.
    pub mac: Option<Mac>,
    /// The workload's addresses, IPv4 first, each once.
    pub addresses: Vec<IpAddr>,
    /// Packets from it may carry foreign source addresses.
    pub spoofs: bool,
}

/// The answer for one endpoint of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// `<namespace>/<name>` of the object, for people.
    pub name: Arc<str>,
    /// What to program; nothing when the object cannot be obeyed at all.
    pub workload: Option<Workload>,
    /// What a person has to mend, if anything. The endpoint's status is `error` then.
    pub problem: Option<String>,
}

/// What is wrong with a field, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field in the object.
    pub field: String,
    /// Why it cannot be obeyed.
    pub why: String,
    /// The edit that mends it.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.why, self.fix)
    }
}

/// What remains of an object after every field was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// `metadata.creationTimestamp`.
    pub(crate) created: String,
    /// What can be obeyed, before other endpoints' claims are considered; its addresses are those in a pool.
    pub(crate) workload: Option<Workload>,
    /// Addresses in no pool: nobody gets such a one, but who has it already keeps it.
    pub(crate) outside: Vec<IpAddr>,
    pub(crate) problems: Vec<Problem>,
}

/// Looks at every field. Fields that only cost themselves (one address, the MAC) do not cost the endpoint.
pub(crate) fn check(written: &Written, node: &str, config: &Config, pools: &Pools) -> Checked {
    let mut problems = Vec::new();
    let mut note = |problem: Option<Problem>| problem.map(|p| problems.push(p)).is_none();
    let mut usable = note(check_node(&written.node, node));
    usable &= note(check_interface(&written.interface_name, &config.interface_prefixes));
    usable &= note(written.netns.as_deref().and_then(check_netns));
    usable &= note(written.netns.as_deref().and_then(|_| check_peer(&written.endpoint)));
    if written.spoofs && !config.spoofing_allowed {
        usable = note(Some(Problem {
            field: "spec.allowSpoofedSourcePrefixes".into(),
            why: "this node does not let workloads send from foreign addresses".into(),
            fix: "remove the prefixes, or set workloadSourceSpoofing: Any in the FelixConfiguration".into(),
        }));
    }
    let (mut addresses, mut outside) = (Vec::new(), Vec::new());
    for (index, text) in written.ip_networks.iter().enumerate() {
        let mut wrong =
            |(why, fix)| note(Some(Problem { field: format!("spec.ipNetworks[{index}]"), why, fix }));
        match check_address(text) {
            Ok(address) if address.is_ipv6() && !config.ipv6 => {}
            Ok(address) if pools.holds(address) => addresses.push(address),
            Ok(address) => {
                outside.push(address);
                let fix = "give it an address from an IPPool, or create a pool (disabled: true will do) that covers it";
                wrong((format!("{address} is in no IPPool"), fix.into()));
            }
            Err(why_and_fix) => {
                wrong(why_and_fix);
            }
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    let mac = match written.mac.as_str() {
        "" => None,
        text => {
            let mac = parse_mac(text);
            if mac.is_none() {
                note(Some(Problem {
                    field: "spec.mac".into(),
                    why: "not the address of one Ethernet device".into(),
                    fix: "write six octets such as ca:fe:1d:52:bb:e9".into(),
                }));
            }
            mac
        }
    };
    let peer = if written.endpoint.is_empty() { DEFAULT_PEER } else { &written.endpoint };
    let some = !addresses.is_empty() || !outside.is_empty();
    let workload = (usable && some).then(|| Workload {
        iface: written.interface_name.clone(),
        netns: written.netns.clone(),
        peer: peer.into(),
        mac,
        addresses,
        spoofs: written.spoofs,
    });
    Checked { created: written.created.clone(), workload, outside, problems }
}

fn check_node(written: &str, node: &str) -> Option<Problem> {
    (!written.is_empty() && written != node).then(|| Problem {
        field: "spec.node".into(),
        why: format!("{} is not the node {node} that the object's name says", quoted(written)),
        fix: "write the object under the name that its spec gives".into(),
    })
}

fn check_interface(name: &str, prefixes: &[String]) -> Option<Problem> {
    let shown = quoted(name);
    let why = if name.is_empty() {
        "empty".into()
    } else if name.len() > LINK_NAME_MAX {
        format!("{shown} has {} characters, a link name has {LINK_NAME_MAX} at most", name.len())
    } else if !link_name_is_possible(name) {
        format!("{shown} has a character that a link name cannot have")
    } else if !prefixes.iter().any(|prefix| name.starts_with(prefix.as_str())) {
        format!("{shown} does not begin with {}, the prefix of workload links", prefixes.join(" or "))
    } else if prefixes.iter().any(|prefix| name == prefix) {
        format!("{shown} is a bare prefix")
    } else {
        return None;
    };
    let example = prefixes.first().map_or("cali", String::as_str);
    Some(Problem {
        field: "spec.interfaceName".into(),
        why,
        fix: format!("give it a name such as {example}1b15813a0a8"),
    })
}

fn check_peer(name: &str) -> Option<Problem> {
    let possible =
        name.is_empty() || (name.len() <= LINK_NAME_MAX && link_name_is_possible(name) && name != "lo");
    (!possible).then(|| Problem {
        field: "spec.endpoint".into(),
        why: format!("{} cannot be the name of a link", quoted(name)),
        fix: "use a name such as eth0".into(),
    })
}

fn check_netns(path: &str) -> Option<Problem> {
    let possible = path.starts_with('/')
        && path.len() < 4096
        && !path.contains('\0')
        && !path.split('/').any(|p| p == "..");
    (!possible).then(|| Problem {
        field: format!("metadata.annotations[{NETNS_ANNOTATION}]"),
        why: format!("{} is not an absolute path", quoted(path)),
        fix: "name the workload's namespace, for example /run/netns/web, or remove the annotation".into(),
    })
}

/// Names the network namespace in which felix makes the workload's end of the link.
pub const NETNS_ANNOTATION: &str = "caracal.io/netns";

/// What the kernel takes (net/core/dev.c dev_valid_name); `%` too would be taken as a pattern.
fn link_name_is_possible(name: &str) -> bool {
    name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'))
}

/// One address, as /32 or /128 or bare.
fn check_address(text: &str) -> Result<IpAddr, (String, String)> {
    let shown = quoted(text);
    let net: IpNet = match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
        Ok(net) => net,
        Err(_) => {
            return Err((
                format!("{shown} is not an address"),
                "write it as 10.0.0.1/32 or fd00::1/128".into(),
            ));
        }
    };
    let (address, full) = (net.addr(), net.max_prefix_len());
    if net.prefix_len() != full {
        return Err((
            format!("{shown} is a network, a workload has single addresses"),
            format!("write {address}/{full}"),
        ));
    }
    let special = address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || matches!(address, IpAddr::V4(a) if a.is_link_local() || a.is_broadcast())
        || matches!(address, IpAddr::V6(a) if a.is_unicast_link_local() || a.to_ipv4_mapped().is_some());
    if special {
        return Err((
            format!("{address} cannot be a workload's address"),
            "give it an address from an IPPool".into(),
        ));
    }
    Ok(address)
}

/// Six octets with colons or dashes, unicast and not zero.
fn parse_mac(text: &str) -> Option<Mac> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for octet in &mut mac {
        let part =
            parts.next().filter(|p| matches!(p.len(), 1 | 2) && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

/// A stored text as a person may see it: quoted, never whole when it is long.
fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Written {
        Written {
            node: "n1".into(),
            interface_name: "cali1".into(),
            endpoint: "eth0".into(),
            mac: "ca:fe:1d:52:bb:e9".into(),
            ip_networks: vec!["10.0.0.1/32".into()],
            ..Written::default()
        }
    }

    fn pools() -> Pools {
        let mut pools = Pools::default();
        pools.set("p4", Some("10.0.0.0/16".parse().unwrap()));
        pools.set("p6", Some("fd00::/64".parse().unwrap()));
        pools
    }

    fn checked(change: impl FnOnce(&mut Written)) -> (Option<Workload>, Vec<String>) {
        let mut w = written();
        change(&mut w);
        let c = check(&w, "n1", &Config::default(), &pools());
        let workload = c.workload.filter(|w| !w.addresses.is_empty());
        (workload, c.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_good_object_has_no_problem() {
        let (workload, problems) = checked(|w| {
            w.ip_networks =
                ["fd00::5/128", "10.0.0.9/32", "10.0.0.1", "10.0.0.1/32"].map(String::from).to_vec();
            w.netns = Some("/run/netns/web".into());
        });
        let workload = workload.unwrap();
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(
            workload.addresses,
            ["10.0.0.1", "10.0.0.9", "fd00::5"].map(|a| a.parse::<IpAddr>().unwrap())
        );
        assert_eq!(workload.mac, Some([0xca, 0xfe, 0x1d, 0x52, 0xbb, 0xe9]));
    }

    #[test]
    fn interface_names() {
        for (name, part) in [
            ("", "spec.interfaceName: empty; give"),
            ("cali123456789012", "has 16 characters, a link name has 15 at most"),
            ("eth0", "does not begin with cali"),
            ("cali", "is a bare prefix"),
            ("cali/1", "cannot have"),
            ("cali%d", "cannot have"),
            ("cali 1", "cannot have"),
            ("calié", "cannot have"),
        ] {
            let (workload, problems) = checked(|w| w.interface_name = name.into());
            assert_eq!(workload, None, "{name}");
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(part), "{problems:?}");
        }
    }

    #[test]
    fn one_bad_address_costs_only_itself() {
        for (text, part) in [
            ("10.1.0.1/32", "10.1.0.1 is in no IPPool; give it an address"),
            ("10.0.0.0/26", "is a network, a workload has single addresses; write 10.0.0.0/32"),
            ("10.0.0.300", "is not an address"),
            ("127.0.0.1/32", "cannot be a workload's address"),
            ("fe80::1/128", "cannot be a workload's address"),
        ] {
            let (workload, problems) = checked(|w| w.ip_networks.push(text.into()));
            assert_eq!(workload.unwrap().addresses.len(), 1, "{text}");
            assert_eq!(problems.len(), 1);
            assert!(
                problems[0].starts_with("spec.ipNetworks[1]: ") && problems[0].contains(part),
                "{problems:?}"
            );
            assert_eq!(checked(|w| w.ip_networks = vec![text.into()]).0, None);
        }
    }

    #[test]
    fn a_bad_mac_costs_the_neighbour_only() {
        for text in [
            "xx",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "ca:fe:1d:52:bb",
            "ca:fe:1d:52:bb:e9:00",
            "ca:fe:1d:52:bb:+9",
        ] {
            let (workload, problems) = checked(|w| w.mac = text.into());
            assert_eq!(workload.unwrap().mac, None, "{text}");
            assert!(problems[0].starts_with("spec.mac: "), "{problems:?}");
        }
    }

    #[test]
    fn the_namespace_path_is_absolute() {
        for text in ["web", "", "/run/netns/../../etc"] {
            let (workload, problems) = checked(|w| w.netns = Some(text.into()));
            assert_eq!(workload, None);
            assert!(problems[0].starts_with("metadata.annotations[caracal.io/netns]: "), "{problems:?}");
        }
    }

    #[test]
    fn another_nodes_object_under_our_name() {
        let (workload, problems) = checked(|w| w.node = "n2".into());
        assert_eq!(workload, None);
        assert!(problems[0].starts_with("spec.node: \"n2\" is not the node n1"), "{problems:?}");
    }

    #[test]
    fn long_texts_are_never_shown_whole() {
        let (_, problems) = checked(|w| w.ip_networks = vec!["x".repeat(100_000)]);
        assert!(problems[0].len() < 200);
    }

    #[test]
    fn spoofing_needs_the_nodes_consent() {
        let (workload, problems) = checked(|w| w.spoofs = true);
        assert_eq!(workload, None);
        assert!(problems[0].starts_with("spec.allowSpoofedSourcePrefixes: "), "{problems:?}");
        let config = Config { spoofing_allowed: true, ..Config::default() };
        let c = check(&Written { spoofs: true, ..written() }, "n1", &config, &pools());
        assert!(c.workload.unwrap().spoofs);
    }
}
