//! The roles of a host: `node`, `felix`, `bird`; start-up as calico-node does it.
//!
//! felix and bird run on threads of their own, each with its own connection to the datastore, and share nothing. The
//! registration of the Node runs beside them: they watch the datastore and go on as soon as it is written.

mod autodetect;
mod blocks;
mod register;
mod settings;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use caracal_datastore::Store;
use caracal_model::NodeBgpSpec;
use caracal_netlink::Netlink;
use caracal_process::{Health, Metrics, RunDir, Shutdown, http, log};
use ipnet::IpNet;

use autodetect::Interface;
use register::Addresses;
use settings::{Address, Settings};

/// How long registration waits between attempts while the datastore is away.
const RETRY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// A role that runs on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// felix, bird and the registration.
    Node,
    /// felix alone.
    Felix,
    /// bird alone.
    Bird,
}

impl Role {
    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Felix => "felix",
            Self::Bird => "bird",
        }
    }
}

/// Runs a role until a signal asks it to stop.
pub fn run(role: Role) -> ExitCode {
    let severity = env("FELIX_LOGSEVERITYSCREEN").unwrap_or_else(|| "Info".into());
    let json = env("CARACAL_LOG_FORMAT").is_some_and(|f| f == "json");
    log::init(&severity, if json { log::Format::Json } else { log::Format::Text });
    match start(role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            tracing::error!(role = role.name(), err = format!("{err:#}"), "cannot run");
            ExitCode::FAILURE
        }
    }
}

fn start(role: Role) -> anyhow::Result<()> {
    let hostname = nix::unistd::gethostname().context("the host's name")?;
    let settings = Settings::read(&env, &hostname.to_string_lossy())?;
    let datastore = caracal_datastore::Config::from_env(&env)?;
    let run_dir = RunDir::from_env()?;
    let _lock = run_dir.lock(role.name())?;
    let (health, metrics) = (Health::new(), Metrics::new());
    // Before anybody can ask: what has not begun is not ready.
    let registration = (role != Role::Bird).then(|| health.reporter("registration"));
    serve(role, &health, &metrics)?;
    let shutdown = Shutdown::on_signals()?;
    tracing::info!(role = role.name(), node = %settings.name, version = env!("CARGO_PKG_VERSION"), "starting");

    let mut parts: Vec<thread::JoinHandle<anyhow::Result<()>>> = Vec::new();
    if role != Role::Bird {
        let config = felix::Config {
            health: health.clone(),
            metrics: metrics.clone(),
            ..felix::Config::from_process(&settings.name)
        };
        parts.push(part("felix", &datastore, &shutdown, move |store, shutdown| {
            felix::run(config, store, shutdown)
        })?);
    }
    if role == Role::Bird || (role == Role::Node && settings.speaker) {
        let config = bird::Config {
            node: settings.name.clone(),
            run_dir: run_dir.path().to_path_buf(),
            api: bird::api::Socket::from_env(&env),
            health: health.clone(),
            metrics: metrics.clone(),
        };
        parts.push(part("bird", &datastore, &shutdown, move |store, shutdown| {
            bird::run_node(config, store, shutdown)
        })?);
    }
    if let Some(reporter) = registration {
        parts.push(part("registration", &datastore, &shutdown, move |store, shutdown| async move {
            let name = settings.name.clone();
            register_node(store.clone(), settings, reporter, shutdown.clone()).await?;
            blocks::run(name, store, shutdown).await
        })?);
    }
    let mut outcome = Ok(());
    for part in parts {
        let name = part.thread().name().unwrap_or_default().to_owned();
        let ended = part.join().unwrap_or_else(|_| bail!("panicked"));
        if let Err(err) = ended {
            shutdown.request();
            outcome = Err(err.context(name));
        }
    }
    outcome
}

