//! Why there is no session with a peer: one cause, with its facts and what mends it.
//!
//! A function of what is known: the errors since there was a session last, what the peer's OPEN said, how the kernel
//! reaches it, which callers were refused and what the kernel dropped for its signature.

use std::net::IpAddr;

use bird_speaker::fsm::State;
use bird_speaker::io::{ConnectError, DownReason, Notice};
use bird_speaker::view::{NeighborView, Parked};

use super::history::{Md5Drops, Refused};
use super::proto::{Cause, CauseKind, DiscoveryView};
use crate::notice::{Meaning, meaning};

/// What is known.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// The peer.
    pub(crate) view: &'a NeighborView,
    /// Errors since there was a session last, the last one first.
    pub(crate) reasons: Vec<&'a DownReason>,
    /// Our AS, as the peer sees it.
    pub(crate) local_as: u32,
    /// How the kernel reaches it.
    pub(crate) way: Way,
    /// Callers refused lately that no peer has the address of, or that called the wrong address.
    pub(crate) callers: Vec<&'a Refused>,
    /// What the kernel dropped since it went down.
    pub(crate) md5: Md5Drops,
    /// How its address is found, where it is not configured.
    pub(crate) discovery: Option<&'a DiscoveryView>,
}

/// How a peer is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// Not at all.
    None,
    /// On this link.
    Link(String),
    /// By a gateway.
    Gateway(IpAddr),
}

/// Cease / Connection Rejected (RFC 4486).
const REJECTED: (u8, u8) = (6, 5);
/// A call under way is not worth a word for this long.
const PATIENCE_MS: u64 = 3000;

/// Why there is no session; `None`: there is one.
pub(crate) fn diagnose(facts: &Facts<'_>) -> Option<Cause> {
    let peer = &facts.view.peer;
    if peer.state == State::Established {
        return None;
    }
    match peer.parked {
        Some(Parked::Disabled) => {
            let text = "the configuration disables this peer";
            return Some(cause(CauseKind::Disabled, text, "set it to enabled in the configuration"));
        }
        Some(Parked::PrefixLimit) => {
            let max = facts.view.settings.prefix_limit.unwrap_or_default();
            return Some(cause(
                CauseKind::PrefixLimit,
                format!("the peer told more than {max} prefixes"),
                "stop the leak of routes at the peer or raise the limit; the session comes back after the limit's \
                 restart time, or when the limit is changed",
            ));
        }
        Some(Parked::Error) | None => {}
    }
    if peer.waits_for_bfd {
        return Some(cause(
            CauseKind::Bfd,
            format!(
                "waits for BFD: {} answers, but BFD with it is not up, and strict is set here",
                peer.address
            ),
            "switch BFD on for this session on the peer and compare on-link or multihop (`ctl bgp neighbor` shows what BFD \
             hears), or take strict away here",
        ));
    }
    if let Some(discovery) = facts.discovery
        && let (Some(missing), Some(fix)) = (&discovery.missing, &discovery.fix)
    {
        return Some(cause(CauseKind::NotFound, missing, fix));
    }
    Some(match decisive(&facts.reasons) {
        Some(reason) => by_reason(facts, reason),
        None => without_reason(facts),
    })
}

/// The reason that says most: the last one, unless it may follow from an earlier NOTIFICATION. A speaker that sent or got
/// one hangs up on calls for a while.
fn decisive<'a>(reasons: &[&'a DownReason]) -> Option<&'a DownReason> {
    let follows = |reason: &DownReason| match reason {
        DownReason::Closed(_) => true,
        DownReason::Sent(notice) | DownReason::Received(notice) => {
            (notice.code, notice.subcode) == REJECTED || meaning(notice) == Meaning::Collision
        }
        DownReason::Connect(_)
        | DownReason::Rival { .. }
        | DownReason::Twin { .. }
        | DownReason::Unreachable(_)
        | DownReason::Admin(_) => false,
    };
    let last = reasons.first().copied()?;
    if !follows(last) {
        return Some(last);
    }
    let says_more = |r: &&DownReason| r.notice().is_some() && !follows(r);
    Some(reasons.iter().copied().find(says_more).unwrap_or(last))
}

