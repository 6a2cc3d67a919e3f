//! The update groups of a table: joining, leaving, changing place, and freeing what no group refers to any more.

use super::net::Net;
use super::routes::{Core, Rib};
use super::table::{DestId, PeerIndex, dest_flag};
use crate::export::group::{Allowance, ExportCtx, Group, Next, ToldCounts};
use crate::fib::NO_ROUTE;

/// A session, where it is now, and the key that it shall have.
pub(crate) struct Regroup {
    pub(crate) peer: PeerIndex,
    pub(crate) place: (usize, usize),
    pub(crate) key: crate::export::verdict::GroupKey,
}

/// Numbers reconsidered in one step of reaping.
const REAP_STEP: usize = 1 << 16;

impl<N: Net> Rib<N> {
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
    pub(crate) fn leave_group(&mut self, group: usize, member: usize) {
        let Some(g) = self.groups[group].as_mut() else { return };
        g.leave(member);
        if g.is_empty() {
            self.dissolved.push(g.dissolve());
            self.groups[group] = None;
        }
    }

    /// Whether something that dissolved groups held is still to be given back.
    pub(crate) fn is_dissolving(&self) -> bool {
        !self.dissolved.is_empty()
    }

    /// Gives some of it back.
    pub(crate) fn dissolve_step(&mut self, core: &mut Core, budget: usize) {
        let Some(held) = self.dissolved.last_mut() else { return };
        let rest = held.len() - held.len().min(budget);
        for out in held.drain(rest..) {
            core.store.release(out.attr);
        }
        if rest == 0 {
            self.dissolved.pop();
        }
    }

    /// The next bytes of this family for a member of a group; see [`Group::next`].
    pub(crate) fn next(
        &mut self,
        core: &mut Core,
        group: usize,
        member: usize,
        now: crate::io::Time,
        allowance: &mut Allowance,
    ) -> Next {
        let Core { store, sources, ranks, locals, packer, restarting, hold_eor, .. } = core;
        let mut ctx = ExportCtx {
            store,
            locals,
            peers: sources,
            rules: &self.rules,
            ranks,
            restarting: *restarting,
            hold_eor: *restarting || *hold_eor,
            packer,
        };
        match self.groups.get_mut(group).and_then(Option::as_mut) {
            Some(group) => group.next(member, now, &self.table, &mut ctx, allowance),
            None => Next::Nothing,
        }
    }

    /// Sessions whose key changed find their new place; they keep their connection and are told only what differs, where
    /// a whole group changes alike. Returns the new place of each that moved.
    pub(crate) fn regroup(
        &mut self,
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
                let belongings = self.groups[at].as_mut().map(|g| g.pack(w.place.1)).unwrap_or_default();
                self.leave_group(at, w.place.1);
                let new = self.group_for(w.key.clone());
                if let Some(group) = self.groups[new].as_mut() {
                    let member = group.join(w.peer, false, now);
                    group.unpack(member, belongings);
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

    /// Frees numbers that nobody refers to any more, a step at a time; returns how many.
    pub(crate) fn reap(&mut self) -> usize {
        let oldest: Vec<u32> = self.groups.iter().map(|g| g.as_ref().map_or(0, Group::oldest)).collect();
        if let Some(freed) = self.reap_all(&oldest) {
            return freed;
        }
        let groups = &self.groups;
        let forgot = |slot: u32, by_path: bool| {
            groups.iter().zip(&oldest).all(|(g, oldest)| {
                g.as_ref().is_none_or(|g| g.by_path() != by_path || g.forgot(slot, *oldest))
            })
        };
        let mut freed = 0;
        let dead = std::mem::take(&mut self.dead_slots);
        for slot in dead {
            if forgot(slot, true) {
                self.table.free_slot(slot);
                freed += 1;
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
                freed += 1;
            } else if self.table.fib(id) != NO_ROUTE
                || self.table.flag(id, dest_flag::FIB_DIRTY)
                || slots_of_dest.contains(&id)
                || !forgot(id, false)
            {
                kept.push(id);
            } else {
                self.table.free_dest(id);
                freed += 1;
            }
        }
        self.table.empty.extend(rest);
        self.table.empty.extend(kept);
        freed
    }

    /// Everything went away and nobody refers to any of it: all numbers are freed at once, which is far cheaper than
    /// taking each out of the index. `None` if it is not so.
    fn reap_all(&mut self, oldest: &[u32]) -> Option<usize> {
        let by_dest = |g: &&Group<N>| !g.by_path();
        let idle = self.dead_slots.is_empty()
            && self.fib_dirty.is_empty()
            && self.table.is_idle()
            && self
                .groups
                .iter()
                .zip(oldest)
                .all(|(g, oldest)| g.as_ref().filter(by_dest).is_none_or(|g| g.forgot_all(*oldest)));
        if !idle {
            return None;
        }
        self.groups.iter_mut().flatten().filter(|g| !g.by_path()).for_each(Group::forget_all);
        let freed = self.table.empty.len();
        self.table.shrink();
        Some(freed)
    }

    /// Whether there is something to reap.
    pub(crate) fn is_reapable(&self) -> bool {
        !self.table.empty.is_empty() || !self.dead_slots.is_empty()
    }

    /// How many routes members hold, by group.
    pub(crate) fn advertised_counts(&self) -> Vec<ToldCounts> {
        self.groups.iter().map(|g| g.as_ref().map(Group::told_counts).unwrap_or_default()).collect()
    }

    /// Whether some group has changes that nobody took yet.
    pub(crate) fn has_export_work(&self) -> bool {
        self.groups.iter().flatten().any(Group::has_work)
    }
}
