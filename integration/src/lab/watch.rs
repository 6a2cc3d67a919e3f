//! Every change of a host's routes, with the time at which the kernel told it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use caracal_netlink::{Event, Groups, Monitor, Route};
use ipnet::IpNet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Namespace;

/// One change.
#[derive(Clone, Debug)]
pub struct RouteChange {
    /// When it was received.
    pub at: Instant,
    /// The route.
    pub route: Route,
    /// Deleted, not added.
    pub gone: bool,
}

#[derive(Debug, Default)]
struct Shared {
    changes: Mutex<Vec<RouteChange>>,
    more: Condvar,
    stop: AtomicBool,
    overrun: AtomicBool,
}

/// A subscription to the routes of one host; ends when dropped.
#[derive(Debug)]
pub struct RouteWatch {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

impl RouteWatch {
    /// Listens to the routes of `space` from now on.
    pub fn start(space: &Namespace) -> anyhow::Result<Self> {
        let mut monitor = Monitor::open_in(Groups::ROUTE, &space.path())?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let reader = thread::spawn(move || read(&mut monitor, &theirs));
        Ok(Self { shared, reader: Some(reader) })
    }

    /// Everything heard since the start or the last [`RouteWatch::take`].
    pub fn take(&self) -> Vec<RouteChange> {
        assert!(
            !self.shared.overrun.load(Ordering::SeqCst),
            "lab: route events were lost; the test knows nothing"
        );
        std::mem::take(&mut *self.shared.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until each of `wanted` was heard of (added, or `gone`) since the last [`RouteWatch::take`];
    /// when each first was, or those that were by `limit`.
    pub fn first(&self, wanted: &[IpNet], gone: bool, limit: Duration) -> BTreeMap<IpNet, Instant> {
        let deadline = Instant::now() + limit;
        let mut open: std::collections::BTreeSet<IpNet> = wanted.iter().copied().collect();
        let (mut seen, mut read) = (BTreeMap::new(), 0);
        let mut changes = self.shared.changes.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            for change in changes.iter().skip(read) {
                if change.gone == gone && open.remove(&change.route.dst) {
                    seen.insert(change.route.dst, change.at);
                }
            }
            read = changes.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if open.is_empty() || left.is_zero() {
                return seen;
            }
            changes = self.shared.more.wait_timeout(changes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for RouteWatch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn read(monitor: &mut Monitor, shared: &Shared) {
    while !shared.stop.load(Ordering::SeqCst) {
        wait_readable(monitor.as_fd());
        let events = match monitor.try_next() {
            Ok(events) if events.is_empty() => continue,
            Ok(events) => events,
            Err(_) => return shared.overrun.store(true, Ordering::SeqCst),
        };
        let at = Instant::now();
        let mut changes = shared.changes.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            match event {
                Event::Route { route, gone, .. } => changes.push(RouteChange { at, route, gone }),
                Event::Overrun => shared.overrun.store(true, Ordering::SeqCst),
                _ => {}
            }
        }
        drop(changes);
        shared.more.notify_all();
    }
}

fn wait_readable(fd: BorrowedFd<'_>) {
    let _ = poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(100u16));
}
