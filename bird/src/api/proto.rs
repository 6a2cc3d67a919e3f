//! What is said over the socket: one question a line, answers as lines of JSON. `docs/bgp-cli.md` is the reader's copy.

use std::net::{IpAddr, Ipv4Addr};

use bird_speaker::restart::{Helping, RestartView};
use bird_speaker::view::{
    AdvertisedView, Covering, Explanation, ExportView, FamilyTotals, NeighborView, PathView, PeerView,
    RouteCounts, Withheld,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "get", rename_all = "kebab-case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// Who this speaker is and how it is.
    Summary,
    /// All peers.
    Peers,
    /// Everything about one peer.
    Neighbor {
        /// Its name, or its address when no other peer has that.
        peer: String,
    },
    /// Routes.
    Routes(RoutesRequest),
    /// A prefix from the UPDATE to the kernel route.
    Explain {
        /// The prefix; an address stands for the route that carries its packets.
        prefix: String,
        /// Towards this peer only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
    },
    /// The table as MRT records (RFC 6396).
    MrtTable,
    /// Messages as they pass, as MRT records, until the client says anything.
    MrtUpdates {
        /// Of this peer only, by name or address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        /// Those that we send too.
        #[serde(default)]
        sent: bool,
    },
}

/// Which routes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RoutesRequest {
    /// This prefix only; an address stands for the route that carries its packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// With `prefix`: also everything inside it.
    pub longer: bool,
    /// Received from this peer; `static`, `connected` and `kernel` are this node's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<String>,
    /// Told to this peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertised: Option<String>,
    /// Not told to this peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
    /// Not taken by import.
    pub rejected: bool,
    /// At most so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// A line of an answer: an object with one key, which says what it is. The last one is `end` or `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// The answer to `summary`.
    Summary(Box<Summary>),
    /// A peer.
    Peer(Box<PeerRow>),
    /// The answer to `neighbor`.
    Neighbor(Box<Neighbor>),
    /// A path.
    Route(Box<PathView>),
    /// A route that a peer is told.
    Advertised(Box<AdvertisedView>),
    /// A route that a peer is not told.
    Withheld(Box<Withheld>),
    /// The answer to `explain`, but for the peers.
    Explanation(Box<Explained>),
    /// Whether one peer is told it.
    Export(Box<ExportView>),
    /// MRT records, in base64.
    Mrt(String),
    /// Everything is said.
    End(End),
    /// There is no answer.
    Error(Refusal),
}

/// The end of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// Lines before this one.
    pub rows: u64,
    /// There would be more, beyond the limit that was asked for.
    pub cut: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong.
    pub text: String,
    /// What mends it.
    pub fix: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { text: text.into(), fix: fix.into() }
    }
}

/// This speaker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Of the program.
    pub version: String,
    /// BGP Identifier.
    pub router_id: Ipv4Addr,
    /// AS number.
    pub asn: u32,
    /// When the process began, RFC 3339.
    pub started: String,
    /// Milliseconds since then.
    pub up_ms: u64,
    /// When the configuration in force came, RFC 3339.
    pub configured: String,
    /// Peers, configured and dynamic.
    pub peers: u64,
    /// Those with a session.
    pub established: u64,
    /// Those without, with the cause; at most 100.
    pub down: Vec<Down>,
    /// Tables, by family.
    pub tables: Vec<FamilyTotals>,
    /// Distinct attribute sets.
    pub attribute_sets: u64,
    /// Update groups.
    pub groups: u64,
    /// Our own restart, and those of peers.
    pub restart: RestartView,
    /// Who called lately and was refused.
    pub refused: Vec<Caller>,
}

/// A peer without a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Down {
    /// Its name.
    pub peer: String,
    /// Milliseconds in its state.
    pub for_ms: u64,
    /// Why.
    pub cause: Cause,
}

/// Somebody who called and was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Caller {
    /// Who.
    pub address: IpAddr,
    /// How often.
    pub calls: u64,
    /// When last, RFC 3339.
    pub last: String,
    /// Why.
    pub reason: String,
}

/// A peer in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerRow {
    /// Peer and session.
    #[serde(flatten)]
    pub peer: PeerView,
    /// Since when it is in its state, RFC 3339.
    pub since: String,
    /// Routes, by family.
    pub routes: Vec<RouteCounts>,
    /// Why there is no session, when there is none.
    pub cause: Option<Cause>,
    /// What ended sessions or kept them from coming up, the last one first.
    pub errors: Vec<PastError>,
    /// Whether BFD is up, where the peer is to be watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd_up: Option<bool>,
    /// How its address is found, where it is not configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<DiscoveryView>,
}

