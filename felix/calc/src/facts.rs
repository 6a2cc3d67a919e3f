//! From a key and its bytes to a fact that concerns this node, or to nothing.

use std::sync::Arc;

use caracal_model::names::WepName;
use caracal_model::{Key, Kind, Resource, Value};
use ipnet::IpNet;

use crate::config::{self, Raw, Source};
use crate::endpoint::{NETNS_ANNOTATION, WepId, Written};

const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";
const WORKLOAD_ENDPOINTS: &str = "workloadendpoints/";
const POOLS: &str = "ippools/";
const FELIX_CONFIGURATIONS: &str = "felixconfigurations/";
const BGP_DEFAULT: &str = "bgpconfigurations/default";
const CLUSTER_INFORMATION: &str = "clusterinformations/default";

/// An endpoint object of more bytes than this is not read; a real one has two or three thousand.
const LARGEST_ENDPOINT: usize = 256 * 1024;

/// The prefixes of the datastore whose keys [`Reader::read`] understands.
pub(crate) fn prefixes() -> Vec<String> {
    [WORKLOAD_ENDPOINTS, POOLS, FELIX_CONFIGURATIONS, "bgpconfigurations/", "clusterinformations/"]
        .map(|kind| format!("{RESOURCES}{kind}"))
        .to_vec()
}

/// What an update means here. `Err` carries the reason why the stored value cannot be read.
pub(crate) enum Fact {
    /// Not for this node, or not for felix.
    Foreign,
    Endpoint {
        id: WepId,
        name: Arc<str>,
        /// `None`: deleted.
        written: Option<Result<Box<Written>, String>>,
    },
    Pool {
        name: String,
        cidr: Result<Option<IpNet>, String>,
    },
    Parameters {
        source: Source,
        raw: Result<Option<Raw>, String>,
    },
    /// Whether the datastore is open for business.
    Ready(Result<bool, String>),
}

/// Knows which keys are this node's.
#[derive(Debug)]
pub(crate) struct Reader {
    node: String,
    /// What the names of this node's endpoints begin with; other nodes' may too.
    endpoint_prefix: String,
}

impl Reader {
    pub(crate) fn new(node: &str) -> Self {
        Self { node: node.to_owned(), endpoint_prefix: WepName::node_prefix(node) }
    }

    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    pub(crate) fn read(&self, key: &str, value: Option<&[u8]>) -> Fact {
        let Some(rest) = key.strip_prefix(RESOURCES) else { return Fact::Foreign };
        if let Some(rest) = rest.strip_prefix(WORKLOAD_ENDPOINTS) {
            return self.endpoint(key, rest, value);
        }
        if let Some(name) = rest.strip_prefix(POOLS) {
            return Fact::Pool { name: name.to_owned(), cidr: value.map(|v| pool(key, v)).transpose() };
        }
        if let Some(name) = rest.strip_prefix(FELIX_CONFIGURATIONS) {
            let source = match name.strip_prefix("node.") {
                Some(node) if node == self.node => Source::Node,
                None if name == "default" => Source::Global,
                _ => return Fact::Foreign,
            };
            return Fact::Parameters { source, raw: value.map(parameters).transpose() };
        }
        match rest {
            BGP_DEFAULT => {
                let raw = value.map(parameters).transpose().map(|raw| raw.map(only_priorities));
                Fact::Parameters { source: Source::Bgp, raw }
            }
            CLUSTER_INFORMATION => Fact::Ready(value.map_or(Ok(true), |v| ready(key, v))),
            _ => Fact::Foreign,
        }
    }

    fn endpoint(&self, key: &str, rest: &str, value: Option<&[u8]>) -> Fact {
        let Some((namespace, name)) = rest.split_once('/') else { return Fact::Foreign };
        // The name says whose it is, as in Calico (workloadendpointprocessor.go); most are dismissed here.
        if !name.starts_with(&self.endpoint_prefix) {
            return Fact::Foreign;
        }
        let Ok(parts) = WepName::parse(name) else { return Fact::Foreign };
        if parts.node != self.node {
            return Fact::Foreign;
        }
        let id = WepId {
            orchestrator: parts.orchestrator,
            workload: format!("{namespace}/{}", parts.workload),
            endpoint: parts.endpoint,
        };
        Fact::Endpoint { id, name: rest.into(), written: value.map(|v| endpoint(key, v)) }
    }
}

