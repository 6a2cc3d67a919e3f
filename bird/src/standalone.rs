//! A router or route reflector from one YAML file, without a datastore.
//!
//! Every field but `routerId`, `asNumber` and one way to have neighbours may be left out. Unknown fields are errors,
//! so that a typing mistake is not a silent default.
//!
//! `docs/router.md` is its manual, with an example that is tested here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bird_speaker::config::{
    self as speaker, Aggregate, Config, ExportRules, Families, KernelRules, LearnedMetric, ListenRange,
    Local, NextHopMode, OriginTarget, Originated, PeerConfig, PrefixLimit,
};
use bird_speaker::policy::FilterSet;
use caracal_model::GoDuration;
use caracal_netlink::{proto, table};
use ipnet::IpNet;
use serde::Deserialize;

use crate::api;
use crate::passwords;
use crate::plan::{Plan, Redistribute, Secret};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(clippy::struct_field_names, reason = "the file's words")]
struct Router {
    router_id: Ipv4Addr,
    as_number: u32,
    cluster_id: Option<Ipv4Addr>,
    listen: Option<Vec<SocketAddr>>,
    #[serde(default)]
    groups: BTreeMap<String, Settings>,
    #[serde(default)]
    neighbours: Vec<With<Neighbour>>,
    #[serde(default)]
    listen_ranges: Vec<With<Range>>,
    #[serde(default, rename = "static")]
    statics: Vec<Static>,
    #[serde(default)]
    aggregates: Vec<AggregateRule>,
    #[serde(default)]
    redistribute: RedistributeRules,
    #[serde(default)]
    filters: BTreeMap<String, FilterSet>,
    #[serde(default)]
    fib: FibRules,
    restart: Option<RestartRules>,
    control: Option<PathBuf>,
    api: Option<ApiRules>,
    metrics: Option<SocketAddr>,
}

/// The socket for `caracal ctl bgp`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ApiRules {
    socket: Option<PathBuf>,
    group: Option<String>,
}

/// A neighbour or a range: what only it has, and what its group could have said too.
///
/// Two passes over one map, because serde cannot both flatten and refuse unknown fields.
#[derive(Debug, Deserialize)]
#[serde(try_from = "serde_yaml::Mapping", bound = "T: Head")]
struct With<T> {
    head: T,
    settings: Settings,
}

/// The part of [`With`] that a group cannot say.
trait Head: serde::de::DeserializeOwned {
    const FIELDS: &'static [&'static str];
}

#[derive(Debug, Deserialize)]
struct Neighbour {
    name: Option<String>,
    address: IpAddr,
    interface: Option<String>,
    group: Option<String>,
}

impl Head for Neighbour {
    const FIELDS: &'static [&'static str] = &["name", "address", "interface", "group"];
}

#[derive(Debug, Deserialize)]
#[allow(clippy::struct_field_names, reason = "the file's words")]
struct Range {
    range: IpNet,
    group: Option<String>,
    #[serde(default = "hundred")]
    limit: u16,
}

impl Head for Range {
    const FIELDS: &'static [&'static str] = &["range", "group", "limit"];
}

impl<T: Head> TryFrom<serde_yaml::Mapping> for With<T> {
    type Error = serde_yaml::Error;

    fn try_from(map: serde_yaml::Mapping) -> Result<Self, serde_yaml::Error> {
        let is_head = |key: &serde_yaml::Value| key.as_str().is_some_and(|k| T::FIELDS.contains(&k));
        let (head, rest): (serde_yaml::Mapping, serde_yaml::Mapping) =
            map.into_iter().partition(|(key, _)| is_head(key));
        Ok(Self {
            head: serde_yaml::from_value(head.into())?,
            settings: serde_yaml::from_value(rest.into())?,
        })
    }
}

