//! From one configuration to the next, without bouncing a session that need not.

use std::sync::Arc;

use bird_packet::{Cease, Family, Notification};

use crate::config::{Config, LimitAction, Local, PeerConfig};
use crate::diff::ConfigDiff;
use crate::ending::Ending;
use crate::export::verdict::Rules;
use crate::fib::Kernel;
use crate::io::{DownReason, LocalSource, Time};
use crate::peer::Peer;
use crate::policy::glob;
use crate::rib::groups::Regroup;
use crate::rib::net::{Net, prefix_of};
use crate::rib::table::{PeerIndex, source};
use crate::speaker::Speaker;

/// The field that makes a session impossible to keep, if any.
pub(crate) fn reset_field(
    old: &PeerConfig,
    new: &PeerConfig,
    was: &Local,
    is: &Local,
) -> Option<&'static str> {
    let fields: [(bool, &'static str); 17] = [
        (was.router_id != is.router_id, "local.router_id"),
        (old.effective_local_as(was) != new.effective_local_as(is), "local_as"),
        (old.address != new.address, "address"),
        (old.interface != new.interface, "interface"),
        (old.port != new.port, "port"),
        ((old.remote_as, old.remote_external) != (new.remote_as, new.remote_external), "remote_as"),
        (old.families != new.families, "families"),
        (old.enabled != new.enabled, "enabled"),
        (old.source_address != new.source_address, "source_address"),
        (old.ttl_security != new.ttl_security, "ttl_security"),
        (old.multihop != new.multihop, "multihop"),
        (old.password != new.password, "password"),
        (!old.add_path.same_session(new.add_path), "add_path"),
        (old.extended_next_hop != new.extended_next_hop, "extended_next_hop"),
        (old.enforce_first_as != new.enforce_first_as, "enforce_first_as"),
        (old.reject_as_sets != new.reject_as_sets, "reject_as_sets"),
        (old.graceful_restart.enabled != new.graceful_restart.enabled, "graceful_restart.enabled"),
    ];
    fields.into_iter().find(|(differs, _)| *differs).map(|(_, field)| field)
}

impl Speaker {
    /// What [`Speaker::configure`] with this would do, without doing it.
    pub fn diff(&self, new: &Config) -> ConfigDiff {
        ConfigDiff::between(&self.config, new)
    }

    /// Takes a new configuration, whole. `kernel.resolve_next_hops` counts only when the speaker is made.
    pub fn configure(&mut self, now: Time, new: Config) -> ConfigDiff {
        self.now = self.now.max(now);
        let now = self.now;
        let diff = self.diff(&new);
        let old = std::mem::replace(&mut self.config, Arc::new(new));
        let new = self.config.clone();

        if old.export != new.export || old.aggregates != new.aggregates {
            self.v4.rules = Rules::new(&new);
            self.v6.rules = Rules::new(&new);
            self.v4.mark_groups();
            self.v6.mark_groups();
        }
        self.v4.export_log = new.export_log;
        self.v6.export_log = new.export_log;
        if old.kernel != new.kernel {
            let origins = std::mem::take(&mut self.core.kernel.origins);
            self.core.kernel.forget_memo(&mut self.core.fib_routes);
            self.core.kernel = Kernel::new(&new.kernel);
            self.core.kernel.origins = origins;
            self.v4.mark_fib_all();
            self.v6.mark_fib_all();
        }
        if old.aggregates != new.aggregates || old.local != new.local {
            self.configure_aggregates();
        }
        self.originate(&old, &new);
        if old.ignored_interfaces != new.ignored_interfaces || old.export != new.export {
            self.relearn_local_routes();
        }

        for name in &diff.removed {
            if let Some(index) = self.peer_by_name(name) {
                self.remove_peer(now, index);
            }
        }
        for config in &new.peers {
            match self.peer_by_name(&config.name) {
                None => {
                    self.add_peer(now, config.clone());
                }
                Some(index) => {
                    let reset = diff.reset.iter().find(|(n, _)| *n == config.name).map(|(_, field)| *field);
                    self.change_peer(now, index, config, reset);
                }
            }
        }
        self.reconsider(now, &old, &new);
        self.begin_review();
        self.forget_last_attrs();
        self.run_timers(now);
        self.settle(now);
        diff
    }

    /// Makes a peer and lets it begin.
    pub(crate) fn add_peer(&mut self, now: Time, config: PeerConfig) -> PeerIndex {
        let first = usize::from(source::FIRST_PEER);
        let at = (first..self.peers.len()).find(|i| self.peers[*i].is_none()).unwrap_or(self.peers.len());
        let index = PeerIndex::try_from(at).expect("invariant: fewer than 65,000 peers");
        if at == self.peers.len() {
            self.peers.push(None);
        }
        let all = self.config.clone();
        self.peers[at] = Some(Box::new(Peer::new(index, config, &all, now)));
        self.arm_peer(index);
        index
    }

