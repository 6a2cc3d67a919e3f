//! Finding a member that answers, and keeping the connection to it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, timeout};

use super::explain;
use crate::config::{EtcdConfig, Timing};
use crate::error::Error;

/// How long one member has to answer before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// The key that `etcdctl endpoint health` reads; it need not exist.
const HEALTH_KEY: &str = "health";
/// Where systems keep the authorities they trust.
const SYSTEM_CA: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A connection to one member.
pub(super) struct Conn {
    pub(super) endpoint: String,
    pub(super) client: Client,
    /// Tells this connection from the next one.
    pub(super) serial: u64,
}

/// Makes connections and remembers the one in use.
pub(super) struct Dialer {
    config: EtcdConfig,
    current: RwLock<Option<Arc<Conn>>>,
    /// Held while dialling, so that one dial serves everybody; holds the latest failure.
    dialling: tokio::sync::Mutex<Option<(Instant, Error)>>,
    serial: AtomicU64,
    /// The endpoint to try first.
    first: AtomicUsize,
    /// The last certificates that could be used, for when their files are being replaced.
    tls: Mutex<Option<TlsOptions>>,
    /// Whether the log says that those are in use.
    warned: AtomicBool,
}

impl Dialer {
    pub(super) fn new(config: EtcdConfig) -> Result<Dialer, Error> {
        if config.endpoints.is_empty() {
            return Err(Error::Config {
                field: "ETCD_ENDPOINTS".to_owned(),
                reason: "no etcd endpoint given; list URLs as http://10.0.0.5:2379,…".to_owned(),
            });
        }
        let dialer = Dialer {
            config,
            current: RwLock::new(None),
            dialling: tokio::sync::Mutex::new(None),
            serial: AtomicU64::new(1),
            first: AtomicUsize::new(0),
            tls: Mutex::new(None),
            warned: AtomicBool::new(false),
        };
        if dialer.config.endpoints.iter().any(|url| url.starts_with("https://")) {
            dialer.load_tls()?;
        }
        Ok(dialer)
    }

    pub(super) fn endpoints(&self) -> &[String] {
        &self.config.endpoints
    }

    pub(super) fn timing(&self) -> &Timing {
        &self.config.timing
    }

    /// The connection in use, or a new one.
    pub(super) async fn conn(&self) -> Result<Arc<Conn>, Error> {
        if let Some(conn) = self.current() {
            return Ok(conn);
        }
        let asked = Instant::now();
        let mut failed = self.dialling.lock().await;
        if let Some(conn) = self.current() {
            return Ok(conn);
        }
        // Whoever dialled while we waited for our turn has failed for us, too.
        if let Some((at, err)) = &*failed
            && *at >= asked
        {
            return Err(err.clone());
        }
        match self.dial().await {
            Ok((index, client)) => {
                let conn = Arc::new(Conn {
                    endpoint: self.config.endpoints[index].clone(),
                    client,
                    serial: self.serial.fetch_add(1, Ordering::Relaxed),
                });
                self.first.store(index, Ordering::Relaxed);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(conn.clone());
                *failed = None;
                Ok(conn)
            }
            Err(err) => {
                *failed = Some((Instant::now(), err.clone()));
                Err(err)
            }
        }
    }

