//! The `CalicoAPIConfig` file of calicoctl.

use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Names, Settings, wrong};
use crate::error::Error;

pub(super) const NAMES: Names = Names {
    datastore_type: "spec.datastoreType",
    endpoints: "spec.etcdEndpoints",
    discovery_srv: "spec.etcdDiscoverySrv",
    username: "spec.etcdUsername",
    password: "spec.etcdPassword",
    key_file: "spec.etcdKeyFile",
    cert_file: "spec.etcdCertFile",
    ca_file: "spec.etcdCACertFile",
    key: "spec.etcdKey",
    cert: "spec.etcdCert",
    embedded_path: "spec.embeddedPath",
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    #[serde(default)]
    spec: Option<Spec>,
}

/// Calico's fields plus `embeddedPath`. Those of the Kubernetes datastore are accepted and unused.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Spec {
    datastore_type: Option<String>,
    etcd_endpoints: Option<String>,
    etcd_discovery_srv: Option<String>,
    etcd_username: Option<String>,
    etcd_password: Option<String>,
    etcd_key_file: Option<String>,
    etcd_cert_file: Option<String>,
    #[serde(rename = "etcdCACertFile")]
    etcd_ca_cert_file: Option<String>,
    etcd_key: Option<String>,
    etcd_cert: Option<String>,
    #[serde(rename = "etcdCACert")]
    etcd_ca_cert: Option<String>,
    embedded_path: Option<String>,
    #[serde(rename = "kubeconfig")]
    _kubeconfig: Option<IgnoredAny>,
    #[serde(rename = "kubeconfigInline")]
    _kubeconfig_inline: Option<IgnoredAny>,
    #[serde(rename = "k8sAPIEndpoint")]
    _k8s_endpoint: Option<IgnoredAny>,
    #[serde(rename = "k8sKeyFile")]
    _k8s_key_file: Option<IgnoredAny>,
    #[serde(rename = "k8sCertFile")]
    _k8s_cert_file: Option<IgnoredAny>,
    #[serde(rename = "k8sCAFile")]
    _k8s_ca_file: Option<IgnoredAny>,
    #[serde(rename = "k8sAPIToken")]
    _k8s_token: Option<IgnoredAny>,
    #[serde(rename = "k8sInsecureSkipTLSVerify")]
    _k8s_insecure: Option<IgnoredAny>,
    #[serde(rename = "k8sDisableNodePoll")]
    _k8s_disable_node_poll: Option<IgnoredAny>,
    #[serde(rename = "k8sUsePodCIDR")]
    _k8s_use_pod_cidr: Option<IgnoredAny>,
    #[serde(rename = "k8sCurrentContext")]
    _k8s_context: Option<IgnoredAny>,
    #[serde(rename = "k8sClientQPS")]
    _k8s_qps: Option<IgnoredAny>,
}

pub(super) fn read(path: &Path) -> Result<Settings, Error> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|err| wrong(&name, &format!("error reading config file: {err}")))?;
    let file: File = serde_yaml::from_str(&text)
        .map_err(|err| wrong(&name, &format!("error reading config file: {err}")))?;
    if file.kind != "CalicoAPIConfig" {
        return Err(wrong(&name, &format!("kind is \"{}\"; it must be CalicoAPIConfig", file.kind)));
    }
    if file.api_version != "projectcalico.org/v3" {
        return Err(wrong(
            &name,
            &format!("apiVersion is \"{}\"; it must be projectcalico.org/v3", file.api_version),
        ));
    }
    let spec = file.spec.unwrap_or_default();
    let set = |value: Option<String>| value.filter(|value| !value.trim().is_empty());
    Ok(Settings {
        datastore_type: set(spec.datastore_type),
        endpoints: set(spec.etcd_endpoints),
        discovery_srv: set(spec.etcd_discovery_srv),
        username: set(spec.etcd_username),
        password: set(spec.etcd_password),
        key_file: set(spec.etcd_key_file),
        cert_file: set(spec.etcd_cert_file),
        ca_file: set(spec.etcd_ca_cert_file),
        key: set(spec.etcd_key),
        cert: set(spec.etcd_cert),
        ca: set(spec.etcd_ca_cert),
        embedded_path: set(spec.embedded_path),
    })
}