/// A part of the process: a thread with its own runtime and its own connection to the datastore.
fn part<F, Fut>(
    name: &'static str,
    datastore: &caracal_datastore::Config,
    shutdown: &Shutdown,
    work: F,
) -> anyhow::Result<thread::JoinHandle<anyhow::Result<()>>>
where
    F: FnOnce(Arc<dyn Store>, Shutdown) -> Fut + Send + 'static,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let (datastore, shutdown) = (datastore.clone(), shutdown.clone());
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = runtime.block_on(async {
            let store = caracal_datastore::connect_lazy(&datastore)?;
            work(store, shutdown.clone()).await
        });
        if ended.is_err() {
            // One part that cannot go on ends the process, and the supervisor starts it afresh.
            shutdown.request();
        }
        ended
    };
    Ok(thread::Builder::new().name(name.into()).spawn(body)?)
}

/// The endpoints that Felix has, on its ports. bird alone has its own, off unless their ports are set.
fn serve(role: Role, health: &Health, metrics: &Metrics) -> anyhow::Result<()> {
    let on = |name: &str, default: bool| {
        env(name).map_or(default, |v| ["true", "1", "yes"].contains(&v.to_lowercase().as_str()))
    };
    let (health_at, metrics_at) = if role == Role::Bird {
        (endpoint(None, "BIRD_HEALTHPORT", None)?, endpoint(None, "BIRD_PROMETHEUSMETRICSPORT", None)?)
    } else {
        let health_at = endpoint(Some("FELIX_HEALTHHOST"), "FELIX_HEALTHPORT", Some(9099))?;
        let metrics_at =
            endpoint(Some("FELIX_PROMETHEUSMETRICSHOST"), "FELIX_PROMETHEUSMETRICSPORT", Some(9091))?;
        (
            health_at.filter(|_| on("FELIX_HEALTHENABLED", true)),
            metrics_at.filter(|_| on("FELIX_PROMETHEUSMETRICSENABLED", false)),
        )
    };
    if let Some(address) = health_at {
        http::serve_health(address, health.clone())?;
    }
    if let Some(address) = metrics_at {
        http::serve_metrics(address, metrics.clone())?;
    }
    Ok(())
}

fn endpoint(host: Option<&str>, port: &str, default: Option<u16>) -> anyhow::Result<Option<SocketAddr>> {
    let number = match env(port) {
        Some(text) => {
            Some(text.parse::<u16>().with_context(|| format!("{port} {text:?}: give a port number"))?)
        }
        None => default,
    };
    let address = match host.and_then(|h| env(h).map(|v| (h, v))) {
        None => IpAddr::from(Ipv4Addr::LOCALHOST),
        Some((_, text)) if text == "localhost" => Ipv4Addr::LOCALHOST.into(),
        Some((name, text)) => text.parse().with_context(|| format!("{name} {text:?}: give an address"))?,
    };
    Ok(number.map(|number| SocketAddr::new(address, number)))
}

/// Registers the cluster's facts and this Node; tries again while the datastore is away, gives up on bad settings.
async fn register_node(
    store: Arc<dyn Store>,
    settings: Settings,
    reporter: caracal_process::Reporter,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let mut wait = RETRY[0];
    let mut said = String::new();
    loop {
        match register_once(store.as_ref(), &settings).await {
            Ok(addresses) => {
                let text = |net: Option<IpNet>| net.map_or_else(|| "none".to_owned(), |n| n.to_string());
                tracing::info!(
                    node = %settings.name, ipv4 = text(addresses.ipv4), ipv6 = text(addresses.ipv6), "node registered"
                );
                reporter.ready();
                return Ok(());
            }
            Err(err) if err.chain().any(<dyn std::error::Error>::is::<caracal_datastore::Error>) => {
                let text = format!("{err:#}");
                if text != said {
                    tracing::warn!(node = %settings.name, err = text, "registration waits for the datastore");
                    reporter.not_ready(text.clone());
                    said = text;
                }
            }
            Err(err) => return Err(err),
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(RETRY[1]),
            () = shutdown.wait() => return Ok(()),
        }
    }
}

async fn register_once(store: &dyn Store, settings: &Settings) -> anyhow::Result<Addresses> {
    let (interfaces, mut netlink) = interfaces()?;
    let mut reach = move |host: &str| -> Option<IpAddr> {
        let address = host.parse().ok().or_else(|| {
            use std::net::ToSocketAddrs as _;
            (host, 0).to_socket_addrs().ok()?.next().map(|a| a.ip())
        })?;
        netlink.route_get(address).ok().flatten()?.source
    };
    let find = |known: Option<&NodeBgpSpec>| addresses(settings, &interfaces, known, &mut reach);
    let addresses = register::node(store, settings, find).await?;
    nodename_file(settings);
    register::cluster(store, settings).await?;
    Ok(addresses)
}

