//! The routes of one family: what comes in, which is best, who must hear of it.

use bird_packet::UpdatePacker;

use super::attrs::{AttrId, Store};
use super::decide::{Decision, PeerRank};
use super::local::LocalRoutes;
use super::net::Net;
use super::nexthop::NhId;
use super::table::{DestId, Path, PeerIndex, Table, dest_flag, path_flag};
use crate::config::ExportRules;
use crate::export::group::{ExportCtx, Group};
use crate::export::verdict::{Rules, SourcePeer};
use crate::fib::{FibRoutes, Kernel, NO_ROUTE};
use crate::io::FibChange;

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
    /// Our restart is not over: learned routes are not told yet, stale kernel routes not touched.
    pub(crate) restarting: bool,
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

/// Paths of a session that are to go, unless they were said again since.
#[derive(Debug, Clone, Copy)]
struct Purge {
    peer: PeerIndex,
    /// The session whose paths stay.
    keep: u8,
    /// Those of the session before it stay too.
    keep_previous: bool,
    /// Destinations still to be looked at.
    left: usize,
}

/// A session, where it is now, and the key that it shall have.
pub(crate) struct Regroup {
    pub(crate) peer: PeerIndex,
    pub(crate) place: (usize, usize),
    pub(crate) key: crate::export::verdict::GroupKey,
}

/// Destinations looked at in one step of a purge.
const PURGE_STEP: usize = 1 << 15;
/// Numbers reconsidered in one step of reaping.
const REAP_STEP: usize = 1 << 16;

/// Table, export groups and kernel changes of one family.
pub(crate) struct Rib<N: Net> {
    pub(crate) table: Table<N>,
    pub(crate) rules: Rules<N>,
    pub(crate) groups: Vec<Option<Group<N>>>,
    fib_dirty: Vec<DestId>,
    fib_dirty_at: usize,
    /// ADD-PATH slots of paths that are gone.
    dead_slots: Vec<u32>,
    purges: Vec<Purge>,
    purge_at: usize,
    /// Paths held per peer, filtered ones included.
    pub(crate) received: Vec<u32>,
    /// [`crate::Config::export_log`].
    pub(crate) export_log: usize,
}

