//! When a failed key is tried again.

use std::collections::BTreeMap;

use crate::Moment;

/// How long a key waits after each failure in a row: `first`, then twice as long each time, never above `most`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Moment,
    /// The longest wait.
    pub most: Moment,
}

impl Default for Backoff {
    /// 50 ms, doubling up to 5 s: an expected race heals at once, a standing fault costs little.
    fn default() -> Self {
        Self { first: Moment::from_millis(50), most: Moment::from_secs(5) }
    }
}

impl Backoff {
    /// The wait after `failures` failures in a row.
    pub fn after(&self, failures: u32) -> Moment {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1u32 << doublings).min(self.most)
    }
}

/// Keys that failed, each with its own next attempt.
#[derive(Clone, Debug)]
pub struct Retries<K> {
    backoff: Backoff,
    waiting: BTreeMap<K, Wait>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    due: Moment,
    failures: u32,
}

impl<K: Ord + Clone> Retries<K> {
    /// No key waits yet.
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, waiting: BTreeMap::new() }
    }

    /// One more failure of `key`; returns how many there were in a row.
    pub fn failed(&mut self, key: K, now: Moment) -> u32 {
        let wait = self.waiting.entry(key).or_insert(Wait { due: now, failures: 0 });
        wait.failures = wait.failures.saturating_add(1);
        wait.due = now.saturating_add(self.backoff.after(wait.failures));
        wait.failures
    }

    /// The next attempt of `key` is at `due`; this is no failure.
    pub fn defer(&mut self, key: K, due: Moment) {
        self.waiting.entry(key).and_modify(|wait| wait.due = due).or_insert(Wait { due, failures: 0 });
    }

    /// `key` succeeded, or what was wanted of it changed: nothing is held against it any more.
    pub fn forget(&mut self, key: &K) {
        self.waiting.remove(key);
    }

    /// Failures in a row of `key`.
    pub fn failures(&self, key: &K) -> u32 {
        self.waiting.get(key).map_or(0, |wait| wait.failures)
    }

    /// Whether `key` waits for a moment after `now`.
    pub fn waits(&self, key: &K, now: Moment) -> bool {
        self.waiting.get(key).is_some_and(|wait| wait.due > now)
    }

    /// Keys whose moment has come. They keep their count of failures until [`Retries::forget`].
    pub fn due(&self, now: Moment) -> Vec<K> {
        self.waiting.iter().filter(|(_, wait)| wait.due <= now).map(|(key, _)| key.clone()).collect()
    }

    /// When the next key comes due.
    pub fn next_due(&self) -> Option<Moment> {
        self.waiting.values().map(|wait| wait.due).min()
    }

    /// How many keys wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no key waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff { first: Moment::from_millis(50), most: Moment::from_secs(1) };
        let waits: Vec<u128> = (1..8).map(|n| backoff.after(n).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.after(u32::MAX), Moment::from_secs(1));
    }

    #[test]
    fn success_clears_the_count() {
        let mut retries = Retries::new(Backoff::default());
        assert_eq!(retries.failed("a", Moment::ZERO), 1);
        assert_eq!(retries.failed("a", Moment::from_millis(50)), 2);
        assert!(retries.waits(&"a", Moment::from_millis(149)));
        assert_eq!(retries.due(Moment::from_millis(150)), ["a"]);
        retries.forget(&"a");
        assert_eq!(retries.failed("a", Moment::from_millis(150)), 1);
    }
}