    /// Stops using a connection that was found broken; the next dial starts at another member.
    pub(super) fn leave(&self, serial: u64) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|conn| conn.serial == serial) {
            *current = None;
            self.first.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn current(&self) -> Option<Arc<Conn>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tries every member, each with a head start over the next, and silent ones again beside the attempts under
    /// way: a connection begun while packets are dropped waits for TCP's own, ever rarer repetitions, a fresh one
    /// does not. The first that answers wins; when an attempt has failed for every member, that is the answer.
    async fn dial(&self) -> Result<(usize, Client), Error> {
        let count = self.config.endpoints.len();
        let first = self.first.load(Ordering::Relaxed) % count;
        let mut order = (0..count).map(|offset| (first + offset) % count).cycle();
        let mut failures: Vec<Option<Error>> = vec![None; count];
        let mut running = FuturesUnordered::new();
        running.extend(order.next().map(|index| self.attempt(index)));
        loop {
            let silent = failures.iter().any(Option::is_none);
            tokio::select! {
                biased;
                Some((index, result)) = running.next() => match result {
                    Ok(client) => return Ok((index, client)),
                    Err(err) => {
                        failures[index].get_or_insert(err);
                        if failures.iter().all(Option::is_some) {
                            return Err(all_failed(failures.into_iter().flatten().collect()));
                        }
                        running.extend(order.find(|at| failures[*at].is_none()).map(|at| self.attempt(at)));
                    }
                },
                () = sleep(HEAD_START), if silent => {
                    running.extend(order.find(|at| failures[*at].is_none()).map(|at| self.attempt(at)));
                }
            }
        }
    }

    async fn attempt(&self, index: usize) -> (usize, Result<Client, Error>) {
        let endpoint = &self.config.endpoints[index];
        let limit = self.config.timing.dial;
        let result = match timeout(limit, self.connect_and_ask(endpoint)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Unavailable {
                endpoint: endpoint.clone(),
                reason: format!("no answer within {} s", limit.as_secs_f32()),
            }),
        };
        (index, result)
    }

    /// Connects and proves with a linearizable read that the member is in touch with a leader.
    async fn connect_and_ask(&self, endpoint: &str) -> Result<Client, Error> {
        let client = self.connect(endpoint).await?;
        match client.kv_client().get(HEALTH_KEY, None).await {
            Ok(_) => Ok(client),
            Err(err) => match explain::explain(endpoint, HEALTH_KEY, &err) {
                // Not for us to read, but it took a living cluster to say so.
                Error::Unauthorized { reason, .. } if reason.contains("permission denied") => Ok(client),
                Error::Unavailable { endpoint, reason } => {
                    let reason = self.with_hint(&endpoint, reason);
                    Err(Error::Unavailable { endpoint, reason })
                }
                err => Err(err),
            },
        }
    }

    /// A server that hangs up on a fresh connection does not say why (with TLS 1.3 its alert may
    /// come too late to be heard): says what it usually is.
    fn with_hint(&self, endpoint: &str, reason: String) -> String {
        let hung_up = ["connection closed", "stream closed", "broken pipe", "reset"];
        if !hung_up.iter().any(|words| reason.contains(words)) {
            return reason;
        }
        let hint = match (endpoint.starts_with("https://"), &self.config.identity) {
            (false, _) => "if it speaks TLS, write https://",
            (true, None) => "it may demand a client certificate (ETCD_CERT_FILE)",
            (true, Some(_)) => "it may not accept the client certificate (ETCD_CERT_FILE)",
        };
        format!("{reason}; {hint}")
    }

    async fn connect(&self, endpoint: &str) -> Result<Client, Error> {
        let timing = &self.config.timing;
        let options = ConnectOptions::new()
            .with_connect_timeout(timing.dial * 2 / 3)
            .with_keep_alive(timing.keepalive, timing.keepalive_timeout)
            .with_keep_alive_while_idle(true)
            .with_tcp_keepalive(timing.keepalive)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        let result = if endpoint.starts_with("https://") {
            self.login_with_tls(endpoint, options).await?
        } else {
            self.login(endpoint, options).await
        };
        result.map_err(|err| explain::explain(endpoint, "login", &err))
    }

    /// Uses the certificates as their files are now; while those are unusable (half replaced), the
    /// last ones that were usable.
    async fn login_with_tls(
        &self,
        endpoint: &str,
        options: ConnectOptions,
    ) -> Result<Result<Client, etcd_client::Error>, Error> {
        let unusable = match self.load_tls() {
            Ok(tls) => match self.login(endpoint, options.clone().with_tls(tls.clone())).await {
                Err(etcd_client::Error::TransportError(err)) => Error::Config {
                    field: "ETCD_CERT_FILE, ETCD_KEY_FILE, ETCD_CA_CERT_FILE".to_owned(),
                    reason: explain::reason("cannot be used together", Some(&err)),
                },
                result => {
                    *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(tls);
                    self.warned.store(false, Ordering::Relaxed);
                    return Ok(result);
                }
            },
            Err(err) => err,
        };
        let last = self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(tls) = last else { return Err(unusable) };
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(err = %unusable, "unusable etcd certificates: keeping the previous ones");
        }
        Ok(self.login(endpoint, options.with_tls(tls)).await)
    }

    /// Prepares the connection and, with a user, logs in over it.
    async fn login(&self, endpoint: &str, options: ConnectOptions) -> Result<Client, etcd_client::Error> {
        let Some((name, password)) = &self.config.user else {
            return Client::connect([endpoint], Some(options)).await;
        };
        let with_user = options.clone().with_user(name, password);
        match Client::connect([endpoint], Some(with_user)).await {
            // As Calico's client: a user is harmless where etcd does not ask for one.
            Err(err) if explain::is_auth_not_enabled(&err) => {
                Client::connect([endpoint], Some(options)).await
            }
            result => result,
        }
    }

    fn load_tls(&self) -> Result<TlsOptions, Error> {
        let ca = match &self.config.ca {
            Some(pem) => checked("ETCD_CA_CERT_FILE", "CERTIFICATE", pem.read("ETCD_CA_CERT_FILE")?)?,
            None => {
                SYSTEM_CA.iter().find_map(|path| std::fs::read(path).ok()).ok_or_else(|| Error::Config {
                    field: "ETCD_CA_CERT_FILE".to_owned(),
                    reason: "not set, and this system has no bundle of authorities; \
                             name the file with the authority of etcd's certificates"
                        .to_owned(),
                })?
            }
        };
        let mut tls =
            TlsOptions::new().ca_certificate(Certificate::from_pem(ca)).timeout(self.config.timing.dial);
        if let Some((cert, key)) = &self.config.identity {
            let cert = checked("ETCD_CERT_FILE", "CERTIFICATE", cert.read("ETCD_CERT_FILE")?)?;
            let key = checked("ETCD_KEY_FILE", "PRIVATE KEY", key.read("ETCD_KEY_FILE")?)?;
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        Ok(tls)
    }
}

