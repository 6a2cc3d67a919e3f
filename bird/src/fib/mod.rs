//! The writer of our own kernel routes: batches, make before break, and never over a route of somebody else.
//!
//! What should be there is the speaker's to know. This hands changes to a thread, a few batches ahead of the kernel, keeps
//! what could not be written, and tries it again when the reason may be gone. A route that somebody removed is written
//! again at once ([`Fib::repair`]).
//!
//! ```text
//!   changes --+                                    +-- done: forget the refusal, if there was one
//!   repairs --+--> batch --> writer --> answers ---+-- EEXIST, and the route there is ours: replace it
//!   retries --+                                    +-- refused: said once, tried again later
//! ```
//!
//! Answers come in the order of the batches. One that a later batch has overtaken counts for nothing: what that finds is
//! newer.

mod form;
mod refusals;
mod writer;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use bird_speaker::io::{FibChange, FibRoute};
use caracal_netlink::{Errno, Netlink, Request, Route, RouteFilter};
use ipnet::IpNet;

use crate::kernel::Kernel;
use crate::metrics::Times;
use form::{as_fib_route, as_route};
use refusals::Refusals;
use writer::Writer;

/// The most refused routes that are named in one log line.
const NAMED: usize = 3;
/// Requests in a batch of repairs.
const BATCH: usize = 1024;
/// Batches handed over and not yet answered: the writer is never idle while the loop does something else.
const DEPTH: usize = 6;

/// Writes routes of one protocol number in one table.
#[derive(Debug)]
pub(crate) struct Fib {
    /// For reading.
    netlink: Netlink,
    writer: Writer,
    /// What the writer has not answered yet, oldest first.
    in_flight: VecDeque<Vec<Purpose>>,
    refused: Refusals,
    /// Left by an earlier run beside the route that was adopted; deleted with the sweep.
    leftovers: Vec<Route>,
    /// To be written as the speaker wants them.
    missing: VecDeque<IpNet>,
    /// To be deleted unless the speaker wants them by then.
    unwanted: VecDeque<Route>,
    /// Requests handed over so far.
    handed_over: u64,
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

/// What a write is for, to read the kernel's answer.
#[derive(Debug)]
struct Purpose {
    prefix: IpNet,
    /// The route that should be there then; none for a deletion.
    wanted: Option<Arc<FibRoute>>,
    /// It takes the place of one of ours that was found in the way.
    in_place: bool,
}

/// Requests with what each is for.
#[derive(Debug, Default)]
struct Batch {
    requests: Vec<Request>,
    purposes: Vec<Purpose>,
}

impl Batch {
    fn add(&mut self, prefix: IpNet, wanted: &Arc<FibRoute>, request: Request) {
        self.requests.push(request);
        self.purposes.push(Purpose { prefix, wanted: Some(Arc::clone(wanted)), in_place: false });
    }

    fn delete(&mut self, route: Route) {
        self.purposes.push(Purpose { prefix: route.dst, wanted: None, in_place: false });
        self.requests.push(Request::DelRoute(route));
    }
}

impl Fib {
    /// A writer with connections of its own in the calling thread's namespace. `bell` rings when [`Fib::hear`] has
    /// something to hear.
    pub(crate) fn open(bell: Arc<mio::Waker>) -> anyhow::Result<Self> {
        Ok(Self {
            netlink: Netlink::open().context("cannot speak to the kernel; the agent needs CAP_NET_ADMIN")?,
            writer: Writer::start(bell)?,
            in_flight: VecDeque::new(),
            refused: Refusals::default(),
            leftovers: Vec::new(),
            missing: VecDeque::new(),
            unwanted: VecDeque::new(),
            handed_over: 0,
            written: Written::default(),
        })
    }

    /// The connection for dumps.
    pub(crate) fn netlink(&mut self) -> &mut Netlink {
        &mut self.netlink
    }

    /// The number of the socket over which is written: [`Netlink::port`].
    pub(crate) fn writes_by(&self) -> u32 {
        self.writer.port()
    }

    /// Our routes that are in the kernel, from an earlier run: one for each prefix, the others are remembered for
    /// [`Fib::sweep_leftovers`].
    pub(crate) fn adopt(&mut self, kernel: &Kernel) -> caracal_netlink::Result<Vec<(IpNet, FibRoute)>> {
        let mut adopted: HashMap<IpNet, FibRoute> = HashMap::new();
        for route in self.dump(kernel)? {
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

    /// Deletes what an earlier run left beside the adopted routes, unless it is wanted now.
    pub(crate) fn sweep_leftovers(&mut self) {
        self.unwanted.extend(self.leftovers.drain(..));
    }

    // ---- writing ----

    /// Whether the writer can do with more.
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight.len() < DEPTH
    }

    /// Whether all that was handed over is answered, and nothing waits to be mended.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && !self.has_mending()
    }

