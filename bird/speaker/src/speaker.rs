//! The speaker: its state, and the surface by which a shell drives it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bird_packet::{Family, Prefix4, Prefix6, UpdatePacker};
use bytes::Bytes;

use crate::config::Config;
use crate::conn::Conns;
use crate::export::group::{Allowance, Next};
use crate::export::verdict::Rules;
use crate::fib::{FibRoutes, Kernel};
use crate::import::LastAttrs;
use crate::io::{Command, ConnId, Event, FibChange, Input, Output, Time};
use crate::peer::Peer;
use crate::restart::Restart;
use crate::rib::attrs::Store;
use crate::rib::local::LocalRoutes;
use crate::rib::nexthop::Ask;
use crate::rib::routes::{Core, Rib};
use crate::rib::table::{PeerIndex, source};
use crate::timers::{Jitter, Owner, Timers};

/// How a speaker begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Start {
    /// A speaker of ours ran here before and peers may be keeping its routes: say so in OPENs, and defer.
    pub restarted: bool,
    /// The kernel still has its routes: [`Input::StaleFib`] tells them.
    pub forwarding_kept: bool,
    /// [`Input::LocalRoutesComplete`] will come: End-of-RIB waits for it.
    pub local_routes: bool,
}

/// A BGP speaker. See the crate's documentation for how to drive it.
pub struct Speaker {
    pub(crate) config: Arc<Config>,
    pub(crate) core: Core,
    pub(crate) v4: Rib<Prefix4>,
    pub(crate) v6: Rib<Prefix6>,
    /// By [`PeerIndex`]; the first ones stand for this node.
    pub(crate) peers: Vec<Option<Box<Peer>>>,
    pub(crate) conns: Conns,
    pub(crate) timers: Timers,
    pub(crate) jitter: Jitter,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) restart: Restart,
    pub(crate) last_attrs: LastAttrs,
    pub(crate) scratch: Vec<u8>,
    pub(crate) fib_signalled: bool,
    /// Ticks so far, and one.
    pub(crate) tick: u64,
    /// Connections for which enough was done until the next tick.
    pub(crate) later: Vec<ConnId>,
    pub(crate) fib_retry_at: Option<Time>,
    pub(crate) housekeeping_at: Option<Time>,
    pub(crate) housekeeping_pause: Time,
    pub(crate) groups_at: Option<Time>,
    pub(crate) stopped: bool,
    pub(crate) notifications: crate::tally::Notifications,
    pub(crate) now: Time,
}

/// Numbers are freed this often while there are any to free, and less often while somebody holds them.
pub(crate) const HOUSEKEEPING: Time = Time::from_millis(100);
const HOUSEKEEPING_SLOW: Time = Time::from_secs(5);
/// A table of so many parts of a slice is worked on at once.
const SMALL: usize = 8;
/// Slots decided for a connection between two ticks: so many parts of a slice.
const EXPORT: usize = 2;
/// Failed kernel writes are offered again after this.
const FIB_RETRY: Time = Time::from_secs(1);

