//! The recorded cases with traffic of `integration/golden/bgp`: from the configuration that a node derives, and what its
//! neighbours send, to what each of them is told, what import takes, and what the kernel gets. As real Calico did it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that reads recorded cases")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use bird_packet::{
    AttrBuilder, Capability, Family, LargeCommunity, MAX_LEN, MessageKind, Nlri, OpenMessage, Origin,
    PeerKind, Prefix, SessionContext, UpdatePacker, UpdateView, encode_end_of_rib, encode_keepalive, frame,
};
use bird_speaker::config::{
    CommunityRule, Config, ExportRules, Families, KernelRules, Local, NextHopMode, NodeExport, OriginTarget,
    Originated, PeerConfig, TunnelRule,
};
use bird_speaker::io::{ConnId, FibTarget, LocalRouteKey, LocalSource, Resolution, ResolvedHop};
use bird_speaker::view::RouteFilter;
use bird_speaker::{FibRoute, ImportReason, Input, LocalRoute, Output, Speaker, Start, Time};
use ipnet::IpNet;
use serde_json::Value;

fn text(v: &Value) -> Option<String> {
    v.as_str().map(ToOwned::to_owned)
}

fn nets(v: &Value) -> Vec<IpNet> {
    strings(v).iter().map(|s| s.parse().unwrap()).collect()
}

fn strings(v: &Value) -> Vec<String> {
    v.as_array().into_iter().flatten().filter_map(text).collect()
}

