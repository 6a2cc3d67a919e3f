//! The speaker's shell: sockets, listener, kernel routes, control socket, datastore.
//!
//! What it is: the part of `caracal bird` that touches the world. One thread owns the [`bird_speaker::Speaker`] and
//! does nothing but wait, read, hand over and write; a second one follows the datastore and derives what the speaker
//! should be. What it is not: a place for decisions about routes or sessions. Those are `bird-speaker`'s, and what a
//! node should say to whom is `bird-intent`'s.
//!
//! Start at [`run_node`] (a node of a cluster) or [`run_standalone`] (a router or reflector from a file).
//!
//! ```text
//! datastore --> feed: Facts, derive --> Plan --> engine: epoll <--> sockets, control socket
//!               (tokio thread)                     |   ^
//!                                                  v   | monitor: links, addresses, routes
//!                                          Speaker --> fib --> kernel routes, protocol 12
//! ```
//!
//! A peer without an address is in the plan with how to find it: `discover` fills in where it is, as a change of the plan.

pub mod api;
mod audit;
mod bfd;
mod calm;
mod conn;
mod control;
mod discover;
mod engine;
mod feed;
mod fib;
mod gtsm;
mod kernel;
mod listen;
mod metrics;
mod notice;
pub mod passwords;
mod plan;
pub mod rehearsal;
mod report;
#[allow(unsafe_code, reason = "socket options without a safe wrapper; see the head of the file")]
mod sock;
mod standalone;
mod translate;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use caracal_datastore::Store;
use caracal_netlink::{proto, table};
use caracal_process::{Health, Metrics, Shutdown};

use engine::{Engine, Setup};
use plan::Message;

/// What a node's speaker is told by the process around it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name.
    pub node: String,
    /// Where `bird.ctl` and `bird6.ctl` go.
    pub run_dir: PathBuf,
    /// Where `ctl bgp` asks; `None`: nowhere.
    pub api: Option<api::Socket>,
    /// Where it says whether it is ready.
    pub health: Health,
    /// Where it counts.
    pub metrics: Metrics,
}

/// Runs the speaker of a node until a stop is asked for. Routes stay in the kernel then.
///
/// Works while the datastore is away: it begins with the first complete picture and keeps the last one.
pub async fn run_node(config: Config, store: Arc<dyn Store>, shutdown: Shutdown) -> anyhow::Result<()> {
    let reporter = config.health.reporter("bird");
    let setup = Setup {
        protocol: proto::BIRD,
        table: table::MAIN,
        control: vec![
            (config.run_dir.join("bird.ctl"), control::Family::Ipv4),
            (config.run_dir.join("bird6.ctl"), control::Family::Ipv6),
        ],
        api: config.api.clone(),
        reporter: Some(reporter.clone()),
    };
    let (engine, mailbox) = Engine::new(setup)?;
    metrics::register(&config.metrics, mailbox.clone());
    let core = spawn(engine, shutdown.clone())?;
    feed::run(&config.node, store, &mailbox, &reporter, &shutdown).await;
    mailbox.send(Message::Stop);
    join(core)
}

/// Runs a router from a YAML file until a signal asks it to stop, or only checks the file. SIGHUP reads it again.
pub fn run_standalone(path: &Path, check_only: bool) -> anyhow::Result<()> {
    let router = standalone::read(path)?;
    if check_only {
        println!("{}: correct, {} neighbours", path.display(), router.plan.config.peers.len());
        return Ok(());
    }
    let shutdown = Shutdown::on_signals()?;
    let fixed = router.fixed();
    let setup = Setup {
        protocol: router.protocol,
        table: router.table,
        control: router.control.into_iter().map(|path| (path, control::Family::Both)).collect(),
        api: router.api,
        reporter: None,
    };
    let (engine, mailbox) = Engine::new(setup)?;
    if let Some(address) = router.metrics {
        let registry = Metrics::new();
        metrics::register(&registry, mailbox.clone());
        caracal_process::http::serve_metrics(address, registry)?;
    }
    let core = spawn(engine, shutdown.clone())?;
    mailbox.send(Message::Follow(Box::new(router.plan)));
    let (path, follower) = (path.to_owned(), mailbox.clone());
    Shutdown::on_hangup(move || match standalone::read(&path) {
        Err(err) => {
            tracing::error!(err = format!("{err:#}"), "the file is not taken; what ran before goes on");
        }
        Ok(router) => {
            if router.fixed() != fixed {
                tracing::warn!(
                    file = %path.display(),
                    "fib.table, fib.protocol and control count from the next start; the rest is taken now"
                );
            }
            follower.send(Message::Follow(Box::new(router.plan)));
        }
    })?;
    shutdown.wait_blocking()?;
    mailbox.send(Message::Stop);
    join(core)
}

type Core = std::thread::JoinHandle<anyhow::Result<()>>;

/// The core's own thread. If it ends by itself, the whole role ends.
fn spawn(engine: Engine, shutdown: Shutdown) -> anyhow::Result<Core> {
    std::thread::Builder::new()
        .name("bird-core".into())
        .spawn(move || {
            let outcome = engine.run();
            shutdown.request();
            outcome
        })
        .context("thread of the speaker")
}

fn join(core: Core) -> anyhow::Result<()> {
    match core.join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
