//! Resources as they are stored, to facts. Whatever cannot be followed is an error that names field, reason and fix.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use caracal_model::annotation::{self, BgpSettings, Named, Sought, Wrong};
use caracal_model::selector::Selector;
use caracal_model::{
    BgpConfiguration, BgpConfigurationSpec, BgpFilter, BgpFilterAction, BgpFilterOperation, BgpFilterRule,
    BgpPassword, BgpPeer, BgpPeerSpec, BindMode, EncapMode, FilterPeerType, IpPool, Kind, Node,
    ProgramClusterRoutes, ReversePeering, ServiceAggregation, SourceAddress, WorkloadEndpoint,
    duration::GoDuration,
};
use ipnet::IpNet;

use crate::config::{
    Action, Community, CommunityRule, ExportScope, Family, Filter, LogLevel, MatchOperator, NextHopMode,
    Operation, PeerScope, PrefixLength, RouteSource, Rule, SecretRef,
};
use crate::facts::{
    Annotations, ConfigFact, Encapsulation, Locals, NodeFact, PeerFact, PoolFact, Programs, Remote,
    WorkloadFact,
};

/// Narrows what a peer is told.
const EXPORT_ANNOTATION: &str = "caracal.io/export";

/// A field that cannot be followed.
#[derive(Debug)]
pub(crate) struct BadField {
    pub(crate) field: String,
    pub(crate) reason: String,
    pub(crate) fix: &'static str,
}

impl From<Wrong> for BadField {
    fn from(wrong: Wrong) -> Self {
        Self { field: wrong.field, reason: wrong.reason, fix: wrong.fix }
    }
}

type Result<T> = std::result::Result<T, BadField>;

fn bad<T>(field: impl Into<String>, reason: impl Into<String>, fix: &'static str) -> Result<T> {
    Err(BadField { field: field.into(), reason: reason.into(), fix })
}

pub(crate) fn node(node: &Node) -> Result<NodeFact> {
    let mut fact = NodeFact { labels: node.metadata.labels.clone(), ..NodeFact::default() };
    if let Some(bgp) = &node.spec.bgp {
        fact.v4 = host(bgp.ipv4_address.as_deref(), Family::Ipv4, "spec.bgp.ipv4Address")?;
        fact.v6 = host(bgp.ipv6_address.as_deref(), Family::Ipv6, "spec.bgp.ipv6Address")?;
        fact.as_number = bgp.as_number.map(|a| a.0).filter(|a| *a != 0);
        fact.cluster_id = match bgp.route_reflector_cluster_id.as_deref() {
            None | Some("") => None,
            Some(text) => Some(parse::<Ipv4Addr>(
                text,
                "spec.bgp.routeReflectorClusterID",
                "write it as an IPv4 address",
            )?),
        };
    }
    if let Some(wireguard) = &node.spec.wireguard {
        let set = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
        fact.wireguard_v4 = set(&wireguard.interface_ipv4_address);
        fact.wireguard_v6 = set(&wireguard.interface_ipv6_address);
    }
    Ok(fact)
}