/// The addresses that the Node gets, by its settings, its interfaces and what it had.
fn addresses(
    settings: &Settings,
    interfaces: &[Interface],
    known: Option<&NodeBgpSpec>,
    reach: &mut dyn FnMut(&str) -> Option<IpAddr>,
) -> anyhow::Result<Addresses> {
    let mut family = |ipv6: bool| -> anyhow::Result<Option<IpNet>> {
        let (variable, wanted, method, stored) = if ipv6 {
            ("IP6", &settings.ipv6, &settings.ipv6_method, known.and_then(|b| b.ipv6_address.as_deref()))
        } else {
            ("IP", &settings.ipv4, &settings.ipv4_method, known.and_then(|b| b.ipv4_address.as_deref()))
        };
        let mut detect = || {
            autodetect::detect(method, ipv6, interfaces, &mut *reach).with_context(|| {
                format!(
                    "{variable}: no address of this host fits; set {variable} to an address, or {variable}_AUTODETECTION_METHOD \
                     to first-found, can-reach=HOST, interface=REGEX, skip-interface=REGEX or cidr=PREFIX"
                )
            })
        };
        match wanted {
            Address::None => Ok(None),
            Address::Autodetect => detect().map(Some),
            Address::Keep => match stored.and_then(|s| caracal_model::net::parse_interface(s).ok()) {
                Some(net) => Ok(Some(net)),
                None => detect().map(Some),
            },
            Address::Given(address, Some(length)) => Ok(Some(IpNet::new(*address, *length)?)),
            Address::Given(address, None) => {
                let own = autodetect::with_length(*address, interfaces);
                let full = IpNet::from(*address);
                if own.is_none() {
                    tracing::warn!(%address, "no interface has this address; the node is registered with it all the same");
                }
                Ok(Some(own.unwrap_or(full)))
            }
        }
    };
    Ok(Addresses { ipv4: family(false)?, ipv6: family(true)? })
}

fn interfaces() -> anyhow::Result<(Vec<Interface>, Netlink)> {
    let mut netlink = Netlink::open().context("netlink")?;
    let mut links = netlink.links()?;
    links.sort_by_key(|link| link.index);
    let addresses = netlink.addresses()?;
    let interfaces = links
        .into_iter()
        .map(|link| Interface {
            addresses: addresses.iter().filter(|a| a.index == link.index).map(|a| a.net).collect(),
            name: link.name,
            up: link.up,
        })
        .collect();
    Ok((interfaces, netlink))
}

/// CNI plugins read this node's name from a file.
fn nodename_file(settings: &Settings) {
    let path = settings.state_dir.join("nodename");
    if std::fs::read_to_string(&path).is_ok_and(|name| name == settings.name) {
        return;
    }
    let written =
        std::fs::create_dir_all(&settings.state_dir).and_then(|()| std::fs::write(&path, &settings.name));
    if let Err(err) = written {
        tracing::warn!(path = %path.display(), %err, "CNI plugins will not find this node's name; set CARACAL_STATE_DIR");
    }
}

/// `caracal bird --config FILE [--check]`.
pub fn run_standalone(args: &[OsString]) -> ExitCode {
    let words: Vec<&str> = args.iter().filter_map(|a| a.to_str()).collect();
    let (path, check) = match words.as_slice() {
        ["--config" | "-c", path] => (*path, false),
        ["--config" | "-c", path, "--check"] | ["--check", "--config" | "-c", path] => (*path, true),
        _ => {
            eprintln!("usage: caracal bird --config FILE [--check]");
            return ExitCode::from(2);
        }
    };
    log::init(&env("CARACAL_LOG_SEVERITY").unwrap_or_else(|| "Info".into()), log::Format::Text);
    match bird::run_standalone(std::path::Path::new(path), check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("caracal bird: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
}
