//! What a speaker of a cell is told, in words that every daemon's configuration is made from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Address family, of a session's transport or of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Host `number`'s address on the one LAN of a cell.
pub(crate) fn address(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 99, 0, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// Host `number`'s router id.
pub(crate) fn router_id(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, number)
}

/// The prefix that host `number` announces.
pub(crate) fn prefix(number: u8, family: Family) -> IpNet {
    let text = match family {
        Family::V4 => format!("10.{number}.0.0/16"),
        Family::V6 => format!("fd{number:02}::/48"),
    };
    text.parse().expect("invariant: both formats are prefixes")
}

/// One speaker.
#[derive(Clone, Debug)]
pub(crate) struct Speaker {
    /// Its host.
    pub(crate) number: u8,
    pub(crate) asn: u32,
    pub(crate) neighbours: Vec<Neighbour>,
    pub(crate) announces: Vec<Announce>,
}

/// One session, as one end is told of it.
#[derive(Clone, Debug)]
pub(crate) struct Neighbour {
    /// The other end's host.
    pub(crate) number: u8,
    /// The other end's AS.
    pub(crate) asn: u32,
    pub(crate) transport: Family,
    /// Families of routes.
    pub(crate) families: Vec<Family>,
    pub(crate) password: Option<&'static str>,
    pub(crate) ttl_security: bool,
    /// The other end is our route reflection client.
    pub(crate) client: bool,
    pub(crate) extended_next_hop: bool,
    pub(crate) add_path: bool,
    pub(crate) graceful_restart: Restart,
    pub(crate) extended_message: bool,
    pub(crate) max_prefixes: Option<u32>,
    /// BFD on the link, 100 ms x 3.
    pub(crate) bfd: bool,
}

/// What of graceful restart a session offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    No,
    /// Help the other end; who has no such setting offers both.
    Helper,
    Both,
    /// Both, away for [`SHORT_RESTART`] seconds at most, and then [`LONG_LIVED`] seconds more as the last resort.
    LongLived,
}

/// Restart time of [`Restart::LongLived`].
pub(crate) const SHORT_RESTART: u32 = 2;
/// Long-lived stale time of [`Restart::LongLived`].
pub(crate) const LONG_LIVED: u32 = 60;

impl Restart {
    /// Seconds within which a speaker promises to be back.
    pub(crate) fn time(self) -> u32 {
        if self == Restart::LongLived { SHORT_RESTART } else { 60 }
    }
}

/// One prefix that a speaker originates.
#[derive(Clone, Debug)]
pub(crate) struct Announce {
    pub(crate) prefix: IpNet,
    /// `a:b`.
    pub(crate) communities: Vec<String>,
    /// `a:b:c`.
    pub(crate) large: Vec<String>,
    /// Route targets, `a:b`.
    pub(crate) targets: Vec<String>,
}

impl Announce {
    pub(crate) fn plain(prefix: IpNet) -> Self {
        Self { prefix, communities: Vec::new(), large: Vec::new(), targets: Vec::new() }
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.communities.is_empty() && self.large.is_empty() && self.targets.is_empty()
    }

    pub(crate) fn family(&self) -> Family {
        if self.prefix.addr().is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

impl Neighbour {
    /// The other end's address.
    pub(crate) fn address(&self) -> IpAddr {
        address(self.number, self.transport)
    }

    pub(crate) fn carries(&self, family: Family) -> bool {
        self.families.contains(&family)
    }
}

impl Speaker {
    pub(crate) fn new(number: u8, asn: u32) -> Self {
        Self { number, asn, neighbours: Vec::new(), announces: Vec::new() }
    }

    /// Announces its own prefix of a family.
    pub(crate) fn announces_own(mut self, family: Family) -> Self {
        self.announces.push(Announce::plain(prefix(self.number, family)));
        self
    }

    /// This end's address of a session.
    pub(crate) fn local(&self, neighbour: &Neighbour) -> IpAddr {
        address(self.number, neighbour.transport)
    }
}

/// Puts a session between two speakers; `set` says what is special, for each end.
pub(crate) fn session(a: &mut Speaker, b: &mut Speaker, set: impl Fn(&mut Neighbour)) {
    let plain = |to: &Speaker| Neighbour {
        number: to.number,
        asn: to.asn,
        transport: Family::V4,
        families: vec![Family::V4],
        password: None,
        ttl_security: false,
        client: false,
        extended_next_hop: false,
        add_path: false,
        graceful_restart: Restart::No,
        extended_message: false,
        max_prefixes: None,
        bfd: false,
    };
    let (to_b, to_a) = (plain(b), plain(a));
    for (one, other) in [(a, to_b), (b, to_a)] {
        let mut neighbour = other;
        set(&mut neighbour);
        one.neighbours.push(neighbour);
    }
}
