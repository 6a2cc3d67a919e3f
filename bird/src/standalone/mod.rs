//! A router or route reflector from one YAML file, without a datastore.
//!
//! Every field but `routerId`, `asNumber` and one way to have neighbours may be left out. Unknown fields are errors,
//! so that a typing mistake is not a silent default.
//!
//! `docs/router.md` is its manual, with an example that is tested here.

mod neighbour;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bird_speaker::config::{
    Aggregate, Config, ExportRules, KernelRules, LearnedMetric, ListenRange, Local, OriginTarget, Originated,
};
use bird_speaker::policy::FilterSet;
use caracal_netlink::{proto, table};
use ipnet::IpNet;
use serde::Deserialize;

use crate::api;
use crate::plan::{Plan, Redistribute};
use neighbour::{Neighbour, Range, Settings, Whereabouts, With};

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
    let (mut passwords, mut sought) = (BTreeMap::new(), BTreeMap::new());
    for With { head: neighbour, settings } in &router.neighbours {
        let name = neighbour.name();
        let settings = settings.over(router.group(&name, neighbour.group.as_deref())?);
        let place = neighbour.whereabouts()?;
        let peer = settings.peer(&router.filters, &name, place, router.as_number)?;
        if let Some(by) = place.sought() {
            if let Some((other, _)) = sought.iter().find(|(_, known)| **known == by) {
                bail!("{name}: {by} finds {other} already; keep one of the two");
            }
            sought.insert(name.clone(), by);
        }
        if let Some(secret) = settings.secret(&name)? {
            passwords.insert(name.clone(), secret);
        }
        config.peers.push(peer);
    }
    let mut range_passwords = BTreeMap::new();
    for With { head: range, settings } in &router.listen_ranges {
        let name = format!("range {}", range.range);
        let settings = settings.over(router.group(&name, range.group.as_deref())?);
        let template = settings.peer(&router.filters, &name, Whereabouts::Anywhere, router.as_number)?;
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
    // An address that is found later is no contradiction.
    let errors: Vec<_> = config
        .validate()
        .into_iter()
        .filter(|e| !(e.field == "address" && sought.contains_key(&e.object)))
        .collect();
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
            sought,
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

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests;
