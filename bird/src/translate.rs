//! A node's derived configuration, as the speaker takes it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::time::Duration;

use bird_intent::{self as intent, NodeConfig, SecretRef};
use bird_speaker::config::{
    Config, ExportRules, ExportScope, Families, GracefulRestart, KernelRules, Local, NextHopMode, NodeExport,
    OriginTarget, Originated, PeerConfig, TunnelRule,
};
use bird_speaker::{config as speaker, policy};
use caracal_model::GoDuration;
use caracal_model::annotation::{
    AddPath, BfdFailure, BgpSettings, Discovery, GatewayFamily, LimitAction, Timer,
};

use crate::discover::By;

/// Interfaces whose connected subnets are never told: workload links and those of the service proxy.
const NEVER_CONNECTED: [&str; 2] = ["cali*", "kube-ipvs*"];
/// The largest restart time that an OPEN can carry (RFC 4724: 12 bits).
const MAX_RESTART_TIME: u16 = 4095;
/// Calico's pause between two calls.
const CONNECT_RETRY: Duration = Duration::from_secs(5);
/// How long a node that should call us is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the shell needs beside the speaker's configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Translated {
    /// For [`bird_speaker::Speaker::configure`].
    pub(crate) config: Config,
    /// Peer -> where its password is.
    pub(crate) passwords: BTreeMap<String, SecretRef>,
    /// Peers whose address is found.
    pub(crate) sought: BTreeMap<String, By>,
    /// Where to listen.
    pub(crate) listen: Vec<std::net::SocketAddr>,
}

/// Translates; `None` when the node has no router id or no BGP address and therefore cannot speak.
pub(crate) fn node(from: &NodeConfig) -> Option<Translated> {
    let (router_id, asn) = (from.router_id?, from.as_number?);
    let mut hasher = DefaultHasher::new();
    from.node.hash(&mut hasher);
    let config = Config {
        local: Local { asn, router_id, cluster_id: None },
        peers: from.peers.iter().map(peer).collect(),
        listen_ranges: Vec::new(),
        originated: originated(from),
        filters: from.filters.iter().map(|(name, f)| (name.clone(), filter(f))).collect(),
        export: ExportRules::Node(NodeExport {
            never_export: from.never_export.clone(),
            internal_never_export_interfaces: from.internal_never_export_interfaces.clone(),
            never_export_interfaces: vec!["bpf*.cali".into()],
            communities: from
                .communities
                .iter()
                .map(|rule| speaker::CommunityRule {
                    cidr: rule.cidr,
                    communities: rule.communities.iter().map(|c| community(*c)).collect(),
                })
                .collect(),
            originates: from.originates.clone(),
            services: from.services.clone(),
            export_within: from.export_within.clone(),
            normal_metric_v4: from.route_priority_v4,
            normal_metric_v6: from.route_priority_v6,
        }),
        kernel: KernelRules {
            never_program: from.kernel.never_program.clone(),
            rejects: from.kernel.rejects.clone(),
            tunnels: from
                .kernel
                .tunnels
                .iter()
                .map(|t| TunnelRule {
                    cidr: t.cidr,
                    interface: t.interface.clone(),
                    except_next_hop_in: t.except_next_hop_in,
                })
                .collect(),
            wireguard_peers: from.kernel.wireguard_peers.clone(),
            ecmp: from.ecmp.unwrap_or(KernelRules::default().ecmp),
            ..KernelRules::default()
        },
        ignored_interfaces: from
            .ignored_interfaces
            .iter()
            .cloned()
            .chain(NEVER_CONNECTED.iter().map(|p| (*p).to_owned()))
            .collect(),
        seed: hasher.finish(),
        ..Config::default()
    };
    let passwords =
        from.peers.iter().filter_map(|p| Some((p.name.clone(), p.password_ref.clone()?))).collect();
    let sought =
        from.peers.iter().filter_map(|p| Some((p.name.clone(), sought(p.discover.as_ref()?)))).collect();
    Some(Translated { config, passwords, sought, listen: listen(from) })
}

