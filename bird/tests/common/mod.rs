//! What the suites of the daemon share.
#![allow(dead_code, unreachable_pub, reason = "each suite uses its part")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot set up has failed")]

use std::path::PathBuf;

use caracal_netlink::{Event, Groups, Monitor};
use integration::lab::Namespace;

/// Built by cargo beside the tests.
pub fn router() -> PathBuf {
    let path = std::env::current_exe().unwrap();
    let path = path.ancestors().nth(2).unwrap().join("examples/router");
    assert!(path.exists(), "cargo build -p bird --examples, which a plain cargo test does");
    path
}

/// Changes of routes in a namespace from now on.
pub fn watch(space: &Namespace) -> Monitor {
    let path = space.path();
    space.run(move || Monitor::open_in(Groups::ROUTE, &path).unwrap())
}

/// What changed since the last look, of routes of BGP daemons: ours and BIRD's (12, 186).
pub fn changes(monitor: &mut Monitor) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let events = monitor.try_next().unwrap();
        if events.is_empty() {
            return all;
        }
        all.extend(events.iter().filter_map(|e| match e {
            Event::Route { route, gone, .. } if route.proto == 12 || route.proto == 186 => {
                Some(format!("{} gone={gone}", route.dst))
            }
            _ => None,
        }));
    }
}
