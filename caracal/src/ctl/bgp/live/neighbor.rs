//! `bgp neighbor`: everything about one peer.

use bird::api::Neighbor;
use bird_speaker::config::{ExportScope, NextHopMode};
use bird_speaker::fsm::State;
use bird_speaker::view::{CapabilityView, Offered};
use serde_json::Value;

use super::peers::address;
use super::text::{Screen, ago, fact, maybe, note, number, or_dash, several, table, wait, words};
use super::{View, in_order, typed};

pub(super) const VIEW: View = View { single: true, arrange: in_order, key: |_| String::new(), render };

fn render(rows: &[Value], screen: &Screen) -> Result<String, String> {
    let neighbor: Neighbor = typed(rows.first().ok_or("the agent said nothing about this peer")?)?;
    let peer = &neighbor.view.peer;
    let kind = match (peer.internal, peer.dynamic) {
        (true, false) => "internal",
        (true, true) => "internal, dynamic",
        (false, false) => "external",
        (false, true) => "external, dynamic",
    };
    let kind = if peer.remote_as == 0 && neighbor.view.settings.remote_external { "external" } else { kind };
    let asn =
        if peer.remote_as == 0 { "AS not known yet".to_owned() } else { format!("AS {}", peer.remote_as) };
    let at = address(peer, neighbor.discovery.as_ref());
    let mut out = fact("Peer", &format!("{}, {at} {asn}, {kind}", peer.name), screen);
    out += &found(&neighbor, screen);
    out += &fact(
        "State",
        &format!("{} for {} (since {})", peer.state, ago(peer.for_ms), neighbor.since),
        screen,
    );
    if let Some(cause) = &neighbor.cause {
        out += &fact("Cause", &format!("{}: {}", cause.kind, cause.text), screen);
        out += &fact("Fix", &cause.fix, screen);
    }
    out += &session(&neighbor, screen);
    out += &settings(&neighbor, screen);
    out += &bfd(&neighbor, screen);
    out += &restart(&neighbor, screen);
    out += &errors(&neighbor, screen);
    out += &routes(&neighbor, screen);
    out += &capabilities(&neighbor, screen);
    Ok(out)
}

/// How its address is found.
fn found(neighbor: &Neighbor, screen: &Screen) -> String {
    let Some(discovery) = &neighbor.discovery else { return String::new() };
    let mut words = vec![format!("by {}", discovery.by)];
    match (discovery.address, discovery.interface.as_deref()) {
        (None, _) => words.push("nothing yet".to_owned()),
        (Some(address), Some(interface)) => words.push(format!("{address} on {interface}")),
        (Some(address), None) => words.push(address.to_string()),
    }
    words.extend(discovery.heard_ms.map(|ms| format!("last heard {} ago", ago(ms))));
    if !discovery.others.is_empty() {
        let others: Vec<String> = discovery.others.iter().map(ToString::to_string).collect();
        words.push(format!("not taken: {}", others.join(", ")));
    }
    fact("Found", &words.join(", "), screen)
}