impl Speaker {
    /// A speaker that begins now. Peers are called from the first [`Speaker::poll`] on.
    pub fn new(now: Time, config: Config, start: Start) -> Self {
        let core = Core {
            store: Store::new(config.seed, config.kernel.resolve_next_hops),
            ranks: vec![crate::rib::decide::PeerRank::default(); usize::from(source::FIRST_PEER)],
            sources: vec![crate::export::verdict::SourcePeer::default(); usize::from(source::FIRST_PEER)],
            locals: LocalRoutes::default(),
            kernel: Kernel::new(&config.kernel),
            fib_routes: FibRoutes::new(),
            packer: UpdatePacker::new(),
            restarting: false,
            keep_stale: false,
            hold_eor: start.local_routes,
        };
        let mut peers = Vec::new();
        peers.resize_with(usize::from(source::FIRST_PEER), || None);
        let mut speaker = Speaker {
            v4: Rib::new(config.seed, Rules::new(&config)),
            v6: Rib::new(config.seed, Rules::new(&config)),
            jitter: Jitter::new(config.seed),
            config: Arc::new(Config {
                peers: Vec::new(),
                originated: Vec::new(),
                aggregates: Vec::new(),
                ..config.clone()
            }),
            core,
            peers,
            conns: Conns::default(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
            restart: Restart::new(start),
            last_attrs: LastAttrs::default(),
            scratch: Vec::new(),
            fib_signalled: false,
            tick: 1,
            later: Vec::new(),
            fib_retry_at: None,
            housekeeping_at: None,
            housekeeping_pause: HOUSEKEEPING,
            groups_at: None,
            stopped: false,
            notifications: crate::tally::Notifications::default(),
            now,
        };
        speaker.begin_restart(now);
        speaker.configure(now, config);
        speaker
    }

    /// Takes an input; afterwards [`Speaker::poll`] until it gives nothing.
    pub fn handle(&mut self, now: Time, input: Input<'_>) {
        self.now = self.now.max(now);
        let now = self.now;
        self.v4.table.tick(now);
        self.v6.table.tick(now);
        match input {
            Input::Connected { conn, local } => self.on_connected(now, conn, local),
            Input::OtherAddress { conn, address } => self.on_other_address(conn, address),
            Input::ConnectFailed { conn, reason } => self.on_connect_failed(now, conn, reason),
            Input::Received { conn, data } => self.on_received(now, conn, data),
            Input::Closed { conn, reason } => self.on_closed(now, conn, reason),
            Input::Waiting { conn } => self.on_waiting(now, conn),
            // Only here: whatever else comes in may be late because the shell was held up, and then bytes that show that
            // peers live may be as late.
            Input::Tick => {
                self.run_timers(now);
                self.go_on();
            }
            Input::LocalRoute(route) => self.on_local_route(route),
            Input::LocalRouteGone(key) => self.on_local_route_gone(&key),
            Input::NextHop { address, resolution } => self.on_next_hop(address, &resolution),
            Input::FibFailed { prefix } => self.on_fib_failed(now, prefix),
            Input::StaleFib { prefix, route } => self.on_stale_fib(prefix, route),
            Input::LocalRoutesComplete => self.on_local_routes_complete(now),
            Input::Command(command) => self.on_command(now, command),
        }
        self.settle(now);
    }

    /// A call came in. `Err`: close it; the reason is in an [`Output::Event`] too.
    pub fn accept(
        &mut self,
        now: Time,
        remote: SocketAddr,
        local: SocketAddr,
    ) -> Result<ConnId, &'static str> {
        self.accept_on(now, remote, local, None)
    }

    /// The same for a call that came in by an interface: a link-local address may be there on several.
    pub fn accept_on(
        &mut self,
        now: Time,
        remote: SocketAddr,
        local: SocketAddr,
        interface: Option<Arc<str>>,
    ) -> Result<ConnId, &'static str> {
        self.now = self.now.max(now);
        let accepted = self.on_accept(self.now, remote, local, interface);
        if let Err(reason) = accepted {
            self.outputs.push_back(Output::Event(Event::Refused { remote, reason }));
        }
        self.settle(self.now);
        accepted
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Output> {
        while self.outputs.is_empty() && self.has_slices() && self.is_small() {
            self.slice();
            self.settle(self.now);
        }
        self.outputs.pop_front()
    }

    /// When to come back with [`Input::Tick`] at the latest. In the past if there is work left: come back after I/O, each
    /// tick does a slice of it.
    pub fn next_timeout(&self) -> Option<Time> {
        if self.is_busy() || !self.outputs.is_empty() {
            return Some(self.now);
        }
        self.timers.next()
    }

    /// Whether there is work left that goes on by a slice at each [`Input::Tick`].
    pub fn is_busy(&self) -> bool {
        self.has_slices() || !self.later.is_empty()
    }

