//! FelixConfiguration and its environment twin, typed.
//!
//! Precedence, highest first, as in Calico (felix/config SourcesInDescendingOrder): environment `FELIX_<NAME>`,
//! FelixConfiguration `node.<this node>`, FelixConfiguration `default`, what is built in. The route priority may
//! also stand in BGPConfiguration `default`, below all of these.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// What the worker obeys. Parameters that only other parts of Calico read are not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Names of workload links begin with one of these (`interfacePrefix`).
    pub interface_prefixes: Vec<String>,
    /// IPv6 addresses of workloads are routed (`ipv6Support`).
    pub ipv6: bool,
    /// Forwarding is switched on for the host (`ipForwarding`).
    pub ip_forwarding: bool,
    /// The protocol number that marks our routes (`deviceRouteProtocol`; Calico's default 3 means 80 here).
    pub route_protocol: u8,
    /// Routes of any protocol through workload links are removed when nobody wants them (`removeExternalRoutes`).
    pub remove_external_routes: bool,
    /// Source address of workload routes, IPv4 (`deviceRouteSourceAddress`).
    pub route_source_v4: Option<Ipv4Addr>,
    /// Source address of workload routes, IPv6 (`deviceRouteSourceAddressIPv6`).
    pub route_source_v6: Option<Ipv6Addr>,
    /// Metric of workload routes, IPv4 (`ipv4NormalRoutePriority`).
    pub metric_v4: u32,
    /// Metric of workload routes, IPv6 (`ipv6NormalRoutePriority`).
    pub metric_v6: u32,
    /// How often kernel state is read back although no notification asked for it (`routeRefreshInterval`; zero: never).
    pub audit_interval: Duration,
    /// Host links whose smallest MTU our links take (`mtuIfacePattern`, a regular expression).
    pub mtu_iface_pattern: String,
    /// Endpoint status keys are written (`endpointReportingEnabled`). On here, off in Calico.
    pub endpoint_reporting: bool,
    /// How often the host's own status key is written (`reportingInterval`; zero: never).
    pub reporting_interval: Duration,
    /// Life of the host's status key (`reportingTTL`).
    pub reporting_ttl: Duration,
    /// OpenStack region, part of status keys (`openstackRegion`).
    pub region: Option<String>,
    /// How long the dataplane is held when most local endpoints vanish in one resync (`endpointLossHold`, ours).
    pub endpoint_loss_hold: Duration,
    /// Endpoints may carry `allowSpoofedSourcePrefixes` (`workloadSourceSpoofing: Any`).
    pub spoofing_allowed: bool,
    /// `/liveness` and `/readiness` are served (`healthEnabled`).
    pub health_enabled: bool,
    /// Where health is served (`healthHost`).
    pub health_host: String,
    /// Port of health (`healthPort`).
    pub health_port: u16,
    /// `/metrics` is served (`prometheusMetricsEnabled`).
    pub metrics_enabled: bool,
    /// Where metrics are served (`prometheusMetricsHost`; empty: everywhere).
    pub metrics_host: String,
    /// Port of metrics (`prometheusMetricsPort`).
    pub metrics_port: u16,
    /// Calico's word for the log level (`logSeverityScreen`).
    pub log_severity: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interface_prefixes: vec!["cali".into()],
            ipv6: true,
            ip_forwarding: true,
            route_protocol: DEFAULT_ROUTE_PROTOCOL,
            remove_external_routes: true,
            route_source_v4: None,
            route_source_v6: None,
            metric_v4: DEFAULT_METRIC,
            metric_v6: DEFAULT_METRIC,
            audit_interval: Duration::from_secs(30),
            mtu_iface_pattern: "^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)".into(),
            endpoint_reporting: true,
            reporting_interval: Duration::from_secs(30),
            reporting_ttl: Duration::from_secs(90),
            region: None,
            endpoint_loss_hold: Duration::from_secs(30),
            spoofing_allowed: false,
            health_enabled: false,
            health_host: "localhost".into(),
            health_port: 9099,
            metrics_enabled: false,
            metrics_host: String::new(),
            metrics_port: 9091,
            log_severity: "Info".into(),
        }
    }
}