fn session(neighbor: &Neighbor, screen: &Screen) -> String {
    let fact = |label: &str, text: &str| fact(label, text, screen);
    let (view, peer) = (&neighbor.view, &neighbor.view.peer);
    let timers = &view.timers;
    let mut out = String::new();
    for connection in &view.connections {
        let way = if connection.outgoing { "we called" } else { "it called" };
        let local = connection.local.map_or_else(|| "?".to_owned(), |l| l.to_string());
        out += &fact("Connection", &format!("{local} to {}, {way}, {}", connection.remote, connection.state));
    }
    let router_id = peer.router_id.or(view.said.map(|s| s.router_id));
    out +=
        &fact("Router ids", &format!("ours {}, the peer's {}", neighbor.local_router_id, maybe(router_id)));
    let mut clocks = Vec::new();
    match peer.hold_time {
        Some(0) => clocks.push("no hold time".to_owned()),
        Some(hold) => clocks.push(format!(
            "hold {hold} s{}",
            timers.hold_ms.map_or_else(String::new, |ms| format!(" ({} left)", wait(ms)))
        )),
        None => clocks.push(format!("hold {} s offered", view.settings.hold_time)),
    }
    if let Some(keepalive) = peer.keepalive {
        let next = timers.keepalive_ms.map_or_else(String::new, |ms| format!(" (next in {})", wait(ms)));
        clocks.push(format!("keepalive {keepalive} s{next}"));
    }
    clocks.extend(timers.send_hold_ms.map(|ms| format!("peer must read within {}", wait(ms))));
    clocks.extend(timers.idle_ms.map(|ms| format!("pause after an error, {} left", wait(ms))));
    clocks.extend(timers.retry_ms.map(|ms| format!("next call in {}", wait(ms))));
    out += &fact("Timers", &clocks.join(", "));
    let c = &peer.counters;
    let refused = match c.paths_refused {
        0 => String::new(),
        n => format!(", {n} paths beyond the limit for a prefix not taken"),
    };
    out += &fact(
        "Counters",
        &format!(
            "{} and {} received, {} octets sent, {}, {} established, {} lost{refused}",
            several(c.updates_received, "UPDATE"),
            several(c.keepalives_received, "KEEPALIVE"),
            c.bytes_sent,
            several(c.malformed, "malformed UPDATE"),
            several(c.established, "session"),
            c.flaps
        ),
    );
    out
}

fn settings(neighbor: &Neighbor, screen: &Screen) -> String {
    let (peer, s) = (&neighbor.view.peer, &neighbor.view.settings);
    let mut words = vec![format!("AS {} here", peer.local_as), format!("port {}", peer.port)];
    let mut note = |on: bool, text: String| {
        if on {
            words.push(text);
        }
    };
    note(peer.passive, "passive".to_owned());
    note(s.password, "password".to_owned());
    note(s.source_address.is_some(), format!("source {}", maybe(s.source_address)));
    note(s.interface.is_some(), format!("interface {}", maybe(s.interface.as_ref())));
    note(s.multihop != 1, format!("up to {} hops", s.multihop));
    note(s.ttl_security.is_some(), format!("TTL security {} hops", maybe(s.ttl_security)));
    note(s.route_reflector_client, format!("reflector client, cluster id {}", maybe(s.cluster_id)));
    note(s.next_hop == NextHopMode::SelfAddress, "next hop self".to_owned());
    note(s.next_hop == NextHopMode::Keep, "next hop kept".to_owned());
    note(s.export_scope == ExportScope::Own, "told only what is ours".to_owned());
    note(s.export_scope == ExportScope::NoTransit, "no transit".to_owned());
    note(s.allow_own_as > 0, format!("own AS allowed {} times", s.allow_own_as));
    note(s.remove_private_as, "private AS numbers removed".to_owned());
    note(s.graceful_shutdown, "graceful shutdown".to_owned());
    if let Some(limit) = s.prefix_limit {
        let action = s.prefix_limit_action.map(|a| format!("{a:?}").to_lowercase());
        words.push(format!("at most {limit} prefixes ({})", action.unwrap_or_default()));
    }
    let mut out = fact("Settings", &words.join(", "), screen);
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    out += &fact("Filters", &format!("import {}; export {}", list(&s.import), list(&s.export)), screen);
    out
}

fn bfd(neighbor: &Neighbor, screen: &Screen) -> String {
    let Some(bfd) = &neighbor.bfd else { return String::new() };
    let mut words = vec![format!("{} for {}", bfd.state, ago(bfd.for_ms))];
    if bfd.multihop {
        words.push("multihop".to_owned());
    }
    if let (Some(interval), Some(detection)) = (bfd.interval_ms, bfd.detection_ms) {
        words.push(format!("sent each {interval} ms, gone after {detection} ms"));
    }
    words.push(format!("the peer's end is {}", bfd.remote_state));
    if bfd.failures > 0 {
        words.push(format!("failed {} times", bfd.failures));
    }
    words.extend(bfd.problem.clone());
    fact("BFD", &words.join(", "), screen)
}

