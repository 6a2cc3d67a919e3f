//! What strangers, clocks and readers do: resets from nowhere, wrong keys, peers that read nothing, a day that is over at
//! once, a second speaker with our name.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bird_packet::{MessageKind, OpenMessage};
use integration::lab::{Process, RouteWatch, run_in};
use integration::picture::binary;
use integration::raw::{self, Heard, RawPeer, Witness};
use nix::sys::signal::Signal;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::scene::{AS, DUT, SOON, Scene, at, count, descriptors, many, resident, route, timed};

/// A TCP header alone, from `from` to the daemon.
fn segment(from: SocketAddr, flags: u8, sequence: u32) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(target)) = (from.ip(), DUT.ip()) else { panic!("IPv4 only") };
    let mut bytes = Vec::new();
    bytes.extend(from.port().to_be_bytes());
    bytes.extend(DUT.port().to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    let pseudo = [&source.octets()[..], &target.octets(), &[0, 6, 0, 20], &bytes].concat();
    let sum: u32 = pseudo.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// 10,000 resets with guessed sequence numbers, and SYNs, for an address and port that are right: the session does not
/// feel them. A real reset is answered with a new session at once.
#[test]
fn b02_guessed_resets_do_nothing_and_real_ones_little() {
    let mut scene = Scene::new("b02");
    let other = scene.host("bird", 5);
    let dut = scene
        .dut(&["address: 10.98.0.10, asNumber: 65010, passive: true", "address: 10.98.0.5, asNumber: 65005"]);
    let _bird = scene.bird(
        "bird",
        &other,
        "router id 10.98.0.5; protocol static { ipv4; route 11.2.0.0/24 blackhole; }
         protocol bgp dut { local 10.98.0.5 as 65005; neighbor 10.98.0.1 as 65000; connect delay time 1;
             graceful restart on; ipv4 { import all; export all; }; }",
    );
    let mut peer = scene.session(10, &raw::open(65010, at(10)));
    let from = peer.stream().local_addr().unwrap();
    let sent = scene.raw.run(move || {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).unwrap();
        socket.bind(&SockAddr::from(SocketAddr::new(from.ip(), 0))).unwrap();
        let mut sequence = 0x1234_5678_u32;
        (0..10_000u32)
            .filter(|n| {
                sequence = sequence.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // RST, RST+ACK, SYN.
                let flags = [0x04, 0x14, 0x02][usize::try_from(n % 3).unwrap()];
                socket.send_to(&segment(from, flags, sequence), &SockAddr::from(DUT)).is_ok()
            })
            .count()
    });
    assert!(sent > 9_900, "{sent} sent");
    assert_eq!(peer.ending(Duration::from_millis(500)).unwrap(), None, "the session stays");
    peer.send(&raw::update(&raw::attributes(&[65010], at(10)), &raw::nlri("11.2.1.0/24"))).unwrap();
    scene.route(&scene.dut, "11.2.1.0/24", Some("via 10.98.0.10"));
    assert!(!dut.log().contains("session lost"), "{}", dut.log());

    scene.route(&scene.dut, "11.2.0.0/24", Some("via 10.98.0.5"));
    let (killed, text, _) = run_in(&other, &["ss", "-K", "-t", "dst", "10.98.0.1"], &[]).unwrap();
    assert!(killed && text.contains("10.98.0.1"), "ss -K: {text}");
    let ((), took) = timed(|| {
        scene.until(SOON, || {
            let log = dut.log();
            let up = log.matches("session established peer=10.98.0.5").count();
            if up >= 2 && scene.is_up("dut", "10.98.0.5") {
                Ok(())
            } else {
                Err(format!("established {up} times"))
            }
        });
    });
    println!("b02 | established again {:.2} s after a reset", took.as_secs_f64());
    assert!(took < Duration::from_secs(3), "{took:?}");
    scene.route(&scene.dut, "11.2.0.0/24", Some("via 10.98.0.5"));
}

