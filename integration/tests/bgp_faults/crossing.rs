//! Calls that cross: ours with another of ours, BIRD, FRR and GoBGP, by a wire that lets both calls through at once.

use std::fmt::Write as _;
use std::time::Duration;

use integration::lab::{Namespace, Process, run_in};
use integration::router::{frr_daemon, uid};

use crate::relay::{End, Relay};
use crate::scene::{AS, SOON, Scene, at};

/// Sessions at once.
const PAIRS: u8 = 20;
/// What the other end is.
const THEIR_AS: u32 = 65005;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ours,
    Bird,
    Frr,
    Gobgp,
}

/// Forty crossings with each.
#[test]
fn b04_of_calls_that_cross_on_a_slow_wire_one_survives_at_both_ends() {
    for kind in [Kind::Ours, Kind::Bird, Kind::Frr, Kind::Gobgp] {
        cross(kind, 1);
    }
}

/// A thousand with each.
#[test]
#[ignore = "takes a quarter of an hour; `integration/check --long` runs it"]
fn b04_of_a_thousand_calls_that_cross_one_survives_each_time() {
    for kind in [Kind::Ours, Kind::Bird, Kind::Frr, Kind::Gobgp] {
        cross(kind, 25);
    }
}

/// `rounds` times twenty sessions come up with crossing calls, with an identifier of theirs below ours and above.
///
/// The connection that the end with the higher identifier made stays (RFC 4271 §6.8). GoBGP does not compare: it hangs up on
/// whoever calls while it calls itself, and now and then forgets its own call; one session is up in the end, on whichever.
fn cross(kind: Kind, rounds: u32) {
    let (mut crossed, mut kept) = (0, [0, 0]);
    for (part, id) in ["10.1.1.1", "10.200.0.1"].into_iter().enumerate() {
        let mut scene = Scene::new(&format!("b04x{part}"));
        let (middle, far) = (scene.lab.host("middle").unwrap(), scene.lab.host("far").unwrap());
        middle.wire("eth0", &far, "eth0", None).unwrap();
        for n in 0..PAIRS {
            middle.address("eth0", format!("{}/24", at(10 + n)).parse().unwrap()).unwrap();
        }
        far.address("eth0", "10.98.0.1/24".parse().unwrap()).unwrap();
        let _ours = scene.daemon("left", &scene.dut, &ours("10.98.0.1", AS, THEIR_AS));
        let theirs = Theirs::start(kind, &scene, far, id);
        let mut relay =
            Relay::start([scene.raw.clone(), middle], PAIRS, u64::from(rounds), kind == Kind::Gobgp).unwrap();
        let higher = if id == "10.200.0.1" { End::Right } else { End::Left };
        for round in 0..rounds {
            let crossing =
                relay.cross(SOON).unwrap_or_else(|err| scene.fail(&format!("{kind:?} {round}: {err:#}")));
            scene.until(SOON, || {
                let up = (established(&scene.ask("left", "show protocols")), theirs.established(&scene));
                if up == (PAIRS.into(), PAIRS.into()) {
                    Ok(())
                } else {
                    Err(format!("{kind:?} {round}: up: {up:?}"))
                }
            });
            let left =
                relay.settled().unwrap_or_else(|err| scene.fail(&format!("{kind:?} {round}: {err:#}")));
            assert_eq!(left.len(), usize::from(PAIRS));
            for survivor in left {
                kept[usize::from(survivor == higher)] += 1;
                if kind != Kind::Gobgp {
                    assert_eq!(survivor, higher, "{kind:?} {round}\n{}", scene.lab.logs(40));
                }
            }
            crossed += crossing;
            relay.hang_up();
        }
    }
    println!(
        "b04 | {kind:?}: {crossed} crossings, one connection after each: {} the higher identifier's",
        kept[1]
    );
    assert_eq!(crossed, rounds * 2 * u32::from(PAIRS));
}

/// How many sessions a BIRD, or one of ours, calls Established.
fn established(text: &str) -> usize {
    text.matches("Established").count()
}

fn ours(id: &str, asn: u32, peer_as: u32) -> String {
    let mut yaml = format!("routerId: {id}\nasNumber: {asn}\nfib: {{ program: false }}\nneighbours:\n");
    for n in 0..PAIRS {
        let peer = at(10 + n);
        writeln!(yaml, "  - {{ address: {peer}, asNumber: {peer_as}, connectRetry: 1, families: [ipv4] }}")
            .unwrap();
    }
    yaml
}