pub(crate) fn peer(peer: &BgpPeer) -> Result<PeerFact> {
    let spec = &peer.spec;
    let locals = match (word(spec.node.as_ref()), word(spec.node_selector.as_ref())) {
        (Some(_), Some(_)) => {
            return bad("spec.node", "is set together with nodeSelector", "keep one of the two");
        }
        (Some(node), None) => Locals::Node(node),
        (None, Some(text)) => Locals::Selector(selector(&text, "spec.nodeSelector")?),
        (None, None) => Locals::All,
    };
    let fields = (
        word(spec.peer_ip.as_ref()),
        word(spec.peer_selector.as_ref()),
        word(spec.local_workload_selector.as_ref()),
    );
    let named = Named {
        otherwise: fields.0.is_some() || fields.2.is_some(),
        peer_selector: fields.1.is_some(),
        as_number: spec.as_number.map(|a| a.0).filter(|a| *a != 0),
    };
    let remote = match Sought::read(&peer.metadata.annotations, named)? {
        Some(Sought { by, remote_as }) => {
            let selector = fields.1.map(|text| selector(&text, "spec.peerSelector")).transpose()?;
            Remote::Found { by, remote_as, selector }
        }
        None => configured(spec, fields)?,
    };
    let export = match peer.metadata.annotations.get(EXPORT_ANNOTATION).map(|v| v.trim()) {
        None | Some("" | "all") => None,
        Some("own") => Some(ExportScope::Own),
        Some("no-transit") => Some(ExportScope::NoTransit),
        Some(_) => {
            return bad(
                format!("metadata.annotations[{EXPORT_ANNOTATION}]"),
                "is neither own nor no-transit",
                "write own, no-transit or all",
            );
        }
    };
    Ok(PeerFact {
        locals,
        remote,
        as_number: spec.as_number.map(|a| a.0).filter(|a| *a != 0),
        local_as_number: spec.local_as_number.map(|a| a.0).filter(|a| *a != 0),
        use_node_ip: spec.source_address != Some(SourceAddress::None),
        password: secret(spec.password.as_ref(), "spec.password")?,
        restart_seconds: spec.max_restart_time.map(seconds),
        // Calico writes 0 for anything below half a second, which its speaker refuses.
        keepalive_seconds: spec.keepalive_time.map(|d| seconds(d).max(1)),
        allow_local_as: match spec.num_allowed_local_as_numbers {
            None | Some(0) => None,
            Some(n) => match u32::try_from(n) {
                Ok(n) => Some(n),
                Err(_) => return bad("spec.numAllowedLocalASNumbers", "is negative", "write 0 or more"),
            },
        },
        ttl_security: spec.ttl_security.filter(|n| *n > 0),
        keep_next_hop: spec.keep_original_next_hop == Some(true),
        next_hop: match spec.next_hop_mode.as_ref().map(caracal_model::NextHopMode::as_str) {
            Some("Self") => NextHopMode::Own,
            Some("Keep") => NextHopMode::Keep,
            _ => NextHopMode::Auto,
        },
        filters: spec.filters.clone(),
        manual_reverse: spec.reverse_peering == Some(ReversePeering::Manual),
        export,
        annotations: annotations(Kind::BgpPeer, &peer.metadata.annotations),
    })
}

fn word(text: Option<&String>) -> Option<String> {
    text.filter(|t| !t.is_empty()).cloned()
}

/// Whom the fields peerIP, peerSelector and localWorkloadSelector name.
fn configured(
    spec: &BgpPeerSpec,
    fields: (Option<String>, Option<String>, Option<String>),
) -> Result<Remote> {
    Ok(match fields {
        (Some(text), None, None) => {
            let (ip, port) = address_and_port(&text)?;
            let reachable_by = match word(spec.reachable_by.as_ref()) {
                None => None,
                Some(via) => {
                    let field = "spec.reachableBy";
                    let via: IpAddr = parse(&via, field, "write the address of a gateway")?;
                    if via.is_ipv4() != ip.is_ipv4() {
                        return bad(
                            field,
                            "is of another family than peerIP",
                            "write a gateway of the peer's family",
                        );
                    }
                    Some(via)
                }
            };
            Remote::Address { ip, port, reachable_by }
        }
        (None, Some(text), None) => Remote::Selector(selector(&text, "spec.peerSelector")?),
        (None, None, Some(text)) => {
            if spec.as_number.is_none() {
                return bad(
                    "spec.asNumber",
                    "is needed with localWorkloadSelector",
                    "write the AS of the workloads",
                );
            }
            Remote::Workloads(selector(&text, "spec.localWorkloadSelector")?)
        }
        (None, None, None) => {
            return bad(
                "spec.peerIP",
                "is missing, and there is no selector either",
                "write the peer's address",
            );
        }
        _ => {
            return bad("spec.peerIP", "is set together with a selector of peers", "keep one of the two");
        }
    })
}

