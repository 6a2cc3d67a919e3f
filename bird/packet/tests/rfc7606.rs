//! The outcome of every malformation, from `rfc7606.txt`, and of malformed UPDATE frames.

#![expect(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

#[path = "../../fuzz/src/packet.rs"]
#[allow(unreachable_pub, dead_code, reason = "the fuzzer's own source")]
mod promises;

#[allow(unreachable_pub, dead_code, reason = "the daemon's suite reads the same table")]
mod cases;

use bird_packet::attr::AttrSet;
use bird_packet::{Nlri, PeerKind, SessionContext, UpdateView, Verdict};

use cases::{Case, cases, data_fits, hex};

#[test]
fn every_row_has_its_outcome() {
    let cases = cases();
    let mut failures = Vec::new();
    for case in &cases {
        if let Err(why) = run(case) {
            failures.push(format!(
                "{}: {why}\n    wanted {}\n    body {:02x?}",
                case.name, case.outcome, case.body
            ));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(cases.len() >= 500, "only {} cases were read", cases.len());
}

/// What the fuzzer asks of any body, asked of these.
#[test]
fn every_row_keeps_the_promises_of_the_codec() {
    for case in cases() {
        promises::update_in(&case.ctx, &case.body);
    }
}

/// Bodies whose three fields do not add up, or whose IPv4 fields are not prefixes.
#[test]
fn every_bad_body_has_its_outcome() {
    type Body = (&'static str, &'static str, Option<(u8, u8)>);
    let cases: &[Body] = &[
        ("no attribute length", "00 00", Some((3, 1))),
        ("half an attribute length", "00 00 00", Some((3, 1))),
        ("withdrawn length overruns", "00 05 00 00", Some((3, 1))),
        ("withdrawn length takes the attribute length", "00 02 00 00", Some((3, 1))),
        ("attribute length overruns", "00 00 00 01", Some((3, 1))),
        ("both overrun", "ff ff ff ff", Some((3, 1))),
        ("nothing", "00 00 00 00", None),
        ("withdrawn default route", "00 01 00 00 00", None),
        ("withdrawn prefix length 33", "00 06 21 c0 00 02 00 00 00 00", Some((3, 10))),
        ("withdrawn prefix overruns", "00 03 18 c0 00 00 00", Some((3, 10))),
        ("withdrawn host bits set", "00 04 17 c6 33 65 00 00", None),
        (
            "prefix length 33",
            "00 00 00 14 40 01 01 00 40 02 06 02 01 00 00 fd e9 40 03 04 c0 00 02 01 21 c6 33 64 00 00",
            Some((3, 10)),
        ),
        (
            "prefix overruns",
            "00 00 00 14 40 01 01 00 40 02 06 02 01 00 00 fd e9 40 03 04 c0 00 02 01 18 c6 33",
            Some((3, 10)),
        ),
        (
            "second prefix overruns",
            "00 00 00 14 40 01 01 00 40 02 06 02 01 00 00 fd e9 40 03 04 c0 00 02 01 00 20 c6 33 64",
            Some((3, 10)),
        ),
        (
            "bad prefix beside a withdraw condition",
            "00 00 00 14 40 01 01 09 40 02 06 02 01 00 00 fd e9 40 03 04 c0 00 02 01 21 c6 33 64 00 00",
            Some((3, 10)),
        ),
    ];
    let ctx = SessionContext::new(PeerKind::External);
    for (name, bytes, want) in cases {
        let body = hex(bytes);
        let got = UpdateView::parse(&body, &ctx).err().map(|n| (n.code, n.subcode));
        assert_eq!(got, *want, "{name}");
    }
}

/// RFC 4271 §6.3: a prefix that cannot be a destination is ignored, its neighbours stand.
#[test]
fn silly_prefixes_are_ignored_one_by_one() {
    let mut body =
        hex("00 05 18 7f 00 01 00 00 14 40 01 01 00 40 02 06 02 01 00 00 fd e9 40 03 04 c0 00 02 01");
    body.extend(hex("08 e0 18 c6 33 64 10 00 01 00 08 7f"));
    let ctx = SessionContext::new(PeerKind::External);
    let update = UpdateView::parse(&body, &ctx).unwrap();
    let withdrawn: Vec<String> =
        update.withdrawals().flat_map(|w| w.routes).map(|n| n.prefix.to_string()).collect();
    assert_eq!(withdrawn, ["0.0.0.0/0"]);
    let announced: Vec<String> =
        update.announcements().flat_map(|a| a.routes).map(|n| n.prefix.to_string()).collect();
    assert_eq!(announced, ["198.51.100.0/24", "0.0.0.0/0"]);
    let ignored: usize = update.announcements().map(|a| a.routes.ignored()).sum();
    assert_eq!(ignored, 3);
}

/// A full attribute list of one type costs a bounded number of discards.
#[test]
fn a_thousand_duplicates_are_one_discard() {
    let mut attrs = hex("40 01 01 00 40 02 00 40 03 04 c0 00 02 01");
    for _ in 0..4000 {
        attrs.extend([0xc0, 99, 0]);
    }
    let mut body = vec![0, 0];
    body.extend(u16::try_from(attrs.len()).unwrap().to_be_bytes());
    body.extend(&attrs);
    body.extend(hex("18 c6 33 64"));
    let update = UpdateView::parse(&body, &SessionContext::new(PeerKind::Internal)).unwrap();
    assert_eq!(update.verdict(), Verdict::Ok);
    assert_eq!(update.discards().count(), 1);
}

fn run(case: &Case) -> Result<(), String> {
    let mut words = case.outcome.split_whitespace();
    let parsed = UpdateView::parse(&case.body, &case.ctx);
    let mut next = || words.next().unwrap_or_default();
    let mut outcome = next();
    let update = match (outcome, parsed) {
        ("reset", Err(n)) => {
            let got = format!("{}/{}", n.code, n.subcode);
            let want = next();
            check(got == want || want == "3/-", &format!("reset {got}"))?;
            return data_fits(&n, &case.body);
        }
        ("reset", Ok(update)) => return Err(format!("no reset but {:?}", update.verdict())),
        (_, Err(n)) => return Err(format!("reset: {n}")),
        (_, Ok(update)) => update,
    };
    let mut routes =
        usize::from(case.carrier != 'n' || case.body.windows(4).any(|w| w == hex("18 c6 33 64")));
    if outcome == "ignored" {
        routes = 0;
        update.ignored_family().ok_or("no family is named as ignored")?;
        outcome = next();
    }
    let announced: Vec<Nlri> = update.announcements().flat_map(|a| a.routes).collect();
    let withdrawn: Vec<Nlri> = update.withdrawals().flat_map(|w| w.routes).collect();
    let own = withdrawn
        .iter()
        .filter(|n| n.prefix.to_string() == "198.51.100.0/24" || n.prefix.to_string() == "2001:db8:1::/48")
        .count();
    if outcome == "withdraw" {
        let (code, fault) = (next(), next());
        match update.verdict() {
            Verdict::TreatAsWithdraw(r)
                if r.code.to_string() == code && format!("{:?}", r.fault) == fault => {}
            other => return Err(format!("{other:?}")),
        }
        check(announced.is_empty(), "something is announced")?;
        check(own == routes, "the routes are not withdrawn")?;
    } else {
        check(update.verdict() == Verdict::Ok, &format!("{:?}", update.verdict()))?;
        check(announced.len() == routes, &format!("{} announced", announced.len()))?;
        check(own == 0, "the routes are withdrawn")?;
    }
    let mut canonical = Vec::new();
    update.attributes().write_canonical(&mut canonical);
    let set = AttrSet::new(&canonical);
    let codes: Vec<u8> = set.iter().map(|a| a.code).collect();
    check(codes.is_sorted_by(|a, b| a < b), "canonical attributes are not in order")?;
    for code in [3, 14, 15, 17, 18] {
        check(!codes.contains(&code), &format!("canonical attributes have type {code}"))?;
    }
    let mut discards: Vec<String> = update.discards().map(|d| format!("{} {:?}", d.code, d.fault)).collect();
    loop {
        match next() {
            "" => break,
            "discard" => {
                let want = format!("{} {}", next(), next());
                let at = discards.iter().position(|d| *d == want);
                discards.remove(at.ok_or_else(|| format!("discards {discards:?}"))?);
            }
            "keeps" => {
                check(codes.contains(&next().parse().unwrap()), &format!("canonical types {codes:?}"))?;
            }
            "drops" => {
                check(!codes.contains(&next().parse().unwrap()), &format!("canonical types {codes:?}"))?;
            }
            "canonical" => {
                let want = next();
                let want = hex(want);
                let found = canonical.windows(want.len()).any(|w| w == want);
                check(found, &format!("canonical {canonical:02x?}"))?;
            }
            "withdraw" | "ok" => {}
            other => panic!("outcome {other}"),
        }
    }
    check(discards.is_empty(), &format!("discards {discards:?}"))
}

fn check(condition: bool, why: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(why.to_owned()) }
}