    /// Whether [`Fib::mend`] has something to do now.
    pub(crate) fn has_mending(&self) -> bool {
        !self.missing.is_empty() || !self.unwanted.is_empty() || self.refused.has_pass()
    }

    /// When [`Fib::mend`] has a refused route to try again.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        self.refused.next_due().filter(|_| self.has_room())
    }

    /// Hands over changes. What the kernel refuses is kept and tried again.
    pub(crate) fn apply(&mut self, kernel: &Kernel, changes: &[FibChange], now: Instant) {
        let mut batch = Batch::default();
        for change in changes {
            let was_refused = self.refused.remove(change.prefix).is_some();
            let given_out = change.old.as_ref().and_then(|old| as_route(kernel, change.prefix, old));
            let Some(wanted) = &change.new else {
                // A refused one as well: what it should have replaced is there still.
                if let Some(old) = given_out {
                    batch.delete(old);
                }
                continue;
            };
            let old = given_out.filter(|_| !was_refused);
            match as_route(kernel, change.prefix, wanted) {
                Some(new) if old.as_ref() == Some(&new) => {}
                Some(new) => {
                    let in_place = old.as_ref().is_some_and(|o| o.metric == new.metric)
                        && !kernel.has_foreign(new.dst, new.metric);
                    let request = if in_place { Request::ReplaceRoute(new) } else { Request::AddRoute(new) };
                    batch.add(change.prefix, wanted, request);
                    if let Some(old) = old.filter(|_| !in_place) {
                        batch.delete(old);
                    }
                }
                None => {
                    // A tunnel device that is not there yet.
                    self.refused.add(change.prefix, Errno::ENODEV, now);
                    if let Some(old) = old {
                        batch.delete(old);
                    }
                }
            }
        }
        self.hand_over(batch);
    }

    /// Takes in what the writer answered.
    pub(crate) fn hear(&mut self, kernel: &Kernel, now: Instant) {
        while let Some(done) = self.writer.answer() {
            let purposes = self.in_flight.pop_front().expect("invariant: answers follow batches");
            self.written.times.note(done.took);
            self.written.requests += purposes.len() as u64;
            self.written.failures += done.failed.len() as u64;
            self.settle(kernel, purposes, &done.failed.into_iter().collect(), now);
        }
    }

    fn settle(
        &mut self,
        kernel: &Kernel,
        purposes: Vec<Purpose>,
        failed: &HashMap<usize, Errno>,
        now: Instant,
    ) {
        // What should go is gone; what is written needs a word only if it was refused before.
        let is_open = |(index, purpose): &(usize, Purpose)| {
            purpose.wanted.is_some()
                && (failed.contains_key(index) || self.refused.why(purpose.prefix).is_some())
        };
        let open: Vec<(usize, Purpose)> = purposes.into_iter().enumerate().filter(is_open).collect();
        if open.is_empty() {
            return;
        }
        let overtaken: HashSet<IpNet> = self.in_flight.iter().flatten().map(|p| p.prefix).collect();
        let mut again = Batch::default();
        let mut refused = Vec::new();
        for (index, Purpose { prefix, wanted, in_place }) in open {
            if overtaken.contains(&prefix) {
                continue;
            }
            let Some(&errno) = failed.get(&index) else {
                self.refused.remove(prefix);
                continue;
            };
            match wanted.as_ref().and_then(|wanted| as_route(kernel, prefix, wanted)) {
                // Ours, though we did not know of it: a notification that crossed our own write.
                Some(route)
                    if errno == Errno::EEXIST && !in_place && !kernel.has_foreign(prefix, route.metric) =>
                {
                    again.requests.push(Request::ReplaceRoute(route));
                    again.purposes.push(Purpose { prefix, wanted, in_place: true });
                }
                _ => refused.push((prefix, errno)),
            }
        }
        self.report(&refused);
        for (prefix, errno) in refused {
            self.refused.add(prefix, errno, now);
        }
        self.hand_over(again);
    }

    fn hand_over(&mut self, batch: Batch) {
        if !batch.requests.is_empty() {
            self.handed_over += batch.requests.len() as u64;
            self.in_flight.push_back(batch.purposes);
            self.writer.write(batch.requests);
        }
    }

    // ---- mending ----

    /// Writes again those of `gone` that should be there; how many those are.
    pub(crate) fn repair(
        &mut self,
        kernel: &Kernel,
        gone: &[Route],
        wanted: impl Fn(IpNet) -> Option<Arc<FibRoute>>,
    ) -> usize {
        let mut seen = HashSet::new();
        let again = gone.iter().filter(|r| seen.insert(r.dst)).filter(|r| {
            let now = wanted(r.dst).and_then(|w| as_route(kernel, r.dst, &w));
            now.is_some_and(|now| now.metric == r.metric)
        });
        let before = self.missing.len();
        self.missing.extend(again.map(|r| r.dst));
        self.missing.len() - before
    }

    /// Refused routes are tried again, all of them: something came up.
    pub(crate) fn retry_all(&mut self) {
        self.refused.all_again();
    }

