//! Routes: storms, odd next hops, slow readers, limits.
