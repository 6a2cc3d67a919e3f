//! The decoder against bgp-rs 0.6.0, which is behind `catch_unwind` because valid input can make it panic.
//!
//! It judges nothing (RFC 7606) and guesses ADD-PATH for IPv4 announcements. So only what we accept whole is compared,
//! without ADD-PATH and without a default route in front; what else it reads differently is named where it is left out.
//! Each test counts what it compared, so that it cannot pass on nothing.

#![expect(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

#[path = "../../../bird/packet/tests/common/mod.rs"]
mod common;

use std::cell::Cell;
use std::io::Cursor;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic::catch_unwind;

use bgp_rs::{
    ASPath, Capabilities, Message, NLRIEncoding, Origin as TheirOrigin, PathAttribute, Reader, Segment,
};
use bird_packet::attr::{AttrSet, code};
use bird_packet::{Family, HEADER_LEN, MAX_LEN_EXTENDED, NextHop, Prefix, UpdatePacker, UpdateView};
use common::said::{Said, dedup, ours};
use common::{attribute_soup, edits, next_hop, nlri, session};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// What bgp-rs reads; `None` when it refuses or panics.
fn theirs(body: &[u8], as4: bool) -> Option<Said> {
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(body.len() + HEADER_LEN).unwrap().to_be_bytes());
    message.push(2);
    message.extend(body);
    let capabilities = Capabilities { FOUR_OCTET_ASN_SUPPORT: as4, ..Capabilities::default() };
    let read =
        catch_unwind(move || Reader { stream: Cursor::new(message), capabilities }.read().ok()).ok()??;
    let (_, Message::Update(update)) = read else { panic!("not an UPDATE") };
    let mut said = Said {
        announced: routes(&update.announced_routes)?,
        withdrawn: routes(&update.withdrawn_routes)?,
        origin: 2,
        ..Said::default()
    };
    // With routes in both places the next hops may differ; ours names the first.
    let plain = !said.announced.is_empty();
    for attribute in &update.attributes {
        match attribute {
            PathAttribute::ORIGIN(origin) => {
                said.origin = match origin {
                    TheirOrigin::IGP => 0,
                    TheirOrigin::EGP => 1,
                    TheirOrigin::INCOMPLETE => 2,
                };
            }
            PathAttribute::AS_PATH(path) => said.path = asns(path),
            PathAttribute::NEXT_HOP(addr) if plain => {
                said.next_hop = Some(NextHop { addr: *addr, link_local: None });
            }
            PathAttribute::MULTI_EXIT_DISC(med) => said.med = Some(*med),
            PathAttribute::LOCAL_PREF(pref) => said.local_pref = Some(*pref),
            PathAttribute::ATOMIC_AGGREGATOR => said.atomic = true,
            PathAttribute::COMMUNITY(list) => said.communities.clone_from(list),
            PathAttribute::EXTENDED_COMMUNITIES(list) => said.ext_communities = list.len(),
            PathAttribute::LARGE_COMMUNITY(list) => {
                said.large = list.iter().map(|(global, one, two)| [*global, *one, *two]).collect();
            }
            PathAttribute::ORIGINATOR_ID(id) => said.originator = Some(Ipv4Addr::from_bits(*id)),
            PathAttribute::CLUSTER_LIST(list) => said.clusters.clone_from(list),
            PathAttribute::MP_REACH_NLRI(mp) => {
                if !plain {
                    said.next_hop = Some(hop(&mp.next_hop)?);
                }
                said.announced.extend(routes(&mp.announced_routes)?);
            }
            PathAttribute::MP_UNREACH_NLRI(mp) => said.withdrawn.extend(routes(&mp.withdrawn_routes)?),
            _ => {}
        }
    }
    Some(said)
}

/// `None` when it guessed ADD-PATH, which is never in use here.
fn routes(list: &[NLRIEncoding]) -> Option<Vec<(Prefix, Option<u32>)>> {
    let route = |nlri: &NLRIEncoding| match nlri {
        NLRIEncoding::IP(prefix) => {
            let (addr, len): (IpAddr, u8) = prefix.into();
            Some((Prefix::new(addr, len).unwrap(), None))
        }
        _ => None,
    };
    list.iter().map(route).collect()
}

fn asns(path: &ASPath) -> Vec<u32> {
    let segment = |segment: &Segment| match segment {
        Segment::AS_SEQUENCE(list) | Segment::AS_SET(list) => list.clone(),
    };
    path.segments.iter().flat_map(segment).collect()
}

