//! Policy as data: Calico's BGPFilter rules, and their evaluation.
//!
//! A filter is a list of rules; the first rule that matches gives the verdict, a chain of filters gives the first verdict of
//! its first filter that has one. What happens without a verdict is the caller's: import accepts, export asks
//! [`crate::config::ExportRules`].

pub(crate) mod eval;

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The four lists of rules of one named filter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FilterSet {
    /// Rules for IPv4 routes that a peer sends.
    pub import_v4: Vec<Rule>,
    /// Rules for IPv4 routes told to a peer.
    pub export_v4: Vec<Rule>,
    /// Rules for IPv6 routes that a peer sends.
    pub import_v6: Vec<Rule>,
    /// Rules for IPv6 routes told to a peer.
    pub export_v6: Vec<Rule>,
}

/// One rule: all conditions that are given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    /// The verdict.
    pub action: Action,
    /// Prefix compared by `match_operator`.
    pub cidr: Option<IpNet>,
    /// How `cidr` is compared; with a `cidr` and none here, [`MatchOperator::In`].
    pub match_operator: Option<MatchOperator>,
    /// Lengths that count as inside `cidr`.
    pub prefix_length: Option<PrefixLength>,
    /// Only routes learned from BGP peers.
    pub source: Option<Source>,
    /// Glob on the route's interface: of a local route, or of the resolved next hop.
    pub interface: Option<String>,
    /// Only on sessions of this kind.
    pub peer_type: Option<PeerType>,
    /// The route carries this community.
    pub community: Option<Community>,
    /// The AS path begins with these.
    pub as_path_prefix: Option<Vec<u32>>,
    /// The route's metric (2147483647 - LOCAL_PREF) is this.
    pub priority: Option<u32>,
    /// What an accepting rule changes, in order.
    pub operations: Vec<Operation>,
}

/// Verdict of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Action {
    /// Take the route.
    #[default]
    Accept,
    /// Do not.
    Reject,
}

/// How prefixes are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MatchOperator {
    /// The same prefix.
    Equal,
    /// Another prefix.
    NotEqual,
    /// The same or inside.
    In,
    /// Neither the same nor inside.
    NotIn,
}

/// Bounds of a prefix length, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixLength {
    /// Shortest.
    pub min: u8,
    /// Longest.
    pub max: u8,
}

/// Where a route must come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// Any BGP peer.
    RemotePeers,
}

/// Kind of session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerType {
    /// External.
    #[serde(rename = "eBGP")]
    External,
    /// Internal.
    #[serde(rename = "iBGP")]
    Internal,
}

/// A change that an accepting rule makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "WrittenOperation")]
pub enum Operation {
    /// Attach a community.
    AddCommunity(Community),
    /// Put these in front of the AS path, first first.
    #[serde(rename = "prependASPath")]
    PrependAsPath(Vec<u32>),
    /// LOCAL_PREF becomes 2147483647 - this.
    SetPriority(u32),
}

/// An operation as it is written: as BGPFilter has it (`addCommunity: {value: "1:2"}`), or short (`addCommunity: "1:2"`).
///
/// A map with one key each, because YAML would want a tag for an enum.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenOperation {
    add_community: Option<Written<Community>>,
    #[serde(rename = "prependASPath")]
    prepend_as_path: Option<Written<Vec<u32>>>,
    set_priority: Option<Written<u32>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written<T> {
    Short(T),
    Value { value: T },
    Prefix { prefix: T },
}

impl<T> Written<T> {
    fn into_inner(self) -> T {
        match self {
            Written::Short(inner) | Written::Value { value: inner } | Written::Prefix { prefix: inner } => {
                inner
            }
        }
    }
}

impl TryFrom<WrittenOperation> for Operation {
    type Error = &'static str;

    fn try_from(written: WrittenOperation) -> Result<Self, &'static str> {
        match (written.add_community, written.prepend_as_path, written.set_priority) {
            (Some(add), None, None) => Ok(Operation::AddCommunity(add.into_inner())),
            (None, Some(prepend), None) => Ok(Operation::PrependAsPath(prepend.into_inner())),
            (None, None, Some(set)) => Ok(Operation::SetPriority(set.into_inner())),
            _ => Err("an operation is exactly one of addCommunity, prependASPath and setPriority"),
        }
    }
}

/// A standard (`a:b`) or large (`a:b:c`) community.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997.
    Standard(u16, u16),
    /// RFC 8092.
    Large(u32, u32, u32),
}

/// A text that is no community.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("community {0:?} is neither a:b (16 bit each) nor a:b:c (32 bit each)")]
pub struct BadCommunity(pub String);

impl FromStr for Community {
    type Err = BadCommunity;

    fn from_str(text: &str) -> Result<Self, BadCommunity> {
        let bad = || BadCommunity(text.to_owned());
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [a, b] => Ok(Community::Standard(a.parse().map_err(|_| bad())?, b.parse().map_err(|_| bad())?)),
            [a, b, c] => Ok(Community::Large(
                a.parse().map_err(|_| bad())?,
                b.parse().map_err(|_| bad())?,
                c.parse().map_err(|_| bad())?,
            )),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Community::Standard(a, b) => write!(f, "{a}:{b}"),
            Community::Large(a, b, c) => write!(f, "{a}:{b}:{c}"),
        }
    }
}

impl Serialize for Community {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Community {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether `pattern`, in which `*` stands for any text, matches the whole of `name`.
pub fn glob(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(previous) = last.replace(part) {
            match rest.find(previous) {
                Some(at) => rest = &rest[at + previous.len()..],
                None => return false,
            }
        }
    }
    match last {
        None => rest.is_empty(),
        Some(tail) => rest.ends_with(tail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, name, matches) in [
            ("cali*", "cali123", true),
            ("cali*", "xcali", false),
            ("*.cali", "wireguard.cali", true),
            ("*.cali", "wireguard.calico", false),
            ("bpf*.cali", "bpfin.cali", true),
            ("tunl0", "tunl0", true),
            ("tunl0", "tunl01", false),
            ("*", "", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(glob(pattern, name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn communities_read_and_print() {
        for text in ["65000:1", "65000:1:2"] {
            assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
        }
        for text in ["", "1", "65536:1", "1:2:3:4", "a:b"] {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
    }
}