/// What a neighbour, a range or a group may set. A neighbour's own word beats its group's.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Settings {
    as_number: Option<u32>,
    local_as_number: Option<u32>,
    port: Option<u16>,
    families: Option<Vec<Family>>,
    passive: Option<bool>,
    enabled: Option<bool>,
    shutdown_text: Option<String>,
    source_address: Option<IpAddr>,
    hold_time: Option<u16>,
    keepalive: Option<u16>,
    connect_retry: Option<u16>,
    delay_open: Option<u16>,
    send_hold_time: Option<u16>,
    bfd: Option<BfdRules>,
    ttl_security: Option<u8>,
    multihop: Option<u8>,
    password: Option<String>,
    password_file: Option<PathBuf>,
    route_reflector_client: Option<bool>,
    cluster_id: Option<Ipv4Addr>,
    next_hop: Option<NextHopMode>,
    #[serde(rename = "nextHopIPv4")]
    next_hop_v4: Option<Ipv4Addr>,
    #[serde(rename = "nextHopIPv6")]
    next_hop_v6: Option<Ipv6Addr>,
    add_path: Option<speaker::AddPath>,
    graceful_restart: Option<GracefulRestart>,
    allow_local_as: Option<u8>,
    enforce_first_as: Option<bool>,
    reject_as_sets: Option<bool>,
    extended_next_hop: Option<bool>,
    extended_message: Option<bool>,
    remove_private_as: Option<bool>,
    as_override: Option<bool>,
    require_policy: Option<bool>,
    graceful_shutdown: Option<bool>,
    prefix_limit: Option<Limit>,
    import: Option<Vec<String>>,
    export: Option<Vec<String>>,
    export_scope: Option<speaker::ExportScope>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Family {
    Ipv4,
    Ipv6,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GracefulRestart {
    #[serde(default = "yes")]
    enabled: bool,
    restart_time: Option<u16>,
    stale_time: Option<u32>,
    notification: Option<bool>,
    long_lived: Option<LongLived>,
}

/// Routes of a peer that is not back in time (RFC 9494).
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LongLived {
    aware: Option<bool>,
    stale_time: Option<u32>,
    keep: Option<u32>,
    partial: Option<bool>,
}

impl LongLived {
    fn over(self, default: speaker::LongLived) -> speaker::LongLived {
        speaker::LongLived {
            aware: self.aware.unwrap_or(default.aware),
            stale_time: self.stale_time.unwrap_or(default.stale_time),
            keep: self.keep.or(self.stale_time).map_or(default.keep, |s| Duration::from_secs(s.into())),
            partial: self.partial.unwrap_or(default.partial),
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Limit {
    max: u32,
    action: speaker::LimitAction,
    restart: Option<u32>,
}

/// `true`, `false`, or what differs from the defaults.
#[derive(Debug, Clone, Copy)]
struct BfdRules(Option<BfdFields>);

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BfdFields {
    #[serde(default = "bfd_interval")]
    min_tx: GoDuration,
    #[serde(default = "bfd_interval")]
    min_rx: GoDuration,
    #[serde(default = "three")]
    multiplier: u8,
    #[serde(default)]
    multihop: bool,
    #[serde(default)]
    keep_routes: bool,
}

/// By hand, for errors that name the field: an untagged enum knows only that nothing fits.
impl<'de> Deserialize<'de> for BfdRules {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = BfdRules;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bfd: true, false, or { minTx, minRx, multiplier, multihop, keepRoutes }")
            }

            fn visit_bool<E: serde::de::Error>(self, on: bool) -> Result<BfdRules, E> {
                let default = BfdFields {
                    min_tx: bfd_interval(),
                    min_rx: bfd_interval(),
                    multiplier: three(),
                    multihop: false,
                    keep_routes: false,
                };
                Ok(BfdRules(on.then_some(default)))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<BfdRules, A::Error> {
                let fields = serde::de::value::MapAccessDeserializer::new(map);
                BfdFields::deserialize(fields).map(|fields| BfdRules(Some(fields)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl BfdRules {
    fn bfd(self, name: &str, address: Option<IpAddr>) -> anyhow::Result<Option<speaker::Bfd>> {
        let Some(fields) = self.0 else { return Ok(None) };
        for (field, time) in [("minTx", fields.min_tx), ("minRx", fields.min_rx)] {
            let range = GoDuration::from_nanos(10_000_000)..=GoDuration::from_secs(60);
            ensure!(range.contains(&time), "{name}: bfd.{field}: {time} is no interval; write 10ms to 60s");
        }
        ensure!(fields.multiplier > 0, "{name}: bfd.multiplier: is 0; write 1 to 255, 3 is usual");
        let link_local = matches!(address, Some(IpAddr::V6(a)) if a.is_unicast_link_local());
        ensure!(
            !(link_local && fields.multihop),
            "{name}: bfd.multihop: a link-local neighbour is on the link; remove it"
        );
        Ok(Some(speaker::Bfd {
            min_tx: fields.min_tx.into(),
            min_rx: fields.min_rx.into(),
            multiplier: fields.multiplier,
            multihop: fields.multihop,
            keep_routes: fields.keep_routes,
        }))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Static {
    prefix: IpNet,
    #[serde(default)]
    blackhole: bool,
    via: Option<IpAddr>,
    #[serde(default)]
    announce_only: bool,
    metric: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AggregateRule {
    prefix: IpNet,
    #[serde(default)]
    summary_only: bool,
    #[serde(default = "yes")]
    blackhole: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RedistributeRules {
    #[serde(default)]
    connected: bool,
    #[serde(default)]
    kernel: bool,
    #[serde(default)]
    ignored_interfaces: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FibRules {
    program: bool,
    table: u32,
    protocol: u8,
    ecmp: u8,
    /// One metric for all learned routes; 0 leaves it to LOCAL_PREF as on a node.
    metric: u32,
}

impl Default for FibRules {
    fn default() -> Self {
        Self { program: true, table: table::MAIN, protocol: proto::BIRD, ecmp: 64, metric: 32 }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RestartRules {
    deferral: u32,
}

/// A file, read and checked.
#[derive(Debug)]
pub(crate) struct Standalone {
    pub(crate) plan: Plan,
    pub(crate) table: u32,
    pub(crate) protocol: u8,
    pub(crate) control: Option<PathBuf>,
    /// Where Prometheus reads.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) api: Option<api::Socket>,
}

impl Standalone {
    /// What cannot change while it runs.
    pub(crate) fn fixed(&self) -> (u32, u8, Option<PathBuf>) {
        (self.table, self.protocol, self.control.clone())
    }
}

/// Reads and checks a router's file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Standalone> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("{}: cannot be read; give the path of a router's YAML file", path.display())
    })?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> anyhow::Result<Standalone> {
    let router: Router = serde_yaml::from_str(text)?;
    ensure!(router.fib.table != 0, "fib.table: 0 is no table; write 254 for the main one");
    ensure!(
        !matches!(router.fib.protocol, 0..=4),
        "fib.protocol: {} belongs to the kernel or the administrator; write 12, or a number of your own above 4",
        router.fib.protocol
    );
    let mut config = Config {
        local: Local { asn: router.as_number, router_id: router.router_id, cluster_id: router.cluster_id },
        export: ExportRules::AcceptAll,
        filters: router.filters.clone(),
        ignored_interfaces: router.redistribute.ignored_interfaces.clone(),
        kernel: KernelRules {
            program: router.fib.program,
            ecmp: router.fib.ecmp,
            metric: match router.fib.metric {
                0 => LearnedMetric::FromLocalPref,
                fixed => LearnedMetric::Fixed(fixed),
            },
            ..KernelRules::default()
        },
        seed: u64::from(u32::from(router.router_id)),
        ..Config::default()
    };
    if let Some(restart) = &router.restart {
        config.restart.deferral = Duration::from_secs(restart.deferral.into());
    }
    let mut passwords = BTreeMap::new();
    for With { head: neighbour, settings } in &router.neighbours {
        let name = neighbour.name.clone().unwrap_or_else(|| neighbour.address.to_string());
        let settings = settings.over(router.group(&name, neighbour.group.as_deref())?);
        let link_local = matches!(neighbour.address, IpAddr::V6(a) if a.is_unicast_link_local());
        ensure!(
            !link_local || neighbour.interface.is_some(),
            "{name}: interface: is missing; a link-local address means something on one link only, name that"
        );
        let mut peer = settings.peer(&router, &name, Some(neighbour.address))?;
        peer.interface.clone_from(&neighbour.interface);
        if let Some(secret) = settings.secret(&name)? {
            passwords.insert(name.clone(), secret);
        }
        config.peers.push(peer);
    }
    let mut range_passwords = BTreeMap::new();
    for With { head: range, settings } in &router.listen_ranges {
        let name = format!("range {}", range.range);
        let settings = settings.over(router.group(&name, range.group.as_deref())?);
        let template = settings.peer(&router, &name, None)?;
        if let Some(secret) = settings.secret(&name)? {
            range_passwords.insert(range.range, secret);
        }
        config.listen_ranges.push(ListenRange { range: range.range.trunc(), template, limit: range.limit });
    }
    for entry in &router.statics {
        config.originated.push(entry.originated()?);
    }
    config.aggregates = router
        .aggregates
        .iter()
        .map(|a| Aggregate { prefix: a.prefix.trunc(), summary_only: a.summary_only, blackhole: a.blackhole })
        .collect();
    let errors = config.validate();
    if !errors.is_empty() {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        bail!("{}", lines.join("\n"));
    }
    let listen = router.listen.clone().unwrap_or_else(|| {
        vec![(Ipv4Addr::UNSPECIFIED, 179).into(), (std::net::Ipv6Addr::UNSPECIFIED, 179).into()]
    });
    Ok(Standalone {
        plan: Plan {
            config,
            listen,
            passwords,
            range_passwords,
            redistribute: Redistribute {
                connected: router.redistribute.connected,
                kernel: router.redistribute.kernel,
            },
        },
        table: router.fib.table,
        protocol: router.fib.protocol,
        control: router.control.clone(),
        metrics: router.metrics,
        api: router.api.clone().map(|api| api::Socket {
            path: api.socket.unwrap_or_else(|| api::DEFAULT_PATH.into()),
            group: api.group,
        }),
    })
}

impl Router {
    fn group(&self, of: &str, name: Option<&str>) -> anyhow::Result<Settings> {
        match name {
            None => Ok(Settings::default()),
            Some(name) => self
                .groups
                .get(name)
                .cloned()
                .with_context(|| format!("{of}: group: there is no group `{name}`; add it below groups")),
        }
    }
}

impl Settings {
    /// These settings, with a group's where they are silent.
    fn over(&self, group: Self) -> Self {
        let own = self.clone();
        Self {
            as_number: own.as_number.or(group.as_number),
            local_as_number: own.local_as_number.or(group.local_as_number),
            port: own.port.or(group.port),
            families: own.families.or(group.families),
            passive: own.passive.or(group.passive),
            enabled: own.enabled.or(group.enabled),
            shutdown_text: own.shutdown_text.or(group.shutdown_text),
            source_address: own.source_address.or(group.source_address),
            hold_time: own.hold_time.or(group.hold_time),
            keepalive: own.keepalive.or(group.keepalive),
            connect_retry: own.connect_retry.or(group.connect_retry),
            delay_open: own.delay_open.or(group.delay_open),
            send_hold_time: own.send_hold_time.or(group.send_hold_time),
            bfd: own.bfd.or(group.bfd),
            ttl_security: own.ttl_security.or(group.ttl_security),
            multihop: own.multihop.or(group.multihop),
            password: own.password.or(group.password),
            password_file: own.password_file.or(group.password_file),
            route_reflector_client: own.route_reflector_client.or(group.route_reflector_client),
            cluster_id: own.cluster_id.or(group.cluster_id),
            next_hop: own.next_hop.or(group.next_hop),
            next_hop_v4: own.next_hop_v4.or(group.next_hop_v4),
            next_hop_v6: own.next_hop_v6.or(group.next_hop_v6),
            add_path: own.add_path.or(group.add_path),
            graceful_restart: own.graceful_restart.or(group.graceful_restart),
            allow_local_as: own.allow_local_as.or(group.allow_local_as),
            enforce_first_as: own.enforce_first_as.or(group.enforce_first_as),
            reject_as_sets: own.reject_as_sets.or(group.reject_as_sets),
            extended_next_hop: own.extended_next_hop.or(group.extended_next_hop),
            extended_message: own.extended_message.or(group.extended_message),
            remove_private_as: own.remove_private_as.or(group.remove_private_as),
            as_override: own.as_override.or(group.as_override),
            require_policy: own.require_policy.or(group.require_policy),
            graceful_shutdown: own.graceful_shutdown.or(group.graceful_shutdown),
            prefix_limit: own.prefix_limit.or(group.prefix_limit),
            import: own.import.or(group.import),
            export: own.export.or(group.export),
            export_scope: own.export_scope.or(group.export_scope),
        }
    }

    fn peer(&self, router: &Router, name: &str, address: Option<IpAddr>) -> anyhow::Result<PeerConfig> {
        let default = PeerConfig::default();
        for filter in self.import.iter().chain(&self.export).flatten() {
            ensure!(
                router.filters.contains_key(filter),
                "{name}: there is no filter `{filter}`; add it below filters"
            );
        }
        let remote_as = match (self.as_number, address) {
            (Some(number), _) => number,
            // Dynamic neighbours may be of any AS.
            (None, None) => 0,
            (None, Some(_)) => {
                bail!("{name}: asNumber: is missing; write the neighbour's AS, or in its group")
            }
        };
        let families = match &self.families {
            Some(list) => Families { ipv4: list.contains(&Family::Ipv4), ipv6: list.contains(&Family::Ipv6) },
            None => match address {
                Some(IpAddr::V6(_)) => Families { ipv4: false, ipv6: true },
                _ => Families { ipv4: true, ipv6: false },
            },
        };
        let mut graceful_restart = default.graceful_restart;
        if let Some(set) = self.graceful_restart {
            graceful_restart.enabled = set.enabled;
            graceful_restart.restart_time = set.restart_time.unwrap_or(graceful_restart.restart_time);
            if let Some(seconds) = set.stale_time {
                graceful_restart.stale_time = Duration::from_secs(seconds.into());
            }
            graceful_restart.notification = set.notification.unwrap_or(graceful_restart.notification);
            if let Some(long_lived) = set.long_lived {
                graceful_restart.long_lived = long_lived.over(graceful_restart.long_lived);
            }
        }
        Ok(PeerConfig {
            name: name.to_owned(),
            address: address.unwrap_or(default.address),
            port: self.port.unwrap_or(default.port),
            remote_as,
            local_as: self.local_as_number,
            families,
            passive: self.passive.unwrap_or(default.passive),
            enabled: self.enabled.unwrap_or(default.enabled),
            shutdown_text: self.shutdown_text.clone(),
            source_address: self.source_address,
            hold_time: self.hold_time.unwrap_or(90),
            keepalive: self.keepalive,
            connect_retry: self
                .connect_retry
                .map_or(default.connect_retry, |s| Duration::from_secs(s.into())),
            delay_open: self.delay_open.map(|s| Duration::from_secs(s.into())),
            send_hold: match self.send_hold_time {
                None => default.send_hold,
                Some(0) => None,
                Some(seconds) => Some(Duration::from_secs(seconds.into())),
            },
            bfd: match &self.bfd {
                Some(rules) => rules.bfd(name, address)?,
                None => default.bfd,
            },
            ttl_security: self.ttl_security,
            multihop: self.multihop.unwrap_or(default.multihop),
            password: self.password.is_some() || self.password_file.is_some(),
            route_reflector_client: self.route_reflector_client.unwrap_or(default.route_reflector_client),
            cluster_id: self.cluster_id,
            next_hop: self.next_hop.unwrap_or(default.next_hop),
            next_hop_v4: self.next_hop_v4,
            next_hop_v6: self.next_hop_v6,
            add_path: self.add_path.unwrap_or(default.add_path),
            graceful_restart,
            allow_own_as: self.allow_local_as.unwrap_or(default.allow_own_as),
            enforce_first_as: self.enforce_first_as.unwrap_or(default.enforce_first_as),
            reject_as_sets: self.reject_as_sets.unwrap_or(default.reject_as_sets),
            extended_next_hop: self.extended_next_hop.unwrap_or(default.extended_next_hop),
            extended_message: self.extended_message.unwrap_or(default.extended_message),
            remove_private_as: self.remove_private_as.unwrap_or(default.remove_private_as),
            as_override: self.as_override.unwrap_or(default.as_override),
            require_policy: self.require_policy.unwrap_or(default.require_policy),
            graceful_shutdown: self.graceful_shutdown.unwrap_or(default.graceful_shutdown),
            prefix_limit: self.prefix_limit.map(|limit| PrefixLimit {
                max: limit.max,
                action: limit.action,
                restart: limit.restart.map(|s| Duration::from_secs(s.into())),
            }),
            import: self.import.clone().unwrap_or_default(),
            export: self.export.clone().unwrap_or_default(),
            export_scope: self.export_scope.unwrap_or(default.export_scope),
            ..default
        })
    }

    fn secret(&self, name: &str) -> anyhow::Result<Option<Secret>> {
        let secret = match (&self.password, &self.password_file) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => bail!("{name}: password and passwordFile are both set; keep one"),
            (Some(text), None) => passwords::password(text.clone()),
            (None, Some(path)) => passwords::alone(path).map_err(|e| format!("passwordFile: {e}")),
        };
        secret.map(Some).map_err(|why| anyhow::anyhow!("{name}: {why}"))
    }
}

impl Static {
    fn originated(&self) -> anyhow::Result<Originated> {
        let target = match (self.blackhole, self.via, self.announce_only) {
            (true, None, false) => OriginTarget::Blackhole,
            (false, Some(via), false) => {
                ensure!(
                    via.is_ipv4() == self.prefix.addr().is_ipv4(),
                    "static {}: via: {via} is of the other family",
                    self.prefix
                );
                OriginTarget::Via(via)
            }
            (false, None, true) => OriginTarget::None,
            _ => bail!("static {}: write exactly one of blackhole, via and announceOnly", self.prefix),
        };
        Ok(Originated { prefix: self.prefix.trunc(), target, metric: self.metric })
    }
}

fn hundred() -> u16 {
    100
}

fn bfd_interval() -> GoDuration {
    GoDuration::from_nanos(300_000_000)
}

fn three() -> u8 {
    3
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use bird_speaker::policy::{Community, Operation};

    const SMALL: &str = "routerId: 192.168.174.2\nasNumber: 64999\n";

    fn error(text: &str) -> String {
        format!("{:#}", parse(text).unwrap_err())
    }

    #[test]
    fn a_neighbour_takes_from_its_group_what_it_does_not_say() {
        let text = format!(
            "{SMALL}groups: {{ nodes: {{ asNumber: 64512, holdTime: 30, families: [ipv4, ipv6] }} }}\n\
             neighbours:\n  - {{ address: 192.168.174.129, group: nodes }}\n\
             \x20 - {{ name: up, address: 10.0.0.1, asNumber: 65000, group: nodes, holdTime: 9, password: secret }}\n\
             listenRanges: [{{ range: 10.1.0.0/16, group: nodes, limit: 5 }}]\n"
        );
        let plan = parse(&text).unwrap().plan;
        let [first, second] = plan.config.peers.as_slice() else { panic!("{:?}", plan.config.peers) };
        assert_eq!((first.name.as_str(), first.remote_as, first.hold_time), ("192.168.174.129", 64512, 30));
        assert!(first.families.ipv6 && !first.password);
        assert_eq!((second.remote_as, second.hold_time, second.password), (65000, 9, true));
        assert_eq!(plan.passwords["up"], Secret(b"secret".to_vec()));
        assert_eq!(plan.config.listen_ranges[0].limit, 5);
        assert!(!format!("{plan:?}").contains("secret"));
    }

    #[test]
    fn a_restart_has_its_times() {
        let restart = |text: &str| {
            let text = format!(
                "{SMALL}neighbours: [{{ address: 10.0.0.1, asNumber: 1, delayOpen: 3, gracefulRestart: {text} }}]\n"
            );
            let peer = parse(&text).unwrap().plan.config.peers.remove(0);
            assert_eq!(peer.delay_open, Some(Duration::from_secs(3)));
            peer.graceful_restart
        };
        let plain = restart("{ restartTime: 30 }");
        assert_eq!((plain.restart_time, plain.notification), (30, true));
        assert_eq!(plain.long_lived, speaker::LongLived::default());
        let long = restart("{ notification: false, longLived: { staleTime: 3600 } }");
        assert_eq!((long.long_lived.stale_time, long.long_lived.keep), (3600, Duration::from_hours(1)));
        assert!(!long.notification && long.long_lived.aware && !long.long_lived.partial);
        let helper = restart("{ longLived: { keep: 60, partial: true } }").long_lived;
        assert_eq!((helper.stale_time, helper.keep, helper.partial), (0, Duration::from_mins(1), true));
    }

    #[test]
    fn operations_are_written_as_bgp_filter_has_them() {
        let text = format!(
            "{SMALL}filters:\n  mark:\n    exportV4:\n      - action: Accept\n        operations:\n\
             \x20         - addCommunity: {{ value: '64999:7' }}\n          - addCommunity: '64999:1:2'\n\
             \x20         - prependASPath: {{ prefix: [64999, 64998] }}\n          - setPriority: {{ value: 512 }}\n"
        );
        let rule = &parse(&text).unwrap().plan.config.filters["mark"].export_v4[0];
        let expected = [
            Operation::AddCommunity(Community::Standard(64999, 7)),
            Operation::AddCommunity(Community::Large(64999, 1, 2)),
            Operation::PrependAsPath(vec![64999, 64998]),
            Operation::SetPriority(512),
        ];
        assert_eq!(rule.operations, expected);
        let two = text.replace("          - setPriority", "            setPriority");
        assert!(error(&two).contains("exactly one of addCommunity"), "{}", error(&two));
    }

    #[test]
    fn the_manual_names_every_field_and_its_example_is_correct() {
        let manual = include_str!("../../docs/router.md");
        let example = manual.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
        let plan = parse(example).unwrap().plan;
        assert_eq!((plan.config.peers.len(), plan.config.aggregates.len()), (3, 1));
        for nonsense in ["nonsense: 1", "neighbours: [{ address: 10.0.0.1, nonsense: 1 }]"] {
            let said = error(&format!("{SMALL}{nonsense}\n"));
            let fields = said.split("expected one of ").nth(1).unwrap().split(" at ").next().unwrap();
            for field in fields.split(", ") {
                assert!(manual.contains(field), "docs/router.md does not say {field}");
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("neighbours: [{ address: 10.0.0.1 }]", "10.0.0.1: asNumber: is missing"),
            ("neighbours: [{ address: 10.0.0.1, asNumber: 1, holdTimer: 3 }]", "unknown field `holdTimer`"),
            ("neighbours: [{ address: 10.0.0.1, asNumber: 1, group: x }]", "there is no group `x`"),
            ("neighbours: [{ address: 10.0.0.1, asNumber: 1, import: [f] }]", "there is no filter `f`"),
            ("neighbours: [{ address: 10.0.0.1, asNumber: 1, holdTime: 2 }]", "below the 3 s"),
            (
                "neighbours: [{ address: 10.0.0.1, asNumber: 1, gracefulRestart: { longLived: { staleTime: 16777216 } } }]",
                "does not fit 24 bits",
            ),
            ("neighbours: [{ address: 10.0.0.1, asNumber: 1, bfd: 3 }]", "bfd: true, false, or { minTx"),
            (
                "neighbours: [{ address: 10.0.0.1, asNumber: 1, bfd: { minTX: 3ms } }]",
                "unknown field `minTX`",
            ),
            (
                "neighbours: [{ address: 10.0.0.1, asNumber: 1, bfd: { minTx: 9ms } }]",
                "10.0.0.1: bfd.minTx: 9ms is no interval; write 10ms to 60s",
            ),
            (
                "neighbours: [{ address: 10.0.0.1, asNumber: 1, bfd: { multiplier: 0 } }]",
                "bfd.multiplier: is 0",
            ),
            (
                "neighbours: [{ address: 'fe80::1', interface: eth0, asNumber: 1, bfd: { multihop: true } }]",
                "is on the link",
            ),
            ("neighbours: [{ address: 'fe80::1', asNumber: 1 }]", "fe80::1: interface: is missing"),
            ("static: [{ prefix: 10.0.0.0/8 }]", "exactly one of blackhole"),
            ("fib: { protocol: 2 }", "belongs to the kernel"),
            ("fibs: {}", "unknown field `fibs`"),
            (
                "static: [{ prefix: 10.0.0.0/8, blackhole: true }]\naggregates: [{ prefix: 10.0.0.0/8 }]",
                "there twice",
            ),
        ] {
            let said = error(&format!("{SMALL}{text}\n"));
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn bfd_is_a_word_or_its_timers() {
        let peers = |text: &str| parse(&format!("{SMALL}{text}")).unwrap().plan.config.peers;
        let peers = peers(
            "groups: { watched: { asNumber: 1, bfd: true, sendHoldTime: 0, exportScope: own } }\n\
             neighbours:\n  - { address: 10.0.0.1, group: watched }\n\
             \x20 - { address: 10.0.0.2, group: watched, bfd: false, sendHoldTime: 9 }\n\
             \x20 - { address: 10.0.0.3, group: watched, bfd: { minTx: 50ms, multihop: true, keepRoutes: true } }\n",
        );
        let plain = speaker::Bfd {
            min_tx: Duration::from_millis(300),
            min_rx: Duration::from_millis(300),
            multiplier: 3,
            multihop: false,
            keep_routes: false,
        };
        let tuned =
            speaker::Bfd { min_tx: Duration::from_millis(50), multihop: true, keep_routes: true, ..plain };
        assert_eq!(peers.iter().map(|p| p.bfd).collect::<Vec<_>>(), [Some(plain), None, Some(tuned)]);
        let holds: Vec<_> = peers.iter().map(|p| p.send_hold).collect();
        assert_eq!(holds, [None, Some(Duration::from_secs(9)), None]);
        assert_eq!(peers[0].export_scope, speaker::ExportScope::Own);
    }
}
