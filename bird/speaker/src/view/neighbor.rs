//! Everything about one peer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bird_packet::{AfiSafi, Capability, Family, MAX_LEN};
use serde::{Deserialize, Serialize};

use super::{Census, PeerView};
use crate::config::{ExportScope, LimitAction, NextHopMode};
use crate::fsm::State;
use crate::fsm::negotiate::{self, Restarting, Terms};
use crate::io::{DownReason, Time};
use crate::peer::Peer;
use crate::speaker::Speaker;

/// Everything about a peer but its routes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NeighborView {
    /// What [`Speaker::peer_views`] says of it.
    #[serde(flatten)]
    pub peer: PeerView,
    /// How it is configured.
    pub settings: SettingsView,
    /// What its last OPEN said, whether or not that was acceptable.
    pub said: Option<Said>,
    /// Its connections.
    pub connections: Vec<ConnectionView>,
    /// Capabilities of either side.
    pub capabilities_offered: Vec<CapabilityView>,
    /// Its clocks.
    pub timers: TimersView,
    /// Graceful restart.
    pub restart: PeerRestartView,
}

/// What an OPEN said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    /// AS.
    pub asn: u32,
    /// BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Hold time, seconds.
    pub hold_time: u16,
}

/// The configuration of a peer, as far as a person looking at its session wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettingsView {
    /// The AS that it should have; 0: any.
    pub remote_as: u32,
    /// Any but ours.
    #[serde(default)]
    pub remote_external: bool,
    /// Families offered.
    pub families: Vec<String>,
    /// Address that we call from, and take calls at.
    pub source_address: Option<IpAddr>,
    /// Interface of a link-local peer.
    pub interface: Option<String>,
    /// Hold time offered, seconds.
    pub hold_time: u16,
    /// Keepalive interval wanted, seconds.
    pub keepalive: Option<u16>,
    /// Longest pause between calls, seconds.
    pub connect_retry: u64,
    /// A TCP MD5 password is set.
    pub password: bool,
    /// Hops that packets may take.
    pub multihop: u8,
    /// Packets from further away are not taken (RFC 5082).
    pub ttl_security: Option<u8>,
    /// It is a client of this reflector.
    pub route_reflector_client: bool,
    /// Cluster id towards it.
    pub cluster_id: Option<Ipv4Addr>,
    /// Next hop that it is told.
    pub next_hop: NextHopMode,
    /// Narrowing of what it is told.
    pub export_scope: ExportScope,
    /// How often our AS may occur in its paths.
    pub allow_own_as: u8,
    /// Private AS numbers are stripped towards it.
    pub remove_private_as: bool,
    /// The session is being drained (RFC 8326).
    pub graceful_shutdown: bool,
    /// Most prefixes of a family.
    pub prefix_limit: Option<u32>,
    /// What happens beyond.
    pub prefix_limit_action: Option<LimitAction>,
    /// Import filters in order.
    pub import: Vec<String>,
    /// Export filters in order.
    pub export: Vec<String>,
}

/// A capability and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapabilityView {
    /// Its code.
    pub code: u8,
    /// Its name.
    pub name: String,
    /// What we offer; none: not at all.
    pub ours: Option<Offered>,
    /// What the peer offered.
    pub theirs: Option<Offered>,
    /// Whether the session uses it.
    pub used: bool,
}

/// The value of a capability in words; often there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered(pub String);

/// One connection of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionView {
    /// How far it is.
    pub state: State,
    /// We called.
    pub outgoing: bool,
    /// Our end.
    pub local: Option<SocketAddr>,
    /// Its end.
    pub remote: SocketAddr,
}

/// Milliseconds until a clock of a peer strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimersView {
    /// The session ends unless the peer says something.
    pub hold_ms: Option<u64>,
    /// We say something.
    pub keepalive_ms: Option<u64>,
    /// The session ends unless the peer reads something.
    pub send_hold_ms: Option<u64>,
    /// We call again.
    pub retry_ms: Option<u64>,
    /// The pause after an error ends.
    pub idle_ms: Option<u64>,
}

/// Graceful restart between us and a peer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerRestartView {
    /// Both sides do it.
    pub agreed: bool,
    /// NOTIFICATIONs keep routes too (RFC 8538).
    pub notification: bool,
    /// Seconds that the peer asks for.
    pub peer_time: Option<u64>,
    /// The peer said that it restarted.
    pub peer_restarted: bool,
    /// Families whose forwarding the peer kept.
    pub peer_kept: Vec<String>,
    /// Families of which stale routes are kept for it now.
    pub stale: Vec<String>,
    /// Milliseconds until it must be back.
    pub back_within_ms: Option<u64>,
    /// Milliseconds until it must have told everything again.
    pub told_within_ms: Option<u64>,
}