    fn has_slices(&self) -> bool {
        let purging = self.v4.is_purging() || self.v6.is_purging();
        let reviewing = self.v4.is_reviewing() || self.v6.is_reviewing();
        purging || reviewing || self.v4.is_dissolving() || self.v6.is_dissolving()
    }

    /// A tick: whatever has had enough goes on.
    fn go_on(&mut self) {
        self.tick += 1;
        if self.has_slices() {
            self.slice();
        }
        for conn in std::mem::take(&mut self.later) {
            if let Some(at) = self.conns.find(conn) {
                self.signal(at);
            }
        }
    }

    /// A slice of what concerns whole tables: removing the routes of a lost peer, evaluating routes again.
    fn slice(&mut self) {
        let budget = self.config.slice.max(1);
        if self.v4.is_purging() {
            self.v4.purge_step(&mut self.core, budget);
        }
        if self.v6.is_purging() {
            self.v6.purge_step(&mut self.core, budget);
        }
        self.v4.dissolve_step(&mut self.core, budget);
        self.v6.dissolve_step(&mut self.core, budget);
        if self.v4.is_reviewing() {
            self.review(Family::Ipv4Unicast, budget);
        }
        if self.v6.is_reviewing() {
            self.review(Family::Ipv6Unicast, budget);
        }
    }

    /// Whether all that there is can be looked at within a slice, whatever is to be done with it.
    fn is_small(&self) -> bool {
        self.v4.table.dest_bound() + self.v6.table.dest_bound() <= self.config.slice / SMALL
    }

    /// Something that concerns whole tables changed: a small one is looked at again at once, a large one by and by.
    pub(crate) fn begin_review(&mut self) {
        while self.is_small() && (self.v4.is_reviewing() || self.v6.is_reviewing()) {
            self.review(Family::Ipv4Unicast, self.config.slice);
            self.review(Family::Ipv6Unicast, self.config.slice);
        }
    }

    /// Moves up to about `budget` bytes for a connection into `out`, oldest first; they are reference-counted, meant for
    /// `writev`. Returns how many bytes; 0 means that there is nothing until [`Output::Transmit`] names the connection again.
    /// Call it when everything handed out before was written.
    pub fn transmit(&mut self, now: Time, conn: ConnId, budget: usize, out: &mut Vec<Bytes>) -> usize {
        self.now = self.now.max(now);
        let now = self.now;
        let Some(at) = self.conns.find(conn) else { return 0 };
        let mut sent = 0;
        let mut later = false;
        while sent < budget {
            match self.next_bytes(now, at) {
                Next::Bytes(bytes) => {
                    sent += bytes.len();
                    out.push(bytes);
                }
                Next::Later => {
                    later = true;
                    break;
                }
                Next::Nothing => break,
            }
        }
        let Some(c) = self.conns.get_mut(at) else { return sent };
        let peer = c.peer;
        if sent == 0 {
            c.signalled = false;
            if later {
                self.later.push(conn);
            }
            c.send_hold_at = None;
            if c.phase == crate::fsm::Phase::Closing {
                self.conns.remove(at);
            }
        } else {
            self.arm_send_hold(now, at);
        }
        if let Some(peer) = self.peer_mut(peer) {
            peer.counters.bytes_sent += sent as u64;
        }
        self.settle(now);
        sent
    }

    fn next_bytes(&mut self, now: Time, at: usize) -> Next {
        let Some(c) = self.conns.get_mut(at) else { return Next::Nothing };
        if let Some(bytes) = c.control.pop_front() {
            return Next::Bytes(bytes);
        }
        if c.phase != crate::fsm::Phase::Established {
            return Next::Nothing;
        }
        if c.tick != self.tick {
            c.tick = self.tick;
            c.allowance = Allowance::new((self.config.slice / EXPORT).max(1));
        }
        let first = c.turn;
        c.turn = 1 - c.turn;
        let allowance = &mut c.allowance;
        let Some(groups) = self.peers[usize::from(c.peer)].as_ref().map(|p| p.groups) else {
            return Next::Nothing;
        };
        let mut later = false;
        for family in [first, 1 - first] {
            if let Some((group, member)) = groups[family] {
                let next = match family {
                    0 => self.v4.next(&mut self.core, group, member, now, allowance),
                    _ => self.v6.next(&mut self.core, group, member, now, allowance),
                };
                match next {
                    Next::Bytes(_) => return next,
                    Next::Later => later = true,
                    Next::Nothing => {}
                }
            }
        }
        if later { Next::Later } else { Next::Nothing }
    }

