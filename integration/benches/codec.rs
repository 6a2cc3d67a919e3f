//! What reading and writing UPDATEs costs, in nanoseconds: `cargo bench -p integration --bench codec`.
//!
//! Every line is the median of nine rounds. Decoding includes every RFC 7606 check, walking all prefixes, and writing the
//! canonical attributes into a reused buffer.

#![allow(clippy::unwrap_used, reason = "a bench stops where it cannot go on")]
#![allow(clippy::cast_precision_loss, reason = "a printed average")]

mod common;

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use bird_packet::attr::{AttrBuilder, AttrSet};
use bird_packet::{
    Family, HEADER_LEN, LargeCommunity, MAX_LEN, NextHop, Nlri, Origin, PeerKind, Prefix4, Prefix6, Routes,
    SessionContext, UpdatePacker, UpdateView, frame,
};

use common::{headings, median, row, title};

fn main() {
    let mut ctx = SessionContext::new(PeerKind::External);
    ctx.family_mut(Family::Ipv6Unicast).enabled = true;
    ctx.max_len = 65535;
    let mut add_path = ctx;
    for family in Family::ALL {
        let f = add_path.family_mut(family);
        (f.add_path_rx, f.add_path_tx) = (true, true);
    }
    let mut old = ctx;
    old.as4 = false;

    let plain = attributes(false);
    let rich = attributes(true);
    let hop4: NextHop = Ipv4Addr::new(192, 0, 2, 1).into();
    let hop6: NextHop = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into();
    let v4: Vec<_> = (0..700u32)
        .map(|i| Nlri {
            prefix: Prefix4::new(Ipv4Addr::from_bits(10 << 24 | i << 8), 24).unwrap(),
            path_id: 7,
        })
        .collect();
    let v6: Vec<_> = (0..400u128)
        .map(|i| Nlri {
            prefix: Prefix6::new(Ipv6Addr::from_bits(0xfd << 120 | i << 80), 48).unwrap(),
            path_id: 7,
        })
        .collect();

    title("decode", &["ns/UPDATE", "ns/prefix"]);
    for (name, attrs, count) in [
        ("1 IPv4 prefix, 4 attributes", &plain, 1),
        ("1 IPv4 prefix, 4 attributes + 3 kinds of communities", &rich, 1),
        ("700 IPv4 prefixes, 4 attributes", &plain, 700),
        ("700 IPv4 prefixes, 4 + 3 attributes", &rich, 700),
    ] {
        decode_line(name, &ctx, &update4(&ctx, attrs, hop4, &v4[..count]), count);
    }
    decode_line("700 IPv4 prefixes, ADD-PATH", &add_path, &update4(&add_path, &plain, hop4, &v4), 700);
    decode_line(
        "1 IPv4 prefix, 4 + 3 attributes, 2-octet peer",
        &old,
        &update4(&old, &rich, hop4, &v4[..1]),
        1,
    );
    let mut wire = Vec::new();
    UpdatePacker::new()
        .announce(&ctx, Family::Ipv6Unicast, &plain, hop6, v6.iter().copied(), &mut wire)
        .unwrap();
    decode_line("400 IPv6 prefixes, 4 attributes", &ctx, &wire, 400);
    wire.clear();
    UpdatePacker::new().withdraw(&ctx, Family::Ipv4Unicast, v4.iter().copied(), &mut wire).unwrap();
    decode_line("700 IPv4 prefixes withdrawn", &ctx, &wire, 700);

    let bare = update4(&ctx, &rich, hop4, &v4[..1]);
    let body = &bare[HEADER_LEN..];
    let parse = median(2000, || {
        black_box(UpdateView::parse(black_box(body), &ctx).is_ok());
    });
    let update = UpdateView::parse(body, &ctx).unwrap();
    let mut canonical = Vec::with_capacity(4096);
    let canon = median(2000, || {
        canonical.clear();
        black_box(&update).attributes().write_canonical(&mut canonical);
        black_box(&canonical);
    });
    println!();
    headings("parts, 7 attributes", &["ns"]);
    row("parse and judge", &[parse]);
    row("canonical bytes", &[canon]);
    let key = median(2000, || {
        let set = AttrSet::new(black_box(&canonical));
        black_box((set.origin(), set.as_path().length(), set.med(), set.local_pref()));
    });
    row("read origin, path length, MED, LOCAL_PREF back", &[key]);
    let mut edited = Vec::with_capacity(4096);
    let edit = median(2000, || {
        edited.clear();
        let mut builder = AttrBuilder::from_set(AttrSet::new(black_box(&canonical)));
        builder.prepend(65000, 1).med(None).for_external();
        builder.write(&mut edited).unwrap();
        black_box(&edited);
    });
    row("export edit: prepend, no MED, for an external peer", &[edit]);

    println!();
    headings("encode", &["ns/call", "ns/prefix"]);
    ctx.max_len = MAX_LEN;
    let many: Vec<_> = (0..100_000u32)
        .map(|i| Nlri::plain(Prefix4::new(Ipv4Addr::from_bits(10 << 24 | i << 8), 24).unwrap()))
        .collect();
    let mut packer = UpdatePacker::new();
    let mut out = Vec::new();
    let mut line = |name: &str, rounds: u32, count: usize, work: &mut dyn FnMut(&mut Vec<u8>)| {
        let ns = median(rounds, || {
            out.clear();
            work(&mut out);
            black_box(&out);
        });
        row(name, &[ns, ns / count as f64]);
    };
    line("announce 1 IPv4 prefix, 7 attributes", 2000, 1, &mut |out| {
        packer.announce(&ctx, Family::Ipv4Unicast, &rich, hop4, many[..1].iter().copied(), out).unwrap();
    });
    line("announce 100,000 IPv4 prefixes, 4 attributes", 20, 100_000, &mut |out| {
        packer.announce(&ctx, Family::Ipv4Unicast, &plain, hop4, many.iter().copied(), out).unwrap();
    });
    line("withdraw 100,000 IPv4 prefixes", 20, 100_000, &mut |out| {
        packer.withdraw(&ctx, Family::Ipv4Unicast, many.iter().copied(), out).unwrap();
    });
    line("announce 400 IPv6 prefixes, 4 attributes", 2000, 400, &mut |out| {
        packer.announce(&ctx, Family::Ipv6Unicast, &plain, hop6, v6.iter().copied(), out).unwrap();
    });
}

