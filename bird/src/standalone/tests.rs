use super::*;
use crate::plan::Secret;
use bird_speaker::config as speaker;
use bird_speaker::policy::{Community, Operation};

const SMALL: &str = "routerId: 192.168.174.2\nasNumber: 64999\n";

fn error(text: &str) -> String {
    format!("{:#}", parse(text).unwrap_err())
}

#[test]
fn a_neighbour_takes_from_its_group_what_it_does_not_say() {
    let text = format!(
        "{SMALL}groups: {{ nodes: {{ asNumber: 64512, holdTime: 30, families: [ipv4, ipv6] }} }}\n\
         neighbours:\n  - {{ address: 192.168.174.129, group: nodes }}\n\
         \x20 - {{ name: up, address: 10.0.0.1, asNumber: 65000, group: nodes, holdTime: 9, password: secret }}\n\
         listenRanges: [{{ range: 10.1.0.0/16, group: nodes, limit: 5 }}]\n"
    );
    let plan = parse(&text).unwrap().plan;
    let [first, second] = plan.config.peers.as_slice() else { panic!("{:?}", plan.config.peers) };
    assert_eq!((first.name.as_str(), first.remote_as, first.hold_time), ("192.168.174.129", 64512, 30));
    assert!(first.families.ipv6 && !first.password);
    assert_eq!((second.remote_as, second.hold_time, second.password), (65000, 9, true));
    assert_eq!(plan.passwords["up"], Secret(b"secret".to_vec()));
    assert_eq!(plan.config.listen_ranges[0].limit, 5);
    assert!(!format!("{plan:?}").contains("secret"));
}

#[test]
fn a_restart_has_its_times() {
    let restart = |text: &str| {
        let text = format!(
            "{SMALL}neighbours: [{{ address: 10.0.0.1, asNumber: 1, delayOpen: 3, gracefulRestart: {text} }}]\n"
        );
        let peer = parse(&text).unwrap().plan.config.peers.remove(0);
        assert_eq!(peer.delay_open, Some(Duration::from_secs(3)));
        peer.graceful_restart
    };
    let plain = restart("{ restartTime: 30 }");
    assert_eq!((plain.restart_time, plain.notification), (30, true));
    assert_eq!(plain.long_lived, speaker::LongLived::default());
    let long = restart("{ notification: false, longLived: { staleTime: 3600 } }");
    assert_eq!((long.long_lived.stale_time, long.long_lived.keep), (3600, Duration::from_hours(1)));
    assert!(!long.notification && long.long_lived.aware && !long.long_lived.partial);
    let helper = restart("{ longLived: { keep: 60, partial: true } }").long_lived;
    assert_eq!((helper.stale_time, helper.keep, helper.partial), (0, Duration::from_mins(1), true));
}

#[test]
fn operations_are_written_as_bgp_filter_has_them() {
    let text = format!(
        "{SMALL}filters:\n  mark:\n    exportV4:\n      - action: Accept\n        operations:\n\
         \x20         - addCommunity: {{ value: '64999:7' }}\n          - addCommunity: '64999:1:2'\n\
         \x20         - prependASPath: {{ prefix: [64999, 64998] }}\n          - setPriority: {{ value: 512 }}\n"
    );
    let rule = &parse(&text).unwrap().plan.config.filters["mark"].export_v4[0];
    let expected = [
        Operation::AddCommunity(Community::Standard(64999, 7)),
        Operation::AddCommunity(Community::Large(64999, 1, 2)),
        Operation::PrependAsPath(vec![64999, 64998]),
        Operation::SetPriority(512),
    ];
    assert_eq!(rule.operations, expected);
    let two = text.replace("          - setPriority", "            setPriority");
    assert!(error(&two).contains("exactly one of addCommunity"), "{}", error(&two));
}

#[test]
fn the_manual_names_every_field_and_its_example_is_correct() {
    let manual = include_str!("../../../docs/router.md");
    let example = manual.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let plan = parse(example).unwrap().plan;
    assert_eq!((plan.config.peers.len(), plan.config.aggregates.len()), (5, 1));
    for nonsense in ["nonsense: 1", "neighbours: [{ address: 10.0.0.1, nonsense: 1 }]"] {
        let said = error(&format!("{SMALL}{nonsense}\n"));
        let fields = said.split("expected one of ").nth(1).unwrap().split(" at ").next().unwrap();
        for field in fields.split(", ") {
            assert!(manual.contains(field), "docs/router.md does not say {field}");
        }
    }
}

