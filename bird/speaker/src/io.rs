//! What goes in and what comes out: the whole surface between the speaker and its shell.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bird_packet::Notification;
use ipnet::IpNet;
use serde::Serialize;

/// Time as the speaker sees it: how long the shell's monotonic clock has run. Only differences matter.
pub type Time = Duration;

/// A TCP connection, running or being made. Handles are not reused while somebody may still hold one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// What the shell tells the speaker.
#[derive(Debug)]
pub enum Input<'a> {
    /// A call that [`Output::Connect`] asked for went through; `local` is our end of it.
    Connected {
        /// The connection.
        conn: ConnId,
        /// Our address and port.
        local: SocketAddr,
    },
    /// Our address of the other family on the link of a connection: the next hop of that family's routes when the
    /// session carries both (RFC 2545 §2). Told before the session is established, or not at all.
    OtherAddress {
        /// The connection.
        conn: ConnId,
        /// The address.
        address: IpAddr,
    },
    /// A call failed.
    ConnectFailed {
        /// The connection, which is gone with this.
        conn: ConnId,
        /// The system's reason, for people.
        reason: ConnectError,
    },
    /// Bytes arrived, in any division.
    Received {
        /// The connection.
        conn: ConnId,
        /// Borrowed: complete messages are parsed in place.
        data: &'a [u8],
    },
    /// Bytes have arrived that will be handed over after the next [`Input::Tick`]: that one does not find the peer silent.
    Waiting {
        /// The connection.
        conn: ConnId,
    },
    /// The connection ended: the peer closed it or it broke. Not sent after [`Output::Close`].
    Closed {
        /// The connection.
        conn: ConnId,
        /// The system's reason, for people.
        reason: String,
    },
    /// Time passed; due timers fire. Every other input does this too.
    Tick,
    /// A route of the kernel that is not ours appeared or changed (replaces the one with the same key).
    LocalRoute(LocalRoute),
    /// Such a route is gone.
    LocalRouteGone(LocalRouteKey),
    /// How a next hop that [`Output::WatchNextHop`] named is reached now.
    NextHop {
        /// The address asked about.
        address: IpAddr,
        /// The answer.
        resolution: Resolution,
    },
    /// The kernel refused a change that [`crate::Speaker::take_fib`] gave out; it is offered again later.
    FibFailed {
        /// The prefix.
        prefix: IpNet,
    },
    /// A route with our protocol number found in the kernel before the start; only before the first other input.
    /// It stays until the end of the restart says otherwise.
    StaleFib {
        /// The prefix.
        prefix: IpNet,
        /// The route as the kernel has it.
        route: FibRoute,
    },
    /// All routes of the kernel were told once: what is missing does not exist. Own routes are not announced before.
    LocalRoutesComplete,
    /// An operator's wish.
    Command(Command),
}

/// Why a call failed, as far as it matters to the speaker; it shows in the peer's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ConnectError {
    /// Nobody listens there.
    Refused,
    /// No answer.
    TimedOut,
    /// No route to the peer.
    Unreachable,
    /// The configured source address is not ours.
    BadSource,
    /// Anything else (errno).
    Other(i32),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Refused => f.write_str("connection refused: no BGP speaker listens there"),
            ConnectError::TimedOut => {
                f.write_str("no answer: peer down, packet filter, or MD5 password mismatch")
            }
            ConnectError::Unreachable => f.write_str("no route to the peer"),
            ConnectError::BadSource => f.write_str("the source address is not an address of this host"),
            ConnectError::Other(errno) => write!(f, "system error {errno}"),
        }
    }
}

/// An operator's wish for one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// End the session with Cease / Administrative Reset; it comes back by itself.
    Reset {
        /// The peer's name.
        peer: String,
    },
    /// Ask the peer for its routes again (RFC 2918), or re-evaluate what is kept.
    RefreshIn {
        /// The peer's name.
        peer: String,
    },
    /// Tell the peer everything again.
    RefreshOut {
        /// The peer's name.
        peer: String,
    },
    /// The peer cannot be reached: BFD or its link is down (RFC 5882, 9384). The session ends at once.
    Unreachable {
        /// The peer's name.
        peer: String,
        /// What says so.
        why: Witness,
    },
    /// BFD with the peer came up, or is not up any more. A session that is up is not touched: see [`Command::Unreachable`].
    Bfd {
        /// The peer's name.
        peer: String,
        /// It is up.
        up: bool,
    },
    /// The planned end: sessions close without Cease where graceful restart was negotiated, else with it.
    Stop,
}