fn attributes(communities: bool) -> Vec<u8> {
    let mut builder = AttrBuilder::new();
    builder.origin(Origin::Igp).as_path(&[65001, 65002, 4_200_000_001]).med(Some(10));
    if communities {
        builder.add_community(1).add_community(2).add_community(3);
        builder.add_ext_community([0, 2, 0, 1, 0, 0, 0, 1]).add_ext_community([0, 2, 0, 1, 0, 0, 0, 2]);
        for n in 0..2 {
            builder.add_large_community(LargeCommunity { global: 65001, local1: 1, local2: n });
        }
    }
    let mut out = Vec::new();
    builder.write(&mut out).unwrap();
    out
}

fn update4(ctx: &SessionContext, attrs: &[u8], hop: NextHop, routes: &[Nlri<Prefix4>]) -> Vec<u8> {
    let mut wire = Vec::new();
    let routes = routes.iter().copied();
    UpdatePacker::new().announce(ctx, Family::Ipv4Unicast, attrs, hop, routes, &mut wire).unwrap();
    wire
}

fn decode_line(name: &str, ctx: &SessionContext, wire: &[u8], count: usize) {
    let mut canonical = Vec::with_capacity(4096);
    let ns = median(2000, || {
        canonical.clear();
        assert_eq!(decode(black_box(wire), ctx, &mut canonical), count);
        black_box(&canonical);
    });
    row(name, &[ns, ns / count as f64]);
}

/// Frame, judge, canonical attributes, every prefix: returns how many there were.
fn decode(wire: &[u8], ctx: &SessionContext, canonical: &mut Vec<u8>) -> usize {
    let frame = frame(wire, 65535).unwrap().unwrap();
    let update = UpdateView::parse(frame.body, ctx).unwrap();
    update.attributes().write_canonical(canonical);
    let mut count = 0;
    for routes in update.withdrawals().map(|w| w.routes).chain(update.announcements().map(|a| a.routes)) {
        match routes {
            Routes::V4(routes) => {
                for nlri in routes {
                    black_box(nlri);
                    count += 1;
                }
            }
            Routes::V6(routes) => {
                for nlri in routes {
                    black_box(nlri);
                    count += 1;
                }
            }
        }
    }
    count
}
