//! Waiting for a state, never for a time.

use std::thread;
use std::time::{Duration, Instant};

/// Asks `check` until it says `Ok`, every few milliseconds; gives its last complaint after `limit`.
///
/// Returns how long it took.
pub fn eventually<T>(
    limit: Duration,
    mut check: impl FnMut() -> Result<T, String>,
) -> anyhow::Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        match check() {
            Ok(value) => return Ok((value, start.elapsed())),
            Err(why) if start.elapsed() > limit => anyhow::bail!("not so after {limit:?}: {why}"),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}
