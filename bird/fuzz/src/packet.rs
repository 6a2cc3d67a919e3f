//! The codec of `bird/packet`, held to its promises on any bytes.

use std::net::{IpAddr, Ipv4Addr};

use bird_packet::attr::{AttrBuilder, AttrSet, Segment, code};
use bird_packet::{
    Announcement, Family, Frame, HEADER_LEN, MAX_LEN, MAX_LEN_EXTENDED, MessageKind, NextHop, Nlri,
    Notification, OpenMessage, PackError, PeerKind, Prefix, Prefix4, Prefix6, RefreshKind, RouteRefresh,
    SessionContext, UpdatePacker, UpdateView, Verdict, encode_end_of_rib, encode_keepalive, frame,
};

/// The AS of the peer in every context.
const PEER_AS: u32 = 65001;

/// The session that the first two octets ask for, and the rest. Two zero octets are an external peer with both
/// families and 4-octet AS numbers.
fn context(data: &[u8]) -> Option<(SessionContext, &[u8])> {
    let [a, b, rest @ ..] = data else { return None };
    let kind = match a & 3 {
        1 => PeerKind::Internal,
        2 => PeerKind::Confederation,
        _ => PeerKind::External,
    };
    let mut ctx = SessionContext::new(kind);
    ctx.peer_as = PEER_AS;
    ctx.as4 = a & 4 == 0;
    ctx.enforce_first_as = a & 8 != 0;
    ctx.reject_as_sets = a & 16 != 0;
    ctx.max_len = if a & 32 != 0 { MAX_LEN_EXTENDED } else { MAX_LEN };
    for (family, off) in [(Family::Ipv4Unicast, 64), (Family::Ipv6Unicast, 128)] {
        let f = ctx.family_mut(family);
        f.enabled = a & off == 0;
        f.add_path_rx = b & (off >> 6) != 0;
    }
    ctx.family_mut(Family::Ipv4Unicast).ext_nexthop = b & 4 != 0;
    Some((ctx, rest))
}

/// An OPEN body: what is accepted survives being written and read again.
pub fn open(body: &[u8]) {
    // Longer ones do not pass the framing.
    let body = body.get(..MAX_LEN - HEADER_LEN).unwrap_or(body);
    match OpenMessage::decode(body) {
        Ok(open) => check_open(&open),
        Err(error) => check_error(&error, &[2]),
    }
}

fn check_open(open: &OpenMessage) {
    assert!(open.version == 4 && open.asn != 0 && !open.router_id.is_unspecified());
    assert!(!matches!(open.hold_time, 1 | 2));
    let mut wire = Vec::new();
    open.encode(&mut wire);
    let again = whole(&wire, MessageKind::Open, MAX_LEN);
    assert_eq!(OpenMessage::decode(again), Ok(open.clone()));
    for family in Family::ALL {
        let _ = open.has_family(family);
    }
}

/// A NOTIFICATION that we would send: of an expected code, with a name, and it fits a message.
fn check_error(error: &Notification, codes: &[u8]) {
    assert!(codes.contains(&error.code), "{error}");
    assert!(error.subcode == 0 || error.subcode_name().is_some(), "{error}");
    let mut wire = Vec::new();
    error.encode(&mut wire);
    let body = whole(&wire, MessageKind::Notification, MAX_LEN);
    assert_eq!(Notification::decode(body), Ok(error.clone()));
}

/// The body of the one message in `wire`.
fn whole(wire: &[u8], kind: MessageKind, max_len: usize) -> &[u8] {
    let found = frame(wire, max_len).expect("a good header").expect("a whole message");
    assert_eq!((found.kind, found.len), (kind, wire.len()));
    found.body
}

