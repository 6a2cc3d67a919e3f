//! The routes of one family: what comes in, which is best, who must hear of it.

use std::collections::HashMap;

use bird_packet::UpdatePacker;

use super::attrs::{AttrId, Store};
use super::decide::{Decision, PeerRank};
use super::local::LocalRoutes;
use super::net::Net;
use super::nexthop::{Change, NhId};
use super::review::Review;
use super::round::Round;
use super::stale::Purge;
use super::table::{DestId, Path, PeerIndex, Table, dest_flag, path_flag};
use crate::aggregate::Aggregates;
use crate::export::group::{Group, Out};
use crate::export::verdict::{Rules, SourcePeer};
use crate::fib::{FibRoutes, Kernel};

/// What both families share.
pub(crate) struct Core {
    pub(crate) store: Store,
    /// By peer number, for the decision.
    pub(crate) ranks: Vec<PeerRank>,
    /// By peer number, for export.
    pub(crate) sources: Vec<SourcePeer>,
    pub(crate) locals: LocalRoutes,
    pub(crate) kernel: Kernel,
    pub(crate) fib_routes: FibRoutes,
    pub(crate) packer: UpdatePacker,
    /// Our restart is not over: learned routes are not told yet.
    pub(crate) restarting: bool,
    /// Stale kernel routes are not touched.
    pub(crate) keep_stale: bool,
    /// The shell has not told all routes of the kernel yet: no End-of-RIB.
    pub(crate) hold_eor: bool,
}

impl Core {
    pub(crate) fn decision(&self) -> Decision<'_> {
        Decision { attrs: &self.store.attrs, next_hops: &self.store.next_hops, peers: &self.ranks }
    }
}

/// What [`Rib::announce`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    /// A path that was not there.
    New,
    /// Another in place of one.
    Replaced,
    /// The same as before.
    Same,
    /// Too many paths for this prefix: not taken.
    Refused,
}

/// Destinations that waited for a next hop are decided at once up to this many.
const WAITING: usize = 1 << 13;

/// Table, export groups and kernel changes of one family.
pub(crate) struct Rib<N: Net> {
    pub(crate) table: Table<N>,
    pub(crate) rules: Rules<N>,
    pub(crate) aggregates: Aggregates<N>,
    pub(crate) groups: Vec<Option<Group<N>>>,
    /// What dissolved groups held.
    pub(super) dissolved: Vec<Vec<Out>>,
    pub(super) fib_dirty: Vec<DestId>,
    pub(super) fib_dirty_at: usize,
    /// ADD-PATH slots of paths that are gone.
    pub(super) dead_slots: Vec<u32>,
    pub(super) purges: Vec<Purge>,
    pub(super) purge_round: Round,
    pub(super) review: Review,
    /// Destinations with a path whose next hop is asked for.
    awaiting: HashMap<NhId, Vec<DestId>, foldhash::fast::FixedState>,
    /// Paths not taken because their peer told enough of the prefix, since somebody looked.
    pub(crate) paths_refused: u64,
    /// Paths held per peer, filtered ones included.
    pub(crate) received: Vec<u32>,
    /// [`crate::Config::export_log`].
    pub(crate) export_log: usize,
}

impl<N: Net> Rib<N> {
    pub(crate) fn new(seed: u64, rules: Rules<N>) -> Self {
        Rib {
            export_log: usize::MAX,
            table: Table::new(seed),
            rules,
            aggregates: Aggregates::default(),
            groups: Vec::new(),
            dissolved: Vec::new(),
            fib_dirty: Vec::new(),
            fib_dirty_at: 0,
            dead_slots: Vec::new(),
            purges: Vec::new(),
            purge_round: Round::default(),
            review: Review::default(),
            awaiting: HashMap::default(),
            paths_refused: 0,
            received: Vec::new(),
        }
    }

    fn received_mut(&mut self, peer: PeerIndex) -> &mut u32 {
        let at = usize::from(peer);
        if at >= self.received.len() {
            self.received.resize(at + 1, 0);
        }
        &mut self.received[at]
    }

    /// Paths held of a peer.
    pub(crate) fn received_from(&self, peer: PeerIndex) -> u32 {
        self.received.get(usize::from(peer)).copied().unwrap_or(0)
    }