fn sought(from: &Discovery) -> By {
    match from {
        Discovery::Interface(name) => By::Advertisements(name.clone()),
        Discovery::DefaultGateway(family) => By::DefaultGateway { v4: *family == GatewayFamily::Ipv4 },
    }
}

fn listen(from: &NodeConfig) -> Vec<std::net::SocketAddr> {
    let port = from.listen_port.unwrap_or(179);
    // An unnumbered peer calls over IPv6 a node that has no IPv6 address of its own too, unless calls are taken at the
    // node's addresses only: then it is for us to call.
    let unnumbered = from.peers.iter().any(|p| matches!(p.discover, Some(Discovery::Interface(_))));
    let anywhere = from.listen_address_v4.is_none() && from.listen_address_v6.is_none();
    let has_v6 = from.families.contains(&intent::Family::Ipv6);
    let besides = (unnumbered && anywhere && !has_v6).then_some(intent::Family::Ipv6);
    from.families
        .iter()
        .chain(&besides)
        .map(|family| {
            let address = match family {
                intent::Family::Ipv4 => {
                    from.listen_address_v4.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
                }
                intent::Family::Ipv6 => {
                    from.listen_address_v6.unwrap_or(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED))
                }
            };
            (address, port).into()
        })
        .collect()
}

fn originated(from: &NodeConfig) -> Vec<Originated> {
    let blackholes = from.blackholes.iter().map(|prefix| (*prefix, OriginTarget::Blackhole, None));
    let services = from.services.iter().map(|prefix| (*prefix, OriginTarget::None, None));
    let hosts =
        from.host_routes.iter().map(|route| (route.destination, OriginTarget::Via(route.via), Some(0)));
    blackholes
        .chain(services)
        .chain(hosts)
        .map(|(prefix, target, metric)| Originated { prefix, target, metric })
        .collect()
}

