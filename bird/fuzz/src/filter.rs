//! Filters of `bird/speaker` against a second, plain reading of the same rules: routes of one peer and of this host go in
//! through the import rules of that peer, out through the export rules of another, and what arrives there is compared.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bird_packet::attr::AttrBuilder;
use bird_packet::{
    AttrSet, Capability, Family, LargeCommunity, MAX_LEN_EXTENDED, MessageKind, NextHop, Nlri, OpenMessage,
    Origin, PeerKind, Prefix, SessionContext, UpdatePacker, UpdateView, encode_keepalive, frame,
};
use bird_speaker::config::{Config, Families, Local, OriginTarget, Originated, PeerConfig};
use bird_speaker::io::{ConnId, LocalRouteKey, LocalSource, Resolution, ResolvedHop};
use bird_speaker::policy::{
    Action, Community, FilterSet, MatchOperator, Operation, PeerType, PrefixLength, Rule, Source,
};
use bird_speaker::view::RouteFilter;
use bird_speaker::{ImportReason, Input, LocalRoute, Output, Speaker, Start};
use ipnet::IpNet;

const OUR_AS: u32 = 65001;
const NOW: Duration = Duration::from_secs(1);
const NETS: [&str; 12] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "0.0.0.0/0",
    "172.16.0.0/12",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "2001:db8:1::1/128",
    "fd00::/8",
    "::/0",
    "10.1.2.128/25",
];
const INTERFACES: [&str; 4] = ["eth0", "cali7", "eth0.7", "tunl0"];
const GLOBS: [&str; 8] = ["eth0", "eth*", "*", "cali*", "*0", "e*0*7", "", "*.*"];
const COMMUNITIES: [Community; 4] = [
    Community::Standard(65000, 1),
    Community::Standard(65000, 2),
    Community::Large(65000, 1, 2),
    Community::Large(1, 0, 0),
];
const PATHS: [&[u32]; 6] = [&[], &[65002], &[65002, 65003], &[65003], &[OUR_AS], &[OUR_AS, 65002]];
const PRIORITIES: [u32; 5] = [0, 100, 1024, 2_147_483_547, u32::MAX];
const METRIC_SUM: u32 = 2_147_483_647;

/// Two octets for the sessions and the numbers of rules, five for each rule, then three for each route.
pub fn filter(data: &[u8]) {
    let mut script = data.iter().copied();
    let mut octet = || script.next().unwrap_or(0);
    let (kinds, counts) = (octet(), octet());
    let internal = [kinds & 1 != 0, kinds & 2 != 0];
    let client = kinds & 4 != 0;
    let import: Vec<Rule> = (0..counts & 3).map(|_| rule(&mut octet)).collect();
    let export: Vec<Rule> = (0..counts >> 2 & 3).map(|_| rule(&mut octet)).collect();
    let mut routes = BTreeMap::new();
    for _ in 0..=counts >> 4 {
        let route = Route::learned(internal[0], octet(), octet(), octet());
        routes.insert(route.prefix, route);
    }

    let mut bench = Bench::new(config(internal, client, &import, &export));
    let sender = bench.establish(0, internal[0]);
    for route in routes.values() {
        bench.tell(sender, route);
    }
    let listener = bench.establish(1, internal[1]);

    let from = RouteFilter { peer: Some("a"), ..RouteFilter::default() };
    let views = bench.speaker.routes(&from);
    assert_eq!(views.len(), routes.len());
    let mut passed = Vec::new();
    for view in views {
        let route = &routes[&view.prefix];
        let imported = evaluate(&import, route, internal[0], None);
        assert_eq!(view.import == ImportReason::Accepted, imported.is_some(), "{view:?} {import:?}");
        if let Some(imported) = imported {
            assert_eq!(view.attrs.as_path, imported.path);
            assert_eq!(view.attrs.local_pref, Some(imported.local_pref));
            assert_eq!(view.attrs.communities.len(), imported.standard.len());
            passed.push(imported);
        }
    }

    // Nothing beats a route that is configured here; one of the kernel stands like an ordinary one and wins a tie.
    let mut best: BTreeMap<IpNet, Route> = passed.into_iter().map(|route| (route.prefix, route)).collect();
    let (configured, kernel) = (Route::local("172.16.0.0/12", ""), Route::local("10.1.2.3/32", "cali7"));
    best.insert(configured.prefix, configured);
    if best.get(&kernel.prefix).is_none_or(|route| route.local_pref <= kernel.local_pref) {
        best.insert(kernel.prefix, kernel);
    }
    let reflected = internal != [true, true] || client;
    best.retain(|_, route| !route.learned || reflected);
    let expected: BTreeMap<IpNet, Heard> = best
        .iter()
        .filter_map(|(prefix, route)| Some((*prefix, leave(&export, route, internal[1])?)))
        .collect();
    assert_eq!(bench.heard(listener, internal[1]), expected, "{import:?} {export:?}");
}

