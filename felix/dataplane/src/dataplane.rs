//! The dataplane of this node: what should be, what is, and the pass that makes them one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use caracal_netlink::{
    Error, Event, Groups, LossMonitor, Losses, Monitor, MonitorConfig, Netlink, Sysctls, proto,
};
use caracal_reconcile::{Backoff, Moment, Retries};
use felix_calc::{Config, Desired, WepId};
use futures_util::future::{Either, select};

use crate::endpoint::Endpoint;
use crate::janitor::Janitor;
use crate::links::{LinkChange, Links, OUR_GROUP};
use crate::mtu::HostMtu;
use crate::neighbours::Neighbours;
use crate::routes::{RouteKey, Routes, Surroundings};
use crate::status::Status;
use crate::sysctls;

/// Rounds of one pass: a link that is made in the first has its routes in the second.
const ROUNDS: usize = 6;
/// Namespaces looked into by one pass for an audit, so that an event never waits long for it.
const AUDITS_A_PASS: usize = 16;
/// A whole audit is spread over so many ticks.
const TICKS: u32 = 15;
/// How soon a failed dump is tried again.
const DUMP_RETRY: Duration = Duration::from_millis(200);

/// Everything that this node's kernel holds for its workloads.
#[derive(Debug)]
pub struct Dataplane {
    pub(crate) netlink: Netlink,
    monitor: Monitor,
    /// Hears of losses inside workloads' namespaces; without it only the audit finds them.
    losses: Option<LossMonitor>,
    pub(crate) janitor: Janitor,
    pub(crate) config: Config,
    pub(crate) mtu: HostMtu,
    pub(crate) sysctls: Sysctls,
    pub(crate) rp_filter: String,
    pub(crate) links: Links,
    pub(crate) endpoints: BTreeMap<WepId, Endpoint>,
    pub(crate) by_iface: BTreeMap<String, WepId>,
    pub(crate) routes: Routes,
    /// Which endpoint wants a route.
    pub(crate) owners: BTreeMap<RouteKey, WepId>,
    pub(crate) neighbours: Neighbours,
    /// Endpoints to look at in the next round.
    pub(crate) dirty: BTreeSet<WepId>,
    pub(crate) retries: Retries<WepId>,
    /// Endpoints whose inside is to be visited in this round.
    pub(crate) callers: BTreeSet<WepId>,
    /// Endpoints whose link switches and inside are to be compared when there is time.
    pub(crate) suspects: BTreeSet<WepId>,
    /// Endpoints whose status may be another.
    pub(crate) stirred: BTreeSet<WepId>,
    pub(crate) counters: Counters,
    pending: Vec<Event>,
    lost: Losses,
    resync: Resync,
    audit: Audit,
    hold: bool,
    swept: bool,
    told: BTreeMap<WepId, Status>,
}

/// When everything is read back next.
#[derive(Debug)]
struct Resync {
    due: Option<Moment>,
    /// Foreign routes of any protocol too, not only those that a CNI plugin or a person sets.
    thorough: bool,
}

#[derive(Debug)]
struct Audit {
    next: Option<Moment>,
    tick: u32,
    cursor: Option<WepId>,
}

/// What was done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests and switches written.
    pub writes: usize,
    /// Writes that failed, or namespaces that could not be entered.
    pub failures: usize,
    /// Complete read-backs.
    pub resyncs: usize,
    /// Notifications lost by the kernel.
    pub overruns: usize,
    /// Links made.
    pub links_made: usize,
    /// Links handed over for deletion.
    pub links_removed: usize,
}

/// What a pass amounts to.
#[derive(Debug, Default)]
pub struct Applied {
    /// Endpoints whose status is another; `None`: the endpoint is gone.
    pub statuses: Vec<(WepId, Option<Status>)>,
    /// Why the kernel could not be read back, if it could not. Nothing was removed then.
    pub error: Option<String>,
}

/// Links in the kernel that are ours or carry routes of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// All of them.
    pub present: usize,
    /// Those that no endpoint has.
    pub unwanted: usize,
}

