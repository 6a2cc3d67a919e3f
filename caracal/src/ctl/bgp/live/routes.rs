//! `bgp routes`: paths, what a peer is told, what it is not told.

use std::net::IpAddr;

use bird_speaker::ImportReason;
use bird_speaker::view::{AdvertisedView, AttrsView, PathView, Withheld};
use ipnet::IpNet;
use serde_json::Value;

use super::text::{Column, Screen, ago, maybe, number, or_dash, table, words};
use super::{View, in_order, text_of, typed};

pub(super) const PATHS: View = View { single: false, arrange: by_prefix, key, render: paths };
pub(super) const ADVERTISED: View = View { single: false, arrange: by_prefix, key, render: advertised };
pub(super) const WITHHELD: View = View { single: false, arrange: by_prefix, key, render: withheld };

/// The speaker shows routes in the order of its table, and one that moved meanwhile perhaps twice.
fn by_prefix(lines: Vec<Value>) -> Result<Vec<Value>, String> {
    let mut rows: Vec<((IpNet, bool, String, u64), Value)> = Vec::with_capacity(lines.len());
    for row in in_order(lines)? {
        let prefix: IpNet = typed(&row["prefix"])?;
        let path = row["pathId"].as_u64().unwrap_or_default();
        rows.push(((prefix, row["best"] != true, text_of(&row, "from").to_owned(), path), row));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.dedup_by(|a, b| a.0 == b.0);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

fn key(row: &Value) -> String {
    format!("{} {} {}", text_of(row, "prefix"), text_of(row, "from"), row["pathId"])
}

/// Attributes that only `wide` shows.
const ATTRIBUTES: [Column; 5] = [
    number("LOCAL PREF", "PREF"),
    number("MED", "MED"),
    words("ORIGIN"),
    number("PATH ID", "ID"),
    words("COMMUNITIES"),
];

fn paths(rows: &[Value], screen: &Screen) -> Result<String, String> {
    if rows.is_empty() {
        return Ok("No routes.\n".to_owned());
    }
    let mut columns = vec![
        words("PREFIX"),
        words("STATUS"),
        words("FROM"),
        words("NEXT HOP"),
        words("AS PATH"),
        words("WHY"),
    ];
    if screen.wide {
        columns.push(words("CHANGED"));
        columns.extend(ATTRIBUTES);
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let path: PathView = typed(row)?;
            let mut cells = vec![
                path.prefix.to_string(),
                status(&path),
                path.from.clone(),
                next_hop(path.next_hop, path.interface.as_deref()),
                as_path(&path.attrs),
                why(&path),
            ];
            if screen.wide {
                cells.push(ago(path.changed_ms));
                cells.extend(attributes(&path.attrs, path.path_id));
            }
            Ok(cells)
        })
        .collect::<Result<_, String>>()?;
    Ok(table(&columns, &cells, screen.width))
}

/// What becomes of a path, in a word.
pub(super) fn status(path: &PathView) -> String {
    let word = if path.import != ImportReason::Accepted {
        "rejected"
    } else if path.best {
        "best"
    } else if !path.reachable {
        "unreachable"
    } else if path.multipath {
        "shared"
    } else {
        "backup"
    };
    if path.stale { format!("{word},stale") } else { word.to_owned() }
}

/// Why a path is not the best, or why the best is not in the kernel.
pub(super) fn why(path: &PathView) -> String {
    let by_rule = |text: String| match &path.rule {
        Some(rule) => format!("{text} ({rule})"),
        None => text,
    };
    if path.import != ImportReason::Accepted {
        by_rule(path.import.to_string())
    } else if let Some(why) = path.not_programmed.filter(|_| path.best) {
        format!("not in the kernel: {why}")
    } else if path.best {
        String::new()
    } else if !path.reachable {
        "its next hop is not reachable".to_owned()
    } else if path.multipath {
        String::new()
    } else {
        path.lost.map(|step| step.to_string()).unwrap_or_default()
    }
}

fn next_hop(address: Option<IpAddr>, interface: Option<&str>) -> String {
    match (address, interface) {
        (Some(address), _) => address.to_string(),
        (None, Some(interface)) => format!("dev {interface}"),
        (None, None) => "-".to_owned(),
    }
}

/// The AS path, nearest first.
pub(super) fn as_path(attrs: &AttrsView) -> String {
    let path: Vec<String> = attrs.as_path.iter().map(u32::to_string).collect();
    or_dash(path.join(" "))
}

/// All communities of a route.
pub(super) fn communities(attrs: &AttrsView) -> String {
    let all: Vec<&str> =
        attrs.communities.iter().chain(&attrs.large_communities).map(String::as_str).collect();
    or_dash(all.join(" "))
}

fn attributes(attrs: &AttrsView, path_id: u32) -> Vec<String> {
    vec![
        maybe(attrs.local_pref),
        maybe(attrs.med),
        attrs.origin.clone(),
        path_id.to_string(),
        communities(attrs),
    ]
}

fn advertised(rows: &[Value], screen: &Screen) -> Result<String, String> {
    if rows.is_empty() {
        return Ok("The peer is told nothing.\n".to_owned());
    }
    let mut columns = vec![words("PREFIX"), words("NEXT HOP"), words("AS PATH")];
    if screen.wide {
        columns.extend(ATTRIBUTES);
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let route: AdvertisedView = typed(row)?;
            let mut cells =
                vec![route.prefix.to_string(), next_hop(route.next_hop, None), as_path(&route.attrs)];
            if screen.wide {
                cells.extend(attributes(&route.attrs, route.path_id));
            }
            Ok(cells)
        })
        .collect::<Result<_, String>>()?;
    Ok(table(&columns, &cells, screen.width))
}

fn withheld(rows: &[Value], screen: &Screen) -> Result<String, String> {
    if rows.is_empty() {
        return Ok("The peer is told everything.\n".to_owned());
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let route: Withheld = typed(row)?;
            let why = match &route.rule {
                Some(rule) => format!("{} ({rule})", route.reason),
                None => route.reason.to_string(),
            };
            Ok(vec![route.prefix.to_string(), route.from, why])
        })
        .collect::<Result<_, String>>()?;
    Ok(table(&[words("PREFIX"), words("FROM"), words("WHY")], &cells, screen.width))
}