/// The mark of our routes in the kernel.
const DEFAULT_ROUTE_PROTOCOL: u8 = 80;
/// Calico's normal route priority since v3.33.
const DEFAULT_METRIC: u32 = 1024;

/// Where a value came from, highest precedence first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `FELIX_<NAME>` in the environment.
    Environment,
    /// FelixConfiguration `node.<this node>`.
    Node,
    /// FelixConfiguration `default`.
    Global,
    /// BGPConfiguration `default` (route priorities only).
    Bgp,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment => "the environment",
            Self::Node => "this node's FelixConfiguration",
            Self::Global => "FelixConfiguration default",
            Self::Bgp => "BGPConfiguration default",
        })
    }
}

/// Raw values by parameter name in lower case.
pub type Raw = BTreeMap<String, String>;

/// Something about the configuration that a person should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remark {
    /// The value cannot be used; the built-in one is.
    Invalid {
        /// Where it stands.
        source: Source,
        /// The parameter, in lower case.
        name: String,
        /// Why, and what would be right.
        reason: String,
    },
    /// A parameter that this worker does not read.
    Ignored {
        /// Where it stands.
        source: Source,
        /// The parameter, in lower case.
        name: String,
    },
}

/// The configuration that `sources` amount to, and what is to be said about them.
pub fn resolve(sources: &BTreeMap<Source, Raw>) -> (Config, Vec<Remark>) {
    let mut config = Config::default();
    let mut remarks = Vec::new();
    let mut chosen: BTreeMap<&str, (Source, &str)> = BTreeMap::new();
    for (source, values) in sources {
        for (name, value) in values {
            if PARAMETERS.iter().any(|(known, _)| known == name) {
                chosen.entry(name).or_insert((*source, value));
            } else if *source != Source::Bgp {
                remarks.push(Remark::Ignored { source: *source, name: name.clone() });
            }
        }
    }
    for (name, set) in PARAMETERS {
        let Some((source, value)) = chosen.get(name) else { continue };
        // Calico's word for "unset"; an empty variable is none at all.
        if value.is_empty() || value.eq_ignore_ascii_case("none") {
            continue;
        }
        if let Err(wanted) = set(&mut config, value) {
            let shown: String = value.chars().take(40).collect();
            let reason = format!("{shown:?} is not {wanted}; the built-in value is used");
            remarks.push(Remark::Invalid { source: *source, name: (*name).into(), reason });
        }
    }
    (config, remarks)
}

/// The FELIX_ variables of an environment, as [`resolve`] takes them.
pub fn from_environment<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Raw {
    variables
        .into_iter()
        .filter_map(|(name, value)| {
            let upper = name.to_ascii_lowercase();
            upper.strip_prefix("felix_").map(|rest| (rest.to_owned(), value.trim().to_owned()))
        })
        // Names the node, not a parameter; the caller has read it.
        .filter(|(name, _)| name != "felixhostname")
        .collect()
}

/// Scalars of a stored `spec`, as [`resolve`] takes them. Lists and objects belong to parameters that we do not read.
pub fn from_spec(spec: &serde_json::Map<String, serde_json::Value>) -> Raw {
    spec.iter()
        .filter_map(|(name, value)| {
            let text = match value {
                serde_json::Value::Bool(flag) => flag.to_string(),
                serde_json::Value::Number(number) => number.to_string(),
                serde_json::Value::String(text) => text.trim().to_owned(),
                _ => return None,
            };
            Some((name.to_ascii_lowercase(), text))
        })
        .collect()
}

/// Puts a value in its place, or says what a right one looks like.
type Set = fn(&mut Config, &str) -> Result<(), &'static str>;

