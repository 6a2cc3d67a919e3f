//! Reading the kernel while the loop goes on: a full table takes a second to read, and no keepalive waits for that.
//!
//! A thread of its own reads on request. Of our own routes, which may be a million, it keeps only how many there are and
//! what their hashes add up to; the loop adds up what should be there and compares.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, mpsc};

use anyhow::Context as _;
use caracal_netlink::{Address, Link, Netlink, Route, RouteFilter};

/// A set of routes in two numbers, whatever the order in which they came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) count: u64,
    sum: u64,
}

impl Digest {
    pub(crate) fn add(&mut self, route: &Route) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(BuildHasherDefault::<DefaultHasher>::default().hash_one(route));
    }

    fn join(self, other: Self) -> Self {
        Self { count: self.count + other.count, sum: self.sum.wrapping_add(other.sum) }
    }
}

/// The kernel as it was at some time during the reading.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    /// Routes of others.
    pub(crate) routes: Vec<Route>,
    /// Our own routes.
    pub(crate) own: Digest,
}

/// The thread that reads. It ends with this handle.
#[derive(Debug)]
pub(crate) struct Auditor {
    requests: mpsc::Sender<()>,
    readings: mpsc::Receiver<anyhow::Result<Reading>>,
}

impl Auditor {
    /// Opens a connection in the calling thread's namespace, through which the new thread reads the routes of `table`;
    /// those of `own` are ours. `bell` rings when a reading is there.
    pub(crate) fn start(table: u32, own: u8, bell: Arc<mio::Waker>) -> anyhow::Result<Self> {
        let mut netlink = Netlink::open().context("cannot speak to the kernel")?;
        let (requests, asked) = mpsc::channel::<()>();
        let (answers, readings) = mpsc::channel();
        std::thread::Builder::new()
            .name("bird-audit".into())
            .spawn(move || {
                while asked.recv().is_ok() {
                    if answers.send(read(&mut netlink, table, own)).is_err() || bell.wake().is_err() {
                        return;
                    }
                }
            })
            .context("thread of the audit")?;
        Ok(Self { requests, readings })
    }

    /// Asks for a reading; false if there is nobody to ask.
    pub(crate) fn ask(&self) -> bool {
        self.requests.send(()).is_ok()
    }

    /// A reading that is done.
    pub(crate) fn answer(&self) -> Option<anyhow::Result<Reading>> {
        self.readings.try_recv().ok()
    }
}

fn read(netlink: &mut Netlink, table: u32, own: u8) -> anyhow::Result<Reading> {
    let filter = RouteFilter { table: Some(table), ..RouteFilter::default() };
    let links = netlink.links().context("links cannot be read")?;
    let addresses = netlink.addresses().context("addresses cannot be read")?;
    let routes = netlink.routes(filter.except(own)).context("routes cannot be read")?;
    let own = netlink
        .fold_routes(filter.proto(own), |digest: &mut Digest, route| digest.add(&route))
        .context("our own routes cannot be read")?;
    let own = own.into_iter().fold(Digest::default(), Digest::join);
    Ok(Reading { links, addresses, routes, own })
}

#[cfg(test)]
mod tests {
    use caracal_netlink::RouteKind;

    use super::*;

    #[test]
    fn a_digest_depends_on_every_route_and_not_on_their_order() {
        let route = |n: u8, metric| {
            Route::new(format!("10.0.{n}.0/24").parse().unwrap(), 12, RouteKind::Blackhole).metric(metric)
        };
        let of = |routes: &[&Route]| {
            let mut digest = Digest::default();
            for route in routes {
                digest.add(route);
            }
            digest
        };
        let (a, b, c) = (&route(1, 0), &route(2, 0), &route(2, 7));
        assert_eq!(of(&[a, b]), of(&[b, a]));
        assert_eq!(of(&[a]).join(of(&[b])), of(&[a, b]));
        assert_ne!(of(&[a, b]), of(&[a, c]));
        assert_ne!(of(&[a, b]), of(&[a]));
        assert_ne!(of(&[a, a]), of(&[a, b]));
    }
}