    /// Ends a peer; its number is free when its routes are gone.
    pub(crate) fn remove_peer(&mut self, now: Time, index: PeerIndex) {
        self.end_session(now, index, Cease::PeerDeconfigured, "removed from the configuration");
        let Some(peer) = self.peer_mut(index) else { return };
        peer.removed = true;
        peer.retry_at = None;
        peer.idle_until = None;
        peer.helper = crate::peer::Helper::default();
        peer.name = format!("{} (removed)", peer.name).into();
        let epoch = peer.epoch;
        for family in Family::ALL {
            self.purge(index, family, epoch[family.index()], false);
        }
        // Housekeeping frees the number.
        self.housekeeping_soon(now);
    }

    /// Frees the numbers of removed peers that nothing refers to any more; returns how many.
    pub(crate) fn forget_removed_peers(&mut self) -> usize {
        let mut freed = 0;
        let clean = !self.v4.has_export_work() && !self.v6.has_export_work();
        for slot in &mut self.peers {
            if let Some(peer) = slot
                && peer.removed
                && clean
                && peer.conns.is_empty()
                && self.v4.received_from(peer.index) + self.v6.received_from(peer.index) == 0
            {
                *slot = None;
                freed += 1;
            }
        }
        if self.peers.iter().flatten().any(|p| p.removed) {
            self.housekeeping_soon(self.now);
        }
        freed
    }

    /// Ends all connections of a peer, with a word if it can be said.
    fn end_session(&mut self, now: Time, index: PeerIndex, cease: Cease, why: &'static str) {
        self.end_session_saying(now, index, cease, why, why);
    }

    /// The same with a text for the peer's operator (RFC 9003), where the NOTIFICATION has room for one.
    fn end_session_saying(
        &mut self,
        now: Time,
        index: PeerIndex,
        cease: Cease,
        why: &'static str,
        text: &str,
    ) {
        let Some(peer) = self.peer(index) else { return };
        let conns = peer.conns.clone();
        for at in conns {
            self.lose(now, at, DownReason::Admin(why), Ending::Hard);
            let hard = self
                .conns
                .get(at)
                .and_then(|c| c.terms.as_ref())
                .and_then(|t| t.restart)
                .is_some_and(|r| r.notification);
            let notification = Notification::cease_with_text(cease, text);
            let notification = if hard { notification.into_hard_reset() } else { notification };
            self.close_conn(at, Some(&notification));
        }
    }

    fn change_peer(&mut self, now: Time, index: PeerIndex, config: &PeerConfig, reset: Option<&'static str>) {
        let Some(peer) = self.peer_mut(index) else { return };
        let mut ask_again = false;
        if *peer.config != *config {
            if peer.config.prefix_limit != config.prefix_limit {
                // What was discarded is not kept: the peer must tell it again.
                let discarded = peer.config.prefix_limit.is_some_and(|l| l.action == LimitAction::Discard);
                ask_again = discarded && peer.limit_reported != [false, false];
                peer.limit_reported = [false, false];
            }
            let bfd = peer.config.bfd;
            peer.config = Arc::new(config.clone());
            peer.error_wait = config.error_wait.0;
            self.on_bfd_configured(now, index, bfd);
        }
        if let Some(field) = reset {
            let cease =
                if config.enabled { Cease::ConfigurationChange } else { Cease::AdministrativeShutdown };
            let _ = field;
            let text = config.shutdown_text.as_deref().unwrap_or("disabled by an operator");
            self.end_session_saying(now, index, cease, "the configuration changed", text);
            // Also of one that is away: it is another peer now.
            self.end_help(now, index, [true, true]);
            if let Some(peer) = self.peer_mut(index) {
                peer.idle_until = None;
                peer.failures = 0;
                peer.retry_at = Some(now + peer.patience());
            }
            self.arm_peer(index);
        }
        // Timers apply on the fly.
        let Some(peer) = self.peer(index) else { return };
        let Some(at) = peer.established else {
            if peer.retry_at.is_none() && peer.conns.is_empty() && peer.idle_until.is_none() {
                self.retry_in(now, index, Time::ZERO);
            }
            return;
        };
        let config = peer.config.clone();
        if ask_again {
            self.ask_for_routes(at);
        }
        if let Some(c) = self.conns.get_mut(at)
            && let Some(terms) = &mut c.terms
        {
            let hold = terms.hold.map_or(0, |h| u16::try_from(h.as_secs()).unwrap_or(u16::MAX));
            let keepalive = crate::fsm::negotiate::keepalive(&config, hold);
            if keepalive != terms.keepalive {
                terms.keepalive = keepalive;
                c.keepalive_at = keepalive.map(|k| now + k);
            }
        }
        self.arm_conn(at);
    }