/// Every parameter that is read, by its name in lower case; Calico's variable and resource spellings both.
const PARAMETERS: &[(&str, Set)] = &[
    ("interfaceprefix", |c, v| {
        put(&mut c.interface_prefixes, prefixes(v), "a list of link name prefixes of 1 to 14 characters")
    }),
    ("ipv6support", |c, v| put(&mut c.ipv6, boolean(v), BOOLEAN)),
    ("ipforwarding", |c, v| put(&mut c.ip_forwarding, word(v, "enabled", "disabled"), "Enabled or Disabled")),
    ("devicerouteprotocol", |c, v| {
        // 3 (boot) is Calico's default; nothing can tell such a route from an administrator's, so ours stay 80.
        let protocol =
            v.parse().ok().filter(|p: &u8| *p > 0).map(|p| if p == 3 { DEFAULT_ROUTE_PROTOCOL } else { p });
        put(&mut c.route_protocol, protocol, "a route protocol number from 1 to 255")
    }),
    ("removeexternalroutes", |c, v| put(&mut c.remove_external_routes, boolean(v), BOOLEAN)),
    ("deviceroutesourceaddress", |c, v| {
        put(&mut c.route_source_v4, v.parse().ok().map(Some), "an IPv4 address")
    }),
    ("deviceroutesourceaddressipv6", |c, v| {
        put(&mut c.route_source_v6, v.parse().ok().map(Some), "an IPv6 address")
    }),
    ("ipv4normalroutepriority", |c, v| put(&mut c.metric_v4, priority(v), PRIORITY)),
    ("ipv6normalroutepriority", |c, v| put(&mut c.metric_v6, priority(v), PRIORITY)),
    ("routerefreshinterval", |c, v| put(&mut c.audit_interval, duration(v), DURATION)),
    ("mtuifacepattern", |c, v| put(&mut c.mtu_iface_pattern, Some(v.to_owned()), "a regular expression")),
    ("endpointreportingenabled", |c, v| put(&mut c.endpoint_reporting, boolean(v), BOOLEAN)),
    ("reportinginterval", |c, v| put(&mut c.reporting_interval, duration(v), DURATION)),
    ("reportingintervalsecs", |c, v| put(&mut c.reporting_interval, duration(v), DURATION)),
    ("reportingttl", |c, v| put(&mut c.reporting_ttl, duration(v), DURATION)),
    ("reportingttlsecs", |c, v| put(&mut c.reporting_ttl, duration(v), DURATION)),
    ("openstackregion", |c, v| put(&mut c.region, Some(Some(v.to_owned())), "a region name")),
    ("endpointlosshold", |c, v| put(&mut c.endpoint_loss_hold, duration(v), DURATION)),
    ("workloadsourcespoofing", |c, v| {
        put(&mut c.spoofing_allowed, word(v, "any", "disabled"), "Any or Disabled")
    }),
    ("healthenabled", |c, v| put(&mut c.health_enabled, boolean(v), BOOLEAN)),
    ("healthhost", |c, v| put(&mut c.health_host, Some(v.to_owned()), "a host name or address")),
    ("healthport", |c, v| put(&mut c.health_port, v.parse().ok(), PORT)),
    ("prometheusmetricsenabled", |c, v| put(&mut c.metrics_enabled, boolean(v), BOOLEAN)),
    ("prometheusmetricshost", |c, v| put(&mut c.metrics_host, Some(v.to_owned()), "a host name or address")),
    ("prometheusmetricsport", |c, v| put(&mut c.metrics_port, v.parse().ok(), PORT)),
    ("logseverityscreen", |c, v| put(&mut c.log_severity, Some(v.to_owned()), "a log level")),
];

const BOOLEAN: &str = "true or false";
const DURATION: &str = "a duration such as 90s or 1m30s, or a number of seconds";
const PRIORITY: &str = "a route priority from 1 to 2147483646";
const PORT: &str = "a port number";

fn put<T>(place: &mut T, value: Option<T>, wanted: &'static str) -> Result<(), &'static str> {
    *place = value.ok_or(wanted)?;
    Ok(())
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "t" => Some(true),
        "false" | "0" | "no" | "n" | "f" => Some(false),
        _ => None,
    }
}

fn word(text: &str, yes: &str, no: &str) -> Option<bool> {
    match text.to_ascii_lowercase() {
        word if word == yes => Some(true),
        word if word == no => Some(false),
        _ => None,
    }
}

fn priority(text: &str) -> Option<u32> {
    text.parse().ok().filter(|p| (1..=2_147_483_646).contains(p))
}

