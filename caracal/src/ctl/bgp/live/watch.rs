//! `--watch`: asks again and again and shows what changed.
//!
//! The next question comes a second after the answer, or after ten times as long as the answer took, so that watching a
//! large table costs the agent little. An agent that restarts is waited for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::ask::Agent;
use super::text::Screen;
use super::{Show, View};
use crate::ctl::commands::console::{complain, line, out};
use crate::ctl::output::yaml::to_yaml;

const PAUSE: Duration = Duration::from_secs(1);
/// The share of the time for which the agent works on answers.
const SHARE: u32 = 10;

/// Clocks and counters that move while nothing happens.
const VOLATILE: [&str; 14] = [
    "forMs",
    "changedMs",
    "since",
    "upMs",
    "leftMs",
    "retryMs",
    "timers",
    "backWithinMs",
    "toldWithinMs",
    "keepalivesReceived",
    "updatesReceived",
    "bytesSent",
    "calls",
    "last",
];

/// What happened to a row.
#[derive(Debug, Clone, PartialEq)]
struct Change {
    what: &'static str,
    row: Value,
}

/// Rows as they were, without what always moves.
type Rows = BTreeMap<String, (Value, Value)>;

/// Watches until somebody ends it.
pub(super) fn run(show: &Show<'_>) -> Result<bool, String> {
    let mut agent = Agent::connect(show.live.socket.as_deref())?;
    let mut rows = show.ask(&mut agent)?;
    let mut before = by_key(show.view, &rows);
    first(show, &rows)?;
    loop {
        let start = Instant::now();
        rows = match show.ask(&mut agent) {
            Ok(rows) => rows,
            Err(err) => {
                complain(format!("{err}\nWaiting for the agent to answer again."));
                agent = reconnect(show);
                continue;
            }
        };
        let now = by_key(show.view, &rows);
        let changes = changes(&before, &now);
        if !changes.is_empty() {
            tell(show, &rows, changes)?;
        }
        before = now;
        std::thread::sleep(PAUSE.max(start.elapsed() * SHARE));
    }
}

fn reconnect(show: &Show<'_>) -> Agent {
    loop {
        std::thread::sleep(PAUSE);
        // A peer that is not known yet, or a speaker without configuration, is waited for too.
        if let Ok(mut agent) = Agent::connect(show.live.socket.as_deref())
            && show.ask(&mut agent).is_ok()
        {
            return agent;
        }
    }
}

fn by_key(view: &View, rows: &[Value]) -> Rows {
    let of = |row: &Value| ((view.key)(row), (steady(row), row.clone()));
    rows.iter().map(of).collect()
}

/// The row without what always moves.
fn steady(row: &Value) -> Value {
    match row {
        // A peer without a session goes through the states of its attempts; what counts is why it has none.
        Value::Object(map) if map.get("cause").is_some_and(Value::is_object) => {
            json!({"peer": map.get("name").or(map.get("peer")), "cause": row["cause"]["kind"], "routes": map.get("routes")})
        }
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, _)| !VOLATILE.contains(&key.as_str()));
            let steady = |(key, value): (&String, &Value)| match key.as_str() {
                // Of BFD only the state: packets never rest.
                "bfd" => (key.clone(), value["state"].clone()),
                _ => (key.clone(), steady(value)),
            };
            Value::Object(kept.map(steady).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(steady).collect()),
        other => other.clone(),
    }
}

fn changes(before: &Rows, now: &Rows) -> Vec<Change> {
    let mut changes = Vec::new();
    for (key, (steady, row)) in now {
        match before.get(key) {
            None => changes.push(Change { what: "added", row: row.clone() }),
            Some((old, _)) if old != steady => changes.push(Change { what: "changed", row: row.clone() }),
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|(key, _)| !now.contains_key(*key));
    changes.extend(gone.map(|(_, (_, row))| Change { what: "removed", row: row.clone() }));
    changes
}

/// What there is at the beginning.
fn first(show: &Show<'_>, rows: &[Value]) -> Result<(), String> {
    if show.live.output == "json" {
        for row in rows {
            line(object(&Change { what: "added", row: row.clone() }));
        }
        return Ok(());
    }
    show.print(rows)
}

fn object(change: &Change) -> String {
    json!({"change": change.what, "object": change.row}).to_string()
}

fn tell(show: &Show<'_>, rows: &[Value], changes: Vec<Change>) -> Result<(), String> {
    match show.live.output.as_str() {
        "json" => changes.iter().for_each(|change| line(object(change))),
        "yaml" => {
            for change in changes {
                out("---\n");
                out(&to_yaml(&json!({"change": change.what, "object": change.row})));
            }
        }
        _ => out(&for_people(show.view, rows, &changes, &show.screen())?),
    }
    Ok(())
}

/// A single thing is shown whole; of a list only the rows that changed, under what happened to them.
fn for_people(view: &View, rows: &[Value], changes: &[Change], screen: &Screen) -> Result<String, String> {
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    if view.single {
        return Ok(format!("\n--- {time}\n{}", (view.render)(rows, screen)?));
    }
    let mut text = String::new();
    for what in ["removed", "changed", "added"] {
        let of: Vec<Value> = changes.iter().filter(|c| c.what == what).map(|c| c.row.clone()).collect();
        if !of.is_empty() {
            text.push_str(
                &["\n--- ", &time.to_string(), " ", what, "\n", &(view.render)(&of, screen)?].concat(),
            );
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::bgp::live::peers::VIEW;

    #[test]
    fn clocks_are_no_change() {
        let row = |name: &str, ms: u64, state: &str| json!({"name": name, "forMs": ms, "state": state, "counters": {"flaps": 0, "keepalivesReceived": ms}});
        let before = by_key(&VIEW, &[row("a", 1, "Active"), row("b", 1, "Idle"), row("c", 1, "Idle")]);
        let same = by_key(&VIEW, &[row("a", 2, "Active"), row("b", 2, "Idle"), row("c", 9, "Idle")]);
        assert_eq!(changes(&before, &same), []);
        let now = by_key(&VIEW, &[row("a", 3, "Established"), row("c", 3, "Idle"), row("d", 3, "Idle")]);
        let told: Vec<(&str, String)> = changes(&before, &now)
            .into_iter()
            .map(|c| (c.what, c.row["name"].as_str().unwrap().to_owned()))
            .collect();
        assert_eq!(
            told,
            [("changed", "a".to_owned()), ("added", "d".to_owned()), ("removed", "b".to_owned())]
        );
        let trying = |state: &str, text: &str| json!({"name": "a", "state": state, "since": text, "cause": {"kind": "refused", "text": text}, "routes": []});
        let attempts = [trying("Active", "a"), trying("Connect", "b")].map(|row| by_key(&VIEW, &[row]));
        assert_eq!(super::changes(&attempts[0], &attempts[1]), [], "an attempt is no change");
        let changes = changes(&before, &now);
        assert_eq!(
            object(&changes[1]),
            r#"{"change":"added","object":{"counters":{"flaps":0,"keepalivesReceived":3},"forMs":3,"name":"d","state":"Idle"}}"#
        );
    }
}
