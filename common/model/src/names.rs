//! Names that are computed: workload endpoints and their host interfaces.

use sha1::{Digest, Sha1};

/// Where a WorkloadEndpoint's name comes from. A field that the orchestrator does not use stays unset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct WepName {
    /// Host.
    pub node: String,
    /// `k8s`, `cni`, `libnetwork` or another.
    pub orchestrator: String,
    /// Pod for `k8s`, container id for `cni`, `libnetwork` for libnetwork, else the workload.
    pub workload: String,
    /// Interface inside the workload.
    pub endpoint: String,
}

/// Why no name can be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A part is missing.
    #[error("field {0} must be set: it is part of the endpoint's name")]
    Missing(&'static str),
    /// A part begins or ends with a dash, which the name could not be told from its separators.
    #[error("field {0} must not begin or end with '-': it is part of the endpoint's name")]
    Dash(&'static str),
    /// Not four parts.
    #[error(
        "not a workload endpoint name: node-orchestrator-workload-endpoint, each '-' inside a part doubled"
    )]
    Parts,
}

impl WepName {
    /// The name: parts joined by `-`, each `-` inside a part doubled.
    pub fn format(&self) -> Result<String, NameError> {
        let parts = [
            ("spec.node", &self.node),
            ("spec.orchestrator", &self.orchestrator),
            (self.workload_field(), &self.workload),
            ("spec.endpoint", &self.endpoint),
        ];
        let mut name = String::new();
        for (field, part) in parts {
            check_part(field, part)?;
            if !name.is_empty() {
                name.push('-');
            }
            name.push_str(&escape(part));
        }
        Ok(name)
    }

    /// Reads a full name.
    pub fn parse(name: &str) -> Result<WepName, NameError> {
        let mut parts = split(name)?;
        let (Some(endpoint), Some(workload), Some(orchestrator), Some(node), None) =
            (parts.pop(), parts.pop(), parts.pop(), parts.pop(), parts.pop())
        else {
            return Err(NameError::Parts);
        };
        Ok(WepName { node, orchestrator, workload, endpoint })
    }

    /// What the names of a node's endpoints begin with, and no other node's after [`WepName::parse`] has looked.
    pub fn node_prefix(node: &str) -> String {
        format!("{}-", escape(node))
    }

    /// What the names of a workload's endpoints begin with; other workloads' may too, so parse what a list returns.
    pub fn workload_prefix(node: &str, orchestrator: &str, workload: &str) -> String {
        format!("{}-{}-{}-", escape(node), escape(orchestrator), escape(workload))
    }

    fn workload_field(&self) -> &'static str {
        match self.orchestrator.as_str() {
            "k8s" => "spec.pod",
            "cni" => "spec.containerID",
            _ => "spec.workload",
        }
    }
}

impl crate::endpoint::WorkloadEndpointSpec {
    /// The parts of the name that this spec must be stored under.
    pub fn name_parts(&self) -> WepName {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let orchestrator = text(&self.orchestrator);
        let workload = match orchestrator.as_str() {
            "k8s" => text(&self.pod),
            "cni" => text(&self.container_id),
            "libnetwork" => "libnetwork".to_owned(),
            _ => text(&self.workload),
        };
        WepName { node: text(&self.node), orchestrator, workload, endpoint: text(&self.endpoint) }
    }
}

/// Host interface of a pod: prefix and the first 11 hex digits of SHA-1 over `namespace.pod`.
pub fn pod_interface(prefix: &str, namespace: &str, pod: &str) -> String {
    let digest = Sha1::digest(format!("{namespace}.{pod}"));
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(11);
    prefix.chars().chain(digits.filter_map(|digit| char::from_digit(digit.into(), 16))).collect()
}

/// Host interface of a container outside Kubernetes: prefix and up to 11 characters of the container id.
pub fn container_interface(prefix: &str, container_id: &str) -> String {
    prefix.chars().chain(container_id.chars().take(11)).collect()
}

fn escape(part: &str) -> String {
    part.replace('-', "--")
}

fn check_part(field: &'static str, part: &str) -> Result<(), NameError> {
    if part.is_empty() {
        return Err(NameError::Missing(field));
    }
    if part.starts_with('-') || part.ends_with('-') {
        return Err(NameError::Dash(field));
    }
    Ok(())
}

/// Splits at single dashes; a doubled one belongs to the part.
fn split(name: &str) -> Result<Vec<String>, NameError> {
    let mut parts = vec![];
    let mut part = String::new();
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '-' {
            part.push(letter);
        } else if letters.next_if_eq(&'-').is_some() {
            part.push('-');
        } else {
            parts.push(std::mem::take(&mut part));
        }
    }
    parts.push(part);
    for part in &parts {
        check_part("name", part).map_err(|_| NameError::Parts)?;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_of_known_pods() {
        assert_eq!(pod_interface("cali", "default", "frontend-5d4"), "cali4e64389d09d");
        assert_eq!(pod_interface("cali", "default", "wep1"), "cali90fb1d920a5");
        assert_eq!(pod_interface("cali", "kube-system", "coredns-5d78c9869d-x2v5q"), "cali0bdd81ff914");
        assert_eq!(container_interface("cali", "0f1e2d3c4b5a69788796"), "cali0f1e2d3c4b5");
        assert_eq!(container_interface("cali", "abc"), "caliabc");
    }

    #[test]
    fn names_of_known_endpoints() {
        let name = "node--1-k8s-frontend--5d4-eth0";
        let parts = WepName::parse(name).unwrap();
        assert_eq!((parts.node.as_str(), parts.workload.as_str()), ("node-1", "frontend-5d4"));
        assert_eq!(parts.format().unwrap(), name);
        for bad in ["", "a", "a-b-c", "a-b-c-d-e", "-a-b-c-d", "a-b-c-", "a---b-c-d-e", "a-b-c-d--"] {
            assert!(WepName::parse(bad).is_err(), "{bad}");
        }
        let dash = WepName { node: "n-".into(), ..parts };
        assert_eq!(dash.format(), Err(NameError::Dash("spec.node")));
    }
}
