//! Questions to the speaker of this host as it runs, over its socket: `summary`, `peers`, `neighbor`, `routes`,
//! `explain`.
//!
//! What it is: one connection, a question, and its answer as a table for people or as JSON and YAML as it came. What it
//! is not: a place that knows why something is so. The speaker says that.

mod ask;
mod explain;
mod mrt;
mod neighbor;
mod peers;
mod routes;
mod summary;
#[cfg(test)]
mod tests;
mod text;
mod watch;

use bird::api::{Request, RoutesRequest};
use serde_json::Value;

use super::args::{BgpExplain, BgpNeighbor, BgpPeers, BgpRoutes, BgpSummary, Live};
use crate::ctl::commands::console::{line, out};
use crate::ctl::output::yaml::to_yaml;
use ask::Agent;
pub(super) use mrt::mrt;
use text::Screen;

/// `bgp summary`.
pub(super) fn summary(arguments: &BgpSummary) -> Result<bool, String> {
    Show { live: &arguments.live, request: Request::Summary, view: &summary::VIEW }.run()
}

/// `bgp peers`.
pub(super) fn peers(arguments: &BgpPeers) -> Result<bool, String> {
    Show { live: &arguments.live, request: Request::Peers, view: &peers::VIEW }.run()
}

/// `bgp neighbor`.
pub(super) fn neighbor(arguments: &BgpNeighbor) -> Result<bool, String> {
    let request = Request::Neighbor { peer: arguments.peer.clone() };
    Show { live: &arguments.live, request, view: &neighbor::VIEW }.run()
}

/// `bgp routes`.
pub(super) fn routes(arguments: &BgpRoutes) -> Result<bool, String> {
    let request = RoutesRequest {
        prefix: arguments.prefix.clone(),
        longer: arguments.longer,
        received: arguments.received.clone(),
        advertised: arguments.advertised.clone(),
        withheld: arguments.withheld.clone(),
        rejected: arguments.rejected,
        limit: arguments.limit,
    };
    let view = match (&request.advertised, &request.withheld) {
        (Some(_), _) => &routes::ADVERTISED,
        (_, Some(_)) => &routes::WITHHELD,
        _ => &routes::PATHS,
    };
    Show { live: &arguments.live, request: Request::Routes(request), view }.run()
}

/// `bgp explain` without `--node`.
pub(super) fn explain(arguments: &BgpExplain) -> Result<bool, String> {
    let request = Request::Explain { prefix: arguments.prefix.clone(), peer: arguments.peer.clone() };
    Show { live: &arguments.live, request, view: &explain::VIEW }.run()
}

/// How the answer to a question is shown.
struct View {
    /// It is one thing rather than a list.
    single: bool,
    /// Brings the lines of an answer into the order and shape of the output.
    arrange: fn(Vec<Value>) -> Result<Vec<Value>, String>,
    /// What names a row, to tell a change from a new one.
    key: fn(&Value) -> String,
    /// Rows for people. With no rows it says what that means.
    render: fn(&[Value], &Screen) -> Result<String, String>,
}

struct Show<'a> {
    live: &'a Live,
    request: Request,
    view: &'a View,
}

impl Show<'_> {
    fn run(&self) -> Result<bool, String> {
        if self.live.watch {
            return watch::run(self);
        }
        let rows = self.ask(&mut Agent::connect(self.live.socket.as_deref())?)?;
        self.print(&rows)?;
        Ok(true)
    }

    fn ask(&self, agent: &mut Agent) -> Result<Vec<Value>, String> {
        let mut lines = Vec::new();
        let cut = agent.ask(&self.request, |line| lines.push(line))?;
        if cut && self.live.output != "json" {
            crate::ctl::commands::console::complain("there are more; --limit ended the answer");
        }
        (self.view.arrange)(lines)
    }

    fn print(&self, rows: &[Value]) -> Result<(), String> {
        let whole = || match rows {
            [one] if self.view.single => one.clone(),
            rows => Value::Array(rows.to_vec()),
        };
        match self.live.output.as_str() {
            "json" => line(format!("{:#}", whole())),
            "yaml" => out(&to_yaml(&whole())),
            _ => out(&(self.view.render)(rows, &self.screen())?),
        }
        Ok(())
    }

    fn screen(&self) -> Screen {
        Screen::new(self.live.output == "wide")
    }
}

/// A row of the protocol's type, whatever the line calls it.
fn typed<T: serde::de::DeserializeOwned>(row: &Value) -> Result<T, String> {
    serde_json::from_value(row.clone()).map_err(|e| {
        format!(
            "the agent's answer is not understood: {e}\nAgent and ctl are of different versions; use those that belong \
             together, or -o json"
        )
    })
}

/// What is inside a line `{"name": {...}}`.
fn unwrap(line: Value) -> Value {
    match line {
        Value::Object(map) if map.len() == 1 => map.into_iter().next().map_or(Value::Null, |(_, v)| v),
        other => other,
    }
}

/// Lines as rows, in their order.
#[allow(clippy::unnecessary_wraps, reason = "other arrangements can fail")]
fn in_order(lines: Vec<Value>) -> Result<Vec<Value>, String> {
    Ok(lines.into_iter().map(unwrap).collect())
}

fn text_of<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_default()
}
