//! Properties: what is written is read back, no input panics, no packed message is too long.

#![expect(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bird_packet::attr::{AttrBuilder, AttrSet, Segment};
use bird_packet::{
    AddPath, AfiSafi, Capability, ExtendedNextHop, Family, GrFamily, GracefulRestart, HEADER_LEN,
    LargeCommunity, LlgrFamily, MAX_LEN, MAX_LEN_EXTENDED, MessageKind, NextHop, Nlri, Notification,
    OpenMessage, Origin, PackError, PeerKind, Prefix, Prefix4, Prefix6, RefreshKind, RouteRefresh,
    SessionContext, UpdatePacker, UpdateView, Verdict, encode_end_of_rib, encode_keepalive, frame,
};
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
        any::<u8>().prop_map(Capability::Role),
        (1u32..).prop_map(Capability::FourOctetAs),
        vec(ext_nexthop, 0..5).prop_map(Capability::ExtendedNextHop),
        vec(add_path, 0..5).prop_map(Capability::AddPath),
        vec(llgr_family, 0..5).prop_map(Capability::LongLivedGracefulRestart),
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

fn prefix4() -> impl Strategy<Value = Prefix4> {
    let first = prop_oneof![1u32..127, 128u32..224];
    let any = (first, 0u32..1 << 24, 1u8..=32).prop_map(|(first, rest, len)| {
        // A short length must not leave 0/8 or 224/4 behind.
        Prefix4::new(Ipv4Addr::from_bits(first << 24 | rest), len)
            .filter(|p| p.is_routable())
            .unwrap_or(Prefix4::DEFAULT)
    });
    prop_oneof![9 => any, 1 => Just(Prefix4::DEFAULT)]
}

fn prefix6() -> impl Strategy<Value = Prefix6> {
    (any::<u128>(), 0u8..=128)
        .prop_map(|(bits, len)| Prefix6::new(Ipv6Addr::from_bits(bits >> 2 | 1 << 125), len).unwrap())
}

fn nlri(family: Family) -> BoxedStrategy<Nlri> {
    match family {
        Family::Ipv4Unicast => {
            (prefix4(), any::<u32>()).prop_map(|(p, path_id)| Nlri { prefix: p.into(), path_id }).boxed()
        }
        Family::Ipv6Unicast => {
            (prefix6(), any::<u32>()).prop_map(|(p, path_id)| Nlri { prefix: p.into(), path_id }).boxed()
        }
    }
}

#[derive(Clone, Debug)]
struct Edits {
    origin: u8,
    path: Vec<u32>,
    med: Option<u32>,
    local_pref: Option<u32>,
    communities: Vec<u32>,
    ext: Vec<[u8; 8]>,
    large: Vec<[u8; 12]>,
    clusters: Vec<u32>,
    aggregator: Option<(u32, u32)>,
    atomic: bool,
}

fn edits() -> impl Strategy<Value = Edits> {
    let asn = prop_oneof![1u32..70_000, 1u32.., Just(23456)];
    (
        (0u8..3, vec(asn.clone(), 0..400), any::<Option<u32>>(), any::<Option<u32>>(), any::<bool>()),
        (
            vec(any::<u32>(), 0..80),
            vec(any::<[u8; 8]>(), 0..40),
            vec(any::<[u8; 12]>(), 0..30),
            vec(any::<u32>(), 0..5),
        ),
        proptest::option::of((asn, any::<u32>())),
    )
        .prop_map(
            |((origin, path, med, local_pref, atomic), (communities, ext, large, clusters), aggregator)| {
                Edits { origin, path, med, local_pref, communities, ext, large, clusters, aggregator, atomic }
            },
        )
}

impl Edits {
    fn canonical(&self) -> Vec<u8> {
        let mut builder = AttrBuilder::new();
        let origin = [Origin::Igp, Origin::Egp, Origin::Incomplete][usize::from(self.origin)];
        builder.origin(origin).as_path(&self.path).med(self.med).local_pref(self.local_pref);
        builder.atomic_aggregate(self.atomic);
        for c in &self.communities {
            builder.add_community(*c);
        }
        for c in &self.ext {
            builder.add_ext_community(*c);
        }
        for c in &self.large {
            builder.add_large_community(LargeCommunity::from_bytes(*c));
        }
        for c in &self.clusters {
            builder.prepend_cluster_id(Ipv4Addr::from_bits(*c));
        }
        if let Some((asn, id)) = self.aggregator {
            builder.aggregator(asn, Ipv4Addr::from_bits(id));
        }
        let mut out = Vec::new();
        builder.write(&mut out).unwrap();
        out
    }
}

