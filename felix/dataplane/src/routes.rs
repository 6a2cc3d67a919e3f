//! Workload routes: desired against actual in the main table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use caracal_netlink::{Errno, Netlink, Request, Route, RouteFilter, proto, table};
use caracal_reconcile::{Backoff, Change, Delta, Moment, Step};
use felix_calc::Config;
use ipnet::IpNet;

/// What names a route of the main table to the kernel: prefix and metric.
pub(crate) type RouteKey = (IpNet, u32);

/// How long a route on a new workload link is left alone although nobody wants it: a CNI plugin sets its own
/// before it writes the endpoint (Calico's routeCleanupGracePeriod).
const GRACE: Duration = Duration::from_secs(10);
/// How often a held removal is looked at again.
const HELD: Duration = Duration::from_secs(1);
/// `RTPROT_RA`.
const PROTO_RA: u8 = 9;

/// The routes of this node's workloads.
#[derive(Debug)]
pub(crate) struct Routes {
    delta: Delta<RouteKey, Route>,
    /// What was wanted in this life and is not any more: its removal is somebody's will, no leftover.
    released: BTreeSet<RouteKey>,
    by_link: BTreeMap<u32, BTreeSet<RouteKey>>,
    refused: BTreeMap<RouteKey, String>,
}

/// What a pass did.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// Requests sent.
    pub(crate) writes: usize,
    /// Refused by the kernel.
    pub(crate) failures: usize,
    /// Routes whose state changed, or whose failure did.
    pub(crate) touched: Vec<RouteKey>,
    /// Addresses that left their link: connections to them belong to nobody now.
    pub(crate) left: Vec<IpAddr>,
}

