//! What holds for every packet and every sequence of inputs.
#![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction, reason = "a test")]

use std::time::Duration;

use bird_bfd::{
    Arrival, Change, ControlPacket, Damping, Diag, Engine, Hops, Input, Output, Params, SessionKey, State,
    Time,
};
use proptest::prelude::*;

fn key(n: u8) -> SessionKey {
    SessionKey {
        peer: [192, 0, 2, n % 3].into(),
        local: n.is_multiple_of(2).then(|| [192, 0, 2, 200].into()),
        interface: n.is_multiple_of(5).then_some(7),
        hops: if n.is_multiple_of(7) { Hops::Multi } else { Hops::Single },
    }
}

fn packets() -> impl Strategy<Value = ControlPacket> {
    let state = prop::sample::select(vec![State::AdminDown, State::Down, State::Init, State::Up]);
    let interval = prop_oneof![Just(0), Just(1), 10_000..3_000_000_u32, Just(u32::MAX)];
    let flags = any::<(bool, bool, bool, bool)>();
    let discriminators = (1..5_u32, prop_oneof![Just(0), any::<u32>()]);
    (state, 0..32_u8, flags, 1..=255_u8, discriminators, [interval.clone(), interval.clone(), interval])
        .prop_map(
            |(
                state,
                diag,
                (poll, final_, independent, demand),
                multiplier,
                (mine, yours),
                [tx, rx, echo],
            )| {
                let needs = matches!(state, State::Init | State::Up) && yours == 0;
                ControlPacket {
                    diag: Diag::new(diag),
                    state,
                    poll,
                    final_,
                    control_plane_independent: independent,
                    demand,
                    multiplier,
                    my_discriminator: mine,
                    your_discriminator: if needs { 1 } else { yours },
                    desired_min_tx: tx,
                    required_min_rx: rx,
                    required_min_echo_rx: echo,
                }
            },
        )
}

fn any_params() -> impl Strategy<Value = Params> {
    let interval = (10..2_000_u64).prop_map(Duration::from_millis);
    (interval.clone(), interval, 1..=255_u8, any::<(bool, bool, bool)>()).prop_map(
        |(min_tx, min_rx, multiplier, (passive, admin_down, damped))| Params {
            min_tx,
            min_rx,
            multiplier,
            passive: passive && multiplier > 128,
            admin_down: admin_down && multiplier < 64,
            damping: damped.then(Damping::default),
            ..Params::default()
        },
    )
}

#[derive(Debug, Clone)]
enum Step {
    Set(u8, Params),
    Remove(u8),
    Raw(u8, Vec<u8>),
    /// To the session's own discriminator, if it has one, else to zero.
    Packet(u8, ControlPacket),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (any::<u8>(), any_params()).prop_map(|(n, params)| Step::Set(n, params)),
        1 => any::<u8>().prop_map(Step::Remove),
        1 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(n, b)| Step::Raw(n, b)),
        8 => (any::<u8>(), packets()).prop_map(|(n, packet)| Step::Packet(n, packet)),
        4 => (0..2_000_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..120)
}