/// A wrong password: no session, and the log says what to look at, without the password. A new password on both sides
/// within the hold time: the session stays.
#[test]
fn b06_passwords_must_match_and_can_be_changed_in_a_session() {
    let mut scene = Scene::new("b06");
    let other = scene.host("bird", 5);
    let yaml = |password: &str| {
        format!(
            "routerId: 10.98.0.1\nasNumber: {AS}\nneighbours:\n  \
             - {{ address: 10.98.0.5, asNumber: 65005, holdTime: 90, password: {password} }}"
        )
    };
    let conf = |password: &str| {
        format!(
            "router id 10.98.0.5; protocol static {{ ipv4; route 11.6.0.0/24 blackhole; }}
             protocol bgp dut {{ local 10.98.0.5 as 65005; neighbor 10.98.0.1 as 65000; connect delay time 1;
                 connect retry time 2; password \"{password}\"; ipv4 {{ import all; export all; }}; }}"
        )
    };
    let mut dut = scene.daemon("dut", &scene.dut, &yaml("first-secret"));
    let bird = scene.bird("bird", &other, &conf("another-one"));
    std::thread::sleep(Duration::from_millis(6500));
    assert!(!scene.is_up("dut", "10.98.0.5"));
    let log = dut.log();
    assert!(log.contains("same password"), "one cause and its fix:\n{log}");
    drop(bird);
    let _bird = scene.bird("bird", &other, &conf("first-secret"));
    scene.route(&scene.dut, "11.6.0.0/24", Some("via 10.98.0.5"));

    // Two of ours change theirs one after the other.
    let third = scene.host("third", 6);
    let ends = |password: &str| {
        let end = |own: u8, asn: u32, peer: u8, peer_as: u32| {
            format!(
                "routerId: {}\nasNumber: {asn}\nlisten: ['{}:1790']\nneighbours:\n  - {{ address: {}, port: 1790, \
                 asNumber: {peer_as}, holdTime: 6, password: {password} }}\nstatic:\n  \
                 - {{ prefix: 11.6.{own}.0/24, blackhole: true }}",
                at(own),
                at(own),
                at(peer)
            )
        };
        [end(1, AS, 6, 65006), end(6, 65006, 1, AS)]
    };
    dut.kill();
    let [left, right] = ends("second-secret");
    let mut left = scene.daemon("left", &scene.dut, &left);
    let mut right = scene.daemon("right", &third, &right);
    scene.route(&scene.dut, "11.6.6.0/24", Some("via 10.98.0.6"));
    let change = |process: &mut Process, name: &str, yaml: &str| {
        let control = scene.lab.file(&format!("{name}.ctl"));
        std::fs::write(
            scene.lab.file(&format!("{name}.yaml")),
            format!("{yaml}\ncontrol: {}\n", control.display()),
        )
        .unwrap();
        process.signal(Signal::SIGHUP);
    };
    let [l, r] = ends("third-secret");
    change(&mut left, "left", &l);
    std::thread::sleep(Duration::from_millis(1500));
    change(&mut right, "right", &r);
    // Longer than the hold time: KEEPALIVEs have come through.
    std::thread::sleep(Duration::from_secs(7));
    assert!(scene.is_up("left", "10.98.0.6") && scene.is_up("right", "10.98.0.1"), "{}", scene.lab.logs(20));
    let log = left.log();
    assert!(log.contains("a session has its new password"), "{log}");
    let logs = scene.lab.logs(400);
    assert!(!left.log().contains("session lost") && !right.log().contains("session lost"), "{logs}");
    for secret in ["first-secret", "second-secret", "third-secret"] {
        assert!(!dut.log().contains(secret) && !left.log().contains(secret) && !right.log().contains(secret));
    }
}

/// A peer that reads nothing while 100,000 routes wait for it: the others have them at once, memory stays, and the
/// session ends with the send hold time, its descriptor with it.
#[test]
fn b21_a_peer_that_reads_nothing_harms_nobody_and_is_dropped() {
    const ROUTES: u32 = 100_000;
    let scene = Scene::new("b21");
    let mut dut = scene.dut(&[
        "address: 10.98.0.10, asNumber: 65010, passive: true",
        "address: 10.98.0.11, asNumber: 65011, passive: true, sendHoldTime: 4, gracefulRestart: { enabled: false }",
        "address: 10.98.0.29, asNumber: 65100, passive: true",
    ]);
    let witness = scene.witness();
    let mut feeder = scene.session(10, &raw::open(65010, at(10)));
    let before = (descriptors(&mut dut), resident(&mut dut));
    let limit = Duration::from_secs(10);
    let mut stuck =
        RawPeer::call_with(&scene.raw, at(11).into(), DUT, limit, |s| s.set_recv_buffer_size(4096)).unwrap();
    stuck.greet(&raw::open(65011, at(11))).unwrap();
    // Unique attributes, so that there is much to say.
    let own = |n: u32| long_path(n);
    let mut bytes = Vec::new();
    for n in 0..20_000 {
        bytes.extend(raw::update(&own(n), &[&[32u8][..], &(0x0c00_0000 + n).to_be_bytes()].concat()));
    }
    bytes.extend(many(65010, at(10), ROUTES, true));
    let start = Instant::now();
    feeder.send(&bytes).unwrap();
    let all = (ROUTES + 20_000) as usize;
    witness
        .wait(Duration::from_mins(1), |t| {
            if t.routes.len() == all { Ok(()) } else { Err(format!("{}", t.routes.len())) }
        })
        .unwrap_or_else(|err| scene.fail(&err));
    let took = start.elapsed();
    assert!(scene.is_up("dut", "10.98.0.11"), "not yet");
    let peak = resident(&mut dut);
    // Its own KEEPALIVEs do not help it.
    let dropped = timed(|| {
        scene.until(SOON, || {
            let _ = stuck.keepalive();
            if scene.is_up("dut", "10.98.0.11") { Err("still up".into()) } else { Ok(()) }
        });
    });
    println!(
        "b21 | {all} routes told to the other after {:.2} s; stuck one dropped {:.2} s later; memory {} -> {peak} KiB",
        took.as_secs_f64(),
        dropped.1.as_secs_f64(),
        before.1
    );
    assert!(dut.log().contains("Send Hold Timer Expired"), "{}", dut.log());
    scene.until(SOON, || {
        let now = descriptors(&mut dut);
        if now <= before.0 { Ok(()) } else { Err(format!("{now} descriptors, {} before it came", before.0)) }
    });
    assert_eq!(count(&scene.dut), all);
    assert_eq!(witness.table().ended, None);
    let again = scene.session(11, &raw::open(65011, at(11)));
    drop((again, stuck));
}

fn long_path(n: u32) -> Vec<u8> {
    raw::attributes(&[65010, 100_000 + n, 7, 8, 9], at(10))
}

/// The same peak without a stuck peer: what it costs is bounded.
#[test]
fn b21_a_stuck_peer_costs_bounded_memory() {
    let mut peaks = Vec::new();
    for stuck in [false, true] {
        let scene = Scene::new(if stuck { "b21m" } else { "b21n" });
        let mut dut = scene.dut(&[
            "address: 10.98.0.10, asNumber: 65010, passive: true",
            "address: 10.98.0.11, asNumber: 65011, passive: true",
            "address: 10.98.0.29, asNumber: 65100, passive: true",
        ]);
        let witness = scene.witness();
        let mut feeder = scene.session(10, &raw::open(65010, at(10)));
        let limit = Duration::from_secs(10);
        let peer = stuck.then(|| {
            let call =
                RawPeer::call_with(&scene.raw, at(11).into(), DUT, limit, |s| s.set_recv_buffer_size(4096));
            let mut peer = call.unwrap();
            peer.greet(&raw::open(65011, at(11))).unwrap();
            peer
        });
        // Three times over, with other attributes each time: a queue that is not coalesced would hold them all.
        for round in 0..3u32 {
            let mut bytes = Vec::new();
            for n in 0..30_000u32 {
                let attrs = long_path(n + 1_000_000 * round);
                bytes.extend(raw::update(&attrs, &[&[32u8][..], &(0x0c00_0000 + n).to_be_bytes()].concat()));
            }
            let last = format!("11.21.{round}.0/24");
            bytes.extend(raw::update(&raw::attributes(&[65010], at(10)), &raw::nlri(&last)));
            feeder.send(&bytes).unwrap();
            witness
                .wait(Duration::from_mins(1), |t| {
                    if t.routes.contains_key(&last) { Ok(()) } else { Err(last.clone()) }
                })
                .unwrap_or_else(|err| scene.fail(&err));
        }
        peaks.push(resident(&mut dut));
        drop(peer);
    }
    println!("b21 | memory without and with a stuck peer: {peaks:?} KiB");
    assert!(peaks[1] < peaks[0] + 32 * 1024, "{peaks:?}");
}

/// The wall clock goes a day forward and two back: no timer notices.
#[test]
fn b23_a_jump_of_the_clock_moves_no_timer() {
    const SHIM: &str = r#"
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <stdlib.h>
        #include <sys/mman.h>
        #include <sys/syscall.h>
        #include <sys/time.h>
        #include <time.h>
        #include <unistd.h>
        static volatile long *offset;
        __attribute__((constructor)) static void begin(void) {
            int fd = open(getenv("CLOCK_OFFSET"), O_RDONLY);
            offset = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, fd, 0);
        }
        int clock_gettime(clockid_t id, struct timespec *t) {
            int r = syscall(SYS_clock_gettime, id, t);
            if (r == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) && offset) t->tv_sec += *offset;
            return r;
        }
        int gettimeofday(struct timeval *v, void *z) {
            struct timespec t; (void)z;
            clock_gettime(CLOCK_REALTIME, &t);
            v->tv_sec = t.tv_sec; v->tv_usec = t.tv_nsec / 1000; return 0;
        }
        time_t time(time_t *out) {
            struct timespec t;
            clock_gettime(CLOCK_REALTIME, &t);
            if (out) *out = t.tv_sec;
            return t.tv_sec;
        }
    "#;
    let scene = Scene::new("b23");
    let (source, shim, offset) =
        (scene.lab.file("shim.c"), scene.lab.file("shim.so"), scene.lab.file("offset"));
    std::fs::write(&source, SHIM).unwrap();
    let built = scene.raw.sh(&format!("cc -shared -fPIC -o {} {}", shim.display(), source.display()));
    built.expect("a C compiler, as Rust's linker needs one");
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(&offset).unwrap();
    let jump =
        |seconds: i64| std::os::unix::fs::FileExt::write_all_at(&file, &seconds.to_ne_bytes(), 0).unwrap();
    jump(0);
    let yaml = format!(
        "routerId: 10.98.0.1\nasNumber: {AS}\nneighbours:\n  \
         - {{ address: 10.98.0.10, asNumber: 65010, passive: true, holdTime: 3 }}"
    );
    let mut dut = scene
        .caracal("dut", &scene.dut, &yaml)
        .env("LD_PRELOAD", &shim.to_string_lossy())
        .env("CLOCK_OFFSET", &offset.to_string_lossy());
    dut.start().unwrap();
    let open = OpenMessage { hold_time: 3, ..raw::open(65010, at(10)) };
    let mut peer = scene.session(10, &open);
    peer.send(&raw::update(&raw::attributes(&[65010], at(10)), &raw::nlri("11.23.0.0/24"))).unwrap();
    scene.route(&scene.dut, "11.23.0.0/24", Some("via 10.98.0.10"));
    let time = || {
        let text = scene.ask("dut", "show status");
        text.lines().find_map(|l| Some(l.split_once("server time is ")?.1.trim().to_owned())).unwrap_or(text)
    };
    let mut seen = vec![time()];
    let mut keepalives = 0;
    for seconds in [86_400, -86_400, 0] {
        jump(seconds);
        seen.push(time());
        let end = Instant::now() + Duration::from_millis(2500);
        while Instant::now() < end {
            peer.keepalive().unwrap();
            match peer.hear(Duration::from_millis(500)).unwrap() {
                Some(Heard::Keepalive) => keepalives += 1,
                None | Some(Heard::Update(_)) => {}
                other => panic!("after a jump of {seconds} s: {other:?}\n{}", scene.lab.logs(20)),
            }
        }
    }
    let days: std::collections::BTreeSet<&str> = seen.iter().filter_map(|t| t.split(' ').next()).collect();
    assert_eq!(days.len(), 3, "the daemon has seen three days: {seen:?}");
    assert!((5..=11).contains(&keepalives), "one a second for 7.5 s, not {keepalives}");
    assert!(route(&scene.dut, "11.23.0.0/24").is_some());
    // And the hold timer still runs: no more KEEPALIVE, no more route.
    let took = scene.route(&scene.dut, "11.23.0.0/24", None);
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(5), "{took:?}");
}

