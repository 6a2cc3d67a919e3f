//! `bgp explain`: a prefix from the UPDATE to the kernel and to each peer.

use bird::api::Explained;
use bird_speaker::ImportReason;
use bird_speaker::view::{ExportView, PathView, Resolved};
use serde_json::Value;

use super::routes::{as_path, communities};
use super::text::{Screen, ago, fact, maybe, table, words};
use super::{View, text_of, typed, unwrap};

pub(super) const VIEW: View = View { single: true, arrange, key: |_| String::new(), render };

/// The explanation, with the peers inside.
fn arrange(lines: Vec<Value>) -> Result<Vec<Value>, String> {
    let mut lines = lines.into_iter().map(unwrap);
    let mut whole = lines.next().ok_or("the agent gave no explanation")?;
    let mut exports: Vec<Value> = lines.collect();
    exports.sort_by(|a, b| text_of(a, "peer").cmp(text_of(b, "peer")));
    whole["exports"] = Value::Array(exports);
    Ok(vec![whole])
}

fn render(rows: &[Value], screen: &Screen) -> Result<String, String> {
    let explained: Explained = typed(rows.first().ok_or("the agent gave no explanation")?)?;
    let e = &explained.explanation;
    let prefix = e.prefix.to_string();
    let mut out = match (prefix == explained.asked, e.paths.is_empty()) {
        (true, _) => format!("{prefix}\n"),
        (_, true) => format!("{}\n", explained.asked),
        (_, false) => format!("{prefix}, which carries {}\n", explained.asked),
    };
    if e.paths.is_empty() {
        out += "\n";
        out += &match explained.covered_by {
            Some(covering) => fact(
                "Path",
                &format!("none: nobody told it and this host does not have it; {covering} covers it"),
                screen,
            ),
            None => fact(
                "Path",
                "none: nobody told it and this host does not have it, nor a prefix that covers it",
                screen,
            ),
        };
    }
    if let Some(path) = e.paths.first() {
        out += "\n";
        out += &fact("Changed", &format!("{} ago", ago(path.changed_ms)), screen);
    }
    if let Some(around) = &explained.taken_from {
        let own = OWN.contains(&around.from.as_str());
        let whose =
            if own { format!("of this host: {}", around.from) } else { format!("told by {}", around.from) };
        out += &fact(
            "Inside",
            &format!("{}, {whose}; what is sent to the longer prefix does not go there", around.prefix),
            screen,
        );
    }
    for path in &e.paths {
        out += "\n";
        out += &one_path(path, &explained, screen);
    }
    out += "\n";
    out += &fact("Kernel", &kernel(&explained), screen);
    if e.exports.is_empty() {
        out += &fact("Told to", "nobody: there is no session", screen);
        return Ok(out);
    }
    out += "\n";
    out += &exports(&e.exports, screen);
    Ok(out)
}

/// Where routes of this host come from.
const OWN: [&str; 3] = ["static", "connected", "kernel"];