fn list(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

fn number(v: &Value) -> Option<u32> {
    v.as_u64().map(|n| u32::try_from(n).unwrap())
}

fn set_u16(v: &Value, to: &mut u16) {
    if let Some(n) = v.as_u64() {
        *to = u16::try_from(n).unwrap();
    }
}

fn peer_config(peer: &Value) -> PeerConfig {
    let address: IpAddr = peer["address"].as_str().unwrap().parse().unwrap();
    let mut config = PeerConfig {
        name: text(&peer["name"]).unwrap(),
        address,
        remote_as: number(&peer["asNumber"]).unwrap(),
        local_as: number(&peer["localAsNumber"]),
        families: Families { ipv4: address.is_ipv4(), ipv6: address.is_ipv6() },
        passive: peer["passive"].as_bool().unwrap_or(false),
        source_address: text(&peer["sourceAddress"]).map(|a| a.parse().unwrap()),
        route_reflector_client: peer["routeReflectorClient"].as_bool().unwrap_or(false),
        cluster_id: text(&peer["clusterId"]).map(|a| a.parse().unwrap()),
        next_hop: match peer["nextHop"].as_str() {
            Some("self") => NextHopMode::SelfAddress,
            Some("keep") => NextHopMode::Keep,
            _ => NextHopMode::Auto,
        },
        allow_own_as: number(&peer["allowLocalAs"]).map_or(0, |n| u8::try_from(n).unwrap()),
        import: strings(&peer["importFilters"]),
        export: strings(&peer["exportFilters"]),
        ..PeerConfig::default()
    };
    set_u16(&peer["port"], &mut config.port);
    config
}

fn config(expect: &Value) -> Config {
    let metric = |key: &str| number(&expect[key]).unwrap_or(1024);
    let mut originated: Vec<Originated> = nets(&expect["blackholes"])
        .into_iter()
        .map(|prefix| Originated { prefix, target: OriginTarget::Blackhole, metric: None })
        .collect();
    originated.extend(nets(&expect["services"]).into_iter().map(|prefix| Originated {
        prefix,
        target: OriginTarget::Blackhole,
        metric: None,
    }));
    originated.extend(list(&expect["hostRoutes"]).map(|h| Originated {
        prefix: h["destination"].as_str().unwrap().parse().unwrap(),
        target: OriginTarget::Via(h["via"].as_str().unwrap().parse().unwrap()),
        metric: None,
    }));
    let kernel = &expect["kernel"];
    let mut ignored = strings(&expect["ignoredInterfaces"]);
    ignored.extend(["cali*".to_owned(), "kube-ipvs*".to_owned()]);
    Config {
        local: Local {
            asn: number(&expect["asNumber"]).unwrap(),
            router_id: expect["routerId"].as_str().unwrap().parse().unwrap(),
            cluster_id: None,
        },
        peers: list(&expect["peers"]).map(peer_config).collect(),
        originated,
        filters: serde_json::from_value(without_nulls(&expect["filters"])).unwrap(),
        export: ExportRules::Node(NodeExport {
            never_export: nets(&expect["neverExport"]),
            internal_never_export_interfaces: strings(&expect["internalNeverExportInterfaces"]),
            never_export_interfaces: vec!["bpf*.cali".into()],
            communities: list(&expect["communities"])
                .map(|c| CommunityRule {
                    cidr: c["cidr"].as_str().unwrap().parse().unwrap(),
                    communities: strings(&c["communities"]).iter().map(|c| c.parse().unwrap()).collect(),
                })
                .collect(),
            originates: nets(&expect["originates"]),
            services: nets(&expect["services"]),
            export_within: nets(&expect["exportWithin"]),
            normal_metric_v4: metric("routePriorityV4"),
            normal_metric_v6: metric("routePriorityV6"),
        }),
        kernel: KernelRules {
            never_program: nets(&kernel["neverProgram"]),
            rejects: nets(&kernel["rejects"]),
            tunnels: list(&kernel["tunnels"])
                .map(|t| TunnelRule {
                    cidr: t["cidr"].as_str().unwrap().parse().unwrap(),
                    interface: text(&t["interface"]).unwrap(),
                    except_next_hop_in: text(&t["exceptNextHopIn"]).map(|n| n.parse().unwrap()),
                })
                .collect(),
            wireguard_peers: strings(&kernel["wireguardPeers"]).iter().map(|a| a.parse().unwrap()).collect(),
            ..KernelRules::default()
        },
        ignored_interfaces: ignored,
        ..Config::default()
    }
}

/// The schema takes an absent key and null for the same.
fn without_nulls(v: &Value) -> Value {
    match v {
        Value::Object(map) => Value::Object(
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect(),
        ),
        Value::Array(list) => Value::Array(list.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// A raw neighbour, without ADD-PATH and graceful restart.
struct Neighbour {
    name: String,
    address: IpAddr,
    asn: u32,
    internal: bool,
    family: Family,
    buffer: Vec<u8>,
    open: Option<OpenMessage>,
    routes: BTreeMap<IpNet, Value>,
}

impl Neighbour {
    fn hello(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        OpenMessage {
            version: 4,
            asn: self.asn,
            hold_time: 240,
            router_id: match self.address {
                IpAddr::V4(a) => a,
                IpAddr::V6(a) => {
                    Ipv4Addr::from_bits(u32::try_from(a.to_bits() & 0x00ff_ffff).unwrap() | 0x0a00_0000)
                }
            },
            capabilities: vec![
                Capability::Multiprotocol(self.family.into()),
                Capability::FourOctetAs(self.asn),
            ],
        }
        .encode(&mut bytes);
        encode_keepalive(&mut bytes);
        bytes
    }

    fn context(&self) -> SessionContext {
        let mut ctx =
            SessionContext::new(if self.internal { PeerKind::Internal } else { PeerKind::External });
        ctx.families = Default::default();
        ctx.family_mut(self.family).enabled = true;
        ctx
    }

    fn updates(&self, routes: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        let mut packer = UpdatePacker::new();
        for route in list(routes) {
            let mut builder = AttrBuilder::new();
            let default = if self.internal { vec![] } else { vec![self.asn] };
            let path = match route["asPath"].as_array() {
                Some(path) => path.iter().map(|a| number(a).unwrap()).collect(),
                None => default,
            };
            builder.origin(Origin::Igp).as_path(&path).med(number(&route["med"]));
            if self.internal {
                builder.local_pref(Some(number(&route["localPref"]).unwrap_or(2_147_482_623)));
            }
            for c in strings(&route["communities"]) {
                let (a, b) = c.split_once(':').unwrap();
                builder.add_community((a.parse::<u32>().unwrap() << 16) | b.parse::<u32>().unwrap());
            }
            for c in strings(&route["largeCommunities"]) {
                builder.add_large_community(c.parse::<LargeCommunity>().unwrap());
            }
            for c in strings(&route["clusterList"]).iter().rev() {
                builder.prepend_cluster_id(c.parse().unwrap());
            }
            if let Some(id) = text(&route["originatorId"]) {
                builder.originator_id_if_absent(id.parse().unwrap());
            }
            let mut attrs = Vec::new();
            builder.write(&mut attrs).unwrap();
            let next_hop = text(&route["nextHop"]).map_or(self.address, |a| a.parse().unwrap());
            let prefix: Prefix = route["prefix"].as_str().unwrap().parse().unwrap();
            let nh = bird_packet::NextHop::from(next_hop);
            packer
                .announce(&self.context(), self.family, &attrs, nh, [Nlri::plain(prefix)], &mut out)
                .unwrap();
        }
        encode_end_of_rib(self.family, &mut out);
        out
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = &buffer[..];
        while let Some(message) = frame(rest, MAX_LEN).unwrap() {
            rest = &rest[message.len..];
            match message.kind {
                MessageKind::Open => self.open = Some(OpenMessage::decode(message.body).unwrap()),
                MessageKind::Update => self.update(message.body),
                MessageKind::Notification => {
                    panic!("{}: {}", self.name, bird_packet::Notification::decode(message.body).unwrap())
                }
                _ => {}
            }
        }
        self.buffer = rest.to_vec();
    }

    fn update(&mut self, body: &[u8]) {
        let ctx = self.context();
        let view = UpdateView::parse(body, &ctx).unwrap();
        assert_eq!(view.verdict(), bird_packet::Verdict::Ok);
        for withdrawal in view.withdrawals() {
            for nlri in withdrawal.routes {
                self.routes.remove(&nlri.prefix.to_string().parse().unwrap());
            }
        }
        let mut bytes = Vec::new();
        for announcement in view.announcements() {
            bytes.clear();
            view.attributes().write_canonical(&mut bytes);
            let attrs = bird_packet::AttrSet::new(&bytes);
            let mut route = serde_json::Map::new();
            route.insert("origin".into(), attrs.origin().to_string().to_lowercase().into());
            route.insert("asPath".into(), attrs.as_path().asns().collect::<Vec<_>>().into());
            route.insert("nextHop".into(), announcement.next_hop.addr.to_string().into());
            let mut optional = |key: &str, value: Option<Value>| {
                if let Some(value) = value {
                    route.insert(key.into(), value);
                }
            };
            let some = |list: Vec<String>| (!list.is_empty()).then(|| Value::from(list));
            optional("localPref", attrs.local_pref().map(Into::into));
            optional("med", attrs.med().filter(|m| *m != 0).map(Into::into));
            optional(
                "communities",
                some(attrs.communities().map(|c| format!("{}:{}", c >> 16, c & 0xffff)).collect()),
            );
            optional("largeCommunities", some(attrs.large_communities().map(|c| c.to_string()).collect()));
            optional("originatorId", attrs.originator_id().map(|i| i.to_string().into()));
            optional("clusterList", some(attrs.cluster_list().map(|c| c.to_string()).collect()));
            for nlri in announcement.routes {
                self.routes.insert(nlri.prefix.to_string().parse().unwrap(), Value::Object(route.clone()));
            }
        }
    }
}

struct Replay {
    speaker: Speaker,
    neighbours: BTreeMap<String, Neighbour>,
    conns: BTreeMap<ConnId, String>,
    now: Time,
    fib: BTreeMap<IpNet, FibRoute>,
    host_routes: Vec<(IpNet, IpAddr)>,
}

impl Replay {
    fn new(case: &Value) -> Replay {
        let expect = &case["expect"];
        let now = Time::from_secs(1);
        let config = config(expect);
        let neighbours = list(&expect["peers"])
            .map(|peer| {
                let config = peer_config(peer);
                let family = if config.address.is_ipv4() { Family::Ipv4Unicast } else { Family::Ipv6Unicast };
                let neighbour = Neighbour {
                    name: config.name.clone(),
                    address: config.address,
                    asn: config.remote_as,
                    internal: peer["internal"].as_bool().unwrap(),
                    family,
                    buffer: Vec::new(),
                    open: None,
                    routes: BTreeMap::new(),
                };
                (config.name, neighbour)
            })
            .collect();
        let host_routes = list(&expect["hostRoutes"])
            .map(|h| {
                (
                    h["destination"].as_str().unwrap().parse().unwrap(),
                    h["via"].as_str().unwrap().parse().unwrap(),
                )
            })
            .collect();
        let passive: Vec<PeerConfig> = config.peers.iter().filter(|p| p.passive).cloned().collect();
        let speaker = Speaker::new(now, config, Start::default());
        let mut replay =
            Replay { speaker, neighbours, conns: BTreeMap::new(), now, fib: BTreeMap::new(), host_routes };
        replay.local_routes(&case["inputs"]);
        for peer in passive {
            let local = peer.source_address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
            let conn = replay
                .speaker
                .accept(now, SocketAddr::new(peer.address, 4000), SocketAddr::new(local, 179))
                .unwrap();
            replay.conns.insert(conn, peer.name.clone());
            let hello = replay.neighbours[&peer.name].hello();
            replay.receive(conn, &hello);
        }
        replay
    }

    fn local_routes(&mut self, inputs: &Value) {
        for interface in list(&inputs["interfaces"]) {
            for address in strings(&interface["addresses"]) {
                let prefix = address.parse::<IpNet>().unwrap().trunc();
                self.local(prefix, LocalSource::Connected, 0, interface["name"].as_str().unwrap(), None);
            }
        }
        for route in list(&inputs["routes"]) {
            let via = text(&route["via"]).map(|v| v.parse().unwrap());
            let metric = number(&route["metric"]).unwrap_or(0);
            let prefix = route["dst"].as_str().unwrap().parse().unwrap();
            self.local(prefix, LocalSource::Kernel, metric, route["dev"].as_str().unwrap_or("eth0"), via);
        }
    }

    fn local(
        &mut self,
        prefix: IpNet,
        source: LocalSource,
        metric: u32,
        interface: &str,
        gateway: Option<IpAddr>,
    ) {
        let key = LocalRouteKey { prefix, source, metric, interface: interface.into() };
        self.speaker.handle(self.now, Input::LocalRoute(LocalRoute { key, gateway }));
    }

    fn receive(&mut self, conn: ConnId, data: &[u8]) {
        self.speaker.handle(self.now, Input::Received { conn, data });
    }

    fn serve(&mut self) {
        while let Some(output) = self.speaker.poll() {
            match output {
                Output::Connect(dial) => {
                    let local = dial.source.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
                    self.conns.insert(dial.conn, dial.peer.to_string());
                    let local = SocketAddr::new(local, 4000);
                    self.speaker.handle(self.now, Input::Connected { conn: dial.conn, local });
                    let hello = self.neighbours[&*dial.peer].hello();
                    self.receive(dial.conn, &hello);
                }
                Output::Transmit(conn) => loop {
                    let mut chunks = Vec::new();
                    if self.speaker.transmit(self.now, conn, usize::MAX, &mut chunks) == 0 {
                        break;
                    }
                    let neighbour = self.neighbours.get_mut(&self.conns[&conn]).unwrap();
                    neighbour.hear(&chunks.concat());
                },
                Output::Close(conn) => panic!("{} was closed", self.conns[&conn]),
                Output::Fib => {
                    for change in self.speaker.take_fib(usize::MAX) {
                        match change.new {
                            Some(route) => self.fib.insert(change.prefix, (*route).clone()),
                            None => self.fib.remove(&change.prefix),
                        };
                    }
                }
                Output::WatchNextHop(address) => {
                    let gateway =
                        self.host_routes.iter().find(|(net, _)| net.contains(&address)).map(|(_, via)| *via);
                    let hop = ResolvedHop { gateway, ifindex: 2, interface: "eth0".into() };
                    let resolution = Resolution::Via { hops: vec![hop], metric: 0 };
                    self.speaker.handle(self.now, Input::NextHop { address, resolution });
                }
                Output::ForgetNextHop(_) | Output::Event(_) => {}
            }
        }
    }

    fn kernel(&self) -> BTreeMap<IpNet, Value> {
        self.fib
            .iter()
            .map(|(prefix, route)| {
                let value = match &route.target {
                    FibTarget::Blackhole => {
                        serde_json::json!({ "type": "blackhole", "metric": route.metric })
                    }
                    FibTarget::Hops(hops) => {
                        let via: Vec<String> = hops.iter().map(|h| h.via.to_string()).collect();
                        let dev: Vec<&str> =
                            hops.iter().map(|h| h.device.as_deref().unwrap_or("eth0")).collect();
                        serde_json::json!({ "type": "unicast", "via": via, "dev": dev, "metric": route.metric })
                    }
                };
                (*prefix, value)
            })
            .collect()
    }
}

fn by_prefix(v: &Value) -> BTreeMap<IpNet, Value> {
    let Some(map) = v.as_object() else { return BTreeMap::new() };
    map.iter()
        .map(|(k, v)| {
            let mut v = without_nulls(v);
            if v["med"] == 0 {
                v.as_object_mut().unwrap().remove("med");
            }
            (k.parse().unwrap(), v)
        })
        .collect()
}

fn run(case: &Value) -> Vec<String> {
    let mut replay = Replay::new(case);
    replay.serve();
    for (conn, name) in replay.conns.clone() {
        let updates = replay.neighbours[&name].updates(&case["inputs"]["receives"][&name]);
        replay.receive(conn, &updates);
        replay.serve();
    }
    let mut wrong = Vec::new();
    let mut compare = |what: &str, got: BTreeMap<IpNet, Value>, want: BTreeMap<IpNet, Value>| {
        for prefix in got.keys().chain(want.keys().filter(|p| !got.contains_key(p))) {
            let (got, want) = (got.get(prefix), want.get(prefix));
            if got != want {
                wrong.push(format!("{what} {prefix}: got {got:?}, want {want:?}"));
            }
        }
    };
    for (name, neighbour) in &replay.neighbours {
        compare(&format!("sends {name}"), neighbour.routes.clone(), by_prefix(&case["sends"][name]));
        let open = &case["opens"][name];
        let got = neighbour.open.as_ref().unwrap();
        assert_eq!(Some(got.asn), number(&open["asNumber"]), "{name}");
        assert_eq!(got.router_id.to_string(), open["routerId"].as_str().unwrap(), "{name}");
        let filter = RouteFilter { peer: Some(name), ..RouteFilter::default() };
        let accepted = replay.speaker.routes(&filter);
        let accepted =
            accepted.iter().map(|r| (r.prefix, Value::from(r.import == ImportReason::Accepted))).collect();
        compare(&format!("accepts {name}"), accepted, by_prefix(&case["accepts"][name]));
    }
    compare("kernel", replay.kernel(), by_prefix(&case["kernel"]));
    wrong
}

#[test]
fn every_recorded_case_is_as_calico_did_it() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integration/golden/bgp/cases");
    let mut cases = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let case: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        if case["inputs"].is_null() {
            continue;
        }
        cases += 1;
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        wrong.extend(run(&case).into_iter().map(|w| format!("{name}: {w}")));
    }
    assert!(cases >= 19, "{cases} cases");
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}
