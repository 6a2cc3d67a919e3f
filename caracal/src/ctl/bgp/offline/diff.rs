//! `bgp diff -f FILE`: what a change of objects would do to each node's sessions, before it is made.

use std::collections::{BTreeMap, BTreeSet};

use bird_intent::{DeriveError, Env, Facts, NodeConfig, derive};
use bird_speaker::{Config, ConfigDiff};
use ipnet::IpNet;
use serde::Serialize;

use super::read;
use crate::ctl::bgp::args::BgpDiff;
use crate::ctl::client::Client;
use crate::ctl::commands::console::{complain, line, out};
use crate::ctl::commands::{names, session, write};
use crate::ctl::output::table::columns;
use crate::ctl::output::yaml::to_yaml;

/// What happens to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Effect {
    /// It ends, and comes again with the new settings.
    Reset,
    /// It ends for good.
    End,
    /// It begins.
    New,
    /// It stays; routes are evaluated anew, and what differs is sent or withdrawn.
    Reevaluate,
    /// It stays; the change counts from the next session on.
    NextSession,
    /// It stays; the change counts at once and touches no route.
    AtOnce,
}

impl Effect {
    fn words(self) -> &'static str {
        match self {
            Effect::Reset => "resets",
            Effect::End => "ends",
            Effect::New => "begins",
            Effect::Reevaluate => "stays, routes are evaluated anew",
            Effect::NextSession => "stays, counts from the next session on",
            Effect::AtOnce => "stays, counts at once",
        }
    }
}

#[derive(Debug, Serialize)]
struct SessionChange {
    peer: String,
    effect: Effect,
    /// The fields behind it, as `bgp config` names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<String>,
}

/// What a node notices.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeChange {
    node: String,
    sessions: Vec<SessionChange>,
    /// Sessions that notice nothing.
    untouched: usize,
    /// Blocks and service ranges that are told from then on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    announces: Vec<IpNet>,
    /// And those that are told no more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    withdraws: Vec<IpNet>,
    /// It listens at another address or port.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    listens_elsewhere: bool,
    /// Its kernel routes are looked at again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    kernel_rules: bool,
    /// What would then not be followed as written, and is now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

impl NodeChange {
    fn is_empty(&self) -> bool {
        self.sessions.is_empty()
            && self.announces.is_empty()
            && self.withdraws.is_empty()
            && self.problems.is_empty()
            && !self.listens_elsewhere
            && !self.kernel_rules
    }
}

/// `bgp diff`.
pub(crate) async fn diff(arguments: &BgpDiff, allow_mismatch: bool) -> Result<bool, String> {
    let files = &arguments.files;
    let Some(objects) = write::read(files)? else { return Ok(true) };
    let client = session::open(&files.connection, allow_mismatch).await?;
    let before = read(&client, None, false).await?;
    let mut changes = Vec::new();
    for object in &objects {
        let named = |e: &dyn std::fmt::Display| {
            let name = object.value.pointer("/metadata/name").and_then(|n| n.as_str()).unwrap_or_default();
            format!("{}({name}): {e}", object.kind.name)
        };
        let value = names::settle(object, &files.namespace).map_err(|e| named(&e))?;
        changes.push(if arguments.delete {
            (Client::key_of(object.kind, &value), None)
        } else {
            let (key, bytes) = client.foretell(object.kind, &value).await.map_err(|e| named(&e))?;
            (key, Some(bytes))
        });
    }
    let after = with(&before, &changes);
    let nodes: BTreeSet<&str> = match &arguments.node {
        Some(node) => std::iter::once(node.as_str()).collect(),
        None => before.nodes().chain(after.nodes()).collect(),
    };
    let mut found = Vec::new();
    for node in &nodes {
        found.push(change(&before, &after, node)?);
    }
    let value = || serde_json::to_value(&found).map_err(|e| format!("cannot show the changes: {e}"));
    match arguments.output.as_str() {
        "json" => line(format!("{:#}", value()?)),
        "yaml" => out(&to_yaml(&value()?)),
        _ => out(&table(&found)),
    }
    Ok(true)
}

/// The facts after the change of some keys.
pub(super) fn with(before: &Facts, changes: &[(String, Option<Vec<u8>>)]) -> Facts {
    let mut after = before.clone();
    for (key, value) in changes {
        if let Some(problem) = after.update(key, value.as_deref()).problem {
            complain(format!("warning: {problem}"));
        }
    }
    after
}

/// What one node notices of the step from `before` to `after`.
pub(super) fn change(before: &Facts, after: &Facts, node: &str) -> Result<NodeChange, String> {
    let (old, new) = (of(before, node), of(after, node));
    if let (Err(missing), Err(_)) = (&old, &new) {
        return Err(missing.to_string());
    }
    let (old, new) = (old.ok(), new.ok());
    let speaker = |config: &Option<NodeConfig>| {
        config.as_ref().and_then(bird::rehearsal::speaker_config).unwrap_or_default()
    };
    let (was, is) = (speaker(&old), speaker(&new));
    let sessions = sessions(old.as_ref(), new.as_ref(), &was, &is);
    let told = |config: &Option<NodeConfig>| -> BTreeSet<IpNet> {
        config.iter().flat_map(|c| c.originates.iter().chain(&c.services)).copied().collect()
    };
    let (told_before, told_after) = (told(&old), told(&new));
    let listens = |c: &NodeConfig| (c.listen_port, c.listen_address_v4, c.listen_address_v6);
    let problems = |config: &Option<NodeConfig>| -> BTreeSet<String> {
        config.iter().flat_map(|c| &c.problems).map(ToString::to_string).collect()
    };
    let touched: BTreeSet<&str> = sessions.iter().map(|s| s.peer.as_str()).collect();
    Ok(NodeChange {
        node: node.to_owned(),
        untouched: is.peers.iter().filter(|p| !touched.contains(p.name.as_str())).count(),
        announces: told_after.difference(&told_before).copied().collect(),
        withdraws: told_before.difference(&told_after).copied().collect(),
        listens_elsewhere: matches!((&old, &new), (Some(a), Some(b)) if listens(a) != listens(b)),
        kernel_rules: old.is_some() && new.is_some() && was.kernel != is.kernel,
        problems: problems(&new).difference(&problems(&old)).cloned().collect(),
        sessions,
    })
}

