//! A shell that was held up for longer than the hold time: what had arrived meanwhile counts.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bird_packet::{Capability, Family, OpenMessage, encode_keepalive};
use bird_speaker::config::{KernelRules, Local};
use bird_speaker::fsm::State;
use bird_speaker::{Config, ConnId, Input, PeerConfig, Speaker, Start};

const PEERS: u8 = 3;
const HOLD: Duration = Duration::from_secs(3);

fn address(peer: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 10 + peer)
}

/// Sessions with all peers, up at the returned time.
fn sessions() -> (Speaker, Vec<ConnId>, Duration) {
    let now = Duration::from_secs(1);
    let peers = (0..PEERS).map(|p| PeerConfig {
        name: format!("p{p}"),
        address: address(p).into(),
        remote_as: 65001,
        passive: true,
        hold_time: 3,
        ..PeerConfig::default()
    });
    let config = Config {
        local: Local { asn: 65000, router_id: Ipv4Addr::new(192, 0, 2, 1), cluster_id: None },
        peers: peers.collect(),
        kernel: KernelRules { program: false, resolve_next_hops: false, ..KernelRules::default() },
        ..Config::default()
    };
    let mut speaker = Speaker::new(now, config, Start::default());
    let conns = (0..PEERS)
        .map(|p| {
            let local = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 179));
            let conn = speaker.accept(now, SocketAddr::from((address(p), 4000)), local).unwrap();
            let mut bytes = Vec::new();
            OpenMessage {
                version: 4,
                asn: 65001,
                hold_time: 3,
                router_id: address(p),
                capabilities: vec![Capability::Multiprotocol(Family::Ipv4Unicast.into())],
            }
            .encode(&mut bytes);
            encode_keepalive(&mut bytes);
            speaker.handle(now, Input::Received { conn, data: &bytes });
            conn
        })
        .collect();
    send_all(&mut speaker, now);
    assert_eq!(up(&speaker), [true; 3]);
    (speaker, conns, now)
}

fn send_all(speaker: &mut Speaker, now: Duration) {
    while let Some(output) = speaker.poll() {
        if let bird_speaker::Output::Transmit(conn) = output {
            while speaker.transmit(now, conn, 4096, &mut Vec::new()) > 0 {}
        }
    }
}

fn up(speaker: &Speaker) -> [bool; 3] {
    ["p0", "p1", "p2"].map(|name| speaker.peer_state(name) == Some(State::Established))
}

fn keepalive() -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_keepalive(&mut bytes);
    bytes
}

#[test]
fn a_peer_whose_bytes_wait_is_not_silent() {
    let (mut speaker, conns, up_at) = sessions();
    // Four seconds later: p0 is read, p1 has bytes that are not read yet, p2 has said nothing.
    let mut now = up_at + HOLD + Duration::from_secs(1);
    speaker.handle(now, Input::Received { conn: conns[0], data: &keepalive() });
    assert_eq!(up(&speaker), [true; 3], "no timer runs before the others are heard");
    speaker.handle(now, Input::Waiting { conn: conns[1] });
    speaker.handle(now, Input::Tick);
    assert_eq!(up(&speaker), [true, true, false]);
    now += Duration::from_millis(500);
    speaker.handle(now, Input::Received { conn: conns[1], data: &keepalive() });
    now += Duration::from_millis(2400);
    speaker.handle(now, Input::Tick);
    assert_eq!(up(&speaker), [true, true, false]);
    now += HOLD;
    speaker.handle(now, Input::Tick);
    assert_eq!(up(&speaker), [false; 3]);
}

#[test]
fn bytes_that_never_make_a_message_buy_a_second_only() {
    let (mut speaker, conns, up_at) = sessions();
    let mut now = up_at + HOLD;
    speaker.handle(now, Input::Waiting { conn: conns[1] });
    speaker.handle(now, Input::Tick);
    assert_eq!(up(&speaker), [false, true, false]);
    speaker.handle(now, Input::Received { conn: conns[1], data: &keepalive()[..18] });
    now += Duration::from_millis(999);
    speaker.handle(now, Input::Tick);
    assert_eq!(up(&speaker), [false, true, false]);
    now += Duration::from_millis(1);
    speaker.handle(now, Input::Tick);
    assert_eq!(up(&speaker), [false; 3]);
}