impl Speaker {
    /// Everything about a peer, with the routes told as they were counted.
    pub fn neighbor_view(&self, name: &str, census: &Census) -> Option<NeighborView> {
        let peer = self.peer(self.peer_by_name(name)?)?;
        let config = &peer.config;
        let conns = peer.conns.iter().filter_map(|at| self.conns.get(*at));
        let connections = conns
            .map(|c| ConnectionView {
                state: c.phase.state(),
                outgoing: c.outgoing,
                local: c.local,
                remote: c.remote,
            })
            .collect();
        Some(NeighborView {
            peer: self.peer_view(peer, census.told()),
            settings: SettingsView {
                remote_as: config.remote_as,
                remote_external: config.remote_external,
                families: Family::ALL
                    .into_iter()
                    .zip([config.families.ipv4, config.families.ipv6])
                    .filter(|(_, on)| *on)
                    .map(|(family, _)| family.to_string())
                    .collect(),
                source_address: config.source_address,
                interface: config.interface.clone(),
                hold_time: config.hold_time,
                keepalive: config.keepalive,
                connect_retry: config.connect_retry.as_secs(),
                password: config.password,
                multihop: config.multihop,
                ttl_security: config.ttl_security,
                route_reflector_client: config.route_reflector_client,
                cluster_id: config.cluster_id,
                next_hop: config.next_hop,
                export_scope: config.export_scope,
                allow_own_as: config.allow_own_as,
                remove_private_as: config.remove_private_as,
                graceful_shutdown: config.graceful_shutdown,
                prefix_limit: config.prefix_limit.map(|l| l.max),
                prefix_limit_action: config.prefix_limit.map(|l| l.action),
                import: config.import.clone(),
                export: config.export.clone(),
            },
            said: peer.said,
            connections,
            capabilities_offered: self.capabilities(peer),
            timers: self.timers_view(peer),
            restart: self.peer_restart_view(peer),
        })
    }

    /// Why there is no session with a peer, or why the last one ended, since the last time that there was one.
    pub fn down_reason(&self, name: &str) -> Option<&DownReason> {
        self.peer(self.peer_by_name(name)?)?.last_error.as_ref()
    }

    fn terms(&self, peer: &Peer) -> Option<&Terms> {
        let at = peer.established.or_else(|| peer.conns.last().copied())?;
        self.conns.get(at)?.terms.as_ref()
    }

    fn capabilities(&self, peer: &Peer) -> Vec<CapabilityView> {
        let ours = negotiate::our_open(&peer.config, &self.config.local, Restarting::default()).capabilities;
        let theirs: &[Capability] = peer
            .established
            .or_else(|| peer.conns.last().copied())
            .and_then(|at| self.conns.get(at))
            .and_then(|c| c.open.as_ref())
            .map_or(&[], |open| &open.capabilities);
        let terms = self.terms(peer);
        let mut views: Vec<CapabilityView> = Vec::new();
        let sides = ours.iter().map(|c| (c, true)).chain(theirs.iter().map(|c| (c, false)));
        for (capability, own) in sides {
            let (name, value) = describe(capability);
            let at = views.iter().position(|v| v.code == capability.code() && v.name == name);
            let at = at.unwrap_or_else(|| {
                let used = terms.is_some_and(|terms| is_used(capability, terms));
                views.push(CapabilityView { code: capability.code(), name, ours: None, theirs: None, used });
                views.len() - 1
            });
            let side = if own { &mut views[at].ours } else { &mut views[at].theirs };
            *side = Some(Offered(value));
        }
        views.sort_by(|a, b| (a.code, &a.name).cmp(&(b.code, &b.name)));
        views
    }

    fn timers_view(&self, peer: &Peer) -> TimersView {
        let left = |at: Option<Time>| {
            at.map(|at| u64::try_from(at.saturating_sub(self.now).as_millis()).unwrap_or(u64::MAX))
        };
        let conn = peer.established.or_else(|| peer.conns.last().copied()).and_then(|at| self.conns.get(at));
        TimersView {
            hold_ms: left(conn.and_then(|c| c.hold_at)),
            keepalive_ms: left(conn.and_then(|c| c.keepalive_at)),
            send_hold_ms: left(conn.and_then(|c| c.send_hold_at)),
            retry_ms: left(peer.retry_at),
            idle_ms: left(peer.idle_until),
        }
    }

