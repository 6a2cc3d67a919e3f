//! Properties: what is written is read back, no input panics, no packed message is too long.

#![expect(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use bird_packet::attr::{AttrBuilder, AttrSet, Segment};
use bird_packet::{
    AddPath, AfiSafi, Capability, ExtendedNextHop, Family, GrFamily, GracefulRestart, HEADER_LEN, LlgrFamily,
    MAX_LEN, MAX_LEN_EXTENDED, MessageKind, NextHop, Nlri, Notification, OpenMessage, Origin, PackError,
    PathsLimit, PeerKind, Prefix, Prefix4, Prefix6, RefreshKind, RouteRefresh, UpdatePacker, UpdateView,
    Verdict, encode_end_of_rib, encode_keepalive, frame,
};
use common::{Edits, attribute_soup, edits, next_hop, nlri, session};
use proptest::collection::vec;
use proptest::prelude::*;

fn family_bytes() -> impl Strategy<Value = AfiSafi> {
    prop_oneof![
        Just(Family::Ipv4Unicast.into()),
        Just(Family::Ipv6Unicast.into()),
        (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| AfiSafi { afi, safi }),
    ]
}

fn capability() -> impl Strategy<Value = Capability> {
    let gr_family = (family_bytes(), any::<bool>())
        .prop_map(|(family, forwarding_kept)| GrFamily { family, forwarding_kept });
    let llgr_family = (family_bytes(), any::<bool>(), 0u32..=0xff_ffff)
        .prop_map(|(family, forwarding_kept, stale_time)| LlgrFamily { family, forwarding_kept, stale_time });
    let paths_limit = (family_bytes(), any::<u16>()).prop_map(|(family, limit)| PathsLimit { family, limit });
    let add_path = (family_bytes(), 1u8..=3).prop_map(|(family, mode)| AddPath {
        family,
        receive: mode & 1 != 0,
        send: mode & 2 != 0,
    });
    let ext_nexthop = (family_bytes(), any::<u16>())
        .prop_map(|(family, next_hop_afi)| ExtendedNextHop { family, next_hop_afi });
    prop_oneof![
        family_bytes().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        Just(Capability::ExtendedMessage),
        Just(Capability::EnhancedRouteRefresh),
        Just(Capability::BfdStrict),
        any::<u8>().prop_map(Capability::Role),
        (1u32..).prop_map(Capability::FourOctetAs),
        vec(ext_nexthop, 0..5).prop_map(Capability::ExtendedNextHop),
        vec(add_path, 0..5).prop_map(Capability::AddPath),
        vec(llgr_family, 0..5).prop_map(Capability::LongLivedGracefulRestart),
        vec(paths_limit, 0..5).prop_map(Capability::PathsLimit),
        (any::<bool>(), any::<bool>(), 0u16..4096, vec(gr_family, 0..5)).prop_map(
            |(restarting, notification, restart_time, families)| {
                Capability::GracefulRestart(GracefulRestart {
                    restarting,
                    notification,
                    restart_time,
                    families,
                })
            }
        ),
        (vec(any::<u8>(), 0..120), vec(any::<u8>(), 0..120))
            .prop_map(|(host, domain)| Capability::Fqdn { host, domain }),
        (128u8.., vec(any::<u8>(), 0..255)).prop_map(|(code, value)| Capability::Unknown { code, value }),
    ]
}

fn messages(wire: &[u8], max_len: usize) -> Vec<&[u8]> {
    let mut rest = wire;
    let mut bodies = Vec::new();
    while !rest.is_empty() {
        let frame = frame(rest, max_len).unwrap().expect("whole messages");
        assert_eq!(frame.kind, MessageKind::Update);
        bodies.push(frame.body);
        rest = &rest[frame.len..];
    }
    bodies
}