/// A second speaker with our identifier inside our AS: refused, said once with the fix, not once for each attempt.
#[test]
fn b24_a_second_speaker_with_our_identifier_is_refused_and_named() {
    let mut scene = Scene::new("b24");
    let other = scene.host("bird", 5);
    let dut = scene.dut(&["address: 10.98.0.5, asNumber: 65000"]);
    let _bird = scene.bird(
        "bird",
        &other,
        "router id 10.98.0.1; protocol bgp dut { local 10.98.0.5 as 65000; neighbor 10.98.0.1 as 65000;
         connect delay time 1; connect retry time 1; error wait time 1, 2; ipv4 { import all; export none; }; }",
    );
    scene.until(SOON, || {
        let text = scene.ask("dut", "show protocols");
        if text.contains("Bad BGP Identifier") { Ok(()) } else { Err(text) }
    });
    std::thread::sleep(Duration::from_secs(4));
    assert!(!scene.is_up("dut", "10.98.0.5"));
    let log = dut.log();
    let lines: Vec<&str> = log.lines().filter(|l| l.contains("session does not come up")).collect();
    let named = lines.iter().filter(|l| l.contains("Bad BGP Identifier")).collect::<Vec<_>>();
    assert!(
        !named.is_empty() && named.iter().all(|l| l.contains("10.98.0.5") && l.contains("router id")),
        "{log}"
    );
    assert!(lines.len() <= 3, "{} lines in 4 s:\n{log}", lines.len());
}

