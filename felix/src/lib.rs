//! The worker: one loop over sync events, the netlink monitor and timers.