    /// Whether something that is no route waits to be sent on a connection: a KEEPALIVE should not wait behind the tables
    /// of others.
    pub fn is_urgent(&self, conn: ConnId) -> bool {
        self.conns.find(conn).and_then(|at| self.conns.get(at)).is_some_and(|c| !c.control.is_empty())
    }

    /// Up to about `max` changes of kernel routes. They count as done; [`Input::FibFailed`] says which were not.
    pub fn take_fib(&mut self, max: usize) -> Vec<FibChange> {
        let mut changes = Vec::new();
        let mut left = (self.config.slice / EXPORT).max(1);
        self.v4.take_fib(&mut self.core, max, &mut left, &mut changes);
        if changes.len() < max {
            self.v6.take_fib(&mut self.core, max - changes.len(), &mut left, &mut changes);
        }
        if !self.v4.has_fib_work() && !self.v6.has_fib_work() {
            self.fib_signalled = false;
        } else if changes.is_empty() {
            // Nothing to write among so many that were looked at, but there are more.
            self.outputs.push_back(Output::Fib);
        }
        changes
    }

    /// What the speaker is doing: the configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    // ---- inside ----

    pub(crate) fn peer(&self, index: PeerIndex) -> Option<&Peer> {
        self.peers.get(usize::from(index))?.as_deref()
    }

    pub(crate) fn peer_mut(&mut self, index: PeerIndex) -> Option<&mut Peer> {
        self.peers.get_mut(usize::from(index))?.as_deref_mut()
    }