/// 256 cases, or as many as `PROPTEST_CASES` says; failures are printed, not written to files.
fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_open_is_read_back(
        asn in 1u32.., hold in prop_oneof![Just(0u16), 3u16..], id in 1u32..,
        mut capabilities in vec(capability(), 0..12),
    ) {
        capabilities.retain(|c| !matches!(c, Capability::FourOctetAs(_)));
        capabilities.push(Capability::FourOctetAs(asn));
        let sent = OpenMessage { version: 4, asn, hold_time: hold, router_id: Ipv4Addr::from_bits(id), capabilities };
        let mut wire = Vec::new();
        sent.encode(&mut wire);
        let frame = frame(&wire, MAX_LEN).unwrap().unwrap();
        prop_assert_eq!((frame.kind, frame.len), (MessageKind::Open, wire.len()));
        prop_assert_eq!(OpenMessage::decode(frame.body), Ok(sent));
    }

    #[test]
    fn routes_are_read_back_and_no_message_is_too_long(
        edits in edits(),
        next_hop in next_hop(),
        (as4, add_path, ext_nexthop, extended) in any::<(bool, bool, bool, bool)>(),
        (family, routes) in prop_oneof![Just(Family::Ipv4Unicast), Just(Family::Ipv6Unicast)]
            .prop_flat_map(|f| (Just(f), vec(nlri(f), 1..1500))),
    ) {
        let max_len = if extended { MAX_LEN_EXTENDED } else { MAX_LEN };
        let ctx = session(as4, add_path, ext_nexthop, max_len);
        let attrs = edits.canonical();
        let mut out = b"before".to_vec();
        let mut packer = UpdatePacker::new();
        match packer.announce(&ctx, family, &attrs, next_hop, routes.iter().copied(), &mut out) {
            Err(error) => {
                prop_assert_eq!(&out, b"before");
                match error {
                    PackError::NextHop { .. } => prop_assert!(next_hop.addr.is_ipv4() || !ext_nexthop),
                    PackError::TooLarge { .. } => prop_assert!(attrs.len() > 3000),
                    PackError::Family { .. } => prop_assert!(false, "same family"),
                }
            }
            Ok(count) => {
                let bodies = messages(&out[6..], max_len);
                prop_assert_eq!(bodies.len(), count);
                let mut got = Vec::new();
                for body in &bodies {
                    let update = UpdateView::parse(body, &ctx).unwrap();
                    prop_assert_eq!(update.verdict(), Verdict::Ok);
                    prop_assert_eq!(update.discards().count(), 0);
                    prop_assert_eq!(update.withdrawals().count(), 0);
                    let mut canonical = Vec::new();
                    update.attributes().write_canonical(&mut canonical);
                    prop_assert_eq!(&canonical, &attrs);
                    for announcement in update.announcements() {
                        prop_assert_eq!(announcement.family, family);
                        prop_assert_eq!(announcement.next_hop, next_hop);
                        got.extend(announcement.routes);
                    }
                }
                prop_assert_eq!(got, without_ids(&routes, add_path));
                // Greedy: no message could have taken the first route of the next one.
                for pair in bodies.windows(2) {
                    prop_assert!(pair[0].len() + HEADER_LEN + 21 > max_len);
                }
            }
        }
        let mut out = Vec::new();
        let count = packer.withdraw(&ctx, family, routes.iter().copied(), &mut out).unwrap();
        let bodies = messages(&out, max_len);
        prop_assert_eq!(bodies.len(), count);
        let mut got = Vec::new();
        for body in bodies {
            let update = UpdateView::parse(body, &ctx).unwrap();
            prop_assert_eq!(update.announcements().count(), 0);
            prop_assert_eq!(update.end_of_rib(), None);
            got.extend(update.withdrawals().flat_map(|w| w.routes));
        }
        prop_assert_eq!(got, without_ids(&routes, add_path));
    }

    /// A default route in front of others must never be taken for a path identifier.
    #[test]
    fn a_leading_default_route_is_not_a_path_identifier(
        routes in vec((0u32..1 << 24, 8u8..=32), 1..6),
    ) {
        let mut expected = vec![Prefix4::DEFAULT];
        expected.extend(routes.iter().map(|(a, len)| Prefix4::new(Ipv4Addr::from_bits(10 << 24 | a), *len).unwrap()));
        let mut out = Vec::new();
        let ctx = session(true, false, false, MAX_LEN);
        let attrs = AttrBuilder::new().origin(Origin::Igp).as_path(&[65001]).clone();
        let mut canonical = Vec::new();
        attrs.write(&mut canonical).unwrap();
        let nlri = expected.iter().map(|p| Nlri::plain(*p));
        let hop = Ipv4Addr::new(192, 0, 2, 1).into();
        UpdatePacker::new().announce(&ctx, Family::Ipv4Unicast, &canonical, hop, nlri, &mut out).unwrap();
        let update = UpdateView::parse(&out[HEADER_LEN..], &ctx).unwrap();
        let got: Vec<Prefix> = update.announcements().flat_map(|a| a.routes).map(|n| n.prefix).collect();
        prop_assert_eq!(got, expected.into_iter().map(Prefix::from).collect::<Vec<_>>());
    }

    #[test]
    fn canonical_attributes_survive_another_hop(body in attribute_soup(), as4 in any::<bool>()) {
        let ctx = session(as4, false, false, MAX_LEN_EXTENDED);
        let Ok(update) = UpdateView::parse(&body, &ctx) else { return Ok(()) };
        if update.verdict() != Verdict::Ok || update.announcements().count() == 0 {
            return Ok(());
        }
        let mut first = Vec::new();
        update.attributes().write_canonical(&mut first);
        let mut wire = Vec::new();
        let hop = Ipv4Addr::new(192, 0, 2, 1).into();
        let route = Nlri::plain(Prefix4::DEFAULT);
        UpdatePacker::new().announce(&ctx, Family::Ipv4Unicast, &first, hop, [route], &mut wire).unwrap();
        let again = UpdateView::parse(&wire[HEADER_LEN..], &ctx).unwrap();
        prop_assert_eq!(again.verdict(), Verdict::Ok);
        let mut second = Vec::new();
        again.attributes().write_canonical(&mut second);
        if as4 {
            prop_assert_eq!(first, second);
        } else {
            // Segments may be joined on the way, and AS4_PATH has no confederation segments.
            let path = |bytes| {
                let segments = AttrSet::new(bytes).as_path().segments();
                segments.filter(|s| !s.kind.is_confed()).flat_map(Segment::asns).collect::<Vec<_>>()
            };
            prop_assert_eq!(path(&first), path(&second));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        devour(&bytes);
    }

    #[test]
    fn attribute_soup_never_panics(body in attribute_soup()) {
        devour(&body);
    }

    #[test]
    fn mutated_messages_never_panic(
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        for message in samples() {
            let mut bytes = message.clone();
            for (at, value) in &flips {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            devour(&bytes);
            devour(&bytes[HEADER_LEN..]);
            bytes.truncate(cut.index(bytes.len()));
            devour(&bytes);
        }
    }

    #[test]
    fn edits_of_any_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), asn in any::<u32>(), times in 0usize..600) {
        let mut builder = AttrBuilder::from_set(AttrSet::new(&bytes));
        builder.prepend(asn, times).replace_as(asn, 7).remove_private_as(None).strip_confed();
        builder.add_community(1).add_large_community("1:2:3".parse().unwrap()).for_external();
        let mut out = Vec::new();
        builder.write(&mut out).unwrap();
        let path = AttrSet::new(&out).as_path();
        prop_assert!(path.length() <= path.asns().count());
    }

    #[test]
    fn prepending_adds_exactly_so_many(path in vec(1u32..60_000, 0..300), times in 0usize..600) {
        let mut builder = AttrBuilder::new();
        builder.as_path(&path).prepend(65001, times);
        let mut out = Vec::new();
        builder.write(&mut out).unwrap();
        let mut expected = vec![65001; times];
        expected.extend(&path);
        let got = AttrSet::new(&out).as_path();
        prop_assert_eq!(got.asns().collect::<Vec<_>>(), expected);
        prop_assert_eq!(got.length(), times + path.len());
    }
}

