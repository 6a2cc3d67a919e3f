//! What a speaker shall be: plain data, compared by value, so that [`crate::Speaker::configure`] can tell what changed.
//!
//! Nothing here is checked for sense beyond types; [`Config::validate`] names the contradictions that would make a session
//! impossible, with the field and the fix.

mod validate;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::policy::FilterSet;
pub use validate::ConfigError;

/// Everything the speaker is told. Build it whole, hand it over whole; the speaker finds the difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Who we are.
    pub local: Local,
    /// Configured neighbours, keyed by `name`, which must be unique.
    pub peers: Vec<PeerConfig>,
    /// Ranges from which unknown neighbours may call.
    pub listen_ranges: Vec<ListenRange>,
    /// Routes of our own: block blackholes, service ranges, host routes, statics of a router.
    pub originated: Vec<Originated>,
    /// Routes that are announced while something inside them is there.
    pub aggregates: Vec<Aggregate>,
    /// Named filters; peers refer to them by name. A name that is missing is skipped, as Calico does.
    pub filters: BTreeMap<String, FilterSet>,
    /// What peers may be told after their export filters gave no verdict.
    pub export: ExportRules,
    /// What goes into the kernel.
    pub kernel: KernelRules,
    /// Interfaces (glob patterns) whose connected routes are not learned.
    pub ignored_interfaces: Vec<String>,
    /// How a restart of this speaker treats what it left in the kernel.
    pub restart: RestartConfig,
    /// Bytes of encoded UPDATEs kept for the slowest reader of an update group; who is further behind, and reads nothing, is
    /// brought up to date from the table when it reads again. Counts for groups made from then on.
    pub export_log: usize,
    /// What concerns a whole table is done in slices, one at each tick: so many destinations are looked at, or an eighth of
    /// them evaluated. `usize::MAX`: everything at once, where nobody waits meanwhile.
    #[serde(skip)]
    pub slice: usize,
    /// Seed of all jitter. Give each node its own, for example a hash of its name.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            local: Local::default(),
            peers: Vec::new(),
            listen_ranges: Vec::new(),
            originated: Vec::new(),
            aggregates: Vec::new(),
            filters: BTreeMap::new(),
            export: ExportRules::AcceptAll,
            kernel: KernelRules::default(),
            ignored_interfaces: Vec::new(),
            restart: RestartConfig::default(),
            export_log: 4 << 20,
            slice: 1 << 15,
            seed: 0,
        }
    }
}

/// Identity of this speaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Local {
    /// Our AS number.
    pub asn: u32,
    /// BGP Identifier (RFC 6286: any non-zero value). A change resets every session.
    pub router_id: Ipv4Addr,
    /// Cluster id for clients that have none of their own in [`PeerConfig::cluster_id`]; `None`: the router id.
    pub cluster_id: Option<Ipv4Addr>,
}

impl Default for Local {
    fn default() -> Self {
        Local { asn: 64512, router_id: Ipv4Addr::UNSPECIFIED, cluster_id: None }
    }
}