/// What a route driver has to know of the rest of the dataplane.
pub(crate) trait Surroundings {
    /// Whether this link is a workload's, going by its name.
    fn is_workload(&self, ifindex: u32) -> bool;
    /// When the link was first seen.
    fn first_seen(&self, ifindex: u32) -> Option<Moment>;
    /// Whether an endpoint has this link.
    fn is_claimed(&self, ifindex: u32) -> bool;
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self {
            delta: Delta::new(Backoff::default()),
            released: BTreeSet::new(),
            by_link: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    pub(crate) fn want(&mut self, route: Route) -> RouteKey {
        let key = (route.dst, route.metric);
        self.released.remove(&key);
        self.delta.want(key, route);
        key
    }

    pub(crate) fn unwant(&mut self, key: &RouteKey) {
        if self.delta.unwant(key).is_some() {
            self.refused.remove(key);
            if self.delta.actual(key).is_some() {
                self.released.insert(*key);
            }
        }
    }

    /// Whether the route is in the kernel as wanted.
    pub(crate) fn is_settled(&self, key: &RouteKey) -> bool {
        self.delta.is_settled(key)
    }

    /// Why the route is not in the kernel, if the kernel said.
    pub(crate) fn refusal(&self, key: &RouteKey) -> Option<&str> {
        self.refused.get(key).map(String::as_str)
    }

    pub(crate) fn next_due(&self, now: Moment) -> Option<Moment> {
        self.delta.next_due(now)
    }

    /// Routes that are in the kernel and ours to care for.
    pub(crate) fn len(&self) -> usize {
        self.delta.all_actual().count()
    }

    /// Links that carry a route of ours in the kernel.
    pub(crate) fn links(&self, protocol: u8) -> BTreeSet<u32> {
        let ours = self.delta.all_actual().filter(|(_, route)| route.proto == protocol);
        ours.flat_map(|(_, route)| route.hops.iter().map(|hop| hop.ifindex)).collect()
    }

    /// Addresses with a route of ours in the kernel, and the link that each leads over.
    pub(crate) fn carried(&self, protocol: u8) -> impl Iterator<Item = (IpAddr, u32)> {
        let ours = self.delta.all_actual().filter(move |(_, route)| route.proto == protocol);
        ours.filter_map(|((dst, _), route)| Some((dst.addr(), route.hops.first()?.ifindex)))
    }

    /// Addresses with a route of ours over a link that nobody wants there.
    pub(crate) fn stale_on(&self, ifindex: u32, protocol: u8) -> Vec<IpAddr> {
        let keys = self.by_link.get(&ifindex).into_iter().flatten();
        let stale = keys.filter(|key| {
            self.delta.actual(key).is_some_and(|r| r.proto == protocol)
                && self.delta.desired(key).is_none_or(|r| r.hops.iter().all(|h| h.ifindex != ifindex))
        });
        stale.map(|(dst, _)| dst.addr()).collect()
    }

    /// A notification about a route.
    pub(crate) fn on_event(
        &mut self,
        route: Route,
        gone: bool,
        replaced: bool,
        config: &Config,
        around: &impl Surroundings,
    ) -> Option<RouteKey> {
        if route.table != table::MAIN {
            return None;
        }
        let key = (route.dst, route.metric);
        if gone {
            // Of several with one prefix and metric (appended by hand, or IPv6) only ours is ours.
            let same =
                self.delta.actual(&key).is_some_and(|a| a.proto == route.proto && a.hops == route.hops);
            return same.then(|| self.forget(&key));
        }
        if is_ours(&route, config, around) {
            self.observe(key, route);
            return Some(key);
        }
        (replaced && self.delta.actual(&key).is_some()).then(|| self.forget(&key))
    }

    /// The kernel dropped every route of a link, silently.
    pub(crate) fn link_lost(&mut self, ifindex: u32) -> Vec<RouteKey> {
        let keys: Vec<RouteKey> = self.by_link.remove(&ifindex).into_iter().flatten().collect();
        for key in &keys {
            self.forget(key);
        }
        keys
    }

    /// Reads back what concerns us. On an error nothing is known to be gone.
    pub(crate) fn dump(
        &mut self,
        netlink: &mut Netlink,
        config: &Config,
        around: &impl Surroundings,
        thorough: bool,
    ) -> Result<(), caracal_netlink::Error> {
        let main = RouteFilter::main();
        let found = if thorough {
            netlink.routes(main)?
        } else {
            // The kernel filters: another daemon's hundred thousand routes are not read each time. Foreign
            // routes of further protocols on workload links are seen by notification.
            let mut found = Vec::new();
            for protocol in BTreeSet::from([config.route_protocol, proto::BOOT, proto::STATIC]) {
                found.extend(netlink.routes(main.proto(protocol))?);
            }
            let rare = self.delta.all_actual().map(|(_, route)| route.proto).collect::<BTreeSet<u8>>();
            for protocol in
                rare.difference(&BTreeSet::from([config.route_protocol, proto::BOOT, proto::STATIC]))
            {
                found.extend(netlink.routes(main.proto(*protocol))?);
            }
            found
        };
        let ours: BTreeMap<RouteKey, Route> = found
            .into_iter()
            .filter(|route| is_ours(route, config, around))
            .map(|route| ((route.dst, route.metric), route))
            .collect();
        self.by_link.clear();
        for (key, route) in &ours {
            for hop in &route.hops {
                self.by_link.entry(hop.ifindex).or_default().insert(*key);
            }
        }
        self.delta.replace_actual(ours);
        Ok(())
    }

    /// Writes what is due. `hold`: leftovers of an earlier life stay for now.
    pub(crate) fn pass(
        &mut self,
        netlink: &mut Netlink,
        now: Moment,
        hold: bool,
        config: &Config,
        around: &impl Surroundings,
    ) -> Passed {
        let mut passed = Passed::default();
        let mut steps = Vec::new();
        for step in self.delta.pass(now) {
            match self.postponed(&step, now, hold, config, around) {
                Some(due) => self.delta.defer(&step.key, due),
                None => steps.push(step),
            }
        }
        if steps.is_empty() {
            return passed;
        }
        // Removals first: what takes the place of a route may not find it there.
        steps.sort_by_key(|step| !matches!(step.change, Change::Delete(_)));
        let requests: Vec<Request> = steps.iter().map(request).collect();
        let failed: BTreeMap<usize, Errno> = netlink.apply(&requests).into_iter().collect();
        passed.writes = requests.len();
        let mut taken = Vec::new();
        for (index, step) in steps.into_iter().enumerate() {
            passed.touched.push(step.key);
            let deleting = matches!(step.change, Change::Delete(_));
            match failed.get(&index) {
                None => self.on_done(step, config, &mut passed.left),
                Some(Errno::ESRCH | Errno::ENODEV) if deleting => {
                    self.on_done(step, config, &mut passed.left);
                }
                Some(Errno::EEXIST) => taken.push(step.key),
                Some(errno) => {
                    passed.failures += 1;
                    self.refuse(
                        step.key,
                        now,
                        format!("route {}: {}", step.key.0, errno.desc().to_ascii_lowercase()),
                    );
                }
            }
        }
        if !taken.is_empty() {
            passed.failures += taken.len();
            self.on_taken(netlink, taken, now, config, around);
        }
        passed
    }

    /// Until when a removal has to wait, if it has to.
    fn postponed(
        &self,
        step: &Step<RouteKey, Route>,
        now: Moment,
        hold: bool,
        config: &Config,
        around: &impl Surroundings,
    ) -> Option<Moment> {
        let Change::Delete(route) = &step.change else { return None };
        if self.released.contains(&step.key) {
            return None;
        }
        if hold {
            return Some(now + HELD);
        }
        if route.proto == config.route_protocol {
            return None;
        }
        let link = route.hops.first()?.ifindex;
        let end = around.first_seen(link)? + GRACE;
        (end > now && !around.is_claimed(link)).then_some(end)
    }

    fn on_done(&mut self, step: Step<RouteKey, Route>, config: &Config, left: &mut Vec<IpAddr>) {
        self.refused.remove(&step.key);
        self.released.remove(&step.key);
        let (old, new) = match &step.change {
            Change::Delete(old) => (Some(old), None),
            Change::Update { from, to } => (Some(from), Some(to)),
            Change::Create(to) => (None, Some(to)),
        };
        let ours = old.filter(|r| r.proto == config.route_protocol);
        if ours.is_some_and(|old| new.is_none_or(|new| new.hops != old.hops)) {
            left.push(step.key.0.addr());
        }
        self.unlink(&step.key);
        if let Some(new) = new {
            for hop in &new.hops {
                self.by_link.entry(hop.ifindex).or_default().insert(step.key);
            }
        }
        self.delta.applied(step);
    }

    fn refuse(&mut self, key: RouteKey, now: Moment, why: String) {
        self.delta.failed(&key, now);
        self.refused.insert(key, why);
    }

    /// Something has our prefix and metric that we did not know of: ours or a workload link's is taken over by
    /// the next pass, anybody else's is left alone.
    fn on_taken(
        &mut self,
        netlink: &mut Netlink,
        keys: Vec<RouteKey>,
        now: Moment,
        config: &Config,
        around: &impl Surroundings,
    ) {
        let all = netlink.routes(RouteFilter::main()).unwrap_or_default();
        for key in keys {
            let holder = all.iter().find(|route| (route.dst, route.metric) == key);
            match holder {
                Some(route) if is_ours(route, config, around) => {
                    self.observe(key, route.clone());
                    self.delta.touch(key);
                }
                Some(route) => {
                    let why = format!(
                        "route {}: another program's route (proto {}) with metric {} is in its place; remove that one",
                        key.0, route.proto, key.1
                    );
                    self.refuse(key, now, why);
                }
                None => self.refuse(key, now, format!("route {}: the table changed meanwhile", key.0)),
            }
        }
    }

    fn observe(&mut self, key: RouteKey, route: Route) {
        self.unlink(&key);
        for hop in &route.hops {
            self.by_link.entry(hop.ifindex).or_default().insert(key);
        }
        self.delta.observe(key, route);
    }

    fn forget(&mut self, key: &RouteKey) -> RouteKey {
        self.unlink(key);
        self.released.remove(key);
        self.delta.gone(key);
        *key
    }

    /// Takes the key out of the index by link.
    fn unlink(&mut self, key: &RouteKey) {
        let Some(old) = self.delta.actual(key) else { return };
        for hop in &old.hops {
            if let Some(keys) = self.by_link.get_mut(&hop.ifindex) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_link.remove(&hop.ifindex);
                }
            }
        }
    }
}

fn request(step: &Step<RouteKey, Route>) -> Request {
    match &step.change {
        // Never replaces what we have not seen: it may be another program's.
        Change::Create(to) => Request::AddRoute(to.clone()),
        Change::Update { to, .. } => Request::ReplaceRoute(to.clone()),
        Change::Delete(old) => Request::DelRoute(old.clone()),
    }
}

/// Ours to adopt, repair and remove: our protocol number, or (as Calico has it) any hand's route over a workload's
/// link. The kernel's own and router advertisements are never.
fn is_ours(route: &Route, config: &Config, around: &impl Surroundings) -> bool {
    if route.table != table::MAIN {
        return false;
    }
    if route.proto == config.route_protocol {
        return true;
    }
    config.remove_external_routes
        && !matches!(route.proto, proto::KERNEL | PROTO_RA)
        && route.hops.first().is_some_and(|hop| around.is_workload(hop.ifindex))
}