#[test]
fn mistakes_are_named() {
    for (text, expected) in [
        ("neighbours: [{ address: 10.0.0.1 }]", "10.0.0.1: asNumber: is missing"),
        ("neighbours: [{ address: 10.0.0.1, asNumber: 1, holdTimer: 3 }]", "unknown field `holdTimer`"),
        ("neighbours: [{ address: 10.0.0.1, asNumber: 1, group: x }]", "there is no group `x`"),
        ("neighbours: [{ address: 10.0.0.1, asNumber: 1, import: [f] }]", "there is no filter `f`"),
        ("neighbours: [{ address: 10.0.0.1, asNumber: 1, holdTime: 2 }]", "below the 3 s"),
        (
            "neighbours: [{ address: 10.0.0.1, asNumber: 1, gracefulRestart: { longLived: { staleTime: 16777216 } } }]",
            "does not fit 24 bits",
        ),
        ("neighbours: [{ address: 10.0.0.1, asNumber: 1, bfd: 3 }]", "bfd: true, false, or { minTx"),
        ("neighbours: [{ address: 10.0.0.1, asNumber: 1, bfd: { minTX: 3ms } }]", "unknown field `minTX`"),
        (
            "neighbours: [{ address: 10.0.0.1, asNumber: 1, bfd: { minTx: 9ms } }]",
            "10.0.0.1: bfd.minTx: 9ms is no interval; write 10ms to 60s",
        ),
        ("neighbours: [{ address: 10.0.0.1, asNumber: 1, bfd: { multiplier: 0 } }]", "bfd.multiplier: is 0"),
        (
            "neighbours: [{ address: 'fe80::1', interface: eth0, asNumber: 1, bfd: { multihop: true } }]",
            "is on the link",
        ),
        ("neighbours: [{ address: 'fe80::1', asNumber: 1 }]", "fe80::1: interface: is missing"),
        ("neighbours: [{ asNumber: 1 }]", "a neighbour: address: is missing"),
        ("neighbours: [{ address: '::', asNumber: 1 }]", ":: is nobody's"),
        ("neighbours: [{ interface: eth0 }]", "eth0: asNumber: is missing"),
        ("neighbours: [{ interface: eth0, asNumber: 0 }]", "eth0: remote_as: AS 0 is reserved"),
        (
            "neighbours: [{ interface: eth0, asNumber: any }]",
            "a number from 1 to 4294967295, external or internal",
        ),
        ("neighbours: [{ interface: eth0, asNumber: 4294967296 }]", "external or internal"),
        ("neighbours: [{ interface: 'eth 0', asNumber: 1 }]", "is no name of an interface"),
        ("neighbours: [{ interface: eth0, asNumber: 1, bfd: { multihop: true } }]", "is on the link"),
        ("neighbours: [{ interface: eth0, defaultGateway: ipv4, asNumber: 1 }]", "keep one of them"),
        ("neighbours: [{ address: 10.0.0.1, defaultGateway: ipv4, asNumber: 1 }]", "keep one of them"),
        ("neighbours: [{ defaultGateway: both, asNumber: 1 }]", "unknown variant `both`"),
        (
            "neighbours: [{ interface: eth0, asNumber: 1 }, { name: b, interface: eth0, asNumber: 2 }]",
            "b: router advertisements on eth0 finds eth0 already",
        ),
        ("static: [{ prefix: 10.0.0.0/8 }]", "exactly one of blackhole"),
        ("fib: { protocol: 2 }", "belongs to the kernel"),
        (
            "neighbours: [{ address: 10.0.0.1, asNumber: 1, addPath: { send: true, sendLimit: 0 } }]",
            "10.0.0.1: addPath.sendLimit: is 0, and there is no such number of paths; write 1 to 4094",
        ),
        (
            "neighbours: [{ address: 10.0.0.1, asNumber: 1, addPath: { send: true, receiveLimit: 4 } }]",
            "addPath.receiveLimit: is 4, but receive is off; write receive: true beside it",
        ),
        (
            "neighbours: [{ address: 10.0.0.1, asNumber: 1, addPath: { recieve: true } }]",
            "unknown field `recieve`",
        ),
        ("fibs: {}", "unknown field `fibs`"),
        (
            "static: [{ prefix: 10.0.0.0/8, blackhole: true }]\naggregates: [{ prefix: 10.0.0.0/8 }]",
            "there twice",
        ),
    ] {
        let said = error(&format!("{SMALL}{text}\n"));
        assert!(said.contains(expected), "{text}: {said}");
    }
}

