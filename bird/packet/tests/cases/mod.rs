//! The rows of `rfc7606.txt`, each for every peer and carrier that it names. Read by the codec's own test, and by the
//! suite that sends the same bytes to a running daemon.

use bird_packet::{Family, Notification, PeerKind, SessionContext};

const TABLE: &str = include_str!("../rfc7606.txt");

/// One UPDATE and what must come of it.
pub struct Case {
    /// The row's name, peer and carrier.
    pub name: String,
    /// Body of the UPDATE.
    pub body: Vec<u8>,
    /// What the session agreed on.
    pub ctx: SessionContext,
    /// `e`, `i` or `c`: see the head of the table.
    pub peer: char,
    /// `4`, `6` or `n`.
    pub carrier: char,
    /// The words from which `ctx` was made.
    pub session: String,
    /// The last column.
    pub outcome: String,
}

/// Every case of the table.
pub fn cases() -> Vec<Case> {
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
                    peer,
                    carrier,
                    session: session.to_owned(),
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

/// Octets from hexadecimal digits; blanks do not count.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    assert!(digits.len().is_multiple_of(2), "odd hex: {text}");
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

/// RFC 4271 §6.3: these subcodes carry the attribute as it came.
pub fn data_fits(notification: &Notification, body: &[u8]) -> Result<(), String> {
    if notification.code != 3 || !matches!(notification.subcode, 2 | 4 | 5 | 6 | 8 | 9) {
        return Ok(());
    }
    let data = &notification.data;
    if data.len() >= 2 && body.windows(data.len()).any(|w| w == data) {
        return Ok(());
    }
    Err(format!("data {data:02x?} of the NOTIFICATION is no attribute of the UPDATE"))
}