    fn peer_restart_view(&self, peer: &Peer) -> PeerRestartView {
        let left = |at: Option<Time>| {
            at.map(|at| u64::try_from(at.saturating_sub(self.now).as_millis()).unwrap_or(u64::MAX))
        };
        let agreed = self.terms(peer).and_then(|t| t.restart);
        let named = |keep: &dyn Fn(usize) -> bool| {
            Family::ALL.into_iter().filter(|f| keep(f.index())).map(|f| f.to_string()).collect()
        };
        PeerRestartView {
            agreed: agreed.is_some(),
            notification: agreed.is_some_and(|r| r.notification),
            peer_time: agreed.map(|r| r.time.as_secs()),
            peer_restarted: agreed.is_some_and(|r| r.restarted),
            peer_kept: named(&|f| agreed.is_some_and(|r| r.families[f] == Some(true))),
            stale: named(&|f| peer.helper.stale[f]),
            back_within_ms: left(peer.helper.back_by),
            told_within_ms: left(peer.helper.done_by),
        }
    }
}

fn is_used(capability: &Capability, terms: &Terms) -> bool {
    let any = |flag: fn(&bird_packet::FamilyContext) -> bool| terms.ctx.families.iter().any(flag);
    match capability {
        Capability::Multiprotocol(family) => {
            Family::ALL.into_iter().any(|f| AfiSafi::from(f) == *family && terms.ctx.family(f).enabled)
        }
        Capability::RouteRefresh => terms.refresh,
        Capability::EnhancedRouteRefresh => terms.enhanced_refresh,
        Capability::ExtendedNextHop(_) => any(|f| f.ext_nexthop),
        Capability::ExtendedMessage => terms.ctx.max_len > MAX_LEN,
        Capability::GracefulRestart(_) => terms.restart.is_some(),
        Capability::FourOctetAs(_) => terms.ctx.as4,
        Capability::AddPath(_) => any(|f| f.add_path_rx || f.add_path_tx),
        Capability::LongLivedGracefulRestart(_) => terms.long_lived.is_some(),
        Capability::BfdStrict => terms.bfd_strict,
        Capability::PathsLimit(_) => any(|f| f.add_path_rx || f.add_path_tx),
        Capability::Role(_) | Capability::Fqdn { .. } | Capability::Unknown { .. } => false,
    }
}

/// Name and value of a capability.
fn describe(capability: &Capability) -> (String, String) {
    let family = |f: &AfiSafi| {
        let known = Family::ALL.into_iter().find(|k| AfiSafi::from(*k) == *f);
        known.map_or_else(|| format!("afi {} safi {}", f.afi, f.safi), |k| k.to_string())
    };
    let list = |words: Vec<String>| words.join(", ");
    match capability {
        Capability::Multiprotocol(f) => (format!("multiprotocol {}", family(f)), String::new()),
        Capability::RouteRefresh => ("route refresh".into(), String::new()),
        Capability::ExtendedNextHop(entries) => {
            let words = entries.iter().map(|e| {
                format!("{} over {}", family(&e.family), if e.next_hop_afi == 2 { "ipv6" } else { "?" })
            });
            ("extended next hop".into(), list(words.collect()))
        }
        Capability::ExtendedMessage => ("extended message".into(), String::new()),
        Capability::Role(role) => ("role".into(), role.to_string()),
        Capability::GracefulRestart(gr) => {
            let mut words = vec![format!("{} s", gr.restart_time)];
            if gr.restarting {
                words.push("restarted".into());
            }
            if gr.notification {
                words.push("notification".into());
            }
            words.extend(
                gr.families.iter().map(|f| {
                    format!("{}{}", family(&f.family), if f.forwarding_kept { " kept" } else { "" })
                }),
            );
            ("graceful restart".into(), list(words))
        }
        Capability::FourOctetAs(asn) => ("4-octet AS".into(), asn.to_string()),
        Capability::AddPath(entries) => {
            let words = entries.iter().map(|e| {
                let way = match (e.receive, e.send) {
                    (true, true) => "both ways",
                    (true, false) => "receive",
                    (false, true) => "send",
                    (false, false) => "off",
                };
                format!("{} {way}", family(&e.family))
            });
            ("ADD-PATH".into(), list(words.collect()))
        }
        Capability::EnhancedRouteRefresh => ("enhanced route refresh".into(), String::new()),
        Capability::LongLivedGracefulRestart(families) => {
            let words = families.iter().map(|f| format!("{} {} s", family(&f.family), f.stale_time));
            ("long-lived graceful restart".into(), list(words.collect()))
        }
        Capability::Fqdn { host, .. } => {
            let safe: String = String::from_utf8_lossy(host)
                .chars()
                .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
                .collect();
            ("host name".into(), safe)
        }
        Capability::PathsLimit(entries) => {
            let words = entries.iter().map(|e| format!("{} {}", family(&e.family), e.limit));
            ("ADD-PATH paths limit".into(), list(words.collect()))
        }
        Capability::BfdStrict => ("BFD strict mode".into(), String::new()),
        Capability::Unknown { code, value } => (format!("code {code}"), format!("{} octets", value.len())),
    }
}
