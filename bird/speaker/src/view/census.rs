//! Counts of routes by peer and family, made by walking the tables in steps: nothing is counted while routes move.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bird_packet::Family;
use serde::{Deserialize, Serialize};

use super::PeerView;
use crate::export::group::{Group, ToldCounts};
use crate::fib::NO_ROUTE;
use crate::import::ImportReason;
use crate::peer::Peer;
use crate::rib::index32;
use crate::rib::net::Net;
use crate::rib::routes::Rib;
use crate::rib::table::source;
use crate::speaker::Speaker;

/// Routes of one peer and family.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteCounts {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Paths received and held.
    pub received: u64,
    /// Of these, what import took.
    pub accepted: u64,
    /// What it did not take, and why.
    pub rejected: BTreeMap<ImportReason, u64>,
    /// Accepted, but the next hop is not resolved.
    pub unreachable: u64,
    /// Accepted and the best of their prefixes.
    pub best: u64,
    /// Kept over a restart of the peer.
    pub stale: u64,
    /// Paths told to the peer.
    pub advertised: u64,
}

impl RouteCounts {
    /// All that were not taken.
    pub fn rejected_all(&self) -> u64 {
        self.rejected.values().sum()
    }

    /// Adds those of another family.
    pub fn add(&mut self, other: &RouteCounts) {
        self.received += other.received;
        self.accepted += other.accepted;
        for (reason, count) in &other.rejected {
            *self.rejected.entry(*reason).or_default() += count;
        }
        self.unreachable += other.unreachable;
        self.best += other.best;
        self.stale += other.stale;
        self.advertised += other.advertised;
    }
}

/// The table of one family.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyTotals {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Prefixes with a path.
    pub prefixes: u64,
    /// All paths, this node's own among them.
    pub paths: u64,
    /// This node's own paths.
    pub own: u64,
    /// Paths that import did not take.
    pub rejected: u64,
    /// Prefixes with a usable path.
    pub best: u64,
    /// Prefixes that were given to the kernel.
    pub programmed: u64,
}

/// A count under way. It sees each prefix once; what changes meanwhile counts as before or as after.
#[derive(Debug, Default)]
pub struct Census {
    peers: Vec<[RouteCounts; 2]>,
    totals: [FamilyTotals; 2],
    told: [Vec<ToldCounts>; 2],
    stage: Stage,
    done: bool,
}

/// Where a count is.
#[derive(Debug, Clone, Copy, Default)]
struct Stage {
    family: usize,
    /// Destinations, then the slots of each group.
    in_groups: bool,
    group: usize,
    at: usize,
}

/// A step looks at so many destinations for one unit of its budget.
const DESTS: usize = 16;
/// Or at destinations with so many paths.
const PATHS: usize = 64;
/// The same for slots of an export group, which lie one after the other.
const SLOTS: usize = 256;

impl Census {
    /// Whether everything is counted.
    pub fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn told(&self) -> &[Vec<ToldCounts>; 2] {
        &self.told
    }

    fn at(&mut self, peer: usize, family: usize) -> &mut RouteCounts {
        if peer >= self.peers.len() {
            self.peers.resize_with(peer + 1, Default::default);
        }
        &mut self.peers[peer][family]
    }
}

impl Speaker {
    /// Counts on; true when everything is counted. A unit of `budget` is some microseconds.
    pub fn census_step(&self, census: &mut Census, budget: usize) -> bool {
        for _ in 0..budget {
            if census.done {
                break;
            }
            match census.stage.family {
                0 => self.census_unit(&self.v4, census),
                _ => self.census_unit(&self.v6, census),
            }
        }
        census.done
    }

