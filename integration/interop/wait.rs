//! Waiting for what a client program of a daemon says: asked ten times a second, not two hundred times.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(100);

/// Seconds for which what is waited for in vain is left as it is.
static HOLD: AtomicU64 = AtomicU64::new(0);

/// Leaves a failed cell running for a while, to be looked at.
pub(crate) fn hold(seconds: u64) {
    HOLD.store(seconds, Ordering::Relaxed);
}

/// Asks until the answer is `Ok`; its last complaint after `limit`.
pub(crate) fn wait<T>(limit: Duration, mut check: impl FnMut() -> Result<T, String>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(why) if start.elapsed() > limit => {
                let hold = HOLD.load(Ordering::Relaxed);
                if hold > 0 {
                    eprintln!(
                        "{why}\nleft as it is for {hold} s; look below io-* in /dev/shm or /tmp, and in /run/netns"
                    );
                    std::thread::sleep(Duration::from_secs(hold));
                }
                anyhow::bail!("not so after {limit:?}: {why}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
