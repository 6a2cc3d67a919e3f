//! Against the BFD that others run: BIRD 2 and FRR's bfdd, on one link and across a router, IPv4 and IPv6.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types, reason = "a test")]

mod lab;

use std::fmt::Write as _;
use std::time::Duration;

use bird_bfd::{Cause, Change, Diag, Event, Farewell, Hops, Options, Params, SessionKey, State};

use lab::{Lab, Watched, eventually, ms};

/// One session: our end and what the daemon shows of its own.
#[derive(Clone, Copy)]
struct Case {
    ours: &'static str,
    theirs: &'static str,
    hops: Hops,
}

const SINGLE: [Case; 2] = [
    Case { ours: "10.1.0.1", theirs: "10.1.0.2", hops: Hops::Single },
    Case { ours: "fd00:1::1", theirs: "fd00:1::2", hops: Hops::Single },
];
const MULTI: [Case; 2] = [
    Case { ours: "10.1.0.1", theirs: "10.2.0.2", hops: Hops::Multi },
    Case { ours: "fd00:1::1", theirs: "fd00:2::2", hops: Hops::Multi },
];

impl Case {
    fn key(&self) -> SessionKey {
        SessionKey {
            peer: self.theirs.parse().unwrap(),
            local: Some(self.ours.parse().unwrap()),
            interface: None,
            hops: self.hops,
        }
    }
}

fn plain() -> Params {
    Params { damping: None, ..Params::default() }
}

/// `we` and `they` on one link, or with a router in between.
fn topology(test: &str, hops: Hops, programs: &[&str]) -> Option<Lab> {
    match hops {
        Hops::Single => {
            let lab = Lab::new(test, &["we", "they"], programs)?;
            lab.link("we", "they", 1);
            Some(lab)
        }
        Hops::Multi => {
            let lab = Lab::new(test, &["we", "mid", "they"], programs)?;
            lab.link("we", "mid", 1);
            lab.link("mid", "they", 2);
            lab.exec("mid", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
            lab.exec("we", "ip route add 10.2.0.0/24 via 10.1.0.2");
            lab.exec("we", "ip -6 route add fd00:2::/64 via fd00:1::2");
            lab.exec("they", "ip route add 10.1.0.0/24 via 10.2.0.1");
            lab.exec("they", "ip -6 route add fd00:1::/64 via fd00:2::1");
            Some(lab)
        }
    }
}

/// A daemon in the namespace `they`.
trait Daemon {
    /// Programs that it takes.
    const PROGRAMS: &'static [&'static str];
    /// Starts it with these sessions at 300 ms x 3.
    fn start(lab: &mut Lab, cases: &[Case]);
    /// Whether its session is up; `None` if it does not show the session.
    fn up(lab: &Lab, case: &Case) -> Option<bool>;
    /// The interval at which it sends, and its detection time, as it negotiated them.
    fn timers(lab: &Lab, case: &Case) -> Option<(Duration, Duration)>;
    /// Ends its sessions by configuration.
    fn shut(lab: &Lab);
    /// What we hear from it then.
    const SHUT: Cause;
}

struct Bird;

impl Bird {
    fn ask(lab: &Lab, question: &str) -> String {
        lab.ask("they", &format!("birdc -s {}/bird.ctl {question}", lab.dir.path().display()))
    }

    /// Columns of `show bfd sessions`: address, interface, state, since, interval, timeout.
    fn row(lab: &Lab, case: &Case) -> Option<Vec<String>> {
        let text = Self::ask(lab, "show bfd sessions");
        let rows = text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        rows.into_iter().find(|row| row.first().is_some_and(|address| address == case.ours))
    }
}