fn peer(from: &intent::Peer) -> PeerConfig {
    let settings = &from.settings;
    let default = PeerConfig::default();
    let keepalive = from.keepalive_seconds.or(settings.keepalive.map(seconds));
    // Calico's nodes speak one session for each family, over its own addresses.
    let families =
        Families { ipv4: from.carries(intent::Family::Ipv4), ipv6: from.carries(intent::Family::Ipv6) };
    let unnumbered = matches!(from.discover, Some(Discovery::Interface(_)));
    let restart_time = from
        .graceful_restart_seconds
        .map_or(120, |s| u16::try_from(s).unwrap_or(MAX_RESTART_TIME).min(MAX_RESTART_TIME));
    PeerConfig {
        name: from.name.clone(),
        address: from.address,
        port: from.port.unwrap_or(179),
        remote_as: from.as_number,
        remote_external: from.discover.is_some() && from.as_number == 0,
        local_as: from.local_as_number,
        families,
        passive: from.passive || settings.passive == Some(true),
        // Between nodes passive only avoids two calls at once; a workload is never called.
        patience: (from.kind != intent::PeerType::LocalWorkload && settings.passive != Some(true))
            .then_some(PATIENCE),
        source_address: from.source_address,
        hold_time: settings.hold_time.map_or(default.hold_time, |t| clamped(seconds(t))),
        keepalive: keepalive.map(clamped),
        connect_retry: settings.connect_retry.map_or(CONNECT_RETRY, Duration::from),
        send_hold: match settings.send_hold_time {
            None => default.send_hold,
            Some(Timer::Off) => None,
            Some(Timer::After(time)) => Some(time.into()),
        },
        ttl_security: from.ttl_security,
        multihop: from.multihop,
        password: from.password,
        route_reflector_client: from.route_reflector_client,
        cluster_id: from.cluster_id,
        next_hop: match from.next_hop {
            intent::NextHopMode::Auto => NextHopMode::Auto,
            intent::NextHopMode::Own => NextHopMode::SelfAddress,
            intent::NextHopMode::Keep => NextHopMode::Keep,
        },
        add_path: {
            let way = settings.add_path.unwrap_or(AddPath::Both);
            speaker::AddPath {
                receive: matches!(way, AddPath::Receive | AddPath::Both),
                send: matches!(way, AddPath::Send | AddPath::Both),
                receive_limit: settings.add_path_receive_limit,
                send_limit: settings.add_path_send_limit,
            }
        },
        graceful_restart: GracefulRestart {
            enabled: settings.graceful_restart.unwrap_or(true),
            restart_time,
            long_lived: match settings.long_lived_stale_time {
                Some(Timer::After(time)) => speaker::LongLived {
                    stale_time: u32::try_from(seconds(time)).unwrap_or(u32::MAX),
                    keep: time.into(),
                    ..speaker::LongLived::default()
                },
                None | Some(Timer::Off) => speaker::LongLived::default(),
            },
            ..GracefulRestart::default()
        },
        enabled: settings.shutdown != Some(true),
        as_override: settings.as_override.unwrap_or(default.as_override),
        reject_as_sets: settings.reject_as_sets.unwrap_or(default.reject_as_sets),
        enforce_first_as: settings.enforce_first_as.unwrap_or(default.enforce_first_as),
        extended_next_hop: settings.extended_next_hop.unwrap_or(unnumbered),
        extended_message: settings.extended_message.unwrap_or(default.extended_message),
        remove_private_as: settings.remove_private_as.unwrap_or(default.remove_private_as),
        graceful_shutdown: settings.graceful_shutdown.unwrap_or(default.graceful_shutdown),
        bfd: from.bfd.map(|bfd| speaker::Bfd {
            min_tx: bfd.min_tx.into(),
            min_rx: bfd.min_rx.into(),
            multiplier: bfd.multiplier,
            multihop: bfd.multihop,
            keep_routes: bfd.failure == BfdFailure::Keep,
            strict: bfd.strict,
        }),
        prefix_limit: settings.prefix_limit.map(|max| prefix_limit(max, settings)),
        allow_own_as: from.allow_local_as.map_or(0, |n| u8::try_from(n).unwrap_or(u8::MAX)),
        import: from.import_filters.clone(),
        export: from.export_filters.clone(),
        export_scope: match from.export {
            None => ExportScope::All,
            Some(intent::ExportScope::Own) => ExportScope::Own,
            Some(intent::ExportScope::NoTransit) => ExportScope::NoTransit,
        },
        ..default
    }
}

fn prefix_limit(max: u32, settings: &BgpSettings) -> speaker::PrefixLimit {
    speaker::PrefixLimit {
        max,
        action: match settings.prefix_limit_action {
            Some(LimitAction::Warn) => speaker::LimitAction::Warn,
            None | Some(LimitAction::Discard) => speaker::LimitAction::Discard,
            Some(LimitAction::Reset) => speaker::LimitAction::Reset,
        },
        restart: match settings.prefix_limit_restart {
            None | Some(Timer::Off) => None,
            Some(Timer::After(time)) => Some(time.into()),
        },
    }
}

fn seconds(time: GoDuration) -> u64 {
    Duration::from(time).as_secs()
}

fn clamped(seconds: u64) -> u16 {
    u16::try_from(seconds).unwrap_or(u16::MAX)
}

fn filter(from: &intent::Filter) -> policy::FilterSet {
    let rules = |list: &[intent::Rule]| list.iter().map(rule).collect();
    policy::FilterSet {
        import_v4: rules(&from.import_v4),
        export_v4: rules(&from.export_v4),
        import_v6: rules(&from.import_v6),
        export_v6: rules(&from.export_v6),
    }
}

