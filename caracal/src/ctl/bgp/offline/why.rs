//! The reason of a verdict in a sentence, with the object that decided.

use bird::rehearsal::Telling;
use bird_intent::{NodeConfig, Peer};
use bird_speaker::ExportReason;
use ipnet::IpNet;

/// Why `peer` is told `prefix`, or not.
pub(super) fn sentence(config: &NodeConfig, peer: &Peer, prefix: IpNet, telling: &Telling) -> String {
    let rule = telling.rule.as_deref().unwrap_or("a rule");
    let inside = |list: &[IpNet]| {
        let around = list.iter().filter(|net| net.contains(&prefix)).max_by_key(|net| net.prefix_len());
        around.map_or_else(|| "a range".to_owned(), ToString::to_string)
    };
    let object =
        peer.bgp_peer.as_deref().map_or_else(|| peer.name.clone(), |name| format!("BGPPeer({name})"));
    match telling.reason {
        ExportReason::FilterAccepts => format!("BGPFilter {rule} accepts it"),
        ExportReason::FilterRejects => format!("BGPFilter {rule} rejects it"),
        ExportReason::Router => "a plain router tells what it knows".into(),
        ExportReason::OwnBlock => "a block of this node".into(),
        ExportReason::Elevated => {
            format!("inside block {}, but with a better than normal priority", inside(&config.originates))
        }
        ExportReason::Service => format!("inside the service range {}", inside(&config.services)),
        ExportReason::Pool => format!("inside {}, which may be told", inside(&config.export_within)),
        ExportReason::NeverExport => {
            format!("inside pool {}, which has disableBGPExport", inside(&config.never_export))
        }
        ExportReason::InternalInterface => {
            format!(
                "its interface is one of {}, which internal peers are not told",
                config.internal_never_export_interfaces.join(", ")
            )
        }
        ExportReason::Interface => "its interface belongs to the eBPF dataplane (bpf*.cali)".into(),
        ExportReason::InsideOwnBlock => {
            format!("inside block {}, which is told in its place", inside(&config.originates))
        }
        ExportReason::Default => {
            "outside every pool, block and service range, and no BGPFilter accepts it".into()
        }
        ExportReason::ScopeOwn => {
            format!("caracal.io/export: own of {object} leaves only what this node itself has")
        }
        ExportReason::ScopeNoTransit => {
            format!("caracal.io/export: no-transit of {object} leaves out what another external peer told")
        }
        ExportReason::NoAdvertise => "it carries the community NO_ADVERTISE".into(),
        ExportReason::NoExport => "it carries the community NO_EXPORT and the peer is external".into(),
        ExportReason::InternalToInternal => {
            "an internal peer told it, and this node reflects for neither of the two".into()
        }
        ExportReason::LongLivedStale => "it is long-lived stale, which this peer does not know of".into(),
        ExportReason::NextHop => "this session can carry no next hop of the route's kind".into(),
        ExportReason::NoPolicy => "the peer is external and has no export filter (RFC 8212)".into(),
        ExportReason::Restarting => "learned routes wait for the end of the restart".into(),
        ExportReason::SplitHorizon => "this peer is the one that told it".into(),
        ExportReason::NoPath => "the node has no usable path".into(),
        ExportReason::FamilyOff => "the session carries the other address family".into(),
        reason => reason.to_string(),
    }
}