pub(crate) fn config(config: &BgpConfiguration) -> Result<ConfigFact> {
    let spec: &BgpConfigurationSpec = &config.spec;
    let cidrs = |list: &[caracal_model::CidrBlock], field: &str| -> Result<Vec<IpNet>> {
        list.iter().map(|b| cidr(b.cidr.as_deref().unwrap_or_default(), field)).collect()
    };
    let mut advertisements = Vec::new();
    for (n, entry) in spec.prefix_advertisements.iter().enumerate() {
        let field = format!("spec.prefixAdvertisements[{n}]");
        let Some(text) = entry.cidr.as_deref().filter(|c| !c.is_empty()) else { continue };
        let mut communities = Vec::new();
        for name in &entry.communities {
            let value = spec
                .communities
                .iter()
                .find(|c| c.name.as_deref() == Some(name))
                .and_then(|c| c.value.as_deref())
                .unwrap_or(name);
            match value.parse::<Community>() {
                Ok(community) => communities.push(community),
                Err(()) => {
                    return bad(
                        format!("{field}.communities"),
                        format!("`{value}` is no community, and none is named so"),
                        "write a:b or a:b:c, or add the name to spec.communities of this object",
                    );
                }
            }
        }
        let cidr = cidr(text, &format!("{field}.cidr"))?;
        if !communities.is_empty() {
            advertisements.push(CommunityRule { cidr, communities });
        }
    }
    let priority = |value: Option<i64>, field: &str| match value {
        None => Ok(None),
        Some(n) => match u32::try_from(n) {
            Ok(n) if n > 0 && n < crate::config::PRIORITY_BASE => Ok(Some(n)),
            _ => bad(field, format!("{n} is no metric"), "write a number from 1 to 2147483646"),
        },
    };
    Ok(ConfigFact {
        log_level: spec.log_severity_screen.as_deref().map(|word| match word.to_ascii_lowercase().as_str() {
            "debug" => LogLevel::Debug,
            "info" => LogLevel::Info,
            _ => LogLevel::None,
        }),
        mesh: spec.node_to_node_mesh_enabled,
        as_number: spec.as_number.map(|a| a.0).filter(|a| *a != 0),
        listen_port: spec.listen_port.filter(|p| *p != 0),
        cluster_ips: cidrs(&spec.service_cluster_ips, "spec.serviceClusterIPs")?,
        external_ips: cidrs(&spec.service_external_ips, "spec.serviceExternalIPs")?,
        load_balancer_ips: cidrs(&spec.service_load_balancer_ips, "spec.serviceLoadBalancerIPs")?,
        load_balancer_aggregation: spec.service_load_balancer_aggregation
            != Some(ServiceAggregation::Disabled),
        advertisements,
        mesh_password: secret(spec.node_mesh_password.as_ref(), "spec.nodeMeshPassword")?,
        mesh_restart_seconds: spec.node_mesh_max_restart_time.map(seconds),
        bind_node_ip: spec.bind_mode == Some(BindMode::NodeIp),
        ignored_interfaces: spec.ignored_interfaces.clone(),
        programs: match &spec.program_cluster_routes {
            Some(ProgramClusterRoutes::Enabled) => Programs { ipip: true, plain: true },
            Some(ProgramClusterRoutes::EnabledIpipOnly) => Programs { ipip: true, plain: false },
            Some(ProgramClusterRoutes::Disabled) => Programs { ipip: false, plain: false },
            // Unset, the default written out, and words of a newer release.
            _ => Programs::default(),
        },
        priority_v4: priority(spec.ipv4_normal_route_priority, "spec.ipv4NormalRoutePriority")?,
        priority_v6: priority(spec.ipv6_normal_route_priority, "spec.ipv6NormalRoutePriority")?,
        annotations: annotations(Kind::BgpConfiguration, &config.metadata.annotations),
    })
}

/// Our annotations; those that are wrong or unknown are kept as problems.
fn annotations(kind: Kind, given: &BTreeMap<String, String>) -> Annotations {
    let (settings, refused) = BgpSettings::read(kind, given);
    let path = |name: &str| format!("metadata.annotations[{name}]");
    let mut bad: Vec<(String, String, String)> = refused
        .into_iter()
        .map(|one| {
            let reason = format!("`{}` is not followed: it {}", one.value, one.reason);
            (path(&one.name), reason, "correct or remove the annotation".into())
        })
        .collect();
    for name in annotation::unknown(kind, given.keys().map(String::as_str)) {
        let fix = "correct its name (docs/annotations.md has all), or remove it";
        bad.push((path(name), "is no annotation that BGP knows".into(), fix.into()));
    }
    Annotations { settings, bad }
}

pub(crate) fn pool(pool: &IpPool) -> Result<PoolFact> {
    let spec = &pool.spec;
    let uses = |mode: &Option<EncapMode>| matches!(mode, Some(EncapMode::Always | EncapMode::CrossSubnet));
    Ok(PoolFact {
        cidr: cidr(spec.cidr.as_deref().unwrap_or_default(), "spec.cidr")?,
        disable_bgp_export: spec.disable_bgp_export == Some(true),
        encapsulation: match (uses(&spec.vxlan_mode), &spec.ipip_mode) {
            (true, _) => Encapsulation::Vxlan,
            (false, Some(EncapMode::Always)) => Encapsulation::IpipAlways,
            (false, Some(EncapMode::CrossSubnet)) => Encapsulation::IpipCrossSubnet,
            (false, _) => Encapsulation::None,
        },
    })
}

/// What a peering with a workload needs to know of it.
pub(crate) fn workload(wep: &WorkloadEndpoint) -> Result<WorkloadFact> {
    let mut addresses = Vec::new();
    for text in &wep.spec.ip_networks {
        addresses.push(address_of(text, "spec.ipNetworks")?.addr());
    }
    Ok(WorkloadFact {
        node: wep.spec.node.clone().unwrap_or_default(),
        labels: wep.metadata.labels.clone(),
        addresses,
        interface: wep.spec.interface_name.clone(),
    })
}