    pub(crate) fn peer_by_name(&self, name: &str) -> Option<PeerIndex> {
        self.peers.iter().flatten().find(|p| *p.name == *name).map(|p| p.index)
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Wakes whoever has something to do now.
    pub(crate) fn settle(&mut self, now: Time) {
        self.settle_aggregates();
        for ask in self.core.store.next_hops.take_asks() {
            self.outputs.push_back(match ask {
                Ask::Watch(address) => Output::WatchNextHop(address),
                Ask::Forget(address) => Output::ForgetNextHop(address),
            });
        }
        if !self.fib_signalled && (self.v4.has_fib_work() || self.v6.has_fib_work()) {
            self.fib_signalled = true;
            self.outputs.push_back(Output::Fib);
        }
        self.wake_groups();
        let reapable = self.v4.is_reapable() || self.v6.is_reapable();
        if reapable && self.housekeeping_at.is_none() {
            let at = now + self.housekeeping_pause;
            self.housekeeping_at = Some(at);
            self.timers.push(at, Owner::Housekeeping);
        }
    }

    fn wake_groups(&mut self) {
        let mut woken: Vec<PeerIndex> = Vec::new();
        let mut wait: Option<Time> = None;
        let v4 = self.v4.groups.iter_mut().flatten().map(|g| (&mut g.wake, g.waiting_until));
        let v6 = self.v6.groups.iter_mut().flatten().map(|g| (&mut g.wake, g.waiting_until));
        let mut any = false;
        for (wake, until) in v4.chain(v6) {
            any |= *wake;
            wait = [wait, until].into_iter().flatten().min();
        }
        if let Some(at) = wait
            && self.groups_at.is_none_or(|g| at < g)
        {
            self.groups_at = Some(at);
            self.timers.push(at, Owner::Groups);
        }
        if !any {
            return;
        }
        for group in self.v4.groups.iter_mut().flatten().filter(|g| g.wake) {
            group.wake = false;
            woken.extend(group.peers());
        }
        for group in self.v6.groups.iter_mut().flatten().filter(|g| g.wake) {
            group.wake = false;
            woken.extend(group.peers());
        }
        for peer in woken {
            if let Some(at) = self.peer(peer).and_then(|p| p.established) {
                self.signal(at);
            }
        }
    }

    /// Tells the shell that a connection has something to send.
    pub(crate) fn signal(&mut self, at: usize) {
        let now = self.now;
        if let Some(c) = self.conns.get_mut(at)
            && !c.signalled
        {
            c.signalled = true;
            let id = c.id;
            self.outputs.push_back(Output::Transmit(id));
            self.arm_send_hold(now, at);
        }
    }

    pub(crate) fn run_timers(&mut self, now: Time) {
        while let Some((at, owner)) = self.timers.pop_due(now) {
            match owner {
                Owner::Conn(conn) => self.on_conn_timer(now, at, conn),
                Owner::Peer(peer) => self.on_peer_timer(now, at, peer),
                Owner::Restart => self.check_restart(now),
                Owner::Groups => {
                    if self.groups_at == Some(at) {
                        self.groups_at = None;
                        self.v4.wake_waiting(now);
                        self.v6.wake_waiting(now);
                    }
                }
                Owner::Housekeeping => {
                    if self.housekeeping_at == Some(at) {
                        self.housekeeping_at = None;
                        let freed = self.v4.reap() + self.v6.reap() + self.forget_removed_peers();
                        self.housekeeping_pause = if freed > 0 {
                            HOUSEKEEPING
                        } else {
                            (self.housekeeping_pause * 2).min(HOUSEKEEPING_SLOW)
                        };
                    }
                    if self.fib_retry_at.is_some_and(|at| at <= now) {
                        self.fib_retry_at = None;
                        self.v4.retry_fib();
                        self.v6.retry_fib();
                    }
                }
            }
        }
    }

    fn on_next_hop(&mut self, address: IpAddr, resolution: &crate::io::Resolution) {
        let changed = self.core.store.next_hops.on_resolution(address, resolution);
        if changed.is_empty() {
            return;
        }
        self.core.kernel.forget_memo(&mut self.core.fib_routes);
        self.v4.on_next_hops(&self.core, &changed);
        self.v6.on_next_hops(&self.core, &changed);
        self.reimport_by_interface();
        self.begin_review();
    }

    fn on_fib_failed(&mut self, now: Time, prefix: ipnet::IpNet) {
        use crate::rib::net::Net;
        let known = match (Prefix4::from_ipnet(prefix), Prefix6::from_ipnet(prefix)) {
            (Some(net), _) => self.v4.fib_failed(&mut self.core, net),
            (_, Some(net)) => self.v6.fib_failed(&mut self.core, net),
            _ => false,
        };
        if known && self.fib_retry_at.is_none() {
            self.fib_retry_at = Some(now + FIB_RETRY);
            self.timers.push(now + FIB_RETRY, Owner::Housekeeping);
        }
    }

    fn on_command(&mut self, now: Time, command: Command) {
        match command {
            Command::Reset { peer } => {
                if let Some(index) = self.peer_by_name(&peer) {
                    self.reset_by_operator(now, index);
                }
            }
            Command::RefreshIn { peer } => {
                if let Some(index) = self.peer_by_name(&peer) {
                    self.refresh_in(index);
                }
            }
            Command::RefreshOut { peer } => {
                if let Some(index) = self.peer_by_name(&peer) {
                    self.refresh_out(index, None);
                }
            }
            Command::Unreachable { peer, why } => {
                if let Some(index) = self.peer_by_name(&peer) {
                    self.unreachable(now, index, why);
                }
            }
            Command::Bfd { peer, up } => {
                if let Some(index) = self.peer_by_name(&peer) {
                    self.on_bfd(now, index, up);
                }
            }
            Command::Stop => self.stop(now),
        }
    }
}