impl Daemon for Bird {
    const PROGRAMS: &'static [&'static str] = &["bird", "birdc"];
    /// It falls silent without a word (2.0.12).
    const SHUT: Cause = Cause::DetectionTimeExpired;

    fn start(lab: &mut Lab, cases: &[Case]) {
        let timers = "{ interval 300 ms; multiplier 3; }";
        let mut text = format!(
            "router id 10.1.0.2;\nlog stderr all;\ndebug protocols all;\nprotocol device {{}}\n\
             protocol bfd bfd1 {{ interface \"*\" {timers}; multihop {timers};\n"
        );
        for case in cases.iter().filter(|case| case.hops == Hops::Multi) {
            let _ = writeln!(text, "  neighbor {} local {} multihop;", case.ours, case.theirs);
        }
        text += "}\n";
        // Routes that stand while BFD says that their next hop lives.
        for (n, case) in cases.iter().enumerate().filter(|(_, case)| case.hops == Hops::Single) {
            let (family, route) = if case.ours.contains(':') {
                ("ipv6", format!("fd00:99:{n}::/48"))
            } else {
                ("ipv4", format!("198.51.{n}.0/24"))
            };
            let _ =
                writeln!(text, "protocol static s{n} {{ {family}; route {route} via {} bfd; }}", case.ours);
        }
        let file = lab.dir.path().join("bird.conf");
        std::fs::write(&file, text).unwrap();
        let control = lab.dir.path().join("bird.ctl");
        lab.start("they", &format!("bird -f -c {} -s {}", file.display(), control.display()));
    }

    fn up(lab: &Lab, case: &Case) -> Option<bool> {
        Some(Self::row(lab, case)?.get(2)? == "Up")
    }

    fn timers(lab: &Lab, case: &Case) -> Option<(Duration, Duration)> {
        let row = Self::row(lab, case)?;
        let seconds = |text: &String| text.parse().ok().map(Duration::from_secs_f64);
        Some((seconds(row.get(4)?)?, seconds(row.get(5)?)?))
    }

    fn shut(lab: &Lab) {
        Self::ask(lab, "disable bfd1");
    }
}

struct Frr;

impl Frr {
    fn ask(lab: &Lab, question: &str) -> String {
        lab.ask("they", &format!("vtysh --vty_socket {} -c '{question}'", lab.dir.path().display()))
    }

    /// A field of the peer's object in `show bfd peers json`, which is flat.
    fn field(lab: &Lab, case: &Case, name: &str) -> Option<String> {
        let text = Self::ask(lab, "show bfd peers json");
        let object =
            text.split('{').find(|object| object.contains(&format!("\"peer\":\"{}\"", case.ours)))?;
        let (_, rest) = object.split_once(&format!("\"{name}\":"))?;
        let value = rest.split([',', '}']).next()?;
        Some(value.trim_matches('"').to_owned())
    }
}

impl Daemon for Frr {
    const PROGRAMS: &'static [&'static str] = &["/usr/lib/frr/bfdd", "/usr/lib/frr/zebra", "vtysh"];
    const SHUT: Cause = Cause::NeighborAdminDown;

    fn start(lab: &mut Lab, cases: &[Case]) {
        let mut text = String::from("log stdout debugging\ndebug bfd peer\nbfd\n");
        for case in cases {
            let multihop = if case.hops == Hops::Multi { " multihop" } else { "" };
            let _ = writeln!(text, " peer {}{multihop} local-address {}", case.ours, case.theirs);
            text += "  detect-multiplier 3\n  receive-interval 300\n  transmit-interval 300\n";
            if case.hops == Hops::Multi {
                text += "  minimum-ttl 254\n";
            }
            text += " exit\n";
        }
        text += "exit\n";
        let dir = lab.dir.path().to_owned();
        let file = dir.join("frr.conf");
        std::fs::write(&file, text).unwrap();
        // FRR drops its rights to the user frr, which must reach its directory.
        lab::sh(&format!("chown frr {0} && chmod 755 {0} && chmod 644 {1}", dir.display(), file.display()));
        let dir = dir.display().to_string();
        for daemon in ["zebra", "bfdd"] {
            lab.start(
                "they",
                &format!(
                    "/usr/lib/frr/{daemon} -f {dir}/frr.conf -z {dir}/zserv.api --vty_socket {dir} \
                     -i {dir}/{daemon}.pid -P 0 --log stdout{}",
                    if daemon == "bfdd" { format!(" --bfdctl {dir}/bfdd.sock") } else { String::new() }
                ),
            );
            eventually("the vty of the daemon", ms(10_000), || {
                std::path::Path::new(&format!("{dir}/{daemon}.vty")).exists().then_some(())
            });
        }
    }

    fn up(lab: &Lab, case: &Case) -> Option<bool> {
        Some(Self::field(lab, case, "status")? == "up")
    }

    fn timers(lab: &Lab, case: &Case) -> Option<(Duration, Duration)> {
        let field = |name: &str| Self::field(lab, case, name)?.parse().ok().map(ms);
        // It shows what both ends offer, not what follows from it.
        let tx = field("transmit-interval")?.max(field("remote-receive-interval")?);
        let rx = field("receive-interval")?.max(field("remote-transmit-interval")?);
        let multiplier: u32 = Self::field(lab, case, "remote-detect-multiplier")?.parse().ok()?;
        Some((tx, rx * multiplier))
    }

    fn shut(lab: &Lab) {
        let peers = Self::ask(lab, "show running-config");
        let mut line = String::from("vtysh --vty_socket ");
        line += &lab.dir.path().display().to_string();
        line += " -c 'configure terminal' -c bfd";
        for peer in peers.lines().filter(|line| line.trim_start().starts_with("peer ")) {
            let _ = write!(line, " -c '{}' -c shutdown", peer.trim());
        }
        lab.exec("they", &line);
    }
}