/// One neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerConfig {
    /// Unique name, stable over reconfigurations: it is the identity of the session.
    pub name: String,
    /// Address to call and to be called from. The unspecified one: not known yet, so nobody is called and nobody is it.
    pub address: IpAddr,
    /// Interface of a link-local peer.
    pub interface: Option<String>,
    /// TCP port to call.
    pub port: u16,
    /// The peer's AS. 0 accepts any (dynamic neighbours, and with `remote_external`).
    pub remote_as: u32,
    /// With `remote_as` 0: any AS but the one that we show.
    pub remote_external: bool,
    /// AS that this session shows instead of [`Local::asn`].
    pub local_as: Option<u32>,
    /// Families to offer.
    pub families: Families,
    /// Wait to be called.
    pub passive: bool,
    /// When passive: call after all when nobody has called for this long. A peer that still holds a dead session
    /// of ours does not call; our call shows it that the session is dead. `None`: never call.
    pub patience: Option<Duration>,
    /// Administratively up.
    pub enabled: bool,
    /// What the peer's operator is told when this is disabled (RFC 9003), at most 255 octets.
    pub shutdown_text: Option<String>,
    /// Local address to bind when calling; calls arriving at another address are refused when set.
    pub source_address: Option<IpAddr>,
    /// Our next hop for IPv4 routes; `None`: the local address of the session when it is IPv4.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Our next hop for IPv6 routes; `None`: the local address of the session when it is IPv6.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// Hold time offered, seconds; 0 or at least 3.
    pub hold_time: u16,
    /// Keepalive interval, seconds; `None`: a third of the negotiated hold time.
    pub keepalive: Option<u16>,
    /// Longest pause between two attempts to connect; the first come within 100 ms.
    pub connect_retry: Duration,
    /// Wait this long for the peer's OPEN before sending ours (RFC 4271 DelayOpen); `None`: do not.
    pub delay_open: Option<Duration>,
    /// How long to stay away after the peer or we ended the session with an error: first and longest pause.
    pub error_wait: (Duration, Duration),
    /// End a session whose peer reads nothing for this long (RFC 9687); `None`: off. Zero: twice the hold time.
    pub send_hold: Option<Duration>,
    /// Accept only packets from at most this many hops away (RFC 5082).
    pub ttl_security: Option<u8>,
    /// Hops that our packets may take; 1: directly connected only.
    pub multihop: u8,
    /// A TCP MD5 password exists; the shell holds it.
    pub password: bool,
    /// Reflect routes for this peer (RFC 4456).
    pub route_reflector_client: bool,
    /// Cluster id used towards and checked from this peer.
    pub cluster_id: Option<Ipv4Addr>,
    /// Which next hop the peer is told.
    pub next_hop: NextHopMode,
    /// ADD-PATH (RFC 7911), both families.
    pub add_path: AddPath,
    /// Graceful restart (RFC 4724, 8538).
    pub graceful_restart: GracefulRestart,
    /// How often our AS may occur in a received path.
    pub allow_own_as: u8,
    /// Reject eBGP paths that do not begin with the peer's AS.
    pub enforce_first_as: bool,
    /// Treat routes whose path has an AS_SET as withdrawn (RFC 9774).
    pub reject_as_sets: bool,
    /// Offer IPv6 next hops for IPv4 routes (RFC 8950).
    pub extended_next_hop: bool,
    /// Offer messages up to 65,535 octets (RFC 8654).
    pub extended_message: bool,
    /// Strip private AS numbers on export to eBGP.
    pub remove_private_as: bool,
    /// Tell an external peer our AS in place of its own in AS paths, so that its sites accept each other's routes.
    pub as_override: bool,
    /// Take nothing from and tell nothing to an external peer without a filter for the direction (RFC 8212). The rules of a
    /// node count as one for export.
    pub require_policy: bool,
    /// Leave the session in graceful shutdown (RFC 8326): tell the community, lower LOCAL_PREF on import.
    pub graceful_shutdown: bool,
    /// The shell watches the peer and says when it is gone ([`crate::io::Command::Unreachable`]).
    pub bfd: Option<Bfd>,
    /// Protection against a leaking peer.
    pub prefix_limit: Option<PrefixLimit>,
    /// Names of import filters, in order.
    pub import: Vec<String>,
    /// Names of export filters, in order.
    pub export: Vec<String>,
    /// Narrows what [`Config::export`] would allow.
    pub export_scope: ExportScope,
}

impl Default for PeerConfig {
    fn default() -> Self {
        PeerConfig {
            name: String::new(),
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            interface: None,
            port: 179,
            remote_as: 0,
            remote_external: false,
            local_as: None,
            families: Families { ipv4: true, ipv6: false },
            passive: false,
            patience: None,
            enabled: true,
            shutdown_text: None,
            source_address: None,
            next_hop_v4: None,
            next_hop_v6: None,
            hold_time: 240,
            keepalive: None,
            connect_retry: Duration::from_secs(5),
            delay_open: None,
            error_wait: (Duration::from_secs(1), Duration::from_secs(30)),
            send_hold: Some(Duration::ZERO),
            ttl_security: None,
            multihop: 64,
            password: false,
            route_reflector_client: false,
            cluster_id: None,
            next_hop: NextHopMode::Auto,
            add_path: AddPath { receive: true, send: true, ..AddPath::default() },
            graceful_restart: GracefulRestart::default(),
            allow_own_as: 0,
            enforce_first_as: false,
            reject_as_sets: false,
            extended_next_hop: false,
            extended_message: true,
            remove_private_as: false,
            as_override: false,
            require_policy: false,
            graceful_shutdown: false,
            bfd: None,
            prefix_limit: None,
            import: Vec::new(),
            export: Vec::new(),
            export_scope: ExportScope::All,
        }
    }
}