/// A route, as far as rules and what leaves depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    prefix: IpNet,
    learned: bool,
    interface: &'static str,
    path: Vec<u32>,
    local_pref: u32,
    standard: Vec<u32>,
    large: Vec<LargeCommunity>,
}

impl Route {
    fn learned(internal: bool, what: u8, path: u8, more: u8) -> Self {
        let first = (!internal).then_some(65002);
        let rest: &[u32] = [&[][..], &[65002], &[65003], &[65002, 65003]][usize::from(path & 3)];
        let mut route = Self {
            prefix: NETS[usize::from(what) % NETS.len()].parse().expect("a prefix"),
            learned: true,
            interface: INTERFACES[usize::from(what >> 6)],
            path: first.into_iter().chain(rest.iter().copied()).collect(),
            local_pref: 100,
            standard: Vec::new(),
            large: Vec::new(),
        };
        if internal && path & 4 != 0 {
            route.local_pref = METRIC_SUM - PRIORITIES[usize::from(path >> 4) % 4];
        }
        for (bit, community) in COMMUNITIES.into_iter().enumerate() {
            if more >> bit & 1 != 0 {
                route.add(community);
            }
        }
        route
    }

    /// A route of this host.
    fn local(prefix: &str, interface: &'static str) -> Self {
        Self {
            prefix: prefix.parse().expect("a prefix"),
            learned: false,
            interface,
            path: Vec::new(),
            local_pref: 100,
            standard: Vec::new(),
            large: Vec::new(),
        }
    }

    fn add(&mut self, community: Community) {
        match community {
            Community::Standard(a, b) => {
                let community = u32::from(a) << 16 | u32::from(b);
                if !self.standard.contains(&community) {
                    self.standard.push(community);
                }
            }
            Community::Large(global, local1, local2) => {
                let community = LargeCommunity { global, local1, local2 };
                if !self.large.contains(&community) {
                    self.large.push(community);
                }
            }
        }
    }

    fn has(&self, community: Community) -> bool {
        let mut with = self.clone();
        with.add(community);
        with == *self
    }

    fn matches(&self, rule: &Rule, internal: bool, own_as: Option<u32>) -> bool {
        if let Some(cidr) = rule.cidr {
            let long_enough = rule
                .prefix_length
                .is_none_or(|l| l.min <= self.prefix.prefix_len() && self.prefix.prefix_len() <= l.max);
            let inside = cidr.contains(&self.prefix) && long_enough;
            let same = cidr == self.prefix && long_enough;
            let matches = match rule.match_operator {
                Some(MatchOperator::Equal) => same,
                Some(MatchOperator::NotEqual) => !same,
                Some(MatchOperator::In) | None => inside,
                Some(MatchOperator::NotIn) => !inside,
            };
            if !matches {
                return false;
            }
        }
        let path: Vec<u32> = own_as.into_iter().chain(self.path.iter().copied()).collect();
        !(rule.source.is_some() && !self.learned
            || rule.interface.as_ref().is_some_and(|glob| !fits(glob.as_bytes(), self.interface.as_bytes()))
            || rule.peer_type.is_some_and(|kind| (kind == PeerType::Internal) != internal)
            || rule.community.is_some_and(|community| !self.has(community))
            || rule.as_path_prefix.as_ref().is_some_and(|wanted| !path.starts_with(wanted))
            || rule.priority.is_some_and(|p| {
                i64::from(p) != i64::from(METRIC_SUM) - i64::from(self.local_pref)
                    && !(p > METRIC_SUM && self.local_pref == 0)
            }))
    }
}

