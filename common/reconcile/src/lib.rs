//! Desired against actual: deltas, passes, per-key backoff.
