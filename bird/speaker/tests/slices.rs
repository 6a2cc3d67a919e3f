//! Properties of work that is done in slices: what comes of it is what comes of doing it at once, whatever happens between
//! two slices, and what comes of the last configuration if it had been in force from the start.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "harness/rig.rs"]
mod rig;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bird_packet::attr::community;
use bird_speaker::io::{Command, Resolution};
use bird_speaker::policy::{Action, Community, FilterSet, Operation, Rule};
use bird_speaker::view::RouteFilter;
use bird_speaker::{Config, FibRoute, Input};
use ipnet::IpNet;
use proptest::prelude::*;
use rig::{Op, Rig, address, announced, config, op, way};

const PEERS: u8 = 5;
const PREFIXES: u8 = 12;
/// The number of an import filter by which nothing becomes long-lived stale. Whether it came before or after the moment at
/// which a path would have become so is all that matters then, so it is in no property.
const NO_LLGR: u8 = 6;
/// Everything at once.
const AT_ONCE: usize = usize::MAX;

/// What a configuration says of one peer.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    import: u8,
    export: u8,
    allow_own_as: bool,
    graceful_shutdown: bool,
}

#[derive(Debug, Clone)]
enum Event {
    Op(Op),
    Configure { peer: u8, wanted: Wanted },
    Kernel(bool),
    Aggregate(bool),
    NextHop { peer: u8, way: u8 },
    RefreshIn(u8),
    Write(usize),
    Tick,
}

fn event() -> impl Strategy<Value = Event> {
    let wanted = (0..NO_LLGR, 0..4_u8, any::<bool>(), any::<bool>()).prop_map(
        |(import, export, allow_own_as, graceful_shutdown)| Wanted {
            import,
            export,
            allow_own_as,
            graceful_shutdown,
        },
    );
    prop_oneof![
        6 => announced(PEERS, PREFIXES).prop_map(|a| Event::Op(Op::Announce(a))),
        6 => op(PEERS, PREFIXES).prop_map(Event::Op),
        4 => (0..PEERS, wanted).prop_map(|(peer, wanted)| Event::Configure { peer, wanted }),
        1 => any::<bool>().prop_map(Event::Kernel),
        1 => any::<bool>().prop_map(Event::Aggregate),
        3 => (0..PEERS, 0..4_u8).prop_map(|(peer, way)| Event::NextHop { peer, way }),
        1 => (0..PEERS).prop_map(Event::RefreshIn),
        2 => (1..5_usize).prop_map(Event::Write),
        6 => Just(Event::Tick),
    ]
}

fn filters() -> BTreeMap<String, FilterSet> {
    let reject = |rule: Rule| Rule { action: Action::Reject, ..rule };
    let cidr = |text: &str| Rule { cidr: Some(text.parse().unwrap()), ..Rule::default() };
    let add = |text: &str| Operation::AddCommunity(text.parse().unwrap());
    let no_llgr = format!("{}:{}", community::NO_LLGR >> 16, community::NO_LLGR & 0xffff);
    let said: Community = "65000:1".parse().unwrap();
    let imports = [
        vec![],
        vec![reject(cidr("11.0.0.0/14"))],
        vec![Rule {
            operations: vec![add("65000:7"), Operation::SetPriority(2_147_483_000)],
            ..cidr("11.4.0.0/14")
        }],
        vec![reject(Rule { interface: Some("eth1".into()), ..Rule::default() })],
        vec![reject(Rule { community: Some(said), ..Rule::default() })],
        vec![reject(Rule::default())],
        vec![Rule { operations: vec![add(&no_llgr)], ..Rule::default() }],
    ];
    let exports = [
        vec![],
        vec![reject(cidr("11.2.0.0/15"))],
        vec![Rule { operations: vec![add("65000:9")], ..Rule::default() }],
        vec![reject(Rule { community: Some(said), ..Rule::default() })],
    ];
    let mut all = BTreeMap::new();
    for (n, import_v4) in imports.into_iter().enumerate() {
        all.insert(format!("import{n}"), FilterSet { import_v4, ..FilterSet::default() });
    }
    for (n, export_v4) in exports.into_iter().enumerate() {
        all.insert(format!("export{n}"), FilterSet { export_v4, ..FilterSet::default() });
    }
    all
}