fn fits(glob: &[u8], name: &[u8]) -> bool {
    match (glob, name) {
        ([], []) => true,
        ([b'*', glob @ ..], _) => (0..=name.len()).any(|at| fits(glob, &name[at..])),
        ([g, glob @ ..], [n, name @ ..]) => g == n && fits(glob, name),
        _ => false,
    }
}

/// The route after a chain; `None` when it is rejected. `own_as`: of a session to another AS.
fn evaluate(rules: &[Rule], route: &Route, internal: bool, own_as: Option<u32>) -> Option<Route> {
    let mut route = route.clone();
    let mut own_as = own_as;
    if let Some(rule) = rules.iter().find(|rule| route.matches(rule, internal, own_as)) {
        if rule.action == Action::Reject {
            return None;
        }
        for operation in &rule.operations {
            match operation {
                Operation::AddCommunity(community) => route.add(*community),
                Operation::PrependAsPath(asns) => {
                    let own = own_as.take();
                    route.path = asns.iter().copied().chain(own).chain(route.path).collect();
                }
                Operation::SetPriority(priority) => route.local_pref = METRIC_SUM.saturating_sub(*priority),
            }
        }
    }
    // Our own AS goes in front at the latest when the route leaves.
    route.path = own_as.into_iter().chain(route.path).collect();
    Some(route)
}

/// What a peer hears: path, LOCAL_PREF, communities of both kinds.
type Heard = (Vec<u32>, Option<u32>, Vec<u32>, Vec<LargeCommunity>);

fn leave(rules: &[Rule], route: &Route, internal: bool) -> Option<Heard> {
    let out = evaluate(rules, route, internal, (!internal).then_some(OUR_AS))?;
    Some((out.path, internal.then_some(out.local_pref), out.standard, out.large))
}

fn rule(octet: &mut impl FnMut() -> u8) -> Rule {
    let (what, cidr, conditions, more, operations) = (octet(), octet(), octet(), octet(), octet());
    let pick = |octet: u8, from: usize| usize::from(octet) % from;
    let mut rule = Rule::default();
    if what & 1 != 0 {
        rule.action = Action::Reject;
    }
    if what & 2 != 0 {
        rule.cidr = Some(NETS[pick(cidr, NETS.len())].parse().expect("a prefix"));
        use MatchOperator::{Equal, In, NotEqual, NotIn};
        rule.match_operator = [None, Some(Equal), Some(NotEqual), Some(In), Some(NotIn)][pick(what >> 5, 5)];
        if what & 4 != 0 {
            let min = cidr >> 4 << 1;
            rule.prefix_length = Some(PrefixLength { min, max: min + (more >> 4 << 2) });
        }
    }
    rule.source = (what & 8 != 0).then_some(Source::RemotePeers);
    if what & 16 != 0 {
        rule.interface = Some(GLOBS[pick(more, GLOBS.len())].to_owned());
    }
    rule.peer_type = [None, None, Some(PeerType::Internal), Some(PeerType::External)][pick(conditions, 4)];
    if conditions & 4 != 0 {
        rule.community = Some(COMMUNITIES[pick(conditions >> 3, 4)]);
    }
    if conditions & 32 != 0 {
        rule.as_path_prefix = Some(PATHS[pick(more >> 3, PATHS.len())].to_vec());
    }
    if conditions & 64 != 0 {
        rule.priority = Some(PRIORITIES[pick(more, PRIORITIES.len())]);
    }
    let mut left = operations;
    while left & 3 != 0 {
        rule.operations.push(match left & 3 {
            1 => Operation::AddCommunity(COMMUNITIES[pick(more ^ left, 4)]),
            2 => Operation::PrependAsPath(if left & 4 == 0 { vec![65010, 65011] } else { vec![OUR_AS] }),
            _ => Operation::SetPriority(PRIORITIES[pick(left >> 2, PRIORITIES.len())]),
        });
        left >>= 2;
    }
    rule
}

