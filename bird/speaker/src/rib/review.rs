//! Looking at every destination again, in steps that hold nobody up: import filters changed, or what decisions rest on.
//!
//! What comes in between two steps is judged by what is in force then, and what was looked at already is right. So the
//! outcome does not depend on where the walk was when anything happened.

use super::attrs::AttrId;
use super::net::Net;
use super::nexthop::NhId;
use super::round::{Lap, Round};
use super::routes::{Core, Rib};
use super::table::{DestId, Path, PeerIndex, path_flag};
use crate::import::{ImportReason, Importer, Judge};

/// What is to be looked at again.
#[derive(Debug, Default)]
pub(super) struct Review {
    round: Round,
    /// Peers whose paths are evaluated again.
    imports: Vec<(PeerIndex, Lap)>,
    decisions: Option<Decisions>,
}

/// Decisions to be made again.
#[derive(Debug)]
struct Decisions {
    lap: Lap,
    /// Everywhere; otherwise where a path has one of `next_hops`.
    all: bool,
    /// A bit for each.
    next_hops: Vec<u64>,
}

impl Decisions {
    fn has(&self, next_hop: NhId) -> bool {
        let (word, bit) = (next_hop.0 / 64, next_hop.0 % 64);
        self.all || self.next_hops.get(word as usize).is_some_and(|w| w & (1 << bit) != 0)
    }

    fn add(&mut self, next_hop: NhId) {
        let (word, bit) = (next_hop.0 as usize / 64, next_hop.0 % 64);
        if word >= self.next_hops.len() {
            self.next_hops.resize(word + 1, 0);
        }
        self.next_hops[word] |= 1 << bit;
    }
}

impl Review {
    /// Whether paths of this peer are still to be evaluated again.
    pub(super) fn is_importing(&self, peer: PeerIndex) -> bool {
        self.imports.iter().any(|(p, _)| *p == peer)
    }

    /// The decisions to be made, from here on once round again.
    fn decisions(&mut self) -> &mut Decisions {
        let lap = self.round.begin();
        let new = || Decisions { lap, all: false, next_hops: Vec::new() };
        let decisions = self.decisions.get_or_insert_with(new);
        decisions.lap = lap;
        decisions
    }
}

/// A path evaluated again costs as much as looking at so many destinations.
const IMPORT: usize = 8;
/// The same of a decision.
const DECISION: usize = 4;

/// How a peer's paths are evaluated.
pub(crate) struct Reviewer<'a> {
    pub(crate) importer: Importer<'a>,
    pub(crate) judge: Judge,
}

/// What was said about attributes last.
type Memo = Option<(PeerIndex, AttrId, ImportReason)>;

impl<N: Net> Rib<N> {
    /// Evaluates a peer's paths again, as they were received. In steps.
    pub(crate) fn review_imports(&mut self, peer: PeerIndex) {
        self.review.imports.retain(|(p, _)| *p != peer);
        if self.received_from(peer) > 0 {
            self.review.imports.push((peer, self.review.round.begin()));
        }
    }

    /// What decisions rest on changed: decides everything anew. In steps.
    pub(crate) fn review_decisions(&mut self) {
        self.review.decisions().all = true;
    }

    /// Decides anew where a path has this next hop. In steps.
    pub(super) fn review_next_hop(&mut self, next_hop: NhId) {
        if self.table.path_count() > 0 {
            self.review.decisions().add(next_hop);
        }
    }

    pub(crate) fn is_reviewing(&self) -> bool {
        !self.review.imports.is_empty() || self.review.decisions.is_some()
    }

    /// The peers whose paths are evaluated again.
    pub(crate) fn reviewed_peers(&self) -> impl Iterator<Item = PeerIndex> + '_ {
        self.review.imports.iter().map(|(peer, _)| *peer)
    }

    /// One step: looks at up to `budget` destinations, fewer where there is much to do. `reviewers` go by peer number.
    pub(crate) fn review_step(&mut self, core: &mut Core, reviewers: &[Option<Reviewer<'_>>], budget: usize) {
        let bound = self.table.dest_bound();
        let decisions = self.review.decisions.take();
        let mut memo: Memo = None;
        let mut left = budget;
        for _ in 0..budget.min(bound.max(1)) {
            let Some(id) = self.review.round.next(bound) else { break };
            let mut cost = 1;
            for at in 0..self.table.paths(id).len() {
                let path = self.table.paths(id)[at];
                if let Some(reviewer) = reviewers.get(usize::from(path.peer)).and_then(Option::as_ref) {
                    self.import_again(core, reviewer, id, path, &mut memo);
                    cost += IMPORT;
                }
            }
            if let Some(decisions) = &decisions {
                let attrs = &core.store.attrs;
                let concerned = |p: &Path| decisions.has(attrs.key(p.attr).next_hop);
                if self.table.paths(id).iter().any(concerned) {
                    self.redecide(core, id);
                    cost += DECISION;
                }
            }
            left = left.saturating_sub(cost);
            if left == 0 {
                break;
            }
        }
        let round = self.review.round;
        self.review.decisions = decisions.filter(|d| !round.is_over(d.lap));
        self.review.imports.retain(|(_, lap)| !round.is_over(*lap));
    }

    fn import_again(
        &mut self,
        core: &mut Core,
        reviewer: &Reviewer<'_>,
        id: DestId,
        path: Path,
        memo: &mut Memo,
    ) {
        let received = self.table.originals.get(id, path.peer, path.rx_id).unwrap_or(path.attr);
        let reason = match *memo {
            Some((peer, attr, reason)) if peer == path.peer && attr == received => reason,
            _ => {
                let addr = core.store.next_hops.addr(core.store.attrs.key(received).next_hop);
                let next_hop = bird_packet::NextHop { addr: addr.address, link_local: addr.link_local };
                let reason = reviewer.judge.verdict(core.store.attrs.attrs(received), next_hop);
                *memo = Some((path.peer, received, reason));
                reason
            }
        };
        let flags = path.flags & path_flag::LONG_LIVED;
        let importer = Importer { epoch: path.epoch, flags, ..reviewer.importer };
        core.store.retain(received);
        self.import(core, importer, id, path.rx_id, received, reason);
    }
}