/// A session, then bytes off its socket in pieces: the framing does not depend on the pieces, a bad header is seen
/// as soon as it is there, and every message is read or refused.
pub fn stream(data: &[u8]) {
    let Some((ctx, rest)) = context(data) else { return };
    let Some((seed, bytes)) = rest.split_first() else { return };
    let mut at = 0;
    let mut lengths = Vec::new();
    let outcome = loop {
        let rest = &bytes[at..];
        match frame(rest, ctx.max_len) {
            Ok(Some(found)) => {
                assert_eq!(found.body, &rest[HEADER_LEN..found.len]);
                check_message(&ctx, &found, &rest[..found.len]);
                lengths.push(found.len);
                at += found.len;
            }
            Ok(None) => {
                if let Some(len) = rest.get(16..HEADER_LEN) {
                    let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
                    assert!((HEADER_LEN..=ctx.max_len).contains(&len) && len > rest.len());
                }
                break None;
            }
            Err(error) => {
                check_error(&error, &[1]);
                assert_eq!(frame(&rest[..HEADER_LEN], ctx.max_len), Err(error.clone()));
                break Some(error);
            }
        }
    };
    let (lengths_in_pieces, outcome_in_pieces) = in_pieces(bytes, *seed, ctx.max_len);
    assert_eq!((lengths_in_pieces, outcome_in_pieces), (lengths, outcome));
}

fn in_pieces(bytes: &[u8], seed: u8, max_len: usize) -> (Vec<usize>, Option<Notification>) {
    let mut state = u32::from(seed);
    let mut rest = bytes;
    let mut buffer = Vec::new();
    let mut lengths = Vec::new();
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Mostly a few octets, at times many, at times none.
        let len = if state >> 30 == 0 { state >> 20 } else { state >> 27 & 31 };
        let (piece, later) = rest.split_at(rest.len().min(len as usize));
        buffer.extend_from_slice(piece);
        rest = later;
        let mut at = 0;
        loop {
            match frame(&buffer[at..], max_len) {
                Ok(Some(found)) => {
                    lengths.push(found.len);
                    at += found.len;
                }
                Ok(None) => break,
                Err(error) => return (lengths, Some(error)),
            }
        }
        buffer.drain(..at);
    }
    (lengths, None)
}

fn check_message(ctx: &SessionContext, found: &Frame<'_>, message: &[u8]) {
    let mut wire = Vec::new();
    match found.kind {
        MessageKind::Open => open(found.body),
        // The target `update` looks closer.
        MessageKind::Update => match UpdateView::parse(found.body, ctx) {
            Ok(update) => {
                let withdrawn = update.withdrawals().flat_map(|w| w.routes).count();
                let announced = update.announcements().flat_map(|a| a.routes).count();
                assert!(withdrawn + announced <= found.body.len());
            }
            Err(error) => check_error(&error, &[3]),
        },
        MessageKind::Notification => match Notification::decode(found.body) {
            Ok(notification) => {
                let _ = (notification.to_string(), notification.inner(), notification.is_hard_reset());
                if let Some(text) = notification.shutdown_text() {
                    assert!(!text.chars().any(char::is_control));
                }
                notification.encode(&mut wire);
                assert!(wire.len() <= MAX_LEN);
                assert!(message.len() > MAX_LEN || wire == message);
                let hard = notification.clone().into_hard_reset();
                assert!(message.len() > MAX_LEN - 2 || hard.inner() == Some(notification));
            }
            Err(_) => assert!(found.body.len() < 2),
        },
        MessageKind::Keepalive => {
            encode_keepalive(&mut wire);
            assert_eq!(wire, message);
        }
        MessageKind::RouteRefresh => {
            for enhanced in [true, false] {
                match RouteRefresh::decode(found.body, enhanced) {
                    Ok(Some(refresh)) => {
                        wire.clear();
                        refresh.encode(&mut wire);
                        let again = RouteRefresh::decode(&wire[HEADER_LEN..], enhanced);
                        assert_eq!(again, Ok(Some(refresh)));
                        assert!(enhanced || refresh.kind == RefreshKind::Request);
                    }
                    Ok(None) => assert!(enhanced),
                    Err(error) => check_error(&error, &[1, 7]),
                }
            }
        }
    }
}

/// A session, then an UPDATE body. Compares with a second, plain reading of the routes and attributes; then writes
/// what was accepted for the same session and reads it again.
pub fn update(data: &[u8]) {
    let Some((ctx, body)) = context(data) else { return };
    update_in(&ctx, body.get(..MAX_LEN_EXTENDED - HEADER_LEN).unwrap_or(body));
}