/// How a speaker is built and reads.
#[derive(Debug, Clone, Copy)]
struct Build {
    add_path: bool,
    log: usize,
    slice: usize,
}

fn build() -> impl Strategy<Value = Build> {
    let log = prop_oneof![Just(64_usize), Just(600), Just(4 << 20)];
    let slice = prop_oneof![Just(1_usize), Just(3), Just(20)];
    (any::<bool>(), log, slice).prop_map(|(add_path, log, slice)| Build { add_path, log, slice })
}

fn base(Build { add_path, log, slice }: Build) -> Config {
    let mut config = config(PEERS, 2, add_path, log);
    config.filters = filters();
    config.kernel.resolve_next_hops = true;
    config.kernel.ecmp = 2;
    config.slice = slice;
    config
}

fn begin(config: &Config) -> Rig {
    let mut rig = Rig::new(config);
    rig.peers.iter_mut().for_each(|p| p.loops = true);
    rig
}

/// What an event makes of a configuration; whether it does.
fn edit(config: &mut Config, event: &Event) -> bool {
    match event {
        Event::Configure { peer, wanted } => {
            let peer = &mut config.peers[usize::from(*peer)];
            peer.import = vec![format!("import{}", wanted.import)];
            peer.export = vec![format!("export{}", wanted.export)];
            peer.allow_own_as = u8::from(wanted.allow_own_as);
            peer.graceful_shutdown = wanted.graceful_shutdown;
        }
        Event::Kernel(never) => {
            let some = "11.8.0.0/14".parse().unwrap();
            config.kernel.never_program = if *never { vec![some] } else { Vec::new() };
        }
        Event::Aggregate(there) => {
            let prefix = "11.0.0.0/8".parse().unwrap();
            let aggregate = bird_speaker::config::Aggregate { prefix, summary_only: false, blackhole: true };
            config.aggregates = if *there { vec![aggregate] } else { Vec::new() };
        }
        _ => return false,
    }
    true
}

fn perform(rig: &mut Rig, config: &mut Config, event: &Event) {
    if edit(config, event) {
        rig.speaker.configure(rig.now, config.clone());
    }
    match event {
        Event::Op(op) => rig.perform(op),
        Event::NextHop { peer, way: n } => {
            let address: IpAddr = address(*peer).into();
            let resolution = match n {
                0 => Resolution::Unreachable,
                1 => way("eth1", 0),
                n => way("eth0", u32::from(*n)),
            };
            rig.ways.insert(address, resolution.clone());
            rig.speaker.handle(rig.now, Input::NextHop { address, resolution });
        }
        Event::RefreshIn(p) => {
            rig.speaker.handle(rig.now, Input::Command(Command::RefreshIn { peer: format!("p{p}") }));
        }
        Event::Write(max) => {
            rig.write(*max);
        }
        Event::Tick => rig.speaker.handle(rig.now, Input::Tick),
        _ => {}
    }
    rig.carry_out();
}

/// What a peer holds of each prefix.
type Held = BTreeMap<String, Vec<(Vec<u8>, IpAddr)>>;
/// Paths as they are shown, what each peer holds, what the kernel has.
type Outcome = (Vec<String>, Vec<Held>, BTreeMap<IpNet, FibRoute>);

/// Lets everything come to its end. No time passes.
fn settle(rig: &mut Rig) {
    for _ in 0..10_000 {
        rig.carry_out();
        for p in 0..PEERS {
            while rig.peers[usize::from(p)].up && rig.read(p, 4096) > 0 {}
        }
        if !rig.speaker.is_busy() {
            return;
        }
        rig.speaker.handle(rig.now, Input::Tick);
    }
    panic!("it comes to no end");
}