fn config(internal: [bool; 2], client: bool, import: &[Rule], export: &[Rule]) -> Config {
    // In two filters, with one that does not exist between them: that must make no difference.
    let mut filters = BTreeMap::new();
    for (name, rules) in [("import", import), ("export", export)] {
        let (first, rest) = rules.split_at(rules.len().min(1));
        for (number, rules) in [first, rest].into_iter().enumerate() {
            let rules = rules.to_vec();
            let set = if name == "import" {
                FilterSet { import_v4: rules.clone(), import_v6: rules, ..FilterSet::default() }
            } else {
                FilterSet { export_v4: rules.clone(), export_v6: rules, ..FilterSet::default() }
            };
            filters.insert(format!("{name}-{number}"), set);
        }
    }
    let names = |name: &str| vec![format!("{name}-0"), "missing".to_owned(), format!("{name}-1")];
    let peer = |at: u8| PeerConfig {
        name: if at == 0 { "a".into() } else { "b".into() },
        address: [192, 0, 2, 2 + at].into(),
        remote_as: remote_as(at, internal[usize::from(at)]),
        families: Families { ipv4: true, ipv6: true },
        next_hop_v6: Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()),
        passive: true,
        route_reflector_client: at == 1 && client,
        import: if at == 0 { names("import") } else { Vec::new() },
        export: if at == 1 { names("export") } else { Vec::new() },
        ..PeerConfig::default()
    };
    Config {
        local: Local { asn: OUR_AS, router_id: [10, 0, 0, 1].into(), cluster_id: None },
        peers: vec![peer(0), peer(1)],
        originated: vec![Originated {
            prefix: "172.16.0.0/12".parse().expect("a prefix"),
            target: OriginTarget::Blackhole,
            metric: None,
        }],
        filters,
        seed: 7,
        ..Config::default()
    }
}

fn remote_as(at: u8, internal: bool) -> u32 {
    if internal { OUR_AS } else { 65002 + 100 * u32::from(at) }
}

fn context(internal: bool) -> SessionContext {
    let kind = if internal { PeerKind::Internal } else { PeerKind::External };
    let mut ctx = SessionContext::new(kind);
    ctx.family_mut(Family::Ipv6Unicast).enabled = true;
    ctx
}

/// The speaker and what it sent on each connection.
struct Bench {
    speaker: Speaker,
    internal: Vec<bool>,
    sent: BTreeMap<ConnId, Vec<u8>>,
}

impl Bench {
    fn new(config: Config) -> Self {
        let mut speaker = Speaker::new(NOW, config, Start::default());
        let key = LocalRouteKey {
            prefix: "10.1.2.3/32".parse().expect("a prefix"),
            source: LocalSource::Kernel,
            metric: 0,
            interface: "cali7".into(),
        };
        speaker.handle(NOW, Input::LocalRoute(LocalRoute { key, gateway: None }));
        let mut bench = Self { speaker, internal: Vec::new(), sent: BTreeMap::new() };
        bench.settle();
        bench
    }

    fn establish(&mut self, at: u8, internal: bool) -> ConnId {
        let remote = SocketAddr::new([192, 0, 2, 2 + at].into(), 40_000);
        let local = SocketAddr::new([192, 0, 2, 1].into(), 179);
        let conn = self.speaker.accept(NOW, remote, local).expect("a known peer");
        let asn = remote_as(at, internal);
        let mut bytes = Vec::new();
        let families = Family::ALL.map(|f| Capability::Multiprotocol(f.into()));
        let mut capabilities: Vec<Capability> = families.into();
        capabilities.push(Capability::FourOctetAs(asn));
        let router_id = Ipv4Addr::new(10, 0, 0, 2 + at);
        OpenMessage { version: 4, asn, hold_time: 90, router_id, capabilities }.encode(&mut bytes);
        encode_keepalive(&mut bytes);
        self.speaker.handle(NOW, Input::Received { conn, data: &bytes });
        self.internal.push(internal);
        self.sent.insert(conn, Vec::new());
        self.settle();
        conn
    }

