//! What a new configuration does to each session, before it is done.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::config::{Config, PeerConfig};
use crate::reconfigure::reset_field;

/// What a new configuration does to the peers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ConfigDiff {
    /// New peers.
    pub added: Vec<String>,
    /// Peers that are gone.
    pub removed: Vec<String>,
    /// Peers whose session must end because of a field, which is named.
    pub reset: Vec<(String, &'static str)>,
    /// Peers whose routes are evaluated anew; the session stays.
    pub reevaluated: Vec<String>,
    /// Peers with fields that count from the next session on; the present one stays as it is.
    pub next_session: Vec<(String, Vec<&'static str>)>,
    /// Peers with fields that count at once and touch no route: timers.
    pub at_once: Vec<(String, Vec<&'static str>)>,
}

impl ConfigDiff {
    /// From one configuration to another, for configured peers.
    pub fn between(old: &Config, new: &Config) -> ConfigDiff {
        let mut diff = ConfigDiff::default();
        let before: BTreeMap<&str, &PeerConfig> = old.peers.iter().map(|p| (p.name.as_str(), p)).collect();
        for peer in &new.peers {
            let Some(was) = before.get(peer.name.as_str()) else {
                diff.added.push(peer.name.clone());
                continue;
            };
            if let Some(field) = reset_field(was, peer, &old.local, &new.local) {
                diff.reset.push((peer.name.clone(), field));
                continue;
            }
            let (next_session, at_once) = (next_session(was, peer), at_once(was, peer));
            // Whatever is no timer bears on routes.
            let other = with_timers_of(was, peer) != *peer;
            if other || old.export != new.export || filters_changed(old, new, peer) {
                diff.reevaluated.push(peer.name.clone());
            }
            for (list, fields) in [(&mut diff.next_session, next_session), (&mut diff.at_once, at_once)] {
                if !fields.is_empty() {
                    list.push((peer.name.clone(), fields));
                }
            }
        }
        let after: BTreeSet<&str> = new.peers.iter().map(|p| p.name.as_str()).collect();
        diff.removed.extend(before.keys().filter(|n| !after.contains(*n)).map(|n| (*n).to_owned()));
        diff
    }

    /// No peer notices anything.
    pub fn is_empty(&self) -> bool {
        *self == ConfigDiff::default()
    }
}

fn differing(fields: impl IntoIterator<Item = (bool, &'static str)>) -> Vec<&'static str> {
    fields.into_iter().filter_map(|(differs, name)| differs.then_some(name)).collect()
}

fn next_session(old: &PeerConfig, new: &PeerConfig) -> Vec<&'static str> {
    differing([
        (old.hold_time != new.hold_time, "hold_time"),
        (old.extended_message != new.extended_message, "extended_message"),
        (
            old.graceful_restart.restart_time != new.graceful_restart.restart_time,
            "graceful_restart.restart_time",
        ),
        (
            old.graceful_restart.notification != new.graceful_restart.notification,
            "graceful_restart.notification",
        ),
        (old.graceful_restart.long_lived != new.graceful_restart.long_lived, "graceful_restart.long_lived"),
    ])
}

fn at_once(old: &PeerConfig, new: &PeerConfig) -> Vec<&'static str> {
    differing([
        (old.keepalive != new.keepalive, "keepalive"),
        (old.connect_retry != new.connect_retry, "connect_retry"),
        (old.error_wait != new.error_wait, "error_wait"),
        (old.send_hold != new.send_hold, "send_hold"),
        (old.passive != new.passive, "passive"),
        (old.patience != new.patience, "patience"),
        (old.graceful_restart.stale_time != new.graceful_restart.stale_time, "graceful_restart.stale_time"),
        (old.prefix_limit != new.prefix_limit, "prefix_limit"),
        (old.bfd != new.bfd, "bfd"),
    ])
}

/// The old settings, but with the new timers: what still differs bears on routes.
fn with_timers_of(old: &PeerConfig, new: &PeerConfig) -> PeerConfig {
    let mut mixed = old.clone();
    mixed.hold_time = new.hold_time;
    mixed.extended_message = new.extended_message;
    mixed.graceful_restart = new.graceful_restart;
    mixed.keepalive = new.keepalive;
    mixed.connect_retry = new.connect_retry;
    mixed.error_wait = new.error_wait;
    mixed.send_hold = new.send_hold;
    mixed.passive = new.passive;
    mixed.patience = new.patience;
    mixed.prefix_limit = new.prefix_limit;
    mixed.bfd = new.bfd;
    mixed
}

/// Whether a filter that the peer names changed.
fn filters_changed(old: &Config, new: &Config, peer: &PeerConfig) -> bool {
    let names = peer.import.iter().chain(&peer.export);
    names.into_iter().any(|name| old.filters.get(name) != new.filters.get(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ExportRules, ExportScope, NodeExport};
    use crate::policy::{Action, FilterSet, Rule};

    fn config(edit: impl Fn(&mut Config)) -> Config {
        let peer = |name: &str, filter: &str| PeerConfig {
            name: name.into(),
            remote_as: 65001,
            export: vec![filter.into()],
            ..PeerConfig::default()
        };
        let mut config = Config { peers: vec![peer("a", "f"), peer("b", "g")], ..Config::default() };
        let reject = Rule { action: Action::Reject, ..Rule::default() };
        for name in ["f", "g"] {
            let set = FilterSet { export_v4: vec![reject.clone()], ..FilterSet::default() };
            config.filters.insert(name.into(), set);
        }
        edit(&mut config);
        config
    }

    type Edit = fn(&mut Config);

    #[test]
    fn each_change_says_what_it_does_to_whom() {
        let old = config(|_| {});
        assert!(ConfigDiff::between(&old, &old).is_empty());
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let fields = |peer: &str, field: &'static str| vec![(peer.to_owned(), vec![field])];
        let cases: [(Edit, ConfigDiff); 9] = [
            (
                |c| c.peers[0].remote_as = 65002,
                ConfigDiff { reset: vec![("a".into(), "remote_as")], ..ConfigDiff::default() },
            ),
            (
                |c| c.local.router_id = "192.0.2.1".parse().unwrap(),
                ConfigDiff {
                    reset: vec![("a".into(), "local.router_id"), ("b".into(), "local.router_id")],
                    ..ConfigDiff::default()
                },
            ),
            (
                |c| c.filters.get_mut("g").unwrap().export_v4.clear(),
                ConfigDiff { reevaluated: names(&["b"]), ..ConfigDiff::default() },
            ),
            (
                |c| {
                    c.filters.insert("unused".into(), FilterSet::default());
                },
                ConfigDiff::default(),
            ),
            (
                |c| c.peers[1].export_scope = ExportScope::Own,
                ConfigDiff { reevaluated: names(&["b"]), ..ConfigDiff::default() },
            ),
            (
                |c| c.peers[0].keepalive = Some(1),
                ConfigDiff { at_once: fields("a", "keepalive"), ..ConfigDiff::default() },
            ),
            (
                |c| c.peers[0].hold_time = 9,
                ConfigDiff { next_session: fields("a", "hold_time"), ..ConfigDiff::default() },
            ),
            (
                |c| c.peers[0].name = "z".into(),
                ConfigDiff { added: names(&["z"]), removed: names(&["a"]), ..ConfigDiff::default() },
            ),
            (
                |c| c.export = ExportRules::Node(NodeExport::default()),
                ConfigDiff { reevaluated: names(&["a", "b"]), ..ConfigDiff::default() },
            ),
        ];
        for (i, (edit, want)) in cases.into_iter().enumerate() {
            assert_eq!(ConfigDiff::between(&old, &config(edit)), want, "case {i}");
        }
    }
}
