//! A restart beside peers that cannot be called: who is waited for, and how long.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;
use std::time::Duration;

use bird_speaker::config::{KernelRules, Local};
use bird_speaker::io::ConnectError;
use bird_speaker::{Config, Event, Input, Output, PeerConfig, Speaker, Start};

const START: Duration = Duration::from_secs(100);

/// A restarted speaker with a peer for each answer; how long until its restart is over, in steps of 50 ms.
fn waits(answers: &[Option<ConnectError>]) -> Duration {
    let address = |at: usize| Ipv4Addr::new(192, 0, 2, 10 + u8::try_from(at).unwrap());
    let peers = (0..answers.len()).map(|at| PeerConfig {
        name: format!("p{at}"),
        address: address(at).into(),
        remote_as: 65000,
        ..PeerConfig::default()
    });
    let config = Config {
        local: Local { asn: 65000, router_id: Ipv4Addr::new(192, 0, 2, 1), cluster_id: None },
        peers: peers.collect(),
        kernel: KernelRules { resolve_next_hops: false, ..KernelRules::default() },
        ..Config::default()
    };
    let start = Start { restarted: true, forwarding_kept: true, local_routes: false };
    let mut speaker = Speaker::new(START, config, start);
    let mut now = START;
    loop {
        assert!(now < START + Duration::from_secs(20), "the restart does not end");
        speaker.handle(now, Input::Tick);
        while let Some(output) = speaker.poll() {
            match output {
                Output::Connect(dial) => {
                    let at = (0..answers.len()).find(|at| dial.remote.ip() == address(*at)).unwrap();
                    if let Some(reason) = answers[at] {
                        speaker.handle(now, Input::ConnectFailed { conn: dial.conn, reason });
                    }
                }
                Output::Event(Event::RestartComplete { .. }) => return now.saturating_sub(START),
                _ => {}
            }
        }
        now += Duration::from_millis(50);
    }
}

#[test]
fn a_host_without_a_way_to_it_is_given_up_after_a_second() {
    let took = waits(&[Some(ConnectError::Unreachable), Some(ConnectError::Unreachable)]);
    assert!((Duration::from_secs(1)..=Duration::from_millis(1300)).contains(&took), "{took:?}");
}

#[test]
fn a_host_that_refuses_or_is_silent_is_given_five() {
    for answer in [Some(ConnectError::Refused), None] {
        let took = waits(&[Some(ConnectError::Unreachable), answer]);
        let five = Duration::from_secs(5);
        assert!((five..=five + Duration::from_millis(300)).contains(&took), "{answer:?}: {took:?}");
    }
}