impl PeerConfig {
    /// Whether the session waits for BFD.
    pub(crate) fn waits_for_bfd(&self) -> bool {
        self.bfd.is_some_and(|bfd| bfd.strict)
    }

    /// For import and export, whether a filter is asked for and missing; counts for external peers only.
    pub(crate) fn policy_missing(&self) -> (bool, bool) {
        (self.require_policy && self.import.is_empty(), self.require_policy && self.export.is_empty())
    }

    /// The AS that this session shows as ours.
    pub fn effective_local_as(&self, local: &Local) -> u32 {
        self.local_as.unwrap_or(local.asn)
    }

    /// Whether the session is iBGP: the peer's AS is the one that we show it.
    pub fn is_internal(&self, local: &Local) -> bool {
        self.remote_as == self.effective_local_as(local)
    }
}

/// Address families of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Families {
    /// IPv4 unicast.
    pub ipv4: bool,
    /// IPv6 unicast.
    pub ipv6: bool,
}

/// Which next hop a peer is told for a route that we did not originate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NextHopMode {
    /// Our address towards eBGP, unchanged towards iBGP.
    #[default]
    Auto,
    /// Always our address.
    #[serde(rename = "self")]
    SelfAddress,
    /// Always unchanged.
    Keep,
}

/// A prefix has no more paths than this: limits go up to here.
pub const MOST_PATHS: u16 = 0xffe;

/// ADD-PATH: directions, and how many paths for a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct AddPath {
    /// Accept several paths for a prefix.
    pub receive: bool,
    /// Tell every usable path instead of the best.
    pub send: bool,
    /// Accept no more than so many paths for a prefix, and say so (draft-abraitis-idr-addpath-paths-limit); not 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive_limit: Option<u16>,
    /// Tell the best so many paths for a prefix; not 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_limit: Option<u16>,
}

impl AddPath {
    /// The same paths may be told to the peer, and taken from it.
    pub(crate) fn same_session(self, other: AddPath) -> bool {
        AddPath { send_limit: None, ..self } == AddPath { send_limit: None, ..other }
    }
}

/// Graceful restart of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GracefulRestart {
    /// Advertise the capability and help the peer over its restarts.
    pub enabled: bool,
    /// Seconds in our OPEN within which we promise to be back; at most 4095.
    pub restart_time: u16,
    /// Longest time that stale routes of a restarting peer are kept once its session is back.
    pub stale_time: Duration,
    /// Offer RFC 8538: NOTIFICATION and hold timer expiry keep routes too.
    pub notification: bool,
    /// What follows when the peer is not back in time (RFC 9494).
    pub long_lived: LongLived,
}

/// Long-lived graceful restart of one peer (RFC 9494). Works only with graceful restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LongLived {
    /// Say that we know long-lived stale routes: without, the peer does not tell us any.
    pub aware: bool,
    /// Seconds for which the peer is asked to keep our routes after the restart time, 24 bits; 0: do not ask.
    pub stale_time: u32,
    /// Longest time that we keep the peer's routes after the restart time, however long it asks for; zero: not at all.
    pub keep: Duration,
    /// Tell long-lived stale routes to this internal peer although it does not know them, with NO_EXPORT and LOCAL_PREF 0
    /// (RFC 9494 §4.6).
    pub partial: bool,
}

impl Default for LongLived {
    fn default() -> Self {
        LongLived { aware: true, stale_time: 0, keep: Duration::ZERO, partial: false }
    }
}

impl Default for GracefulRestart {
    fn default() -> Self {
        GracefulRestart {
            enabled: true,
            restart_time: 120,
            stale_time: Duration::from_mins(6),
            notification: true,
            long_lived: LongLived::default(),
        }
    }
}

