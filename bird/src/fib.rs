//! The writer of our own kernel routes: batches, make before break, and never over a route of somebody else.
//!
//! What should be there is the speaker's to know; this keeps only what could not be written, and tries it again when
//! the reason may be gone. A route that somebody removes is written again at once ([`Fib::repair`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bird_speaker::io::{FibChange, FibHop, FibRoute, FibTarget, Resolution};
use caracal_netlink::{Errno, Netlink, NextHop, Request, Route, RouteFilter, RouteKind};
use ipnet::IpNet;

use crate::kernel::Kernel;
use crate::metrics::Times;

/// First and longest pause before a refused route is tried again without any sign of change.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The most refused routes that are named in one log line.
const NAMED: usize = 3;

/// Writes routes of one protocol number in one table.
#[derive(Debug)]
pub(crate) struct Fib {
    netlink: Netlink,
    proto: u8,
    table: u32,
    /// Wanted, but refused by the kernel.
    refused: BTreeMap<IpNet, Refused>,
    /// Left by an earlier run beside the route that was adopted; deleted with the sweep.
    leftovers: Vec<Route>,
    /// What was written.
    pub(crate) written: Written,
}

/// Kernel writes so far.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    /// Of whole batches.
    pub(crate) times: Times,
}

#[derive(Debug)]
struct Refused {
    wanted: Arc<FibRoute>,
    errno: Errno,
    due: Instant,
    pause: Duration,
}

/// What a write is for, to read the kernel's answer.
#[derive(Debug, Clone)]
struct Purpose {
    prefix: IpNet,
    /// The route that should be there then; none for a deletion.
    wanted: Option<Arc<FibRoute>>,
}

impl Fib {
    /// A writer on an open connection.
    pub(crate) fn new(netlink: Netlink, proto: u8, table: u32) -> Self {
        Self {
            netlink,
            proto,
            table,
            refused: BTreeMap::new(),
            leftovers: Vec::new(),
            written: Written::default(),
        }
    }

    /// The connection, for dumps.
    pub(crate) fn netlink(&mut self) -> &mut Netlink {
        &mut self.netlink
    }

    /// Our routes that are in the kernel, from an earlier run: one for each prefix, the others are remembered for
    /// [`Fib::sweep_leftovers`].
    pub(crate) fn adopt(&mut self, kernel: &Kernel) -> caracal_netlink::Result<Vec<(IpNet, FibRoute)>> {
        let mut adopted: HashMap<IpNet, FibRoute> = HashMap::new();
        for route in self.dump()? {
            match as_fib_route(kernel, &route) {
                Some(fib) if !adopted.contains_key(&route.dst) => {
                    adopted.insert(route.dst, fib);
                }
                _ => self.leftovers.push(route),
            }
        }
        let mut adopted: Vec<(IpNet, FibRoute)> = adopted.into_iter().collect();
        adopted.sort();
        Ok(adopted)
    }

    /// Deletes what an earlier run left beside the adopted routes, unless `wanted` says that it is ours now.
    pub(crate) fn sweep_leftovers(
        &mut self,
        kernel: &Kernel,
        wanted: impl Fn(IpNet) -> Option<Arc<FibRoute>>,
    ) {
        let leftovers = std::mem::take(&mut self.leftovers);
        let batch: Vec<Request> = leftovers
            .into_iter()
            .filter(|old| {
                let now = wanted(old.dst).and_then(|w| self.as_route(kernel, old.dst, &w));
                now.is_none_or(|now| now.metric != old.metric)
            })
            .map(Request::DelRoute)
            .collect();
        self.send(&batch);
    }

