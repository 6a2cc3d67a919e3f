//! The audit: now and then everything is compared with the kernel, whatever was heard, without holding up the loop.
//!
//! ```text
//!   due -> the thread reads, our own routes as digests
//!       -> what should be there is added up, a slice a turn -> the same: done
//!       -> the thread reads the buckets that differ, a group of them at a time
//!       -> compared route by route, a slice a turn -> what differs goes to the writer -> next group
//! ```
//!
//! When something moved meanwhile, digests that differ prove nothing: it begins again a little later. Where things never
//! rest it goes on after some such attempts: nothing is written or deleted in the end that is not right at that time.

use std::time::{Duration, Instant};

use bird_speaker::{FibCursor, Speaker};
use caracal_netlink::Event;

use super::{AUDIT, AUDIT_SHARE, Engine, LISTEN_RETRY};
use crate::audit::{Auditor, Buckets, Digests, Reading};
use crate::fib::Comparison;

/// Destinations looked at in one turn; about a millisecond.
const SLICE: usize = 8192;
/// Up to this many routes of ours the loop itself reads and compares; a few milliseconds.
const SMALL: usize = 4096;
/// Routes of the kernel that are compared one by one at a time; some 10 MB.
const GROUP: u64 = 65_536;
/// After so many readings in a row during which something moved, the comparison is made all the same.
const PATIENCE: u32 = 8;
/// Events remembered during a reading; with more it begins again.
const REMEMBERED: usize = 100_000;

/// How far an audit is.
#[derive(Debug)]
pub(super) struct Audit {
    auditor: Auditor,
    stage: Stage,
    begun: Instant,
    /// Changes of the kernel that were heard.
    heard: u64,
    /// Readings in a row that proved nothing.
    void: u32,
    /// There is reason to begin again as soon as this one is over.
    again: bool,
}

#[derive(Debug)]
enum Stage {
    Rest,
    Reading {
        /// What was heard since, which the reading may have or not.
        events: Vec<Event>,
        moves: u64,
    },
    Adding {
        at: FibCursor,
        should_be: Digests,
        kernel: Digests,
        moves: u64,
    },
    Fetching {
        buckets: Buckets,
        rest: Vec<Buckets>,
    },
    Comparing {
        at: FibCursor,
        found: Comparison,
        buckets: Buckets,
        rest: Vec<Buckets>,
    },
}

impl Audit {
    pub(super) fn new(auditor: Auditor) -> Self {
        Self { auditor, stage: Stage::Rest, begun: Instant::now(), heard: 0, void: 0, again: false }
    }

    /// Whether the loop has a slice to do.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.stage, Stage::Adding { .. } | Stage::Comparing { .. })
    }

    /// The monitor heard these.
    pub(super) fn hear(&mut self, heard: &[Event]) {
        self.heard += heard.len() as u64;
        if let Stage::Reading { events, .. } = &mut self.stage
            && events.len() < REMEMBERED
        {
            events.extend_from_slice(heard);
        }
    }
}

impl Engine {
    /// A number that is another one when something moved in the kernel, by others or by ourselves.
    fn moves(&self) -> u64 {
        self.audit.heard + self.fib.moves()
    }

    /// Whether so few routes of ours are in the kernel that reading and comparing them holds nobody up.
    pub(super) fn is_small(&self) -> bool {
        let Some(speaker) = &self.speaker else { return true };
        let (mut at, mut count) = (FibCursor::default(), 0);
        let mut slice = || speaker.fib_slice(&mut at, SLICE, |_, _| count += 1);
        // The first slice may end with IPv4, the second with IPv6.
        let more = slice() && slice();
        !more && count <= SMALL
    }

    /// An audit begins, after the one that is under way.
    pub(super) fn begin_audit(&mut self, now: Instant) {
        if !matches!(self.audit.stage, Stage::Rest) {
            self.audit.again = true;
            return;
        }
        self.audit.begun = now;
        self.audit.stage = Stage::Reading { events: Vec::new(), moves: self.moves() };
        self.audit.auditor.ask();
    }

    /// Goes on with an audit that is under way.
    pub(super) fn audit(&mut self) {
        match self.audit.auditor.answer() {
            Some(Ok(reading)) => self.take_reading(reading),
            Some(Err(err)) => {
                tracing::warn!(err = format!("{err:#}"), "the kernel cannot be read; trying again");
                self.audit.stage = Stage::Rest;
                self.next_audit(LISTEN_RETRY);
            }
            None => {}
        }
        match std::mem::replace(&mut self.audit.stage, Stage::Rest) {
            Stage::Adding { at, should_be, kernel, moves } => self.add_up(at, should_be, kernel, moves),
            Stage::Comparing { at, found, buckets, rest } => self.compare(at, found, buckets, rest),
            other => self.audit.stage = other,
        }
    }

