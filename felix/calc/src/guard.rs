//! When most of this node's endpoints vanish in one resync: hold, alarm, then obey.
//!
//! A single deletion, or a thousand that arrive as events, are somebody's will and are obeyed at once. A resync
//! that finds most of what was there missing may be a wrong prefix, an empty restore, another cluster's etcd.

use std::time::Duration;

use caracal_reconcile::Moment;

/// More than this many endpoints have to vanish, or it is no accident worth a hold.
const FLOOR: usize = 10;

/// Holds the removal of endpoints after a suspicious resync.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    held_until: Option<Moment>,
    /// The hold ran out: what is missing now was obeyed.
    obeyed: bool,
}

/// What to do with the endpoints that a resync did not find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Remove them.
    Obey,
    /// Keep them until this moment, then ask again.
    Hold(Moment),
}

impl Guard {
    /// Nothing is held.
    pub fn new() -> Self {
        Self::default()
    }

    /// A resync ended: of `before` endpoints that are programmed, `missing` are wanted no more.
    pub fn on_resync(&mut self, now: Moment, before: usize, missing: usize, hold: Duration) -> Verdict {
        if missing <= FLOOR || missing.saturating_mul(2) <= before || hold.is_zero() {
            self.held_until = None;
            return Verdict::Obey;
        }
        // A second suspicious resync does not make the hold longer: it ends at a known moment.
        Verdict::Hold(*self.held_until.get_or_insert(now.saturating_add(hold)))
    }

    /// Whether removals found by a resync are still held at `now`; the end of a hold is reported once.
    pub fn poll(&mut self, now: Moment) -> bool {
        match self.held_until {
            Some(until) if until > now => true,
            Some(_) => {
                self.held_until = None;
                self.obeyed = true;
                false
            }
            None => false,
        }
    }

    /// When the hold ends.
    pub fn held_until(&self) -> Option<Moment> {
        self.held_until
    }

    /// Whether a hold ended by its own since the last call.
    pub fn take_obeyed(&mut self) -> bool {
        std::mem::take(&mut self.obeyed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(30);

    #[test]
    fn few_or_less_than_half_are_obeyed() {
        let mut guard = Guard::new();
        for (before, missing) in [(0, 0), (10, 10), (100, 50), (1000, 11)] {
            assert_eq!(
                guard.on_resync(Moment::ZERO, before, missing, HOLD),
                Verdict::Obey,
                "{missing} of {before}"
            );
        }
    }

    #[test]
    fn most_are_held_then_obeyed_once() {
        let mut guard = Guard::new();
        let end = Moment::from_secs(31);
        assert_eq!(guard.on_resync(Moment::from_secs(1), 20, 11, HOLD), Verdict::Hold(end));
        assert!(guard.poll(Moment::from_secs(30)));
        assert_eq!(guard.on_resync(Moment::from_secs(30), 20, 12, HOLD), Verdict::Hold(end));
        assert!(!guard.poll(end));
        assert!(guard.take_obeyed());
        assert!(!guard.take_obeyed());
    }

    #[test]
    fn endpoints_that_return_end_the_hold() {
        let mut guard = Guard::new();
        guard.on_resync(Moment::ZERO, 20, 20, HOLD);
        assert_eq!(guard.on_resync(Moment::from_secs(2), 20, 0, HOLD), Verdict::Obey);
        assert_eq!(guard.held_until(), None);
        assert!(!guard.poll(Moment::from_secs(40)));
        assert!(!guard.take_obeyed());
    }
}