fn by_reason(facts: &Facts<'_>, reason: &DownReason) -> Cause {
    let view = facts.view;
    let address = view.peer.address;
    match reason {
        DownReason::Connect(ConnectError::BadSource) => {
            let source = view.settings.source_address.map(|a| a.to_string()).unwrap_or_default();
            cause(
                CauseKind::WrongSource,
                format!("the source address {source} of this session is not an address of this host, or its link is down"),
                "correct the Node's BGP address (spec.bgp), set sourceAddress to None on the BGPPeer, or give the \
                 address to a link",
            )
        }
        DownReason::Connect(ConnectError::Unreachable) => unreachable(facts),
        DownReason::Connect(ConnectError::Refused) => called_elsewhere(facts).unwrap_or_else(|| {
            cause(
                CauseKind::Refused,
                format!("{address} refuses connections to TCP port {}: no BGP speaker listens there", view.peer.port),
                "start the BGP speaker on the peer, or compare address and port with what it listens on; a packet \
                 filter that rejects looks the same",
            )
        }),
        DownReason::Connect(ConnectError::TimedOut) => silence(facts),
        DownReason::Connect(ConnectError::Other(errno)) => cause(
            CauseKind::System,
            format!("the call failed with system error {errno}"),
            "see errno(3); it is tried again",
        ),
        DownReason::Sent(notice) => notification(facts, notice, true),
        DownReason::Received(notice) => notification(facts, notice, false),
        DownReason::Closed(text) => closed(facts, text),
        DownReason::Rival { address, rival } => cause(
            CauseKind::Rival,
            format!("two peers are configured for the address {address}, and {rival} has the session"),
            "remove the BGPPeer that is not meant, or correct its peerIP; or give each a source address or port of its own",
        ),
        DownReason::Twin { address, session, caller } => cause(
            CauseKind::RouterId,
            format!("two speakers have the address {address}, router ids {session} and {caller}"),
            "give one of the two hosts another address",
        ),
        DownReason::Unreachable(text) => cause(
            CauseKind::Gone,
            *text,
            "look at the path to the peer and at its BFD; the session is tried all the same",
        ),
        DownReason::Admin(text) => cause(CauseKind::Disabled, *text, "nothing: it was asked for"),
    }
}

/// Nothing failed yet.
fn without_reason(facts: &Facts<'_>) -> Cause {
    let peer = &facts.view.peer;
    let elsewhere = called_elsewhere(facts);
    if let Some(cause) = elsewhere.or_else(|| signature(facts)) {
        return cause;
    }
    if peer.passive || peer.dynamic {
        let text = format!("this side waits for the peer to call from {}", peer.address);
        return cause(
            CauseKind::Waiting,
            text,
            "start the peer's speaker; it must be configured with this node as a neighbour and not be passive too",
        );
    }
    if facts.way == Way::None {
        return unreachable(facts);
    }
    if peer.state == State::Connect && peer.for_ms >= PATIENCE_MS {
        return silence(facts);
    }
    cause(CauseKind::Trying, "it is being called", "wait some seconds")
}

fn unreachable(facts: &Facts<'_>) -> Cause {
    let address = facts.view.peer.address;
    match &facts.way {
        Way::Link(link) => cause(
            CauseKind::NoRoute,
            format!("nobody answers at {address} on link {link} (no ARP or neighbour reply)"),
            "check that the peer runs and has this address, and the cabling, VLAN and subnet of the link",
        ),
        Way::Gateway(gateway) => cause(
            CauseKind::NoRoute,
            format!("the way to {address} by {gateway} says that it is unreachable"),
            "check that the gateway runs and has a route to the peer",
        ),
        Way::None => cause(
            CauseKind::NoRoute,
            format!("this host has no route to {address}"),
            "bring up the link of the peer's subnet, correct the subnet of this node's address, or set reachableBy to a \
             gateway to the peer",
        ),
    }
}

