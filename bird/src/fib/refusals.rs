//! Routes that the kernel refuses, and when each is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

use caracal_netlink::Errno;
use ipnet::IpNet;

/// First and longest pause before a refused route is tried again without any sign of change.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

#[derive(Debug, Default)]
pub(super) struct Refusals {
    routes: BTreeMap<IpNet, Refused>,
    by_due: BTreeSet<(Instant, IpNet)>,
    /// All are tried again now; those up to here are done with.
    pass: Option<Bound<IpNet>>,
}

#[derive(Debug)]
pub(super) struct Refused {
    errno: Errno,
    due: Instant,
    pause: Duration,
}

impl Refusals {
    pub(super) fn add(&mut self, prefix: IpNet, errno: Errno, now: Instant) {
        let pause = self.remove(prefix).map_or(PAUSE.0, |r| (r.pause * 2).min(PAUSE.1));
        self.put(prefix, Refused { errno, due: now + pause, pause });
    }

    /// It is written, or not wanted as it was.
    pub(super) fn remove(&mut self, prefix: IpNet) -> Option<Refused> {
        let old = self.routes.remove(&prefix)?;
        self.by_due.remove(&(old.due, prefix));
        Some(old)
    }

    pub(super) fn why(&self, prefix: IpNet) -> Option<Errno> {
        self.routes.get(&prefix).map(|r| r.errno)
    }

    pub(super) fn len(&self) -> usize {
        self.routes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The reason may be gone: all are tried again.
    pub(super) fn all_again(&mut self) {
        self.pass = (!self.is_empty()).then_some(Bound::Unbounded);
    }

    /// Whether some are to be tried now, whatever the time.
    pub(super) fn has_pass(&self) -> bool {
        self.pass.is_some()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// Up to `max` that are to be tried now. Each waits again from now on.
    pub(super) fn take(&mut self, max: usize, now: Instant) -> Vec<IpNet> {
        let mut taken: Vec<IpNet> = Vec::new();
        if let Some(from) = self.pass.take() {
            taken.extend(self.routes.range((from, Bound::Unbounded)).take(max).map(|(prefix, _)| *prefix));
            self.pass = taken.last().filter(|_| taken.len() == max).map(|last| Bound::Excluded(*last));
        }
        let due = self.by_due.iter().take_while(|(due, _)| *due <= now);
        taken.extend(due.map(|(_, prefix)| *prefix).take(max - taken.len()).collect::<Vec<_>>());
        for prefix in &taken {
            if let Some(refused) = self.remove(*prefix) {
                self.put(*prefix, Refused { due: now + refused.pause, ..refused });
            }
        }
        taken
    }

    fn put(&mut self, prefix: IpNet, refused: Refused) {
        self.by_due.insert((refused.due, prefix));
        self.routes.insert(prefix, refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(n: u32) -> IpNet {
        IpNet::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into(), 32).unwrap()
    }

    #[test]
    fn a_refused_route_is_tried_again_after_ever_longer_pauses() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            refusals.add(prefix(1), Errno::ENETUNREACH, now);
            assert!(refusals.take(10, now).is_empty());
            let due = refusals.next_due().unwrap();
            pauses.push((due - now).as_millis());
            now = due;
            assert_eq!(refusals.take(10, now), [prefix(1)]);
            assert!(refusals.take(10, now).is_empty(), "the answer is waited for");
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        assert!(refusals.remove(prefix(1)).is_some());
        assert_eq!((refusals.len(), refusals.next_due(), refusals.why(prefix(1))), (0, None, None));
    }

    #[test]
    fn all_are_tried_again_once_and_in_pieces() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        refusals.all_again();
        assert!(!refusals.has_pass(), "there are none");
        for n in 0..25 {
            refusals.add(prefix(n), Errno::ENETUNREACH, now);
        }
        refusals.all_again();
        let mut taken = Vec::new();
        while refusals.has_pass() {
            let some = refusals.take(10, now);
            assert!(some.len() <= 10);
            taken.extend(some);
        }
        assert_eq!(taken, (0..25).map(prefix).collect::<Vec<_>>());
        assert!(refusals.take(10, now).is_empty());
    }
}
