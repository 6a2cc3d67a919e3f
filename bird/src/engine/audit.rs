//! The audit: now and then everything is compared with the kernel, whatever was heard, without holding up the loop.
//!
//! ```text
//!   due -> ask the thread -> its reading -> add up what should be there, a slice a turn -> the same: done
//!                               |                                       |                  else: compare route by route
//!                               +-- something moved meanwhile: it proves nothing, once more at the next turn
//! ```

use std::time::Instant;

use bird_speaker::FibCursor;

use super::{AUDIT, Engine, LISTEN_RETRY};
use crate::audit::{Auditor, Digest, Reading};

/// Destinations added up in one turn; about a millisecond.
const SLICE: usize = 8192;
/// Up to this many routes of ours the loop itself reads and compares; a few milliseconds.
const SMALL: u64 = 4096;
/// The loop itself reads after so many readings in a row during which something moved.
const PATIENCE: u32 = 8;

/// How far an audit is.
#[derive(Debug)]
pub(super) struct Audit {
    auditor: Option<Auditor>,
    /// Changes of the kernel that were heard.
    pub(super) heard: u64,
    /// The thread reads; how much had moved when it was asked.
    asked: Option<u64>,
    comparing: Option<Comparing>,
    /// Readings in a row that proved nothing.
    void: u32,
}

#[derive(Debug)]
struct Comparing {
    moved: u64,
    at: FibCursor,
    sum: Digest,
    kernel: Digest,
}

impl Audit {
    pub(super) fn new(auditor: Option<Auditor>) -> Self {
        Self { auditor, heard: 0, asked: None, comparing: None, void: 0 }
    }

    /// Whether the loop has a slice to do.
    pub(super) fn is_busy(&self) -> bool {
        self.comparing.is_some()
    }
}

impl Engine {
    /// Counts what moved in the kernel, by others and by ourselves.
    fn moved(&self) -> u64 {
        self.audit.heard + self.fib.written.requests
    }

    /// The audit is due.
    pub(super) fn begin_audit(&mut self, now: Instant) {
        if self.audit.asked.is_some() || self.audit.comparing.is_some() {
            return;
        }
        let moved = self.moved();
        if self.audit.auditor.as_ref().is_some_and(Auditor::ask) {
            self.audit.asked = Some(moved);
        } else {
            self.recheck.all_at = Some(now);
        }
    }

    /// Goes on with an audit that is under way.
    pub(super) fn audit(&mut self) {
        if let Some(answer) = self.audit.auditor.as_ref().and_then(Auditor::answer) {
            let moved = self.audit.asked.take().unwrap_or(0);
            match answer {
                Ok(reading) => self.take_reading(reading, moved),
                Err(err) => {
                    tracing::warn!(err = format!("{err:#}"), "the kernel cannot be read; trying again");
                    self.recheck.audit_at = Some(Instant::now() + LISTEN_RETRY);
                }
            }
        }
        self.compare_slice();
    }

    fn take_reading(&mut self, reading: Reading, moved: u64) {
        // What happened before the reading was complete is in the monitor's queue by now.
        self.read_monitor();
        if reading.own.count <= SMALL {
            self.recheck.all_at = Some(Instant::now());
        } else if self.moved() == moved && !self.recovering {
            let effects = self.kernel.replace(reading.links, reading.addresses, reading.routes);
            self.take(effects);
            self.audit.comparing = Some(Comparing {
                moved,
                at: FibCursor::default(),
                sum: Digest::default(),
                kernel: reading.own,
            });
        } else {
            self.prove_nothing();
        }
    }

    fn prove_nothing(&mut self) {
        self.audit.void += 1;
        if self.audit.void >= PATIENCE {
            self.audit.void = 0;
            self.recheck.all_at = Some(Instant::now());
        }
    }

    fn compare_slice(&mut self) {
        let moved = self.moved();
        let (Some(c), Some(speaker)) = (&mut self.audit.comparing, &self.speaker) else { return };
        if c.moved != moved {
            self.audit.comparing = None;
            self.prove_nothing();
            return;
        }
        let more = speaker.fib_slice(&mut c.at, SLICE, |prefix, wanted| {
            if let Some(route) = self.fib.should_be(&self.kernel, prefix, wanted) {
                c.sum.add(&route);
            }
        });
        if more {
            return;
        }
        let differs = c.sum != c.kernel;
        self.audit.comparing = None;
        self.audit.void = 0;
        self.recheck.audit_at = Some(Instant::now() + AUDIT);
        self.recheck.own |= differs;
    }
}
