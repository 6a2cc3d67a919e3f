//! What a node would tell its peers about a route, without a node: the speaker itself, with the derived configuration and
//! sessions that only pretend.
//!
//! Nothing is decided here. The same `translate` and the same [`Speaker`] that run on a node are given
//! one route and the neighbours' OPENs, and asked. So filters, narrowing, reflection and split horizon are all in.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bird_intent::{Family, NodeConfig};
use bird_packet::{
    AttrBuilder, Capability, ExtendedNextHop, LargeCommunity, Nlri, OpenMessage, Origin, PeerKind, Prefix,
    SessionContext, UpdatePacker, encode_end_of_rib, encode_keepalive,
};
use bird_speaker::config::{Config, PeerConfig};
use bird_speaker::fsm::State;
use bird_speaker::io::{LocalRouteKey, LocalSource, Resolution, ResolvedHop};
use bird_speaker::policy::Community;
use bird_speaker::view::{AdvertisedView, RouteFilter};
use bird_speaker::{ConnId, ExportReason, ImportReason, Input, LocalRoute, Output, Speaker, Start, Time};
use ipnet::IpNet;

use crate::translate;

/// Any interface with a subnet; the name only matters to filters, which a caller can satisfy by naming its own.
const UPLINK: &str = "eth0";
/// Sessions are up within a second of pretended time, or not at all.
const PATIENCE: Time = Time::from_mins(2);

/// The route to ask about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its prefix.
    pub prefix: IpNet,
    /// How the node has it.
    pub source: RouteSource,
}

/// How a node has a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteSource {
    /// By configuration: a block, a service range, a host route.
    Own,
    /// A subnet of one of its interfaces.
    Connected {
        /// The interface.
        interface: String,
    },
    /// A kernel route of another program, felix for workloads.
    Kernel {
        /// Its interface.
        interface: String,
        /// Its gateway.
        gateway: Option<IpAddr>,
        /// Its metric; 0: an ordinary one.
        metric: u32,
    },
    /// By an UPDATE of a peer.
    Peer(Learned),
}

/// A route as a peer tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Learned {
    /// Name of the peer.
    pub peer: String,
    /// AS path; none: what an own route of the peer has.
    pub as_path: Option<Vec<u32>>,
    /// LOCAL_PREF, for internal peers; none: of an ordinary route.
    pub local_pref: Option<u32>,
    /// MED.
    pub med: Option<u32>,
    /// Communities of both kinds.
    pub communities: Vec<Community>,
    /// Next hop; none: the peer.
    pub next_hop: Option<IpAddr>,
    /// ORIGINATOR_ID.
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST, the last reflector first.
    pub cluster_list: Vec<Ipv4Addr>,
}

/// What becomes of the route.
#[derive(Debug, Clone, PartialEq)]
pub struct Rehearsed {
    /// For a learned route: whether import takes it.
    pub import: Option<ImportReason>,
    /// In the order of the peers asked about.
    pub peers: Vec<Telling>,
}

/// Whether a peer is told, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Telling {
    /// The peer.
    pub peer: String,
    /// It is told.
    pub exported: bool,
    /// Why, or why not.
    pub reason: ExportReason,
    /// The filter rule that decided, if one did.
    pub rule: Option<String>,
    /// With these attributes.
    pub told: Option<AdvertisedView>,
}

/// The speaker's configuration of a node, as the node itself translates it; `None`: it cannot speak.
pub fn speaker_config(config: &NodeConfig) -> Option<Config> {
    translate::node(config).map(|translated| translated.config)
}

/// The same with a stand-in for what a node would only find when it runs: an address and an AS for each peer that has none.
fn with_stand_ins(mut config: Config) -> Config {
    let local = config.local;
    for (n, peer) in (1u16..).zip(&mut config.peers) {
        match peer.address {
            IpAddr::V4(a) if a.is_unspecified() => {
                // RFC 5737.
                let [_, last] = n.to_be_bytes();
                peer.address = Ipv4Addr::new(192, 0, 2, last).into();
            }
            IpAddr::V6(a) if a.is_unspecified() => {
                // RFC 3849.
                peer.address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into();
                peer.source_address = None;
            }
            _ => {}
        }
        if peer.remote_external && peer.remote_as == 0 {
            // RFC 5398.
            let [first, second] = [64_496, 64_497];
            peer.remote_as = if peer.effective_local_as(&local) == first { second } else { first };
        }
    }
    config
}

