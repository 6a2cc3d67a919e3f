//! The decoder against bgpkit-parser, an independent one: what we accept, it reads the same.
//!
//! It judges nothing (RFC 7606) and takes a leading zero octet for ADD-PATH, so only messages that we accept
//! without dropping anything are compared, and none whose NLRI starts with a default route.

#![expect(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::net::IpAddr;

use bgpkit_parser::models::{
    Asn, AsnLength, AttributeValue, Attributes, Community, NextHopAddress, Origin as TheirOrigin,
};
use bgpkit_parser::parser::bgp::messages::parse_bgp_update_message;
use bird_packet::{Family, HEADER_LEN, MAX_LEN_EXTENDED, NextHop, Origin, Prefix, UpdatePacker};
use common::said::{Said, dedup, ours};
use common::{attribute_soup, edits, next_hop, nlri, session};
use proptest::collection::vec;
use proptest::prelude::*;

fn theirs(body: &[u8], as4: bool, add_path: bool) -> Said {
    let width = if as4 { AsnLength::Bits32 } else { AsnLength::Bits16 };
    let update = parse_bgp_update_message(body.to_vec().into(), add_path, &width).unwrap();
    let attrs = &update.attributes;
    let route = |n: &bgpkit_parser::models::NetworkPrefix| {
        (Prefix::new(n.prefix.addr(), n.prefix.prefix_len()).unwrap(), n.path_id)
    };
    let mut said = Said {
        announced: update.announced_prefixes.iter().map(route).collect(),
        withdrawn: update.withdrawn_prefixes.iter().map(route).collect(),
        next_hop: attrs.next_hop().filter(|_| !update.announced_prefixes.is_empty()).map(NextHop::from),
        origin: match attrs.origin() {
            TheirOrigin::IGP => Origin::Igp.code(),
            TheirOrigin::EGP => Origin::Egp.code(),
            TheirOrigin::INCOMPLETE => Origin::Incomplete.code(),
        },
        path: path(attrs),
        med: attrs.multi_exit_discriminator(),
        local_pref: attrs.local_preference(),
        atomic: attrs.atomic_aggregate(),
        clusters: attrs.clusters().unwrap_or_default().to_vec(),
        ..Said::default()
    };
    for value in attrs {
        match value {
            AttributeValue::Communities(list) => said.communities = list.iter().map(community).collect(),
            AttributeValue::ExtendedCommunities(list) => said.ext_communities = list.len(),
            AttributeValue::LargeCommunities(list) => {
                said.large =
                    list.iter().map(|c| [c.global_admin, c.local_data[0], c.local_data[1]]).collect();
            }
            AttributeValue::OriginatorId(id) => said.originator = Some(*id),
            AttributeValue::MpReachNlri(mp) => {
                said.announced.extend(mp.prefixes.iter().map(route));
                said.next_hop = said.next_hop.or(match mp.next_hop {
                    Some(NextHopAddress::Ipv4(addr)) => Some(addr.into()),
                    Some(NextHopAddress::Ipv6(addr)) => Some(addr.into()),
                    Some(NextHopAddress::Ipv6LinkLocal(addr, link_local)) => {
                        Some(NextHop { addr: IpAddr::V6(addr), link_local: Some(link_local) })
                    }
                    _ => None,
                });
            }
            AttributeValue::MpUnreachNlri(mp) => said.withdrawn.extend(mp.prefixes.iter().map(route)),
            _ => {}
        }
    }
    said
}

fn path(attrs: &Attributes) -> Vec<u32> {
    let segments = attrs.as_path().into_iter().flat_map(|p| p.segments.iter());
    segments.flat_map(|s| s.as_ref().iter().map(Asn::to_u32)).collect()
}

fn community(community: &Community) -> u32 {
    match community {
        Community::NoExport => 0xffff_ff01,
        Community::NoAdvertise => 0xffff_ff02,
        Community::NoExportSubConfed => 0xffff_ff03,
        Community::Custom(asn, value) => asn.to_u32() << 16 | u32::from(*value),
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn packed_routes_are_read_by_another_decoder(
        edits in edits(),
        next_hop in next_hop(),
        add_path in any::<bool>(),
        (family, mut routes) in prop_oneof![Just(Family::Ipv4Unicast), Just(Family::Ipv6Unicast)]
            .prop_flat_map(|f| (Just(f), vec(nlri(f), 1..50))),
    ) {
        routes.retain(|n| n.prefix.len() > 0);
        let ctx = session(true, add_path, true, MAX_LEN_EXTENDED);
        let mut wire = Vec::new();
        let packed = UpdatePacker::new().announce(&ctx, family, &edits.canonical(), next_hop, routes, &mut wire);
        if packed == Ok(1) {
            let body = &wire[HEADER_LEN..];
            prop_assert_eq!(ours(body, true, add_path).unwrap(), theirs(body, true, add_path));
        }
    }

    #[test]
    fn accepted_attributes_are_read_the_same(body in attribute_soup(), as4 in any::<bool>()) {
        if let Some(mut said) = ours(&body, as4, false) {
            let mut other = theirs(&body, as4, false);
            // We remove repeated large communities.
            other.large = dedup(other.large);
            said.large = dedup(said.large);
            // The other decoder keeps AS4_PATH apart.
            if !as4 && said.path != other.path {
                (said.path, other.path) = (Vec::new(), Vec::new());
            }
            prop_assert_eq!(said, other);
        }
    }
}

/// The merge of AS_PATH and AS4_PATH where both decoders claim RFC 6793 §4.2.3.
#[test]
fn as4_path_is_merged_the_same() {
    let body = [
        &[0, 0, 0, 35, 0x40, 1, 1, 0][..],
        &[0x40, 2, 8, 2, 3, 0, 7, 0, 8, 0x5b, 0xa0],
        &[0x40, 3, 4, 192, 0, 2, 1],
        &[0xc0, 17, 10, 2, 2, 0, 0, 0, 8, 0xfa, 0x56, 0xea, 1],
        &[24, 198, 51, 100],
    ]
    .concat();
    let update = parse_bgp_update_message(body.clone().into(), false, &AsnLength::Bits16).unwrap();
    let merged = update.attributes.effective_as_path().unwrap();
    let merged: Vec<u32> = merged.segments.iter().flat_map(|s| s.as_ref().iter().map(Asn::to_u32)).collect();
    let said = ours(&body, false, false).unwrap();
    assert_eq!(said.path, merged);
    assert_eq!(said.path, [7, 8, 4_200_000_001]);
}