    /// Takes a path in. The reference on `path.attr` moves in; `original` are the attributes before import policy changed
    /// them, with a reference too.
    pub(crate) fn announce(
        &mut self,
        core: &mut Core,
        net: N,
        path: Path,
        original: Option<AttrId>,
    ) -> Announced {
        let id = self.table.find_or_insert(net);
        self.announce_at(core, id, path, original)
    }

    /// The same for a destination that was found already.
    pub(crate) fn announce_at(
        &mut self,
        core: &mut Core,
        id: DestId,
        path: Path,
        original: Option<AttrId>,
    ) -> Announced {
        debug_assert_eq!(path.is_edited(), original.is_some(), "edited paths keep their original");
        let before = self.table.best_at(id);
        let Some(replaced) = self.table.put(id, path) else {
            core.store.release(path.attr);
            if let Some(original) = original {
                core.store.release(original);
            }
            return Announced::Refused;
        };
        if let Some(original) = original {
            let old = self.table.originals.insert(id, path.peer, path.rx_id, original);
            core.store.release(old.unwrap_or(AttrId::NONE));
        } else if replaced.old.is_some_and(|old| old.is_edited()) {
            let old = self.table.originals.remove(id, path.peer, path.rx_id);
            core.store.release(old.unwrap_or(AttrId::NONE));
        }
        if let Some(old) = replaced.old
            && old.attr == path.attr
            && (old.flags ^ path.flags) & !path_flag::LONG_LIVED == 0
        {
            core.store.release(old.attr);
            return Announced::Same;
        }
        self.table.touch(id);
        let next_hop = core.store.attrs.key(path.attr).next_hop;
        if core.store.next_hops.is_pending(next_hop) {
            self.awaiting.entry(next_hop).or_default().push(id);
        }
        let best = self.best_after(core, id, before, replaced.at, replaced.old.as_ref());
        let changed = best != before || before == Some(replaced.at);
        self.table.set_best(id, best);
        self.count_best(id, before.is_some(), best.is_some());
        self.tell(core, id, replaced.at, changed, replaced.old.as_ref());
        if let Some(old) = replaced.old {
            core.store.release(old.attr);
            Announced::Replaced
        } else {
            *self.received_mut(path.peer) += 1;
            Announced::New
        }
    }

    /// The best path after the one at `at` came in over `old`.
    #[inline]
    fn best_after(
        &mut self,
        core: &Core,
        id: DestId,
        before: Option<usize>,
        at: usize,
        old: Option<&Path>,
    ) -> Option<usize> {
        let decision = core.decision();
        let paths = self.table.paths(id);
        if paths.len() == 1 {
            return decision.eligible(&paths[0]).then_some(0);
        }
        let new = &paths[at];
        if !self.table.flag(id, dest_flag::HAS_MED) {
            let med = |p: &Path| core.store.attrs.key(p.attr).med != 0;
            if med(new) || (paths.len() == 2 && paths.iter().any(med)) {
                self.table.set_flag(id, dest_flag::HAS_MED, true);
            }
        }
        let paths = self.table.paths(id);
        let new = &paths[at];
        if self.table.flag(id, dest_flag::HAS_MED) {
            return decision.best(paths, true);
        }
        let better = |than: &Path| decision.compare(new, than) == std::cmp::Ordering::Greater;
        match (before, old) {
            (None, _) => decision.eligible(new).then_some(at),
            (Some(best), _) if best != at => {
                Some(if decision.eligible(new) && better(&paths[best]) { at } else { best })
            }
            (Some(_), Some(old)) if decision.eligible(new) && better(old) => Some(at),
            _ => decision.best(paths, false),
        }
    }

    /// Tells aggregates of a destination that has a best path now, or has none any more.
    #[inline]
    fn count_best(&mut self, id: DestId, before: bool, now: bool) {
        if before != now && !self.aggregates.is_empty() {
            self.aggregates.count(self.table.net(id), now);
        }
    }

