//! Neighbours, ranges and groups of a router's file, and the peers that they make.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use bird_speaker::config::{self as speaker, Families, NextHopMode, PeerConfig, PrefixLimit};
use bird_speaker::policy::FilterSet;
use caracal_model::GoDuration;
use ipnet::IpNet;
use serde::Deserialize;

use super::yes;
use crate::discover::By;
use crate::passwords;
use crate::plan::Secret;

/// A neighbour or a range: what only it has, and what its group could have said too.
///
/// Two passes over one map, because serde cannot both flatten and refuse unknown fields.
#[derive(Debug, Deserialize)]
#[serde(try_from = "serde_yaml::Mapping", bound = "T: Head")]
pub(super) struct With<T> {
    pub(super) head: T,
    pub(super) settings: Settings,
}

/// The part of [`With`] that a group cannot say.
pub(super) trait Head: serde::de::DeserializeOwned {
    const FIELDS: &'static [&'static str];
}

#[derive(Debug, Deserialize)]
pub(super) struct Neighbour {
    pub(super) name: Option<String>,
    pub(super) address: Option<IpAddr>,
    pub(super) interface: Option<String>,
    #[serde(rename = "defaultGateway")]
    pub(super) default_gateway: Option<Family>,
    pub(super) group: Option<String>,
}

impl Head for Neighbour {
    const FIELDS: &'static [&'static str] = &["name", "address", "interface", "defaultGateway", "group"];
}

/// Where a neighbour is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whereabouts<'a> {
    /// At this address; on this interface, if it is link-local.
    At(IpAddr, Option<&'a str>),
    /// Whoever advertises itself as a router on this interface.
    On(&'a str),
    /// The gateway of the default route.
    Gateway(Family),
    /// Wherever in a range it calls from.
    Anywhere,
}

impl Whereabouts<'_> {
    /// How its address is found, where it is not known.
    pub(super) fn sought(self) -> Option<By> {
        match self {
            Self::On(interface) => Some(By::Advertisements(interface.to_owned())),
            Self::Gateway(family) => Some(By::DefaultGateway { v4: family == Family::Ipv4 }),
            Self::At(..) | Self::Anywhere => None,
        }
    }
}

impl Neighbour {
    /// What it is called, in the configuration and in errors.
    pub(super) fn name(&self) -> String {
        let by_place = || match (self.address, &self.interface, self.default_gateway) {
            (Some(address), ..) => address.to_string(),
            (None, _, Some(Family::Ipv4)) => "gateway-ipv4".to_owned(),
            (None, _, Some(Family::Ipv6)) => "gateway-ipv6".to_owned(),
            (None, interface, None) => interface.clone().unwrap_or_else(|| "a neighbour".to_owned()),
        };
        self.name.clone().unwrap_or_else(by_place)
    }

    /// Where it is, which must be said in exactly one way.
    pub(super) fn whereabouts(&self) -> anyhow::Result<Whereabouts<'_>> {
        let name = self.name();
        match (self.address, self.interface.as_deref(), self.default_gateway) {
            (Some(address), interface, None) => {
                let link_local = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
                ensure!(
                    !link_local || interface.is_some(),
                    "{name}: interface: is missing; a link-local address means something on one link only, name that"
                );
                ensure!(
                    !address.is_unspecified(),
                    "{name}: address: {address} is nobody's; write the neighbour's"
                );
                Ok(Whereabouts::At(address, interface))
            }
            (None, Some(interface), None) => {
                ensure!(
                    is_interface(interface),
                    "{name}: interface: `{interface}` is no name of an interface; `ip link` lists them"
                );
                Ok(Whereabouts::On(interface))
            }
            (None, None, Some(family)) => Ok(Whereabouts::Gateway(family)),
            (None, None, None) => bail!(
                "{name}: address: is missing; write the neighbour's, or an interface to find it on, or defaultGateway"
            ),
            (_, _, Some(_)) => {
                bail!("{name}: defaultGateway: stands beside address or interface; keep one of them")
            }
        }
    }
}

/// Whether Linux would take it (`dev_valid_name`).
fn is_interface(name: &str) -> bool {
    let strange = |b: u8| b == b'/' || b == b':' || b.is_ascii_whitespace();
    (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.bytes().any(strange)
}

/// The AS of a neighbour: a number, or which side of ours it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RemoteAs {
    Number(u32),
    /// Any but ours.
    External,
    /// Ours.
    Internal,
}

impl<'de> Deserialize<'de> for RemoteAs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl serde::de::Visitor<'_> for Either {
            type Value = RemoteAs;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("asNumber: a number from 1 to 4294967295, external or internal")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<RemoteAs, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Unsigned(number), &self);
                u32::try_from(number).map(RemoteAs::Number).map_err(|_| wrong())
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<RemoteAs, E> {
                match word {
                    "external" => Ok(RemoteAs::External),
                    "internal" => Ok(RemoteAs::Internal),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(word), &self)),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[derive(Debug, Deserialize)]
#[allow(clippy::struct_field_names, reason = "the file's words")]
pub(super) struct Range {
    pub(super) range: IpNet,
    pub(super) group: Option<String>,
    #[serde(default = "hundred")]
    pub(super) limit: u16,
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
pub(super) struct Settings {
    as_number: Option<RemoteAs>,
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
pub(super) enum Family {
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
    #[serde(default)]
    strict: bool,
}

/// By hand, for errors that name the field: an untagged enum knows only that nothing fits.
impl<'de> Deserialize<'de> for BfdRules {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = BfdRules;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bfd: true, false, or { minTx, minRx, multiplier, multihop, keepRoutes, strict }")
            }