/// Refuses PEM text that holds no complete block of the kind wanted: a file half written.
fn checked(field: &str, kind: &str, pem: Vec<u8>) -> Result<Vec<u8>, Error> {
    let text = String::from_utf8_lossy(&pem);
    let complete = text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(kind))
        && text.lines().any(|line| line.starts_with("-----END ") && line.contains(kind));
    if complete {
        Ok(pem)
    } else {
        Err(Error::Config {
            field: field.to_owned(),
            reason: format!("holds no complete PEM block \"{kind}\""),
        })
    }
}

/// One error for many: a refusal says more than silence, several silences are listed together.
fn all_failed(mut failures: Vec<Error>) -> Error {
    let telling =
        failures.iter().position(|err| matches!(err, Error::Unauthorized { .. } | Error::Config { .. }));
    if let Some(index) = telling {
        return failures.swap_remove(index);
    }
    if failures.len() == 1 {
        return failures.swap_remove(0);
    }
    let told: Vec<(String, String)> = failures.iter().map(|err| err.endpoint_and_reason("etcd")).collect();
    Error::Unavailable {
        endpoint: told.iter().map(|(endpoint, _)| endpoint.as_str()).collect::<Vec<_>>().join(", "),
        reason: told
            .iter()
            .map(|(endpoint, reason)| format!("{endpoint}: {reason}"))
            .collect::<Vec<_>>()
            .join("; "),
    }
}