/// The same for any session; what is written goes back to ourselves, so path identifiers are sent as they are received.
pub fn update_in(ctx: &SessionContext, body: &[u8]) {
    let mut ctx = *ctx;
    for family in Family::ALL {
        let f = ctx.family_mut(family);
        f.add_path_tx = f.add_path_rx;
    }
    let ctx = &ctx;
    let update = match UpdateView::parse(body, ctx) {
        Ok(update) => update,
        Err(error) => return check_error(&error, &[3]),
    };
    let received = Received::read(body);
    check_routes(ctx, &received, &update);
    let mut discarded = Vec::new();
    for discard in update.discards() {
        assert!(!discard.to_string().is_empty());
        discarded.push(discard.code);
    }
    let mut canonical = Vec::new();
    match update.verdict() {
        Verdict::Ok => {
            update.attributes().write_canonical(&mut canonical);
            check_canonical(ctx, &received, &discarded, &canonical);
            check_edits(&canonical);
            for announcement in update.announcements() {
                check_announcement(ctx, announcement, &canonical);
            }
        }
        Verdict::TreatAsWithdraw(reason) => {
            assert!(!reason.to_string().is_empty());
            assert_eq!(update.announcements().count(), 0);
        }
    }
    for withdrawal in update.withdrawals() {
        let sent: Vec<Nlri> = withdrawal.routes.collect();
        let mut wire = Vec::new();
        let packed = UpdatePacker::new().withdraw(ctx, withdrawal.family, sent.iter().copied(), &mut wire);
        let bodies = bodies(&wire, ctx.max_len);
        assert_eq!(packed, Ok(bodies.len()));
        let mut got = Vec::new();
        for body in bodies {
            let update = UpdateView::parse(body, ctx).expect("our own withdrawal");
            assert_eq!((update.verdict(), update.end_of_rib()), (Verdict::Ok, None));
            assert_eq!(update.announcements().count(), 0);
            got.extend(update.withdrawals().flat_map(|w| w.routes));
        }
        assert_eq!(got, sent);
    }
    if let Some(family) = update.end_of_rib() {
        assert!(received.attrs.iter().map(|a| a.1).eq((body.len() > 4).then_some(code::MP_UNREACH_NLRI)));
        assert!(ctx.family(family).enabled && update.withdrawals().count() == 0);
        assert_eq!(update.announcements().count(), 0);
        let mut wire = Vec::new();
        encode_end_of_rib(family, &mut wire);
        let marker = UpdateView::parse(whole(&wire, MessageKind::Update, MAX_LEN), ctx).expect("a marker");
        assert_eq!(marker.end_of_rib(), Some(family));
    }
}

/// The three fields and the attributes, read the plain way. Only for bodies that the codec accepted.
struct Received<'a> {
    withdrawn: &'a [u8],
    nlri: &'a [u8],
    /// The first of each type, until the list breaks off: flags, type, value.
    attrs: Vec<(u8, u8, &'a [u8])>,
}

impl<'a> Received<'a> {
    fn read(body: &'a [u8]) -> Self {
        let number = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
        let withdrawn_end = 2 + number(0);
        let area_end = withdrawn_end + 2 + number(withdrawn_end);
        let mut area = &body[withdrawn_end + 2..area_end];
        let mut attrs: Vec<(u8, u8, &[u8])> = Vec::new();
        loop {
            let (flags, code, len, head) = match *area {
                [flags, code, hi, lo, ..] if flags & 0x10 != 0 => {
                    (flags, code, usize::from(u16::from_be_bytes([hi, lo])), 4)
                }
                [flags, code, len, ..] if flags & 0x10 == 0 => (flags, code, usize::from(len), 3),
                _ => break,
            };
            let Some(value) = area.get(head..head + len) else { break };
            if !attrs.iter().any(|a| a.1 == code) {
                attrs.push((flags, code, value));
            }
            area = &area[head + len..];
        }
        Self { withdrawn: &body[2..withdrawn_end], nlri: &body[area_end..], attrs }
    }

    fn value(&self, code: u8) -> Option<&'a [u8]> {
        self.attrs.iter().find(|a| a.1 == code).map(|a| a.2)
    }
}