fn rule(from: &intent::Rule) -> policy::Rule {
    policy::Rule {
        action: match from.action {
            intent::Action::Accept => policy::Action::Accept,
            intent::Action::Reject => policy::Action::Reject,
        },
        cidr: from.cidr,
        match_operator: from.match_operator.map(|operator| match operator {
            intent::MatchOperator::Equal => policy::MatchOperator::Equal,
            intent::MatchOperator::NotEqual => policy::MatchOperator::NotEqual,
            intent::MatchOperator::In => policy::MatchOperator::In,
            intent::MatchOperator::NotIn => policy::MatchOperator::NotIn,
        }),
        prefix_length: from.prefix_length.map(|l| policy::PrefixLength { min: l.min, max: l.max }),
        source: from.source.map(|intent::RouteSource::RemotePeers| policy::Source::RemotePeers),
        interface: from.interface.clone(),
        peer_type: from.peer_type.map(|scope| match scope {
            intent::PeerScope::External => policy::PeerType::External,
            intent::PeerScope::Internal => policy::PeerType::Internal,
        }),
        community: from.community.map(community),
        as_path_prefix: from.as_path_prefix.clone(),
        priority: from.priority,
        operations: from
            .operations
            .iter()
            .map(|operation| match operation {
                intent::Operation::AddCommunity(c) => policy::Operation::AddCommunity(community(*c)),
                intent::Operation::PrependAsPath(path) => policy::Operation::PrependAsPath(path.clone()),
                intent::Operation::SetPriority(p) => policy::Operation::SetPriority(*p),
            })
            .collect(),
    }
}

