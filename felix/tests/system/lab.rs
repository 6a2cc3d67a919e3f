//! One node: a host namespace, a store, felix on a thread, workloads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use caracal_datastore::{Config as StoreConfig, Expect, Store, connect, connect_lazy};
use caracal_netlink::{Event, Groups, Monitor, Netns, netns};
use caracal_process::{Health, Metrics, Shutdown};
use serde_json::{Value, json};

pub(crate) const R: &str = "/calico/resources/v3/projectcalico.org";
pub(crate) const NODE: &str = "node-1";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A namespace that goes with its guard.
pub(crate) struct Space {
    pub(crate) name: String,
    pub(crate) netns: Option<Netns>,
}

impl Space {
    pub(crate) fn new(role: &str) -> Self {
        let name = format!("fsy{}-{}-{role}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let netns = Some(netns::create_named(&name).expect("namespace; these tests need root"));
        let space = Self { name, netns };
        space.ip("link set lo up");
        space
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new(netns::NAMED).join(&self.name)
    }

    pub(crate) fn ip(&self, args: &str) -> String {
        self.try_ip(args).unwrap_or_else(|err| panic!("ip {args}: {err}"))
    }

    pub(crate) fn try_ip(&self, args: &str) -> Result<String, String> {
        run("ip", &format!("-n {} {args}", self.name))
    }

    pub(crate) fn ping(&self, to: &str) -> bool {
        run("ip", &format!("netns exec {} ping -c 1 -W 1 {to}", self.name)).is_ok()
    }

    pub(crate) fn routes(&self) -> Vec<String> {
        self.ip("route").lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    pub(crate) fn remove(&mut self) {
        self.netns = None;
        netns::delete_named(&self.name).expect("namespace is removed");
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = netns::delete_named(&self.name);
    }
}

fn run(program: &str, args: &str) -> Result<String, String> {
    let output = Command::new(program).args(args.split_whitespace()).output().expect("program runs");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// Which store a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Embedded,
    Etcd,
}

/// A node: its namespace, its store, and felix when it runs.
pub(crate) struct Node {
    pub(crate) host: Space,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) environment: BTreeMap<String, String>,
    runtime: tokio::runtime::Runtime,
    config: StoreConfig,
    felix: Option<(Shutdown, JoinHandle<anyhow::Result<()>>)>,
    etcd: Option<Child>,
    etcd_dir: PathBuf,
    _dir: tempfile::TempDir,
}

/// Runs a test on a thread in a host namespace of its own, once for each store.
pub(crate) fn on_node(kinds: &[Kind], test: impl Fn(&mut Node) + Send + Sync) {
    for kind in kinds {
        std::thread::scope(|scope| {
            let run = || test(&mut Node::new(*kind));
            let thread =
                std::thread::Builder::new().name(format!("{kind:?}")).spawn_scoped(scope, run).unwrap();
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }
}

pub(crate) const BOTH: &[Kind] = &[Kind::Embedded, Kind::Etcd];
pub(crate) const EMBEDDED: &[Kind] = &[Kind::Embedded];

impl Node {
    fn new(kind: Kind) -> Self {
        let host = Space::new("host");
        host.ip("addr add 192.0.2.254/32 dev lo");
        host.ip("addr add 2001:db8::1/128 dev lo");
        netns::enter(host.netns.as_ref().unwrap()).expect("enter");
        let dir = tempfile::tempdir().unwrap();
        let (path, etcd_dir) = (dir.path().join("store.db"), dir.path().join("etcd"));
        let lookup = |name: &str| match (kind, name) {
            (Kind::Embedded, "DATASTORE_TYPE") => Some("embedded".to_owned()),
            (Kind::Embedded, "CARACAL_EMBEDDED_PATH") => Some(path.to_string_lossy().into_owned()),
            (Kind::Etcd, "DATASTORE_TYPE") => Some("etcdv3".to_owned()),
            (Kind::Etcd, "ETCD_ENDPOINTS") => Some("http://127.0.0.1:2379".to_owned()),
            _ => None,
        };
        let config = StoreConfig::from_env(&lookup).unwrap();
        let etcd = (kind == Kind::Etcd).then(|| start_etcd(&etcd_dir));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = eventually("the store answers", || runtime.block_on(connect(&config)).ok());
        let node = Self {
            host,
            store,
            health: Health::new(),
            metrics: Metrics::new(),
            environment: BTreeMap::new(),
            runtime,
            config,
            felix: None,
            etcd,
            etcd_dir,
            _dir: dir,
        };
        node.put(
            "ippools/p4",
            &json!({"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "p4"},
            "spec": {"cidr": "10.0.0.0/16"}})
            .to_string(),
        );
        node.put(
            "ippools/p6",
            &json!({"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "p6"},
            "spec": {"cidr": "fd00::/64"}})
            .to_string(),
        );
        node
    }

    /// Starts felix on a thread of its own in the host's namespace.
    pub(crate) fn start(&mut self) {
        assert!(self.felix.is_none());
        self.health = Health::new();
        self.metrics = Metrics::new();
        let shutdown = Shutdown::new();
        let config = felix::Config {
            node: NODE.into(),
            environment: self.environment.clone(),
            health: self.health.clone(),
            metrics: self.metrics.clone(),
        };
        let (store, asked) = (self.config.clone(), shutdown.clone());
        let thread = std::thread::Builder::new().name("felix".into());
        let thread = thread.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { felix::run(config, connect_lazy(&store)?, asked).await })
        });
        self.felix = Some((shutdown, thread.unwrap()));
    }