/// Nothing comes back: a wrong password looks exactly like that, so ask the kernel.
fn silence(facts: &Facts<'_>) -> Cause {
    if let Some(cause) = signature(facts).or_else(|| called_elsewhere(facts)) {
        return cause;
    }
    let view = facts.view;
    let (address, port) = (view.peer.address, view.peer.port);
    let mut fixes =
        vec!["check that the peer runs and that no packet filter on the way drops this port".to_owned()];
    if view.settings.password {
        fixes.push(
            "this session has a password: the peer must have the same, and a host without a listening speaker is silent too"
                .to_owned(),
        );
    }
    if let (Way::Gateway(gateway), 1) = (&facts.way, view.settings.multihop) {
        fixes.push(format!(
            "the peer is behind {gateway}, but packets of this session may take one hop only: set multihop"
        ));
    }
    if let Some(hops) = view.settings.ttl_security {
        fixes.push(format!(
            "TTL security lets only packets from at most {hops} hop(s) away in: it must be set on both sides and fit"
        ));
    }
    let fix = fixes.join("; ");
    cause(CauseKind::Timeout, format!("no answer from {address}, TCP port {port}"), fix)
}

/// The passwords differ, as far as the kernel's counters tell. They count for all peers together, so this is likely, not
/// certain.
fn signature(facts: &Facts<'_>) -> Option<Cause> {
    let address = facts.view.peer.address;
    let Md5Drops { missing, unexpected, wrong } = facts.md5;
    let (what, fix) = match (facts.view.settings.password, missing > 0, unexpected > 0, wrong > 0) {
        (true, _, _, true) => ("signed with another password", "set the same password on both sides"),
        (true, true, ..) => (
            "without a signature, though a password is set here",
            "set the same password on the peer, or remove it here",
        ),
        (false, _, true, _) => (
            "with a signature, though no password is set here",
            "set the peer's password here (password on the BGPPeer), or remove it there",
        ),
        _ => return None,
    };
    Some(cause(
        CauseKind::Md5Mismatch,
        format!("no answer from {address}, and the kernel drops TCP segments {what}"),
        fix,
    ))
}

/// Somebody calls, and is refused for an address.
fn called_elsewhere(facts: &Facts<'_>) -> Option<Cause> {
    let view = facts.view;
    let address = view.peer.address;
    if let Some(caller) = facts.callers.iter().find(|c| c.address == address) {
        return Some(cause(
            CauseKind::WrongSource,
            format!("calls from {address} are refused: {}", caller.reason),
            "let the peer call the source address of this session, or correct sourceAddress here",
        ));
    }
    let caller = facts.callers.iter().find(|c| c.address.is_ipv4() == address.is_ipv4())?;
    Some(cause(
        CauseKind::WrongSource,
        format!(
            "the peer does not answer at {address}; calls from {}, an address that no peer has, are refused",
            caller.address
        ),
        format!(
            "if {} is this peer, let it call from {address} (its source address), or correct its address here",
            caller.address
        ),
    ))
}

/// The connection ended without a word.
fn closed(facts: &Facts<'_>, text: &str) -> Cause {
    let view = facts.view;
    if view.peer.counters.established > 0 {
        return cause(
            CauseKind::Lost,
            format!("the connection ended without a word: {text}"),
            "look at the peer's log and the link; it is called again",
        );
    }
    let from = view.peer.local_address.or(view.settings.source_address);
    let from = from.map_or_else(|| "this node".to_owned(), |a| a.to_string());
    cause(
        CauseKind::WrongSource,
        format!(
            "{} hangs up on {from} without a word ({text}): it has no neighbour with this address, or has it disabled",
            view.peer.address
        ),
        format!(
            "configure {from} as a neighbour on the peer and enable it, or set sourceAddress here to the address it knows"
        ),
    )
}

