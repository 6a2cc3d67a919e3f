//! The outcome of every malformation, from `rfc7606.txt`, and of malformed UPDATE frames.

#![expect(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

#[path = "../../fuzz/src/packet.rs"]
#[allow(unreachable_pub, dead_code, reason = "the fuzzer's own source")]
mod promises;

use bird_packet::attr::AttrSet;
use bird_packet::{Family, Nlri, PeerKind, SessionContext, UpdateView, Verdict};

const TABLE: &str = include_str!("rfc7606.txt");

struct Case {
    name: String,
    body: Vec<u8>,
    ctx: SessionContext,
    carrier: char,
    outcome: String,
}

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

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for line in TABLE.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [name, change, peers, carriers, session, outcome] = columns[..] else {
            panic!("not six columns: {line}");
        };
        for peer in peers.chars() {
            for carrier in carriers.chars() {
                let ctx = context(peer, session);
                cases.push(Case {
                    name: format!("{name} [{peer}{carrier}]"),
                    body: body(peer, carrier, change, ctx.as4),
                    ctx,
                    carrier,
                    outcome: outcome.to_owned(),
                });
            }
        }
    }
    cases
}

fn context(peer: char, session: &str) -> SessionContext {
    let kind = match peer {
        'e' => PeerKind::External,
        'i' => PeerKind::Internal,
        'c' => PeerKind::Confederation,
        other => panic!("peer {other}"),
    };
    let mut ctx = SessionContext::new(kind);
    ctx.peer_as = 65001;
    ctx.family_mut(Family::Ipv6Unicast).enabled = true;
    for word in session.split_whitespace() {
        match word {
            "as2" => ctx.as4 = false,
            "first" => ctx.enforce_first_as = true,
            "noset" => ctx.reject_as_sets = true,
            "enh" => ctx.family_mut(Family::Ipv4Unicast).ext_nexthop = true,
            "only4" => ctx.family_mut(Family::Ipv6Unicast).enabled = false,
            "only6" => ctx.family_mut(Family::Ipv4Unicast).enabled = false,
            "path" => {
                for family in Family::ALL {
                    ctx.family_mut(family).add_path_rx = true;
                }
            }
            other => panic!("session {other}"),
        }
    }
    ctx
}

fn body(peer: char, carrier: char, change: &str, as4: bool) -> Vec<u8> {
    let mut attrs: Vec<Vec<u8>> = vec![hex("40 01 01 00")];
    attrs.push(match (peer, as4) {
        ('i', _) => hex("40 02 00"),
        ('c', true) => hex("40 02 06 03 01 00 00 fd e9"),
        (_, true) => hex("40 02 06 02 01 00 00 fd e9"),
        (_, false) => hex("40 02 04 02 01 fd e9"),
    });
    if carrier == '4' {
        attrs.push(hex("40 03 04 c0 00 02 01"));
    }
    if peer == 'i' {
        attrs.push(hex("40 05 04 00 00 00 64"));
    }
    if carrier == '6' {
        attrs.push(hex(
            "80 0e 1c 00 02 01 10 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 00 30 20 01 0d b8 00 01",
        ));
    }
    for change in change.split(',').map(str::trim).filter(|c| !c.is_empty()) {
        if let Some(code) = change.strip_prefix('-') {
            let code: u8 = code.parse().unwrap();
            attrs.retain(|a| a[1] != code);
        } else if let Some(bytes) = change.strip_prefix('+') {
            attrs.push(hex(bytes));
        } else if let Some(bytes) = change.strip_prefix('^') {
            attrs.insert(0, hex(bytes));
        } else {
            let bytes = hex(change);
            match attrs.iter_mut().find(|a| a[1] == bytes[1]) {
                Some(old) => *old = bytes,
                None => attrs.push(bytes),
            }
        }
    }
    let attrs = attrs.concat();
    let mut body = if carrier == 'n' { hex("00 04 18 cb 00 71") } else { hex("00 00") };
    body.extend(u16::try_from(attrs.len()).unwrap().to_be_bytes());
    body.extend(attrs);
    if carrier == '4' {
        body.extend(hex("18 c6 33 64"));
    }
    body
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
            return if got == want || want == "3/-" { Ok(()) } else { Err(format!("reset {got}")) };
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

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    assert!(digits.len().is_multiple_of(2), "odd hex: {text}");
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}