/// How a peer is watched with BFD (RFC 5880).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bfd {
    /// Shortest interval at which we send.
    pub min_tx: Duration,
    /// Shortest interval at which we receive.
    pub min_rx: Duration,
    /// How many of our packets may be lost.
    pub multiplier: u8,
    /// Across routers (RFC 5883) instead of on the link (RFC 5881).
    pub multihop: bool,
    /// A failure that a restart of the peer may explain keeps its routes where graceful restart is agreed.
    pub keep_routes: bool,
    /// No session before BFD is up (draft-ietf-idr-bgp-bfd-strict-mode), whether or not the peer says that it waits too.
    #[serde(default)]
    pub strict: bool,
}

/// Limit of accepted prefixes of a peer, per family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixLimit {
    /// Prefixes per family.
    pub max: u32,
    /// What happens beyond.
    pub action: LimitAction,
    /// After a reset, how long to stay away; `None`: until an operator resets the peer.
    pub restart: Option<Duration>,
}

/// What a prefix limit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitAction {
    /// Say so once.
    Warn,
    /// Ignore further prefixes.
    Discard,
    /// End the session with Cease / Maximum Number of Prefixes Reached.
    Reset,
}

/// Addresses from which neighbours that are not configured may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenRange {
    /// Callers must come from here.
    pub range: IpNet,
    /// Settings for them; name and address are replaced, `passive` is implied.
    pub template: PeerConfig,
    /// At most this many at a time.
    pub limit: u16,
}

impl ListenRange {
    /// What a neighbour is called that calls from this address.
    pub fn name_of(&self, address: IpAddr) -> String {
        format!("{}_{address}", self.template.name)
    }

    /// Whether a neighbour of this name may call from here.
    pub fn may_be(&self, name: &str) -> bool {
        let address = name.strip_prefix(self.template.name.as_str()).and_then(|rest| rest.strip_prefix('_'));
        address
            .and_then(|text| text.parse().ok())
            .is_some_and(|address: IpAddr| self.range.contains(&address))
    }
}

impl Config {
    /// Whether there is, or may be, a neighbour of this name: one that is configured, or one of a listen range.
    pub fn may_have_peer(&self, name: &str) -> bool {
        self.peers.iter().any(|p| p.name == name) || self.listen_ranges.iter().any(|r| r.may_be(name))
    }
}

/// A route that this speaker originates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Originated {
    /// The prefix.
    pub prefix: IpNet,
    /// What the kernel shall do with packets into it.
    pub target: OriginTarget,
    /// Kernel metric; `None`: 0 for IPv4, 1024 for IPv6, as Calico's BIRD leaves it to the kernel.
    pub metric: Option<u32>,
}

/// A route that stands for those inside it (RFC 4271 §9.2.2.2), without their paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    /// The prefix. Announced while there is a route inside it, from whatever source.
    pub prefix: IpNet,
    /// Whether what is inside is not told to peers, unless an export filter of theirs accepts it.
    pub summary_only: bool,
    /// Whether the kernel has a blackhole for it while it is announced, so that packets to what is not there end here.
    pub blackhole: bool,
}

impl Aggregate {
    pub(crate) fn target(&self) -> OriginTarget {
        if self.blackhole { OriginTarget::Blackhole } else { OriginTarget::None }
    }
}

/// What an originated route points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OriginTarget {
    /// A blackhole: more specific routes deliver, everything else is dropped.
    Blackhole,
    /// In the table for export only, never in the kernel.
    None,
    /// A static route by a gateway.
    Via(IpAddr),
}

/// What may be told to peers, after their export filters and before the final default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExportRules {
    /// A plain router: everything that BGP's own rules allow.
    AcceptAll,
    /// A Calico node: the rules below, in order, then reject.
    Node(NodeExport),
}