impl<N: Net> Rib<N> {
    pub(crate) fn new(seed: u64, rules: &ExportRules) -> Self {
        Rib {
            export_log: usize::MAX,
            table: Table::new(seed),
            rules: Rules::new(rules),
            groups: Vec::new(),
            fib_dirty: Vec::new(),
            fib_dirty_at: 0,
            dead_slots: Vec::new(),
            purges: Vec::new(),
            purge_at: 0,
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
        debug_assert_eq!(path.is_edited(), original.is_some(), "edited paths keep their original");
        let id = self.table.find_or_insert(net);
        let before = self.table.best_at(id);
        let Some(replaced) = self.table.put(id, path) else {
            core.store.release(path.attr);
            if let Some(original) = original {
                core.store.release(original);
            }
            return Announced::Refused;
        };
        if let Some(original) = original {
            let old = self.table.originals.insert((id, path.peer, path.rx_id), original);
            core.store.release(old.unwrap_or(AttrId::NONE));
        } else if replaced.old.is_some_and(|old| old.is_edited()) {
            let old = self.table.originals.remove(&(id, path.peer, path.rx_id));
            core.store.release(old.unwrap_or(AttrId::NONE));
        }
        if let Some(old) = replaced.old
            && old.attr == path.attr
            && (old.flags ^ path.flags) & !path_flag::STALE == 0
        {
            core.store.release(old.attr);
            return Announced::Same;
        }
        let best = self.best_after(core, id, before, replaced.at, replaced.old.as_ref());
        let changed = best != before || before == Some(replaced.at);
        self.table.set_best(id, best);
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

    /// Marks what a change of the path at `at` concerns.
    #[inline]
    fn tell(&mut self, core: &Core, id: DestId, at: usize, best_changed: bool, old: Option<&Path>) {
        let path = self.table.paths(id)[at];
        for group in self.groups.iter_mut().flatten() {
            if group.by_path() {
                group.mark(path.slot);
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
        let Some(id) = self.table.find(net) else { return false };
        let Some(at) = self.table.paths(id).iter().position(|p| p.peer == peer && p.rx_id == rx_id) else {
            return false;
        };
        self.remove(core, id, at);
        true
    }

    fn remove(&mut self, core: &mut Core, id: DestId, at: usize) {
        let had_best = self.table.best_at(id).is_some();
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
        for group in self.groups.iter_mut().flatten() {
            if group.by_path() {
                group.mark(path.slot);
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
            let original = self.table.originals.remove(&(id, path.peer, path.rx_id));
            core.store.release(original.unwrap_or(AttrId::NONE));
        }
        core.store.release(path.attr);
        *self.received_mut(path.peer) -= 1;
    }

    /// Decides anew, and looks at everything that depends on it.
    fn redecide(&mut self, core: &Core, id: DestId) {
        let has_med = self.table.flag(id, dest_flag::HAS_MED);
        let best = core.decision().best(self.table.paths(id), has_med);
        let changed = best != self.table.best_at(id);
        self.table.set_best(id, best);
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

    /// Some next hops are reached differently now.
    pub(crate) fn on_next_hops(&mut self, core: &Core, changed: &[NhId]) {
        let mut affected = vec![false; 0];
        for next_hop in changed {
            let with = core.store.attrs.with_next_hop(*next_hop);
            affected.resize(with.len(), false);
            affected.iter_mut().zip(with).for_each(|(a, w)| *a |= w);
        }
        let mut ids = Vec::new();
        for id in self.table.dest_ids() {
            if self.table.paths(id).iter().any(|p| affected[p.attr.0 as usize]) {
                ids.push(id);
            }
        }
        for id in ids {
            self.redecide(core, id);
        }
    }

    /// What decisions rest on changed: decides everything anew.
    pub(crate) fn redecide_all(&mut self, core: &Core) {
        let ids: Vec<DestId> = self.table.dest_ids().collect();
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

    // ---- kernel ----

    /// The kernel route of a destination may have to change.
    pub(crate) fn mark_fib(&mut self, id: DestId) {
        if !self.table.set_flag(id, dest_flag::FIB_DIRTY, true) {
            self.fib_dirty.push(id);
        }
    }

    pub(crate) fn mark_fib_all(&mut self) {
        for id in 0..super::index32(self.table.dest_bound()) {
            if self.table.is_used(id) {
                self.mark_fib(id);
            }
        }
    }

    /// Routes that a member of a group holds.
    pub(crate) fn advertised_count(&self, group: usize, peer: PeerIndex) -> usize {
        self.groups.get(group).and_then(Option::as_ref).map_or(0, |g| g.count_for(peer))
    }

    /// Whether some group has changes that nobody took yet.
    pub(crate) fn has_export_work(&self) -> bool {
        self.groups.iter().flatten().any(Group::has_work)
    }

    pub(crate) fn has_fib_work(&self) -> bool {
        self.fib_dirty_at < self.fib_dirty.len()
    }

    /// Up to about `max` kernel changes; they count as done until [`Rib::fib_failed`] says otherwise.
    pub(crate) fn take_fib(&mut self, core: &mut Core, max: usize, out: &mut Vec<FibChange>) {
        let mut given = 0;
        while self.has_fib_work() && given < max {
            let id = self.fib_dirty[self.fib_dirty_at];
            self.fib_dirty_at += 1;
            self.table.set_flag(id, dest_flag::FIB_DIRTY, false);
            given += usize::from(self.update_fib(core, id, out));
        }
        if !self.has_fib_work() {
            self.fib_dirty.clear();
            self.fib_dirty_at = 0;
            self.fib_dirty.shrink_to(1 << 12);
        }
    }

    fn update_fib(&mut self, core: &mut Core, id: DestId, out: &mut Vec<FibChange>) -> bool {
        let net = self.table.net(id);
        let Core { store, ranks, kernel, fib_routes, .. } = core;
        let decision = Decision { attrs: &store.attrs, next_hops: &store.next_hops, peers: ranks };
        let new = kernel
            .desired(
                fib_routes,
                decision,
                net.to_prefix(),
                self.table.paths(id),
                self.table.best_at(id),
                self.table.flag(id, dest_flag::HAS_MED),
            )
            .unwrap_or(NO_ROUTE);
        let old = self.table.fib(id);
        if old == new {
            // Also the stale route of a restart that turns out right: nothing is written.
            self.table.set_flag(id, dest_flag::FIB_STALE, false);
            fib_routes.release(new);
            return false;
        }
        if self.table.flag(id, dest_flag::FIB_STALE) {
            if core.restarting {
                // RFC 4724 §4.1: forwarding stays as it was until selection is over.
                fib_routes.release(new);
                return false;
            }
            self.table.set_flag(id, dest_flag::FIB_STALE, false);
        }
        out.push(FibChange {
            prefix: net.to_ipnet(),
            old: fib_routes.route(old),
            new: fib_routes.route(new),
        });
        self.table.set_fib(id, new);
        self.table.set_flag(id, dest_flag::FIB_FAILED, false);
        fib_routes.release(old);
        true
    }

    /// The kernel refused: it has nothing of us for this prefix, as far as we know. True if it is to be tried again.
    pub(crate) fn fib_failed(&mut self, core: &mut Core, net: N) -> bool {
        let Some(id) = self.table.find(net) else { return false };
        core.fib_routes.release(self.table.fib(id));
        self.table.set_fib(id, NO_ROUTE);
        self.table.set_flag(id, dest_flag::FIB_FAILED, true);
        true
    }

    /// Offers failed kernel changes again.
    pub(crate) fn retry_fib(&mut self) {
        for id in 0..super::index32(self.table.dest_bound()) {
            if self.table.flag(id, dest_flag::FIB_FAILED) {
                self.mark_fib(id);
            }
        }
    }

    /// A route of ours that the kernel had before we started; the reference on `fib` moves in.
    pub(crate) fn adopt_fib(&mut self, core: &mut Core, net: N, fib: u32, stale: bool) {
        let id = self.table.find_or_insert(net);
        core.fib_routes.release(self.table.fib(id));
        self.table.set_fib(id, fib);
        self.table.set_flag(id, dest_flag::FIB_STALE, stale);
        if self.table.paths(id).is_empty() && !self.table.set_flag(id, dest_flag::EMPTY, true) {
            self.table.empty.push(id);
        }
        self.mark_fib(id);
    }

    /// The restart is over: what is stale still is reconsidered, learned routes are told.
    pub(crate) fn end_restart(&mut self) {
        for id in 0..super::index32(self.table.dest_bound()) {
            if self.table.flag(id, dest_flag::FIB_STALE) {
                self.mark_fib(id);
            }
        }
        self.mark_groups();
    }

    // ---- sessions ----

    /// Removes a peer's paths, except those of session `keep`, and of the one before it if asked. In steps.
    pub(crate) fn purge(&mut self, peer: PeerIndex, keep: u8, keep_previous: bool) {
        self.purges.retain(|p| p.peer != peer);
        if self.received_from(peer) > 0 {
            self.purges.push(Purge { peer, keep, keep_previous, left: self.table.dest_bound() });
        }
    }

    pub(crate) fn is_purging(&self) -> bool {
        !self.purges.is_empty()
    }

    /// One step of the purges; all of them share the walk.
    pub(crate) fn purge_step(&mut self, core: &mut Core) {
        let bound = self.table.dest_bound();
        let longest = self.purges.iter().map(|p| p.left).max().unwrap_or(0);
        let step = longest.min(PURGE_STEP).min(bound);
        for _ in 0..step {
            if self.purge_at >= bound {
                self.purge_at = 0;
            }
            let id = super::index32(self.purge_at);
            self.purge_at += 1;
            let mut at = self.table.paths(id).len();
            while at > 0 {
                at -= 1;
                let path = self.table.paths(id)[at];
                let goes = self.purges.iter().any(|p| {
                    p.peer == path.peer
                        && p.keep != path.epoch
                        && !(p.keep_previous && p.keep.wrapping_sub(1) == path.epoch)
                });
                if goes {
                    self.remove(core, id, at);
                }
            }
        }
        for purge in &mut self.purges {
            purge.left = purge.left.saturating_sub(step.max(1));
        }
        let received = &self.received;
        self.purges.retain(|p| p.left > 0 && received[usize::from(p.peer)] > 0);
    }

    /// The paths of one peer, to be evaluated again: prefix, identifier, attributes as received, session.
    pub(crate) fn paths_of(&self, peer: PeerIndex) -> Vec<(N, u32, AttrId, u8)> {
        let mut found = Vec::new();
        for id in self.table.dest_ids() {
            for path in self.table.paths(id).iter().filter(|p| p.peer == peer) {
                let original = self.table.originals.get(&(id, peer, path.rx_id));
                found.push((
                    self.table.net(id),
                    path.rx_id,
                    original.copied().unwrap_or(path.attr),
                    path.epoch,
                ));
            }
        }
        found
    }

    // ---- groups ----

    /// The group with this key, made if need be.
    fn group_for(&mut self, key: crate::export::verdict::GroupKey) -> usize {
        if let Some(at) = self.groups.iter().position(|g| g.as_ref().is_some_and(|g| g.key == key)) {
            return at;
        }
        if key.add_path(N::FAMILY) {
            self.table.use_slots();
        }
        let group = Some(Group::new(key, &self.table, self.export_log));
        if let Some(at) = self.groups.iter().position(Option::is_none) {
            self.groups[at] = group;
            at
        } else {
            self.groups.push(group);
            self.groups.len() - 1
        }
    }

    /// Puts a session into the group with this key; returns the group and its number there.
    pub(crate) fn join(
        &mut self,
        key: crate::export::verdict::GroupKey,
        peer: PeerIndex,
        now: crate::io::Time,
    ) -> (usize, usize) {
        let at = self.group_for(key);
        let group = self.groups[at].as_mut().expect("invariant: group_for returns a group that exists");
        (at, group.join(peer, true, now))
    }

    /// Takes a member out; the last one takes the group with it.
    pub(crate) fn leave_group(&mut self, core: &mut Core, group: usize, member: usize) {
        let Some(g) = self.groups[group].as_mut() else { return };
        g.leave(member);
        if g.is_empty() {
            g.dissolve(&mut core.store);
            self.groups[group] = None;
        }
    }

    /// The next bytes of this family for a member of a group.
    pub(crate) fn next(
        &mut self,
        core: &mut Core,
        group: usize,
        member: usize,
        now: crate::io::Time,
    ) -> Option<bytes::Bytes> {
        let Core { store, sources, locals, packer, restarting, hold_eor, .. } = core;
        let mut ctx = ExportCtx {
            store,
            locals,
            peers: sources,
            rules: &self.rules,
            restarting: *restarting,
            hold_eor: *restarting || *hold_eor,
            packer,
        };
        self.groups.get_mut(group)?.as_mut()?.next(member, now, &self.table, &mut ctx)
    }

    /// Sessions whose key changed find their new place; they keep their connection and are told only what differs, where
    /// a whole group changes alike. Returns the new place of each that moved.
    pub(crate) fn regroup(
        &mut self,
        core: &mut Core,
        wanted: Vec<Regroup>,
        now: crate::io::Time,
    ) -> Vec<(PeerIndex, (usize, usize))> {
        let mut moved = Vec::new();
        let mut groups: Vec<usize> = wanted.iter().map(|w| w.place.0).collect();
        groups.sort_unstable();
        groups.dedup();
        for at in groups {
            let of_group: Vec<&Regroup> = wanted.iter().filter(|w| w.place.0 == at).collect();
            let Some(group) = self.groups[at].as_mut() else { continue };
            if of_group.iter().all(|w| w.key == group.key) {
                continue;
            }
            let alike = of_group.len() == group.len() && of_group.iter().all(|w| w.key == of_group[0].key);
            if alike {
                group.rekey(of_group[0].key.clone(), &self.table);
                continue;
            }
            let same = group.key.clone();
            for w in of_group.into_iter().filter(|w| w.key != same) {
                let held = self.groups[at].as_ref().map(|g| g.held_by(w.peer)).unwrap_or_default();
                self.leave_group(core, at, w.place.1);
                let new = self.group_for(w.key.clone());
                if let Some(group) = self.groups[new].as_mut() {
                    let member = group.join(w.peer, false, now);
                    group.unlearn(member, held);
                    group.wake = true;
                    moved.push((w.peer, (new, member)));
                }
            }
        }
        moved
    }

    /// Sends a member everything again.
    pub(crate) fn refresh(&mut self, group: usize, member: usize, enhanced: bool) {
        if let Some(group) = self.groups[group].as_mut() {
            group.refresh(member, enhanced);
        }
    }

    /// Members that waited for slower ones may look again.
    pub(crate) fn wake_waiting(&mut self, now: crate::io::Time) {
        for group in self.groups.iter_mut().flatten() {
            if group.waiting_until.is_some_and(|at| at <= now) {
                group.waiting_until = None;
                group.wake = true;
            }
        }
    }

    /// Everybody may look again, for an End-of-RIB that was held back.
    pub(crate) fn wake_all(&mut self) {
        self.groups.iter_mut().flatten().for_each(|g| g.wake = true);
    }

    /// Frees numbers that nobody refers to any more, a step at a time. True if some are left that may be free later.
    pub(crate) fn reap(&mut self) -> bool {
        let oldest: Vec<u32> = self.groups.iter().map(|g| g.as_ref().map_or(0, Group::oldest)).collect();
        let groups = &self.groups;
        let forgot = |slot: u32, by_path: bool| {
            groups.iter().zip(&oldest).all(|(g, oldest)| {
                g.as_ref().is_none_or(|g| g.by_path() != by_path || g.forgot(slot, *oldest))
            })
        };
        let dead = std::mem::take(&mut self.dead_slots);
        for slot in dead {
            if forgot(slot, true) {
                self.table.free_slot(slot);
            } else {
                self.dead_slots.push(slot);
            }
        }
        let slots_of_dest: std::collections::HashSet<DestId> =
            self.dead_slots.iter().map(|slot| self.table.dest_of_slot(*slot)).collect();
        let mut empty = std::mem::take(&mut self.table.empty);
        let rest = empty.split_off(empty.len().min(REAP_STEP));
        let mut kept = Vec::new();
        for id in empty {
            if !self.table.paths(id).is_empty() {
                self.table.set_flag(id, dest_flag::EMPTY, false);
            } else if self.table.fib(id) != NO_ROUTE
                || self.table.flag(id, dest_flag::FIB_DIRTY)
                || slots_of_dest.contains(&id)
                || !forgot(id, false)
            {
                kept.push(id);
            } else {
                self.table.free_dest(id);
            }
        }
        self.table.empty.extend(rest);
        self.table.empty.extend(kept);
        !self.table.empty.is_empty() || !self.dead_slots.is_empty()
    }

    /// Whether there is something to reap.
    pub(crate) fn is_reapable(&self) -> bool {
        !self.table.empty.is_empty() || !self.dead_slots.is_empty()
    }
}
