//! Slow removals, away from the loop: links that we made, and connections of addresses that changed hands.
//!
//! Deleting a pair costs about 16 ms of waiting in the kernel and a conntrack table may have a million entries;
//! the routes of other workloads must not wait for either. What arrives while one round runs goes into the next,
//! in one batch.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use caracal_netlink::conntrack::Conntrack;
use caracal_netlink::{Errno, Error, Netlink, sysctl};

/// The table of connections is walked so often at most.
const BETWEEN_WALKS: Duration = Duration::from_millis(100);

/// Hands work to the two cleaning threads; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Janitor {
    links: Arc<Bin<u32>>,
    addresses: Arc<Bin<IpAddr>>,
}

impl Janitor {
    /// Starts the threads in the calling thread's network namespace.
    pub(crate) fn start() -> Result<Self, Error> {
        let janitor = Self { links: Arc::default(), addresses: Arc::default() };
        let mut netlink = Netlink::open()?;
        let links = janitor.links.clone();
        spawn("felix-links", move || {
            while let Some(doomed) = links.take() {
                delete_links(&mut netlink, &doomed);
            }
        })?;
        let addresses = janitor.addresses.clone();
        spawn("felix-conntrack", move || {
            let mut conntrack = None;
            while let Some(left) = addresses.take() {
                forget_connections(&mut conntrack, &left);
                // What leaves meanwhile shares the next walk over the table.
                thread::sleep(BETWEEN_WALKS);
            }
        })?;
        Ok(janitor)
    }

    pub(crate) fn delete_link(&self, index: u32) {
        self.links.put([index]);
    }

    pub(crate) fn forget_connections(&self, addresses: Vec<IpAddr>) {
        if !addresses.is_empty() {
            self.addresses.put(addresses);
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.links.close();
        self.addresses.close();
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let spawned = thread::Builder::new().name(name.into()).spawn(work);
    spawned.map(drop).map_err(|source| Error::Socket { doing: "start of a cleaning thread", source })
}

fn delete_links(netlink: &mut Netlink, doomed: &BTreeSet<u32>) {
    let refused = |failed: Vec<(usize, Errno)>| {
        // ENODEV: it went by itself, with its namespace for example.
        for (_, err) in failed.into_iter().filter(|(_, errno)| *errno != Errno::ENODEV) {
            tracing::warn!(%err, "link of a removed endpoint cannot be deleted; the next audit tries again");
        }
    };
    let doomed: Vec<u32> = doomed.iter().copied().collect();
    match netlink.delete_links(&doomed) {
        Ok(failed) => refused(failed),
        Err(err) => {
            tracing::warn!(%err, "links of removed endpoints cannot be deleted; the next audit tries again");
        }
    }
}

fn forget_connections(conntrack: &mut Option<Conntrack>, left: &BTreeSet<IpAddr>) {
    // A walk over the table costs milliseconds even when it is empty.
    if sysctl::read("netfilter/nf_conntrack_count").is_ok_and(|count| count.as_deref() == Some("0")) {
        return;
    }
    let open = match conntrack.take() {
        Some(open) => Ok(open),
        None => Conntrack::open(),
    };
    let deleted = open.and_then(|mut open| {
        let deleted = open.delete(left)?;
        *conntrack = Some(open);
        Ok(deleted)
    });
    match deleted {
        Ok(count) => {
            tracing::debug!(addresses = left.len(), count, "connections of removed addresses forgotten");
        }
        // A kernel without connection tracking has nothing to forget.
        Err(err) => tracing::debug!(%err, "connections of removed addresses cannot be forgotten"),
    }
}

/// A set that one side fills and the other empties at once.
#[derive(Debug)]
struct Bin<T> {
    state: Mutex<(BTreeSet<T>, bool)>,
    filled: Condvar,
}

impl<T> Default for Bin<T> {
    fn default() -> Self {
        Self { state: Mutex::new((BTreeSet::new(), false)), filled: Condvar::new() }
    }
}

impl<T: Ord> Bin<T> {
    fn put(&self, items: impl IntoIterator<Item = T>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.extend(items);
        self.filled.notify_one();
    }

    fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.filled.notify_one();
    }

    /// Everything in it, waiting for something; nothing when it is closed and empty.
    fn take(&self) -> Option<BTreeSet<T>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if !state.0.is_empty() {
                return Some(std::mem::take(&mut state.0));
            }
            if state.1 {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
