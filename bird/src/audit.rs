//! Reading the kernel while the loop goes on: a full table takes a second to read, and no keepalive waits for that.
//!
//! A thread of its own reads on request. Of our own routes, which may be a million, it keeps only how many there are in
//! each of a few thousand buckets and what their hashes add up to; the loop adds up what should be there and compares.
//! Only the buckets that differ are read route by route.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::{Arc, mpsc};

use anyhow::Context as _;
use caracal_netlink::{Address, Link, Netlink, Route, RouteFilter};
use ipnet::IpNet;

const BUCKETS: usize = 4096;

/// A set of routes in two numbers, whatever the order in which they came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Digest {
    count: u64,
    sum: u64,
}

impl Digest {
    fn add(&mut self, route: &Route) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(hash(route));
    }
}

/// A set of routes, by prefix in buckets, a digest of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digests(Box<[Digest]>);

impl Default for Digests {
    fn default() -> Self {
        Self(vec![Digest::default(); BUCKETS].into())
    }
}

impl Digests {
    pub(crate) fn add(&mut self, route: &Route) {
        self.0[bucket_of(route.dst)].add(route);
    }

    fn join(mut self, other: &Self) -> Self {
        for (ours, theirs) in self.0.iter_mut().zip(&other.0) {
            *ours = Digest { count: ours.count + theirs.count, sum: ours.sum.wrapping_add(theirs.sum) };
        }
        self
    }

    /// The buckets that differ, in groups: in each at most `max` routes of this set, or a single bucket.
    pub(crate) fn difference(&self, other: &Self, max: u64) -> Vec<Buckets> {
        let mut groups: Vec<Buckets> = Vec::new();
        let mut count = 0;
        for (at, (ours, theirs)) in self.0.iter().zip(&other.0).enumerate() {
            if ours == theirs {
                continue;
            }
            count += ours.count;
            match groups.last_mut().filter(|_| count <= max) {
                Some(group) => group.0[at] = true,
                None => {
                    count = ours.count;
                    let mut group = Buckets(vec![false; BUCKETS].into());
                    group.0[at] = true;
                    groups.push(group);
                }
            }
        }
        groups
    }
}

/// Some of the buckets.
#[derive(Debug, Clone)]
pub(crate) struct Buckets(Box<[bool]>);

impl Buckets {
    pub(crate) fn have(&self, prefix: IpNet) -> bool {
        self.0[bucket_of(prefix)]
    }
}

fn bucket_of(prefix: IpNet) -> usize {
    usize::try_from(hash(&prefix) % BUCKETS as u64).expect("invariant: below BUCKETS")
}

fn hash(of: &impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(of)
}

/// What is read.
#[derive(Debug)]
enum Question {
    All,
    Own(Buckets),
}

/// The kernel as it was at some time during the reading.
#[derive(Debug)]
pub(crate) enum Reading {
    All {
        links: Vec<Link>,
        addresses: Vec<Address>,
        /// Routes of others.
        routes: Vec<Route>,
        /// Our own routes.
        own: Digests,
    },
    /// Our own routes of the buckets asked for.
    Own(Vec<Route>),
}

/// The thread that reads. It ends with this handle.
#[derive(Debug)]
pub(crate) struct Auditor {
    questions: mpsc::Sender<Question>,
    readings: mpsc::Receiver<anyhow::Result<Reading>>,
}

impl Auditor {
    /// Opens a connection in the calling thread's namespace, through which the new thread reads the routes of `table`;
    /// those of `own` are ours. `bell` rings when a reading is there.
    pub(crate) fn start(table: u32, own: u8, bell: Arc<mio::Waker>) -> anyhow::Result<Self> {
        let mut netlink = Netlink::open().context("cannot speak to the kernel")?;
        let (questions, asked) = mpsc::channel();
        let (answers, readings) = mpsc::channel();
        std::thread::Builder::new()
            .name("bird-audit".into())
            .spawn(move || {
                for question in asked {
                    let reading = match question {
                        Question::All => read_all(&mut netlink, table, own),
                        Question::Own(buckets) => read_own(&mut netlink, table, own, &buckets),
                    };
                    if answers.send(reading).is_err() || bell.wake().is_err() {
                        return;
                    }
                }
            })
            .context("thread of the audit")?;
        Ok(Self { questions, readings })
    }