fn endpoint(key: &str, value: &[u8]) -> Result<Box<Written>, String> {
    if value.len() > LARGEST_ENDPOINT {
        return Err(format!(
            "value: {} bytes are more than the {LARGEST_ENDPOINT} that are read; write the object anew",
            value.len()
        ));
    }
    let Resource::WorkloadEndpoint(wep) = resource(Kind::WorkloadEndpoint, key, value)? else {
        return Err(other_kind("WorkloadEndpoint"));
    };
    let spec = wep.spec;
    Ok(Box::new(Written {
        node: spec.node.unwrap_or_default(),
        created: wep.metadata.creation_timestamp.unwrap_or_default(),
        interface_name: spec.interface_name.unwrap_or_default(),
        endpoint: spec.endpoint.unwrap_or_default(),
        netns: wep.metadata.annotations.get(NETNS_ANNOTATION).cloned(),
        mac: spec.mac.unwrap_or_default(),
        ip_networks: spec.ip_networks,
        spoofs: !spec.allow_spoofed_source_prefixes.is_empty(),
    }))
}

fn pool(key: &str, value: &[u8]) -> Result<IpNet, String> {
    let Resource::IpPool(pool) = resource(Kind::IpPool, key, value)? else {
        return Err(other_kind("IPPool"));
    };
    let text = pool.spec.cidr.unwrap_or_default();
    let net: IpNet = text
        .parse()
        .map_err(|_| "spec.cidr: not an address range; write it as 10.0.0.0/16 or fd00::/64".to_owned())?;
    Ok(net.trunc())
}

fn ready(key: &str, value: &[u8]) -> Result<bool, String> {
    let Resource::ClusterInformation(info) = resource(Kind::ClusterInformation, key, value)? else {
        return Err(other_kind("ClusterInformation"));
    };
    Ok(info.spec.datastore_ready != Some(false))
}

/// Reads a resource of one kind. The reason names the field and how to mend it, never the value.
fn resource(kind: Kind, key: &str, value: &[u8]) -> Result<Resource, String> {
    let parsed = Key::parse(key).map_err(|err| format!("key: {}; {}", err.reason, err.fix))?;
    match Value::parse(&parsed, value) {
        Ok(Value::Resource(resource)) if resource.kind() == kind => Ok(resource),
        Ok(_) => Err(other_kind(kind.kind_name())),
        Err(err) => {
            let field = if matches!(err.field.as_str(), "?" | "." | "") { "value" } else { &err.field };
            Err(format!("{field}: {}; {}", err.reason, err.fix))
        }
    }
}

fn other_kind(wanted: &str) -> String {
    format!("kind: another kind than {wanted} is stored here; write the object anew")
}

/// The scalars of a configuration's spec. They are judged one by one, so one wrong type costs only its own field.
fn parameters(value: &[u8]) -> Result<Raw, String> {
    const FIX: &str = "write the object anew";
    let json: serde_json::Value = serde_json::from_slice(value)
        .map_err(|err| format!("value: not JSON at column {}; {FIX}", err.column()))?;
    let object = json.as_object().ok_or_else(|| format!("value: not an object; {FIX}"))?;
    let mut raw = match object.get("spec") {
        None | Some(serde_json::Value::Null) => Raw::new(),
        Some(serde_json::Value::Object(spec)) => config::from_spec(spec),
        Some(_) => return Err(format!("spec: not an object; {FIX}")),
    };
    let annotations = object.get("metadata").and_then(|m| m.get("annotations")).and_then(|a| a.as_object());
    for (name, value) in annotations.into_iter().flatten() {
        // As Calico's configurationprocessor.go reads parameters that the resource has no field for.
        if let (Some(name), Some(text)) = (name.strip_prefix("config.projectcalico.org/"), value.as_str()) {
            raw.entry(name.to_ascii_lowercase()).or_insert_with(|| text.trim().to_owned());
        }
    }
    Ok(raw)
}

fn only_priorities(raw: Raw) -> Raw {
    raw.into_iter().filter(|(name, _)| name.ends_with("normalroutepriority")).collect()
}