/// What says that a peer cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// BFD, and it shares fate with forwarding only: routes are useless now and go (RFC 5882 §4.3, C bit set).
    Bfd,
    /// BFD that dies with its control plane: a restart looks the same, routes stay if graceful restart was agreed.
    BfdOfControlPlane,
    /// The link to it is down.
    Link,
}

/// What the speaker wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Call a peer; answer with [`Input::Connected`] or [`Input::ConnectFailed`].
    Connect(Dial),
    /// Close a connection (also one still being made) after what [`crate::Speaker::transmit`] still has for it is written;
    /// its handle is void then.
    Close(ConnId),
    /// `transmit` has something for this connection; said once until `transmit` returned nothing.
    Transmit(ConnId),
    /// [`crate::Speaker::take_fib`] may have changes; said once until it returned nothing.
    Fib,
    /// Tell how this address is reached, now and on every change, by [`Input::NextHop`].
    WatchNextHop(IpAddr),
    /// Nobody uses this next hop any more.
    ForgetNextHop(IpAddr),
    /// Something that a person would want to read in a log.
    Event(Event),
}

/// How to call a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// Handle of the new connection.
    pub conn: ConnId,
    /// Name of the peer, to find its password.
    pub peer: Arc<str>,
    /// Whom to call.
    pub remote: SocketAddr,
    /// Interface of a link-local address.
    pub interface: Option<String>,
    /// Bind to this.
    pub source: Option<IpAddr>,
    /// TTL of packets sent.
    pub ttl: u8,
    /// Smallest TTL accepted (RFC 5082); 0: any.
    pub min_ttl: u8,
    /// A password is configured.
    pub password: bool,
}

/// What happened, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A session is Established.
    Up {
        /// Its peer.
        peer: Arc<str>,
        /// The peer's AS.
        peer_as: u32,
        /// The peer's router id.
        router_id: std::net::Ipv4Addr,
    },
    /// Two internal neighbours have one router id (RFC 6286 wants it unique inside an AS); said when the second comes up.
    SameIdentifier {
        /// Who came up.
        peer: Arc<str>,
        /// Who has it already.
        other: Arc<str>,
        /// The router id.
        router_id: std::net::Ipv4Addr,
    },
    /// A session that was Established ended.
    Down {
        /// Its peer.
        peer: Arc<str>,
        /// Why.
        reason: DownReason,
    },
    /// An attempt did not reach Established; said when the reason changes, not each time.
    Failed {
        /// The peer.
        peer: Arc<str>,
        /// Why.
        reason: DownReason,
    },
    /// A malformed UPDATE was contained (RFC 7606).
    Malformed {
        /// The peer.
        peer: Arc<str>,
        /// What was wrong and what was done about it.
        what: String,
    },
    /// A peer is beyond its prefix limit.
    PrefixLimit {
        /// The peer.
        peer: Arc<str>,
        /// The limit.
        max: u32,
    },
    /// A peer tells more paths of a prefix than it may; those beyond are not taken.
    PathLimit {
        /// The peer.
        peer: Arc<str>,
        /// Paths of a prefix.
        max: u16,
    },
    /// A connection came from nobody we know.
    Refused {
        /// Who called.
        remote: SocketAddr,
        /// Why it was turned away.
        reason: &'static str,
    },
    /// A peer was not back within its restart time: what it told is kept, as the last resort (RFC 9494).
    LongLivedStale {
        /// The peer.
        peer: Arc<str>,
        /// Of this family.
        family: bird_packet::Family,
        /// How long it is kept.
        time: Duration,
    },
    /// Our own restart is over: the table is complete, what the kernel had beyond it is swept.
    RestartComplete {
        /// Why the wait ended.
        waited: crate::restart::DeferralEnd,
    },
}

/// A NOTIFICATION: what it means, and how it reads. The text may hold words of the peer's operator; only the numbers say
/// what is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Error code; of a Hard Reset (RFC 8538), that of what it wraps.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    text: String,
}