#[test]
fn a_stream_is_framed_the_same_however_it_is_split() {
    let stream = samples().concat();
    let whole: Vec<usize> = split_stream(&stream, stream.len());
    assert_eq!(whole.len(), samples().len());
    for chunk in 1..stream.len() {
        assert_eq!(split_stream(&stream, chunk), whole, "chunks of {chunk}");
    }
}

#[test]
fn end_of_rib_is_seen_for_its_family_and_nothing_else() {
    let ctx = session(true, false, false, MAX_LEN);
    for family in Family::ALL {
        let mut wire = Vec::new();
        encode_end_of_rib(family, &mut wire);
        let update = UpdateView::parse(&wire[HEADER_LEN..], &ctx).unwrap();
        assert_eq!(update.end_of_rib(), Some(family));
        let mut deaf = ctx;
        deaf.family_mut(family).enabled = false;
        assert_eq!(UpdateView::parse(&wire[HEADER_LEN..], &deaf).unwrap().end_of_rib(), None);
    }
    let long_form = [0, 0, 0, 7, 0x90, 15, 0, 3, 0, 1, 1];
    assert_eq!(UpdateView::parse(&long_form, &ctx).unwrap().end_of_rib(), Some(Family::Ipv4Unicast));
    let with_more = [0, 0, 0, 10, 0x80, 15, 3, 0, 2, 1, 0x40, 1, 1, 0];
    assert_eq!(UpdateView::parse(&with_more, &ctx).unwrap().end_of_rib(), None);
}