#[track_caller]
fn down(watched: &Watched, cases: &[Case], deadline: Duration, cause: Cause) -> std::time::Instant {
    let mut seen = Vec::new();
    let mut last = None;
    while seen.len() < cases.len() {
        let (events, at) = watched.events(deadline);
        last = Some(at);
        for Event { key, change } in events {
            let Change::Down(down) = change else { panic!("{key}: {change:?}") };
            assert_eq!(down.cause, cause, "{key}");
            seen.push(key);
        }
    }
    last.unwrap()
}

#[track_caller]
fn up(watched: &Watched, cases: &[Case]) {
    let mut left = cases.len();
    while left > 0 {
        let (events, _) = watched.events(ms(15_000));
        for event in events {
            assert_eq!(event.change, Change::Up, "{}", event.key);
            left -= 1;
        }
    }
}

/// Comes up on both sides with the same timers, notices a cut and its end, and parts without a false alarm.
fn peers_with<D: Daemon>(test: &str, cases: &[Case]) {
    let Some(mut lab) = topology(test, cases[0].hops, D::PROGRAMS) else { return };
    D::start(&mut lab, cases);
    let watched = lab.bfd("we", Options::default());
    for case in cases {
        watched.bfd.set(case.key(), plain()).unwrap();
    }
    up(&watched, cases);
    let want = (ms(300), ms(900));
    for case in cases {
        eventually("up on their side, at the negotiated pace", ms(5_000), || {
            (D::up(&lab, case)? && D::timers(&lab, case)? == want).then_some(())
        });
        eventually("the negotiated pace on ours", ms(5_000), || {
            let status = watched.status(case.key());
            ((status.tx_interval?, status.detection_time?) == want).then_some(())
        });
    }

    // They are not heard any more: we notice in the detection time, and they learn it from us.
    let (before, after) = lab.cut("we");
    let noticed = down(&watched, cases, ms(3_000), Cause::DetectionTimeExpired);
    assert!(noticed >= before + ms(550), "{:?}", noticed.duration_since(before));
    assert!(noticed <= after + ms(950), "{:?}", noticed.duration_since(after));
    for case in cases {
        eventually("down on their side", ms(1_000), || (!D::up(&lab, case)?).then_some(()));
    }
    lab.mend("we");
    up(&watched, cases);

    // We are not heard any more: they notice.
    for case in cases {
        eventually("up again on their side", ms(5_000), || D::up(&lab, case)?.then_some(()));
        eventually("our pace again", ms(5_000), || {
            (watched.status(case.key()).tx_interval == Some(ms(300))).then_some(())
        });
    }
    lab.cut("they");
    down(&watched, cases, ms(3_000), Cause::NeighborSignaled);
    for case in cases {
        assert_eq!(watched.status(case.key()).remote_diag, Diag::DETECTION_TIME_EXPIRED);
    }
    lab.mend("they");
    up(&watched, cases);

    // Their operator ends it.
    D::shut(&lab);
    down(&watched, cases, ms(3_000), D::SHUT);
}

/// We stop: they see AdminDown at once, not a timeout.
fn parts_from<D: Daemon>(test: &str, case: Case) {
    let Some(mut lab) = topology(test, case.hops, D::PROGRAMS) else { return };
    D::start(&mut lab, &[case]);
    let watched = lab.bfd("we", Options::default());
    watched.bfd.set(case.key(), plain()).unwrap();
    up(&watched, &[case]);
    eventually("up on their side", ms(5_000), || D::up(&lab, &case)?.then_some(()));
    assert_eq!(watched.status(case.key()).remote_state, State::Up);
    let Watched { bfd, .. } = watched;
    bfd.stop(Farewell::AdminDown(Duration::ZERO));
    eventually("down on their side before their detection time", ms(500), || {
        (!D::up(&lab, &case)?).then_some(())
    });
}

#[test]
fn bird_on_one_link() {
    peers_with::<Bird>("bird1", &SINGLE);
}

#[test]
fn bird_across_a_router() {
    peers_with::<Bird>("bird2", &MULTI);
}

#[test]
fn bird_is_told_when_we_stop() {
    parts_from::<Bird>("bird3", SINGLE[0]);
}

#[test]
fn frr_on_one_link() {
    peers_with::<Frr>("frr1", &SINGLE);
}

#[test]
fn frr_across_a_router() {
    peers_with::<Frr>("frr2", &MULTI);
}

#[test]
fn frr_is_told_when_we_stop() {
    parts_from::<Frr>("frr3", SINGLE[0]);
}