    fn census_unit<N: Net>(&self, rib: &Rib<N>, census: &mut Census) {
        let Stage { family, in_groups, group, at } = census.stage;
        if in_groups {
            if census.told[family].len() < rib.groups.len() {
                census.told[family].resize_with(rib.groups.len(), ToldCounts::default);
            }
            match rib.groups.get(group) {
                Some(held) => {
                    let bound = held.as_ref().map_or(0, Group::held_bound);
                    let end = bound.min(at + SLOTS);
                    if let Some(held) = held {
                        census.told[family][group].add(held, at.min(end)..end);
                    }
                    census.stage = if end >= bound {
                        Stage { group: group + 1, at: 0, ..census.stage }
                    } else {
                        Stage { at: end, ..census.stage }
                    };
                }
                None if family == 0 => census.stage = Stage { family: 1, ..Stage::default() },
                None => census.done = true,
            }
            return;
        }
        let bound = rib.table.dest_bound();
        let (mut end, mut paths) = (at.min(bound), 0);
        while end < bound.min(at + DESTS) && paths < PATHS {
            paths += self.count_dest(rib, end, census);
            end += 1;
        }
        census.stage = if end >= bound {
            Stage { in_groups: true, at: 0, ..census.stage }
        } else {
            Stage { at: end, ..census.stage }
        };
    }

    fn count_dest<N: Net>(&self, rib: &Rib<N>, id: usize, census: &mut Census) -> usize {
        let id = index32(id);
        let paths = rib.table.paths(id);
        if paths.is_empty() {
            return 0;
        }
        let family = N::FAMILY.index();
        let best = rib.table.best_at(id);
        let totals = &mut census.totals[family];
        totals.prefixes += 1;
        totals.paths += paths.len() as u64;
        totals.best += u64::from(best.is_some());
        totals.programmed += u64::from(rib.table.fib(id) != NO_ROUTE);
        for (at, path) in paths.iter().enumerate() {
            if path.peer < source::FIRST_PEER {
                census.totals[family].own += 1;
                continue;
            }
            let reason = if path.is_filtered() {
                census.totals[family].rejected += 1;
                self.import_reason(rib, id, path)
            } else {
                ImportReason::Accepted
            };
            let stale = self.peer(path.peer).is_some_and(|p| p.epoch[family] != path.epoch);
            let reachable = self.core.store.next_hops.usable(self.core.store.attrs.key(path.attr).next_hop);
            let counts = census.at(usize::from(path.peer), family);
            counts.received += 1;
            counts.stale += u64::from(stale);
            if path.is_filtered() {
                *counts.rejected.entry(reason).or_default() += 1;
            } else {
                counts.accepted += 1;
                counts.best += u64::from(best == Some(at));
                counts.unreachable += u64::from(!reachable);
            }
        }
        paths.len()
    }

    /// What a count found of a peer: the families of its session, and those of which there are routes.
    pub fn counts_of(&self, census: &Census, peer: &str) -> Vec<RouteCounts> {
        let Some(peer) = self.peer_by_name(peer).and_then(|index| self.peer(index)) else {
            return Vec::new();
        };
        let found = census.peers.get(usize::from(peer.index)).cloned().unwrap_or_default();
        let mut counts = Vec::new();
        for (family, mut of) in Family::ALL.into_iter().zip(found) {
            let group = peer.groups[family.index()].map(|(group, _)| group);
            let told = group.and_then(|group| census.told[family.index()].get(group));
            of.advertised = told.map_or(0, |told| told.of(peer.index) as u64);
            of.family = family.to_string();
            if group.is_some() || of.received > 0 {
                counts.push(of);
            }
        }
        counts
    }

    /// A peer and its session, with the routes told as they were counted.
    pub fn peer_view_of(&self, census: &Census, peer: &str) -> Option<PeerView> {
        let peer = self.peer(self.peer_by_name(peer)?)?;
        Some(self.peer_view(peer, &census.told))
    }

    /// Names and addresses of all peers, by name.
    pub fn peer_names(&self) -> Vec<(String, IpAddr)> {
        let named = |p: &Peer| (p.name.to_string(), p.config.address);
        let mut names: Vec<_> =
            self.peers.iter().flatten().filter(|p| !p.removed).map(|p| named(p)).collect();
        names.sort();
        names
    }

    /// What a count found of the tables.
    pub fn totals_of(&self, census: &Census) -> Vec<FamilyTotals> {
        let named = |(family, totals): (Family, &FamilyTotals)| FamilyTotals {
            family: family.to_string(),
            ..totals.clone()
        };
        Family::ALL.into_iter().zip(&census.totals).map(named).collect()
    }
}