fn arrival(key: &SessionKey, bytes: &[u8], take: impl FnOnce(Arrival<'_>)) {
    take(Arrival {
        source: key.peer,
        destination: Some([192, 0, 2, 200].into()),
        interface: Some(7),
        ttl: Some(255),
        hops: key.hops,
        bytes,
    });
}

/// Reads the outputs: what is sent decodes, and events of a session take turns.
fn drain(
    engine: &mut Engine,
    up: &mut std::collections::BTreeMap<SessionKey, bool>,
) -> Result<usize, TestCaseError> {
    let mut sent = 0;
    while let Some(output) = engine.poll() {
        match output {
            Output::Send { session, bytes, .. } => {
                let packet = ControlPacket::decode(&bytes);
                let packet = packet.map_err(|err| TestCaseError::fail(format!("we sent: {err}")))?;
                prop_assert_eq!(packet.my_discriminator, session);
                prop_assert!(!(packet.poll && packet.final_));
                prop_assert!(packet.state == State::Up || packet.desired_min_tx >= 1_000_000);
                sent += 1;
            }
            Output::Event(event) => {
                let before = up.insert(event.key, event.change == Change::Up).unwrap_or(false);
                prop_assert_eq!(before, event.change != Change::Up, "{:?}", event);
            }
            Output::Gone { .. } => {}
        }
    }
    Ok(sent)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_panic_and_what_decodes_encodes_back(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(packet) = ControlPacket::decode(&bytes) {
            prop_assert_eq!(ControlPacket::decode(&packet.encode()), Ok(packet));
        }
    }

    #[test]
    fn what_encodes_decodes_to_the_same(packet in packets()) {
        prop_assert_eq!(ControlPacket::decode(&packet.encode()), Ok(packet));
    }

    #[test]
    fn damaged_packets_are_read_or_refused(packet in packets(), at in 0..24_usize, value in any::<u8>(), cut in 0..=24_usize) {
        let mut bytes = packet.encode();
        bytes[at] = value;
        let _ = ControlPacket::decode(&bytes);
        prop_assert_eq!(ControlPacket::decode(&bytes[..cut]).is_err(), cut < 24 || ControlPacket::decode(&bytes).is_err());
    }

    #[test]
    fn no_sequence_of_inputs_panics_or_spins(seed in any::<u64>(), steps in steps()) {
        let mut engine = Engine::new(seed);
        let mut now: Time = Duration::ZERO;
        let mut up = std::collections::BTreeMap::new();
        for step in steps {
            match step {
                Step::Set(n, params) => engine.handle(now, Input::Set(key(n), params)),
                Step::Remove(n) => engine.handle(now, Input::Remove(key(n))),
                Step::Raw(n, bytes) => arrival(&key(n), &bytes, |a| engine.handle(now, Input::Packet(a))),
                Step::Packet(n, mut packet) => {
                    let status = engine.status(now).into_iter().find(|status| status.key == key(n));
                    if let Some(status) = status {
                        packet.your_discriminator = status.discriminator;
                    }
                    arrival(&key(n), &packet.encode(), |a| engine.handle(now, Input::Packet(a)));
                }
                Step::Pass(millis) => {
                    let end = now + Duration::from_millis(millis);
                    let mut turns = 0;
                    while let Some(at) = engine.next_timeout().filter(|at| *at <= end) {
                        now = now.max(at);
                        engine.handle(now, Input::Tick);
                        prop_assert!(engine.next_timeout().is_none_or(|next| next > now), "would spin");
                        turns += 1;
                        prop_assert!(turns < 10_000);
                    }
                    now = end;
                }
            }
            // A handful of packets for each step: nobody makes us send more than he sends.
            let sent = drain(&mut engine, &mut up)?;
            let most = 2 + 21 * (2 + 2_000 / 7);
            prop_assert!(sent < most, "{}", sent);
        }
    }

    /// Between packets that the clock sends there is never less than 75 % of the slower end's interval.
    #[test]
    fn nobody_is_sent_more_than_he_wants(seed in any::<u64>(), tx in 10..500_u64, wants in 1..2_000_u32) {
        let mut engine = Engine::new(seed);
        let params = Params { min_tx: Duration::from_millis(tx), damping: None, ..Params::default() };
        let key = SessionKey { hops: Hops::Single, ..key(1) };
        engine.set(Duration::ZERO, key, params).unwrap();
        let mut now = Duration::ZERO;
        let (mut last, mut count) = (None, 0);
        while count < 60 {
            let ours = engine.status(now)[0].discriminator;
            let packet = ControlPacket {
                diag: Diag::NONE, state: if count == 0 { State::Down } else { State::Up }, poll: false, final_: true,
                control_plane_independent: false, demand: false, multiplier: 255, my_discriminator: 4,
                your_discriminator: ours, desired_min_tx: 1_000_000, required_min_rx: wants * 1_000, required_min_echo_rx: 0,
            };
            arrival(&key, &packet.encode(), |a| engine.handle(now, Input::Packet(a)));
            while engine.poll().is_some() {}
            now = engine.next_timeout().unwrap().max(now);
            engine.handle(now, Input::Tick);
            while let Some(output) = engine.poll() {
                let Output::Send { .. } = output else { continue };
                let least = Duration::from_millis(tx.max(wants.into())) * 3 / 4;
                if count > 3 && let Some(last) = last {
                    prop_assert!(now - last >= least, "{:?} after {:?}", now, last);
                }
                last = Some(now);
            }
            count += 1;
        }
    }
}