impl Dataplane {
    /// Opens the kernel of the calling thread's network namespace and reads it; writes nothing.
    pub fn open(config: Config, now: Moment) -> Result<Self, Error> {
        let groups = Groups::LINK | Groups::ROUTE | Groups::NEIGHBOUR;
        // Another daemon's routes are none of our business, and may be a million.
        let listen = MonitorConfig::new(groups).ignore_routes_of(proto::BIRD);
        let mut dataplane = Self {
            monitor: Monitor::open(listen)?,
            losses: LossMonitor::open()
                .inspect_err(
                    |err| tracing::warn!(%err, "changes inside workloads are found by the audit only"),
                )
                .ok(),
            netlink: Netlink::open()?,
            janitor: Janitor::start()?,
            mtu: HostMtu::new(&config.mtu_iface_pattern),
            sysctls: Sysctls::open()?,
            rp_filter: sysctls::default_rp_filter(),
            config,
            links: Links::default(),
            endpoints: BTreeMap::new(),
            by_iface: BTreeMap::new(),
            routes: Routes::new(),
            owners: BTreeMap::new(),
            neighbours: Neighbours::new(),
            dirty: BTreeSet::new(),
            retries: Retries::new(Backoff { first: Moment::from_millis(50), most: Moment::from_secs(2) }),
            callers: BTreeSet::new(),
            suspects: BTreeSet::new(),
            stirred: BTreeSet::new(),
            counters: Counters::default(),
            pending: Vec::new(),
            lost: Losses::default(),
            resync: Resync { due: None, thorough: true },
            audit: Audit { next: None, tick: 0, cursor: None },
            hold: false,
            swept: false,
            told: BTreeMap::new(),
        };
        dataplane.read_back(now)?;
        Ok(dataplane)
    }

    /// Obeys another configuration from the next pass on.
    pub fn configure(&mut self, config: Config) {
        if config == self.config {
            return;
        }
        if config.mtu_iface_pattern != self.config.mtu_iface_pattern {
            self.mtu = HostMtu::new(&config.mtu_iface_pattern);
            self.mtu.update(self.links.iter());
        }
        self.config = config;
        self.audit.next = None;
        self.swept = false;
        self.resync = Resync { due: Some(Moment::ZERO), thorough: true };
        self.dirty.extend(self.endpoints.keys().cloned());
    }

    /// What an endpoint should have from now on; `None`: it is no more.
    pub fn set(&mut self, id: WepId, desired: Option<Desired>) {
        self.dirty.insert(id.clone());
        self.retries.forget(&id);
        let old = self.endpoints.get(&id).and_then(|e| e.iface().map(str::to_owned));
        if let Some(old) = old
            && self.by_iface.get(&old) == Some(&id)
        {
            self.by_iface.remove(&old);
        }
        let endpoint = self.endpoints.entry(id.clone()).or_default();
        endpoint.set(desired);
        if let Some(iface) = endpoint.iface() {
            let iface = iface.to_owned();
            if let Some(previous) = self.by_iface.insert(iface, id) {
                self.dirty.insert(previous);
            }
        }
    }

    /// Leftovers of an earlier life stay while `hold` is true; what was wanted in this life and is not any more goes.
    pub fn hold(&mut self, hold: bool) {
        self.swept &= self.hold == hold;
        self.hold = hold;
    }

    /// What is in the kernel, for the guard against mass removal.
    pub fn census(&self) -> Census {
        let mut links = self.routes.links(self.config.route_protocol);
        links.extend(self.links.iter().filter(|link| link.group == OUR_GROUP).map(|link| link.index));
        let wanted =
            |index: &u32| self.links.name_of(*index).is_some_and(|name| self.by_iface.contains_key(name));
        Census { present: links.len(), unwanted: links.iter().filter(|index| !wanted(index)).count() }
    }

    /// Which link carries which address by a route of ours.
    pub fn holders(&self) -> BTreeMap<IpAddr, String> {
        let carried = self.routes.carried(self.config.route_protocol);
        carried
            .filter_map(|(address, index)| Some((address, self.links.name_of(index)?.to_owned())))
            .collect()
    }

    /// Waits for news from the kernel; the next pass heeds them. Losing the future loses no news.
    pub async fn changed(&mut self) -> Result<(), Error> {
        let Some(losses) = &mut self.losses else {
            self.pending.extend(self.monitor.next().await?);
            return Ok(());
        };
        // Both keep what is queued when they are dropped unfinished.
        match select(pin!(self.monitor.next()), pin!(losses.next())).await {
            Either::Left((events, _)) => self.pending.extend(events?),
            Either::Right((lost, _)) => {
                let lost = lost?;
                self.lost.namespaces.extend(lost.namespaces);
                self.lost.overrun |= lost.overrun;
            }
        }
        Ok(())
    }

    /// Endpoints that are known.
    pub fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// Routes that are in the kernel and ours to care for.
    pub fn routes(&self) -> usize {
        self.routes.len()
    }

    /// What was done since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// When a pass has something to do although nothing happens.
    pub fn next_due(&self, now: Moment) -> Option<Moment> {
        if !self.dirty.is_empty()
            || !self.suspects.is_empty()
            || !self.pending.is_empty()
            || !self.lost.is_empty()
        {
            return Some(Moment::ZERO);
        }
        let times = [
            self.resync.due,
            self.audit.next,
            self.retries.next_due(),
            self.routes.next_due(now),
            self.neighbours.next_due(now),
        ];
        times.into_iter().flatten().min()
    }