/// Two neighbours inside the AS with one router id: both sessions stay, and one line names both.
#[test]
fn b24_two_neighbours_with_one_identifier_are_named() {
    let scene = Scene::new("b24n");
    let api = scene.lab.file("bgp.sock");
    let mut yaml =
        format!("routerId: 10.98.0.1\nasNumber: {AS}\napi: {{ socket: {} }}\nneighbours:\n", api.display());
    for (name, octet) in [("node-a", 10), ("node-b", 11), ("node-c", 12)] {
        writeln!(yaml, "  - {{ name: {name}, address: {}, asNumber: {AS}, passive: true }}", at(octet))
            .unwrap();
    }
    // The same router over its other family is no second one.
    writeln!(yaml, "  - {{ name: node-a6, address: 'fd98::10', asNumber: {AS}, passive: true }}").unwrap();
    let dut = scene.daemon("dut", &scene.dut, &yaml);
    let mut sessions = vec![
        scene.session(12, &raw::open(AS, at(12))),
        scene.session(10, &raw::open(AS, "10.7.7.7".parse().unwrap())),
        scene.session(11, &raw::open(AS, "10.7.7.7".parse().unwrap())),
    ];
    let (from, to) = ("fd98::10".parse().unwrap(), SocketAddr::new("fd98::1".parse().unwrap(), 179));
    sessions
        .push(RawPeer::establish(&scene.raw, from, to, &raw::open(AS, "10.7.7.7".parse().unwrap())).unwrap());
    scene
        .until(SOON, || if scene.is_up("dut", "node-a6") { Ok(()) } else { Err("node-a6 is not up".into()) });
    let log = dut.log();
    let lines: Vec<&str> = log.lines().filter(|l| l.contains("have one router id")).collect();
    assert!(
        lines.len() == 1 && ["node-a", "node-b", "10.7.7.7"].iter().all(|w| lines[0].contains(w)),
        "one line with both: {lines:?}\n{log}"
    );
    for peer in &mut sessions {
        assert_eq!(peer.ending(Duration::from_millis(100)).unwrap(), None, "no session is lost");
    }
    let (binary, socket) = (binary().unwrap(), api.to_string_lossy().into_owned());
    let argv = [&*binary.to_string_lossy(), "ctl", "bgp", "peers", "-o", "json", "--socket", &socket];
    let (_, shown, err) = run_in(&scene.dut, &argv, &[]).unwrap();
    assert_eq!(shown.matches("10.7.7.7").count(), 3, "{shown}{err}");
}