fn notification(facts: &Facts<'_>, notice: &Notice, sent: bool) -> Cause {
    let view = facts.view;
    let who = if sent { "the peer" } else { "this side" };
    match meaning(notice) {
        Meaning::BadPeerAs => wrong_as(facts, sent),
        Meaning::BadIdentifier => {
            let id = view.said.map(|s| s.router_id.to_string()).unwrap_or_default();
            cause(
                CauseKind::RouterId,
                if sent {
                    format!("the peer's router id {id} is ours too, or none")
                } else {
                    "the peer refuses our router id".to_owned()
                },
                "give each speaker a router id of its own (CALICO_ROUTER_ID)",
            )
        }
        Meaning::HoldTime => cause(
            CauseKind::HoldTime,
            if sent {
                "the peer offers a hold time of 1 or 2 s, which no speaker may accept (RFC 4271)".to_owned()
            } else {
                format!("the peer refuses our hold time of {} s", view.settings.hold_time)
            },
            "set a hold time of 0 or of at least 3 s, and not below what the other side demands",
        ),
        Meaning::NotReading => cause(
            CauseKind::HoldTimer,
            format!("{who} did not read what was sent for the send hold time"),
            "check the load of that side and the link",
        ),
        Meaning::Silent => cause(
            CauseKind::HoldTimer,
            format!("{who} was silent for the hold time, as the other side saw it"),
            "check the link, packet loss and MTU, and the load on both sides",
        ),
        Meaning::Capability => cause(
            CauseKind::Families,
            format!("no address family in common; offered here: {}", view.settings.families.join(", ")),
            "enable the same address families on both sides",
        ),
        Meaning::TooManyPrefixes => cause(
            CauseKind::PrefixLimit,
            if sent {
                "the peer told more prefixes than it may"
            } else {
                "the peer takes fewer prefixes than it was told"
            },
            "raise the limit, or narrow what is told (export filters)",
        ),
        Meaning::Unwelcome => {
            let from = view.peer.local_address.or(view.settings.source_address);
            let from = from.map_or_else(|| "this node".to_owned(), |a| a.to_string());
            cause(
                CauseKind::WrongSource,
                format!("the peer takes no session from {from} ({notice})"),
                format!("configure {from} with AS {} as a neighbour on the peer", facts.local_as),
            )
        }
        Meaning::Administrative => cause(
            if sent { CauseKind::Disabled } else { CauseKind::PeerAdmin },
            notice.to_string(),
            "nothing, if that was meant; otherwise enable the session on the peer",
        ),
        Meaning::Collision => {
            ended(CauseKind::Trying, notice, sent, "nothing: the other connection of the two stays")
        }
        Meaning::BfdDown => ended(
            CauseKind::Gone,
            notice,
            sent,
            "look at the path to the peer, and at BFD on both sides (`ctl bgp neighbor` shows this one)",
        ),
        Meaning::Authentication => {
            ended(CauseKind::Md5Mismatch, notice, sent, "set the same authentication on both sides")
        }
        Meaning::Other => {
            ended(CauseKind::Protocol, notice, sent, "look at the peer's log for the same moment")
        }
    }
}

fn ended(kind: CauseKind, notice: &Notice, sent: bool, fix: &str) -> Cause {
    cause(kind, format!("{} {notice}", if sent { "we ended it:" } else { "the peer ended it:" }), fix)
}

