//! Callers that say nothing, or an octet a second: strangers, a neighbour's own address, a listen range full of them.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use bird_packet::OpenMessage;
use integration::lab::Process;
use integration::raw::{self, Heard, RawPeer, Witness};

use crate::scene::{AS, DUT, SOON, Scene, at, descriptors, resident, route};

/// Neighbours that the listen range takes.
const LIMIT: usize = 20;
/// The daemon's time for an OPEN (RFC 4271 §8.2.2 suggests it).
const OPEN_TIME: Duration = Duration::from_mins(4);

/// For half a minute.
#[test]
fn b07_slow_callers_keep_nobody_out() {
    let (scene, mut dut) = begin("b07s");
    besiege(&scene, &mut dut, Duration::from_secs(20));
}

/// Until the time for an OPEN is over: whoever is left hears so, and no octet in between has put it off.
#[test]
#[ignore = "takes five minutes; `integration/check --long` runs it"]
fn b07_slow_callers_are_hung_up_on_when_their_time_is_over() {
    let (scene, mut dut) = begin("b07t");
    besiege(&scene, &mut dut, OPEN_TIME + Duration::from_secs(10));
}

/// An address in the listen range 10.98.7.0/24, which is behind the raw host.
fn guest(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 98, 7, number)
}

fn begin(name: &str) -> (Scene, Process) {
    let scene = Scene::new(name);
    scene.dut.sh("ip route add 10.98.7.0/24 via 10.98.0.10").unwrap();
    scene.raw.sh("ip route add local 10.98.7.0/24 dev lo").unwrap();
    let dut = scene.daemon(
        "dut",
        &scene.dut,
        &format!(
            "routerId: 10.98.0.1\nasNumber: {AS}\nneighbours:
  - {{ address: 10.98.0.10, asNumber: 65010, passive: true, holdTime: 3 }}
  - {{ address: 10.98.0.11, asNumber: 65011, passive: true }}
  - {{ address: 10.98.0.12, asNumber: 65012, passive: true }}
  - {{ address: 10.98.0.13, asNumber: 65013 }}
listenRanges:
  - {{ range: 10.98.7.0/24, limit: {LIMIT} }}"
        ),
    );
    (scene, dut)
}

/// One that has called and says next to nothing.
struct Slow {
    stream: TcpStream,
    from: IpAddr,
    called: Instant,
    /// What it says, an octet a second; or nothing.
    says: Option<std::vec::IntoIter<u8>>,
    heard: Vec<u8>,
    ended: Option<Duration>,
}

impl Slow {
    fn call(scene: &Scene, from: Ipv4Addr, talks: bool) -> Self {
        let stream = raw::dial(&scene.raw, from.into(), DUT, SOON, |_| Ok(())).unwrap();
        stream.set_nonblocking(true).unwrap();
        // An OPEN of 400 octets takes longer than there is time for one.
        let mut open = vec![0xff; 16];
        open.extend([400u16.to_be_bytes().as_slice(), &[1, 4], &[0; 400]].concat());
        let says = talks.then(|| open.into_iter());
        Self { stream, from: from.into(), called: Instant::now(), says, heard: Vec::new(), ended: None }
    }

