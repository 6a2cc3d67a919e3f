//! A table too large to be read between two KEEPALIVEs is put right all the same, when nobody said what is wrong with it.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use common::router;
use integration::lab::{Lab, Namespace, Process, eventually};

/// More than the loop itself reads, and more than one group of those that are compared one by one.
const ROUTES: u32 = 70_000;
/// Sooner than the audit that comes round by itself.
const SOON: Duration = Duration::from_secs(20);

fn routes(space: &Namespace) -> BTreeSet<String> {
    let text = space.sh("ip -4 route show proto bird").unwrap();
    text.lines().map(|l| l.trim().to_owned()).collect()
}

fn batch(lab: &Lab, space: &Namespace, lines: &str) {
    let file = lab.file("batch");
    std::fs::write(&file, lines).unwrap();
    space.sh(&format!("ip -batch {}", file.display())).unwrap();
}

#[test]
fn a_large_table_changed_under_our_own_mark_is_put_right() {
    let mut lab = Lab::new("bau").unwrap();
    let (here, there) = (lab.host("l").unwrap(), lab.host("r").unwrap());
    here.wire("eth0", &there, "eth0", None).unwrap();
    here.address("eth0", "10.99.0.1/24".parse().unwrap()).unwrap();
    let prefix = |n: u32| format!("20.{}.{}.{}/28", n >> 12, (n >> 4) & 255, (n & 15) << 4);
    let mut yaml = "routerId: 10.99.0.1\nasNumber: 65001\nstatic:\n".to_owned();
    for n in 0..ROUTES {
        writeln!(yaml, "  - {{ prefix: {}, blackhole: true }}", prefix(n)).unwrap();
    }
    let file = lab.file("router.yaml");
    std::fs::write(&file, yaml).unwrap();
    let router = router();
    let argv = [router.to_str().unwrap(), file.to_str().unwrap()];
    let mut process = Process::new("router", &here, lab.dir(), &argv);
    process.start().unwrap();

    let wanted: BTreeSet<String> = (0..ROUTES).map(|n| format!("blackhole {}", prefix(n))).collect();
    let is_right = || {
        let now = routes(&here);
        let (missing, stray) = (wanted.difference(&now).count(), now.difference(&wanted).count());
        if missing + stray == 0 { Ok(()) } else { Err(format!("{missing} missing, {stray} stray")) }
    };
    eventually(SOON, is_right).unwrap_or_else(|err| panic!("{err}\n{}", lab.logs(40)));

    let every = usize::try_from(ROUTES / 500).unwrap();
    for (what, step) in [("a few", every), ("all", 1)] {
        let mut lines = String::new();
        for n in (0..ROUTES).step_by(step) {
            writeln!(lines, "route replace {} via 10.99.0.2 proto bird", prefix(n)).unwrap();
        }
        for n in 0..500 {
            writeln!(lines, "route add blackhole 30.0.{}.{}/32 proto bird", n >> 8, n & 255).unwrap();
        }
        batch(&lab, &here, &lines);
        assert!(is_right().is_err(), "nobody tells of what is added under our own mark");
        // An address that goes may have taken routes with it: a reason to look.
        here.sh("ip address add 192.0.2.77/32 dev lo && ip address del 192.0.2.77/32 dev lo").unwrap();
        eventually(SOON, is_right).unwrap_or_else(|err| panic!("{what}: {err}\n{}", lab.logs(40)));
    }
    assert!(process.log().contains("not as they should be"), "{}", process.log());
}