/// Everything about a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Neighbor {
    /// Peer, session and settings.
    #[serde(flatten)]
    pub view: NeighborView,
    /// Our help over its restart, by family.
    pub helping: Vec<Helping>,
    /// Our BGP Identifier.
    pub local_router_id: Ipv4Addr,
    /// Since when it is in its state, RFC 3339.
    pub since: String,
    /// Routes, by family.
    pub routes: Vec<RouteCounts>,
    /// Why there is no session, when there is none.
    pub cause: Option<Cause>,
    /// What ended sessions or kept them from coming up, the last one first.
    pub errors: Vec<PastError>,
    /// Its BFD session, where it is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdView>,
    /// How its address is found, where it is not configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<DiscoveryView>,
}

/// How a peer's address is found, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiscoveryView {
    /// How, in words.
    pub by: String,
    /// Where it was found.
    pub address: Option<IpAddr>,
    /// The link on which it is sought, or that its address needs.
    pub interface: Option<String>,
    /// Milliseconds since its last router advertisement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms: Option<u64>,
    /// Others that are there too and not taken: routers on the link, gateways of the same metric.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<IpAddr>,
    /// Why it is not found yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// What mends that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// A peer's BFD session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BfdView {
    /// `up`, `down`, `init` or `admin-down`.
    pub state: String,
    /// Milliseconds in this state.
    pub for_ms: u64,
    /// Across routers.
    pub multihop: bool,
    /// Interval at which we send, milliseconds.
    pub interval_ms: Option<f64>,
    /// Silence after which the peer counts as gone, milliseconds.
    pub detection_ms: Option<f64>,
    /// What the peer says of its own end.
    pub remote_state: String,
    /// Times that it failed.
    pub failures: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets received.
    pub received: u64,
    /// What keeps packets from being sent or heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// An error of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastError {
    /// When it was first seen, RFC 3339.
    pub at: String,
    /// It ended a session that was up.
    pub ended_session: bool,
    /// What.
    pub text: String,
}

/// Why there is no session, and what mends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// Its name.
    pub kind: CauseKind,
    /// With the facts.
    pub text: String,
    /// What mends it.
    pub fix: String,
}

/// The causes that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CauseKind {
    /// The configuration disables it, or asked for the end.
    Disabled,
    /// A prefix limit ended it, of either side.
    PrefixLimit,
    /// No route to the peer, or nobody answers at its address on the link.
    NoRoute,
    /// The peer's host refuses the connection.
    Refused,
    /// Nothing comes back.
    Timeout,
    /// The passwords differ.
    Md5Mismatch,
    /// One side calls from an address that the other does not expect.
    WrongSource,
    /// The AS number is not the expected one.
    WrongAs,
    /// Another peer is configured for the same address.
    Rival,
    /// Its address is not found yet.
    NotFound,
    /// Two speakers with one router id.
    RouterId,
    /// The hold times do not fit.
    HoldTime,
    /// One side was silent for the hold time.
    HoldTimer,
    /// No address family in common.
    Families,
    /// The peer's operator ended it.
    PeerAdmin,
    /// The connection broke.
    Lost,
    /// BFD or its link says that it is gone.
    Gone,
    /// The session waits for BFD, which is not up.
    Bfd,
    /// A message that was not understood.
    Protocol,
    /// We wait for its call.
    Waiting,
    /// It is being tried.
    Trying,
    /// The system refused, in its own words.
    System,
}

impl std::fmt::Display for CauseKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Disabled => "disabled",
            Self::PrefixLimit => "prefix limit",
            Self::NoRoute => "no route",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Md5Mismatch => "MD5 mismatch",
            Self::WrongSource => "wrong source address",
            Self::WrongAs => "wrong AS",
            Self::Rival => "two peers, one address",
            Self::NotFound => "not found yet",
            Self::RouterId => "router id",
            Self::HoldTime => "hold time",
            Self::HoldTimer => "hold timer",
            Self::Families => "address families",
            Self::PeerAdmin => "ended by the peer's operator",
            Self::Lost => "connection lost",
            Self::Gone => "BFD or link down",
            Self::Bfd => "waits for BFD",
            Self::Protocol => "protocol error",
            Self::Waiting => "waiting for its call",
            Self::Trying => "trying",
            Self::System => "system error",
        })
    }
}

/// From the UPDATE to the kernel route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// What was asked about, as it was written.
    pub asked: String,
    /// What the speaker knows.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// Of a prefix without a path: the route that covers it.
    pub covered_by: Option<IpNet>,
    /// The route around it that somebody else told, whose packets it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_from: Option<Covering>,
    /// Why the kernel refuses the route, when it does.
    pub kernel_refuses: Option<String>,
}