/// Prefixes read the plain way; those that cannot be a destination are left out.
fn routes(ctx: &SessionContext, family: Family, mut bytes: &[u8]) -> Vec<Nlri> {
    let mut routes = Vec::new();
    let mut take = |len: usize| {
        let (head, rest) = bytes.split_at_checked(len)?;
        bytes = rest;
        Some(head)
    };
    while let Some(first) = take(1) {
        let mut len = first[0];
        let mut path_id = 0;
        if ctx.family(family).add_path_rx {
            let rest = take(3).expect("a whole path identifier");
            path_id = u32::from_be_bytes([first[0], rest[0], rest[1], rest[2]]);
            len = take(1).expect("a prefix after its path identifier")[0];
        }
        let mut bits = [0; 16];
        let octets = take(usize::from(len).div_ceil(8)).expect("a whole prefix");
        bits[..octets.len()].copy_from_slice(octets);
        let prefix = match family {
            Family::Ipv4Unicast => {
                let addr = Ipv4Addr::new(bits[0], bits[1], bits[2], bits[3]);
                Prefix::V4(Prefix4::new(addr, len).expect("at most 32 bits"))
            }
            Family::Ipv6Unicast => Prefix::V6(Prefix6::new(bits.into(), len).expect("at most 128 bits")),
        };
        if prefix.is_routable() {
            routes.push(Nlri { prefix, path_id });
        }
    }
    routes
}

/// The family and what follows it, when the attribute is one of a family in use.
fn multiprotocol<'a>(ctx: &SessionContext, value: Option<&'a [u8]>) -> Option<(Family, &'a [u8])> {
    let family = match value? {
        [0, 1, 1, ..] => Family::Ipv4Unicast,
        [0, 2, 1, ..] => Family::Ipv6Unicast,
        _ => return None,
    };
    ctx.family(family).enabled.then(|| (family, &value.unwrap_or_default()[3..]))
}

fn check_routes(ctx: &SessionContext, received: &Received<'_>, update: &UpdateView<'_>) {
    let v4 = ctx.family(Family::Ipv4Unicast).enabled;
    let plain = |bytes| if v4 { routes(ctx, Family::Ipv4Unicast, bytes) } else { Vec::new() };
    let mut withdrawn = plain(received.withdrawn);
    if let Some((family, nlri)) = multiprotocol(ctx, received.value(code::MP_UNREACH_NLRI)) {
        withdrawn.extend(routes(ctx, family, nlri));
    }
    let mut announced = plain(received.nlri);
    if let Some((family, rest)) = multiprotocol(ctx, received.value(code::MP_REACH_NLRI)) {
        announced.extend(routes(ctx, family, &rest[usize::from(rest[0]) + 2..]));
    }
    if update.verdict() != Verdict::Ok {
        withdrawn.append(&mut announced);
    }
    let got: Vec<Nlri> = update.withdrawals().flat_map(|w| w.routes).collect();
    assert_eq!(got, withdrawn);
    let got: Vec<Nlri> = update.announcements().flat_map(|a| a.routes).collect();
    assert_eq!(got, announced);
    for announcement in update.announcements() {
        assert_eq!(announcement.family, announcement.routes.family());
        let _ = announcement.routes.ignored();
    }
}

