//! `bgp peers`.

use bird::api::{DiscoveryView, PeerRow};
use bird_speaker::fsm::State;
use bird_speaker::view::{FamilyView, PeerView, RouteCounts};
use serde_json::Value;

use super::text::{Column, Screen, ago, maybe, note, number, or_dash, table, wait, words};
use super::{View, in_order, text_of, typed};

pub(super) const VIEW: View =
    View { single: false, arrange: in_order, key: |row| text_of(row, "name").to_owned(), render };

const COLUMNS: [Column; 10] = [
    words("NAME"),
    words("ADDRESS"),
    number("AS", "AS"),
    words("STATE"),
    number("SINCE", "SINCE"),
    number("RECEIVED", "RECV"),
    number("ACCEPTED", "ACC"),
    number("REJECTED", "REJ"),
    number("BEST", "BEST"),
    number("ADVERTISED", "ADV"),
];

const WIDE: [Column; 8] = [
    words("FAMILIES"),
    words("HOLD/KEEPALIVE"),
    number("FLAPS", "FLAPS"),
    words("RETRY"),
    words("GR"),
    words("BFD"),
    words("CAPABILITIES"),
    words("LAST ERROR"),
];

fn render(rows: &[Value], screen: &Screen) -> Result<String, String> {
    if rows.is_empty() {
        return Ok("This speaker has no peers.\n".to_owned());
    }
    let rows: Vec<PeerRow> = rows.iter().map(typed).collect::<Result<_, _>>()?;
    let mut columns = COLUMNS.to_vec();
    if screen.wide {
        columns.extend(WIDE);
    }
    let cells: Vec<Vec<String>> = rows.iter().map(|row| cells(row, screen.wide)).collect();
    let mut out = table(&columns, &cells, screen.width);
    let down: Vec<&PeerRow> = rows.iter().filter(|row| row.cause.is_some()).collect();
    if !down.is_empty() {
        out.push('\n');
    }
    for row in down.iter().take(NAMED) {
        if let Some(cause) = &row.cause {
            out += &note(0, &format!("{}: {}: {}", row.peer.name, cause.kind, cause.text), screen);
        }
    }
    if down.len() > NAMED {
        out += &note(0, &format!("and {} more without a session", down.len() - NAMED), screen);
    }
    Ok(out)
}

/// Peers whose cause stands below the table.
const NAMED: usize = 10;

/// The counts of all families together.
pub(super) fn together(routes: &[RouteCounts]) -> RouteCounts {
    let mut all = RouteCounts::default();
    for counts in routes {
        all.add(counts);
    }
    all
}

fn cells(row: &PeerRow, wide: bool) -> Vec<String> {
    let peer = &row.peer;
    let all = together(&row.routes);
    // A peer without a session has routes only while they are kept over its restart.
    let counts = |n: u64| if row.routes.is_empty() { "-".to_owned() } else { n.to_string() };
    let mut cells = vec![
        peer.name.clone(),
        address(peer, row.discovery.as_ref()),
        or_dash(Some(peer.remote_as).filter(|n| *n != 0).map_or_else(String::new, |n| n.to_string())),
        peer.state.to_string(),
        ago(peer.for_ms),
        counts(all.received),
        counts(all.accepted),
        counts(all.rejected_all()),
        counts(all.best),
        counts(all.advertised),
    ];
    if wide {
        let families: Vec<&str> = peer.families.iter().map(|f| f.family.as_str()).collect();
        cells.push(or_dash(families.join(",")));
        cells.push(match (peer.hold_time, peer.keepalive) {
            (Some(0), _) => "off".to_owned(),
            (Some(hold), keepalive) => format!("{hold}s/{}s", maybe(keepalive)),
            _ => "-".to_owned(),
        });
        cells.push(peer.counters.flaps.to_string());
        cells.push(peer.retry_ms.map_or_else(|| "-".to_owned(), |ms| format!("in {}", wait(ms))));
        cells.push(restart(row, &all));
        cells.push(row.bfd_up.map_or("-", |up| if up { "up" } else { "down" }).to_owned());
        cells.push(or_dash(capabilities(&peer.capabilities, &peer.families)));
        cells.push(row.errors.first().map_or_else(|| "-".to_owned(), |e| format!("{} {}", e.at, e.text)));
    }
    cells
}

/// Where the peer is; with the link, where one finds it or needs it; a dash before it is found.
pub(super) fn address(peer: &PeerView, discovery: Option<&DiscoveryView>) -> String {
    match (peer.address.is_unspecified(), discovery.and_then(|d| d.interface.as_deref())) {
        (true, Some(interface)) => format!("-%{interface}"),
        (true, None) => "-".to_owned(),
        (false, Some(interface)) => format!("{}%{interface}", peer.address),
        (false, None) => peer.address.to_string(),
    }
}

fn restart(row: &PeerRow, all: &RouteCounts) -> String {
    let peer = &row.peer;
    if peer.restarting {
        format!("keeps {} stale", all.stale)
    } else if peer.capabilities.contains(&64) {
        "yes".to_owned()
    } else if peer.state == State::Established {
        "no".to_owned()
    } else {
        "-".to_owned()
    }
}

/// The peer's capabilities that change how a session works, in short.
fn capabilities(codes: &[u8], families: &[FamilyView]) -> String {
    let mut names = Vec::new();
    for (code, name) in
        [(2, "refresh"), (70, "enhanced-refresh"), (5, "ext-nexthop"), (6, "ext-message"), (65, "as4")]
    {
        if codes.contains(&code) {
            names.push(name.to_owned());
        }
    }
    if codes.contains(&71) {
        names.push("llgr".to_owned());
    }
    let any = |way: fn(&FamilyView) -> bool| families.iter().any(way);
    match (any(|f| f.add_path_receive), any(|f| f.add_path_send)) {
        (true, true) => names.push("add-path".to_owned()),
        (true, false) => names.push("add-path(receive)".to_owned()),
        (false, true) => names.push("add-path(send)".to_owned()),
        (false, false) => {}
    }
    names.join(",")
}
