//! Routes in pieces: a walk remembers where it is, so that a table of any size is shown without holding up sessions.
//!
//! The order is the table's. A prefix that comes or goes meanwhile may be missing or shown twice; one that stays is
//! shown once.

use std::net::IpAddr;

use bird_packet::{Prefix4, Prefix6};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{AdvertisedView, Covering, PathView};
use crate::export::verdict::ExportReason;
use crate::peer::Peer;
use crate::rib::index32;
use crate::rib::net::Net;
use crate::rib::routes::Rib;
use crate::rib::table::source;
use crate::speaker::Speaker;

/// Where a walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Walk {
    family: usize,
    at: usize,
}

/// Which routes are asked for.
#[derive(Debug, Clone, Default)]
pub struct PathQuery {
    /// This prefix only.
    pub prefix: Option<IpNet>,
    /// With `prefix`: also everything inside it.
    pub longer: bool,
    /// From this peer only, by name; `static`, `connected` and `kernel` are this node's own.
    pub from: Option<String>,
    /// What import did not take, only.
    pub rejected: bool,
}

/// A best path that a peer is not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Withheld {
    /// The prefix.
    pub prefix: IpNet,
    /// Whom the best path came from.
    pub from: String,
    /// Why the peer is not told.
    pub reason: ExportReason,
    /// The filter rule that decided, if one did.
    pub rule: Option<String>,
}

/// Destinations passed over for one unit of a budget; one that is shown costs a unit a path.
const PASSED: usize = 64;

impl Speaker {
    /// Shows the next routes; true at the end. A unit of `budget` is some microseconds.
    pub fn walk_paths(
        &self,
        walk: &mut Walk,
        query: &PathQuery,
        budget: usize,
        out: &mut Vec<PathView>,
    ) -> bool {
        self.walk(walk, query, budget, |speaker, step| match step {
            Step::V4(id) => speaker.query_dest(&speaker.v4, id, query, out),
            Step::V6(id) => speaker.query_dest(&speaker.v6, id, query, out),
        })
    }

    /// The next prefixes whose best path a peer is not told; true at the end.
    pub fn walk_withheld(
        &self,
        walk: &mut Walk,
        peer: &str,
        query: &PathQuery,
        budget: usize,
        out: &mut Vec<Withheld>,
    ) -> bool {
        let Some(peer) = self.peer_by_name(peer).and_then(|index| self.peer(index)) else { return true };
        self.walk(walk, query, budget, |speaker, step| {
            let withheld = match step {
                Step::V4(id) => speaker.withheld(&speaker.v4, id, peer),
                Step::V6(id) => speaker.withheld(&speaker.v6, id, peer),
            };
            out.extend(withheld);
            1
        })
    }

    /// The next routes that a peer is told; true at the end.
    pub fn walk_advertised(
        &self,
        walk: &mut Walk,
        peer: &str,
        query: &PathQuery,
        budget: usize,
        out: &mut Vec<AdvertisedView>,
    ) -> bool {
        let Some(peer) = self.peer_by_name(peer).and_then(|index| self.peer(index)) else { return true };
        let mut left = budget.saturating_mul(PASSED);
        while walk.family < 2 && left > 0 {
            let done = match walk.family {
                0 => self.advertised_step(&self.v4, walk, peer, query, &mut left, out),
                _ => self.advertised_step(&self.v6, walk, peer, query, &mut left, out),
            };
            if done {
                *walk = Walk { family: walk.family + 1, at: 0 };
            }
        }
        walk.family >= 2
    }

    fn advertised_step<N: Net>(
        &self,
        rib: &Rib<N>,
        walk: &mut Walk,
        peer: &Peer,
        query: &PathQuery,
        left: &mut usize,
        out: &mut Vec<AdvertisedView>,
    ) -> bool {
        let group = peer.groups[N::FAMILY.index()]
            .and_then(|(group, _)| rib.groups.get(group))
            .and_then(Option::as_ref);
        let Some(group) = group else { return true };
        let Some(wanted) = Wanted::new(query) else { return true };
        while walk.at < group.held_bound() {
            if *left == 0 {
                return false;
            }
            let slot = index32(walk.at);
            walk.at += 1;
            *left -= 1;
            let Some(held) = group.held(slot).filter(|held| held.from != peer.index) else { continue };
            debug_assert_ne!(held.attr, crate::rib::attrs::AttrId::NONE, "what is held has attributes");
            let dest = if group.by_path() { rib.table.dest_of_slot(slot) } else { slot };
            if wanted.takes(rib.table.net(dest)) {
                out.extend(self.told(rib, group, slot));
                *left = left.saturating_sub(PASSED);
            }
        }
        true
    }