    /// Filters, reflection, next hops: evaluates anew what changed, for every session that stays.
    fn reconsider(&mut self, now: Time, old: &Config, new: &Config) {
        let mut regroup: [Vec<Regroup>; 2] = [Vec::new(), Vec::new()];
        let indices: Vec<PeerIndex> =
            self.peers.iter().flatten().filter(|p| !p.removed).map(|p| p.index).collect();
        for index in indices {
            let Some(peer) = self.peer_mut(index) else { continue };
            let (import, _) = peer.compile(new);
            let name = peer.name.clone();
            let before = old.peers.iter().find(|p| *p.name == *name);
            let loops = before.is_some_and(|b| b.allow_own_as != peer.config.allow_own_as)
                || before.is_some_and(|b| b.cluster_id != peer.config.cluster_id)
                || before.is_some_and(|b| b.graceful_shutdown != peer.config.graceful_shutdown)
                || before.is_some_and(|b| b.policy_missing() != peer.config.policy_missing())
                || old.local.cluster_id != new.local.cluster_id;
            let client = peer.config.route_reflector_client;
            let client_changed = self
                .core
                .sources
                .get_mut(usize::from(index))
                .is_some_and(|s| std::mem::replace(&mut s.client, client) != client);
            if client_changed {
                self.v4.mark_groups();
                self.v6.mark_groups();
            }
            for family in Family::ALL {
                if import[family.index()] || loops {
                    self.reimport_family(index, family);
                }
            }
            let Some(peer) = self.peer(index) else { continue };
            let Some(c) = peer.established.and_then(|at| self.conns.get(at)) else { continue };
            let Some(terms) = c.terms.as_ref() else { continue };
            for family in Family::ALL {
                let f = family.index();
                if let Some(place) = peer.groups[f] {
                    let key =
                        self.group_key(&peer.config, terms, family, c.addresses(), peer.export[f].clone());
                    regroup[f].push(Regroup { peer: index, place, key });
                }
            }
        }
        let [v4, v6] = regroup;
        let moved = [self.v4.regroup(v4, now), self.v6.regroup(v6, now)];
        for (f, moved) in moved.into_iter().enumerate() {
            for (index, place) in moved {
                if let Some(peer) = self.peer_mut(index) {
                    peer.groups[f] = Some(place);
                }
            }
        }
    }

    /// Looks at all local routes again: which are ignored, and what an ordinary metric is.
    fn relearn_local_routes(&mut self) {
        let routes: Vec<_> = self.core.locals.iter().map(|(i, r)| (i, r.clone())).collect();
        for (number, route) in routes {
            let ignored = route.key.source == LocalSource::Connected
                && self.config.ignored_interfaces.iter().any(|p| glob(p, &route.key.interface));
            if ignored {
                let prefix = prefix_of(route.key.prefix);
                if let Some(net) = bird_packet::Prefix4::from_prefix(prefix) {
                    self.v4.withdraw(&mut self.core, net, source::LOCAL, number);
                } else if let Some(net) = bird_packet::Prefix6::from_prefix(prefix) {
                    self.v6.withdraw(&mut self.core, net, source::LOCAL, number);
                }
            } else {
                self.put_local(number, &route);
            }
        }
    }

    // ---- operators ----

    pub(crate) fn reset_by_operator(&mut self, now: Time, index: PeerIndex) {
        self.end_session(now, index, Cease::AdministrativeReset, "reset by an operator");
        if let Some(peer) = self.peer_mut(index) {
            peer.held_down = false;
            peer.idle_until = None;
            peer.failures = 0;
        }
        // A peer that is away: forget what is kept of it.
        self.end_help(now, index, [true, true]);
        self.retry_in(now, index, Time::from_millis(100));
    }

    /// The planned end: where graceful restart was agreed the connection just closes, and the peer keeps our routes.
    pub(crate) fn stop(&mut self, now: Time) {
        self.stopped = true;
        let indices: Vec<PeerIndex> = self.peers.iter().flatten().map(|p| p.index).collect();
        for index in indices {
            let Some(peer) = self.peer(index) else { continue };
            for at in peer.conns.clone() {
                let graceful =
                    self.conns.get(at).and_then(|c| c.terms.as_ref()).is_some_and(|t| t.restart.is_some());
                self.lose(now, at, DownReason::Admin("the speaker is stopping"), Ending::Lost);
                let notification =
                    Notification::cease_with_text(Cease::AdministrativeShutdown, "the speaker is stopping");
                self.close_conn(at, (!graceful).then_some(&notification));
            }
            if let Some(peer) = self.peer_mut(index) {
                peer.retry_at = None;
                peer.idle_until = None;
            }
        }
    }

    fn housekeeping_soon(&mut self, now: Time) {
        if self.housekeeping_at.is_none() {
            let at = now + self.housekeeping_pause;
            self.housekeeping_at = Some(at);
            self.timers.push(at, crate::timers::Owner::Housekeeping);
        }
    }
}