    /// Hands over what waits to be mended, as far as there is room.
    pub(crate) fn mend(
        &mut self,
        kernel: &Kernel,
        wanted: impl Fn(IpNet) -> Option<Arc<FibRoute>>,
        now: Instant,
    ) {
        while self.has_room() {
            let mut prefixes: Vec<IpNet> = self.missing.drain(..self.missing.len().min(BATCH)).collect();
            prefixes.extend(self.refused.take(BATCH - prefixes.len(), now));
            let unwanted: Vec<Route> = self.unwanted.drain(..self.unwanted.len().min(BATCH)).collect();
            if prefixes.is_empty() && unwanted.is_empty() {
                return;
            }
            let mut batch = Batch::default();
            for prefix in prefixes {
                let Some(wanted) = wanted(prefix) else { continue };
                match as_route(kernel, prefix, &wanted) {
                    Some(route) => batch.add(prefix, &wanted, Request::AddRoute(route)),
                    None => self.refused.add(prefix, Errno::ENODEV, now),
                }
            }
            for route in unwanted {
                let now = wanted(route.dst).and_then(|w| as_route(kernel, route.dst, &w));
                if now.is_none_or(|now| now.metric != route.metric) {
                    batch.delete(route);
                }
            }
            self.hand_over(batch);
        }
    }

    // ---- comparing ----

    /// A number that is another one when something was written meanwhile, or was being written.
    pub(crate) fn moves(&self) -> u64 {
        self.handed_over + self.written.requests
    }

    /// What the kernel should show for a route that was given out; none if it cannot be there now.
    pub(crate) fn should_be(&self, kernel: &Kernel, prefix: IpNet, wanted: &FibRoute) -> Option<Route> {
        if self.refused.why(prefix).is_some() {
            return None;
        }
        as_route(kernel, prefix, wanted)
    }

    /// Compares everything that should be there with a dump; `wanted` is complete. For [`Fib::take`].
    pub(crate) fn compare(
        &mut self,
        kernel: &Kernel,
        wanted: impl Iterator<Item = (IpNet, Arc<FibRoute>)>,
    ) -> caracal_netlink::Result<Comparison> {
        let mut found = Comparison::with(self.dump(kernel)?);
        for (prefix, wanted) in wanted {
            found.see(self, kernel, prefix, &wanted);
        }
        Ok(found)
    }

    /// What a complete comparison found missing or different is to be written, what nobody wants to be deleted; how many
    /// routes were not as they should be.
    pub(crate) fn take(&mut self, found: Comparison) -> usize {
        let kept: HashSet<(IpNet, u32)> = self.leftovers.iter().map(|r| (r.dst, r.metric)).collect();
        let before = self.missing.len() + self.unwanted.len();
        self.missing.extend(found.missing);
        self.unwanted.extend(found.actual.into_iter().filter(|(key, _)| !kept.contains(key)).map(|(_, r)| r));
        self.missing.len() + self.unwanted.len() - before
    }

    fn dump(&mut self, kernel: &Kernel) -> caracal_netlink::Result<Vec<Route>> {
        let filter = RouteFilter { table: Some(kernel.table()), ..RouteFilter::default() };
        self.netlink.routes(filter.proto(kernel.own_proto()))
    }

    // ---- refusals ----

    /// Why the kernel refuses the route of a prefix, when it does.
    pub(crate) fn refusal(&self, prefix: IpNet) -> Option<String> {
        self.refused.why(prefix).map(|errno| format!("{errno}: {}", fix(errno)))
    }

    /// Routes that the kernel refuses at present.
    pub(crate) fn refused_count(&self) -> usize {
        self.refused.len()
    }

    /// Says what the kernel refused, once for each cause.
    fn report(&self, refused: &[(IpNet, Errno)]) {
        let mut by_cause: Vec<(Errno, Vec<IpNet>)> = Vec::new();
        for (prefix, errno) in refused {
            if self.refused.why(*prefix) != Some(*errno) {
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
}

/// Our routes in the kernel against those that should be there, one after the other.
#[derive(Debug)]
pub(crate) struct Comparison {
    actual: HashMap<(IpNet, u32), Route>,
    missing: Vec<IpNet>,
}

impl Comparison {
    /// With all that the kernel has.
    pub(crate) fn with(actual: Vec<Route>) -> Self {
        let actual = actual.into_iter().map(|r| ((r.dst, r.metric), r)).collect();
        Self { actual, missing: Vec::new() }
    }

    /// One that should be there.
    pub(crate) fn see(&mut self, fib: &Fib, kernel: &Kernel, prefix: IpNet, wanted: &FibRoute) {
        let Some(route) = as_route(kernel, prefix, wanted) else { return };
        let is_there = self.actual.remove(&(prefix, route.metric)).as_ref() == Some(&route);
        if !is_there && fib.refused.why(prefix).is_none() {
            self.missing.push(prefix);
        }
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