fn prefixes(text: &str) -> Option<Vec<String>> {
    let list: Vec<String> =
        text.split(',').map(str::trim).filter(|p| !p.is_empty()).map(String::from).collect();
    let good = |p: &String| p.len() < 15 && p.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != ':');
    (!list.is_empty() && list.iter().all(good)).then_some(list)
}

/// Seconds as a plain number (the environment's way), or Go's notation (the resource's way).
fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total =
            total.checked_add(Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(pairs: &[(&str, &str)]) -> Raw {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn environment_beats_node_beats_default() {
        let sources = BTreeMap::from([
            (
                Source::Global,
                raw(&[("ipv6support", "false"), ("interfaceprefix", "tap"), ("reportingttl", "10s")]),
            ),
            (Source::Node, raw(&[("ipv6support", "true"), ("interfaceprefix", "eni")])),
            (
                Source::Environment,
                from_environment([("FELIX_InterfacePrefix", "cali,tap"), ("PATH", "/bin")]),
            ),
            (Source::Bgp, raw(&[("ipv4normalroutepriority", "77"), ("listenport", "178")])),
        ]);
        let (config, remarks) = resolve(&sources);
        assert_eq!(config.interface_prefixes, ["cali", "tap"]);
        assert!(config.ipv6);
        assert_eq!(config.reporting_ttl, Duration::from_secs(10));
        assert_eq!((config.metric_v4, config.metric_v6), (77, 1024));
        assert_eq!(remarks, []);
    }

    #[test]
    fn an_invalid_value_is_named_and_the_default_used() {
        let sources = BTreeMap::from([
            (Source::Global, raw(&[("deviceroutesourceaddress", "10.0.0.1")])),
            (Source::Node, raw(&[("deviceroutesourceaddress", "uplink"), ("healthport", "99999")])),
        ]);
        let (config, remarks) = resolve(&sources);
        assert_eq!(config.route_source_v4, None);
        assert_eq!(config.health_port, 9099);
        let Remark::Invalid { source, name, reason } = &remarks[0] else { panic!("{remarks:?}") };
        assert_eq!((*source, name.as_str()), (Source::Node, "deviceroutesourceaddress"));
        assert_eq!(reason, "\"uplink\" is not an IPv4 address; the built-in value is used");
        assert_eq!(remarks.len(), 2);
    }

    #[test]
    fn unknown_parameters_are_remarked_not_obeyed() {
        let sources = BTreeMap::from([(Source::Global, raw(&[("bpfenabled", "true")]))]);
        assert_eq!(
            resolve(&sources),
            (Config::default(), vec![Remark::Ignored { source: Source::Global, name: "bpfenabled".into() }])
        );
    }

    #[test]
    fn scalars_of_a_spec_are_read_whatever_their_json_type() {
        let spec = serde_json::json!({"ipv6Support": false, "ipv4NormalRoutePriority": 512, "reportingInterval": "0s",
            "routeRefreshInterval": "1m30s", "failsafeInboundHostPorts": []});
        let (config, remarks) =
            resolve(&BTreeMap::from([(Source::Global, from_spec(spec.as_object().unwrap()))]));
        assert!(!config.ipv6);
        assert_eq!(config.metric_v4, 512);
        assert_eq!(config.reporting_interval, Duration::ZERO);
        assert_eq!(config.audit_interval, Duration::from_secs(90));
        assert_eq!(remarks, []);
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("90", Some(90_000)),
            ("1.5", Some(1500)),
            ("1h2m3s", Some(3_723_000)),
            ("250ms", Some(250)),
            ("2m0s", Some(120_000)),
            ("", None),
            ("-1", None),
            ("5 s", None),
            ("s", None),
            ("9d", None),
        ] {
            assert_eq!(duration(text).map(|d| d.as_millis()), want, "{text}");
        }
    }

    #[test]
    fn calicos_default_protocol_means_ours() {
        let with = |v: &str| {
            resolve(&BTreeMap::from([(Source::Global, raw(&[("devicerouteprotocol", v)]))])).0.route_protocol
        };
        assert_eq!((with("3"), with("99"), with("0"), with("none")), (80, 99, 80, 80));
    }
}
