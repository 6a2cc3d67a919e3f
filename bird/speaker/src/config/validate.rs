//! What makes a configuration contradict itself.

use super::Config;

/// One contradiction in a [`Config`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {reason}; {fix}")]
pub struct ConfigError {
    /// Peer name, or `config`.
    pub object: String,
    /// Field path.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
    /// What to do.
    pub fix: &'static str,
}

impl Config {
    /// Every contradiction that would keep a session from coming up or make two of them one.
    pub fn validate(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let mut fail = |object: &str, field, reason: String, fix| {
            errors.push(ConfigError { object: object.to_owned(), field, reason, fix });
        };
        if self.local.asn == 0 {
            fail("config", "local.asn", "AS 0 is reserved (RFC 7607)".into(), "set an AS number");
        }
        if self.local.router_id.is_unspecified() {
            fail(
                "config",
                "local.router_id",
                "0.0.0.0 is not a router id (RFC 6286)".into(),
                "set CALICO_ROUTER_ID or an IPv4 address for the node",
            );
        }
        let mut own = std::collections::BTreeSet::new();
        let statics = self.originated.iter().map(|o| o.prefix.trunc());
        for prefix in statics.chain(self.aggregates.iter().map(|a| a.prefix.trunc())) {
            if !own.insert(prefix) {
                fail(
                    "config",
                    "aggregates",
                    format!("{prefix} is there twice"),
                    "name a prefix once, as static or as aggregate",
                );
            }
        }
        let mut names = std::collections::BTreeSet::new();
        for peer in &self.peers {
            let name = peer.name.as_str();
            if !names.insert(name) {
                fail(name, "name", "two peers have this name".into(), "rename one of them");
            }
            if peer.remote_as == 0 && !peer.remote_external {
                fail(name, "remote_as", "AS 0 is reserved (RFC 7607)".into(), "set the peer's AS number");
            }
            if peer.hold_time != 0 && peer.hold_time < 3 {
                fail(
                    name,
                    "hold_time",
                    format!("{} s is below the 3 s that RFC 4271 allows", peer.hold_time),
                    "use 0 or at least 3",
                );
            }
            if !peer.families.ipv4 && !peer.families.ipv6 {
                fail(name, "families", "no address family".into(), "enable ipv4 or ipv6");
            }
            if peer.graceful_restart.restart_time > 4095 {
                fail(
                    name,
                    "graceful_restart.restart_time",
                    format!("{} s does not fit 12 bits", peer.graceful_restart.restart_time),
                    "use at most 4095",
                );
            }
            if peer.graceful_restart.long_lived.stale_time > 0x00ff_ffff {
                fail(
                    name,
                    "graceful_restart.long_lived.stale_time",
                    format!("{} s does not fit 24 bits", peer.graceful_restart.long_lived.stale_time),
                    "use at most 16777215, which is 194 days",
                );
            }
            if peer.address.is_unspecified() {
                fail(name, "address", "no address".into(), "set the peer's address");
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ListenRange, PeerConfig};

    #[test]
    fn a_name_is_configured_or_of_a_range() {
        let named = |name: &str| PeerConfig { name: name.into(), ..PeerConfig::default() };
        let range =
            |text: &str, name| ListenRange { range: text.parse().unwrap(), template: named(name), limit: 9 };
        let config = Config {
            peers: vec![named("tor")],
            listen_ranges: vec![range("10.1.0.0/24", "hosts"), range("fd00::/64", "six_hosts")],
            ..Config::default()
        };
        for (name, known) in [
            ("tor", true),
            ("hosts_10.1.0.7", true),
            ("six_hosts_fd00::7", true),
            ("hosts_10.2.0.7", false),
            ("hosts_fd00::7", false),
            ("hosts", false),
            ("hosts_", false),
            ("10.1.0.7", false),
            ("other_10.1.0.7", false),
        ] {
            assert_eq!(config.may_have_peer(name), known, "{name}");
        }
        let range = &config.listen_ranges[0];
        assert!(range.may_be(&range.name_of("10.1.0.255".parse().unwrap())));
    }

    #[test]
    fn contradictions_are_named_with_field_and_fix() {
        let mut config = Config::default();
        config.peers.push(PeerConfig { name: "a".into(), hold_time: 2, ..PeerConfig::default() });
        config.peers.push(PeerConfig { name: "a".into(), ..PeerConfig::default() });
        let errors = config.validate();
        let fields: Vec<_> = errors.iter().map(|e| e.field).collect();
        assert_eq!(
            fields,
            ["local.router_id", "remote_as", "hold_time", "address", "name", "remote_as", "address"]
        );
        assert!(errors[2].to_string().contains("a: hold_time: 2 s is below"));
    }
}