fn check_canonical(ctx: &SessionContext, received: &Received<'_>, discarded: &[u8], canonical: &[u8]) {
    let set = AttrSet::new(canonical);
    let attrs: Vec<_> = set.iter().collect();
    assert!(attrs.is_sorted_by(|a, b| a.code < b.code), "types in order, each once");
    let octets: usize = attrs.iter().map(|a| a.value.len() + if a.value.len() > 255 { 4 } else { 3 }).sum();
    assert_eq!(octets, canonical.len(), "whole attributes with the shortest lengths");
    for attr in &attrs {
        assert!(!matches!(attr.code, 0 | 3 | 14 | 15 | 17 | 18), "type {}", attr.code);
        assert_eq!(attr.flags & 0x1f, 0);
        assert!(!discarded.contains(&attr.code) || received.attrs.iter().any(|a| a.1 == attr.code));
        let was = received.value(attr.code).expect("only what was received");
        let rewritten = match attr.code {
            code::AS_PATH | code::AGGREGATOR => !ctx.as4,
            code::LARGE_COMMUNITIES => true,
            _ => false,
        };
        assert!(rewritten || attr.value == was, "type {}", attr.code);
    }
    for (flags, code, _) in &received.attrs {
        let carried = match *code {
            code::NEXT_HOP | code::MP_REACH_NLRI | code::MP_UNREACH_NLRI => false,
            code::AS4_PATH | code::AS4_AGGREGATOR => false,
            code::MED | code::ORIGINATOR_ID | code::CLUSTER_LIST => true,
            code::AIGP | code::BGP_LS => false,
            _ => flags & 0x40 != 0,
        };
        // A duplicate is discarded and the first one stands, so a discard alone does not say that it must be gone.
        let kept = set.find(*code).is_some();
        assert!(kept == carried || discarded.contains(code), "type {code}");
    }
    assert_eq!(set.med().is_some(), set.find(code::MED).is_some());
    assert_eq!(set.local_pref().is_some(), set.find(code::LOCAL_PREF).is_some());
    assert_eq!(set.originator_id().is_some(), set.find(code::ORIGINATOR_ID).is_some());
    assert_eq!(set.aggregator().is_some(), set.find(code::AGGREGATOR).is_some());
    assert!(set.aggregator().is_none_or(|(asn, _)| asn != 0));
    assert_eq!(set.communities().count() > 0, set.find(code::COMMUNITIES).is_some());
    assert_eq!(set.ext_communities().count() > 0, set.find(code::EXTENDED_COMMUNITIES).is_some());
    assert_eq!(set.cluster_list().len() > 0, set.find(code::CLUSTER_LIST).is_some());
    let large: Vec<_> = set.large_communities().collect();
    assert!(large.iter().enumerate().all(|(i, c)| !large[..i].contains(c)), "large communities are unique");
    let path = set.as_path();
    let octets: usize = path.segments().map(|s| 2 + 4 * s.len()).sum();
    assert_eq!(octets, path.as_bytes().len(), "whole segments");
    assert!(path.segments().all(|s| s.len() > 0) && path.length() <= path.asns().count());
    assert!(!path.asns().any(|asn| asn == 0));
    if ctx.is_external() {
        assert!(set.local_pref().is_none() && set.originator_id().is_none() && set.cluster_list().len() == 0);
        assert!(!path.segments().any(|s| s.kind.is_confed()));
    }
    assert!(!(ctx.reject_as_sets && path.has_set()));
    if let Some(was) = received.value(code::AS_PATH) {
        // With AS4_PATH or without (RFC 6793 §4.2.3); a path too long to be widened is left out.
        assert!(path.length() == path_length(was, ctx.as4) || (path.is_empty() && was.len() > 0x7f00));
    }
}

/// What a received AS_PATH counts: its sequences by number, a set as one, confederation segments as nothing.
fn path_length(mut path: &[u8], as4: bool) -> usize {
    let mut length = 0;
    while let [kind, count, rest @ ..] = path {
        let count = usize::from(*count);
        length += match kind {
            1 => 1,
            2 => count,
            _ => 0,
        };
        path = &rest[count * if as4 { 4 } else { 2 }..];
    }
    length
}

/// The edits of export rules, on attributes as received.
fn check_edits(canonical: &[u8]) {
    let set = AttrSet::new(canonical);
    let mut builder = AttrBuilder::from_set(set);
    let mut out = Vec::new();
    builder.write(&mut out).expect("unchanged attributes fit");
    assert_eq!(out, canonical);

    let asns: Vec<u32> = set.as_path().asns().collect();
    builder.prepend(64512, 3).add_community(7).for_external().strip_confed();
    out.clear();
    if builder.write(&mut out).is_err() {
        return;
    }
    let edited = AttrSet::new(&out);
    let kept = set.as_path().segments().filter(|s| !s.kind.is_confed()).flat_map(Segment::asns);
    assert!(edited.as_path().asns().eq([64512; 3].into_iter().chain(kept)));
    assert!(edited.has_community(7) && edited.local_pref().is_none());
    assert_eq!(edited.as_path().length(), set.as_path().length() + 3);

    let mut builder = AttrBuilder::from_set(set);
    builder.remove_private_as(None).replace_as(PEER_AS, 7).retain_communities(|c| c != 7);
    out.clear();
    builder.write(&mut out).expect("shorter attributes fit");
    let path = AttrSet::new(&out).as_path();
    assert!(path.asns().count() <= asns.len() && path.count(PEER_AS) == 0);
}

