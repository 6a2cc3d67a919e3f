//! What it costs to keep each set of attributes once: UPDATEs of one prefix each, for prefixes that the table has
//! already, so that the rows differ only in how the speaker finds the set.
//!
//! `cargo bench -p integration --bench interning -- [PREFIXES]`

#![allow(clippy::cast_precision_loss, reason = "printed averages")]

mod common;

use std::time::Duration;

use bird_packet::{HEADER_LEN, PeerKind, SessionContext, UpdateView, frame};
use common::{Bench, announce_with, each, middle, number, row, rss, timed, title, withdraw};

const KIND: PeerKind = PeerKind::External;

fn main() {
    let prefixes = number(100_000);
    // First, before there is freed memory to use again.
    let bytes = memory(prefixes);
    title(&format!("{prefixes} UPDATEs of one prefix, prefixes known"), &["ns/UPDATE"]);
    row("decode and write canonical attributes only", &[decoding(prefixes)]);
    for (what, sets) in [
        ("the same attributes every time", 1),
        ("10 sets in turn", 10),
        ("1,000 sets in turn", 1000),
        ("10,000 sets in turn", 10_000),
    ] {
        // Warm: every set is known before the clock starts.
        let took = (0..5).map(|_| known(prefixes, sets)).collect();
        row(what, &[each(middle(took), prefixes)]);
    }
    let took = (0..5).map(|_| new(prefixes)).collect();
    row("every set is new, and an old one is let go", &[each(middle(took), prefixes)]);
    println!("\n{bytes:.0} bytes of memory for each set of 4 attributes");
}

/// Re-announces all prefixes, each with another of `sets` known sets than it has.
fn known(prefixes: u32, sets: u32) -> Duration {
    let mut bench = Bench::new(KIND, 1);
    let first = announce_with(KIND, 0, 0, prefixes, 1, |at| at % sets);
    let second = announce_with(KIND, 0, 0, prefixes, 1, |at| (at + 1) % sets);
    bench.feed(&[(0, &first)]);
    let (took, _) = timed(|| bench.feed(&[(0, &second)]));
    finish(&mut bench, prefixes);
    took
}

/// Re-announces all prefixes, each with attributes that were never seen.
fn new(prefixes: u32) -> Duration {
    let mut bench = Bench::new(KIND, 1);
    bench.feed(&[(0, &announce_with(KIND, 0, 0, prefixes, 1, |at| at))]);
    let second = announce_with(KIND, 0, 0, prefixes, 1, |at| prefixes + at);
    let (took, _) = timed(|| bench.feed(&[(0, &second)]));
    finish(&mut bench, prefixes);
    took
}

/// What a set takes: prefixes that have one between them get one each.
fn memory(prefixes: u32) -> f64 {
    let one = announce_with(KIND, 0, 0, prefixes, 1, |_| 0);
    let many = announce_with(KIND, 0, 0, prefixes, 1, |at| 1 + at);
    let mut bench = Bench::new(KIND, 1);
    bench.feed(&[(0, &one)]);
    let before = rss();
    bench.feed(&[(0, &many)]);
    rss().saturating_sub(before) as f64 / f64::from(prefixes)
}

fn finish(bench: &mut Bench, prefixes: u32) {
    assert_eq!(bench.speaker.totals().paths, usize::try_from(prefixes).expect("few"));
    bench.feed(&[(0, &withdraw(KIND, 0, prefixes))]);
    assert_eq!(bench.speaker.totals().paths, 0);
}

/// What of it is reading the UPDATE.
fn decoding(prefixes: u32) -> f64 {
    let bytes = announce_with(KIND, 0, 0, prefixes, 1, |at| at);
    let context = SessionContext::new(KIND);
    let mut canonical = Vec::with_capacity(4096);
    let rounds = (0..5).map(|_| {
        let (took, ()) = timed(|| {
            let mut at = 0;
            while let Some(message) = frame(&bytes[at..], 4096).expect("our own framing") {
                let body = &bytes[at + HEADER_LEN..at + message.len];
                let update = UpdateView::parse(body, &context).expect("our own UPDATE");
                canonical.clear();
                update.attributes().write_canonical(&mut canonical);
                std::hint::black_box(&canonical);
                at += message.len;
            }
        });
        took
    });
    each(middle(rounds.collect()), prefixes)
}