    /// Marks what a change of the path at `at` concerns.
    #[inline]
    fn tell(&mut self, core: &Core, id: DestId, at: usize, best_changed: bool, old: Option<&Path>) {
        let path = self.table.paths(id)[at];
        for group in self.groups.iter_mut().flatten() {
            if group.by_path() {
                group.mark_path(&self.table, id, path.slot);
            } else if best_changed {
                group.mark(id);
            }
        }
        if core.kernel.is_on() {
            let shares = |path: &Path| {
                let decision = core.decision();
                self.table.best(id).is_some_and(|best| decision.may_share(path, best))
            };
            let several = core.kernel.ecmp > 1 && self.table.paths(id).len() > 1;
            if best_changed || (several && (shares(&path) || old.is_some_and(shares))) {
                self.mark_fib(id);
            }
        }
    }

    /// Takes a path out; false if it was not there.
    pub(crate) fn withdraw(&mut self, core: &mut Core, net: N, peer: PeerIndex, rx_id: u32) -> bool {
        self.table.find(net).is_some_and(|id| self.withdraw_from(core, id, peer, rx_id))
    }

    /// The same for a destination that was found already.
    pub(crate) fn withdraw_from(&mut self, core: &mut Core, id: DestId, peer: PeerIndex, rx_id: u32) -> bool {
        let Some(at) = self.table.paths(id).iter().position(|p| p.peer == peer && p.rx_id == rx_id) else {
            return false;
        };
        self.remove(core, id, at);
        true
    }

    pub(super) fn remove(&mut self, core: &mut Core, id: DestId, at: usize) {
        let had_best = self.table.best_at(id).is_some();
        self.table.touch(id);
        let path = self.table.take(id, at);
        let before = self.table.best_at(id);
        let has_med = self.table.flag(id, dest_flag::HAS_MED);
        let best = match before {
            Some(best) if !has_med => Some(best),
            _ if self.table.paths(id).is_empty() || !had_best => None,
            _ => core.decision().best(self.table.paths(id), has_med),
        };
        let changed = best != before || (had_best && before.is_none());
        self.table.set_best(id, best);
        self.count_best(id, had_best, best.is_some());
        for group in self.groups.iter_mut().flatten() {
            if group.by_path() {
                group.mark_path(&self.table, id, path.slot);
            } else if changed {
                group.mark(id);
            }
        }
        if path.slot != 0 {
            self.dead_slots.push(path.slot);
        }
        if core.kernel.is_on() {
            let shared = core.kernel.ecmp > 1
                && self.table.best(id).is_some_and(|best| core.decision().may_share(&path, best));
            if changed || shared {
                self.mark_fib(id);
            }
        }
        if path.is_edited() {
            let original = self.table.originals.remove(id, path.peer, path.rx_id);
            core.store.release(original.unwrap_or(AttrId::NONE));
        }
        core.store.release(path.attr);
        *self.received_mut(path.peer) -= 1;
    }

    /// Decides anew, and looks at everything that depends on it.
    pub(super) fn redecide(&mut self, core: &Core, id: DestId) {
        let has_med = self.table.flag(id, dest_flag::HAS_MED);
        let best = core.decision().best(self.table.paths(id), has_med);
        let before = self.table.best_at(id);
        let changed = best != before;
        self.table.set_best(id, best);
        self.count_best(id, before.is_some(), best.is_some());
        for group in self.groups.iter_mut().flatten() {
            if group.by_path() {
                for path in self.table.paths(id) {
                    group.mark(path.slot);
                }
            } else if changed {
                group.mark(id);
            }
        }
        self.mark_fib(id);
    }

    /// Some next hops are reached differently now. Where that may concern much, in steps.
    pub(crate) fn on_next_hops(&mut self, core: &Core, changed: &[(NhId, Change)]) {
        let mut ids: Vec<DestId> = Vec::new();
        for (next_hop, change) in changed {
            let waiting = self.awaiting.remove(next_hop).unwrap_or_default();
            if *change == Change::First && waiting.len() <= WAITING {
                ids.extend(waiting);
            } else {
                self.review_next_hop(*next_hop);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        // A number that waited may have been freed meanwhile.
        ids.retain(|id| (*id as usize) < self.table.dest_bound() && self.table.is_used(*id));
        for id in ids {
            self.redecide(core, id);
        }
    }

    /// Marks everything for all groups: export rules changed.
    pub(crate) fn mark_groups(&mut self) {
        for group in self.groups.iter_mut().flatten() {
            group.mark_all(&self.table);
        }
    }
}
