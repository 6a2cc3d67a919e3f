//! `bgp explain PREFIX --node N`: whether and why the node would tell its peers a prefix.

use bird::rehearsal::{Telling, rehearse};
use bird_intent::{Family, Peer};
use bird_speaker::ImportReason;
use ipnet::IpNet;
use serde::Serialize;
use serde_json::Value;

use super::args::Supposed;
use super::route::{self, Found};
use super::{Picture, read, why};
use crate::ctl::bgp::args::BgpExplain;
use crate::ctl::commands::console::{line, out};
use crate::ctl::commands::session;
use crate::ctl::output::table::columns;
use crate::ctl::output::yaml::to_yaml;

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    node: String,
    prefix: IpNet,
    /// How the node has the route.
    route: String,
    /// The datastore does not say that the node has it.
    supposed: bool,
    /// What import says, for a learned route.
    #[serde(skip_serializing_if = "Option::is_none")]
    import: Option<ImportReason>,
    peers: Vec<PeerAnswer>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PeerAnswer {
    peer: String,
    /// None of a peer that the node finds.
    #[serde(skip_serializing_if = "std::net::IpAddr::is_unspecified")]
    address: std::net::IpAddr,
    as_number: u32,
    internal: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    bgp_peer: Option<String>,
    exported: bool,
    reason: Value,
    /// Filter and number of the rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    told: Option<Told>,
}

/// What the peer is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_hop: Option<std::net::IpAddr>,
    as_path: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_pref: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    communities: Vec<String>,
}

/// `bgp explain --node`.
pub(crate) async fn explain(
    arguments: &BgpExplain,
    node: &str,
    allow_mismatch: bool,
) -> Result<bool, String> {
    let single = single(&arguments.prefix)?;
    let client = session::open(&arguments.connection, allow_mismatch).await?;
    let picture = Picture::of(read(&client, Some(node), single).await?, node)?;
    let answer = ask(&picture, &arguments.prefix, arguments.peer.as_deref(), &arguments.supposed)?;
    let value = || serde_json::to_value(&answer).map_err(|e| format!("cannot show the answer: {e}"));
    match arguments.live.output.as_str() {
        "json" => line(format!("{:#}", value()?)),
        "yaml" => out(&to_yaml(&value()?)),
        _ => show(&answer),
    }
    Ok(true)
}

/// The answer about a prefix and a peer, or all peers.
pub(super) fn ask(
    picture: &Picture,
    text: &str,
    peer: Option<&str>,
    supposed: &Supposed,
) -> Result<Answer, String> {
    let prefix = prefix(text)?;
    let found = route::find(picture, prefix, supposed)?;
    answer(picture, &found, &chosen(picture, prefix, peer)?)
}

/// Whether the prefix is a single address, so that workloads matter.
fn single(text: &str) -> Result<bool, String> {
    prefix(text).map(|net| net.prefix_len() == net.max_prefix_len())
}

/// A prefix, or an address as the prefix of itself.
fn prefix(text: &str) -> Result<IpNet, String> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => text
            .parse::<std::net::IpAddr>()
            .map(IpNet::from)
            .map_err(|_| format!("{text} is neither a prefix, as 10.0.0.0/26, nor an address"))?,
    };
    if net != net.trunc() {
        return Err(format!("{net} has bits set behind its length; did you mean {}?", net.trunc()));
    }
    Ok(net)
}

/// The peers meant: by name, by address, by BGPPeer; without a word, all that carry the family.
fn chosen<'p>(picture: &'p Picture, prefix: IpNet, wanted: Option<&str>) -> Result<Vec<&'p Peer>, String> {
    let all = &picture.derived.peers;
    let Some(wanted) = wanted else {
        return Ok(all.iter().filter(|p| p.carries(Family::of_net(&prefix))).collect());
    };
    let meant = |p: &&Peer| {
        p.name == wanted || p.address.to_string() == wanted || p.bgp_peer.as_deref() == Some(wanted)
    };
    let found: Vec<&Peer> = all.iter().filter(meant).collect();
    if found.is_empty() {
        let names: Vec<&str> = all.iter().map(|p| p.name.as_str()).collect();
        let node = &picture.derived.node;
        return Err(match names.as_slice() {
            [] => format!("node {node} has no peers"),
            names => format!("node {node} has no peer {wanted}; its peers are {}", names.join(", ")),
        });
    }
    Ok(found)
}

fn answer(picture: &Picture, found: &Found, peers: &[&Peer]) -> Result<Answer, String> {
    let names: Vec<String> = peers.iter().map(|p| p.name.clone()).collect();
    let rehearsed = rehearse(picture.speaker.clone(), &picture.own, &found.route, &names)?;
    let prefix = found.route.prefix;
    let peers = rehearsed
        .peers
        .iter()
        .filter_map(|telling| {
            let peer = peers.iter().find(|p| p.name == telling.peer)?;
            Some(peer_answer(picture, peer, prefix, telling))
        })
        .collect();
    Ok(Answer {
        node: picture.derived.node.clone(),
        prefix,
        route: found.words.clone(),
        supposed: found.supposed,
        import: rehearsed.import,
        peers,
    })
}

fn peer_answer(picture: &Picture, peer: &Peer, prefix: IpNet, telling: &Telling) -> PeerAnswer {
    PeerAnswer {
        peer: peer.name.clone(),
        address: peer.address,
        as_number: peer.as_number,
        internal: peer.internal,
        bgp_peer: peer.bgp_peer.clone(),
        exported: telling.exported,
        reason: serde_json::to_value(telling.reason).unwrap_or_default(),
        rule: telling.rule.clone(),
        why: why::sentence(&picture.derived, peer, prefix, telling),
        told: telling.told.as_ref().map(|told| Told {
            next_hop: told.next_hop.filter(|n| !n.is_unspecified()),
            as_path: told.attrs.as_path.clone(),
            local_pref: told.attrs.local_pref,
            communities: told
                .attrs
                .communities
                .iter()
                .chain(&told.attrs.large_communities)
                .cloned()
                .collect(),
        }),
    }
}

fn show(answer: &Answer) {
    line(format!("{} on node {}: {}", answer.prefix, answer.node, answer.route));
    if let Some(import) = answer.import.filter(|i| *i != ImportReason::Accepted) {
        let reason = serde_json::to_value(import).unwrap_or_default();
        line(format!("import does not take it: {}", reason.as_str().unwrap_or_default()));
    }
    line("");
    let rows: Vec<Vec<String>> = answer
        .peers
        .iter()
        .map(|p| {
            let told = p.told.as_ref();
            let communities = told.map(|t| t.communities.join(" ")).unwrap_or_default();
            vec![
                p.peer.clone(),
                if p.internal { "iBGP" } else { "eBGP" }.to_owned(),
                if p.exported { "yes" } else { "no" }.to_owned(),
                p.why.clone(),
                told.and_then(|t| t.next_hop).map_or_else(|| "-".into(), |n| n.to_string()),
                if communities.is_empty() { "-".into() } else { communities },
            ]
        })
        .collect();
    out(&columns(&["PEER", "TYPE", "TOLD", "WHY", "NEXTHOP", "COMMUNITIES"], &rows));
}
