//! The clock by which keys expire: it runs while the host sleeps, is the same for all processes and
//! never jumps; it starts anew with each boot, which the boot's identity tells.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds since this boot.
pub(super) fn now() -> i64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |now| now.tv_sec().saturating_mul(1000).saturating_add(now.tv_nsec() / 1_000_000))
}

/// The identity of this boot.
pub(super) fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}
