//! Sessions recorded with real speakers, played again: the same bytes at the same times give the same answers, events, kernel
//! routes and table, without a socket. `bird/examples/record_session.rs` makes the recordings.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "harness/tape.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "the recorder uses more of it")]
mod tape;

use tape::Tape;

/// Plays a recording; returns how many inputs it has.
fn play(name: &str, text: &str) -> usize {
    let mut lines = text.lines().enumerate().filter(|(_, l)| !l.starts_with('#') && !l.is_empty()).peekable();
    let (_, first) = lines.next().unwrap();
    let (mut tape, mut out) = Tape::new(first.strip_prefix("config ").unwrap());
    let mut inputs = 0;
    loop {
        for line in out {
            let said = lines.next_if(|(_, l)| l.starts_with("  >"));
            assert_eq!(
                Some(line.as_str()),
                said.map(|(_, l)| l),
                "{name}, line {:?}",
                said.map(|(i, _)| i + 1)
            );
        }
        match lines.peek() {
            Some((i, line)) if line.starts_with("  >") => panic!("{name}, line {}: {line}: not said", i + 1),
            Some((_, line)) if !line.starts_with("  =") => {
                out = tape.step(line);
                inputs += 1;
                lines.next();
            }
            _ => break,
        }
    }
    let table: Vec<&str> = lines.map(|(_, l)| l).collect();
    assert_eq!(tape.table(), table, "{name}: the table");
    inputs
}

/// What the story of a recording must have brought, in order.
fn told(text: &str, story: &[&str]) {
    let mut lines = text.lines();
    for part in story {
        assert!(lines.any(|l| l.contains(part)), "no `{part}` after what came before it");
    }
}

#[test]
fn bird_restarts_is_missed_and_comes_back() {
    let text = include_str!("data/bird-2.0.12.session");
    assert!(play("bird", text) > 50);
    told(
        text,
        &[
            "event Up",
            "fib 10.3.0.0/24 gone",
            "ROUTE-REFRESH",
            "event Down",
            "event LongLivedStale",
            "event Up",
            "Administrative Shutdown (6/2)",
            "event Up",
        ],
    );
}

#[test]
fn frr_restarts_is_missed_and_comes_back() {
    let text = include_str!("data/frr-8.4.4.session");
    assert!(play("frr", text) > 50);
    told(
        text,
        &[
            "event Up",
            "fib 10.3.0.0/24 gone",
            "event Down",
            "event LongLivedStale",
            "event Up",
            "Hard Reset (6/9) of Cease: Administrative Shutdown",
            "event Up",
            "not taken: our AS is in its path",
        ],
    );
}

#[test]
fn a_recording_that_says_otherwise_is_noticed() {
    let text = include_str!("data/frr-8.4.4.session");
    for (from, to) in [
        ("  > event LongLivedStale", "  > event Lost"),
        (" KEEPALIVE\n", " UPDATE\n"),
        ("path [65001]", "path [65002]"),
        ("  = 10.65.0.0/26", "  = 10.66.0.0/26"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        assert!(std::panic::catch_unwind(|| play("changed", &changed)).is_err(), "{from}");
    }
}
