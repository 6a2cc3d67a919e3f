//! What the property tests and the differential tests feed the codec with.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod said;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bird_packet::attr::AttrBuilder;
use bird_packet::{
    Family, LargeCommunity, NextHop, Nlri, Origin, PeerKind, Prefix4, Prefix6, SessionContext,
};
use proptest::collection::vec;
use proptest::prelude::*;

pub fn prefix4() -> impl Strategy<Value = Prefix4> {
    let first = prop_oneof![1u32..127, 128u32..224];
    let any = (first, 0u32..1 << 24, 1u8..=32).prop_map(|(first, rest, len)| {
        // A short length must not leave 0/8 or 224/4 behind.
        Prefix4::new(Ipv4Addr::from_bits(first << 24 | rest), len)
            .filter(|p| p.is_routable())
            .unwrap_or(Prefix4::DEFAULT)
    });
    prop_oneof![9 => any, 1 => Just(Prefix4::DEFAULT)]
}

pub fn prefix6() -> impl Strategy<Value = Prefix6> {
    (any::<u128>(), 0u8..=128)
        .prop_map(|(bits, len)| Prefix6::new(Ipv6Addr::from_bits(bits >> 2 | 1 << 125), len).unwrap())
}

pub fn nlri(family: Family) -> BoxedStrategy<Nlri> {
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
pub struct Edits {
    pub origin: u8,
    pub path: Vec<u32>,
    pub med: Option<u32>,
    pub local_pref: Option<u32>,
    pub communities: Vec<u32>,
    pub ext: Vec<[u8; 8]>,
    pub large: Vec<[u8; 12]>,
    pub clusters: Vec<u32>,
    pub aggregator: Option<(u32, u32)>,
    pub atomic: bool,
}

pub fn edits() -> impl Strategy<Value = Edits> {
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
    pub fn canonical(&self) -> Vec<u8> {
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
pub fn session(as4: bool, add_path: bool, ext_nexthop: bool, max_len: usize) -> SessionContext {
    let mut ctx = SessionContext::new(PeerKind::Internal);
    ctx.as4 = as4;
    ctx.max_len = max_len;
    for family in Family::ALL {
        let f = ctx.family_mut(family);
        (f.enabled, f.add_path_rx, f.add_path_tx, f.ext_nexthop) = (true, add_path, add_path, ext_nexthop);
    }
    ctx
}

pub fn next_hop() -> impl Strategy<Value = NextHop> {
    prop_oneof![
        (1u32 << 24..127 << 24).prop_map(|a| Ipv4Addr::from_bits(a).into()),
        any::<u64>().prop_map(|a| Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(a)).into()),
        any::<u64>().prop_map(|a| NextHop {
            addr: IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(a))),
            link_local: Some(Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(a))),
        }),
    ]
}

/// UPDATE bodies with attributes that are mostly framed right and often otherwise wrong.
pub fn attribute_soup() -> impl Strategy<Value = Vec<u8>> {
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