/// Export of a node. Field order is evaluation order; the first verdict counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeExport {
    /// 1: nothing inside these goes out.
    pub never_export: Vec<IpNet>,
    /// 2: routes out of such an interface (glob) are not told to internal peers.
    pub internal_never_export_interfaces: Vec<String>,
    /// 3: routes out of such an interface are not told to anybody; Calico's `bpf*.cali`.
    pub never_export_interfaces: Vec<String>,
    /// 4: communities for routes inside a CIDR; all entries that match apply; no verdict.
    pub communities: Vec<CommunityRule>,
    /// 5: own blocks: equal accepts; inside rejects unless the metric is better than normal.
    pub originates: Vec<IpNet>,
    /// 6: service ranges; everything inside is accepted.
    pub services: Vec<IpNet>,
    /// 7: everything inside is accepted.
    pub export_within: Vec<IpNet>,
    /// Metric of an ordinary IPv4 route; what is lower counts as elevated.
    pub normal_metric_v4: u32,
    /// The same for IPv6.
    pub normal_metric_v6: u32,
}

/// Communities attached on export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommunityRule {
    /// Routes inside, or equal to, this prefix.
    pub cidr: IpNet,
    /// What to add.
    pub communities: Vec<crate::policy::Community>,
}

/// Narrowing of what a peer is told (annotation `caracal.io/export`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExportScope {
    /// As the rules say.
    #[default]
    All,
    /// Only what this node itself has: its blocks and local routes.
    Own,
    /// Nothing that another external peer told us, or told an internal peer of ours.
    NoTransit,
}

/// What the kernel is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KernelRules {
    /// Write routes at all; a route reflector may do without.
    pub program: bool,
    /// Wait for the shell's answer about a next hop before a path may be used. Off: every next hop counts as reachable.
    pub resolve_next_hops: bool,
    /// Nothing inside is programmed, own or learned.
    pub never_program: Vec<IpNet>,
    /// Pools whose routes somebody else programs: nothing inside is, own or learned.
    pub rejects: Vec<IpNet>,
    /// Routes inside go through an interface.
    pub tunnels: Vec<TunnelRule>,
    /// Learned routes with one of these BGP next hops are not programmed.
    pub wireguard_peers: Vec<IpAddr>,
    /// Equal paths programmed together, at most this many; 1 is single path.
    pub ecmp: u8,
    /// Metric of learned routes: 2147483647 - LOCAL_PREF, or a fixed one.
    pub metric: LearnedMetric,
}

impl Default for KernelRules {
    fn default() -> Self {
        KernelRules {
            program: true,
            resolve_next_hops: true,
            never_program: Vec::new(),
            rejects: Vec::new(),
            tunnels: Vec::new(),
            wireguard_peers: Vec::new(),
            ecmp: 64,
            metric: LearnedMetric::FromLocalPref,
        }
    }
}

/// How the metric of a learned route is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LearnedMetric {
    /// 2147483647 - LOCAL_PREF.
    #[default]
    FromLocalPref,
    /// The same for all.
    Fixed(u32),
}

/// Routes that use a tunnel device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelRule {
    /// Routes inside.
    pub cidr: IpNet,
    /// The device.
    pub interface: String,
    /// Unless the next hop lies in this subnet; `None`: always.
    pub except_next_hop_in: Option<IpNet>,
}

/// Bounds of our own restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartConfig {
    /// Longest deferral of selection and sweep (RFC 4724 Selection_Deferral_Timer).
    pub deferral: Duration,
    /// A peer that has no session by then is not waited for.
    pub connect_bound: Duration,
    /// The same for a peer to which there is no way, by the kernel's own word.
    pub unreachable_bound: Duration,
    /// A peer without graceful restart counts as done when it sent nothing for this long.
    pub quiet: Duration,
    /// And for this long before the kernel loses stale routes that it may have meant; FRR waits a second before its first.
    pub silence: Duration,
    /// Stale routes stay in the kernel for this long if a peer takes our calls but no session comes up.
    pub answered_bound: Duration,
}

impl Default for RestartConfig {
    fn default() -> Self {
        RestartConfig {
            deferral: Duration::from_mins(2),
            connect_bound: Duration::from_secs(5),
            // Our own links may be coming up.
            unreachable_bound: Duration::from_secs(1),
            quiet: Duration::from_secs(1),
            silence: Duration::from_secs(3),
            answered_bound: Duration::from_secs(20),
        }
    }
}
