//! Which node owns which block: a pure plan and a compare-and-swap client.