impl Notice {
    /// One that was too short to have a code.
    pub(crate) fn unreadable(why: impl fmt::Display) -> Self {
        Self { code: 0, subcode: 0, text: why.to_string() }
    }
}

impl From<&Notification> for Notice {
    fn from(whole: &Notification) -> Self {
        let inner = whole.inner();
        let meant = inner.as_ref().unwrap_or(whole);
        Self { code: meant.code, subcode: meant.subcode, text: whole.to_string() }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a session ended or did not come up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// We ended it with this NOTIFICATION.
    #[error("sent notification: {0}")]
    Sent(Notice),
    /// The peer ended it with this NOTIFICATION.
    #[error("received notification: {0}")]
    Received(Notice),
    /// The TCP connection ended without a word.
    #[error("connection closed: {0}")]
    Closed(String),
    /// We could not call.
    #[error("{0}")]
    Connect(ConnectError),
    /// Another peer is configured for the same address and has the session.
    #[error(
        "two peers are configured for the address {address}: {rival} has the session; remove one of them, or give each \
         a source address or port of its own"
    )]
    Rival {
        /// The address.
        address: IpAddr,
        /// The other peer.
        rival: Arc<str>,
    },
    /// Two hosts have the peer's address: while the session with one is alive, the other calls.
    #[error(
        "two speakers have the address {address}: the session is with router id {session}, and {caller} calls too and is \
         refused"
    )]
    Twin {
        /// The address.
        address: IpAddr,
        /// Router id of the one that has the session.
        session: std::net::Ipv4Addr,
        /// Router id of the other.
        caller: std::net::Ipv4Addr,
    },
    /// BFD or its link says that it is gone.
    #[error("{0}")]
    Unreachable(&'static str),
    /// The configuration no longer wants it.
    #[error("{0}")]
    Admin(&'static str),
}

impl DownReason {
    /// The NOTIFICATION that ended it, whoever sent it.
    pub fn notice(&self) -> Option<&Notice> {
        match self {
            Self::Sent(notice) | Self::Received(notice) => Some(notice),
            _ => None,
        }
    }
}

/// A kernel route that somebody else owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRoute {
    /// Its identity.
    pub key: LocalRouteKey,
    /// Its gateway, if it has one.
    pub gateway: Option<IpAddr>,
}

/// What tells kernel routes apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalRouteKey {
    /// The prefix.
    pub prefix: IpNet,
    /// Where it comes from.
    pub source: LocalSource,
    /// Its metric.
    pub metric: u32,
    /// Name of its interface.
    pub interface: Arc<str>,
}

/// Where a local route comes from; the order is the preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum LocalSource {
    /// A subnet of an interface's address.
    Connected,
    /// Another daemon or an operator (felix's workload routes).
    Kernel,
}

/// How a next hop is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Not at all.
    Unreachable,
    /// By these; several share the load.
    Via {
        /// Where packets go.
        hops: Vec<ResolvedHop>,
        /// Metric of the route that leads there: the IGP cost of the decision process.
        metric: u32,
    },
}

/// One way to a next hop.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResolvedHop {
    /// The gateway; `None`: the next hop is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The link.
    pub ifindex: u32,
    /// Its name, which filters and tunnel rules look at.
    pub interface: Arc<str>,
}

/// A change of one kernel route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FibChange {
    /// The prefix.
    pub prefix: IpNet,
    /// What the kernel has of us now, as far as we know. With another metric it is another kernel route: delete it too.
    pub old: Option<Arc<FibRoute>>,
    /// What it shall have; `None`: nothing.
    pub new: Option<Arc<FibRoute>>,
}

/// A kernel route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FibRoute {
    /// What it does.
    pub target: FibTarget,
    /// Its metric.
    pub metric: u32,
}

/// What a kernel route does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FibTarget {
    /// Drops.
    Blackhole,
    /// Forwards; sorted.
    Hops(Vec<FibHop>),
}

/// One next hop of a kernel route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FibHop {
    /// The gateway.
    pub via: IpAddr,
    /// The device, 0: the kernel chooses by looking up the gateway.
    pub ifindex: u32,
    /// A device by name instead (tunnel rules); the gateway is then on that link whatever its subnet.
    pub device: Option<Arc<str>>,
}