fn one_path(path: &PathView, explained: &Explained, screen: &Screen) -> String {
    let fact = |label: &str, text: &str| fact(label, text, screen);
    let own = OWN.contains(&path.from.as_str());
    let attrs = &path.attrs;
    let mut out = if own {
        let over = path.interface.as_ref().map_or_else(String::new, |i| format!(" on {i}"));
        fact("Route", &format!("of this host: {}{over}", path.from))
    } else {
        let id =
            if path.path_id == 0 { String::new() } else { format!(", path identifier {}", path.path_id) };
        fact(
            "UPDATE",
            &format!(
                "from {}{id}{}",
                path.from,
                match (path.long_lived, path.stale) {
                    (true, _) => ", long-lived stale: kept as the last resort (RFC 9494)",
                    (false, true) => ", stale: kept over its restart",
                    (false, false) => "",
                }
            ),
        )
    };
    let mut said = vec![format!("AS path {}", as_path(attrs)), format!("origin {}", attrs.origin)];
    said.extend(attrs.local_pref.map(|p| format!("LOCAL_PREF {p}")));
    said.extend(attrs.med.map(|m| format!("MED {m}")));
    said.extend(attrs.originator_id.map(|o| format!("originator {o}")));
    if !attrs.communities.is_empty() || !attrs.large_communities.is_empty() {
        said.push(format!("communities {}", communities(attrs)));
    }
    if !own {
        out += &fact("", &said.join(", "));
        out += &fact("  import", &import(path));
    }
    if path.import != ImportReason::Accepted {
        return out;
    }
    if let Some(address) = path.next_hop {
        let found = explained.explanation.next_hops.iter().find(|n| n.address == address);
        let how = match found {
            None => String::new(),
            Some(n) => match n.state {
                Resolved::Pending => ": the kernel has not answered yet".to_owned(),
                Resolved::Unreachable => {
                    ": not reachable, no route of this host leads there; add one, or let the peer set itself as next hop"
                        .to_owned()
                }
                Resolved::Reachable if n.ways.is_empty() => ": taken as it is".to_owned(),
                Resolved::Reachable => format!(": {}, metric {}", n.ways.join(" and "), n.metric),
            },
        };
        out += &fact("  next hop", &format!("{address}{how}"));
    }
    let decision = match (path.best, path.multipath, path.reachable, path.lost) {
        (true, ..) => "the best".to_owned(),
        (_, _, false, _) => "not taken part: its next hop is not reachable".to_owned(),
        (_, true, ..) => "shares the load with the best".to_owned(),
        (.., Some(step)) => format!("lost: {step}"),
        (.., None) => "there is no best path".to_owned(),
    };
    out + &fact("  decision", &decision)
}

fn import(path: &PathView) -> String {
    match (path.import, &path.rule) {
        (ImportReason::Accepted, Some(rule)) => format!("accepted by filter {rule}"),
        (ImportReason::Accepted, None) => "accepted".to_owned(),
        (reason, Some(rule)) => format!("rejected: {reason} ({rule})"),
        (reason, None) => format!("rejected: {reason}"),
    }
}

fn kernel(explained: &Explained) -> String {
    let e = &explained.explanation;
    match (&explained.kernel_refuses, &e.kernel, e.not_programmed) {
        (Some(refusal), Some(route), _) => format!("should be {route}, but the kernel refuses it: {refusal}"),
        (Some(refusal), None, _) => format!("the kernel refuses it: {refusal}"),
        (None, Some(route), _) => route.clone(),
        (None, None, Some(why)) => format!("not there: {why}"),
        (None, None, None) => "not there".to_owned(),
    }
}

fn exports(exports: &[ExportView], screen: &Screen) -> String {
    let mut columns = vec![words("PEER"), words("TOLD"), words("WHY"), words("NEXT HOP"), words("AS PATH")];
    if screen.wide {
        columns.extend([words("LOCAL PREF"), words("MED"), words("COMMUNITIES")]);
    }
    let mut rows = Vec::new();
    for export in exports {
        let why = match &export.rule {
            Some(rule) => format!("{} ({rule})", export.reason),
            None => export.reason.to_string(),
        };
        let head = vec![
            export.peer.clone(),
            // A decision is a moment older than its UPDATE.
            match (export.accepted, export.told.is_empty()) {
                (true, false) => "yes".to_owned(),
                (true, true) => "soon".to_owned(),
                (false, true) => "no".to_owned(),
                (false, false) => "until now".to_owned(),
            },
            why,
        ];
        if export.told.is_empty() {
            rows.push(head);
            continue;
        }
        for (i, told) in export.told.iter().enumerate() {
            let mut row = if i == 0 { head.clone() } else { vec![String::new(); 3] };
            row.push(maybe(told.next_hop));
            row.push(as_path(&told.attrs));
            if screen.wide {
                row.push(maybe(told.attrs.local_pref));
                row.push(maybe(told.attrs.med));
                row.push(communities(&told.attrs));
            }
            rows.push(row);
        }
    }
    table(&columns, &rows, screen.width)
}
