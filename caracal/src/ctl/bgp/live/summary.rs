//! `bgp summary`: one screen.

use bird::api::Summary;
use bird_speaker::restart::HelpPhase;
use serde_json::Value;

use super::text::{Screen, ago, fact, note, number, several, table, words};
use super::{View, in_order, typed};

pub(super) const VIEW: View = View { single: true, arrange: in_order, key: |_| String::new(), render };

fn render(rows: &[Value], screen: &Screen) -> Result<String, String> {
    let summary: Summary = typed(rows.first().ok_or("the agent gave no summary")?)?;
    let fact = |label: &str, text: &str| fact(label, text, screen);
    let mut out = fact("Speaker", &format!("router id {}, AS {}", summary.router_id, summary.asn));
    out += &fact(
        "Running",
        &format!(
            "for {}, caracal {}, configured {}",
            ago(summary.up_ms),
            summary.version,
            summary.configured
        ),
    );
    let down = summary.peers - summary.established;
    let without = if down > 0 { format!(", {down} not") } else { String::new() };
    out += &fact(
        "Sessions",
        &format!("{}, {} established{without}", several(summary.peers, "peer"), summary.established),
    );
    out += &fact(
        "Holds",
        &format!(
            "{}, {}",
            several(summary.attribute_sets, "attribute set"),
            several(summary.groups, "update group")
        ),
    );
    out += &restart(&summary, screen);
    out.push('\n');
    let tables: Vec<Vec<String>> = summary
        .tables
        .iter()
        .map(|t| {
            let numbers = [t.prefixes, t.best, t.programmed, t.paths, t.own, t.rejected];
            let mut row = vec![t.family.clone()];
            row.extend(numbers.iter().map(u64::to_string));
            row
        })
        .collect();
    let columns = [
        words("TABLE"),
        number("PREFIXES", "PREFIXES"),
        number("USABLE", "USABLE"),
        number("IN KERNEL", "KERNEL"),
        number("PATHS", "PATHS"),
        number("OWN", "OWN"),
        number("REJECTED", "REJECTED"),
    ];
    out += &table(&columns, &tables, screen.width);
    if !summary.down.is_empty() {
        out += "\nWithout a session:\n";
        for row in &summary.down {
            let text =
                format!("{} for {}: {}: {}", row.peer, ago(row.for_ms), row.cause.kind, row.cause.text);
            out += &note(2, &text, screen);
            out += &note(4, &format!("fix: {}", row.cause.fix), screen);
        }
        let more = down.saturating_sub(summary.down.len() as u64);
        if more > 0 {
            out += &note(2, &format!("and {more} more"), screen);
        }
    }
    if !summary.refused.is_empty() {
        out += "\nRefused callers:\n";
        let rows: Vec<Vec<String>> = summary
            .refused
            .iter()
            .map(|c| vec![format!("  {}", c.address), c.calls.to_string(), c.last.clone(), c.reason.clone()])
            .collect();
        let columns = [words("  ADDRESS"), number("CALLS", "CALLS"), words("LAST"), words("WHY")];
        out += &table(&columns, &rows, screen.width);
    }
    Ok(out)
}

fn restart(summary: &Summary, screen: &Screen) -> String {
    let restart = &summary.restart;
    let mut out = String::new();
    if restart.active {
        let left = restart.left_ms.unwrap_or_default();
        let mut text = format!(
            "under way for {}, over in {} at the latest; waits for {}",
            ago(restart.for_ms),
            ago(left),
            several(restart.waiting.len() as u64, "peer")
        );
        if restart.waiting.is_empty() {
            text = format!("under way for {}, about to end", ago(restart.for_ms));
        }
        out += &fact("Restart", &text, screen);
        for waiting in &restart.waiting {
            let text = format!(
                "{} {}: for {}, {} more at most",
                waiting.peer,
                waiting.reason,
                ago(waiting.for_ms),
                ago(waiting.left_ms)
            );
            out += &fact("", &text, screen);
        }
    } else if restart.ended.is_some() {
        out += &fact("Restart", &format!("over after {}", ago(restart.for_ms)), screen);
    }
    for helping in &restart.helping {
        let phase = match helping.phase {
            HelpPhase::Away => "is away",
            HelpPhase::Telling => "is back and tells its routes",
            HelpPhase::LongLived => "is away, its routes are the last resort",
        };
        let text = format!(
            "{} {phase}: its {} routes are kept for {} more",
            helping.peer,
            helping.family,
            ago(helping.left_ms)
        );
        out += &fact("Helping", &text, screen);
    }
    out
}
