//! The decision process: RFC 4271 §9.1.2 with RFC 4456 §9, deterministic in MED, independent of the order of arrival.

use std::cmp::Ordering;
use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::attrs::AttrStore;
use super::nexthop::NextHops;
use super::table::{Path, PeerIndex};

/// What the decision process asks about the peer that a path came from.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PeerRank {
    /// eBGP.
    pub(crate) external: bool,
    /// Its BGP Identifier.
    pub(crate) router_id: u32,
    /// Its address, as a number.
    pub(crate) address: u128,
}

/// The step at which one path lost against another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Long-lived stale against fresh (RFC 9494).
    Stale,
    /// A local route against a learned one, or LOCAL_PREF.
    LocalPref,
    /// AS path length.
    PathLength,
    /// ORIGIN.
    Origin,
    /// MED, between paths of one neighbouring AS.
    Med,
    /// eBGP over iBGP.
    External,
    /// Cost to the next hop.
    IgpMetric,
    /// BGP Identifier, or ORIGINATOR_ID.
    RouterId,
    /// CLUSTER_LIST length.
    ClusterList,
    /// Address of the peer.
    PeerAddress,
    /// Path identifier, of two paths of one peer.
    PathId,
}

/// Everything that paths are compared by.
#[derive(Clone, Copy)]
pub(crate) struct Decision<'a> {
    pub(crate) attrs: &'a AttrStore,
    pub(crate) next_hops: &'a NextHops,
    pub(crate) peers: &'a [PeerRank],
}

