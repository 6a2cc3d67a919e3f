//! TLS to etcd: what is accepted, what is refused and why, and certificates that change on disk.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use caracal_datastore::{Config, Error, Expect, connect, connect_lazy};
use common::{Etcd, Follower};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);

/// A certificate authority and what it signed, as files.
struct Authority {
    dir: TempDir,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let authority = Authority { dir: common::temp_dir() };
        openssl(
            authority.dir.path(),
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
                 -keyout ca.key -out ca.pem -subj /CN={name}"
            ),
        );
        authority
    }

    /// Signs a certificate for `san` (`IP:…`, `DNS:…`), valid for `days` from now.
    fn sign(&self, name: &str, san: &str, days: i32) {
        let dir = self.dir.path();
        openssl(
            dir,
            &format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
                 -keyout {name}.key -out {name}.csr -subj /CN={name}"
            ),
        );
        std::fs::write(
            dir.join("ext"),
            format!("subjectAltName={san}\nextendedKeyUsage=serverAuth,clientAuth\n"),
        )
        .unwrap();
        openssl(
            dir,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} \
                 -extfile ext -out {name}.pem"
            ),
        );
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.path(file)).unwrap()
    }
}

fn openssl(dir: &Path, args: &str) {
    let out = Command::new("openssl")
        .args(args.split_whitespace())
        .current_dir(dir)
        .output()
        .expect("openssl must be installed");
    assert!(out.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&out.stderr));
}

/// An etcd that demands client certificates of `authority`.
fn serve(etcd: &mut Etcd, authority: &Authority, certificate: &str) {
    let path = |name: String| authority.path(&name).to_str().unwrap().to_owned();
    etcd.add_args(&["--cert-file", &path(format!("{certificate}.pem"))]);
    etcd.add_args(&["--key-file", &path(format!("{certificate}.key"))]);
    etcd.add_args(&["--trusted-ca-file", &path("ca.pem".to_owned()), "--client-cert-auth"]);
    etcd.launch();
}

fn config(etcd: &Etcd, ca: &Path, cert: &Path, key: &Path) -> Config {
    let (url, ca) = (etcd.url(), ca.display().to_string());
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    Config::from_env(&|name| {
        Some(match name {
            "ETCD_ENDPOINTS" => url.clone(),
            "ETCD_CA_CERT_FILE" => ca.clone(),
            "ETCD_CERT_FILE" => cert.clone(),
            "ETCD_KEY_FILE" => key.clone(),
            _ => return None,
        })
    })
    .unwrap()
}