    /// Steps over destinations; `show` says how much it did.
    fn walk(
        &self,
        walk: &mut Walk,
        query: &PathQuery,
        budget: usize,
        mut show: impl FnMut(&Speaker, Step) -> usize,
    ) -> bool {
        // One prefix needs no walk.
        if let (Some(prefix), false) = (query.prefix, query.longer) {
            let at = match (Prefix4::from_ipnet(prefix), Prefix6::from_ipnet(prefix)) {
                (Some(net), _) => self.v4.table.find(net).map(Step::V4),
                (_, Some(net)) => self.v6.table.find(net).map(Step::V6),
                _ => None,
            };
            if let Some(step) = at {
                show(self, step);
            }
            walk.family = 2;
            return true;
        }
        let mut left = budget.saturating_mul(PASSED);
        while walk.family < 2 && left > 0 {
            let bound =
                if walk.family == 0 { self.v4.table.dest_bound() } else { self.v6.table.dest_bound() };
            if walk.at >= bound {
                *walk = Walk { family: walk.family + 1, at: 0 };
                continue;
            }
            let id = index32(walk.at);
            walk.at += 1;
            left -= 1;
            let (wanted, step) = match walk.family {
                0 => (Wanted::of(&self.v4, id, query), Step::V4(id)),
                _ => (Wanted::of(&self.v6, id, query), Step::V6(id)),
            };
            if wanted {
                left = left.saturating_sub(show(self, step) * PASSED);
            }
        }
        walk.family >= 2
    }

    fn query_dest<N: Net>(&self, rib: &Rib<N>, id: u32, query: &PathQuery, out: &mut Vec<PathView>) -> usize {
        let before = out.len();
        let wanted = |path: &crate::rib::table::Path| {
            (!query.rejected || path.is_filtered())
                && query.from.as_deref().is_none_or(|from| self.comes_from(path, from))
        };
        if rib.table.paths(id).iter().any(wanted) {
            self.dest_views(rib, id, wanted, out);
        }
        out.len() - before
    }

    fn comes_from(&self, path: &crate::rib::table::Path, from: &str) -> bool {
        match self.peer(path.peer) {
            Some(peer) => *peer.name == *from,
            None => self.source_name(path) == from,
        }
    }

    fn withheld<N: Net>(&self, rib: &Rib<N>, id: u32, peer: &Peer) -> Option<Withheld> {
        let best = rib.table.best(id)?;
        let net = rib.table.net(id);
        let reason = self.export_verdict(rib, net, Some(id), peer).err()?;
        Some(Withheld {
            prefix: net.to_ipnet(),
            from: self.source_name(best),
            reason,
            rule: self.deciding_rule(rib, Some(id), peer, reason),
        })
    }

    /// The prefix of a route that an address belongs to, or the nearest one that covers a prefix.
    pub fn longest_match(&self, prefix: IpNet) -> Option<IpNet> {
        match prefix.addr() {
            IpAddr::V4(_) => longest(&self.v4, Prefix4::from_ipnet(prefix)?),
            IpAddr::V6(_) => longest(&self.v6, Prefix6::from_ipnet(prefix)?),
        }
    }

    /// The nearest route around a prefix's best one, if somebody else told that: whose packets the longer prefix takes. The
    /// default route is around everything and does not count.
    pub fn taken_from(&self, prefix: IpNet) -> Option<Covering> {
        match prefix.addr() {
            IpAddr::V4(_) => self.around(&self.v4, Prefix4::from_ipnet(prefix)?),
            IpAddr::V6(_) => self.around(&self.v6, Prefix6::from_ipnet(prefix)?),
        }
    }

    fn around<N: Net>(&self, rib: &Rib<N>, net: N) -> Option<Covering> {
        let best = rib.table.best(rib.table.find(net)?)?;
        let covering = |len| Some((len, rib.table.best(rib.table.find(net.shorten(len))?)?));
        let (len, other) = (1..net.bits()).rev().find_map(covering)?;
        // All routes of our own are of one.
        let same = other.peer.max(source::LOCAL) == best.peer.max(source::LOCAL);
        (!same).then(|| Covering { prefix: net.shorten(len).to_ipnet(), from: self.source_name(other) })
    }

    /// Whether there is a peer with this name.
    pub fn has_peer(&self, name: &str) -> bool {
        self.peer_by_name(name).is_some()
    }
}

fn longest<N: Net>(rib: &Rib<N>, net: N) -> Option<IpNet> {
    (0..=net.bits()).rev().find_map(|len| {
        let covering = net.shorten(len);
        let id = rib.table.find(covering)?;
        rib.table.best(id).map(|_| covering.to_ipnet())
    })
}

/// A destination of one of the families.
#[derive(Clone, Copy)]
enum Step {
    V4(u32),
    V6(u32),
}

/// The prefixes that a query takes, of one family.
enum Wanted<N> {
    All,
    Only(N),
    Inside(N),
}

impl<N: Net> Wanted<N> {
    /// `None`: nothing of this family.
    fn new(query: &PathQuery) -> Option<Self> {
        let Some(prefix) = query.prefix else { return Some(Self::All) };
        let net = N::from_ipnet(prefix)?;
        Some(if query.longer { Self::Inside(net) } else { Self::Only(net) })
    }

    fn takes(&self, net: N) -> bool {
        match self {
            Self::All => true,
            Self::Only(only) => *only == net,
            Self::Inside(outer) => outer.contains(net),
        }
    }

    fn of(rib: &Rib<N>, id: u32, query: &PathQuery) -> bool {
        !rib.table.paths(id).is_empty() && Self::new(query).is_some_and(|w| w.takes(rib.table.net(id)))
    }
}