    /// Writes changes. What the kernel refuses is kept and tried again.
    pub(crate) fn apply(&mut self, kernel: &Kernel, changes: &[FibChange], now: Instant) {
        let mut batch = Vec::with_capacity(changes.len());
        let mut purposes = Vec::with_capacity(changes.len());
        for change in changes {
            let was_refused = self.refused.remove(&change.prefix).is_some();
            let old = change
                .old
                .as_ref()
                .filter(|_| !was_refused)
                .and_then(|old| self.as_route(kernel, change.prefix, old));
            let new = change.new.as_ref().map(|new| (new, self.as_route(kernel, change.prefix, new)));
            let mut push = |request, wanted| {
                batch.push(request);
                purposes.push(Purpose { prefix: change.prefix, wanted });
            };
            match (old, new) {
                (old, Some((wanted, Some(new)))) => {
                    if old.as_ref() == Some(&new) {
                        continue;
                    }
                    let in_place = old.as_ref().is_some_and(|o| o.metric == new.metric)
                        && !kernel.has_foreign(new.dst, new.metric);
                    let request = if in_place { Request::ReplaceRoute(new) } else { Request::AddRoute(new) };
                    push(request, Some(Arc::clone(wanted)));
                    if let Some(old) = old.filter(|_| !in_place) {
                        push(Request::DelRoute(old), None);
                    }
                }
                (old, Some((wanted, None))) => {
                    // A tunnel device that is not there yet.
                    self.refuse(change.prefix, Arc::clone(wanted), Errno::ENODEV, now);
                    if let Some(old) = old {
                        push(Request::DelRoute(old), None);
                    }
                }
                (Some(old), None) => push(Request::DelRoute(old), None),
                (None, None) => {}
            }
        }
        self.write(kernel, &batch, &purposes, now);
    }

    /// Writes again those of `gone` that should be there.
    pub(crate) fn repair(
        &mut self,
        kernel: &Kernel,
        gone: &[Route],
        wanted: impl Fn(IpNet) -> Option<Arc<FibRoute>>,
        now: Instant,
    ) -> usize {
        let mut seen = HashSet::new();
        let again: Vec<(IpNet, Arc<FibRoute>)> = gone
            .iter()
            .filter(|r| seen.insert(r.dst))
            .filter_map(|r| {
                let want = wanted(r.dst)?;
                (self.as_route(kernel, r.dst, &want)?.metric == r.metric).then_some((r.dst, want))
            })
            .collect();
        self.add(kernel, again, now)
    }

    /// Compares everything that should be there with a dump, writes what is missing or different and deletes what
    /// nobody wants. `wanted` is complete. Returns how many routes were not as they should be.
    pub(crate) fn resync(
        &mut self,
        kernel: &Kernel,
        wanted: impl Iterator<Item = (IpNet, Arc<FibRoute>)>,
        now: Instant,
    ) -> caracal_netlink::Result<usize> {
        let mut actual: HashMap<(IpNet, u32), Route> =
            self.dump()?.into_iter().map(|r| ((r.dst, r.metric), r)).collect();
        let mut missing = Vec::new();
        for (prefix, want) in wanted {
            let Some(route) = self.as_route(kernel, prefix, &want) else { continue };
            if actual.remove(&(prefix, route.metric)).as_ref() != Some(&route)
                && !self.refused.contains_key(&prefix)
            {
                missing.push((prefix, want));
            }
        }
        let kept: HashSet<(IpNet, u32)> = self.leftovers.iter().map(|r| (r.dst, r.metric)).collect();
        let unwanted: Vec<Request> = actual
            .into_iter()
            .filter(|(key, _)| !kept.contains(key))
            .map(|(_, route)| Request::DelRoute(route))
            .collect();
        let count = missing.len() + unwanted.len();
        self.add(kernel, missing, now);
        self.send(&unwanted);
        Ok(count)
    }

    /// Tries refused routes again: those that are due, or all of them when something came up.
    pub(crate) fn retry(&mut self, kernel: &Kernel, all: bool, now: Instant) {
        if self.refused.is_empty() {
            return;
        }
        let again: Vec<(IpNet, Arc<FibRoute>)> = self
            .refused
            .iter()
            .filter(|(_, r)| all || r.due <= now)
            .map(|(prefix, r)| (*prefix, Arc::clone(&r.wanted)))
            .collect();
        self.add(kernel, again, now);
    }

