//! Next hops: who they are, and whether and how they are reached.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::index32;
use crate::io::{Resolution, ResolvedHop};

/// A next hop in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct NhId(pub(crate) u32);

impl NhId {
    /// No next hop: a local route without a gateway.
    pub(crate) const NONE: NhId = NhId(0);
}

/// What an UPDATE says about a next hop: a global address, and for IPv6 maybe the link-local one (RFC 2545 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NextHopAddr {
    pub(crate) address: IpAddr,
    pub(crate) link_local: Option<Ipv6Addr>,
    /// The gateway of a local route: the kernel uses it already, nobody need ask.
    pub(crate) local: bool,
    /// Number of the interface on which a link-local address lies, 0 for all other addresses: nobody need ask either.
    pub(crate) scope: u16,
}

impl From<IpAddr> for NextHopAddr {
    fn from(address: IpAddr) -> Self {
        NextHopAddr { address, link_local: None, local: false, scope: 0 }
    }
}

impl NextHopAddr {
    /// Whether the shell must say how it is reached.
    fn is_asked(&self) -> bool {
        !self.local && self.scope == 0
    }
}

/// How a next hop is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Asked, not answered: not usable yet.
    Pending,
    Unreachable,
    Via {
        hops: Vec<ResolvedHop>,
        metric: u32,
    },
}

struct Entry {
    addr: NextHopAddr,
    state: State,
    /// Metric while reachable, for the decision process.
    metric: u32,
    usable: bool,
    /// Attribute sets with this next hop.
    refs: u32,
}

/// What became known of a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The first answer: only paths that came since it was asked are concerned.
    First,
    /// Another way or cost; still as usable as before.
    Route,
    /// It became usable or unusable.
    Usable,
}

/// The next hops in use. Entry 0 stands for "none" and is always usable.
pub(crate) struct NextHops {
    entries: Vec<Entry>,
    free: Vec<u32>,
    index: HashMap<NextHopAddr, u32, foldhash::fast::FixedState>,
    /// Ask the shell; otherwise everything is reachable.
    resolve: bool,
    /// Whom to start and stop watching, in order.
    asks: Vec<Ask>,
    /// Interfaces with link-local next hops, by scope less one.
    interfaces: Vec<Arc<str>>,
}

/// A wish about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Watch(IpAddr),
    Forget(IpAddr),
}