fn hop(octets: &[u8]) -> Option<NextHop> {
    if let Some(v4) = octets.as_array::<4>() {
        return Some(Ipv4Addr::from(*v4).into());
    }
    let (first, second) = octets.split_first_chunk::<16>()?;
    let link_local = second.as_array::<16>().map(|v6| Ipv6Addr::from(*v6));
    Some(NextHop { addr: Ipv6Addr::from(*first).into(), link_local })
}

/// Runs a comparison and asks that at least `share` percent of the cases were really compared.
fn compare<S: Strategy>(share: u32, strategy: S, case: impl Fn(S::Value) -> Option<(Said, Said)>) {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let cases = config.cases;
    let compared = Cell::new(0u32);
    TestRunner::new(config)
        .run(&strategy, |value| {
            if let Some((said, other)) = case(value) {
                compared.set(compared.get() + 1);
                prop_assert_eq!(said, other);
            }
            Ok(())
        })
        .unwrap();
    let compared = compared.get();
    assert!(compared * 100 >= cases * share, "only {compared} of {cases} cases were compared");
}

#[test]
fn packed_routes_are_read_the_same() {
    let families = prop_oneof![Just(Family::Ipv4Unicast), Just(Family::Ipv6Unicast)];
    let routes = families.prop_flat_map(|f| (Just(f), vec(nlri(f), 1..60)));
    compare(
        25,
        (edits(), next_hop(), any::<bool>(), routes),
        |(edits, next_hop, as4, (family, mut routes))| {
            routes.retain(|n| n.prefix.len() > 0);
            let ctx = session(as4, false, true, MAX_LEN_EXTENDED);
            let mut wire = Vec::new();
            let packed =
                UpdatePacker::new().announce(&ctx, family, &edits.canonical(), next_hop, routes, &mut wire);
            if packed != Ok(1) {
                return None;
            }
            let body = &wire[HEADER_LEN..];
            Some(comparable(body, as4, ours(body, as4, false).unwrap(), theirs(body, as4)?))
        },
    );
}

#[test]
fn withdrawn_routes_are_read_the_same() {
    let families = prop_oneof![Just(Family::Ipv4Unicast), Just(Family::Ipv6Unicast)];
    let routes = families.prop_flat_map(|f| (Just(f), vec(nlri(f), 1..60)));
    compare(95, routes, |(family, routes)| {
        let ctx = session(true, false, false, MAX_LEN_EXTENDED);
        let mut wire = Vec::new();
        UpdatePacker::new().withdraw(&ctx, family, routes, &mut wire).unwrap();
        let body = &wire[HEADER_LEN..];
        Some((ours(body, true, false).unwrap(), theirs(body, true)?))
    });
}

#[test]
fn accepted_attributes_are_read_the_same() {
    compare(10, (attribute_soup(), any::<bool>()), |(body, as4)| {
        Some(comparable(&body, as4, ours(&body, as4, false)?, theirs(&body, as4)?))
    });
}

/// Takes away what bgp-rs does not promise: it keeps repeated large communities, leaves AS4_PATH beside AS_PATH or
/// drops it, leaves out confederation segments, and guesses the width of AS numbers where both make whole segments.
fn comparable(body: &[u8], as4: bool, mut said: Said, mut other: Said) -> (Said, Said) {
    let ctx = session(as4, false, true, MAX_LEN_EXTENDED);
    let update = UpdateView::parse(body, &ctx).unwrap();
    let mut canonical = Vec::new();
    update.attributes().write_canonical(&mut canonical);
    let confederation = AttrSet::new(&canonical).as_path().segments().any(|s| s.kind.is_confed());
    let received = |code| AttrSet::new(update.attributes().raw()).iter().find(|a| a.code == code);
    let merged = received(code::AS4_PATH).is_some() && !as4;
    let guessed = received(code::AS_PATH).is_some_and(|p| whole(p.value, 2) && whole(p.value, 4));
    if confederation || merged || guessed {
        (said.path, other.path) = (Vec::new(), Vec::new());
    }
    other.large = dedup(other.large);
    (said, other)
}

/// Whether a path is whole segments with AS numbers of `width` octets.
fn whole(mut path: &[u8], width: usize) -> bool {
    while let [1..=4, count, rest @ ..] = path {
        let Some(rest) = rest.get(usize::from(*count) * width..) else { return false };
        path = rest;
    }
    path.is_empty()
}
