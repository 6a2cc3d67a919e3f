use std::collections::BTreeMap;
use std::io::Write as _;

use super::*;

fn env(pairs: &[(&str, &str)]) -> Result<Config, Error> {
    let map: BTreeMap<String, String> =
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Config::from_env(&|name| map.get(name).cloned())
}

fn etcd(config: Result<Config, Error>) -> EtcdConfig {
    match config.unwrap().backend {
        Backend::Etcd(etcd) => *etcd,
        Backend::Embedded(_) => panic!("embedded"),
    }
}

fn file(text: &str) -> Result<Config, Error> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Config::from_file(file.path())
}

fn refused(config: Result<Config, Error>, field: &str, reason: &str) {
    match config {
        Err(Error::Config { field: f, reason: r }) => {
            assert!(f.contains(field), "field {f}");
            assert!(r.contains(reason), "reason {r}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn environment_as_calicoctl_reads_it() {
    let got = etcd(env(&[
        ("ETCD_ENDPOINTS", " https://a:2379/ ,https://b:2379,https://a:2379"),
        ("ETCD_CA_CERT_FILE", "/ca.pem"),
        ("ETCD_CERT_FILE", "/cert.pem"),
        ("ETCD_KEY_FILE", "/key.pem"),
        ("ETCD_USERNAME", "root"),
        ("ETCD_PASSWORD", "s3cret"),
    ]));
    assert_eq!(got.endpoints, ["https://a:2379", "https://b:2379"]);
    assert_eq!(got.ca, Some(Pem::File("/ca.pem".into())));
    assert_eq!(got.identity, Some((Pem::File("/cert.pem".into()), Pem::File("/key.pem".into()))));
    assert_eq!(got.user, Some(("root".into(), "s3cret".into())));
    assert!(!format!("{got:?}").contains("s3cret"), "password in debug output");
}

#[test]
fn prefixed_variables_win() {
    let got = etcd(env(&[
        ("CALICO_DATASTORE_TYPE", "etcdv3"),
        ("DATASTORE_TYPE", "kubernetes"),
        ("CALICO_ETCD_ENDPOINTS", "http://a:1"),
        ("ETCD_ENDPOINTS", "http://b:2"),
    ]));
    assert_eq!(got.endpoints, ["http://a:1"]);
}

#[test]
fn embedded_has_a_default_path() {
    let path = |config: Result<Config, Error>| match config.unwrap().backend {
        Backend::Embedded(embedded) => embedded.path,
        Backend::Etcd(_) => panic!("etcd"),
    };
    assert_eq!(path(env(&[("DATASTORE_TYPE", "embedded")])), Path::new(DEFAULT_EMBEDDED_PATH));
    assert_eq!(
        path(env(&[("DATASTORE_TYPE", "embedded"), ("CARACAL_EMBEDDED_PATH", "/x/y")])),
        Path::new("/x/y")
    );
}

#[test]
fn wrong_environment_names_the_variable() {
    refused(env(&[]), "ETCD_ENDPOINTS", "no datastore is configured");
    refused(env(&[("DATASTORE_TYPE", "kubernetes")]), "DATASTORE_TYPE", "not supported");
    refused(env(&[("DATASTORE_TYPE", "consul")]), "DATASTORE_TYPE", "consul");
    refused(env(&[("DATASTORE_TYPE", "etcdv3")]), "ETCD_ENDPOINTS", "no etcd endpoint");
    refused(env(&[("ETCD_DISCOVERY_SRV", "x.org")]), "ETCD_DISCOVERY_SRV", "ETCD_ENDPOINTS");
    refused(env(&[("ETCD_ENDPOINTS", "10.0.0.1:2379")]), "ETCD_ENDPOINTS", "http://10.0.0.1:2379");
    let url = ("ETCD_ENDPOINTS", "https://a:1");
    refused(env(&[url, ("ETCD_KEY_FILE", "/k")]), "ETCD_CERT_FILE", "missing");
    refused(env(&[url, ("ETCD_CERT_FILE", "/k")]), "ETCD_KEY_FILE", "missing");
    refused(
        env(&[("ETCD_ENDPOINTS", "https://a:1,http://b:1"), ("ETCD_CA_CERT_FILE", "/c")]),
        "ETCD_ENDPOINTS",
        "http://b:1 is not encrypted",
    );
}

#[test]
fn user_counts_only_with_a_password() {
    let url = ("ETCD_ENDPOINTS", "https://a:1");
    assert_eq!(etcd(env(&[url, ("ETCD_USERNAME", "u")])).user, None);
    assert_eq!(etcd(env(&[url, ("ETCD_PASSWORD", "p")])).user, None);
}

#[test]
fn calico_api_config_file() {
    let got = etcd(file(
        "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n  \
         datastoreType: etcdv3\n  etcdEndpoints: https://10.0.0.5:2379\n  \
         etcdKeyFile: /etc/certs/key.pem\n  etcdCertFile: /etc/certs/cert.pem\n  \
         etcdCACertFile: /etc/certs/ca.pem\n",
    ));
    assert_eq!(got.endpoints, ["https://10.0.0.5:2379"]);
    assert_eq!(got.ca, Some(Pem::File("/etc/certs/ca.pem".into())));

    let got = etcd(file(
        "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nspec:\n  \
         etcdEndpoints: https://a:1\n  etcdCACert: |\n    -----BEGIN\n  k8sAPIEndpoint: http://k\n",
    ));
    assert_eq!(got.ca, Some(Pem::Inline("-----BEGIN\n".into())));
}

#[test]
fn wrong_file_names_the_field() {
    let head = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nspec:\n";
    refused(file(&format!("{head}  etcdEndpoint: http://a:1\n")), "/", "etcdEndpoint");
    refused(file("kind: Node\napiVersion: projectcalico.org/v3\n"), "/", "CalicoAPIConfig");
    refused(file("kind: CalicoAPIConfig\napiVersion: v1\n"), "/", "projectcalico.org/v3");
    refused(
        file(&format!("{head}  etcdEndpoints: https://a:1\n  etcdKey: x\n  etcdCertFile: /c\n")),
        "spec.etcdKey",
        "cannot be mixed",
    );
    refused(Config::from_file(Path::new("/nonexistent")), "/nonexistent", "error reading");
}