#[test]
fn paths_may_be_limited() {
    let text = "neighbours: [{ address: 10.0.0.1, asNumber: 1, addPath: { send: true, receive: true, sendLimit: 2, \
                receiveLimit: 5 } }]";
    let peers = parse(&format!("{SMALL}{text}")).unwrap().plan.config.peers;
    let (send_limit, receive_limit) = (Some(2), Some(5));
    assert_eq!(peers[0].add_path, speaker::AddPath { send: true, receive: true, send_limit, receive_limit });
}

#[test]
fn bfd_is_a_word_or_its_timers() {
    let peers = |text: &str| parse(&format!("{SMALL}{text}")).unwrap().plan.config.peers;
    let peers = peers(
        "groups: { watched: { asNumber: 1, bfd: true, sendHoldTime: 0, exportScope: own } }\n\
         neighbours:\n  - { address: 10.0.0.1, group: watched }\n\
         \x20 - { address: 10.0.0.2, group: watched, bfd: false, sendHoldTime: 9 }\n\
         \x20 - { address: 10.0.0.3, group: watched, bfd: { minTx: 50ms, multihop: true, keepRoutes: true, strict: true } }\n",
    );
    let plain = speaker::Bfd {
        min_tx: Duration::from_millis(300),
        min_rx: Duration::from_millis(300),
        multiplier: 3,
        multihop: false,
        keep_routes: false,
        strict: false,
    };
    let tuned = speaker::Bfd {
        min_tx: Duration::from_millis(50),
        multihop: true,
        keep_routes: true,
        strict: true,
        ..plain
    };
    assert_eq!(peers.iter().map(|p| p.bfd).collect::<Vec<_>>(), [Some(plain), None, Some(tuned)]);
    let holds: Vec<_> = peers.iter().map(|p| p.send_hold).collect();
    assert_eq!(holds, [None, Some(Duration::from_secs(9)), None]);
    assert_eq!(peers[0].export_scope, speaker::ExportScope::Own);
}

#[test]
fn a_neighbour_may_be_found() {
    let text = format!(
        "{SMALL}groups: {{ inside: {{ asNumber: internal, localAsNumber: 65007 }} }}\n\
         neighbours:\n  - {{ interface: eth1, asNumber: external }}\n\
         \x20 - {{ name: gw, defaultGateway: ipv6, group: inside }}\n\
         \x20 - {{ address: 10.0.0.1, asNumber: internal }}\n\
         listenRanges: [{{ range: 10.1.0.0/16, asNumber: external }}]\n"
    );
    let plan = parse(&text).unwrap().plan;
    let [eth1, gateway, plain] = plan.config.peers.as_slice() else { panic!("{:?}", plan.config.peers) };
    assert_eq!((eth1.name.as_str(), eth1.remote_as, eth1.remote_external), ("eth1", 0, true));
    assert!(eth1.families.ipv4 && eth1.families.ipv6 && eth1.extended_next_hop);
    assert!(eth1.address.is_unspecified() && eth1.interface.is_none());
    assert_eq!((gateway.name.as_str(), gateway.remote_as), ("gw", 65007));
    assert_eq!(gateway.families, speaker::Families { ipv4: false, ipv6: true });
    assert!(!gateway.extended_next_hop);
    assert_eq!((plain.remote_as, plain.remote_external), (64999, false));
    assert!(plan.config.listen_ranges[0].template.remote_external);
    let sought: Vec<String> = plan.sought.iter().map(|(name, by)| format!("{name} by {by}")).collect();
    assert_eq!(sought, ["eth1 by router advertisements on eth1", "gw by the IPv6 default route"]);
}