fn outcome(rig: &mut Rig) -> Outcome {
    settle(rig);
    // For members that wait for slower ones.
    for _ in 0..4 {
        rig.now += Duration::from_millis(250);
        rig.speaker.handle(rig.now, Input::Tick);
        settle(rig);
    }
    while rig.fib_due {
        rig.write(1000);
        rig.carry_out();
    }
    let mut paths: Vec<String> = rig
        .speaker
        .routes(&RouteFilter::default())
        .into_iter()
        .map(|mut path| {
            // Numbers of paths go by what was free.
            path.path_id = 0;
            // When it was done is all that differs.
            path.changed_ms = 0;
            format!("{path:?}")
        })
        .collect();
    paths.sort();
    let held = rig.peers.iter().map(|peer| {
        let mut held = Held::new();
        for ((prefix, _), route) in &peer.exact {
            held.entry(prefix.clone()).or_default().push(route.clone());
        }
        for routes in held.values_mut() {
            routes.sort();
        }
        held
    });
    (paths, held.collect(), rig.fib.clone())
}

fn run(events: &[Event], build: Build) -> Outcome {
    let mut config = base(build);
    let mut rig = begin(&config);
    for event in events {
        perform(&mut rig, &mut config, event);
    }
    outcome(&mut rig)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slices_come_to_what_comes_of_doing_everything_at_once(
        events in prop::collection::vec(event(), 1..120),
        build in build(),
    ) {
        prop_assert_eq!(run(&events, build), run(&events, Build { slice: AT_ONCE, ..build }));
    }

    #[test]
    fn the_last_configuration_counts_as_if_it_had_been_there_from_the_start(
        mut events in prop::collection::vec(event(), 1..120),
        build in build(),
    ) {
        // What was stale when another configuration was in force depends on that one.
        events.retain(|e| !matches!(e, Event::Op(Op::Drop(_))));
        let mut last = base(build);
        for event in &events {
            edit(&mut last, event);
        }
        let mut from_the_start = begin(&last);
        for event in &events {
            if !edit(&mut last.clone(), event) {
                perform(&mut from_the_start, &mut last, event);
            }
        }
        prop_assert_eq!(run(&events, build), outcome(&mut from_the_start));
    }
}

fn plain(peer: u8, prefix: u8) -> Op {
    let (neighbour, length, origin, med, local_pref) = (0, 0, 0, None, None);
    Op::Announce(rig::Announced {
        peer,
        prefix,
        path_id: 0,
        neighbour,
        length,
        origin,
        med,
        local_pref,
        community: 0,
    })
}

/// One tick is one slice, and no slice is longer than it may be.
#[test]
fn a_changed_filter_goes_through_a_large_table_by_slices() {
    let mut config = base(Build { add_path: false, log: 4 << 20, slice: 8 });
    let mut rig = begin(&config);
    for n in 0..PREFIXES {
        rig.perform(&plain(2, n));
        rig.carry_out();
    }
    config.peers[2].import = vec!["import5".into()];
    rig.speaker.configure(rig.now, config);
    rig.carry_out();
    let best = |rig: &Rig| rig.best().len();
    assert_eq!(best(&rig), usize::from(PREFIXES), "nothing yet");
    let mut steps = 0;
    while rig.speaker.is_busy() {
        assert_eq!(rig.speaker.next_timeout(), Some(rig.now));
        let before = best(&rig);
        rig.speaker.handle(rig.now, Input::Tick);
        rig.carry_out();
        assert!(before - best(&rig) <= 1, "one path costs a slice of eight");
        steps += 1;
    }
    assert_eq!(best(&rig), 0);
    assert!(steps >= usize::from(PREFIXES), "{steps}");
}

/// The filter of now says what may become long-lived stale, also of paths that it has not come to yet.
#[test]
fn what_becomes_long_lived_stale_is_evaluated_again_first() {
    let mut config = base(Build { add_path: false, log: 4 << 20, slice: 1 });
    config.peers[2].import = vec![format!("import{NO_LLGR}")];
    let mut rig = begin(&config);
    for n in 0..PREFIXES {
        rig.perform(&plain(2, n));
        rig.carry_out();
    }
    rig.perform(&Op::Drop(2));
    rig.carry_out();
    config.peers[2].import = Vec::new();
    rig.speaker.configure(rig.now, config);
    // Its restart time passes in one moment.
    rig.now += Duration::from_millis(1100);
    rig.speaker.handle(rig.now, Input::Tick);
    settle(&mut rig);
    let paths = rig.speaker.routes(&RouteFilter::default());
    assert_eq!(paths.len(), usize::from(PREFIXES));
    assert!(paths.iter().all(|p| p.long_lived), "{paths:?}");
}