/// Two hosts have one neighbour's address, and both call, over and over: one has the session and keeps it, the other is
/// refused; who they are is said once, in the log and by `ctl bgp`. When the first falls silent, the other may come.
#[test]
fn b24_of_two_speakers_with_one_address_one_stays_and_both_are_named() {
    let scene = Scene::new("b24t");
    let api = scene.lab.file("bgp.sock");
    let yaml = format!(
        "routerId: 10.98.0.1\nasNumber: {AS}\napi: {{ socket: {} }}\nneighbours:\n  - {{ name: twins, address: 10.98.0.10, \
         asNumber: 65010, passive: true, holdTime: 6, gracefulRestart: {{ enabled: false }} }}",
        api.display()
    );
    let dut = scene.daemon("dut", &scene.dut, &yaml);
    let open = |id: &str| OpenMessage { hold_time: 6, ..raw::open(65010, id.parse().unwrap()) };
    let mut first = scene.session(10, &open("10.98.0.10"));
    first.send(&raw::update(&raw::attributes(&[65010], at(10)), &raw::nlri("11.24.0.0/24"))).unwrap();
    scene.route(&scene.dut, "11.24.0.0/24", Some("via 10.98.0.10"));
    let port = first.stream().local_addr().unwrap().port();
    let first = Witness::start(first, false, Some(Duration::from_secs(1)));
    let watch = RouteWatch::start(&scene.dut).unwrap();
    let twin = || {
        let mut peer = RawPeer::call(&scene.raw, at(10).into(), DUT)?;
        peer.greet(&open("10.77.7.7"))?;
        anyhow::Ok(peer)
    };
    for attempt in 0..20 {
        let mut peer = RawPeer::call(&scene.raw, at(10).into(), DUT).unwrap();
        let hello = raw::encoded(&open("10.77.7.7"));
        peer.send(&hello).unwrap();
        let heard = peer.ending(SOON).unwrap();
        assert!(
            matches!(&heard, Some(Heard::Notification(n)) if (n.code, n.subcode) == (6, 5)),
            "attempt {attempt}: {heard:?} instead of Cease, Connection Rejected"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(first.table().ended, None);
    assert!(scene.is_up("dut", "twins"), "{}", dut.log());
    assert!(watch.take().is_empty(), "no kernel route moves");
    let log = dut.log();
    let lines: Vec<&str> = log.lines().filter(|l| l.contains("another speaker")).collect();
    assert!(
        lines.len() == 1 && ["twins", "10.98.0.10", "10.77.7.7"].iter().all(|w| lines[0].contains(w)),
        "one line with both: {lines:?}"
    );
    assert!(!log.contains("session lost"), "{log}");
    let (binary, socket) = (binary().unwrap(), api.to_string_lossy().into_owned());
    let argv = [&*binary.to_string_lossy(), "ctl", "bgp", "neighbor", "twins", "--socket", &socket];
    let (_, shown, err) = run_in(&scene.dut, &argv, &[]).unwrap();
    assert!(shown.contains("Established") && shown.contains("router id 10.98.0.10"), "{shown}{err}");
    assert!(shown.contains("10.77.7.7"), "{shown}{err}");

    // The first is cut off without a word; the other is not kept out for the whole hold time.
    scene
        .raw
        .sh(&format!(
            "nft 'add table ip cut; add chain ip cut out {{ type filter hook output priority 0; }}; \
             add rule ip cut out tcp sport {port} drop'"
        ))
        .unwrap();
    let (mut second, took) = timed(|| {
        let mut second = None;
        scene.until(SOON, || {
            second = Some(twin().map_err(|err| err.to_string())?);
            Ok(())
        });
        second.expect("invariant: waited for")
    });
    println!("b24 | the other comes {:.2} s after the first fell silent", took.as_secs_f64());
    assert!(took < Duration::from_secs(4), "half of the hold time: {took:?}");
    assert_eq!(second.ending(Duration::from_millis(300)).unwrap(), None);
}

/// NOTIFICATIONs by the hundred, right ones and nonsense, from a peer that calls again at once: nothing is left of them.
#[test]
fn a_flood_of_notifications_leaves_nothing_behind() {
    let scene = Scene::new("bnf");
    let mut dut = scene.dut(&[
        "address: 10.98.0.10, asNumber: 65010, passive: true",
        "address: 10.98.0.11, asNumber: 65011, passive: true",
    ]);
    let mut calm = scene.session(11, &raw::open(65011, at(11)));
    let before = (descriptors(&mut dut), resident(&mut dut));
    for round in 0..300u16 {
        let mut peer = if round % 3 == 0 {
            scene.session(10, &raw::open(65010, at(10)))
        } else {
            RawPeer::call(&scene.raw, at(10).into(), DUT).unwrap()
        };
        let [code, subcode] = round.to_be_bytes();
        let body: &[u8] = match round % 4 {
            0 => &[6, 2, 3, b'b', b'y', b'e'],
            1 => &[subcode, code, 0xff],
            2 => &[6],
            _ => &[6, 2, 200, 0, 0x1b, b'['],
        };
        let _ = peer.send(&raw::message(MessageKind::Notification, body).repeat(20));
        if round % 2 == 0 {
            SockRef::from(peer.stream()).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    scene.until(SOON, || {
        let now = descriptors(&mut dut);
        if now <= before.0 { Ok(()) } else { Err(format!("{now} descriptors, {} before", before.0)) }
    });
    assert_eq!(calm.ending(Duration::from_millis(100)).unwrap(), None);
    let log = dut.log();
    assert!(!log.contains('\u{1b}') || !log.contains("\u{1b}["), "control characters of a peer reach no log");
    assert!(resident(&mut dut) < before.1 + 8 * 1024);
    scene.session(10, &raw::open(65010, at(10)));
}