/// The other end's programs.
struct Theirs {
    kind: Kind,
    space: Namespace,
    _processes: Vec<Process>,
}

impl Theirs {
    fn start(kind: Kind, scene: &Scene, space: Namespace, id: &str) -> Self {
        let processes = match kind {
            Kind::Ours => vec![scene.daemon("right", &space, &ours(id, THEIR_AS, AS))],
            Kind::Bird => vec![scene.bird("right", &space, &bird(id))],
            Kind::Frr => frr(scene, &space, id),
            Kind::Gobgp => gobgp(scene, &space, id),
        };
        Self { kind, space, _processes: processes }
    }

    /// How many sessions it calls established.
    fn established(&self, scene: &Scene) -> usize {
        let ask = |argv: &[&str]| run_in(&self.space, argv, &[]).map(|(_, out, _)| out).unwrap_or_default();
        match self.kind {
            Kind::Ours | Kind::Bird => established(&scene.ask("right", "show protocols")),
            Kind::Frr => {
                let dir = scene.lab.file("frr");
                let dir = dir.to_string_lossy();
                ask(&["vtysh", "--vty_socket", &dir, "-c", "show bgp neighbors json"])
                    .matches("\"bgpState\":\"Established\"")
                    .count()
            }
            Kind::Gobgp => ask(&["gobgp", "neighbor", "-j"]).matches("\"session_state\":6").count(),
        }
    }
}

fn bird(id: &str) -> String {
    let mut conf = format!("router id {id};\n");
    for n in 0..PAIRS {
        write!(
            conf,
            "protocol bgp p{n} {{ local 10.98.0.1 as {THEIR_AS}; neighbor {} as {AS}; connect delay time 0;
             connect retry time 1; error wait time 1, 2; ipv4 {{ import all; export all; }}; }}\n",
            at(10 + n)
        )
        .unwrap();
    }
    conf
}

fn frr(scene: &Scene, space: &Namespace, id: &str) -> Vec<Process> {
    let dir = scene.lab.file("frr");
    std::fs::create_dir_all(&dir).unwrap();
    let mut conf = format!("router bgp {THEIR_AS}\n bgp router-id {id}\n no bgp ebgp-requires-policy\n");
    for n in 0..PAIRS {
        let peer = at(10 + n);
        write!(conf, " neighbor {peer} remote-as {AS}\n neighbor {peer} timers connect 1\n").unwrap();
    }
    let (file, empty) = (dir.join("bgpd.conf"), dir.join("zebra.conf"));
    std::fs::write(&file, conf).unwrap();
    std::fs::write(&empty, "").unwrap();
    // FRR drops its rights to the user frr, which must reach its directory.
    std::os::unix::fs::chown(&dir, uid("frr"), None).unwrap();
    std::fs::set_permissions(scene.lab.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut processes = Vec::new();
    for (daemon, file) in [("zebra", empty), ("bgpd", file)] {
        let mut process = frr_daemon(daemon, daemon, space, scene.lab.dir(), &dir, &file);
        process.start().unwrap();
        // bgpd tries zebra again only after ten seconds.
        scene.until(Duration::from_secs(10), || {
            if dir.join("zserv.api").exists() { Ok(()) } else { Err("no zebra".into()) }
        });
        processes.push(process);
    }
    processes
}

fn gobgp(scene: &Scene, space: &Namespace, id: &str) -> Vec<Process> {
    let mut conf = format!("[global.config]\nas = {THEIR_AS}\nrouter-id = \"{id}\"\n");
    for n in 0..PAIRS {
        write!(
            conf,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {AS}\n\
             [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n",
            at(10 + n)
        )
        .unwrap();
    }
    let file = scene.lab.file("gobgp.toml");
    std::fs::write(&file, conf).unwrap();
    let argv = ["gobgpd", "-f", &file.to_string_lossy(), "--api-hosts", "127.0.0.1:50051"];
    let mut process = Process::new("gobgpd", space, scene.lab.dir(), &argv);
    process.start().unwrap();
    vec![process]
}
