//! The best of many paths: what each path costs while there come to be k, and what it costs when the best one goes and comes back, for prefixes
//! that already have k paths. Peers are internal and are told nothing, so that no export is in the figures.
//!
//! `cargo bench -p integration --bench decision -- [PREFIXES]`

mod common;

use std::time::Duration;

use bird_packet::{AttrBuilder, Origin, PeerKind};
use common::{Bench, announce_sets, announce_with, each, middle, number, row, timed, title, withdraw};

const KIND: PeerKind = PeerKind::Internal;

fn main() {
    let prefixes = number(5000);
    title(
        &format!("{prefixes} prefixes, 100 in an UPDATE; ns for each path"),
        &["each while they come", "best withdrawn", "best announced again", "best gets worse attributes"],
    );
    for paths in [1, 2, 5, 10, 20, 50, 100, 250] {
        let rounds: Vec<[Duration; 4]> = (0..3).map(|_| round(prefixes, paths)).collect();
        let column = |at: usize| each(middle(rounds.iter().map(|r| r[at]).collect()), prefixes);
        row(&format!("{paths} paths"), &[column(0), column(1), column(2), column(3)]);
    }
}

/// Times of the columns. Peer 0 has the lowest router id: its path is the best of equals.
fn round(prefixes: u32, paths: u32) -> [Duration; 4] {
    let mut bench = Bench::new(KIND, paths);
    let equal = |peer| announce_with(KIND, peer, 0, prefixes, 100, |at| at / 100);
    let worse = announce_sets(KIND, 0, 0..prefixes, 100, |_| {
        let mut attrs = Vec::new();
        let mut builder = AttrBuilder::new();
        builder.origin(Origin::Igp).as_path(&[1, 2, 3, 4, 5, 6]).local_pref(Some(100));
        builder.write(&mut attrs).expect("short");
        attrs
    });
    let mut feed =
        |peer: u32, bytes: &[u8]| timed(|| bench.feed(&[(usize::try_from(peer).expect("small"), bytes)])).0;
    let come: Duration = (0..paths).map(|peer| feed(peer, &equal(peer))).sum();
    let gone = feed(0, &withdraw(KIND, 0, prefixes));
    let back = feed(0, &equal(0));
    let got_worse = feed(0, &worse);
    assert_eq!(bench.speaker.totals().paths, usize::try_from(prefixes * paths).expect("few"));
    [come / paths, gone, back, got_worse]
}