    /// One pass: heeds the news, writes what is due, says what became of it.
    ///
    /// The order: links, then routes and neighbours, then the insides and switches of links, then what may take its time.
    pub fn apply(&mut self, now: Moment) -> Applied {
        let mut applied = Applied { error: self.read_news(now), ..Applied::default() };
        if applied.error.is_none() {
            self.tick(now);
            self.sweep();
            let due = self.retries.due(now);
            self.dirty.extend(due);
            for _ in 0..ROUNDS {
                self.round(now);
                applied.error = self.read_news(now);
                if self.dirty.is_empty() || applied.error.is_some() {
                    break;
                }
            }
            self.audit_some(now);
        }
        for id in std::mem::take(&mut self.stirred) {
            if self.dirty.contains(&id) {
                self.stirred.insert(id);
                continue;
            }
            let status = self.status(&id);
            if status.is_none() {
                self.endpoints.remove(&id);
            }
            if self.told.get(&id) != status.as_ref() {
                match &status {
                    Some(status) => self.told.insert(id.clone(), status.clone()),
                    None => self.told.remove(&id),
                };
                applied.statuses.push((id, status));
            }
        }
        applied
    }

    /// Links for every dirty endpoint, then what leads to them, then what is inside them.
    fn round(&mut self, now: Moment) {
        let dirty = std::mem::take(&mut self.dirty);
        let unborn = dirty.iter().filter(|id| self.place(id, now)).cloned().collect::<Vec<_>>();
        self.stirred.extend(dirty);
        let mut visits = self.make_links(&unborn, now);
        visits.extend(std::mem::take(&mut self.callers).iter().filter_map(|id| self.visit_to(id, None)));
        let around = Around { links: &self.links, by_iface: &self.by_iface, config: &self.config };
        let passed = self.routes.pass(&mut self.netlink, now, self.hold, &self.config, &around);
        let (writes, failures) = self.neighbours.pass(&mut self.netlink, now, &around);
        self.counters.writes += passed.writes + writes;
        self.counters.failures += passed.failures + failures;
        self.stirred.extend(passed.touched.iter().filter_map(|key| self.owners.get(key).cloned()));
        self.janitor.forget_connections(passed.left);
        self.visit(visits, now);
    }

    /// Everything that the kernel has to say: queued notifications, and a read-back when one is due.
    fn read_news(&mut self, now: Moment) -> Option<String> {
        if let Some(err) = self.drain(now) {
            return Some(err);
        }
        if self.resync.due.is_some_and(|due| due <= now)
            && let Err(err) = self.read_back(now)
        {
            self.resync.due = Some(now + DUMP_RETRY);
            return Some(err.to_string());
        }
        None
    }

    /// Queued notifications. The kernel queues them while it makes the change, so after this nothing is stale.
    pub(crate) fn drain(&mut self, now: Moment) -> Option<String> {
        loop {
            let events = std::mem::take(&mut self.pending);
            for event in events {
                self.heed(event, now);
            }
            match self.monitor.try_next() {
                Ok(events) if events.is_empty() => break,
                Ok(events) => self.pending = events,
                Err(err) => return Some(format!("netlink monitor: {err}")),
            }
        }
        self.heed_losses();
        None
    }

    /// Losses inside workloads: those endpoints are compared next.
    fn heed_losses(&mut self) {
        let mut lost = std::mem::take(&mut self.lost);
        if let Some(Ok(more)) = self.losses.as_mut().map(LossMonitor::try_next) {
            lost.namespaces.extend(more.namespaces);
            lost.overrun |= more.overrun;
        }
        if lost.is_empty() {
            return;
        }
        for link in self.links.iter() {
            let hit = lost.overrun || link.peer_netns.is_some_and(|number| lost.namespaces.contains(&number));
            if let Some(id) = self.by_iface.get(&link.name).filter(|_| hit)
                && self.endpoints.get(id).is_some_and(Endpoint::is_made_here)
            {
                self.suspects.insert(id.clone());
            }
        }
    }

    fn heed(&mut self, event: Event, now: Moment) {
        match event {
            Event::Link(link) => {
                let change = self.links.observe(link, now);
                self.on_link(change);
            }
            Event::LinkGone { index, .. } => {
                let change = self.links.gone(index);
                self.on_link(change);
            }
            Event::Route { route, gone, replaced } => {
                let around = Around { links: &self.links, by_iface: &self.by_iface, config: &self.config };
                let key = self.routes.on_event(route, gone, replaced, &self.config, &around);
                self.stirred.extend(key.and_then(|key| self.owners.get(&key).cloned()));
            }
            Event::Neighbour { neighbour, gone } => {
                let around = Around { links: &self.links, by_iface: &self.by_iface, config: &self.config };
                self.neighbours.on_event(&neighbour, gone, &around);
            }
            Event::Address(_) | Event::AddressGone(_) => {}
            Event::Overrun => {
                self.counters.overruns += 1;
                self.resync = Resync { due: Some(Moment::ZERO), thorough: true };
            }
        }
    }