/// What a node derives, with every password that is named taken as known to its agent.
fn of(facts: &Facts, node: &str) -> Result<NodeConfig, DeriveError> {
    let mut env = Env::from_lookup(&|name: &str| std::env::var(name).ok());
    env.secrets = facts.secrets().cloned().collect();
    derive(facts, node, &env)
}

fn sessions(
    old: Option<&NodeConfig>,
    new: Option<&NodeConfig>,
    was: &Config,
    is: &Config,
) -> Vec<SessionChange> {
    let diff = ConfigDiff::between(was, is);
    let mut found: BTreeMap<(String, Effect), Vec<String>> = BTreeMap::new();
    let mut put = |peer: &str, effect, fields: &[&str]| {
        let entry = found.entry((peer.to_owned(), effect)).or_default();
        entry.extend(fields.iter().map(|f| (*f).to_owned()));
    };
    for (peer, field) in &diff.reset {
        put(peer, Effect::Reset, &[in_our_words(field)]);
    }
    let secret = |config: Option<&NodeConfig>| -> BTreeMap<String, Option<bird_intent::SecretRef>> {
        config.into_iter().flat_map(|c| &c.peers).map(|p| (p.name.clone(), p.password_ref.clone())).collect()
    };
    let (secrets, new_secrets) = (secret(old), secret(new));
    let reset: BTreeSet<&str> = diff.reset.iter().map(|(peer, _)| peer.as_str()).collect();
    let rekeyed: BTreeSet<&str> = new_secrets
        .iter()
        .filter(|(peer, secret)| secrets.get(*peer).is_some_and(|s| s != *secret))
        .map(|(peer, _)| peer.as_str())
        .filter(|peer| !reset.contains(peer))
        .collect();
    for peer in &rekeyed {
        put(peer, Effect::Reset, &["password"]);
    }
    diff.removed.iter().for_each(|peer| put(peer, Effect::End, &[]));
    diff.added.iter().for_each(|peer| put(peer, Effect::New, &[]));
    let stays = |peer: &&String| !rekeyed.contains(peer.as_str());
    diff.reevaluated.iter().filter(stays).for_each(|peer| put(peer, Effect::Reevaluate, &[]));
    for (list, effect) in [(&diff.next_session, Effect::NextSession), (&diff.at_once, Effect::AtOnce)] {
        for (peer, fields) in list.iter().filter(|(peer, _)| stays(&peer)) {
            let fields: Vec<&str> = fields.iter().map(|f| in_our_words(f)).collect();
            put(peer, effect, &fields);
        }
    }
    found.into_iter().map(|((peer, effect), fields)| SessionChange { peer, effect, fields }).collect()
}

/// The speaker's name of a field as `bgp config` writes it.
fn in_our_words(field: &'static str) -> &'static str {
    match field {
        "local.router_id" => "routerId",
        "local_as" => "localAsNumber",
        "remote_as" => "asNumber",
        "source_address" => "sourceAddress",
        "ttl_security" => "ttlSecurity",
        "keepalive" => "keepaliveSeconds",
        "graceful_restart.restart_time" => "gracefulRestartSeconds",
        other => other,
    }
}

/// The changes as a table, nodes that notice nothing only counted.
pub(super) fn table(found: &[NodeChange]) -> String {
    let mut rows = Vec::new();
    let mut row = |node: &str, what: String, happens: String, because: String| {
        rows.push(vec![node.to_owned(), what, happens, because]);
    };
    let list = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    for change in found {
        for session in &change.sessions {
            let because = if session.fields.is_empty() { "-".to_owned() } else { session.fields.join(", ") };
            row(&change.node, session.peer.clone(), session.effect.words().to_owned(), because);
        }
        if !change.announces.is_empty() {
            row(&change.node, "(all)".into(), "are told more".into(), list(&change.announces));
        }
        if !change.withdraws.is_empty() {
            row(&change.node, "(all)".into(), "are told no more".into(), list(&change.withdraws));
        }
        if change.listens_elsewhere {
            row(&change.node, "-".into(), "listens elsewhere from then on".into(), "-".into());
        }
        if change.kernel_rules {
            row(&change.node, "-".into(), "looks at its kernel routes again".into(), "-".into());
        }
        for problem in &change.problems {
            row(&change.node, "-".into(), "does not follow".into(), problem.clone());
        }
    }
    let count = |effect| found.iter().flat_map(|c| &c.sessions).filter(|s| s.effect == effect).count();
    let untouched: usize = found.iter().map(|c| c.untouched).sum();
    let quiet = found.iter().filter(|c| c.is_empty()).count();
    let summary = format!(
        "{} sessions reset, {} end, {} begin, {} evaluate their routes anew, {untouched} notice nothing; {quiet} of {} nodes notice nothing.\n",
        count(Effect::Reset),
        count(Effect::End),
        count(Effect::New),
        count(Effect::Reevaluate),
        found.len(),
    );
    if rows.is_empty() {
        return summary;
    }
    columns(&["NODE", "PEER", "SESSION", "BECAUSE"], &rows) + &summary
}