    fn take_reading(&mut self, reading: Reading) {
        // What happened before the reading was complete is in the monitor's queue by now.
        self.read_monitor();
        match (std::mem::replace(&mut self.audit.stage, Stage::Rest), reading) {
            (Stage::Reading { events, moves }, Reading::All { links, addresses, routes, own }) => {
                if events.len() >= REMEMBERED {
                    self.prove_nothing();
                    return;
                }
                let effects = self.kernel.replace(links, addresses, routes);
                self.take(effects);
                let effects = self.kernel.observe(events);
                self.take(effects);
                if self.recovering {
                    // The kernel may hold more than the speaker knows yet.
                    self.finish();
                } else if self.is_small() {
                    self.recheck.own = true;
                    self.finish();
                } else if self.is_void(moves) {
                    self.prove_nothing();
                } else {
                    let (at, should_be) = (FibCursor::default(), Digests::default());
                    self.audit.stage = Stage::Adding { at, should_be, kernel: own, moves };
                }
            }
            (Stage::Fetching { buckets, rest }, Reading::Own(routes)) => {
                let (at, found) = (FibCursor::default(), Comparison::with(routes));
                self.audit.stage = Stage::Comparing { at, found, buckets, rest };
            }
            (stage, _) => self.audit.stage = stage,
        }
    }

    /// Whether something moved since, or is held back.
    fn is_void(&self, moves: u64) -> bool {
        self.audit.void < PATIENCE && (self.moves() != moves || self.calm.next_due().is_some())
    }

    fn prove_nothing(&mut self) {
        self.audit.void += 1;
        self.next_audit((self.audit.begun.elapsed() * 4).clamp(LISTEN_RETRY, AUDIT));
    }

    fn add_up(&mut self, mut at: FibCursor, mut should_be: Digests, kernel: Digests, moves: u64) {
        if self.is_void(moves) {
            self.prove_nothing();
            return;
        }
        let more = self.slice(&mut at, |engine, prefix, wanted| {
            if let Some(route) = engine.fib.should_be(&engine.kernel, prefix, wanted) {
                should_be.add(&route);
            }
        });
        if more {
            self.audit.stage = Stage::Adding { at, should_be, kernel, moves };
        } else {
            self.fetch(kernel.difference(&should_be, GROUP));
        }
    }

    /// Has the thread read the next of these.
    fn fetch(&mut self, mut rest: Vec<Buckets>) {
        let Some(buckets) = rest.pop() else {
            self.finish();
            return;
        };
        self.audit.auditor.ask_own(buckets.clone());
        self.audit.stage = Stage::Fetching { buckets, rest };
    }

    fn compare(&mut self, mut at: FibCursor, mut found: Comparison, buckets: Buckets, rest: Vec<Buckets>) {
        let more = self.slice(&mut at, |engine, prefix, wanted| {
            if buckets.have(prefix) {
                found.see(&engine.fib, &engine.kernel, prefix, wanted);
            }
        });
        if more {
            self.audit.stage = Stage::Comparing { at, found, buckets, rest };
            return;
        }
        self.mend(found);
        self.fetch(rest);
    }

    fn slice(
        &self,
        at: &mut FibCursor,
        mut each: impl FnMut(&Self, ipnet::IpNet, &bird_speaker::io::FibRoute),
    ) -> bool {
        let next =
            |speaker: &Speaker| speaker.fib_slice(at, SLICE, |prefix, wanted| each(self, prefix, wanted));
        self.speaker.as_ref().is_some_and(next)
    }

    fn finish(&mut self) {
        self.audit.void = 0;
        self.next_audit(AUDIT.max(self.audit.begun.elapsed() * AUDIT_SHARE));
    }

    fn next_audit(&mut self, pause: Duration) {
        let pause = if std::mem::take(&mut self.audit.again) { Duration::ZERO } else { pause };
        self.recheck.audit_at = Some(Instant::now() + pause);
    }

    /// What differs is written.
    pub(super) fn mend(&mut self, found: Comparison) {
        let count = self.fib.take(found);
        if count > 0 {
            tracing::info!(count, "routes that are not as they should be; they are written again");
        }
    }
}