fn community(from: intent::Community) -> policy::Community {
    match from {
        intent::Community::Standard(a, b) => policy::Community::Standard(a, b),
        intent::Community::Large(a, b, c) => policy::Community::Large(a, b, c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the objects to the speaker: every annotation arrives.
    #[test]
    fn annotations_reach_the_speaker() {
        let mut facts = intent::Facts::new();
        let mut put = |key: &str, kind: &str, name: &str, annotations: &str, spec: &str| {
            let value = format!(
                r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3",
                "metadata":{{"name":"{name}","annotations":{{{annotations}}}}},"spec":{spec}}}"#
            );
            let key = format!("/calico/resources/v3/projectcalico.org/{key}/{name}");
            assert_eq!(facts.update(&key, Some(value.as_bytes())).problem, None);
        };
        put("nodes", "Node", "a", "", r#"{"bgp":{"ipv4Address":"10.20.0.1/24"}}"#);
        let global = r#""caracal.io/ecmp":"8","caracal.io/keepalive":"2s""#;
        put("bgpconfigurations", "BGPConfiguration", "default", global, "{}");
        let all = r#""caracal.io/bfd":"on","caracal.io/bfd-min-tx":"50ms","caracal.io/bfd-multiplier":"5",
            "caracal.io/bfd-multihop":"on","caracal.io/bfd-failure":"keep","caracal.io/bfd-strict":"on","caracal.io/hold-time":"9s",
            "caracal.io/connect-retry":"2s","caracal.io/send-hold-time":"off","caracal.io/prefix-limit":"10",
            "caracal.io/prefix-limit-action":"reset","caracal.io/prefix-limit-restart":"1m",
            "caracal.io/add-path":"send","caracal.io/add-path-send-limit":"3","caracal.io/add-path-receive-limit":"9","caracal.io/extended-next-hop":"on","caracal.io/extended-message":"off",
            "caracal.io/export":"own","caracal.io/remove-private-as":"on","caracal.io/enforce-first-as":"on",
            "caracal.io/graceful-restart":"off","caracal.io/graceful-shutdown":"on","caracal.io/passive":"on",
            "caracal.io/as-override":"on","caracal.io/reject-as-sets":"on","caracal.io/shutdown":"on",
            "caracal.io/long-lived-stale-time":"1h""#;
        let spec = |ip: &str| format!(r#"{{"peerIP":"{ip}","asNumber":65500}}"#);
        put("bgppeers", "BGPPeer", "tor", all, &spec("10.20.0.254"));
        put("bgppeers", "BGPPeer", "plain", "", &spec("10.20.0.253"));
        let config = node(&intent::derive(&facts, "a", &intent::Env::default()).unwrap()).unwrap().config;
        let peer = |name: &str| config.peers.iter().find(|p| p.name == name).unwrap();

        let secs = Duration::from_secs;
        let plain = PeerConfig {
            name: "Global_10_20_0_253".into(),
            address: "10.20.0.253".parse().unwrap(),
            remote_as: 65500,
            keepalive: Some(2),
            patience: Some(PATIENCE),
            source_address: Some("10.20.0.1".parse().unwrap()),
            ..PeerConfig::default()
        };
        assert_eq!(*peer("Global_10_20_0_253"), plain);
        let tuned = PeerConfig {
            name: "Global_10_20_0_254".into(),
            address: "10.20.0.254".parse().unwrap(),
            passive: true,
            patience: None,
            hold_time: 9,
            connect_retry: secs(2),
            send_hold: None,
            add_path: speaker::AddPath {
                receive: false,
                send: true,
                receive_limit: Some(9),
                send_limit: Some(3),
            },
            graceful_restart: GracefulRestart {
                enabled: false,
                long_lived: speaker::LongLived {
                    stale_time: 3600,
                    keep: secs(3600),
                    ..speaker::LongLived::default()
                },
                ..GracefulRestart::default()
            },
            enabled: false,
            as_override: true,
            reject_as_sets: true,
            enforce_first_as: true,
            extended_next_hop: true,
            extended_message: false,
            remove_private_as: true,
            graceful_shutdown: true,
            bfd: Some(speaker::Bfd {
                min_tx: Duration::from_millis(50),
                min_rx: Duration::from_millis(300),
                multiplier: 5,
                multihop: true,
                keep_routes: true,
                strict: true,
            }),
            prefix_limit: Some(speaker::PrefixLimit {
                max: 10,
                action: speaker::LimitAction::Reset,
                restart: Some(secs(60)),
            }),
            export_scope: ExportScope::Own,
            ..plain
        };
        assert_eq!(*peer("Global_10_20_0_254"), tuned);
        assert_eq!(config.kernel.ecmp, 8);
    }

    /// The examples of docs/annotations.md.
    #[test]
    fn peers_that_a_node_finds_reach_the_speaker_without_an_address() {
        let manual = include_str!("../../docs/annotations.md");
        let section = manual.split("## Peers without an address").nth(1).unwrap();
        let example = section.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
        let mut facts = intent::Facts::new();
        let mut put = |kind: &str, name: &str, value: &str| {
            let key = format!("/calico/resources/v3/projectcalico.org/{kind}/{name}");
            assert_eq!(facts.update(&key, Some(value.as_bytes())).problem, None);
        };
        let node_object = r#"{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"a"},
            "spec":{"bgp":{"ipv4Address":"10.20.0.1/24"}}}"#;
        put("nodes", "a", node_object);
        for document in example.split("---\n") {
            let value: serde_json::Value = serde_yaml::from_str(document).unwrap();
            assert_eq!(caracal_model::validate::validate_value("BGPPeer", &value), []);
            put("bgppeers", value["metadata"]["name"].as_str().unwrap(), &value.to_string());
        }
        let translated = node(&intent::derive(&facts, "a", &intent::Env::default()).unwrap()).unwrap();
        let sought: Vec<String> =
            translated.sought.iter().map(|(name, by)| format!("{name}: {by}")).collect();
        assert_eq!(
            sought,
            [
                "Global_gateway_ipv4: the IPv4 default route",
                "Global_interface_eth1: router advertisements on eth1"
            ]
        );
        let listen: Vec<String> = translated.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["0.0.0.0:179", "[::]:179"], "called over IPv6 too");
        let [gateway, eth1] = translated.config.peers.as_slice() else { panic!("two peers") };
        assert!(gateway.address.is_unspecified() && gateway.address.is_ipv4());
        assert_eq!((gateway.remote_as, gateway.remote_external), (64999, false));
        assert_eq!(gateway.source_address, Some("10.20.0.1".parse().unwrap()));
        assert_eq!(gateway.families, Families { ipv4: true, ipv6: false });
        assert_eq!((eth1.remote_as, eth1.remote_external, eth1.source_address), (0, true, None));
        assert!(eth1.families.ipv4 && eth1.families.ipv6 && eth1.extended_next_hop);
    }
}