impl Decision<'_> {
    fn peer(&self, peer: PeerIndex) -> PeerRank {
        self.peers.get(usize::from(peer)).copied().unwrap_or_default()
    }

    /// Whether a path may be used at all.
    #[inline]
    pub(crate) fn eligible(&self, path: &Path) -> bool {
        !path.is_filtered() && self.next_hops.usable(self.attrs.key(path.attr).next_hop)
    }

    /// Compares two paths without MED: `Greater` if `a` is better. A total order.
    #[inline]
    pub(crate) fn compare(&self, a: &Path, b: &Path) -> Ordering {
        let (ka, kb) = (self.attrs.key(a.attr), self.attrs.key(b.attr));
        match ka.rank.cmp(&kb.rank) {
            Ordering::Equal => self.tie(a, b),
            unequal => unequal,
        }
    }

    /// The part of the order up to which paths share the load.
    fn cost(&self, path: &Path) -> (bool, Reverse<u32>) {
        let next_hop = self.attrs.key(path.attr).next_hop;
        (self.peer(path.peer).external, Reverse(self.next_hops.metric(next_hop)))
    }

    fn tie(&self, a: &Path, b: &Path) -> Ordering {
        let (ka, kb) = (self.attrs.key(a.attr), self.attrs.key(b.attr));
        let (pa, pb) = (self.peer(a.peer), self.peer(b.peer));
        let id = |key: u32, peer: PeerRank| if key != 0 { key } else { peer.router_id };
        self.cost(a)
            .cmp(&self.cost(b))
            .then_with(|| id(kb.originator, pb).cmp(&id(ka.originator, pa)))
            .then_with(|| kb.cluster_len.cmp(&ka.cluster_len))
            .then_with(|| pb.address.cmp(&pa.address))
            .then_with(|| b.peer.cmp(&a.peer))
            .then_with(|| b.rx_id.cmp(&a.rx_id))
    }

    /// Whether some usable path of the same neighbouring AS, equal so far, has a lower MED (RFC 4271 §9.1.2.2 c).
    fn beaten_by_med(&self, path: &Path, paths: &[Path]) -> bool {
        let key = self.attrs.key(path.attr);
        key.med > 0
            && paths.iter().any(|other| {
                let k = self.attrs.key(other.attr);
                k.rank == key.rank && k.first_as == key.first_as && k.med < key.med && self.eligible(other)
            })
    }

    /// The best of several paths, from nothing but these paths.
    pub(crate) fn best(&self, paths: &[Path], has_med: bool) -> Option<usize> {
        if !has_med {
            let mut best: Option<usize> = None;
            for (i, path) in paths.iter().enumerate() {
                if self.eligible(path)
                    && best.is_none_or(|b| self.compare(path, &paths[b]) == Ordering::Greater)
                {
                    best = Some(i);
                }
            }
            return best;
        }
        let top = paths.iter().filter(|p| self.eligible(p)).map(|p| self.attrs.key(p.attr).rank).max()?;
        let mut best: Option<usize> = None;
        for (i, path) in paths.iter().enumerate() {
            if self.attrs.key(path.attr).rank == top
                && self.eligible(path)
                && !self.beaten_by_med(path, paths)
                && best.is_none_or(|b| self.tie(path, &paths[b]) == Ordering::Greater)
            {
                best = Some(i);
            }
        }
        best
    }

    /// The best `limit` of the usable paths that `wanted` takes, the best first: what the decision process would choose, and
    /// then without that one, and so on.
    pub(crate) fn best_of(
        &self,
        paths: &[Path],
        limit: usize,
        has_med: bool,
        wanted: impl Fn(&Path) -> bool,
    ) -> Vec<Path> {
        let mut left: Vec<Path> = paths.iter().filter(|p| self.eligible(p)).copied().collect();
        let mut best = Vec::new();
        if !has_med {
            left.sort_unstable_by(|a, b| self.compare(b, a));
            best.extend(left.into_iter().filter(wanted).take(limit));
            return best;
        }
        // With MED the rest must be asked anew each time: who is gone beats nobody any more.
        while best.len() < limit
            && let Some(at) = self.best(&left, true)
        {
            let path = left.swap_remove(at);
            if wanted(&path) {
                best.push(path);
            }
        }
        best
    }

    /// Paths that share the load with the best one, the best first, at most `max`; ordered by next hop after it.
    pub(crate) fn multipath(&self, paths: &[Path], best: usize, max: usize, has_med: bool) -> Vec<usize> {
        let top = &paths[best];
        let mut equal = vec![best];
        if max > 1 && paths.len() > 1 {
            let rank = self.attrs.key(top.attr).rank;
            let mut rest: Vec<usize> = (0..paths.len())
                .filter(|&i| i != best)
                .filter(|&i| {
                    let path = &paths[i];
                    self.attrs.key(path.attr).rank == rank
                        && self.cost(path) == self.cost(top)
                        && self.eligible(path)
                        && !(has_med && self.beaten_by_med(path, paths))
                })
                .collect();
            rest.sort_by(|&a, &b| self.compare(&paths[b], &paths[a]));
            rest.truncate(max - 1);
            equal.extend(rest);
        }
        equal
    }

    /// Whether a path could share the load with the best: worth looking at the kernel route again.
    pub(crate) fn may_share(&self, path: &Path, best: &Path) -> bool {
        self.attrs.key(path.attr).rank == self.attrs.key(best.attr).rank
    }

    /// At which step `loser` lost against `best`, as an explanation.
    pub(crate) fn why(&self, loser: &Path, best: &Path) -> Step {
        let (kl, kb) = (self.attrs.key(loser.attr), self.attrs.key(best.attr));
        let (pl, pb) = (self.peer(loser.peer), self.peer(best.peer));
        // The rank is ordered bits; the highest that differs names the step.
        let differing = kl.rank ^ kb.rank;
        if differing >> 60 != 0 {
            return Step::Stale;
        } else if differing >> 18 != 0 {
            return Step::LocalPref;
        } else if differing >> 2 != 0 {
            return Step::PathLength;
        } else if differing != 0 {
            return Step::Origin;
        }
        let id = |key: u32, peer: PeerRank| if key != 0 { key } else { peer.router_id };
        if kl.first_as == kb.first_as && kl.med != kb.med {
            Step::Med
        } else if pl.external != pb.external {
            Step::External
        } else if self.next_hops.metric(kl.next_hop) != self.next_hops.metric(kb.next_hop) {
            Step::IgpMetric
        } else if id(kl.originator, pl) != id(kb.originator, pb) {
            Step::RouterId
        } else if kl.cluster_len != kb.cluster_len {
            Step::ClusterList
        } else if loser.peer == best.peer {
            Step::PathId
        } else {
            Step::PeerAddress
        }
    }
}