fn wrong_as(facts: &Facts<'_>, sent: bool) -> Cause {
    let view = facts.view;
    let wanted = view.settings.remote_as;
    match view.said.map(|s| s.asn) {
        Some(asn) if asn == facts.local_as && view.settings.remote_external => cause(
            CauseKind::WrongAs,
            format!("the peer says that it is AS {asn}, which is ours here; configured is an external peer"),
            "give the two sides different AS numbers, or write internal (or the number) for the peer's AS here",
        ),
        Some(asn) if asn != wanted && wanted != 0 => cause(
            CauseKind::WrongAs,
            format!("the peer says that it is AS {asn}; configured here is AS {wanted}"),
            format!("set asNumber of the BGPPeer or Node to {asn}, or correct the peer"),
        ),
        _ if sent => cause(
            CauseKind::WrongAs,
            "the peer's AS is not acceptable",
            "compare asNumber with the AS that the peer is configured with",
        ),
        _ => cause(
            CauseKind::WrongAs,
            format!("the peer expects another AS than our {}", facts.local_as),
            format!(
                "set the AS of this neighbour to {} on the peer, or correct asNumber of this node",
                facts.local_as
            ),
        ),
    }
}

fn cause(kind: CauseKind, text: impl Into<String>, fix: impl Into<String>) -> Cause {
    Cause { kind, text: text.into(), fix: fix.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    use bird_packet::{Cease, Notification};
    use bird_speaker::view::{Census, Said};
    use bird_speaker::{Config, PeerConfig, Speaker, Start};

    fn view(change: impl FnOnce(&mut PeerConfig)) -> NeighborView {
        let mut peer = PeerConfig {
            name: "p".into(),
            address: "10.0.0.2".parse().unwrap(),
            remote_as: 65002,
            ..PeerConfig::default()
        };
        change(&mut peer);
        let mut config = Config { peers: vec![peer], ..Config::default() };
        config.local.asn = 65001;
        config.local.router_id = [10, 0, 0, 1].into();
        Speaker::new(Duration::ZERO, config, Start::default()).neighbor_view("p", &Census::default()).unwrap()
    }

    fn facts<'a>(view: &'a NeighborView, reasons: &'a [DownReason]) -> Facts<'a> {
        Facts {
            view,
            reasons: reasons.iter().collect(),
            local_as: 65001,
            way: Way::Link("eth0".into()),
            callers: Vec::new(),
            md5: Md5Drops::default(),
            discovery: None,
        }
    }

    fn sent(code: u8, subcode: u8) -> DownReason {
        DownReason::Sent((&Notification::new(code, subcode)).into())
    }

    fn received(code: u8, subcode: u8) -> DownReason {
        DownReason::Received((&Notification::new(code, subcode)).into())
    }

    fn closed() -> DownReason {
        DownReason::Closed("the peer closed the connection".into())
    }

    /// The names that NOTIFICATIONs have in our own packet crate lead to the causes.
    #[test]
    fn each_error_has_its_cause() {
        let connect = DownReason::Connect;
        for (reason, kind) in [
            (connect(ConnectError::Refused), CauseKind::Refused),
            (connect(ConnectError::TimedOut), CauseKind::Timeout),
            (connect(ConnectError::Unreachable), CauseKind::NoRoute),
            (connect(ConnectError::BadSource), CauseKind::WrongSource),
            (connect(ConnectError::Other(5)), CauseKind::System),
            (sent(2, 2), CauseKind::WrongAs),
            (received(2, 2), CauseKind::WrongAs),
            (sent(2, 3), CauseKind::RouterId),
            (received(2, 6), CauseKind::HoldTime),
            (sent(4, 0), CauseKind::HoldTimer),
            (sent(8, 0), CauseKind::HoldTimer),
            (sent(2, 7), CauseKind::Families),
            (received(6, Cease::BfdDown as u8), CauseKind::Gone),
            (received(6, Cease::MaxPrefixes as u8), CauseKind::PrefixLimit),
            (received(6, Cease::AdministrativeShutdown as u8), CauseKind::PeerAdmin),
            (received(6, Cease::ConnectionRejected as u8), CauseKind::WrongSource),
            (received(6, Cease::PeerDeconfigured as u8), CauseKind::WrongSource),
            (received(3, 1), CauseKind::Protocol),
            (received(6, 99), CauseKind::Protocol),
            (closed(), CauseKind::WrongSource),
            (DownReason::Admin("reset by an operator"), CauseKind::Disabled),
            (
                DownReason::Twin {
                    address: "10.0.0.2".parse().unwrap(),
                    session: "10.0.0.2".parse().unwrap(),
                    caller: "10.0.0.3".parse().unwrap(),
                },
                CauseKind::RouterId,
            ),
            (DownReason::Rival { address: "10.0.0.2".parse().unwrap(), rival: "q".into() }, CauseKind::Rival),
        ] {
            let view = view(|_| {});
            let reasons = [reason];
            let cause = diagnose(&facts(&view, &reasons)).unwrap();
            assert_eq!(cause.kind, kind, "{reasons:?}: {cause:?}");
            assert!(!cause.text.is_empty() && !cause.fix.is_empty());
        }
    }

    #[test]
    fn the_facts_are_in_the_text() {
        let mut view = view(|_| {});
        view.said = Some(Said { asn: 65009, router_id: [10, 0, 0, 9].into(), hold_time: 90 });
        let reasons = [sent(2, 2)];
        let cause = diagnose(&facts(&view, &reasons)).unwrap();
        assert_eq!(cause.text, "the peer says that it is AS 65009; configured here is AS 65002");
        assert!(cause.fix.contains("asNumber") && cause.fix.contains("65009"));
        view.said = Some(Said { asn: 65002, router_id: [10, 0, 0, 9].into(), hold_time: 90 });
        let reasons = [received(2, 2)];
        let cause = diagnose(&facts(&view, &reasons)).unwrap();
        assert_eq!(cause.text, "the peer expects another AS than our 65001");
    }

    #[test]
    fn the_words_of_the_other_operator_do_not_decide() {
        let view = view(|_| {});
        let text = "bad peer as, hold time, collision";
        let shutdown = Notification::cease_with_text(Cease::AdministrativeShutdown, text);
        let reasons = [DownReason::Received((&shutdown).into())];
        let cause = diagnose(&facts(&view, &reasons)).unwrap();
        assert_eq!(cause.kind, CauseKind::PeerAdmin);
        assert!(cause.text.contains(text), "{}", cause.text);
    }

    #[test]
    fn what_follows_from_an_error_does_not_hide_it() {
        let view = view(|_| {});
        let kind = |reasons: &[DownReason]| diagnose(&facts(&view, reasons)).unwrap().kind;
        let rejected = received(6, Cease::ConnectionRejected as u8);
        assert_eq!(kind(&[closed(), rejected.clone(), sent(2, 2)]), CauseKind::WrongAs);
        assert_eq!(kind(&[rejected.clone(), closed()]), CauseKind::WrongSource);
        let unreachable = DownReason::Connect(ConnectError::Unreachable);
        assert_eq!(kind(&[unreachable.clone(), sent(2, 2)]), CauseKind::NoRoute, "that is news");
        assert_eq!(kind(&[closed(), unreachable]), CauseKind::WrongSource, "it can be reached since");
    }

    #[test]
    fn silence_is_a_wrong_password_when_the_kernel_dropped_for_one() {
        let reasons = [DownReason::Connect(ConnectError::TimedOut)];
        let drops = |missing, unexpected, wrong| Md5Drops { missing, unexpected, wrong };
        for (password, md5, kind) in [
            (true, drops(0, 0, 3), CauseKind::Md5Mismatch),
            (true, drops(2, 0, 0), CauseKind::Md5Mismatch),
            (true, drops(0, 9, 0), CauseKind::Timeout),
            (false, drops(0, 1, 0), CauseKind::Md5Mismatch),
            (false, drops(5, 0, 5), CauseKind::Timeout),
            (true, drops(0, 0, 0), CauseKind::Timeout),
        ] {
            let view = view(|p| p.password = password);
            let cause = diagnose(&Facts { md5, ..facts(&view, &reasons) }).unwrap();
            assert_eq!(cause.kind, kind, "{password} {md5:?}");
        }
    }

    #[test]
    fn a_peer_that_calls_from_elsewhere_is_a_wrong_source() {
        let stranger = Refused {
            address: "10.0.0.77".parse().unwrap(),
            calls: 3,
            last: SystemTime::UNIX_EPOCH,
            reason: "nobody is configured with this address",
        };
        let view = view(|p| p.passive = true);
        let with = Facts { callers: vec![&stranger], ..facts(&view, &[]) };
        let cause = diagnose(&with).unwrap();
        assert_eq!(cause.kind, CauseKind::WrongSource);
        assert!(cause.text.contains("10.0.0.77") && cause.text.contains("10.0.0.2"), "{}", cause.text);
        assert_eq!(diagnose(&facts(&view, &[])).unwrap().kind, CauseKind::Waiting);
        let other_family = Refused { address: "fd00::7".parse().unwrap(), ..stranger };
        let with = Facts { callers: vec![&other_family], ..facts(&view, &[]) };
        assert_eq!(diagnose(&with).unwrap().kind, CauseKind::Waiting);
    }

    #[test]
    fn before_anything_failed() {
        let mut view = view(|_| {});
        view.peer.state = State::Connect;
        view.peer.for_ms = 10;
        assert_eq!(diagnose(&facts(&view, &[])).unwrap().kind, CauseKind::Trying);
        view.peer.for_ms = 10_000;
        assert_eq!(diagnose(&facts(&view, &[])).unwrap().kind, CauseKind::Timeout);
        let nowhere = Facts { way: Way::None, ..facts(&view, &[]) };
        assert_eq!(diagnose(&nowhere).unwrap().kind, CauseKind::NoRoute);
        view.peer.waits_for_bfd = true;
        let waits = diagnose(&facts(&view, &[received(4, 0)])).unwrap();
        assert_eq!(waits.kind, CauseKind::Bfd, "whoever gave up waiting");
        assert!(waits.text.starts_with("waits for BFD") && waits.fix.contains("strict"));
        view.peer.parked = Some(Parked::Disabled);
        assert_eq!(diagnose(&facts(&view, &[])).unwrap().kind, CauseKind::Disabled);
        view.peer.state = State::Established;
        assert_eq!(diagnose(&facts(&view, &[])), None);
    }

    #[test]
    fn a_peer_that_is_not_found_says_what_is_missing() {
        let view = view(|p| (p.address, p.remote_as, p.remote_external) = ([0, 0, 0, 0].into(), 0, true));
        let mut discovery = DiscoveryView {
            by: "the IPv4 default route".into(),
            address: None,
            interface: None,
            heard_ms: None,
            others: Vec::new(),
            missing: Some("no IPv4 default route".into()),
            fix: Some("ip -4 route add default via GATEWAY".into()),
        };
        let cause = diagnose(&Facts { discovery: Some(&discovery), ..facts(&view, &[]) }).unwrap();
        assert_eq!((cause.kind, cause.text.as_str()), (CauseKind::NotFound, "no IPv4 default route"));
        assert!(cause.fix.contains("route add"));
        // Found, and of the wrong side.
        discovery.missing = None;
        let mut view = view;
        view.said = Some(Said { asn: 65001, router_id: [10, 0, 0, 9].into(), hold_time: 90 });
        let reasons = [sent(2, 2)];
        let cause = diagnose(&Facts { discovery: Some(&discovery), ..facts(&view, &reasons) }).unwrap();
        assert_eq!(cause.kind, CauseKind::WrongAs);
        assert!(cause.text.contains("AS 65001, which is ours here"), "{}", cause.text);
    }

    #[test]
    fn a_way_that_a_hop_is_too_short_for_is_named() {
        let reasons = [DownReason::Connect(ConnectError::TimedOut)];
        let view = view(|p| p.multihop = 1);
        let far = Facts { way: Way::Gateway("10.0.0.254".parse().unwrap()), ..facts(&view, &reasons) };
        assert!(diagnose(&far).unwrap().fix.contains("set multihop"));
        assert!(!diagnose(&facts(&view, &reasons)).unwrap().fix.contains("set multihop"));
    }
}
