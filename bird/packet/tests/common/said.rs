//! What an UPDATE says, in terms that any decoder has; for comparing ours with another.

use std::net::Ipv4Addr;

use bird_packet::attr::AttrSet;
use bird_packet::{MAX_LEN_EXTENDED, NextHop, Nlri, Prefix, UpdateView, Verdict};

use super::session;

/// What one UPDATE says, in terms both decoders have.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub announced: Vec<(Prefix, Option<u32>)>,
    pub withdrawn: Vec<(Prefix, Option<u32>)>,
    pub next_hop: Option<NextHop>,
    pub origin: u8,
    pub path: Vec<u32>,
    pub med: Option<u32>,
    pub local_pref: Option<u32>,
    pub atomic: bool,
    pub communities: Vec<u32>,
    pub ext_communities: usize,
    pub large: Vec<[u32; 3]>,
    pub originator: Option<Ipv4Addr>,
    pub clusters: Vec<u32>,
}

/// What we read, when we accept the UPDATE without dropping anything.
pub fn ours(body: &[u8], as4: bool, add_path: bool) -> Option<Said> {
    let ctx = session(as4, add_path, true, MAX_LEN_EXTENDED);
    let update = UpdateView::parse(body, &ctx)
        .ok()
        .filter(|u| u.verdict() == Verdict::Ok && u.discards().count() == 0)?;
    let mut canonical = Vec::new();
    update.attributes().write_canonical(&mut canonical);
    let set = AttrSet::new(&canonical);
    let route = |n: Nlri| (n.prefix, add_path.then_some(n.path_id));
    let announcements: Vec<_> = update.announcements().collect();
    Some(Said {
        next_hop: announcements.first().map(|a| a.next_hop),
        announced: announcements.into_iter().flat_map(|a| a.routes).map(route).collect(),
        withdrawn: update.withdrawals().flat_map(|w| w.routes).map(route).collect(),
        origin: set.origin().code(),
        path: set.as_path().asns().collect(),
        med: set.med(),
        local_pref: set.local_pref(),
        atomic: set.atomic_aggregate(),
        communities: set.communities().collect(),
        ext_communities: set.ext_communities().count(),
        large: set.large_communities().map(|c| [c.global, c.local1, c.local2]).collect(),
        originator: set.originator_id(),
        clusters: set.cluster_list().map(Ipv4Addr::to_bits).collect(),
    })
}

/// Large communities as we keep them: the first of each (RFC 8092 §6).
pub fn dedup(list: Vec<[u32; 3]>) -> Vec<[u32; 3]> {
    let mut kept = Vec::new();
    for item in list {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}