    fn go_on(&mut self) {
        if self.ended.is_some() {
            return;
        }
        if let Some(octet) = self.says.as_mut().and_then(Iterator::next) {
            let _ = self.stream.write(&[octet]);
        }
        let mut chunk = [0; 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => self.heard.extend_from_slice(&chunk[..n]),
                Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.ended = Some(self.called.elapsed());
    }

    /// The code and subcode of the NOTIFICATION that it was told, after our OPEN.
    fn told(&self) -> Option<(u8, u8)> {
        let length = usize::from(u16::from_be_bytes([*self.heard.get(16)?, *self.heard.get(17)?]));
        let last = self.heard.get(length..)?;
        (last.get(18) == Some(&3)).then(|| Some((*last.get(19)?, *last.get(20)?))).flatten()
    }
}

/// 600 calls that say nothing or little, for `length`; real neighbours come, and stay, meanwhile.
fn besiege(scene: &Scene, dut: &mut Process, length: Duration) {
    let timed = OpenMessage { hold_time: 3, ..raw::open(65010, at(10)) };
    let mut early = scene.session(10, &timed);
    early.send(&raw::update(&raw::attributes(&[65010], at(10)), &raw::nlri("11.7.0.0/24"))).unwrap();
    let early = Witness::start(early, false, Some(Duration::from_millis(900)));
    scene.route(&scene.dut, "11.7.0.0/24", Some("via 10.98.0.10"));
    let before = (descriptors(dut), resident(dut), dut.log().lines().count());

    let start = Instant::now();
    let mut slow = Vec::new();
    for n in 0..200u8 {
        slow.push(Slow::call(scene, at(20 + n % 9), n % 2 == 0)); // strangers
        slow.push(Slow::call(scene, at(11), n % 2 == 0)); // a neighbour's own address
        slow.push(Slow::call(scene, guest(1 + n), n % 2 == 0)); // the range
    }
    slow.iter_mut().for_each(Slow::go_on);
    scene.until(SOON, || {
        slow.iter_mut().for_each(Slow::go_on);
        let left = slow.iter().filter(|s| s.ended.is_none()).count();
        if left == LIMIT + 1 { Ok(()) } else { Err(format!("{left} connections left, not {}", LIMIT + 1)) }
    });
    let during = (descriptors(dut), resident(dut));
    assert!(during.0 <= before.0 + LIMIT + 2, "{} descriptors, {} before", during.0, before.0);
    // 64 KiB for each that is held, and a little for 600 that were not.
    let allowed = 64 * (u64::try_from(LIMIT).unwrap() + 1) + 1024;
    assert!(during.1 <= before.1 + allowed, "memory: {} KiB, {} before", during.1, before.1);

    // Configured, not attacked: at once. Called by the daemon: too.
    let mut twelve = scene.session(12, &raw::open(65012, at(12)));
    let listener = raw::listen(&scene.raw, (at(13), 179).into()).unwrap();
    let mut thirteen = RawPeer::over(listener.accept().unwrap().0).unwrap();
    thirteen.greet(&raw::open(65013, at(13))).unwrap_or_else(|err| scene.fail(&err));
    let others = start.elapsed();
    // The attacked address: a call takes the place of the silent one.
    let mut eleven = scene.session(11, &raw::open(65011, at(11)));
    // From the full range: as soon as a place is not worth keeping for somebody silent.
    let open = raw::open(65077, guest(250));
    let mut late =
        RawPeer::establish(&scene.raw, guest(250).into(), DUT, &open).unwrap_or_else(|err| scene.fail(&err));
    let from_range = start.elapsed();
    assert!(
        others < Duration::from_secs(5) && from_range < Duration::from_secs(10),
        "{others:?} {from_range:?}"
    );

    while start.elapsed() < length {
        std::thread::sleep(Duration::from_secs(1));
        slow.iter_mut().for_each(Slow::go_on);
    }
    for (name, peer) in [("11", &mut eleven), ("12", &mut twelve), ("13", &mut thirteen), ("late", &mut late)]
    {
        assert_eq!(peer.ending(Duration::ZERO).unwrap(), None, "{name}\n{}", scene.lab.logs(20));
    }
    assert_eq!(early.table().ended, None::<Heard>);
    assert!(early.table().longest_gap < Duration::from_millis(1500), "{:?}", early.table().longest_gap);
    assert!(route(&scene.dut, "11.7.0.0/24").is_some());

    let (held, gone): (Vec<&Slow>, Vec<&Slow>) =
        slow.iter().partition(|s| s.told() == Some((4, 0)) || s.ended.is_none());
    let evicted = gone.iter().filter(|s| s.told() == Some((6, 8))).count();
    let lines = dut.log().lines().count() - before.2;
    println!(
        "b07 | 600 slow callers: {} held, {} KiB more, {lines} lines of log; a neighbour from the full range after {:.1} s",
        LIMIT + 1,
        during.1.saturating_sub(before.1),
        from_range.as_secs_f64()
    );
    assert_eq!((held.len(), evicted), (LIMIT - 1, 1), "one silent guest made room");
    assert!(held.iter().all(|s| s.from != at(11)));
    assert!(lines <= LIMIT + 20, "{lines} lines of log:\n{}", dut.log());
    if length > OPEN_TIME {
        for s in held {
            let ended = s.ended.unwrap_or_default();
            let late = ended.saturating_sub(OPEN_TIME).max(OPEN_TIME.saturating_sub(ended));
            assert!(late < Duration::from_secs(3), "{}: {ended:?}", s.from);
        }
        // Four sessions, and the socket with which the daemon compares the kernel's routes from time to time.
        scene.until(SOON, || match descriptors(dut) {
            now if now <= before.0 + 5 => Ok(()),
            now => Err(format!("{now} descriptors, {} before", before.0)),
        });
    } else {
        assert!(held.iter().all(|s| s.ended.is_none()), "those in the range have {OPEN_TIME:?}");
    }
}
