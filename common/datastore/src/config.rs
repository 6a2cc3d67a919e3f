//! Where the store is and how to reach it: from the environment or from a `CalicoAPIConfig` file,
//! with the names that calicoctl and calico-node use.

mod file;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;

/// Where calicoctl looks for its configuration when it is told nothing.
pub const DEFAULT_FILE: &str = "/etc/calico/calicoctl.cfg";

/// Where the embedded store lives unless `CARACAL_EMBEDDED_PATH` says otherwise.
pub const DEFAULT_EMBEDDED_PATH: &str = "/var/lib/caracal/store.db";

/// Which store to open, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// The kind of store with its own settings.
    pub backend: Backend,
}

/// The two kinds of store.
#[derive(Debug, Clone)]
pub enum Backend {
    /// An etcd v3 cluster (`etcdv3`).
    Etcd(Box<EtcdConfig>),
    /// A file shared by the processes of one host (`embedded`).
    Embedded(EmbeddedConfig),
}

/// Settings of the embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The database file; its directory is created when missing.
    pub path: PathBuf,
}

/// Settings of an etcd v3 cluster.
#[derive(Clone)]
pub struct EtcdConfig {
    /// Base URLs, `http://` or `https://`, in the order given.
    pub endpoints: Vec<String>,
    /// User and password; both or neither.
    pub user: Option<(String, String)>,
    /// The certificate authority that signed the servers' certificates; the system's bundle when
    /// absent.
    pub ca: Option<Pem>,
    /// Client certificate and its key.
    pub identity: Option<(Pem, Pem)>,
    /// How patient to be.
    pub timing: Timing,
}

impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("ca", &self.ca)
            .field("identity", &self.identity)
            .field("timing", &self.timing)
            .finish()
    }
}

/// PEM text, in a file that may be replaced at any time or given in place.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// Read anew for every connection.
    File(PathBuf),
    /// The text itself.
    Inline(String),
}

impl Pem {
    /// The PEM bytes as they are now.
    ///
    /// # Errors
    /// [`Error::Config`] naming `field` and the file when it cannot be read.
    pub fn read(&self, field: &str) -> Result<Vec<u8>, Error> {
        match self {
            Pem::File(path) => std::fs::read(path).map_err(|err| Error::Config {
                field: field.to_owned(),
                reason: format!("cannot read {}: {err}", path.display()),
            }),
            Pem::Inline(text) => Ok(text.clone().into_bytes()),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => write!(f, "File({})", path.display()),
            Pem::Inline(_) => f.write_str("Inline(…)"),
        }
    }
}

/// How patient an etcd client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Longest wait for one connection to one endpoint, its first answer included.
    pub dial: Duration,
    /// Longest wait for one call.
    pub call: Duration,
    /// Interval of HTTP/2 pings, sent while idle too; etcd refuses less than 5 s.
    pub keepalive: Duration,
    /// Longest wait for the answer to a ping.
    pub keepalive_timeout: Duration,
    /// A watch that heard nothing for so long asks etcd for its progress.
    pub probe_after: Duration,
    /// A watch whose question got no answer for so long is dead.
    pub probe_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            dial: Duration::from_secs(3),
            call: Duration::from_secs(5),
            keepalive: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            probe_after: Duration::from_secs(2),
            probe_timeout: Duration::from_secs(2),
        }
    }
}

/// Every setting as text, from whichever source, with the name it has there.
#[derive(Default)]
struct Settings {
    datastore_type: Option<String>,
    endpoints: Option<String>,
    discovery_srv: Option<String>,
    username: Option<String>,
    password: Option<String>,
    key_file: Option<String>,
    cert_file: Option<String>,
    ca_file: Option<String>,
    key: Option<String>,
    cert: Option<String>,
    ca: Option<String>,
    embedded_path: Option<String>,
}