    /// Why the kernel refuses the route of a prefix, when it does.
    pub(crate) fn refusal(&self, prefix: IpNet) -> Option<String> {
        self.refused.get(&prefix).map(|r| format!("{}: {}", r.errno, fix(r.errno)))
    }

    /// Routes that the kernel refuses at present.
    pub(crate) fn refused_count(&self) -> usize {
        self.refused.len()
    }

    /// When [`Fib::retry`] has something to do.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        self.refused.values().map(|r| r.due).min()
    }

    /// What the kernel should show for a route that was given out; none if it cannot be there now.
    pub(crate) fn should_be(&self, kernel: &Kernel, prefix: IpNet, wanted: &FibRoute) -> Option<Route> {
        if self.refused.contains_key(&prefix) {
            return None;
        }
        self.as_route(kernel, prefix, wanted)
    }

    fn add(&mut self, kernel: &Kernel, routes: Vec<(IpNet, Arc<FibRoute>)>, now: Instant) -> usize {
        let mut batch = Vec::with_capacity(routes.len());
        let mut purposes = Vec::with_capacity(routes.len());
        for (prefix, wanted) in routes {
            match self.as_route(kernel, prefix, &wanted) {
                Some(route) => {
                    batch.push(Request::AddRoute(route));
                    purposes.push(Purpose { prefix, wanted: Some(wanted) });
                }
                None => self.refuse(prefix, wanted, Errno::ENODEV, now),
            }
        }
        self.write(kernel, &batch, &purposes, now);
        batch.len()
    }

    fn write(&mut self, kernel: &Kernel, batch: &[Request], purposes: &[Purpose], now: Instant) {
        if batch.is_empty() {
            return;
        }
        let failed: HashMap<usize, Errno> = self.send(batch).into_iter().collect();
        let mut again = Vec::new();
        let mut refused = Vec::new();
        for (index, purpose) in purposes.iter().enumerate() {
            let errno = failed.get(&index).copied();
            match (&purpose.wanted, errno) {
                (Some(_), None) => {
                    self.refused.remove(&purpose.prefix);
                }
                // Ours, though we did not know of it: a notification that crossed our own write.
                (Some(wanted), Some(Errno::EEXIST)) if !self.conflicts(kernel, purpose.prefix, wanted) => {
                    again.push((purpose.prefix, Arc::clone(wanted)));
                }
                (Some(wanted), Some(errno)) => refused.push((purpose.prefix, Arc::clone(wanted), errno)),
                // What should go is gone.
                (None, _) => {}
            }
        }
        let replace: Vec<Request> = again
            .iter()
            .filter_map(|(prefix, wanted)| {
                Some(Request::ReplaceRoute(self.as_route(kernel, *prefix, wanted)?))
            })
            .collect();
        for (index, errno) in self.send(&replace) {
            let (prefix, wanted) = again[index].clone();
            refused.push((prefix, wanted, errno));
        }
        self.report(&refused);
        for (prefix, wanted, errno) in refused {
            self.refuse(prefix, wanted, errno, now);
        }
    }

    fn conflicts(&self, kernel: &Kernel, prefix: IpNet, wanted: &FibRoute) -> bool {
        self.as_route(kernel, prefix, wanted).is_none_or(|route| kernel.has_foreign(prefix, route.metric))
    }

    fn refuse(&mut self, prefix: IpNet, wanted: Arc<FibRoute>, errno: Errno, now: Instant) {
        let pause = self.refused.get(&prefix).map_or(RETRY.0, |r| (r.pause * 2).min(RETRY.1));
        self.refused.insert(prefix, Refused { wanted, errno, due: now + pause, pause });
    }

    /// Says what the kernel refused, once for each cause.
    fn report(&self, refused: &[(IpNet, Arc<FibRoute>, Errno)]) {
        let mut by_cause: Vec<(Errno, Vec<IpNet>)> = Vec::new();
        for (prefix, _, errno) in refused {
            if self.refused.get(prefix).map(|r| r.errno) != Some(*errno) {
                match by_cause.iter_mut().find(|(e, _)| e == errno) {
                    Some((_, prefixes)) => prefixes.push(*prefix),
                    None => by_cause.push((*errno, vec![*prefix])),
                }
            }
        }
        for (errno, prefixes) in by_cause {
            let named: Vec<String> = prefixes.iter().take(NAMED).map(ToString::to_string).collect();
            tracing::warn!(
                err = %errno,
                count = prefixes.len(),
                prefix = named.join(" "),
                fix = fix(errno),
                "the kernel refuses routes"
            );
        }
    }

    fn send(&mut self, batch: &[Request]) -> Vec<(usize, Errno)> {
        if batch.is_empty() {
            return Vec::new();
        }
        let begun = Instant::now();
        let failed = self.netlink.apply(batch);
        self.written.times.note(begun.elapsed());
        self.written.requests += batch.len() as u64;
        self.written.failures += failed.len() as u64;
        failed
    }

    fn dump(&mut self) -> caracal_netlink::Result<Vec<Route>> {
        self.netlink
            .routes(RouteFilter { table: Some(self.table), ..RouteFilter::default() }.proto(self.proto))
    }

    /// As the kernel will report it; none while its device does not exist.
    fn as_route(&self, kernel: &Kernel, prefix: IpNet, fib: &FibRoute) -> Option<Route> {
        let kind = match fib.target {
            FibTarget::Blackhole => RouteKind::Blackhole,
            FibTarget::Hops(_) => RouteKind::Unicast,
        };
        let mut route = Route::new(prefix, self.proto, kind).metric(fib.metric);
        route.table = self.table;
        if let FibTarget::Hops(hops) = &fib.target {
            for hop in hops {
                route.hops.push(next_hop(kernel, hop)?);
            }
        }
        Some(route.normalized())
    }
}