    /// Asks for everything, our own routes as digests.
    pub(crate) fn ask(&self) {
        self.send(Question::All);
    }

    /// Asks for our own routes of some buckets.
    pub(crate) fn ask_own(&self, buckets: Buckets) {
        self.send(Question::Own(buckets));
    }

    fn send(&self, question: Question) {
        self.questions.send(question).expect("invariant: the thread ends after its handle");
    }

    /// A reading that is done.
    pub(crate) fn answer(&self) -> Option<anyhow::Result<Reading>> {
        self.readings.try_recv().ok()
    }
}

fn read_all(netlink: &mut Netlink, table: u32, own: u8) -> anyhow::Result<Reading> {
    let filter = RouteFilter { table: Some(table), ..RouteFilter::default() };
    let links = netlink.links().context("links cannot be read")?;
    let addresses = netlink.addresses().context("addresses cannot be read")?;
    let routes = netlink.routes(filter.except(own)).context("routes cannot be read")?;
    let own = netlink
        .fold_routes(filter.proto(own), |digests: &mut Digests, route| digests.add(&route))
        .context("our own routes cannot be read")?;
    let own = own.into_iter().fold(Digests::default(), |sum, family| sum.join(&family));
    Ok(Reading::All { links, addresses, routes, own })
}

fn read_own(netlink: &mut Netlink, table: u32, own: u8, buckets: &Buckets) -> anyhow::Result<Reading> {
    let filter = RouteFilter { table: Some(table), ..RouteFilter::default() };
    let families = netlink
        .fold_routes(filter.proto(own), |kept: &mut Vec<Route>, route| {
            if buckets.have(route.dst) {
                kept.push(route);
            }
        })
        .context("our own routes cannot be read")?;
    Ok(Reading::Own(families.into_iter().flatten().collect()))
}

#[cfg(test)]
mod tests {
    use caracal_netlink::RouteKind;

    use super::*;

    fn route(n: u32, metric: u32) -> Route {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + (n << 8));
        Route::new(IpNet::new(address.into(), 24).unwrap(), 12, RouteKind::Blackhole).metric(metric)
    }

    fn of<'a>(routes: impl IntoIterator<Item = &'a Route>) -> Digests {
        let mut digests = Digests::default();
        for route in routes {
            digests.add(route);
        }
        digests
    }

    #[test]
    fn digests_depend_on_every_route_and_not_on_their_order() {
        let (a, b, c) = (&route(1, 0), &route(2, 0), &route(2, 7));
        assert_eq!(of([a, b]), of([b, a]));
        assert_eq!(of([a]).join(&of([b])), of([a, b]));
        assert_ne!(of([a, b]), of([a, c]));
        assert_ne!(of([a, b]), of([a]));
        assert_ne!(of([a, a]), of([a, b]));
    }

    #[test]
    fn a_difference_is_in_the_buckets_of_the_routes_that_differ() {
        let routes: Vec<Route> = (0..20_000).map(|n| route(n, 0)).collect();
        let all = of(&routes);
        assert!(all.difference(&all.clone(), 100).is_empty());

        let without = of(routes.iter().filter(|r| **r != routes[777]));
        for (ours, theirs) in [(&all, &without), (&without, &all)] {
            let groups = ours.difference(theirs, 100);
            assert_eq!(groups.len(), 1);
            assert!(groups[0].have(routes[777].dst));
            assert!(routes.iter().filter(|r| groups[0].have(r.dst)).count() < 40);
        }
    }

    #[test]
    fn groups_are_of_bounded_size_and_cover_every_difference_once() {
        let routes: Vec<Route> = (0..20_000).map(|n| route(n, 0)).collect();
        let groups = of(&routes).difference(&Digests::default(), 1000);
        assert!((20..25).contains(&groups.len()), "{}", groups.len());
        for route in &routes {
            assert_eq!(groups.iter().filter(|g| g.have(route.dst)).count(), 1);
        }
        for group in &groups {
            assert!(routes.iter().filter(|r| group.have(r.dst)).count() <= 1000);
        }
        // All are missing: nothing of ours is there, so it is one group.
        assert_eq!(Digests::default().difference(&of(&routes), 1000).len(), 1);
    }
}