pub(crate) fn filter(filter: &BgpFilter) -> Result<Filter> {
    let spec = &filter.spec;
    let rules = |list: &[BgpFilterRule], family, field: &str| -> Result<Vec<Rule>> {
        list.iter().enumerate().map(|(n, r)| rule(r, family, &format!("spec.{field}[{n}]"))).collect()
    };
    Ok(Filter {
        import_v4: rules(&spec.import_v4, Family::Ipv4, "importV4")?,
        export_v4: rules(&spec.export_v4, Family::Ipv4, "exportV4")?,
        import_v6: rules(&spec.import_v6, Family::Ipv6, "importV6")?,
        export_v6: rules(&spec.export_v6, Family::Ipv6, "exportV6")?,
    })
}

fn rule(rule: &BgpFilterRule, family: Family, field: &str) -> Result<Rule> {
    let action = match &rule.action {
        Some(BgpFilterAction::Accept) => Action::Accept,
        Some(BgpFilterAction::Reject) => Action::Reject,
        other => {
            let word = other.as_ref().map_or("nothing", BgpFilterAction::as_str);
            return bad(
                format!("{field}.action"),
                format!("`{word}` is no action"),
                "write Accept or Reject",
            );
        }
    };
    let prefix = match rule.cidr.as_deref().filter(|c| !c.is_empty()) {
        None => None,
        Some(text) => {
            let net = cidr(text, &format!("{field}.cidr"))?;
            if Family::of_net(&net) != family {
                return bad(
                    format!("{field}.cidr"),
                    format!("{net} is of the other family"),
                    "move the rule",
                );
            }
            Some(net)
        }
    };
    let match_operator = match rule.match_operator.as_ref().map(caracal_model::MatchOperator::as_str) {
        None | Some("") => None,
        Some("Equal") => Some(MatchOperator::Equal),
        Some("NotEqual") => Some(MatchOperator::NotEqual),
        Some("In") => Some(MatchOperator::In),
        Some("NotIn") => Some(MatchOperator::NotIn),
        Some(word) => {
            return bad(
                format!("{field}.matchOperator"),
                format!("`{word}` is no operator"),
                "write Equal, NotEqual, In or NotIn",
            );
        }
    };
    if prefix.is_some() != match_operator.is_some() {
        return bad(
            format!("{field}.cidr"),
            "needs a matchOperator, and the other way round",
            "write both or neither",
        );
    }
    let prefix_length = match (&rule.prefix_length, prefix) {
        (None, _) => None,
        (Some(_), None) => {
            return bad(format!("{field}.prefixLength"), "has no cidr to be a length of", "write a cidr too");
        }
        (Some(bounds), Some(net)) => {
            let at_least = bounds.min.and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
            let at_most = bounds.max.and_then(|n| u8::try_from(n).ok()).unwrap_or(u8::MAX);
            Some(PrefixLength { min: at_least.max(net.prefix_len()), max: at_most.min(net.max_prefix_len()) })
        }
    };
    let source = match rule.source.as_ref().map(caracal_model::FilterSource::as_str) {
        None | Some("") => None,
        Some("RemotePeers") => Some(RouteSource::RemotePeers),
        Some(word) => {
            return bad(format!("{field}.source"), format!("`{word}` is no source"), "write RemotePeers");
        }
    };
    let peer_type = match &rule.peer_type {
        None => None,
        Some(FilterPeerType::Ebgp) => Some(PeerScope::External),
        Some(FilterPeerType::Ibgp) => Some(PeerScope::Internal),
        Some(other) => {
            return bad(
                format!("{field}.peerType"),
                format!("`{other}` is no kind of peer"),
                "write eBGP or iBGP",
            );
        }
    };
    let community = match rule.communities.as_ref().map(|c| c.values.as_slice()) {
        None | Some([]) => None,
        Some([one]) => Some(community(one, &format!("{field}.communities"))?),
        Some(_) => {
            return bad(format!("{field}.communities"), "has more than one value", "write one rule for each");
        }
    };
    let mut operations = Vec::new();
    for (n, operation) in rule.operations.iter().enumerate() {
        add_operation(&mut operations, operation, &format!("{field}.operations[{n}]"))?;
    }
    Ok(Rule {
        action,
        cidr: prefix,
        match_operator,
        prefix_length,
        source,
        interface: rule.interface.clone().filter(|i| !i.is_empty()),
        peer_type,
        community,
        as_path_prefix: Some(rule.as_path_prefix.iter().map(|a| a.0).collect::<Vec<u32>>())
            .filter(|p| !p.is_empty()),
        priority: rule.priority.map(|p| metric(p, &format!("{field}.priority"))).transpose()?,
        operations,
    })
}

