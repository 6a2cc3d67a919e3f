use super::*;
use crate::context::{PeerKind, SessionContext};
use crate::prefix::{Family, Prefix4};
use crate::{HEADER_LEN, Nlri, UpdatePacker, UpdateView, Verdict};

type Segments<'a> = &'a [(u8, &'a [u32])];

fn path_bytes(segments: Segments<'_>, wide: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, asns) in segments {
        out.extend([*kind, u8::try_from(asns.len()).unwrap()]);
        for asn in *asns {
            if wide {
                out.extend(asn.to_be_bytes());
            } else {
                out.extend(u16::try_from(*asn).unwrap().to_be_bytes());
            }
        }
    }
    out
}

fn body(attrs: &[(u8, u8, Vec<u8>)]) -> Vec<u8> {
    let mut area = Vec::new();
    for (flags, code, value) in attrs {
        put_attr(&mut area, *flags, *code, value);
    }
    let mut body = vec![0, 0];
    body.extend(u16::try_from(area.len()).unwrap().to_be_bytes());
    body.extend(area);
    body.extend([24, 198, 51, 100]);
    body
}

/// What an old peer's AS_PATH and AS4_PATH become.
fn merged(path: Segments<'_>, as4: Segments<'_>) -> Vec<(u8, Vec<u32>)> {
    let mut ctx = SessionContext::new(PeerKind::Confederation);
    ctx.as4 = false;
    let body = body(&[
        (0x40, 1, vec![0]),
        (0x40, 2, path_bytes(path, false)),
        (0x40, 3, vec![192, 0, 2, 1]),
        (0xc0, 17, path_bytes(as4, true)),
    ]);
    let update = UpdateView::parse(&body, &ctx).unwrap();
    assert_eq!(update.verdict(), Verdict::Ok);
    let mut canonical = Vec::new();
    update.attributes().write_canonical(&mut canonical);
    let segments = AttrSet::new(&canonical).as_path().segments();
    segments.map(|s| (s.kind.code(), s.asns().collect())).collect()
}

const T: u32 = 23456;
const BIG: u32 = 4_200_000_001;

/// RFC 6793 §4.2.3.
#[test]
fn as4_path_replaces_the_far_end_of_the_path() {
    let cases: &[(&str, Segments<'_>, Segments<'_>, Segments<'_>)] = &[
        ("same length", &[(2, &[10, T])], &[(2, &[10, BIG])], &[(2, &[10, BIG])]),
        ("old speakers in front", &[(2, &[7, 8, 10, T])], &[(2, &[10, BIG])], &[(2, &[7, 8, 10, BIG])]),
        ("longer than the path", &[(2, &[T])], &[(2, &[10, BIG])], &[(2, &[T])]),
        (
            "a set counts one",
            &[(2, &[7, T]), (1, &[5, 6])],
            &[(2, &[BIG]), (1, &[5, BIG])],
            &[(2, &[7, BIG]), (1, &[5, BIG])],
        ),
        ("a set stays in front", &[(1, &[5, 6]), (2, &[T])], &[(2, &[BIG])], &[(1, &[5, 6]), (2, &[BIG])]),
        (
            "two sets in front",
            &[(1, &[5]), (1, &[6]), (2, &[T])],
            &[(2, &[BIG])],
            &[(1, &[5]), (1, &[6]), (2, &[BIG])],
        ),
        (
            "confederation in front",
            &[(3, &[65100]), (2, &[7, T])],
            &[(2, &[BIG])],
            &[(3, &[65100]), (2, &[7, BIG])],
        ),
        ("confederation in AS4_PATH", &[(2, &[7, T])], &[(3, &[9, 9, 9]), (2, &[BIG])], &[(2, &[7, BIG])]),
        ("only confederation in AS4_PATH", &[(2, &[7, T])], &[(3, &[9])], &[(2, &[7, T])]),
        ("segments split", &[(2, &[7]), (2, &[8, T])], &[(2, &[8, BIG])], &[(2, &[7, 8, BIG])]),
    ];
    for (name, path, as4, want) in cases {
        let want: Vec<(u8, Vec<u32>)> = want.iter().map(|(kind, asns)| (*kind, asns.to_vec())).collect();
        assert_eq!(merged(path, as4), want, "{name}");
    }
}

#[test]
fn joined_sequences_stay_within_a_segment() {
    let near: Vec<u32> = (1..=200).collect();
    let far: Vec<u32> = (1..=100).map(|n| BIG + n).collect();
    let short: Vec<u32> = vec![T; 100];
    let got = merged(&[(2, &near), (2, &short)], &[(2, &far)]);
    assert_eq!(got, [(2, near), (2, far)]);
}

#[test]
fn a_path_that_cannot_be_widened_is_withdrawn() {
    let mut ctx = SessionContext::new(PeerKind::External);
    ctx.as4 = false;
    let full: Vec<u32> = vec![7; 255];
    let segments: Vec<(u8, &[u32])> = vec![(2, &full); 70];
    let body =
        body(&[(0x40, 1, vec![0]), (0x40, 2, path_bytes(&segments, false)), (0x40, 3, vec![192, 0, 2, 1])]);
    let update = UpdateView::parse(&body, &ctx).unwrap();
    assert_eq!(update.verdict(), Verdict::TreatAsWithdraw(Reason { code: 2, fault: Fault::TooLong }));
    // Without routes there is nothing to withdraw, and nothing half-written either.
    let bare = UpdateView::parse(&body[..body.len() - 4], &ctx).unwrap();
    assert_eq!(bare.verdict(), Verdict::Ok);
    let mut canonical = Vec::new();
    bare.attributes().write_canonical(&mut canonical);
    assert_eq!(canonical, [0x40, 1, 1, 0]);
}

/// RFC 6793 §4.2.2, to the byte.
#[test]
fn an_old_peer_gets_two_octets_and_the_as4_attributes() {
    let mut builder = AttrBuilder::new();
    builder.origin(Origin::Igp).as_path(&[65001, BIG]).aggregator(BIG, [10, 0, 0, 1].into());
    builder.local_pref(Some(100)).add_large_community(LargeCommunity { global: 1, local1: 2, local2: 3 });
    let mut canonical = Vec::new();
    builder.write(&mut canonical).unwrap();
    let mut ctx = SessionContext::new(PeerKind::Internal);
    ctx.as4 = false;
    let mut wire = Vec::new();
    let route = Nlri::plain(Prefix4::DEFAULT);
    let hop = std::net::Ipv4Addr::new(192, 0, 2, 1).into();
    UpdatePacker::new().announce(&ctx, Family::Ipv4Unicast, &canonical, hop, [route], &mut wire).unwrap();
    let attrs: &[&[u8]] = &[
        &[0x40, 1, 1, 0],
        &[0x40, 2, 6, 2, 2, 0xfd, 0xe9, 0x5b, 0xa0],
        &[0x40, 3, 4, 192, 0, 2, 1],
        &[0x40, 5, 4, 0, 0, 0, 100],
        &[0xc0, 7, 6, 0x5b, 0xa0, 10, 0, 0, 1],
        &[0xc0, 17, 10, 2, 2, 0, 0, 0xfd, 0xe9, 0xfa, 0x56, 0xea, 1],
        &[0xc0, 18, 8, 0xfa, 0x56, 0xea, 1, 10, 0, 0, 1],
        &[0xc0, 32, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
    ];
    let attrs = attrs.concat();
    assert_eq!(wire[HEADER_LEN..HEADER_LEN + 4], [0, 0, 0, u8::try_from(attrs.len()).unwrap()]);
    assert_eq!(wire[HEADER_LEN + 4..wire.len() - 1], attrs);
    assert_eq!(wire.last(), Some(&0));
}

#[test]
fn a_small_path_needs_no_as4_attributes() {
    let mut builder = AttrBuilder::new();
    builder.origin(Origin::Igp).as_path(&[65001, 65002]).aggregator(65002, [10, 0, 0, 1].into());
    let mut canonical = Vec::new();
    builder.write(&mut canonical).unwrap();
    let mut wire = Vec::new();
    put_wire(&canonical, false, None, &mut wire);
    let codes: Vec<u8> = AttrSet::new(&wire).iter().map(|a| a.code).collect();
    assert_eq!(codes, [1, 2, 7]);
}

fn edited(edit: impl Fn(&mut AttrBuilder<'_>)) -> Vec<u8> {
    let mut path = AttrBuilder::new();
    path.origin(Origin::Egp).as_path(&[65001, 64512, 7, BIG]).local_pref(Some(200)).add_community(9);
    let mut bytes = Vec::new();
    path.write(&mut bytes).unwrap();
    let mut builder = AttrBuilder::from_set(AttrSet::new(&bytes));
    edit(&mut builder);
    let mut out = Vec::new();
    builder.write(&mut out).unwrap();
    out
}

fn asns(bytes: &[u8]) -> Vec<u32> {
    AttrSet::new(bytes).as_path().asns().collect()
}

#[test]
fn edits_change_what_they_name_and_nothing_else() {
    let untouched = edited(|_| {});
    assert_eq!(asns(&edited(|b| _ = b.prepend(1, 2))), [1, 1, 65001, 64512, 7, BIG]);
    assert_eq!(asns(&edited(|b| _ = b.prepend(1, 0))), [65001, 64512, 7, BIG]);
    assert_eq!(asns(&edited(|b| _ = b.replace_as(7, 8))), [65001, 64512, 8, BIG]);
    assert_eq!(asns(&edited(|b| _ = b.remove_private_as(None))), [7]);
    assert_eq!(asns(&edited(|b| _ = b.remove_private_as(Some(65001)))), [65001, 7]);
    assert_eq!(
        asns(&edited(|b| _ = b.prepend_confed(65100, 1).prepend_confed(65101, 1))),
        [65101, 65100, 65001, 64512, 7, BIG]
    );
    assert_eq!(edited(|b| _ = b.prepend_confed(65100, 3).strip_confed()), untouched);
    assert_eq!(edited(|b| _ = b.med(Some(5)).med(None).add_community(9)), untouched);

    let out = edited(|b| {
        b.add_community(3).add_community(3).add_large_community(LargeCommunity {
            global: 1,
            local1: 0,
            local2: 0,
        });
        b.originator_id_if_absent([10, 0, 0, 1].into()).originator_id_if_absent([10, 0, 0, 2].into());
        b.prepend_cluster_id([1, 1, 1, 1].into()).prepend_cluster_id([2, 2, 2, 2].into());
        b.med(Some(5)).local_pref(Some(7)).atomic_aggregate(true).aggregator(BIG, [9, 9, 9, 9].into());
        b.add_ext_community([0x40, 4, 0, 0, 0, 0, 0, 1]).add_ext_community([0, 2, 0, 0, 0, 0, 0, 1]);
    });
    let set = AttrSet::new(&out);
    assert!(set.iter().map(|a| a.code).eq([1, 2, 4, 5, 6, 7, 8, 9, 10, 16, 32]));
    assert_eq!(set.origin(), Origin::Egp);
    assert_eq!((set.med(), set.local_pref(), set.atomic_aggregate()), (Some(5), Some(7), true));
    assert_eq!(set.aggregator(), Some((BIG, [9, 9, 9, 9].into())));
    assert!(set.communities().eq([9, 3]) && set.has_community(3) && !set.has_community(4));
    assert_eq!(set.originator_id(), Some([10, 0, 0, 1].into()));
    assert!(set.cluster_list().map(|c| c.octets()[0]).eq([2, 1]));

    let mut external = AttrBuilder::from_set(set);
    external.for_external();
    let mut bytes = Vec::new();
    external.write(&mut bytes).unwrap();
    let set = AttrSet::new(&bytes);
    assert!(set.iter().map(|a| a.code).eq([1, 2, 4, 6, 7, 8, 16, 32]));
    assert!(set.ext_communities().eq([[0, 2, 0, 0, 0, 0, 0, 1]]));

    let gone = edited(|b| _ = b.retain_communities(|c| c != 9));
    assert!(AttrSet::new(&gone).find(code::COMMUNITIES).is_none());
}

#[test]
fn a_path_too_long_for_an_attribute_is_refused() {
    let mut builder = AttrBuilder::new();
    builder.prepend(65001, 16_300);
    assert!(builder.write(&mut Vec::new()).is_ok());
    builder.prepend(65001, 100);
    let error = builder.write(&mut Vec::new()).unwrap_err();
    assert_eq!(error.code, code::AS_PATH);
}

#[test]
fn path_questions_follow_the_segments() {
    let bytes = path_bytes(&[(3, &[65100, 65101]), (2, &[1, 2]), (1, &[3, 4, 5]), (2, &[6])], true);
    let path = AsPath::new(&bytes);
    assert_eq!(path.length(), 4);
    assert_eq!((path.first_as(), path.origin_as()), (Some(1), Some(6)));
    assert_eq!((path.count(4), path.count(65100), path.count(9)), (1, 1, 0));
    assert!(path.has_set());
    let set_first = path_bytes(&[(1, &[3, 4])], true);
    assert_eq!(AsPath::new(&set_first).first_as(), None);
    assert_eq!(AsPath::new(&[]).first_as(), None);
    assert!(AsPath::new(&[]).is_empty());
}