/// What mends a refusal.
fn fix(errno: Errno) -> &'static str {
    match errno {
        Errno::EEXIST => {
            "another program has this prefix with this metric; remove its route or change a metric"
        }
        Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN => {
            "the next hop is on no link that is up; it is written when the link is back"
        }
        Errno::ENODEV => "the device does not exist; it is written when it does",
        Errno::EPERM | Errno::EACCES => "the agent needs the capability CAP_NET_ADMIN",
        Errno::ENOBUFS | Errno::ENOMEM => "the kernel is out of memory for routes",
        _ => "it is tried again",
    }
}

fn as_fib_route(kernel: &Kernel, route: &Route) -> Option<FibRoute> {
    let target = match route.kind {
        RouteKind::Blackhole => FibTarget::Blackhole,
        RouteKind::Unicast => {
            let mut hops = Vec::new();
            for hop in &route.hops {
                let device = if hop.onlink { Some(kernel.link_name(hop.ifindex)?) } else { None };
                let ifindex = if device.is_some() { 0 } else { hop.ifindex };
                hops.push(FibHop { via: hop.via?, ifindex, device });
            }
            hops.sort();
            FibTarget::Hops(hops)
        }
        _ => return None,
    };
    Some(FibRoute { target, metric: route.metric })
}

fn next_hop(kernel: &Kernel, hop: &FibHop) -> Option<NextHop> {
    if let Some(device) = &hop.device {
        return Some(NextHop {
            via: Some(hop.via),
            ifindex: kernel.link_index(device)?,
            weight: 1,
            onlink: true,
        });
    }
    if hop.ifindex != 0 {
        return Some(NextHop::via(hop.via, hop.ifindex));
    }
    // The device that leads to the gateway, so that what we wrote can be told from what is there.
    let ifindex = match kernel.resolve(hop.via) {
        Resolution::Via { hops, .. } => hops.first().filter(|h| h.gateway.is_none()).map_or(0, |h| h.ifindex),
        Resolution::Unreachable => 0,
    };
    Some(NextHop::via(hop.via, ifindex))
}
