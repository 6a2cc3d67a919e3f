//! A thread that notices when the loop stands still: the supervisor restarts us then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use caracal_process::Reporter;

/// The loop wakes at least this often.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// Without a beat for so long the loop is not live.
const PATIENCE: Duration = Duration::from_secs(20);

/// Beaten by the loop; ends its thread when dropped.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    origin: Instant,
}

#[derive(Debug, Default)]
struct Shared {
    beat_ms: AtomicU64,
    ended: AtomicBool,
}

impl Watchdog {
    pub(crate) fn start(reporter: Reporter) -> std::io::Result<Self> {
        let watchdog = Self { shared: Arc::default(), origin: Instant::now() };
        let (shared, origin) = (watchdog.shared.clone(), watchdog.origin);
        thread::Builder::new().name("felix-watchdog".into()).spawn(move || {
            while !shared.ended.load(Ordering::Relaxed) {
                thread::park_timeout(LONGEST_SLEEP);
                let beat = Duration::from_millis(shared.beat_ms.load(Ordering::Relaxed));
                if origin.elapsed().saturating_sub(beat) > PATIENCE {
                    reporter.not_live("the loop stands still");
                }
            }
        })?;
        Ok(watchdog)
    }

    pub(crate) fn beat(&self) {
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shared.beat_ms.store(now, Ordering::Relaxed);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
    }
}