/// Gives the route to a speaker with this configuration and asks what each of `peers` is told.
///
/// `own` are the node's BGP addresses, where sessions end that name no source address.
pub fn rehearse(
    config: Config,
    own: &BTreeMap<Family, IpAddr>,
    route: &Route,
    peers: &[String],
) -> Result<Rehearsed, String> {
    let mut wanted: Vec<String> = peers.to_vec();
    if let RouteSource::Peer(learned) = &route.source {
        wanted.push(learned.peer.clone());
    }
    if let Some(unknown) = wanted.iter().find(|name| !config.peers.iter().any(|p| p.name == **name)) {
        return Err(format!("the node has no peer {unknown}"));
    }
    let mut stage = Stage::new(with_stand_ins(config), own.clone(), wanted);
    stage.raise()?;
    let import = stage.give(route)?;
    let explanation = stage.speaker.explain(route.prefix);
    let peers = peers
        .iter()
        .filter_map(|name| explanation.exports.iter().find(|e| e.peer == *name))
        .map(|export| Telling {
            peer: export.peer.clone(),
            exported: export.accepted,
            reason: export.reason,
            rule: export.rule.clone(),
            told: stage.speaker.advertised(&export.peer).into_iter().find(|a| a.prefix == route.prefix),
        })
        .collect();
    Ok(Rehearsed { import, peers })
}

/// A speaker among neighbours that say what they must to have a session, and one route.
struct Stage {
    speaker: Speaker,
    config: Config,
    own: BTreeMap<Family, IpAddr>,
    wanted: Vec<String>,
    conns: BTreeMap<String, ConnId>,
    now: Time,
}

impl Stage {
    fn new(config: Config, own: BTreeMap<Family, IpAddr>, wanted: Vec<String>) -> Self {
        let now = Time::from_secs(1);
        let mut speaker = Speaker::new(now, Config { slice: usize::MAX, ..config.clone() }, Start::default());
        speaker.handle(now, Input::LocalRoutesComplete);
        Self { speaker, config, own, wanted, conns: BTreeMap::new(), now }
    }

    /// Brings the sessions up.
    fn raise(&mut self) -> Result<(), String> {
        let callers: Vec<PeerConfig> = self
            .config
            .peers
            .iter()
            .filter(|p| p.passive && self.wanted.contains(&p.name))
            .cloned()
            .collect();
        for peer in callers {
            let local = SocketAddr::new(self.local_address(&peer), 179);
            let conn = self
                .speaker
                .accept(self.now, SocketAddr::new(peer.address, 4000), local)
                .map_err(|reason| format!("{}: {reason}", peer.name))?;
            self.greet(&peer, conn);
        }
        let end = self.now + PATIENCE;
        loop {
            self.serve();
            let missing = self.wanted.iter().find(|n| self.speaker.peer_state(n) != Some(State::Established));
            let Some(missing) = missing else { return Ok(()) };
            match self.speaker.next_timeout() {
                Some(at) if at <= end => {
                    self.now = self.now.max(at);
                    self.speaker.handle(self.now, Input::Tick);
                }
                _ => return Err(format!("{missing}: its configuration allows no session")),
            }
        }
    }

    /// Does what the speaker asks for, until it asks for nothing.
    fn serve(&mut self) {
        while let Some(output) = self.speaker.poll() {
            match output {
                Output::Connect(dial) => {
                    let name = dial.peer.to_string();
                    let found = self.config.peers.iter().find(|p| p.name == name).cloned();
                    if let Some(peer) = found.filter(|p| self.wanted.contains(&p.name)) {
                        let local = SocketAddr::new(dial.source.unwrap_or(self.local_address(&peer)), 4000);
                        self.speaker.handle(self.now, Input::Connected { conn: dial.conn, local });
                        self.greet(&peer, dial.conn);
                    }
                }
                Output::Transmit(conn) | Output::Close(conn) => {
                    let mut bytes = Vec::new();
                    while self.speaker.transmit(self.now, conn, usize::MAX, &mut bytes) > 0 {
                        bytes.clear();
                    }
                }
                Output::Fib => while !self.speaker.take_fib(usize::MAX).is_empty() {},
                Output::WatchNextHop(address) => {
                    let hop = ResolvedHop { gateway: None, ifindex: 2, interface: UPLINK.into() };
                    let resolution = Resolution::Via { hops: vec![hop], metric: 0 };
                    self.speaker.handle(self.now, Input::NextHop { address, resolution });
                }
                _ => {}
            }
        }
    }

    fn greet(&mut self, peer: &PeerConfig, conn: ConnId) {
        self.conns.insert(peer.name.clone(), conn);
        let mut bytes = Vec::new();
        let mut capabilities: Vec<Capability> =
            families(peer).into_iter().map(|f| Capability::Multiprotocol(f.into())).collect();
        capabilities.push(Capability::FourOctetAs(peer.remote_as));
        if peer.extended_next_hop {
            let family = bird_packet::Family::Ipv4Unicast.into();
            capabilities.push(Capability::ExtendedNextHop(vec![ExtendedNextHop { family, next_hop_afi: 2 }]));
        }
        // Its identifier must only differ from ours.
        let router_id = match peer.address {
            IpAddr::V4(address) if address != self.config.local.router_id => address,
            _ => Ipv4Addr::from_bits(self.config.local.router_id.to_bits() ^ 1),
        };
        OpenMessage { version: 4, asn: peer.remote_as, hold_time: 240, router_id, capabilities }
            .encode(&mut bytes);
        encode_keepalive(&mut bytes);
        self.speaker.handle(self.now, Input::Received { conn, data: &bytes });
    }

