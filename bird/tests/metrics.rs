//! What Prometheus reads of a real run: a router in a network namespace with one good neighbour and one with another AS
//! than configured.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

mod common;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::router;
use integration::lab::{Lab, Namespace, Process, eventually};

const SOON: Duration = Duration::from_secs(20);

fn start(lab: &Lab, name: &str, space: &Namespace, yaml: &str) -> Process {
    let file = lab.file(&format!("{name}.yaml"));
    std::fs::write(&file, yaml).unwrap();
    let argv = [router().to_str().unwrap().to_owned(), file.to_str().unwrap().to_owned()];
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let mut process = Process::new(name, space, lab.dir(), &argv);
    process.start().unwrap();
    process
}

/// Series with their values, and how long the scrape took.
fn scrape(space: &Namespace) -> Result<(BTreeMap<String, f64>, Duration), String> {
    let begun = Instant::now();
    let text = space
        .run(|| {
            let mut stream = TcpStream::connect("127.0.0.1:9091")?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })
        .map_err(|e: std::io::Error| e.to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no body")?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(body.trim_end().ends_with("# EOF"), "{body}");
    let series = body.lines().filter(|l| !l.starts_with('#')).map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse::<f64>().unwrap())
    });
    Ok((series.collect(), begun.elapsed()))
}

#[test]
fn a_scrape_shows_sessions_paths_errors_and_times_of_a_real_run() {
    let mut lab = Lab::new("mtr").unwrap();
    let (left, right) = (lab.host("l").unwrap(), lab.host("r").unwrap());
    left.wire("eth0", &right, "eth0", None).unwrap();
    for (space, own) in [(&left, "10.97.0.1/24"), (&right, "10.97.0.2/24")] {
        space.address("eth0", own.parse().unwrap()).unwrap();
    }
    left.address("eth0", "fd97::1/64".parse().unwrap()).unwrap();
    right.address("eth0", "fd97::2/64".parse().unwrap()).unwrap();
    let statics: Vec<String> =
        (0..200).map(|n| format!("  - {{ prefix: 10.50.{n}.0/24, announceOnly: true }}\n")).collect();
    let statics = statics.concat();
    let _right = start(
        &lab,
        "right",
        &right,
        &format!(
            "routerId: 10.97.0.2\nasNumber: 65002\nneighbours:\n  - {{ address: 10.97.0.1, asNumber: 65001 }}\n  \
             - {{ address: 'fd97::1', asNumber: 65001, families: [ipv6] }}\nstatic:\n{statics}"
        ),
    );
    let _left = start(
        &lab,
        "left",
        &left,
        "routerId: 10.97.0.1\nasNumber: 65001\nmetrics: 127.0.0.1:9091\nfilters:\n  some: { importV4: [{ action: Reject, \
         cidr: 10.50.100.0/22, matchOperator: In }] }\nneighbours:\n  - { name: good, address: 10.97.0.2, \
         asNumber: 65002, import: [some] }\n  - { name: 'od\"d', address: 'fd97::2', asNumber: 65009, families: [ipv6] }\n",
    );
    let (seen, took) = eventually(SOON, || {
        let (seen, took) = scrape(&left)?;
        let ready = seen.get("caracal_bgp_table{family=\"ipv4\",what=\"programmed\"}") == Some(&196.0)
            && seen
                .get("caracal_bgp_notifications_total{direction=\"sent\",code=\"2\",subcode=\"2\"}")
                .is_some_and(|n| *n > 0.0)
            && seen.get("caracal_bgp_timer_late_seconds_count").is_some_and(|n| *n > 0.0);
        if ready { Ok((seen, took)) } else { Err(format!("{seen:#?}")) }
    })
    .unwrap_or_else(|err| panic!("{err}\n{}", lab.logs(30)))
    .0;
    println!("a scrape of {} series took {took:?}", seen.len());
    for (series, want) in [
        ("caracal_bgp_sessions{state=\"established\"}", 1.0),
        ("caracal_bgp_peer_up{peer=\"good\"}", 1.0),
        ("caracal_bgp_peer_up{peer=\"od\\\"d\"}", 0.0),
        ("caracal_bgp_peer_established_total{peer=\"good\"}", 1.0),
        ("caracal_bgp_peer_paths{peer=\"good\",family=\"ipv4\",what=\"received\"}", 200.0),
        ("caracal_bgp_peer_paths{peer=\"good\",family=\"ipv4\",what=\"accepted\"}", 196.0),
        ("caracal_bgp_peer_paths{peer=\"good\",family=\"ipv4\",what=\"rejected\"}", 4.0),
        ("caracal_bgp_peer_paths{peer=\"good\",family=\"ipv4\",what=\"best\"}", 196.0),
        ("caracal_bgp_peer_paths{peer=\"good\",family=\"ipv4\",what=\"advertised\"}", 0.0),
        ("caracal_bgp_rejected_paths{family=\"ipv4\",reason=\"filter-rejects\"}", 4.0),
        ("caracal_bgp_restart_active", 0.0),
        ("caracal_bgp_fib_refused", 0.0),
        ("caracal_bgp_fib_write_failures_total", 0.0),
    ] {
        assert_eq!(seen.get(series), Some(&want), "{series}: {seen:#?}");
    }
    for series in [
        "caracal_bgp_messages_sent_total{type=\"open\"}",
        "caracal_bgp_messages_sent_total{type=\"keepalive\"}",
        "caracal_bgp_messages_sent_total{type=\"notification\"}",
        "caracal_bgp_messages_received_total{type=\"update\"}",
        "caracal_bgp_fib_batch_seconds_count",
        "caracal_bgp_loop_turn_seconds_count",
        "caracal_bgp_timer_late_seconds_count",
        "caracal_bgp_peer_bytes_sent_total{peer=\"good\"}",
    ] {
        assert!(seen.get(series).is_some_and(|n| *n > 0.0), "{series}: {seen:#?}");
    }
    let writes = seen["caracal_bgp_fib_writes_total"];
    assert!((196.0..=220.0).contains(&writes), "{writes}");
    let quick = seen["caracal_bgp_timer_late_seconds_bucket{le=\"0.5\"}"];
    assert!(quick > 0.0, "{seen:#?}");

    // Every name is in the operator's table.
    let table =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bgp-metrics.md")).unwrap();
    for series in seen.keys() {
        let name = series.split('{').next().unwrap();
        let name =
            ["_total", "_bucket", "_count", "_sum"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name);
        assert!(table.contains(&format!("`{name}`")), "docs/bgp-metrics.md lacks {name}");
    }
}