/// Adds one operation; prepends that follow each other become one, in the order of the resulting path.
fn add_operation(list: &mut Vec<Operation>, operation: &BgpFilterOperation, field: &str) -> Result<()> {
    let BgpFilterOperation { add_community, prepend_as_path, set_priority, .. } = operation;
    let next = match (add_community, prepend_as_path, set_priority) {
        (Some(add), None, None) => Operation::AddCommunity(community(
            add.value.as_deref().unwrap_or_default(),
            &format!("{field}.addCommunity"),
        )?),
        (None, Some(prepend), None) => {
            let mut path: Vec<u32> = prepend.prefix.iter().map(|a| a.0).collect();
            if let Some(Operation::PrependAsPath(before)) = list.last_mut() {
                path.append(before);
                *before = path;
                return Ok(());
            }
            Operation::PrependAsPath(path)
        }
        (None, None, Some(set)) => {
            Operation::SetPriority(metric(set.value.unwrap_or_default(), &format!("{field}.setPriority"))?)
        }
        _ => {
            return bad(
                field,
                "does not hold exactly one operation",
                "write one of addCommunity, prependASPath, setPriority",
            );
        }
    };
    list.push(next);
    Ok(())
}

fn metric(value: i64, field: &str) -> Result<u32> {
    match u32::try_from(value) {
        Ok(n) if n <= crate::config::PRIORITY_BASE => Ok(n),
        _ => bad(field, format!("{value} is no priority"), "write a number from 0 to 2147483647"),
    }
}

fn community(text: &str, field: &str) -> Result<Community> {
    match text.parse() {
        Ok(community) => Ok(community),
        Err(()) => {
            bad(field, format!("`{text}` is no community"), "write a:b with 16 bits each or a:b:c with 32")
        }
    }
}

fn secret(password: Option<&BgpPassword>, field: &str) -> Result<Option<SecretRef>> {
    let Some(reference) = password.and_then(|p| p.secret_key_ref.as_ref()) else { return Ok(None) };
    match (&reference.name, &reference.key) {
        (Some(name), Some(key)) => Ok(Some(SecretRef { name: name.clone(), key: key.clone() })),
        _ => bad(field, "names no secret or no key", "write secretKeyRef.name and secretKeyRef.key"),
    }
}

/// To whole seconds, halves up, as Calico rounds.
fn seconds(duration: GoDuration) -> u64 {
    let nanos = duration.to_std().as_nanos();
    u64::try_from((nanos + 500_000_000) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// A node's address with the length of its subnet; without a length, it is alone.
fn host(text: Option<&str>, family: Family, field: &str) -> Result<Option<IpNet>> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(None) };
    let net = address_of(text, field)?;
    if Family::of_net(&net) == family {
        Ok(Some(net))
    } else {
        bad(field, format!("`{text}` is of the other family"), "write it into the other field")
    }
}

fn address_of(text: &str, field: &str) -> Result<IpNet> {
    if text.contains('/') {
        parse(text, field, "write address/prefix length")
    } else {
        Ok(IpNet::from(parse::<IpAddr>(text, field, "write address/prefix length")?))
    }
}

/// `address`, `address:port` or `[v6 address]:port`.
fn address_and_port(text: &str) -> Result<(IpAddr, Option<u16>)> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok((ip, None));
    }
    match text.parse::<SocketAddr>() {
        Ok(both) => Ok((both.ip(), Some(both.port()).filter(|p| *p != 0))),
        Err(_) => bad(
            "spec.peerIP",
            format!("`{text}` is no address"),
            "write an address, address:port or [IPv6 address]:port",
        ),
    }
}

/// A prefix; host bits are cut off.
fn cidr(text: &str, field: &str) -> Result<IpNet> {
    Ok(address_of(text, field)?.trunc())
}

fn selector(text: &str, field: &str) -> Result<Selector> {
    match Selector::parse(text) {
        Ok(selector) => Ok(selector),
        Err(err) => bad(field, format!("is no selector: {err}"), "correct the selector"),
    }
}

fn parse<T: FromStr>(text: &str, field: &str, fix: &'static str) -> Result<T> {
    match text.parse() {
        Ok(value) => Ok(value),
        Err(_) => bad(field, format!("`{text}` cannot be read"), fix),
    }
}
