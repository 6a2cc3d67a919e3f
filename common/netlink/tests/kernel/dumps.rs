use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use caracal_netlink::{Error, Family, NewVeth, Request, Route, RouteFilter};
use ipnet::IpNet;

use crate::lab::{Space, net};

const STABLE: u32 = 3000;

/// Dumps for a second while another thread adds and deletes other routes; every dump that is returned must
/// hold every stable route. Returns how many were, and how many were given up.
fn dump_under_churn(test: &str, family: Family) -> Option<(u32, u32)> {
    let space = Space::new(test)?;
    let prefix = |base: u32, n: u32| match family {
        Family::V4 => net(&format!("10.{}.{}.0/24", base + n / 250, n % 250)),
        Family::V6 => net(&format!("fd00:{base}:{n}::/64")),
    };
    let add = |base, n| Request::AddRoute(Route::blackhole(prefix(base, n), 12).metric(50));
    let delete = |base, n| Request::DelRoute(Route::blackhole(prefix(base, n), 12).metric(50));
    let mut nl = space.netlink();
    let stable: Vec<_> = (0..STABLE).map(|n| add(100, n)).collect();
    assert_eq!(nl.apply(&stable), []);
    let wanted: BTreeSet<IpNet> = (0..STABLE).map(|n| prefix(100, n)).collect();

    let stop = AtomicBool::new(false);
    let counts = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut churn = space.netlink();
            let mut pause = false;
            while !stop.load(Ordering::Relaxed) {
                // Sorted before the stable ones, where a deletion shifts them.
                assert_eq!(churn.apply(&(0..200).map(|n| add(20, n)).collect::<Vec<_>>()), []);
                assert_eq!(churn.apply(&(0..200).map(|n| delete(20, n)).collect::<Vec<_>>()), []);
                // Long enough for a dump every other time.
                if pause {
                    std::thread::sleep(Duration::from_millis(60));
                }
                pause = !pause;
            }
        });
        let (mut complete, mut given_up) = (0, 0);
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            match nl.routes(RouteFilter::main().proto(12).family(family)) {
                Ok(routes) => {
                    let got: BTreeSet<IpNet> = routes.iter().map(|r| r.dst).collect();
                    let missing: Vec<_> = wanted.difference(&got).collect();
                    if !missing.is_empty() {
                        stop.store(true, Ordering::Relaxed);
                        panic!("{} routes missing, first {}", missing.len(), missing[0]);
                    }
                    complete += 1;
                }
                Err(Error::Interrupted { .. }) => given_up += 1,
                Err(e) => {
                    stop.store(true, Ordering::Relaxed);
                    panic!("{e}");
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        (complete, given_up)
    });
    eprintln!("{counts:?}");
    Some(counts)
}

#[test]
fn a_dump_of_ipv4_routes_under_churn_is_complete() {
    let Some((complete, _)) = dump_under_churn("churn4", Family::V4) else { return };
    assert!(complete > 5);
}

#[test]
fn a_dump_of_ipv6_routes_under_churn_is_complete() {
    let Some((complete, _)) = dump_under_churn("churn6", Family::V6) else { return };
    assert!(complete > 5);
}

#[test]
fn a_dump_of_links_under_churn_is_complete() {
    let Some(space) = Space::new("churn-link") else { return };
    let veth = |n: u32| {
        let (name, peer_name) = (format!("s{n}"), format!("t{n}"));
        Request::AddLink(NewVeth { name, peer_name, ..NewVeth::default() })
    };
    let mut nl = space.netlink();
    assert_eq!(nl.apply(&(0..150).map(veth).collect::<Vec<_>>()), []);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut churn = space.netlink();
            while !stop.load(Ordering::Relaxed) {
                let new = NewVeth { name: "x".into(), peer_name: "y".into(), ..NewVeth::default() };
                churn.apply_one(Request::AddLink(new)).unwrap();
                let index = churn.link_by_name("x").unwrap().unwrap().index;
                churn.apply_one(Request::DelLink { index }).unwrap();
            }
        });
        let end = Instant::now() + Duration::from_millis(500);
        let mut complete = 0;
        let mut wrong = None;
        while Instant::now() < end && wrong.is_none() {
            match nl.links() {
                Ok(links) => {
                    complete += 1;
                    let stable = links.iter().filter(|l| l.name.starts_with(['s', 't'])).count();
                    if stable != 300 {
                        wrong = Some(format!("{stable} of 300 links"));
                    }
                }
                Err(Error::Interrupted { .. }) => {}
                Err(e) => wrong = Some(e.to_string()),
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(wrong, None);
        assert!(complete > 5, "{complete}");
    });
}
