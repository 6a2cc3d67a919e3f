use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use caracal_netlink::{Error, Family, Netlink, NewVeth, Request, Route, RouteFilter};
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
    assert!(complete > 2);
}

#[test]
fn a_dump_of_ipv6_routes_under_churn_is_complete() {
    let Some((complete, _)) = dump_under_churn("churn6", Family::V6) else { return };
    assert!(complete > 2);
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

/// The part of the next test that runs in a process whose system calls fail.
#[test]
fn what_was_written_is_read_back() {
    let Some(space) = std::env::var_os("READ_BACK_IN") else { return };
    let mut nl = Netlink::open_in(space.as_ref()).unwrap();
    let route = |n: u32| Route::blackhole(net(&format!("10.{}.{}.0/24", 100 + n / 250, n % 250)), 12);
    let mut missing: Vec<u32> = (0..STABLE).collect();
    while !missing.is_empty() {
        // What a caller does with failures: they stay to be written again.
        let batch: Vec<_> = missing.iter().map(|n| Request::ReplaceRoute(route(*n))).collect();
        missing = nl.apply(&batch).into_iter().map(|(at, _)| missing[at]).collect();
    }
    let mut complete = 0;
    while complete < 20 {
        match nl.routes(RouteFilter::main().proto(12).family(Family::V4)) {
            Ok(routes) => {
                assert_eq!(routes.len() as u32, STABLE, "a partial dump");
                complete += 1;
            }
            Err(Error::Interrupted { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn failing_system_calls_cost_time_and_nothing_else() {
    let Some(space) = Space::new("strace") else { return };
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "strace is missing");
        eprintln!("skipped: no strace");
        return;
    }
    let log = std::env::temp_dir().join(format!("nl-strace-{}", std::process::id()));
    let log = log.to_str().unwrap().to_owned();
    for fault in [
        "recvfrom:error=EINTR:when=2+3",
        "recvfrom:error=ENOBUFS:when=3+37",
        "recvfrom:error=EAGAIN:when=5+41",
        "sendto:error=EINTR:when=1+2",
        "sendto:error=ENOMEM:when=2+5",
        "sendto:error=ENOBUFS:when=3+4",
    ] {
        let out = std::process::Command::new("strace")
            .args(["-f", "-qq", "-o", &log, "-e", "trace=recvfrom,sendto"])
            .args(["-e", &format!("inject={fault}")])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "dumps::what_was_written_is_read_back", "--test-threads=1"])
            .env("READ_BACK_IN", space.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && text.contains("1 passed"), "{fault}: {text}");
        assert_eq!(space.ip("route show proto bird").lines().count() as u32, STABLE);
        space.ip("route flush proto bird");
        let injected = std::fs::read_to_string(&log).unwrap().matches("INJECTED").count();
        assert!(injected > 3, "{fault} hit only {injected} times");
        std::fs::remove_file(&log).unwrap();
    }
}