fn without_ids(routes: &[Nlri], add_path: bool) -> Vec<Nlri> {
    routes.iter().map(|n| if add_path { *n } else { Nlri::plain(n.prefix) }).collect()
}

/// One valid message of every kind and shape.
fn samples() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut add = |fill: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        fill(&mut bytes);
        all.push(bytes);
    };
    let open = OpenMessage {
        version: 4,
        asn: 4_200_000_001,
        hold_time: 90,
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv4Unicast.into()),
            Capability::Multiprotocol(Family::Ipv6Unicast.into()),
            Capability::FourOctetAs(4_200_000_001),
            Capability::AddPath(vec![AddPath {
                family: Family::Ipv4Unicast.into(),
                receive: true,
                send: true,
            }]),
            Capability::GracefulRestart(GracefulRestart {
                restart_time: 120,
                families: vec![GrFamily { family: Family::Ipv4Unicast.into(), forwarding_kept: true }],
                ..GracefulRestart::default()
            }),
            Capability::Fqdn { host: b"node-1".to_vec(), domain: Vec::new() },
        ],
    };
    add(&|out| open.encode(out));
    let mut long = open.clone();
    long.capabilities.push(Capability::Unknown { code: 200, value: vec![1; 250] });
    add(&|out| long.encode(out));
    add(&|out| encode_keepalive(out));
    add(&|out| Notification::with_data(6, 2, b"\x03bye").encode(out));
    add(&|out| {
        RouteRefresh { family: Family::Ipv6Unicast.into(), kind: RefreshKind::Begin }.encode(out);
    });
    for family in Family::ALL {
        add(&|out| encode_end_of_rib(family, out));
    }
    let edits = Edits {
        origin: 0,
        path: vec![65001, 4_200_000_001, 65002],
        med: Some(5),
        local_pref: Some(100),
        communities: vec![1, 2, 3],
        ext: vec![[0, 2, 0, 1, 0, 0, 0, 1]],
        large: vec![[7; 12], [8; 12]],
        clusters: vec![1, 2],
        aggregator: Some((4_200_000_001, 1)),
        atomic: true,
    };
    let v4: Vec<_> =
        (0..40u8).map(|i| Nlri::plain(Prefix4::new([10, i, 0, 0].into(), 16 + i % 9).unwrap())).collect();
    let v6: Vec<_> = (0..40u8)
        .map(|i| {
            Nlri::plain(Prefix6::new(Ipv6Addr::from_bits(0xfd << 120 | u128::from(i) << 64), 60 + i).unwrap())
        })
        .collect();
    for as4 in [true, false] {
        let ctx = session(as4, false, true, MAX_LEN);
        let mut packer = UpdatePacker::new();
        let mut out = Vec::new();
        let attrs = edits.canonical();
        let hop6: NextHop = Ipv6Addr::from_bits(0x2001_0db8 << 96 | 1).into();
        packer
            .announce(
                &ctx,
                Family::Ipv4Unicast,
                &attrs,
                Ipv4Addr::new(192, 0, 2, 1).into(),
                v4.clone(),
                &mut out,
            )
            .unwrap();
        all.push(std::mem::take(&mut out));
        packer.announce(&ctx, Family::Ipv4Unicast, &attrs, hop6, v4.clone(), &mut out).unwrap();
        all.push(std::mem::take(&mut out));
        packer.announce(&ctx, Family::Ipv6Unicast, &attrs, hop6, v6.clone(), &mut out).unwrap();
        all.push(std::mem::take(&mut out));
        packer.withdraw(&ctx, Family::Ipv4Unicast, v4.clone(), &mut out).unwrap();
        all.push(std::mem::take(&mut out));
        packer.withdraw(&ctx, Family::Ipv6Unicast, v6.clone(), &mut out).unwrap();
        all.push(std::mem::take(&mut out));
    }
    all
}

