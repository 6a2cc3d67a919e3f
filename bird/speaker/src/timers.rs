//! When to look at what: a heap that may hold entries that are no longer true; whoever is looked at knows its own deadlines.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::io::Time;

/// Who has a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// A connection, by slot.
    Conn(usize),
    /// A peer, by number.
    Peer(u16),
    /// Our own restart.
    Restart,
    /// Freeing numbers, retrying the kernel.
    Housekeeping,
    /// A group that waits for slow readers.
    Groups,
}

/// Pending looks.
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Time, Owner)>>,
}

impl Timers {
    /// Look at `owner` at `at`.
    pub(crate) fn push(&mut self, at: Time, owner: Owner) {
        self.heap.push(Reverse((at, owner)));
    }

    /// The next owner to look at by `now`.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(Time, Owner)> {
        if self.heap.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            return self.heap.pop().map(|Reverse(due)| due);
        }
        None
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

/// Small, seeded, and good enough for jitter.
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Jitter(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Between 75 % and 100 % of a time (RFC 4271 §10).
    pub(crate) fn spread(&mut self, time: Time) -> Time {
        let part = u32::try_from(self.next() >> 40).unwrap_or(0); // 24 bits
        time.saturating_sub(time.saturating_mul(part) / (4 << 24))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_its_quarter() {
        let mut jitter = Jitter::new(1);
        let whole = Time::from_secs(4);
        let mut different = std::collections::HashSet::new();
        for _ in 0..1000 {
            let t = jitter.spread(whole);
            assert!(t > Time::from_secs(3) - Time::from_millis(1) && t <= whole, "{t:?}");
            different.insert(t);
        }
        assert!(different.len() > 900);
    }
}
