//! What the environment says of this node, in calico-node's words.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use ipnet::IpNet;

use super::autodetect::Method;

/// The variables that start-up reads. Names and defaults are calico-node's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// `NODENAME`, else `HOSTNAME`, else the host's name in lower case.
    pub(crate) name: String,
    /// `IP`.
    pub(crate) ipv4: Address,
    /// `IP6`.
    pub(crate) ipv6: Address,
    /// `IP_AUTODETECTION_METHOD`.
    pub(crate) ipv4_method: Method,
    /// `IP6_AUTODETECTION_METHOD`.
    pub(crate) ipv6_method: Method,
    /// `AS`.
    pub(crate) as_number: Option<u32>,
    /// `CLUSTER_TYPE`, a comma-separated list; `bgp` is always added.
    pub(crate) cluster_type: String,
    /// `CALICO_K8S_NODE_REF`.
    pub(crate) kubernetes_node: Option<String>,
    /// Pools to make when there is none; empty with `NO_DEFAULT_POOLS=true`.
    pub(crate) pools: Vec<Pool>,
    /// `DISABLE_NODE_IP_CHECK`: do not look for another node with our address.
    pub(crate) skip_address_check: bool,
    /// `CALICO_NETWORKING_BACKEND`: `bird` runs the speaker, `none` does not.
    pub(crate) speaker: bool,
    /// Where the `nodename` file for CNI plugins goes.
    pub(crate) state_dir: PathBuf,
}

/// What `IP` and `IP6` may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Unset: keep the Node object's address, detect one when it has none.
    Keep,
    /// `autodetect`: detect at every start.
    Autodetect,
    /// `none`: this family takes no part.
    None,
    /// An address; without a length the interface's length counts.
    Given(IpAddr, Option<u8>),
}

/// A default pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    /// `default-ipv4-ippool` or `default-ipv6-ippool`.
    pub(crate) name: &'static str,
    /// `CALICO_IPV4POOL_CIDR`.
    pub(crate) cidr: IpNet,
    /// `CALICO_IPV4POOL_BLOCK_SIZE`.
    pub(crate) block_size: u8,
    /// `CALICO_IPV4POOL_NAT_OUTGOING`.
    pub(crate) nat_outgoing: bool,
    /// `CALICO_IPV4POOL_NODE_SELECTOR`.
    pub(crate) node_selector: String,
    /// `CALICO_IPV4POOL_DISABLE_BGP_EXPORT`.
    pub(crate) disable_bgp_export: bool,
}

/// The environment as a function, so that tests bring their own.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Settings {
    /// Reads the environment; an error names the variable and what it may be.
    pub(crate) fn read(env: Environment<'_>, hostname: &str) -> anyhow::Result<Self> {
        let text = |name: &str| env(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let name = text("NODENAME").or_else(|| text("HOSTNAME")).unwrap_or_else(|| hostname.to_lowercase());
        if name.is_empty() || name.contains('/') {
            bail!("NODENAME {name:?}: a node name is not empty and has no '/'; set NODENAME");
        }
        let state_dir = text("CARACAL_STATE_DIR").or_else(|| text("CARACAL_RUN_DIR"));
        Ok(Self {
            ipv4: address("IP", text("IP"), false)?,
            ipv6: address("IP6", text("IP6").or_else(|| Some("none".into())), true)?,
            ipv4_method: method("IP_AUTODETECTION_METHOD", text("IP_AUTODETECTION_METHOD"))?,
            ipv6_method: method("IP6_AUTODETECTION_METHOD", text("IP6_AUTODETECTION_METHOD"))?,
            as_number: text("AS").map(|v| as_number(&v)).transpose()?,
            cluster_type: text("CLUSTER_TYPE").unwrap_or_default(),
            kubernetes_node: text("CALICO_K8S_NODE_REF"),
            pools: if flag("NO_DEFAULT_POOLS", text("NO_DEFAULT_POOLS"), false)? {
                Vec::new()
            } else {
                pools(&text)?
            },
            skip_address_check: flag("DISABLE_NODE_IP_CHECK", text("DISABLE_NODE_IP_CHECK"), false)?,
            speaker: match text("CALICO_NETWORKING_BACKEND").as_deref() {
                None | Some("bird") => true,
                Some("none") => false,
                Some(other) => bail!(
                    "CALICO_NETWORKING_BACKEND {other:?}: Caracal routes without tunnels; use bird, or none to leave BGP to others"
                ),
            },
            state_dir: state_dir.map_or_else(|| PathBuf::from("/var/lib/calico"), PathBuf::from),
            name,
        })
    }
}

fn address(name: &str, value: Option<String>, ipv6: bool) -> anyhow::Result<Address> {
    let Some(value) = value else { return Ok(Address::Keep) };
    match value.as_str() {
        "autodetect" => return Ok(Address::Autodetect),
        "none" => return Ok(Address::None),
        _ => {}
    }
    let (ip, length) = match value.split_once('/') {
        None => (value.parse().ok(), None),
        Some(_) => {
            let net: Option<IpNet> = value.parse().ok();
            (net.map(|n| n.addr()), net.map(|n| n.prefix_len()))
        }
    };
    let ip: IpAddr = ip.with_context(|| {
        format!("{name} {value:?}: give an address (192.0.2.1 or 192.0.2.1/24), `autodetect` or `none`")
    })?;
    if ip.is_ipv6() != ipv6 {
        bail!("{name} {value:?}: an IPv{} address belongs here", if ipv6 { 6 } else { 4 });
    }
    Ok(Address::Given(ip, length))
}