/// Everything a receiver could do with bytes, on every kind of session.
fn devour(bytes: &[u8]) {
    let _ = frame(bytes, MAX_LEN).map(|f| f.map(|f| assert!(f.len <= bytes.len() && f.body.len() < f.len)));
    let _ = OpenMessage::decode(bytes).map(|open| {
        let mut out = Vec::new();
        open.encode(&mut out);
        assert!(out.len() <= MAX_LEN);
    });
    let _ = Notification::decode(bytes).map(|n| n.to_string());
    let _ = RouteRefresh::decode(bytes, true);
    for kind in [PeerKind::External, PeerKind::Internal, PeerKind::Confederation] {
        for bits in 0u8..8 {
            let mut ctx = session(bits & 1 != 0, bits & 2 != 0, bits & 4 != 0, MAX_LEN);
            ctx.kind = kind;
            let Ok(update) = UpdateView::parse(bytes, &ctx) else { continue };
            let announced = update.announcements().flat_map(|a| a.routes).count();
            let withdrawn = update.withdrawals().flat_map(|w| w.routes).count();
            assert!(announced + withdrawn <= bytes.len());
            let mut canonical = Vec::new();
            update.attributes().write_canonical(&mut canonical);
            let set = AttrSet::new(&canonical);
            let codes: Vec<u8> = set.iter().map(|a| a.code).collect();
            assert_eq!(codes.len(), codes.iter().collect::<BTreeSet<_>>().len());
            assert!(codes.is_sorted());
            let consumed: usize =
                set.iter().map(|a| a.value.len() + if a.value.len() > 255 { 4 } else { 3 }).sum();
            assert_eq!(consumed, canonical.len(), "canonical bytes are whole attributes");
            let _ = (set.origin(), set.as_path().length(), set.as_path().first_as(), set.aggregator());
            let _ = (set.communities().count(), set.large_communities().count(), set.cluster_list().len());
            let _ = update.discards().map(|d| d.to_string()).collect::<Vec<_>>();
        }
    }
}

fn split_stream(stream: &[u8], chunk: usize) -> Vec<usize> {
    let mut buffer = Vec::new();
    let mut lengths = Vec::new();
    for part in stream.chunks(chunk) {
        buffer.extend_from_slice(part);
        while let Some(frame) = frame(&buffer, MAX_LEN).unwrap() {
            let len = frame.len;
            lengths.push(len);
            buffer.drain(..len);
        }
    }
    assert!(buffer.is_empty());
    lengths
}