    pub(crate) fn stop(&mut self) {
        if let Some((shutdown, thread)) = self.felix.take() {
            shutdown.request();
            thread.join().expect("felix does not panic").expect("felix ends well");
        }
    }

    pub(crate) fn start_ready(&mut self) {
        self.start();
        let health = self.health.clone();
        // Nobody who could be unready is ready, too.
        eventually_true("felix is ready", || {
            health.readiness().good && health.readiness().text.contains("felix")
        });
    }

    pub(crate) fn kill_etcd(&mut self) {
        if let Some(mut etcd) = self.etcd.take() {
            etcd.kill().unwrap();
            etcd.wait().unwrap();
        }
    }

    /// Another etcd comes up in the place of the killed one, without any data.
    pub(crate) fn replace_etcd(&mut self) {
        std::fs::remove_dir_all(&self.etcd_dir).unwrap();
        self.restart_etcd();
    }

    pub(crate) fn restart_etcd(&mut self) {
        self.etcd = Some(start_etcd(&self.etcd_dir));
        eventually_true("etcd answers", || self.runtime.block_on(self.store.get("/x")).is_ok());
    }

    /// Puts a resource under its key below the resources' prefix.
    pub(crate) fn put(&self, name: &str, value: &str) {
        self.put_bytes(name, value.as_bytes());
    }

    pub(crate) fn put_bytes(&self, name: &str, value: &[u8]) {
        let key = format!("{R}/{name}");
        self.runtime.block_on(self.store.put(&key, value.to_vec(), Expect::Any, None)).unwrap();
    }

    pub(crate) fn delete(&self, name: &str) {
        self.runtime.block_on(self.store.delete(&format!("{R}/{name}"), Expect::Any)).unwrap();
    }

    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let found = self.runtime.block_on(self.store.get(key)).unwrap();
        found.map(|kv| String::from_utf8(kv.value).unwrap())
    }

    pub(crate) fn put_raw(&self, key: &str, value: &str) {
        self.runtime.block_on(self.store.put(key, value.into(), Expect::Any, None)).unwrap();
    }

    /// The status key of a pod, decoded.
    pub(crate) fn status(&self, pod: &str) -> Value {
        let text = self.get(&status_key(pod)).unwrap_or_else(|| "null".into());
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn becomes(&self, pod: &str, state: &str) {
        eventually_true(&format!("{pod} becomes {state}"), || {
            let status = self.status(pod);
            let good = status["status"] == state;
            if !good && std::env::var_os("SHOW").is_some() {
                eprintln!("{pod}: {status}");
            }
            good
        });
    }

    pub(crate) fn metric(&self, name: &str) -> i64 {
        let text = self.metrics.encode();
        let line = text.lines().find(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((shutdown, thread)) = self.felix.take() {
            shutdown.request();
            let _ = thread.join();
        }
        self.kill_etcd();
    }
}

fn start_etcd(dir: &Path) -> Child {
    // The thread is in the host's namespace, and so is its child.
    Command::new("etcd")
        .args(["--data-dir", &dir.to_string_lossy(), "--listen-client-urls", "http://127.0.0.1:2379"])
        .args([
            "--advertise-client-urls",
            "http://127.0.0.1:2379",
            "--listen-peer-urls",
            "http://127.0.0.1:2380",
        ])
        .args(["--log-level", "error"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed (Debian: etcd-server)")
}

pub(crate) fn wep_name(pod: &str) -> String {
    format!("workloadendpoints/default/node--1-k8s-{}-eth0", pod.replace('-', "--"))
}

pub(crate) fn status_key(pod: &str) -> String {
    format!("/calico/felix/v2/no-region/host/{NODE}/workload/k8s/default%2f{pod}/endpoint/eth0")
}

/// An endpoint in Calico's JSON.
pub(crate) fn wep(pod: &str, iface: &str, addresses: &[&str], netns: Option<&Path>) -> String {
    let nets: Vec<String> =
        addresses.iter().map(|a| format!("{a}/{}", if a.contains(':') { 128 } else { 32 })).collect();
    let name = format!("node--1-k8s-{}-eth0", pod.replace('-', "--"));
    let mut value = json!({"kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "namespace": "default", "uid": "00000000-0000-4000-8000-000000000001",
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s"}},
        "spec": {"orchestrator": "k8s", "node": NODE, "containerID": "0f1e", "pod": pod, "endpoint": "eth0",
            "ipNetworks": nets, "profiles": ["kns.default"], "interfaceName": iface, "mac": "ca:fe:1d:52:bb:e9"}});
    if let Some(path) = netns {
        value["metadata"]["annotations"] = json!({"caracal.io/netns": path});
    }
    value.to_string()
}

pub(crate) fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn eventually_true(what: &str, mut good: impl FnMut() -> bool) {
    eventually(what, || good().then_some(()));
}

/// Listens to every change in this thread's namespace.
pub(crate) fn listen() -> Monitor {
    Monitor::open(Groups::LINK | Groups::ROUTE | Groups::ADDRESS | Groups::NEIGHBOUR).unwrap()
}

/// Everything that was heard, less what the kernel does by itself: neighbours that it learns, the link-local address
/// of a new link and its routes.
pub(crate) fn heard(monitor: &mut Monitor) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        let events = monitor.try_next().unwrap();
        if events.is_empty() {
            return all;
        }
        all.extend(events.into_iter().filter(|event| match event {
            Event::Neighbour { neighbour, .. } => neighbour.state & caracal_netlink::nud::PERMANENT != 0,
            Event::Route { route, .. } => route.proto != caracal_netlink::proto::KERNEL,
            Event::Address(address) => address.scope != caracal_netlink::scope::LINK,
            _ => true,
        }));
    }
}
