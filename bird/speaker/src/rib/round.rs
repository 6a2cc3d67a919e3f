//! A walk round all destinations of a table, in steps and for several purposes at a time, each of which begins where the
//! walk happens to be and is over when it comes by there again. Destinations made meanwhile are new to nobody.

use super::index32;
use super::table::DestId;

/// Where a walk is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Round {
    at: usize,
    laps: u64,
}

/// Where a purpose began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lap {
    from: usize,
    lap: u64,
}

impl Round {
    /// A purpose begins.
    pub(super) fn begin(&self) -> Lap {
        Lap { from: self.at, lap: self.laps }
    }

    /// The next of `bound` destinations; `None` if there are none.
    pub(super) fn next(&mut self, bound: usize) -> Option<DestId> {
        if self.at >= bound {
            // The table shrank; a lap from beyond its end is over after this one.
            self.turn();
        }
        if bound == 0 {
            self.turn();
            return None;
        }
        let id = index32(self.at);
        self.at += 1;
        if self.at == bound {
            self.turn();
        }
        Some(id)
    }

    fn turn(&mut self) {
        self.at = 0;
        self.laps += 1;
    }

    /// Whether the walk has seen every destination since `lap` began.
    pub(super) fn is_over(&self, lap: Lap) -> bool {
        self.laps > lap.lap + 1 || (self.laps == lap.lap + 1 && self.at >= lap.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is seen until it is over, with the bound of each step.
    fn seen(round: &mut Round, mut bound: impl FnMut(usize) -> usize) -> Vec<DestId> {
        let lap = round.begin();
        let mut seen = Vec::new();
        for step in 0..1000 {
            if round.is_over(lap) {
                return seen;
            }
            seen.extend(round.next(bound(step)));
        }
        panic!("it does not end");
    }

    #[test]
    fn everything_is_seen_wherever_it_begins() {
        for begin in 0..6 {
            let mut round = Round::default();
            for _ in 0..begin {
                round.next(5);
            }
            let mut all = seen(&mut round, |_| 5);
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4], "from {begin}");
        }
    }

    #[test]
    fn a_table_that_grows_meanwhile_hides_nothing() {
        for begin in 0..6 {
            let mut round = Round::default();
            for _ in 0..begin {
                round.next(5);
            }
            let all = seen(&mut round, |step| 5 + 3 * step.min(4));
            assert!((0..5).all(|id| all.contains(&id)), "from {begin}: {all:?}");
        }
    }

    #[test]
    fn a_table_that_shrinks_or_empties_ends_it() {
        let mut round = Round::default();
        for _ in 0..7 {
            round.next(10);
        }
        let all = seen(&mut round, |_| 3);
        assert!((0..3).all(|id| all.contains(&id)), "{all:?}");
        assert_eq!(seen(&mut round, |_| 0), []);
    }
}
