//! Which sessions there should be, and with what timers.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use thiserror::Error;

/// Whether the peer is on our own link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hops {
    /// RFC 5881: on the link. Port 3784, and only packets that no router forwarded count.
    Single,
    /// RFC 5883: anywhere. Port 4784.
    Multi,
}

impl Hops {
    /// The UDP port on which packets arrive.
    pub fn port(self) -> u16 {
        match self {
            Self::Single => 3784,
            Self::Multi => 4784,
        }
    }
}

/// What makes a session this session. Two users with an equal key share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// The peer's address.
    pub peer: IpAddr,
    /// Our address; without it the kernel chooses the source and any of our addresses may be written to.
    pub local: Option<IpAddr>,
    /// Index of the interface that packets must leave by and arrive on. Needed for link-local addresses.
    pub interface: Option<u32>,
    /// Single hop or multihop.
    pub hops: Hops,
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.peer)?;
        if let Some(interface) = self.interface {
            write!(f, "%{interface}")?;
        }
        if let Some(local) = self.local {
            write!(f, " from {local}")?;
        }
        if self.hops == Hops::Multi {
            f.write_str(" multihop")?;
        }
        Ok(())
    }
}

/// Timers and manners of a session; may change while it is up, without taking it down.
///
/// For the same detection time more and closer packets lose less: at 5 % loss a session with 300 ms x 3 goes down
/// falsely more than once an hour, one with 150 ms x 6 once in weeks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Least interval at which we would like to send. While the session is not up, at least a second.
    pub min_tx: Duration,
    /// Least interval at which we can receive.
    pub min_rx: Duration,
    /// How many of our intervals the peer may miss before it takes the session down.
    pub multiplier: u8,
    /// Send nothing before the peer does.
    pub passive: bool,
    /// Hold the session in AdminDown: the peer is told that this is no failure.
    pub admin_down: bool,
    /// Set the C bit: our BFD survives a restart of our control plane. Not so in one process.
    pub control_plane_independent: bool,
    /// Multihop only: least TTL or hop limit that a packet may arrive with; 255 minus the routers in between.
    pub min_ttl: u8,
    /// Delays the report of Up for a session that keeps going down (RFC 5882 §3.1).
    pub damping: Option<Damping>,
}

/// How long a session that went down again and again must stay up before that is reported: nothing after the
/// first time down, then `first`, twice that, and so on up to `most`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damping {
    /// Wait after the second time down.
    pub first: Duration,
    /// Longest wait.
    pub most: Duration,
    /// A session that stayed up for so long starts over.
    pub forget: Duration,
}

impl Default for Damping {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), most: Duration::from_secs(30), forget: Duration::from_mins(5) }
    }
}

impl Damping {
    /// The wait after `downs` times down.
    pub(crate) fn wait(&self, downs: u32) -> Duration {
        match downs.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) => self.first.saturating_mul(1 << doublings.min(20)).min(self.most),
        }
    }
}

impl Default for Params {
    /// 300 ms x 3, what routers are commonly set to.
    fn default() -> Self {
        Self {
            min_tx: Duration::from_millis(300),
            min_rx: Duration::from_millis(300),
            multiplier: 3,
            passive: false,
            admin_down: false,
            control_plane_independent: false,
            min_ttl: 1,
            damping: Some(Damping::default()),
        }
    }
}

/// A session that cannot be: which field, why, and what would do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidSession {
    /// An interval out of range.
    #[error("bfd session {key}: {field} is {value:?}; set it from 10ms to 60s")]
    Interval {
        /// The session.
        key: SessionKey,
        /// `min_tx` or `min_rx`.
        field: &'static str,
        /// What it is.
        value: Duration,
    },
    /// Multiplier zero.
    #[error("bfd session {key}: multiplier is 0; set it from 1 to 255, 3 is common")]
    Multiplier {
        /// The session.
        key: SessionKey,
    },
    /// Addresses of two families.
    #[error(
        "bfd session {key}: local and peer are of different families; give a local address of the peer's"
    )]
    Family {
        /// The session.
        key: SessionKey,
    },
    /// A peer that nobody can be.
    #[error("bfd session {key}: peer is not the address of one neighbour; give its unicast address")]
    Peer {
        /// The session.
        key: SessionKey,
    },
    /// A link-local peer without interface, or one that should be several hops away.
    #[error(
        "bfd session {key}: a link-local peer is found on one interface only; name it, and use single hop"
    )]
    LinkLocal {
        /// The session.
        key: SessionKey,
    },
}

/// Shortest and longest interval that we offer.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_mins(1);

/// Whether the session can be.
pub fn validate(key: &SessionKey, params: &Params) -> Result<(), InvalidSession> {
    let key = *key;
    for (field, value) in [("min_tx", params.min_tx), ("min_rx", params.min_rx)] {
        if !INTERVALS.contains(&value) {
            return Err(InvalidSession::Interval { key, field, value });
        }
    }
    if params.multiplier == 0 {
        return Err(InvalidSession::Multiplier { key });
    }
    if key.local.is_some_and(|local| local.is_ipv4() != key.peer.is_ipv4()) {
        return Err(InvalidSession::Family { key });
    }
    if key.peer.is_unspecified() || key.peer.is_multicast() || key.peer == IpAddr::from([255; 4]) {
        return Err(InvalidSession::Peer { key });
    }
    let link_local = matches!(key.peer, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if link_local && (key.interface.is_none() || key.hops == Hops::Multi) {
        return Err(InvalidSession::LinkLocal { key });
    }
    Ok(())
}

/// Microseconds as on the wire.
pub(crate) fn micros(interval: Duration) -> u32 {
    u32::try_from(interval.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(peer: &str) -> SessionKey {
        SessionKey { peer: peer.parse().unwrap(), local: None, interface: None, hops: Hops::Single }
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        let good = Params::default();
        let v4 = key("192.0.2.1");
        assert_eq!(validate(&v4, &good), Ok(()));
        let short = Params { min_tx: Duration::from_millis(9), ..good };
        assert_eq!(
            validate(&v4, &short).unwrap_err().to_string(),
            "bfd session 192.0.2.1: min_tx is 9ms; set it from 10ms to 60s"
        );
        let long = Params { min_rx: Duration::from_secs(61), ..good };
        assert!(matches!(validate(&v4, &long), Err(InvalidSession::Interval { field: "min_rx", .. })));
        let none = Params { multiplier: 0, ..good };
        assert!(matches!(validate(&v4, &none), Err(InvalidSession::Multiplier { .. })));
        let mixed = SessionKey { local: Some("::1".parse().unwrap()), ..v4 };
        assert!(matches!(validate(&mixed, &good), Err(InvalidSession::Family { .. })));
        for peer in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"] {
            assert!(matches!(validate(&key(peer), &good), Err(InvalidSession::Peer { .. })), "{peer}");
        }
        let local = key("fe80::1");
        assert!(matches!(validate(&local, &good), Err(InvalidSession::LinkLocal { .. })));
        let on_link = SessionKey { interface: Some(2), ..local };
        assert_eq!(validate(&on_link, &good), Ok(()));
        let far = SessionKey { hops: Hops::Multi, ..on_link };
        assert!(matches!(validate(&far, &good), Err(InvalidSession::LinkLocal { .. })));
    }

    #[test]
    fn damping_doubles_up_to_its_limit() {
        let damping = Damping::default();
        let waits: Vec<u64> = (0..9).map(|downs| damping.wait(downs).as_secs()).collect();
        assert_eq!(waits, [0, 0, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(damping.wait(u32::MAX), damping.most);
    }
}
