//! The kernel side of a table: which destinations may need another kernel route, and what is known of the kernel.

use super::decide::Decision;
use super::net::Net;
use super::routes::{Core, Rib};
use super::table::{DestId, dest_flag};
use crate::fib::NO_ROUTE;
use crate::io::FibChange;

impl<N: Net> Rib<N> {
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

    /// Whether [`Rib::take_fib`] has something.
    pub(crate) fn has_fib_work(&self) -> bool {
        self.fib_dirty_at < self.fib_dirty.len()
    }

    /// Up to about `max` kernel changes; they count as done until [`Rib::fib_failed`] says otherwise. Looks at no more than
    /// `left` destinations, and takes off those that it looked at.
    pub(crate) fn take_fib(
        &mut self,
        core: &mut Core,
        max: usize,
        left: &mut usize,
        out: &mut Vec<FibChange>,
    ) {
        let mut given = 0;
        while self.has_fib_work() && given < max && *left > 0 {
            *left -= 1;
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
            if core.keep_stale {
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

    /// The restart is over for our peers: learned routes are told.
    pub(crate) fn end_restart(&mut self) {
        self.mark_groups();
    }

    /// It is over for the kernel too: what is stale still is reconsidered.
    pub(crate) fn sweep(&mut self) {
        for id in 0..super::index32(self.table.dest_bound()) {
            if self.table.flag(id, dest_flag::FIB_STALE) {
                self.mark_fib(id);
            }
        }
    }
}