    fn on_link(&mut self, change: LinkChange) {
        if let Some(index) = change.lost {
            for key in self.routes.link_lost(index) {
                self.stirred.extend(self.owners.get(&key).cloned());
            }
            self.neighbours.link_lost(index);
        }
        for name in change.names {
            if let Some(id) = self.by_iface.get(&name) {
                self.dirty.insert(id.clone());
                if change.fell {
                    self.suspects.insert(id.clone());
                }
            } else if self.is_workload_name(&name) {
                self.swept = false;
            }
        }
        if change.mtu && self.mtu.update(self.links.iter()) {
            self.dirty
                .extend(self.endpoints.iter().filter(|(_, e)| e.is_made_here()).map(|(id, _)| id.clone()));
        }
    }

    /// Reads everything back. On an error nothing is taken for gone.
    fn read_back(&mut self, now: Moment) -> Result<(), Error> {
        let links = self.netlink.links()?;
        for change in self.links.replace(links, now) {
            self.on_link(change);
        }
        let around = Around { links: &self.links, by_iface: &self.by_iface, config: &self.config };
        self.routes.dump(&mut self.netlink, &self.config, &around, self.resync.thorough)?;
        self.neighbours.dump(&mut self.netlink, &around)?;
        self.stirred.extend(self.endpoints.keys().cloned());
        self.counters.resyncs += 1;
        self.resync = Resync { due: None, thorough: false };
        self.swept = false;
        for index in self.links.doomed().collect::<Vec<_>>() {
            self.janitor.delete_link(index);
        }
        Ok(())
    }

    /// The slow clock: a slice of the endpoints each time, everything else once in a turn.
    fn tick(&mut self, now: Moment) {
        let interval = self.config.audit_interval;
        if interval.is_zero() || self.audit.next.is_some_and(|next| next > now) {
            return;
        }
        let first = self.audit.next.is_none();
        self.audit.next = Some(now + interval / TICKS);
        if first {
            self.set_host_switches();
            return;
        }
        self.audit.tick += 1;
        if self.audit.tick.is_multiple_of(TICKS) {
            self.resync.due.get_or_insert(now);
            self.set_host_switches();
        }
        let share = self.endpoints.len().div_ceil(TICKS.try_into().unwrap_or(1));
        let after = self.audit.cursor.take();
        let rest = self.endpoints.keys().filter(|id| after.as_ref().is_none_or(|a| *id > a));
        let slice: Vec<WepId> = rest.chain(self.endpoints.keys()).take(share).cloned().collect();
        self.audit.cursor = slice.last().cloned();
        self.suspects.extend(slice);
    }

    fn set_host_switches(&mut self) {
        match sysctls::for_host(&self.config) {
            Ok(writes) => self.counters.writes += writes,
            Err(err) => {
                self.counters.failures += 1;
                tracing::warn!(%err, "forwarding cannot be switched on; workloads reach nothing beyond this host");
            }
        }
    }

    /// Links that an earlier life made for endpoints that are no more.
    fn sweep(&mut self) {
        if self.hold || std::mem::replace(&mut self.swept, true) {
            return;
        }
        let stale: Vec<(u32, String)> = self
            .links
            .iter()
            .filter(|link| self.is_leftover(link))
            .map(|link| (link.index, link.name.clone()))
            .collect();
        for (index, iface) in stale {
            tracing::debug!(iface, "link of an endpoint that is no more");
            self.remove_link(index);
        }
    }

    fn audit_some(&mut self, now: Moment) {
        let some: BTreeSet<WepId> =
            std::iter::from_fn(|| self.suspects.pop_first()).take(AUDITS_A_PASS).collect();
        for id in &some {
            self.doubt_switches(id);
        }
        let visits = some.iter().filter_map(|id| self.visit_to(id, None)).collect();
        self.visit(visits, now);
    }

    pub(crate) fn is_workload_name(&self, name: &str) -> bool {
        self.config.interface_prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
    }
}

/// What the drivers of routes and neighbours see of the rest.
struct Around<'a> {
    links: &'a Links,
    by_iface: &'a BTreeMap<String, WepId>,
    config: &'a Config,
}

impl Surroundings for Around<'_> {
    fn is_workload(&self, ifindex: u32) -> bool {
        let name = self.links.name_of(ifindex);
        name.is_some_and(|name| self.config.interface_prefixes.iter().any(|p| name.starts_with(p.as_str())))
    }

    fn first_seen(&self, ifindex: u32) -> Option<Moment> {
        self.links.first_seen(ifindex)
    }

    fn is_claimed(&self, ifindex: u32) -> bool {
        self.links.name_of(ifindex).is_some_and(|name| self.by_iface.contains_key(name))
    }
}
