//! Path attributes in words.

use std::net::Ipv4Addr;

use bird_packet::AttrSet;
use serde::{Deserialize, Serialize};

/// Path attributes in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttrsView {
    /// ORIGIN.
    pub origin: String,
    /// AS numbers, nearest first; sets in their places.
    pub as_path: Vec<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MED.
    pub med: Option<u32>,
    /// Standard communities.
    pub communities: Vec<String>,
    /// Large communities.
    pub large_communities: Vec<String>,
    /// Extended communities: `rt:…` and `ro:…`, others as 16 hexadecimal digits.
    #[serde(default)]
    pub ext_communities: Vec<String>,
    /// ORIGINATOR_ID.
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST.
    pub cluster_list: Vec<Ipv4Addr>,
    /// ATOMIC_AGGREGATE.
    #[serde(default)]
    pub atomic_aggregate: bool,
    /// AGGREGATOR: its AS and router id.
    #[serde(default)]
    pub aggregator: Option<(u32, Ipv4Addr)>,
}

/// The attributes of a path; `local_pref` stands for one that it does not carry.
pub(super) fn attrs_view(attrs: AttrSet<'_>, local_pref: Option<u32>) -> AttrsView {
    AttrsView {
        origin: attrs.origin().to_string(),
        as_path: attrs.as_path().asns().collect(),
        local_pref: attrs.local_pref().or(local_pref),
        med: attrs.med(),
        communities: attrs.communities().map(|c| format!("{}:{}", c >> 16, c & 0xffff)).collect(),
        large_communities: attrs.large_communities().map(|c| c.to_string()).collect(),
        ext_communities: attrs.ext_communities().map(ext_community).collect(),
        originator_id: attrs.originator_id(),
        cluster_list: attrs.cluster_list().collect(),
        atomic_aggregate: attrs.atomic_aggregate(),
        aggregator: attrs.aggregator(),
    }
}

/// Route targets and origins as operators write them (RFC 4360 §4, §5; RFC 5668).
fn ext_community(octets: [u8; 8]) -> String {
    let two = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
    let four = |at: usize| u32::from(two(at)) << 16 | u32::from(two(at + 2));
    let name = match octets[1] {
        2 => "rt",
        3 => "ro",
        _ => "",
    };
    match octets[0] & 0xbf {
        0 if !name.is_empty() => format!("{name}:{}:{}", two(2), four(4)),
        1 if !name.is_empty() => format!("{name}:{}:{}", Ipv4Addr::from(four(2)), two(6)),
        2 if !name.is_empty() => format!("{name}:{}:{}", four(2), two(6)),
        _ => format!("{:016x}", u64::from_be_bytes(octets)),
    }
}
