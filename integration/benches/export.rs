//! What a route costs from the UPDATE that brings it to the bytes for every peer: time of import, of export to
//! an update group of n, to n peers with a group each, and of withdrawal; and how well it is packed. No sockets.
//!
//! `cargo bench -p integration --bench export -- [PREFIXES]`

#![allow(clippy::cast_precision_loss, reason = "printed averages")]

mod common;

use std::net::Ipv4Addr;

use bird_packet::PeerKind;
use common::{
    Bench, announce, announce_with, each, headings, messages, number, row, rss, timed, title, withdraw,
};

const KIND: PeerKind = PeerKind::External;
/// Prefixes with the same attributes, about what the Internet's table has.
const PER_UPDATE: u32 = 6;

fn main() {
    let prefixes = number(100_000);
    // First, before there is freed memory to use again.
    let bytes = memory(prefixes);
    title(
        &format!("{prefixes} prefixes, {PER_UPDATE} in an UPDATE, one sender"),
        &["ns/prefix", "withdraw ns/prefix", "prefixes/UPDATE sent"],
    );
    for receivers in [0, 1, 10, 20, 100, 250] {
        one_sender(prefixes, receivers, false);
    }
    for receivers in [10, 20] {
        one_sender(prefixes, receivers, true);
    }
    println!("\n{bytes:.0} bytes of memory for each prefix, told to one group of 10");
    println!();
    headings("every peer sends, every peer is told", &["ns/path", "withdraw ns/path"]);
    all_to_all(10, prefixes / 20, false);
    all_to_all(20, prefixes / 20, true);
    println!();
    headings("packing: one sender, 10 receivers", &["prefixes/UPDATE received", "prefixes/UPDATE sent"]);
    packing("in order, sets of 6", &announce(KIND, 0, 0, prefixes, 6), prefixes);
    packing(
        "one prefix in an UPDATE, 100 sets in turn",
        &announce_with(KIND, 0, 0, prefixes, 1, |at| at % 100),
        prefixes,
    );
    packing("one prefix in an UPDATE, one set", &announce_with(KIND, 0, 0, prefixes, 1, |_| 0), prefixes);
}

/// Resident memory for each prefix, everything in it.
fn memory(prefixes: u32) -> f64 {
    let stream = announce(KIND, 0, 0, prefixes, PER_UPDATE);
    let mut bench = Bench::new(KIND, 11);
    let before = rss();
    bench.feed(&[(0, &stream)]);
    rss().saturating_sub(before) as f64 / f64::from(prefixes)
}

/// `apart`: each receiver is told another next hop, so that none shares the bytes of another.
fn one_sender(prefixes: u32, receivers: u32, apart: bool) {
    let stream = announce(KIND, 0, 0, prefixes, PER_UPDATE);
    let mut bench = Bench::with(KIND, 1 + receivers, |peer, config| {
        if apart && peer > 0 {
            config.next_hop_v4 = Some(Ipv4Addr::from_bits(0x0a01_0000 + peer));
        }
    });
    let (took, sent) = timed(|| bench.feed(&[(0, &stream)]));
    assert!(sent >= (stream.len() / 2) * usize::try_from(receivers).expect("few"), "{sent}");
    let gone = withdraw(KIND, 0, prefixes);
    let (withdrawn, _) = timed(|| bench.feed(&[(0, &gone)]));
    assert_eq!(bench.speaker.totals().paths, 0);
    let what = match (receivers, apart) {
        (0, _) => "nobody is told".into(),
        (1, _) => "1 receiver".into(),
        (n, false) => format!("{n} receivers, one group"),
        (n, true) => format!("{n} receivers, {n} groups"),
    };
    let packed = if receivers == 0 { f64::NAN } else { packed(prefixes, receivers, &stream) };
    let figures = [each(took, prefixes), each(withdrawn, prefixes), packed];
    row(&what, &figures);
}

/// Every peer sends, every peer is told; `same`: all the same prefixes.
fn all_to_all(peers: u32, count: u32, same: bool) {
    let first = |peer: u32| if same { 0 } else { peer * count };
    let streams: Vec<Vec<u8>> = (0..peers).map(|p| announce(KIND, p, first(p), count, PER_UPDATE)).collect();
    let gone: Vec<Vec<u8>> = (0..peers).map(|p| withdraw(KIND, first(p), count)).collect();
    let mut bench = Bench::new(KIND, peers + 1);
    let (took, _) =
        timed(|| bench.feed(&streams.iter().enumerate().map(|(p, s)| (p, &s[..])).collect::<Vec<_>>()));
    let (withdrawn, _) =
        timed(|| bench.feed(&gone.iter().enumerate().map(|(p, s)| (p, &s[..])).collect::<Vec<_>>()));
    assert_eq!(bench.speaker.totals().paths, 0);
    let paths = peers * count;
    let what = if same { "the same" } else { "distinct" };
    row(&format!("{peers} peers x {count} {what}"), &[each(took, paths), each(withdrawn, paths)]);
}

fn packing(what: &str, stream: &[u8], prefixes: u32) {
    let received = f64::from(prefixes) / messages(stream) as f64;
    row(what, &[received, packed(prefixes, 10, stream)]);
}

/// Prefixes in an UPDATE that a receiver gets.
fn packed(prefixes: u32, receivers: u32, stream: &[u8]) -> f64 {
    let mut bench = Bench::new(KIND, 1 + receivers);
    bench.count_updates = true;
    bench.feed(&[(0, stream)]);
    f64::from(prefixes) * f64::from(receivers) / bench.updates as f64
}
