//! Which address of this host is the node's: calico-node's methods, as a function of the interfaces.

use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use regex::Regex;

/// An interface with its addresses, in the kernel's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Its name.
    pub(crate) name: String,
    /// Administratively up.
    pub(crate) up: bool,
    /// Addresses with the length of their subnet.
    pub(crate) addresses: Vec<IpNet>,
}

/// `IP_AUTODETECTION_METHOD`.
#[derive(Clone, Debug)]
pub(crate) enum Method {
    /// `first-found`: the first usable interface.
    FirstFound,
    /// `can-reach=DEST`: the source address towards DEST.
    CanReach(String),
    /// `interface=REGEX,…`: the first interface that one of them matches.
    Interface(Vec<Regex>),
    /// `skip-interface=REGEX,…`: first-found without these.
    SkipInterface(Vec<Regex>),
    /// `cidr=CIDR,…`: the first address in one of them.
    Cidr(Vec<IpNet>),
}

impl PartialEq for Method {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

/// Interfaces that never carry a node's address (calico-node's list, and ours).
const EXCLUDED: &str = "^(docker.*|cbr.*|dummy.*|virbr.*|lxcbr.*|veth.*|lo|cali.*|tunl.*|flannel.*|kube-ipvs.*|\
                        cni.*|vxlan\\.calico.*|vxlan-v6\\.calico.*|br-.*|wireguard\\.cali.*|wg-v6\\.cali.*|nodelocaldns.*)$";

impl FromStr for Method {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let regexes = |list: &str| {
            list.split(',')
                .map(|r| {
                    Regex::new(&format!("^(?:{r})$")).with_context(|| format!("regular expression {r:?}"))
                })
                .collect::<anyhow::Result<Vec<Regex>>>()
        };
        Ok(match text.split_once('=') {
            None if text == "first-found" => Self::FirstFound,
            Some(("can-reach", host)) => Self::CanReach(host.into()),
            Some(("interface", list)) => Self::Interface(regexes(list)?),
            Some(("skip-interface", list)) => Self::SkipInterface(regexes(list)?),
            Some(("cidr", list)) => Self::Cidr(
                list.split(',')
                    .map(|c| c.trim().parse().with_context(|| format!("prefix {c:?}")))
                    .collect::<Result<_, _>>()?,
            ),
            _ => bail!(
                "not one of first-found, can-reach=HOST, interface=REGEX, skip-interface=REGEX, cidr=PREFIX"
            ),
        })
    }
}

/// The node's address by `method`. `reach` says which source address the kernel takes towards a host.
pub(crate) fn detect(
    method: &Method,
    ipv6: bool,
    interfaces: &[Interface],
    reach: impl FnOnce(&str) -> Option<IpAddr>,
) -> Option<IpNet> {
    let excluded = Regex::new(EXCLUDED).expect("invariant: a constant pattern");
    let usable = |interface: &&Interface| interface.up && !excluded.is_match(&interface.name);
    let first = |interface: &Interface| interface.addresses.iter().copied().find(|a| fits(*a, ipv6));
    match method {
        Method::FirstFound => interfaces.iter().filter(usable).find_map(first),
        Method::SkipInterface(skip) => interfaces
            .iter()
            .filter(usable)
            .filter(|i| !skip.iter().any(|r| r.is_match(&i.name)))
            .find_map(first),
        Method::Interface(wanted) => wanted
            .iter()
            .find_map(|r| interfaces.iter().filter(|i| i.up && r.is_match(&i.name)).find_map(first)),
        Method::Cidr(nets) => interfaces
            .iter()
            .filter(usable)
            .flat_map(|i| i.addresses.iter().copied())
            .find(|a| fits(*a, ipv6) && nets.iter().any(|n| n.contains(&a.addr()))),
        Method::CanReach(host) => {
            let source = reach(host)?;
            with_length(source, interfaces).filter(|a| fits(*a, ipv6))
        }
    }
}

/// An address of this host with the length of its subnet; `None` when no interface has it.
pub(crate) fn with_length(address: IpAddr, interfaces: &[Interface]) -> Option<IpNet> {
    interfaces.iter().flat_map(|i| i.addresses.iter().copied()).find(|a| a.addr() == address)
}

/// Right family, neither loopback nor link-local.
fn fits(address: IpNet, ipv6: bool) -> bool {
    match address.addr() {
        IpAddr::V4(a) => !ipv6 && !a.is_loopback() && !a.is_link_local() && !a.is_unspecified(),
        IpAddr::V6(a) => ipv6 && !a.is_loopback() && !a.is_unicast_link_local() && !a.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces() -> Vec<Interface> {
        let make = |name: &str, up, addresses: &[&str]| Interface {
            name: name.into(),
            up,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        };
        vec![
            make("lo", true, &["127.0.0.1/8", "::1/128"]),
            make("docker0", true, &["172.17.0.1/16"]),
            make("eth9", false, &["10.9.9.9/24"]),
            make("eth0", true, &["169.254.3.3/16", "192.168.1.5/24", "fe80::1/64", "2001:db8::5/64"]),
            make("eth1", true, &["10.0.0.5/24", "10.0.1.5/25"]),
        ]
    }

    #[test]
    fn each_method_finds_its_address() {
        let reach = |host: &str| (host == "10.0.0.1").then(|| IpAddr::from([10, 0, 0, 5]));
        for (method, ipv6, want) in [
            ("first-found", false, Some("192.168.1.5/24")),
            ("first-found", true, Some("2001:db8::5/64")),
            ("skip-interface=eth0", false, Some("10.0.0.5/24")),
            ("interface=eth1", false, Some("10.0.0.5/24")),
            ("interface=eth.*", false, Some("192.168.1.5/24")),
            ("interface=eth7,eth1", false, Some("10.0.0.5/24")),
            ("interface=eth", false, None),
            ("cidr=10.0.1.0/24", false, Some("10.0.1.5/25")),
            ("cidr=172.17.0.0/16", false, None),
            ("can-reach=10.0.0.1", false, Some("10.0.0.5/24")),
            ("can-reach=10.7.7.7", false, None),
        ] {
            let found = detect(&method.parse().unwrap(), ipv6, &interfaces(), reach);
            assert_eq!(found.map(|a| a.to_string()).as_deref(), want, "{method}");
        }
    }
}