fn check_announcement(ctx: &SessionContext, announcement: Announcement<'_>, canonical: &[u8]) {
    if ctx.enforce_first_as && ctx.is_external() {
        assert_eq!(AttrSet::new(canonical).as_path().first_as(), Some(PEER_AS));
    }
    let Announcement { family, next_hop, routes } = announcement;
    let sent: Vec<Nlri> = routes.collect();
    let Some(first) = trip(ctx, family, next_hop, canonical, &sent) else { return };
    if ctx.as4 || same_path_after_a_narrow_trip(canonical) {
        assert_eq!(first, canonical);
        return;
    }
    // AS4_PATH has no confederation segments and its sequences may be joined: what counts stays, and a second trip
    // changes nothing.
    let (before, after) = (AttrSet::new(canonical), AttrSet::new(&first));
    let outside = |set: AttrSet<'_>| -> Vec<u32> {
        set.as_path().segments().filter(|s| !s.kind.is_confed()).flat_map(Segment::asns).collect()
    };
    assert_eq!(outside(before), outside(after));
    assert_eq!(before.as_path().length(), after.as_path().length());
    assert!(
        before
            .iter()
            .filter(|a| a.code != code::AS_PATH)
            .eq(after.iter().filter(|a| a.code != code::AS_PATH))
    );
    if let Some(second) = trip(ctx, family, next_hop, &first, &sent) {
        assert_eq!(second, first);
    }
}

/// Whether a 2-octet AS_PATH holds all of the path.
fn same_path_after_a_narrow_trip(canonical: &[u8]) -> bool {
    !AttrSet::new(canonical).as_path().asns().any(|asn| asn > 0xffff)
}

/// Writes routes and reads them back; the attributes that came back, `None` when they do not fit a message.
fn trip(
    ctx: &SessionContext,
    family: Family,
    next_hop: NextHop,
    canonical: &[u8],
    sent: &[Nlri],
) -> Option<Vec<u8>> {
    let mut wire = Vec::new();
    let mut packer = UpdatePacker::new();
    match packer.announce(ctx, family, canonical, next_hop, sent.iter().copied(), &mut wire) {
        Ok(count) => {
            let bodies = bodies(&wire, ctx.max_len);
            assert_eq!(bodies.len(), count);
            let mut got = Vec::new();
            let mut attrs = None;
            for body in bodies {
                let update = UpdateView::parse(body, ctx).expect("our own announcement");
                assert_eq!(update.verdict(), Verdict::Ok);
                assert_eq!((update.discards().count(), update.withdrawals().count()), (0, 0));
                for announcement in update.announcements() {
                    assert_eq!((announcement.family, announcement.next_hop), (family, next_hop));
                    got.extend(announcement.routes);
                }
                let mut canonical = Vec::new();
                update.attributes().write_canonical(&mut canonical);
                assert!(attrs.is_none() || attrs.as_ref() == Some(&canonical));
                attrs = Some(canonical);
            }
            assert_eq!(got, sent);
            attrs
        }
        Err(PackError::TooLarge { .. }) => {
            // Header, the two lengths, the MP_REACH_NLRI head, the longest next hop and prefix.
            let head = HEADER_LEN + 4 + 9 + 32 + 21 + 7;
            assert!(wire.is_empty() && 2 * canonical.len() + head > ctx.max_len);
            None
        }
        Err(error @ (PackError::NextHop { .. } | PackError::Family { .. })) => {
            panic!("{error} ({:?})", matches!(next_hop.addr, IpAddr::V4(_)))
        }
    }
}

/// The bodies of the UPDATEs in `wire`.
fn bodies(mut wire: &[u8], max_len: usize) -> Vec<&[u8]> {
    let mut bodies = Vec::new();
    while !wire.is_empty() {
        let found = frame(wire, max_len).expect("a good header").expect("a whole message");
        assert_eq!(found.kind, MessageKind::Update);
        bodies.push(found.body);
        wire = &wire[found.len..];
    }
    bodies
}
