//! Kernel routes: what others do there is told to the speaker, what the speaker decides is written, drift is repaired.

use std::time::Instant;

use anyhow::Context as _;
use bird_speaker::Input;

use super::{Engine, FIB_BATCH, LISTEN_RETRY, RESYNC_PAUSE, Recheck, SETTLE};
use crate::kernel::Effects;

impl Engine {
    pub(super) fn read_kernel(&mut self) -> anyhow::Result<()> {
        let netlink = self.fib.netlink();
        let links = netlink.links().context("links cannot be read")?;
        let addresses = netlink.addresses().context("addresses cannot be read")?;
        let filter = caracal_netlink::RouteFilter { table: Some(self.kernel.table()), ..Default::default() };
        let routes =
            netlink.routes(filter.except(self.kernel.own_proto())).context("routes cannot be read")?;
        let effects = self.kernel.replace(links, addresses, routes);
        self.take(effects);
        Ok(())
    }

    pub(super) fn read_monitor(&mut self) {
        loop {
            match self.monitor.try_next() {
                Ok(events) if events.is_empty() => return,
                Ok(events) => {
                    self.audit.hear(&events);
                    let effects = self.kernel.observe(events);
                    self.take(effects);
                }
                Err(err) => {
                    tracing::warn!(%err, "changes of the kernel were missed; reading everything again");
                    self.recheck.all_at = Some(Instant::now() + RESYNC_PAUSE);
                    return;
                }
            }
        }
    }

    pub(super) fn take(&mut self, effects: Effects) {
        for key in effects.local_gone {
            self.input(Input::LocalRouteGone(key));
        }
        for route in effects.local {
            if self.redistributes(route.key.source) {
                self.input(Input::LocalRoute(route));
            }
        }
        for (address, resolution) in effects.next_hops {
            self.input(Input::NextHop { address, resolution });
        }
        self.repairs.extend(effects.own_gone);
        self.recheck.own |= effects.lost_routes;
        if effects.resync {
            self.recheck.all_at.get_or_insert(Instant::now() + RESYNC_PAUSE);
        }
        if effects.came_up {
            self.watch.stale |= self.watch.by_link;
            self.wake_at.get_or_insert(Instant::now() + SETTLE);
            self.fib.retry_all();
        }
    }

    pub(super) fn write_fib(&mut self) {
        let now = Instant::now();
        self.fib.hear(&self.kernel, now);
        let Some(speaker) = &mut self.speaker else {
            self.repairs.clear();
            self.recheck.own = false;
            return;
        };
        if self.stopping {
            self.fib_waiting = false;
            self.repairs.clear();
            self.recheck = Recheck::default();
            return;
        }
        while self.fib_waiting && self.fib.has_room() {
            let changes = speaker.take_fib(FIB_BATCH);
            self.fib_waiting = !changes.is_empty();
            let changes = self.calm.pass(changes, now);
            self.fib.apply(&self.kernel, &changes, now);
        }
        // Before a comparison with the kernel nothing may be held back.
        let held = self.calm.due(now, self.recheck.own);
        if !held.is_empty() {
            self.fib.apply(&self.kernel, &held, now);
        }
        let wanted = |prefix| speaker.fib_route(prefix);
        if !self.repairs.is_empty() {
            let mut gone = std::mem::take(&mut self.repairs);
            gone.retain(|route| !self.calm.explains(route.dst, now));
            let count = self.fib.repair(&self.kernel, &gone, wanted);
            if count > 0 {
                tracing::info!(count, "somebody removed routes; they are written again");
            }
        }
        self.fib.mend(&self.kernel, wanted, now);
        if self.recheck.own && !self.fib_waiting && !self.recovering {
            self.recheck_own(now);
        }
    }

    /// Compares our routes in the kernel with what the speaker gave out. Not before the end of a restart: until then
    /// the kernel may hold more than the speaker knows.
    fn recheck_own(&mut self, now: Instant) {
        if !self.is_small() {
            self.recheck.own = false;
            self.begin_audit(now);
            return;
        }
        let Some(speaker) = self.speaker.as_ref().filter(|_| self.fib.is_idle()) else { return };
        self.recheck.own = false;
        match self.fib.compare(&self.kernel, speaker.fib_routes()) {
            Ok(found) => self.mend(found),
            Err(err) => {
                tracing::warn!(%err, "our routes cannot be compared with the kernel; trying again");
                self.recheck.all_at = Some(now + LISTEN_RETRY);
            }
        }
    }

    pub(super) fn housekeeping(&mut self) {
        let now = Instant::now();
        self.cut_short(now);
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.recheck.audit_at) {
            self.recheck.audit_at = None;
            self.begin_audit(now);
        }
        if due(self.recheck.all_at) {
            self.recheck.all_at = None;
            if !self.is_small() {
                self.begin_audit(now);
            } else if let Err(err) = self.read_kernel() {
                tracing::warn!(err = format!("{err:#}"), "the kernel cannot be read; trying again");
                self.recheck.all_at = Some(now + LISTEN_RETRY);
            } else {
                self.recheck.own = true;
            }
        }
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
            self.try_again();
        }
        if self.listen_retry_at.is_some_and(|at| at <= now) {
            self.listen_again();
            self.listen_retry_at = self.listeners.incomplete().then(|| now + LISTEN_RETRY);
        }
    }
}