            fn visit_bool<E: serde::de::Error>(self, on: bool) -> Result<BfdRules, E> {
                let default = BfdFields {
                    min_tx: bfd_interval(),
                    min_rx: bfd_interval(),
                    multiplier: three(),
                    multihop: false,
                    keep_routes: false,
                    strict: false,
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
    fn bfd(self, name: &str, place: Whereabouts<'_>) -> anyhow::Result<Option<speaker::Bfd>> {
        let Some(fields) = self.0 else { return Ok(None) };
        for (field, time) in [("minTx", fields.min_tx), ("minRx", fields.min_rx)] {
            let range = GoDuration::from_nanos(10_000_000)..=GoDuration::from_secs(60);
            ensure!(range.contains(&time), "{name}: bfd.{field}: {time} is no interval; write 10ms to 60s");
        }
        ensure!(fields.multiplier > 0, "{name}: bfd.multiplier: is 0; write 1 to 255, 3 is usual");
        let on_link = match place {
            Whereabouts::At(IpAddr::V6(a), _) => a.is_unicast_link_local(),
            Whereabouts::On(_) => true,
            Whereabouts::At(..) | Whereabouts::Gateway(_) | Whereabouts::Anywhere => false,
        };
        ensure!(
            !(on_link && fields.multihop),
            "{name}: bfd.multihop: a link-local neighbour is on the link; remove it"
        );
        Ok(Some(speaker::Bfd {
            min_tx: fields.min_tx.into(),
            min_rx: fields.min_rx.into(),
            multiplier: fields.multiplier,
            multihop: fields.multihop,
            keep_routes: fields.keep_routes,
            strict: fields.strict,
        }))
    }
}

impl Settings {
    /// These settings, with a group's where they are silent.
    pub(super) fn over(&self, group: Self) -> Self {
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

    pub(super) fn peer(
        &self,
        filters: &BTreeMap<String, FilterSet>,
        name: &str,
        place: Whereabouts<'_>,
        own_as: u32,
    ) -> anyhow::Result<PeerConfig> {
        let default = PeerConfig::default();
        for filter in self.import.iter().chain(&self.export).flatten() {
            ensure!(
                filters.contains_key(filter),
                "{name}: there is no filter `{filter}`; add it below filters"
            );
        }
        let remote_as = match (self.as_number, place) {
            (Some(RemoteAs::Number(number)), _) => number,
            (Some(RemoteAs::Internal), _) => self.local_as_number.unwrap_or(own_as),
            (Some(RemoteAs::External), _) => 0,
            // Dynamic neighbours may be of any AS.
            (None, Whereabouts::Anywhere) => 0,
            (None, _) => {
                bail!("{name}: asNumber: is missing; write the neighbour's AS, or in its group")
            }
        };
        let families = match &self.families {
            Some(list) => Families { ipv4: list.contains(&Family::Ipv4), ipv6: list.contains(&Family::Ipv6) },
            None => match place {
                Whereabouts::On(_) => Families { ipv4: true, ipv6: true },
                Whereabouts::At(IpAddr::V6(_), _) | Whereabouts::Gateway(Family::Ipv6) => {
                    Families { ipv4: false, ipv6: true }
                }
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
            address: match place {
                Whereabouts::At(address, _) => address,
                _ => place.sought().map_or(default.address, |by| by.nowhere()),
            },
            interface: match place {
                Whereabouts::At(_, interface) => interface.map(str::to_owned),
                _ => None,
            },
            port: self.port.unwrap_or(default.port),
            remote_as,
            remote_external: self.as_number == Some(RemoteAs::External),
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
                Some(rules) => rules.bfd(name, place)?,
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
            add_path: match self.add_path {
                Some(add_path) => checked(name, add_path)?,
                None => default.add_path,
            },
            graceful_restart,
            allow_own_as: self.allow_local_as.unwrap_or(default.allow_own_as),
            enforce_first_as: self.enforce_first_as.unwrap_or(default.enforce_first_as),
            reject_as_sets: self.reject_as_sets.unwrap_or(default.reject_as_sets),
            extended_next_hop: self.extended_next_hop.unwrap_or(matches!(place, Whereabouts::On(_))),
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

    pub(super) fn secret(&self, name: &str) -> anyhow::Result<Option<Secret>> {
        let secret = match (&self.password, &self.password_file) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => bail!("{name}: password and passwordFile are both set; keep one"),
            (Some(text), None) => passwords::password(text.clone()),
            (None, Some(path)) => passwords::alone(path).map_err(|e| format!("passwordFile: {e}")),
        };
        secret.map(Some).map_err(|why| anyhow::anyhow!("{name}: {why}"))
    }
}

/// ADD-PATH whose limits can be kept.
fn checked(name: &str, add_path: speaker::AddPath) -> anyhow::Result<speaker::AddPath> {
    for (way, on, limit) in
        [("send", add_path.send, add_path.send_limit), ("receive", add_path.receive, add_path.receive_limit)]
    {
        let Some(limit) = limit else { continue };
        let range = 1..=speaker::MOST_PATHS;
        ensure!(
            range.contains(&limit),
            "{name}: addPath.{way}Limit: is {limit}, and there is no such number of paths; write 1 to {}, or remove it",
            range.end()
        );
        ensure!(
            on,
            "{name}: addPath.{way}Limit: is {limit}, but {way} is off; write {way}: true beside it, or remove it"
        );
    }
    Ok(add_path)
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