    fn tell(&mut self, conn: ConnId, route: &Route) {
        let internal = self.internal[0];
        let mut attrs = AttrBuilder::new();
        attrs.origin(Origin::Igp).as_path(&route.path);
        if internal && route.local_pref != 100 {
            attrs.local_pref(Some(route.local_pref));
        }
        for community in &route.standard {
            attrs.add_community(*community);
        }
        for community in &route.large {
            attrs.add_large_community(*community);
        }
        let mut canonical = Vec::new();
        attrs.write(&mut canonical).expect("short");
        let number = INTERFACES.iter().position(|i| *i == route.interface).unwrap_or(0);
        let number = u8::try_from(number).expect("few");
        let prefix = Prefix::new(route.prefix.addr(), route.prefix.prefix_len()).expect("a prefix");
        let next_hop: NextHop = match prefix.family() {
            Family::Ipv4Unicast => Ipv4Addr::new(192, 0, 2, 100 + number).into(),
            Family::Ipv6Unicast => {
                IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 1, 100 + u16::from(number)]).into()
            }
        };
        let mut bytes = Vec::new();
        UpdatePacker::new()
            .announce(
                &context(internal),
                prefix.family(),
                &canonical,
                next_hop,
                [Nlri::plain(prefix)],
                &mut bytes,
            )
            .expect("a short message");
        self.speaker.handle(NOW, Input::Received { conn, data: &bytes });
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(output) = self.speaker.poll() {
            match output {
                Output::Transmit(conn) => self.read(conn),
                Output::Close(conn) => panic!("{conn} was closed"),
                Output::WatchNextHop(address) => {
                    let last = match address {
                        IpAddr::V4(a) => a.octets()[3],
                        IpAddr::V6(a) => a.octets()[15],
                    };
                    let interface =
                        INTERFACES[usize::from(last.saturating_sub(100)) % INTERFACES.len()].into();
                    let hops = vec![ResolvedHop { gateway: None, ifindex: 1, interface }];
                    let resolution = Resolution::Via { hops, metric: 0 };
                    self.speaker.handle(NOW, Input::NextHop { address, resolution });
                }
                Output::Fib => while !self.speaker.take_fib(8).is_empty() {},
                Output::Connect(_) | Output::ForgetNextHop(_) | Output::Event(_) => {}
            }
        }
    }

    fn read(&mut self, conn: ConnId) {
        let mut chunks = Vec::new();
        while self.speaker.transmit(NOW, conn, 1 << 20, &mut chunks) > 0 {}
        let sent = self.sent.entry(conn).or_default();
        for chunk in chunks {
            sent.extend_from_slice(&chunk);
        }
    }

    /// What a peer has been told, some seconds later.
    fn heard(&mut self, conn: ConnId, internal: bool) -> BTreeMap<IpNet, Heard> {
        self.speaker.handle(NOW + Duration::from_secs(2), Input::Tick);
        self.settle();
        let mut heard = BTreeMap::new();
        let mut rest = &self.sent[&conn][..];
        while let Some(found) = frame(rest, MAX_LEN_EXTENDED).expect("the speaker frames well") {
            rest = &rest[found.len..];
            if found.kind != MessageKind::Update {
                continue;
            }
            let update = UpdateView::parse(found.body, &context(internal)).expect("our UPDATE is good");
            let net = |p: Prefix| IpNet::new(p.addr(), p.len()).expect("a prefix");
            for route in update.withdrawals().flat_map(|w| w.routes) {
                heard.remove(&net(route.prefix));
            }
            let mut canonical = Vec::new();
            update.attributes().write_canonical(&mut canonical);
            let set = AttrSet::new(&canonical);
            for route in update.announcements().flat_map(|a| a.routes) {
                let said = (
                    set.as_path().asns().collect(),
                    set.local_pref(),
                    set.communities().collect(),
                    set.large_communities().collect(),
                );
                heard.insert(net(route.prefix), said);
            }
        }
        heard
    }
}