fn restart(neighbor: &Neighbor, screen: &Screen) -> String {
    let restart = &neighbor.view.restart;
    let mut words = Vec::new();
    if restart.agreed {
        words.push(format!("agreed, the peer asks for {} s", maybe(restart.peer_time)));
        if restart.notification {
            words.push("notifications keep routes too".to_owned());
        }
        if restart.peer_restarted {
            words.push(format!("it restarted and kept {}", or_dash(restart.peer_kept.join(" "))));
        }
    } else if neighbor.view.peer.state == State::Established {
        words.push("not agreed: its routes go with its session".to_owned());
    }
    for helping in &neighbor.helping {
        words.push(format!("its {} routes are kept for {} more", helping.family, ago(helping.left_ms)));
    }
    if words.is_empty() {
        return String::new();
    }
    fact("Restart", &words.join(", "), screen)
}

fn errors(neighbor: &Neighbor, screen: &Screen) -> String {
    let mut out = String::new();
    for (i, error) in neighbor.errors.iter().enumerate() {
        let what = if error.ended_session { "session ended: " } else { "" };
        let label = if i == 0 { "Last errors" } else { "" };
        out += &fact(label, &format!("{} {what}{}", error.at, error.text), screen);
    }
    out
}

fn routes(neighbor: &Neighbor, screen: &Screen) -> String {
    if neighbor.routes.is_empty() {
        return String::new();
    }
    let columns = [
        words("FAMILY"),
        number("RECEIVED", "RECV"),
        number("ACCEPTED", "ACC"),
        number("REJECTED", "REJ"),
        number("UNREACHABLE", "UNREACH"),
        number("BEST", "BEST"),
        number("STALE", "STALE"),
        number("ADVERTISED", "ADV"),
        words("END-OF-RIB"),
        words("ADD-PATH"),
    ];
    let families = &neighbor.view.peer.families;
    let rows: Vec<Vec<String>> = neighbor
        .routes
        .iter()
        .map(|r| {
            let numbers =
                [r.received, r.accepted, r.rejected_all(), r.unreachable, r.best, r.stale, r.advertised];
            let family = families.iter().find(|f| f.family == r.family);
            let mut row = vec![r.family.clone()];
            row.extend(numbers.iter().map(u64::to_string));
            row.push(family.map_or("-", |f| if f.end_of_rib { "received" } else { "awaited" }).to_owned());
            row.push(
                match family.map(|f| (f.add_path_receive, f.add_path_send)) {
                    Some((true, true)) => "both ways",
                    Some((true, false)) => "receive",
                    Some((false, true)) => "send",
                    _ => "-",
                }
                .to_owned(),
            );
            row
        })
        .collect();
    let mut out = format!("\n{}", table(&columns, &rows, screen.width));
    for counts in &neighbor.routes {
        for (reason, count) in &counts.rejected {
            out += &note(0, &format!("rejected {}: {count}, {reason}", counts.family), screen);
        }
    }
    out
}

fn capabilities(neighbor: &Neighbor, screen: &Screen) -> String {
    let offered = |offered: &Option<Offered>| match offered {
        None => "-".to_owned(),
        Some(Offered(value)) if value.is_empty() => "yes".to_owned(),
        Some(Offered(value)) => value.clone(),
    };
    let used = |c: &CapabilityView| {
        let known = neighbor.view.capabilities_offered.iter().any(|c| c.theirs.is_some());
        match (known, c.used) {
            (false, _) => "-",
            (_, true) => "yes",
            (_, false) => "no",
        }
    };
    let rows: Vec<Vec<String>> = neighbor
        .view
        .capabilities_offered
        .iter()
        .map(|c| vec![c.name.clone(), used(c).to_owned(), offered(&c.ours), offered(&c.theirs)])
        .collect();
    let columns = [words("CAPABILITY"), words("USED"), words("OURS"), words("THE PEER'S")];
    format!("\n{}", table(&columns, &rows, screen.width))
}