/// The names under which a source spells the settings, for messages.
struct Names {
    datastore_type: &'static str,
    endpoints: &'static str,
    discovery_srv: &'static str,
    username: &'static str,
    password: &'static str,
    key_file: &'static str,
    cert_file: &'static str,
    ca_file: &'static str,
    key: &'static str,
    cert: &'static str,
    embedded_path: &'static str,
}

const ENV: Names = Names {
    datastore_type: "DATASTORE_TYPE",
    endpoints: "ETCD_ENDPOINTS",
    discovery_srv: "ETCD_DISCOVERY_SRV",
    username: "ETCD_USERNAME",
    password: "ETCD_PASSWORD",
    key_file: "ETCD_KEY_FILE",
    cert_file: "ETCD_CERT_FILE",
    ca_file: "ETCD_CA_CERT_FILE",
    // Inline PEM has no variable in Calico: an environment is no place for a key.
    key: "",
    cert: "",
    embedded_path: "CARACAL_EMBEDDED_PATH",
};

impl Config {
    /// Plain etcd without TLS or user; for tests and short tools.
    pub fn etcd(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Config {
        Config {
            backend: Backend::Etcd(Box::new(EtcdConfig {
                endpoints: endpoints.into_iter().map(Into::into).collect(),
                user: None,
                ca: None,
                identity: None,
                timing: Timing::default(),
            })),
        }
    }

    /// The embedded store in the given file.
    pub fn embedded(path: impl Into<PathBuf>) -> Config {
        Config { backend: Backend::Embedded(EmbeddedConfig { path: path.into() }) }
    }

    /// Reads the environment through `lookup`. Each name is tried with the prefix `CALICO_` first,
    /// as Calico does; an empty value counts as absent.
    ///
    /// # Errors
    /// [`Error::Config`] naming the variable, what is wrong and how to fix it.
    pub fn from_env(lookup: &impl Fn(&str) -> Option<String>) -> Result<Config, Error> {
        let get = |name: &str| {
            if name.is_empty() {
                return None;
            }
            [format!("CALICO_{name}"), name.to_owned()]
                .iter()
                .find_map(|name| lookup(name).filter(|value| !value.trim().is_empty()))
        };
        let settings = Settings {
            datastore_type: get(ENV.datastore_type),
            endpoints: get(ENV.endpoints),
            discovery_srv: get(ENV.discovery_srv),
            username: get(ENV.username),
            password: get(ENV.password),
            key_file: get(ENV.key_file),
            cert_file: get(ENV.cert_file),
            ca_file: get(ENV.ca_file),
            key: None,
            cert: None,
            ca: None,
            embedded_path: get(ENV.embedded_path),
        };
        settings.into_config(&ENV)
    }

    /// Reads a `CalicoAPIConfig` file (YAML or JSON). As in Calico the environment then counts for
    /// nothing, and an unknown field is an error.
    ///
    /// # Errors
    /// [`Error::Config`] naming the file or its field, what is wrong and how to fix it.
    pub fn from_file(path: &Path) -> Result<Config, Error> {
        file::read(path)?.into_config(&file::NAMES)
    }

    /// What calicoctl does: the file named, else [`DEFAULT_FILE`] if it exists, else the
    /// environment.
    ///
    /// # Errors
    /// As [`Config::from_file`] and [`Config::from_env`].
    pub fn load(file: Option<&Path>, lookup: &impl Fn(&str) -> Option<String>) -> Result<Config, Error> {
        match file {
            Some(path) => Config::from_file(path),
            None if Path::new(DEFAULT_FILE).exists() => Config::from_file(Path::new(DEFAULT_FILE)),
            None => Config::from_env(lookup),
        }
    }
}

impl Settings {
    fn into_config(self, names: &Names) -> Result<Config, Error> {
        let kind = match self.datastore_type.as_deref().map(str::trim) {
            Some(kind) => kind.to_ascii_lowercase(),
            None if self.endpoints.is_some() || self.discovery_srv.is_some() => "etcdv3".to_owned(),
            None => {
                return Err(wrong(
                    names.endpoints,
                    "no datastore is configured; set it to the etcd URLs \
                     (http://10.0.0.5:2379,…), or set the datastore type to embedded",
                ));
            }
        };
        match kind.as_str() {
            "etcdv3" => Ok(Config { backend: Backend::Etcd(Box::new(self.into_etcd(names)?)) }),
            "embedded" => {
                Ok(Config::embedded(self.embedded_path.unwrap_or_else(|| DEFAULT_EMBEDDED_PATH.to_owned())))
            }
            "kubernetes" => Err(wrong(
                names.datastore_type,
                "the Kubernetes datastore is not supported; use etcdv3 or embedded",
            )),
            other => Err(wrong(
                names.datastore_type,
                &format!("unknown datastore \"{other}\"; use etcdv3 or embedded"),
            )),
        }
    }