impl NextHops {
    pub(crate) fn new(resolve: bool) -> Self {
        let none = Entry {
            addr: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED).into(),
            state: State::Unreachable,
            metric: 0,
            usable: true,
            refs: 1,
        };
        NextHops {
            entries: vec![none],
            free: Vec::new(),
            index: HashMap::default(),
            resolve,
            asks: Vec::new(),
            interfaces: Vec::new(),
        }
    }

    /// The scope of an interface.
    pub(crate) fn scope(&mut self, interface: &str) -> u16 {
        let known = self.interfaces.iter().position(|i| **i == *interface);
        let at = known.unwrap_or_else(|| {
            self.interfaces.push(interface.into());
            self.interfaces.len() - 1
        });
        u16::try_from(at + 1).unwrap_or(0)
    }

    /// The id of a next hop, without a reference: the attribute set that is made with it calls [`NextHops::retain`].
    pub(crate) fn intern(&mut self, addr: NextHopAddr) -> NhId {
        if let Some(&i) = self.index.get(&addr) {
            return NhId(i);
        }
        let ask = self.resolve && addr.is_asked();
        let state = match self.interfaces.get(usize::from(addr.scope).wrapping_sub(1)) {
            Some(interface) => {
                let hop = ResolvedHop { gateway: None, ifindex: 0, interface: interface.clone() };
                State::Via { hops: vec![hop], metric: 0 }
            }
            None => State::Pending,
        };
        let entry = Entry { addr, state, metric: 0, usable: !ask, refs: 0 };
        let i = if let Some(i) = self.free.pop() {
            self.entries[i as usize] = entry;
            i
        } else {
            self.entries.push(entry);
            index32(self.entries.len() - 1)
        };
        self.index.insert(addr, i);
        if ask {
            self.asks.push(Ask::Watch(addr.address));
        }
        NhId(i)
    }

    pub(crate) fn retain(&mut self, id: NhId) {
        self.entries[id.0 as usize].refs += 1;
    }

    /// Drops the reference of an attribute set; an unused next hop is forgotten.
    pub(crate) fn release(&mut self, id: NhId) {
        let entry = &mut self.entries[id.0 as usize];
        entry.refs -= 1;
        if entry.refs == 0 && id != NhId::NONE {
            self.index.remove(&entry.addr);
            self.free.push(id.0);
            if self.resolve && entry.addr.is_asked() {
                self.asks.push(Ask::Forget(entry.addr.address));
            }
        }
    }

    pub(crate) fn addr(&self, id: NhId) -> NextHopAddr {
        self.entries[id.0 as usize].addr
    }

    pub(crate) fn state(&self, id: NhId) -> &State {
        &self.entries[id.0 as usize].state
    }

    /// Whether the shell is asked how it is reached.
    pub(crate) fn is_asked(&self, id: NhId) -> bool {
        self.resolve && self.entries[id.0 as usize].addr.is_asked()
    }

    /// Whether it was asked for and not answered yet.
    #[inline]
    pub(crate) fn is_pending(&self, id: NhId) -> bool {
        let entry = &self.entries[id.0 as usize];
        !entry.usable && entry.state == State::Pending
    }

    #[inline]
    pub(crate) fn usable(&self, id: NhId) -> bool {
        self.entries[id.0 as usize].usable
    }

    #[inline]
    pub(crate) fn metric(&self, id: NhId) -> u32 {
        self.entries[id.0 as usize].metric
    }

    /// Takes an answer; returns the next hops with this address and what changed of each.
    pub(crate) fn on_resolution(&mut self, address: IpAddr, resolution: &Resolution) -> Vec<(NhId, Change)> {
        if !self.resolve {
            return Vec::new();
        }
        let with_address = |a: &NextHopAddr| a.address == address && a.is_asked();
        let concerned: Vec<u32> = match (self.index.get(&NextHopAddr::from(address)), address) {
            (Some(&i), IpAddr::V4(_)) => vec![i],
            _ => self.index.iter().filter(|(a, _)| with_address(a)).map(|(_, i)| *i).collect(),
        };
        let state = match resolution {
            Resolution::Unreachable => State::Unreachable,
            Resolution::Via { hops, metric } => {
                let mut hops = hops.clone();
                hops.sort();
                State::Via { hops, metric: *metric }
            }
        };
        let usable = matches!(state, State::Via { .. });
        let mut changed = Vec::new();
        for i in concerned {
            let entry = &mut self.entries[i as usize];
            if entry.state == state {
                continue;
            }
            let change = match (&entry.state, usable == entry.usable) {
                (State::Pending, _) => Change::First,
                (_, true) => Change::Route,
                (_, false) => Change::Usable,
            };
            entry.metric = if let State::Via { metric, .. } = &state { *metric } else { 0 };
            entry.state = state.clone();
            entry.usable = usable;
            changed.push((NhId(i), change));
        }
        changed
    }

    /// Wishes since the last call, less those that cancelled out.
    pub(crate) fn take_asks(&mut self) -> Vec<Ask> {
        if self.asks.is_empty() {
            return Vec::new();
        }
        let asks = std::mem::take(&mut self.asks);
        let wanted = |a: IpAddr| {
            self.index.contains_key(&NextHopAddr::from(a))
                || (a.is_ipv6() && self.index.keys().any(|k| k.address == a && k.is_asked()))
        };
        let mut seen = std::collections::HashSet::new();
        asks.iter()
            .rev()
            .filter_map(|ask| {
                let (Ask::Watch(a) | Ask::Forget(a)) = *ask;
                seen.insert(a).then(|| if wanted(a) { Ask::Watch(a) } else { Ask::Forget(a) })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_is_asked_once_and_forgotten_when_unused() {
        let mut table = NextHops::new(true);
        let a: IpAddr = "10.0.0.1".parse().unwrap();
        let id = table.intern(a.into());
        table.retain(id);
        assert_eq!(table.intern(a.into()), id);
        assert_eq!(table.take_asks(), [Ask::Watch(a)]);
        assert!(!table.usable(id));
        let via = Resolution::Via { hops: Vec::new(), metric: 7 };
        assert_eq!(table.on_resolution(a, &via), [(id, Change::First)]);
        assert_eq!(table.on_resolution(a, &via), []);
        assert_eq!(table.metric(id), 7);
        table.release(id);
        assert_eq!(table.take_asks(), [Ask::Forget(a)]);
    }
}