async fn reason(config: &Config) -> String {
    let err = tokio::time::timeout(Duration::from_secs(5), connect(config)).await;
    match err.expect("an answer within seconds").err().expect("no connection") {
        Error::Unavailable { endpoint, reason } => {
            assert!(endpoint.starts_with("https://"), "{endpoint}");
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn certificates_in_files_and_in_place() {
    let ours = Authority::new("ours");
    let mut etcd = Etcd::prepare("https", &[]);
    ours.sign("server", &format!("IP:{}", etcd.address), 30);
    ours.sign("client", "DNS:client", 30);
    serve(&mut etcd, &ours, "server");

    let files = config(&etcd, &ours.path("ca.pem"), &ours.path("client.pem"), &ours.path("client.key"));
    let store = connect(&files).await.unwrap();
    store.put("/k", b"v".to_vec(), Expect::Absent, None).await.unwrap();
    let mut follower = Follower::start(store, &["/"]);
    follower.until("connected", SOON, |f| f.in_sync == 1 && f.connected()).await;
    assert_eq!(follower.value("/k"), Some(&b"v"[..]));

    let indent = |text: String| text.replace('\n', "\n    ");
    let file = ours.path("calicoctl.cfg");
    std::fs::write(
        &file,
        format!(
            "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n  \
             datastoreType: etcdv3\n  etcdEndpoints: {}\n  etcdCACert: |\n    {}\n  \
             etcdCert: |\n    {}\n  etcdKey: |\n    {}\n",
            etcd.url(),
            indent(ours.text("ca.pem")),
            indent(ours.text("client.pem")),
            indent(ours.text("client.key")),
        ),
    )
    .unwrap();
    let store = connect(&Config::from_file(&file).unwrap()).await.unwrap();
    assert_eq!(store.get("/k").await.unwrap().unwrap().value, b"v");
}

#[tokio::test]
async fn doubtful_servers_and_clients_are_refused() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let mut etcd = Etcd::prepare("https", &[]);
    ours.sign("server", &format!("IP:{}", etcd.address), 30);
    ours.sign("client", "DNS:client", 30);
    theirs.sign("client", "DNS:client", 30);
    serve(&mut etcd, &ours, "server");
    let client = (ours.path("client.pem"), ours.path("client.key"));

    let text = reason(&config(&etcd, &theirs.path("ca.pem"), &client.0, &client.1)).await;
    assert!(text.contains("UnknownIssuer") || text.contains("BadSignature"), "{text}");

    let stranger = (theirs.path("client.pem"), theirs.path("client.key"));
    let text = reason(&config(&etcd, &ours.path("ca.pem"), &stranger.0, &stranger.1)).await;
    let told = text.contains("alert") || text.contains("may not accept the client certificate");
    assert!(told, "a certificate the server does not know: {text}");

    let url = etcd.url();
    let ca = ours.path("ca.pem").display().to_string();
    let anonymous = Config::from_env(&|name| match name {
        "ETCD_ENDPOINTS" => Some(url.clone()),
        "ETCD_CA_CERT_FILE" => Some(ca.clone()),
        _ => None,
    });
    let text = reason(&anonymous.unwrap()).await;
    let told = text.contains("alert") || text.contains("may demand a client certificate");
    assert!(told, "no certificate at all: {text}");

    // Plain text to a TLS port gets no further either.
    let plain = Config::etcd([etcd.url().replace("https", "http")]);
    match connect(&plain).await {
        Err(err @ Error::Unavailable { .. }) => {
            assert!(err.to_string().contains("write https://"), "{err}");
        }
        other => panic!("{:?}", other.err()),
    }

    // The key of another certificate, a missing file and a truncated one: settings, not the net.
    let ca = ours.path("ca.pem");
    let mixed = connect(&config(&etcd, &ca, &client.0, &stranger.1)).await.err().unwrap();
    assert!(matches!(&mixed, Error::Config { .. }), "{mixed:?}");
    let missing = connect_lazy(&config(&etcd, &ca, &client.0, Path::new("/nonexistent.key")));
    match missing.err().unwrap() {
        Error::Config { field, reason } => {
            assert_eq!(field, "ETCD_KEY_FILE");
            assert!(reason.contains("/nonexistent.key"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let torn = ours.path("torn.pem");
    std::fs::write(&torn, &ours.text("ca.pem")[..200]).unwrap();
    let torn = connect_lazy(&config(&etcd, &torn, &client.0, &client.1)).err().unwrap();
    assert!(matches!(&torn, Error::Config { field, .. } if field == "ETCD_CA_CERT_FILE"), "{torn:?}");
}

#[tokio::test]
async fn a_server_with_another_name_or_an_expired_certificate_is_refused() {
    let ours = Authority::new("ours");
    ours.sign("client", "DNS:client", 30);
    let mut etcd = Etcd::prepare("https", &[]);
    ours.sign("other", "IP:192.0.2.1", 30);
    // Expired before it was signed.
    ours.sign("expired", &format!("IP:{}", etcd.address), -1);
    let config = config(&etcd, &ours.path("ca.pem"), &ours.path("client.pem"), &ours.path("client.key"));
    serve(&mut etcd, &ours, "other");
    let text = reason(&config).await;
    assert!(text.contains("not valid for"), "{text}");
    etcd.kill();
    serve(&mut etcd, &ours, "expired");
    let text = reason(&config).await;
    assert!(text.to_lowercase().contains("expired"), "{text}");
}

/// Authority, server and client certificates are all replaced while an agent runs; for a while its
/// files are half written.
#[tokio::test]
async fn new_certificates_are_picked_up_without_a_restart() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let mut etcd = Etcd::prepare("https", &[]);
    for authority in [&old, &new] {
        authority.sign("server", &format!("IP:{}", etcd.address), 30);
        authority.sign("client", "DNS:client", 30);
    }
    let mounted = common::temp_dir();
    let mount = |authority: &Authority, bytes: usize| {
        for file in ["ca.pem", "client.pem", "client.key"] {
            let text = authority.text(file);
            std::fs::write(mounted.path().join(file), &text[..bytes.min(text.len())]).unwrap();
        }
    };
    mount(&old, usize::MAX);
    serve(&mut etcd, &old, "server");
    let at = |file: &str| mounted.path().join(file);
    let store = connect(&config(&etcd, &at("ca.pem"), &at("client.pem"), &at("client.key"))).await.unwrap();
    let mut follower = Follower::start(store.clone(), &["/"]);
    follower.until("connected", SOON, |f| f.in_sync == 1 && f.connected()).await;

    // Half written: the connection in use is not touched, a new one uses what was good before.
    mount(&new, 100);
    store.put("/k", b"1".to_vec(), Expect::Any, None).await.unwrap();
    etcd.kill();
    follower.until("lost", SOON, Follower::lost).await;
    serve(&mut etcd, &old, "server");
    follower.until("connected", SOON, Follower::connected).await;
    store.put("/k", b"2".to_vec(), Expect::Any, None).await.unwrap();

    etcd.kill();
    follower.until("lost", SOON, Follower::lost).await;
    mount(&new, usize::MAX);
    serve(&mut etcd, &new, "server");
    follower.until("connected", SOON, Follower::connected).await;
    store.put("/k", b"3".to_vec(), Expect::Any, None).await.unwrap();
    follower.until("the update", SOON, |f| f.value("/k") == Some(b"3")).await;
}