    fn into_etcd(self, names: &Names) -> Result<EtcdConfig, Error> {
        if self.discovery_srv.is_some() {
            return Err(wrong(
                names.discovery_srv,
                &format!("discovery by DNS SRV is not supported; list the members in {}", names.endpoints),
            ));
        }
        let endpoints = parse_endpoints(self.endpoints.as_deref().unwrap_or(""), names.endpoints)?;

        let inline = self.key.is_some() || self.cert.is_some() || self.ca.is_some();
        let files = self.key_file.is_some() || self.cert_file.is_some() || self.ca_file.is_some();
        if inline && files {
            return Err(wrong(
                names.key,
                "certificates given in place and certificate files cannot be mixed; keep one of the two",
            ));
        }
        let file = |path: Option<String>| path.map(|path| Pem::File(PathBuf::from(path.trim())));
        let ca = file(self.ca_file).or(self.ca.map(Pem::Inline));
        let cert = file(self.cert_file).or(self.cert.map(Pem::Inline));
        let key = file(self.key_file).or(self.key.map(Pem::Inline));
        let (cert_name, key_name) =
            if inline { (names.cert, names.key) } else { (names.cert_file, names.key_file) };
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(wrong(key_name, &format!("missing; {cert_name} needs its key")));
            }
            (None, Some(_)) => {
                return Err(wrong(cert_name, &format!("missing; {key_name} needs its certificate")));
            }
        };
        if (ca.is_some() || identity.is_some())
            && let Some(plain) = endpoints.iter().find(|url| url.starts_with("http://"))
        {
            return Err(wrong(
                names.endpoints,
                &format!(
                    "{plain} is not encrypted although certificates are configured; \
                     write https:// or remove the certificates"
                ),
            ));
        }
        // As Calico: a user counts only together with a password.
        let user = match (self.username, self.password) {
            (Some(name), Some(password)) => Some((name, password)),
            (None, None) => None,
            (Some(_), None) => {
                tracing::warn!(field = names.username, "ignored: there is no password beside it");
                None
            }
            (None, Some(_)) => {
                tracing::warn!(field = names.password, "ignored: there is no user beside it");
                None
            }
        };
        Ok(EtcdConfig { endpoints, user, ca, identity, timing: Timing::default() })
    }
}

fn parse_endpoints(list: &str, field: &str) -> Result<Vec<String>, Error> {
    let mut endpoints = Vec::new();
    for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let url = item.trim_end_matches('/');
        let authority =
            url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).ok_or_else(|| {
                wrong(field, &format!("\"{item}\" is not a URL; write http://{item} or https://{item}"))
            })?;
        if authority.is_empty() || authority.contains(['/', '@', ' ']) {
            return Err(wrong(
                field,
                &format!("\"{item}\" must be a scheme, a host and a port, as https://10.0.0.5:2379"),
            ));
        }
        if !endpoints.iter().any(|known| known == url) {
            endpoints.push(url.to_owned());
        }
    }
    if endpoints.is_empty() {
        return Err(wrong(field, "no etcd endpoint given; list URLs as http://10.0.0.5:2379,…"));
    }
    Ok(endpoints)
}

fn wrong(field: &str, reason: &str) -> Error {
    Error::Config { field: field.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
