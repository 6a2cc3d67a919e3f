//! A prefix that flaps costs the kernel a few writes a second, not one for each flap.
//!
//! The first changes of a prefix go through at once. One that changed often within a second has its next changes held
//! back for a moment; only their outcome is written. Nothing is kept of prefixes that are merely added: a full table
//! costs nothing here. Of the others a small table of fixed size is kept, in which a newer prefix may take the place of
//! an older one; the older one is then written as if it had been calm.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use bird_speaker::io::FibChange;
use ipnet::IpNet;

/// Changes within [`WINDOW`] that are written at once.
const FREE: u32 = 8;
const WINDOW: Duration = Duration::from_secs(1);
/// How long changes beyond that are held.
const HOLD: Duration = Duration::from_millis(200);
/// Our own deletion comes back to us as an event within this time.
const ECHO: Duration = Duration::from_millis(200);
const SLOTS: usize = 4096;

/// What changed lately, and what is held back.
#[derive(Debug, Default)]
pub(crate) struct Calm {
    slots: Vec<Option<Slot>>,
    held: BTreeMap<IpNet, Held>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    prefix: IpNet,
    /// Beginning of its window, and changes in it.
    since: Instant,
    changes: u32,
    /// The window before was lively too.
    lively: bool,
    /// When we deleted its route last.
    deleted: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    change: FibChange,
    due: Instant,
}

impl Calm {
    /// Which of these changes are to be written now; the others come from [`Calm::due`] later.
    pub(crate) fn pass(&mut self, changes: Vec<FibChange>, now: Instant) -> Vec<FibChange> {
        let mut pass = changes;
        pass.retain(|change| {
            let known =
                change.old.is_some() || (!self.slots.is_empty() && self.slot(change.prefix).is_some());
            if !known {
                return true;
            }
            let restless = self.count(change, now);
            if let Some(held) = self.held.get_mut(&change.prefix) {
                // What the kernel has is still what it had when the first change was held.
                held.change.new.clone_from(&change.new);
                return false;
            }
            if restless {
                self.held.insert(change.prefix, Held { change: change.clone(), due: now + HOLD });
                return false;
            }
            if change.new.is_none()
                && let Some(slot) = self.slot(change.prefix)
            {
                slot.deleted = Some(now);
            }
            true
        });
        pass
    }

    /// What was held long enough, or all of it.
    pub(crate) fn due(&mut self, now: Instant, all: bool) -> Vec<FibChange> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let due: Vec<IpNet> =
            self.held.iter().filter(|(_, held)| all || held.due <= now).map(|(prefix, _)| *prefix).collect();
        let mut changes: Vec<FibChange> =
            due.iter().filter_map(|prefix| self.held.remove(prefix)).map(|held| held.change).collect();
        changes.retain(|change| change.old != change.new);
        for change in changes.iter().filter(|c| c.new.is_none()) {
            if let Some(slot) = self.slot(change.prefix) {
                slot.deleted = Some(now);
            }
        }
        changes
    }

    /// When [`Calm::due`] has something.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.held.values().map(|held| held.due).min()
    }

    /// Whether an event about the loss of this prefix's route is to be left alone: the route is about to be written, or
    /// it was our own deletion.
    pub(crate) fn explains(&mut self, prefix: IpNet, now: Instant) -> bool {
        self.held.contains_key(&prefix)
            || self
                .slot(prefix)
                .and_then(|slot| slot.deleted)
                .is_some_and(|at| now.saturating_duration_since(at) < ECHO)
    }

    /// Counts a change; whether there were too many.
    fn count(&mut self, change: &FibChange, now: Instant) -> bool {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, None);
        }
        let place = place(change.prefix);
        let slot = match &mut self.slots[place] {
            Some(slot) if slot.prefix == change.prefix => slot,
            other => other.insert(Slot {
                prefix: change.prefix,
                since: now,
                changes: 0,
                lively: false,
                deleted: None,
            }),
        };
        let age = now.saturating_duration_since(slot.since);
        if age >= WINDOW {
            slot.lively = slot.changes > FREE && age < 2 * WINDOW;
            slot.since = now;
            slot.changes = 0;
        }
        slot.changes += 1;
        slot.lively || slot.changes > FREE
    }

    fn slot(&mut self, prefix: IpNet) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(place(prefix))?.as_mut()?;
        (slot.prefix == prefix).then_some(slot)
    }
}

fn place(prefix: IpNet) -> usize {
    let mut hasher = DefaultHasher::new();
    prefix.hash(&mut hasher);
    usize::try_from(hasher.finish() % SLOTS as u64).expect("invariant: below SLOTS")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bird_speaker::io::{FibRoute, FibTarget};

    use super::*;

    fn change(prefix: &str, old: Option<u32>, new: Option<u32>) -> FibChange {
        let route = |metric: u32| Arc::new(FibRoute { target: FibTarget::Blackhole, metric });
        FibChange { prefix: prefix.parse().unwrap(), old: old.map(route), new: new.map(route) }
    }

    /// The kernel as the writes make it, and how many there were.
    #[derive(Default)]
    struct Kernel {
        has: Option<u32>,
        writes: usize,
    }

    impl Kernel {
        fn write(&mut self, changes: &[FibChange]) {
            for c in changes {
                assert_eq!(
                    c.old.as_ref().map(|r| r.metric),
                    self.has,
                    "the old route is what the kernel has"
                );
                self.has = c.new.as_ref().map(|r| r.metric);
                self.writes += 1;
            }
        }
    }

    #[test]
    fn a_flapping_prefix_is_written_a_few_times_a_second_and_ends_right() {
        let (mut calm, mut kernel, start) = (Calm::default(), Kernel::default(), Instant::now());
        let mut last = None;
        for step in 0..2000u32 {
            let now = start + Duration::from_millis(5) * step;
            let due = calm.due(now, false);
            kernel.write(&due);
            let new = (step % 2 == 0).then_some(1 + step % 3);
            let written = calm.pass(vec![change("10.0.0.0/8", last, new)], now);
            kernel.write(&written);
            last = new;
        }
        // 10 s.
        assert!((40..=70).contains(&kernel.writes), "{} writes", kernel.writes);
        let now = start + Duration::from_secs(11);
        let due = calm.due(now, false);
        kernel.write(&due);
        assert_eq!((kernel.has, calm.next_due()), (last, None));
        let written = calm.pass(vec![change("10.0.0.0/8", last, Some(9))], now + Duration::from_secs(2));
        assert_eq!(written.len(), 1, "calm again");
    }

    #[test]
    fn a_table_that_comes_and_goes_is_never_held() {
        let (mut calm, now) = (Calm::default(), Instant::now());
        let each = |old, new| {
            (0..30_000u32).map(move |n| change(&format!("10.{}.{}.0/24", n / 256, n % 256), old, new))
        };
        assert_eq!(calm.pass(each(None, Some(1)).collect(), now).len(), 30_000);
        assert!(calm.slots.is_empty(), "additions leave no trace");
        assert_eq!(calm.pass(each(Some(1), None).collect(), now).len(), 30_000);
        assert_eq!(calm.next_due(), None);
    }

    #[test]
    fn our_own_deletion_explains_its_event_for_a_moment() {
        let (mut calm, now) = (Calm::default(), Instant::now());
        let prefix = "10.0.0.0/8".parse().unwrap();
        assert!(!calm.explains(prefix, now));
        calm.pass(vec![change("10.0.0.0/8", Some(1), None)], now);
        assert!(calm.explains(prefix, now + Duration::from_millis(10)));
        assert!(!calm.explains(prefix, now + Duration::from_secs(1)));
    }
}