    fn local_address(&self, peer: &PeerConfig) -> IpAddr {
        let family = Family::of(peer.address);
        let unknown = match family {
            Family::Ipv4 => IpAddr::V4(self.config.local.router_id),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        peer.source_address.or_else(|| self.own.get(&family).copied()).unwrap_or(unknown)
    }

    fn give(&mut self, route: &Route) -> Result<Option<ImportReason>, String> {
        let prefix = route.prefix;
        let local = |source, metric, interface: &str, gateway| {
            let key = LocalRouteKey { prefix, source, metric, interface: interface.into() };
            Input::LocalRoute(LocalRoute { key, gateway })
        };
        match &route.source {
            RouteSource::Own => {}
            RouteSource::Connected { interface } => {
                self.speaker.handle(self.now, local(LocalSource::Connected, 0, interface, None));
            }
            RouteSource::Kernel { interface, gateway, metric } => {
                self.speaker.handle(self.now, local(LocalSource::Kernel, *metric, interface, *gateway));
            }
            RouteSource::Peer(learned) => {
                let peer = self.config.peers.iter().find(|p| p.name == learned.peer).cloned();
                let (Some(peer), Some(conn)) = (peer, self.conns.get(&learned.peer).copied()) else {
                    return Err(format!("the node has no peer {}", learned.peer));
                };
                let bytes = update(&peer, peer.is_internal(&self.config.local), prefix, learned)?;
                self.speaker.handle(self.now, Input::Received { conn, data: &bytes });
                self.serve();
                let filter =
                    RouteFilter { prefix: Some(prefix), peer: Some(&learned.peer), ..RouteFilter::default() };
                return Ok(self.speaker.routes(&filter).first().map(|path| path.import));
            }
        }
        self.serve();
        Ok(None)
    }
}

fn families(peer: &PeerConfig) -> Vec<bird_packet::Family> {
    let offered = [
        (peer.families.ipv4, bird_packet::Family::Ipv4Unicast),
        (peer.families.ipv6, bird_packet::Family::Ipv6Unicast),
    ];
    offered.into_iter().filter_map(|(on, family)| on.then_some(family)).collect()
}

/// The UPDATE by which a peer tells a route.
fn update(peer: &PeerConfig, internal: bool, prefix: IpNet, route: &Learned) -> Result<Vec<u8>, String> {
    let cannot = |err: &dyn std::fmt::Display| format!("{} cannot tell {prefix}: {err}", peer.name);
    let family = match prefix {
        IpNet::V4(_) => bird_packet::Family::Ipv4Unicast,
        IpNet::V6(_) => bird_packet::Family::Ipv6Unicast,
    };
    if !families(peer).contains(&family) {
        return Err(cannot(&"the session is of the other address family"));
    }
    let mut builder = AttrBuilder::new();
    let path = route.as_path.clone().unwrap_or_else(|| if internal { vec![] } else { vec![peer.remote_as] });
    builder.origin(Origin::Igp).as_path(&path).med(route.med);
    if internal {
        builder.local_pref(Some(route.local_pref.unwrap_or(ORDINARY)));
    }
    for community in &route.communities {
        match *community {
            Community::Standard(a, b) => {
                builder.add_community((u32::from(a) << 16) | u32::from(b));
            }
            Community::Large(global, local1, local2) => {
                builder.add_large_community(LargeCommunity { global, local1, local2 });
            }
        }
    }
    for cluster in route.cluster_list.iter().rev() {
        builder.prepend_cluster_id(*cluster);
    }
    if let Some(originator) = route.originator_id {
        builder.originator_id_if_absent(originator);
    }
    let mut attrs = Vec::new();
    builder.write(&mut attrs).map_err(|e| cannot(&e))?;
    let mut ctx = SessionContext::new(if internal { PeerKind::Internal } else { PeerKind::External });
    ctx.families = <[bird_packet::FamilyContext; 2]>::default();
    ctx.family_mut(family).enabled = true;
    ctx.family_mut(family).ext_nexthop = peer.extended_next_hop;
    let next_hop = bird_packet::NextHop::from(route.next_hop.unwrap_or(peer.address));
    let prefix: Prefix = prefix.to_string().parse().map_err(|e: bird_packet::PrefixError| cannot(&e))?;
    let mut bytes = Vec::new();
    UpdatePacker::new()
        .announce(&ctx, family, &attrs, next_hop, [Nlri::plain(prefix)], &mut bytes)
        .map_err(|e| cannot(&e))?;
    encode_end_of_rib(family, &mut bytes);
    Ok(bytes)
}

/// LOCAL_PREF of a node's ordinary route: 2147483647 less its metric of 1024.
const ORDINARY: u32 = bird_intent::PRIORITY_BASE - bird_intent::NORMAL_PRIORITY;