fn method(name: &str, value: Option<String>) -> anyhow::Result<Method> {
    value.map_or(Ok(Method::FirstFound), |v| v.parse().with_context(|| format!("{name} {v:?}")))
}

/// An AS number, plain or dotted (RFC 5396).
fn as_number(value: &str) -> anyhow::Result<u32> {
    let plain = || value.parse::<u32>().ok();
    let dotted = || {
        let (high, low) = value.split_once('.')?;
        Some(u32::from(high.parse::<u16>().ok()?) << 16 | u32::from(low.parse::<u16>().ok()?))
    };
    plain()
        .or_else(dotted)
        .filter(|&asn| asn != 0)
        .with_context(|| format!("AS {value:?}: give a number from 1 to 4294967295 or high.low"))
}

fn flag(name: &str, value: Option<String>, default: bool) -> anyhow::Result<bool> {
    match value.as_deref().map(str::to_lowercase).as_deref() {
        None => Ok(default),
        Some("true" | "1" | "yes" | "on") => Ok(true),
        Some("false" | "0" | "no" | "off") => Ok(false),
        Some(other) => bail!("{name} {other:?}: give true or false"),
    }
}

fn pools(text: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Vec<Pool>> {
    let mut pools = vec![pool(text, "IPV4", "default-ipv4-ippool", Some("192.168.0.0/16"), 26, true)?];
    pools.push(pool(text, "IPV6", "default-ipv6-ippool", None, 122, false)?);
    Ok(pools.into_iter().flatten().collect())
}

fn pool(
    text: &dyn Fn(&str) -> Option<String>,
    family: &str,
    name: &'static str,
    default: Option<&str>,
    block_size: u8,
    nat: bool,
) -> anyhow::Result<Option<Pool>> {
    let variable = |suffix: &str| format!("CALICO_{family}POOL_{suffix}");
    let Some(cidr) = text(&variable("CIDR")).or_else(|| default.map(String::from)) else { return Ok(None) };
    if cidr == "none" {
        return Ok(None);
    }
    let net: IpNet = cidr
        .parse()
        .with_context(|| format!("{} {cidr:?}: give a prefix like 10.100.0.0/16", variable("CIDR")))?;
    for mode in ["IPIP", "VXLAN"] {
        if let Some(value) =
            text(&variable(mode)).filter(|v| !["never", "off"].contains(&v.to_lowercase().as_str()))
        {
            bail!("{} {value:?}: Caracal routes without tunnels; set it to Never", variable(mode));
        }
    }
    let size = match text(&variable("BLOCK_SIZE")) {
        None => block_size,
        Some(size) => size
            .parse()
            .with_context(|| format!("{} {size:?}: give a prefix length", variable("BLOCK_SIZE")))?,
    };
    let range = if net.addr().is_ipv4() { 20..=32 } else { 116..=128 };
    if !range.contains(&size) || size < net.prefix_len() {
        bail!(
            "{} {size}: must be within {range:?} and not shorter than the pool's length",
            variable("BLOCK_SIZE")
        );
    }
    Ok(Some(Pool {
        name,
        cidr: net.trunc(),
        block_size: size,
        nat_outgoing: flag(&variable("NAT_OUTGOING"), text(&variable("NAT_OUTGOING")), nat)?,
        node_selector: text(&variable("NODE_SELECTOR")).unwrap_or_else(|| "all()".into()),
        disable_bgp_export: flag(
            &variable("DISABLE_BGP_EXPORT"),
            text(&variable("DISABLE_BGP_EXPORT")),
            false,
        )?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let get = |name: &str| vars.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
        Settings::read(&get, "Host-A")
    }

    #[test]
    fn nothing_set_is_a_node_named_after_its_host() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.name, "host-a");
        assert_eq!((settings.ipv4, settings.ipv6), (Address::Keep, Address::None));
        assert_eq!(settings.pools.len(), 1);
        assert_eq!(settings.pools[0].cidr.to_string(), "192.168.0.0/16");
        assert!(settings.speaker);
    }

    #[test]
    fn addresses_with_and_without_length() {
        let settings = read(&[("IP", "10.0.0.9/24"), ("IP6", "2001:db8::9"), ("AS", "1.10")]).unwrap();
        assert_eq!(settings.ipv4, Address::Given([10, 0, 0, 9].into(), Some(24)));
        assert_eq!(settings.ipv6, Address::Given("2001:db8::9".parse().unwrap(), None));
        assert_eq!(settings.as_number, Some(65546));
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        for (name, value) in [
            ("IP", "10.0.0.300"),
            ("IP", "2001:db8::1"),
            ("IP6", "10.0.0.1"),
            ("AS", "0"),
            ("AS", "4294967296"),
            ("CALICO_IPV4POOL_CIDR", "10.0.0.0"),
            ("CALICO_IPV4POOL_BLOCK_SIZE", "8"),
            ("CALICO_IPV4POOL_IPIP", "Always"),
            ("NO_DEFAULT_POOLS", "perhaps"),
            ("IP_AUTODETECTION_METHOD", "nearest"),
            ("CALICO_NETWORKING_BACKEND", "vxlan"),
        ] {
            let err = format!("{:#}", read(&[(name, value)]).unwrap_err());
            assert!(err.contains(name) && err.contains(value), "{name}={value}: {err}");
        }
    }
}