/// An internal session, seen from both ends at once.
fn session(as4: bool, add_path: bool, ext_nexthop: bool, max_len: usize) -> SessionContext {
    let mut ctx = SessionContext::new(PeerKind::Internal);
    ctx.as4 = as4;
    ctx.max_len = max_len;
    for family in Family::ALL {
        let f = ctx.family_mut(family);
        (f.enabled, f.add_path_rx, f.add_path_tx, f.ext_nexthop) = (true, add_path, add_path, ext_nexthop);
    }
    ctx
}

fn next_hop() -> impl Strategy<Value = NextHop> {
    prop_oneof![
        (1u32 << 24..127 << 24).prop_map(|a| Ipv4Addr::from_bits(a).into()),
        any::<u64>().prop_map(|a| Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(a)).into()),
        any::<u64>().prop_map(|a| NextHop {
            addr: IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(a))),
            link_local: Some(Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(a))),
        }),
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

/// UPDATE bodies with attributes that are mostly framed right and often otherwise wrong.
fn attribute_soup() -> impl Strategy<Value = Vec<u8>> {
    let path = vec((1u8..=4, vec(1u32..80_000, 1..6)), 0..5).prop_map(|segments| {
        let mut value = Vec::new();
        for (kind, asns) in segments {
            value.extend([kind, u8::try_from(asns.len()).unwrap()]);
            value.extend(asns.iter().flat_map(|a| a.to_be_bytes()));
        }
        value
    });
    let narrow = vec((1u8..=4, vec(1u16.., 1..6)), 0..5).prop_map(|segments| {
        let mut value = Vec::new();
        for (kind, asns) in segments {
            value.extend([kind, u8::try_from(asns.len()).unwrap()]);
            value.extend(asns.iter().flat_map(|a| a.to_be_bytes()));
        }
        value
    });
    let good = prop_oneof![
        Just((0xc0u8, 8u8, vec![0, 1, 0, 2])),
        vec(any::<[u8; 12]>(), 1..8).prop_map(|c| (0xc0, 32, c.concat())),
        vec(0u8..3, 1..4).prop_map(|c| (0xe0, 32, c.iter().flat_map(|b| [*b; 12]).collect())),
        path.clone().prop_map(|p| (0xc0, 17, p)),
        (1u16.., any::<u32>()).prop_map(|(a, id)| (
            0xc0,
            7,
            [&a.to_be_bytes()[..], &id.to_be_bytes()].concat()
        )),
        (1u32.., any::<u32>()).prop_map(|(a, id)| (0xc0, 7, [a.to_be_bytes(), id.to_be_bytes()].concat())),
        (1u32.., any::<u32>()).prop_map(|(a, id)| (0xc0, 18, [a.to_be_bytes(), id.to_be_bytes()].concat())),
        any::<[u8; 4]>().prop_map(|v| (0x80, 4, v.to_vec())),
        any::<[u8; 4]>().prop_map(|v| (0x40, 5, v.to_vec())),
        (19u8.., vec(any::<u8>(), 0..300)).prop_map(|(code, v)| (0xc0, code, v)),
    ];
    let bad = (any::<u8>(), 0u8..45, vec(any::<u8>(), 0..40));
    let attr = prop_oneof![6 => good, 1 => bad];
    let head = prop_oneof![4 => path.prop_map(Some), 4 => narrow.prop_map(Some), 1 => Just(None)];
    (head, vec(attr, 0..8), vec(any::<u8>(), 0..6), 0u8..10).prop_map(|(path, attrs, tail, slip)| {
        let mut area = vec![0x40, 1, 1, 0, 0x40, 3, 4, 192, 0, 2, 1];
        let mut put = |flags: u8, code: u8, value: &[u8]| {
            area.extend([flags | 0x10, code]);
            area.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            area.extend(value);
        };
        if let Some(path) = path {
            put(0x40, 2, &path);
        }
        for (flags, code, value) in attrs {
            put(flags, code, &value);
        }
        if slip == 0 {
            area.extend(tail);
        }
        let mut body = vec![0, 0];
        body.extend(u16::try_from(area.len()).unwrap().to_be_bytes());
        body.extend(area);
        body.extend([24, 198, 51, 100]);
        body
    })
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
