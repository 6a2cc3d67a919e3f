//! Addresses and prefixes as they occur in resources.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Why a text is no address or prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// Not `address/length`.
    #[error("not a prefix: write address/length, such as 10.0.0.0/26 or fd00::/122")]
    Prefix,
    /// Not an address.
    #[error("not an IP address")]
    Address,
    /// Bits set beyond the prefix length.
    #[error("the prefix has host bits set: write {0}")]
    HostBits(IpNet),
    /// Not `address`, `address:port` or `[v6]:port`.
    #[error("not a peer address: write 192.0.2.1, 192.0.2.1:1790, 2001:db8::1 or [2001:db8::1]:1790")]
    Peer,
}

/// `address/length`; host bits are kept.
pub fn parse_interface(text: &str) -> Result<IpNet, NetError> {
    text.parse().map_err(|_| NetError::Prefix)
}

/// `address/length`; host bits are cut, as Calico's policy code does.
pub fn parse_prefix(text: &str) -> Result<IpNet, NetError> {
    Ok(parse_interface(text)?.trunc())
}

/// `address/length` without host bits.
pub fn parse_strict_prefix(text: &str) -> Result<IpNet, NetError> {
    let net = parse_interface(text)?;
    if net.trunc() == net { Ok(net) } else { Err(NetError::HostBits(net.trunc())) }
}

/// `address` or `address/length`; a bare address is its own /32 or /128.
pub fn parse_address_or_prefix(text: &str) -> Result<IpNet, NetError> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => parse_interface(text),
    }
}

/// A plain address.
pub fn parse_address(text: &str) -> Result<IpAddr, NetError> {
    text.parse().map_err(|_| NetError::Address)
}

/// A BGPPeer's `peerIP`: address and, if given, port.
pub fn parse_peer(text: &str) -> Result<(IpAddr, Option<u16>), NetError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, None));
    }
    let socket: SocketAddr = text.parse().map_err(|_| NetError::Peer)?;
    if socket.port() == 0 { Err(NetError::Peer) } else { Ok((socket.ip(), Some(socket.port()))) }
}

/// The `ordinal`th address of a prefix; none beyond its end.
pub fn nth_address(net: IpNet, ordinal: u32) -> Option<IpAddr> {
    let address = match net {
        IpNet::V4(net) => IpAddr::V4(Ipv4Addr::from_bits(net.network().to_bits().checked_add(ordinal)?)),
        IpNet::V6(net) => {
            IpAddr::V6(Ipv6Addr::from_bits(net.network().to_bits().checked_add(u128::from(ordinal))?))
        }
    };
    net.contains(&address).then_some(address)
}

/// Position of an address in a prefix.
pub fn ordinal_of(net: IpNet, address: IpAddr) -> Option<u32> {
    if !net.contains(&address) {
        return None;
    }
    match (net, address) {
        (IpNet::V4(net), IpAddr::V4(address)) => address.to_bits().checked_sub(net.network().to_bits()),
        (IpNet::V6(net), IpAddr::V6(address)) => {
            u32::try_from(address.to_bits().checked_sub(net.network().to_bits())?).ok()
        }
        _ => None,
    }
}

/// How many addresses a prefix has, if a u32 can say it.
pub fn size_of(net: IpNet) -> Option<u32> {
    1_u32.checked_shl(u32::from(net.max_prefix_len() - net.prefix_len()))
}

/// The prefix as a key's part: `10.0.0.0-26`.
pub(crate) fn key_part(net: IpNet) -> String {
    format!("{}-{}", net.addr(), net.prefix_len())
}

/// A key's part as the prefix; only the canonical spelling without host bits.
pub(crate) fn from_key_part(family: &str, part: &str) -> Option<IpNet> {
    let (address, length) = part.rsplit_once('-')?;
    let length: u8 = length.parse().ok()?;
    let net = match family {
        "ipv4" => IpNet::V4(Ipv4Net::new(address.parse().ok()?, length).ok()?),
        "ipv6" => IpNet::V6(Ipv6Net::new(address.parse().ok()?, length).ok()?),
        _ => return None,
    };
    (net.trunc() == net && key_part(net) == part).then_some(net)
}

/// A family's part of a key.
pub(crate) fn family(net: IpNet) -> &'static str {
    if net.addr().is_ipv4() { "ipv4" } else { "ipv6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_with_and_without_port() {
        assert_eq!(parse_peer("10.0.0.1:1790"), Ok(([10, 0, 0, 1].into(), Some(1790))));
        assert_eq!(parse_peer("10.0.0.1"), Ok(([10, 0, 0, 1].into(), None)));
        assert_eq!(parse_peer("[2001:db8::1]:179"), Ok(("2001:db8::1".parse().unwrap(), Some(179))));
        assert_eq!(parse_peer("2001:db8::1"), Ok(("2001:db8::1".parse().unwrap(), None)));
        for bad in ["", "tor", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:99999", "[10.0.0.1]:179", "10.0.0.1/24"] {
            assert_eq!(parse_peer(bad), Err(NetError::Peer), "{bad}");
        }
    }

    #[test]
    fn ordinals_count_from_the_network_address() {
        let net: IpNet = "fd00::ffff:ff80/122".parse().unwrap();
        assert_eq!(nth_address(net, 63), Some("fd00::ffff:ffbf".parse().unwrap()));
        assert_eq!(nth_address(net, 64), None);
        assert_eq!(ordinal_of(net, "fd00::ffff:ff81".parse().unwrap()), Some(1));
        let last: IpNet = "255.255.255.252/30".parse().unwrap();
        assert_eq!((nth_address(last, 3), nth_address(last, 4)), (Some([255; 4].into()), None));
        assert_eq!((size_of(last), size_of("0.0.0.0/0".parse().unwrap())), (Some(4), None));
    }

    #[test]
    fn strict_prefixes_name_the_right_spelling() {
        assert_eq!(parse_prefix("10.1.2.3/8"), parse_strict_prefix("10.0.0.0/8"));
        let error = parse_strict_prefix("10.1.2.3/8").unwrap_err();
        assert_eq!(error.to_string(), "the prefix has host bits set: write 10.0.0.0/8");
    }
}
