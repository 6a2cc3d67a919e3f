//! A host and workloads, each a network namespace of its own that goes with its guard.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use caracal_netlink::{Event, Groups, Monitor, Netns, netns};
use caracal_reconcile::Moment;
use felix_calc::{Config, Desired, WepId, Workload};
use felix_dataplane::{Dataplane, State, Status};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A namespace that is removed when this is dropped, also by a failed assertion.
pub(crate) struct Space {
    pub(crate) name: String,
    pub(crate) netns: Option<Netns>,
}

impl Space {
    pub(crate) fn new(role: &str) -> Self {
        let name = format!("fdp{}-{}-{role}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let netns = Some(netns::create_named(&name).expect("namespace; these tests need root"));
        let space = Self { name, netns };
        space.ip("link set lo up");
        space
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new(netns::NAMED).join(&self.name)
    }

    /// Runs `ip` here; panics with its words when it fails.
    pub(crate) fn ip(&self, args: &str) -> String {
        self.try_ip(args).unwrap_or_else(|err| panic!("ip {args}: {err}"))
    }

    pub(crate) fn try_ip(&self, args: &str) -> Result<String, String> {
        run("ip", &format!("-n {} {args}", self.name))
    }

    pub(crate) fn exec(&self, command: &str) -> Result<String, String> {
        run("ip", &format!("netns exec {} {command}", self.name))
    }

    pub(crate) fn ping(&self, to: &str) -> bool {
        self.exec(&format!("ping -c 1 -W 2 {to}")).is_ok()
    }

    pub(crate) fn sysctl(&self, key: &str) -> String {
        self.exec(&format!("cat /proc/sys/net/{key}")).unwrap_or_default().trim().to_owned()
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

/// A host with a dataplane, on a thread in the host's namespace.
pub(crate) struct Host {
    pub(crate) space: Space,
    pub(crate) plane: Dataplane,
    pub(crate) statuses: BTreeMap<WepId, Status>,
    origin: Instant,
    skipped: Duration,
}

/// Runs a test on a thread in a host namespace of its own.
pub(crate) fn on_host(test: impl FnOnce(Space) + Send) {
    std::thread::scope(|scope| {
        let run = || {
            let space = Space::new("host");
            // What the host itself sends needs a source.
            space.ip("addr add 192.0.2.254/32 dev lo");
            space.ip("addr add 2001:db8::1/128 dev lo");
            netns::enter(space.netns.as_ref().unwrap()).expect("enter");
            test(space);
        };
        let thread = std::thread::Builder::new().name("host".into()).spawn_scoped(scope, run).unwrap();
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

impl Host {
    pub(crate) fn start(space: Space) -> Self {
        Self::with(space, Config::default())
    }

    pub(crate) fn with(space: Space, config: Config) -> Self {
        let plane = Dataplane::open(config, Moment::ZERO).expect("dataplane opens");
        Self { space, plane, statuses: BTreeMap::new(), origin: Instant::now(), skipped: Duration::ZERO }
    }

    /// A new dataplane without memory, on the same kernel.
    pub(crate) fn restart(self) -> Self {
        Self::start(self.space)
    }

    pub(crate) fn now(&self) -> Moment {
        self.origin.elapsed() + self.skipped
    }

    /// Lets the dataplane's clock run ahead.
    pub(crate) fn skip(&mut self, time: Duration) {
        self.skipped += time;
    }

    pub(crate) fn want(&mut self, pod: &str, workload: Workload) {
        let desired =
            Desired { name: format!("default/{pod}").into(), workload: Some(workload), problem: None };
        self.plane.set(id(pod), Some(desired));
    }

    pub(crate) fn unwant(&mut self, pod: &str) {
        self.plane.set(id(pod), None);
    }

    /// Passes until nothing is due at once; panics when that never happens.
    pub(crate) fn settle(&mut self) {
        for _ in 0..200 {
            let now = self.now();
            let applied = self.plane.apply(now);
            assert_eq!(applied.error, None);
            for (id, status) in applied.statuses {
                match status {
                    Some(status) => self.statuses.insert(id, status),
                    None => self.statuses.remove(&id),
                };
            }
            if self.plane.next_due(now).is_none_or(|due| due > now) {
                return;
            }
        }
        panic!("the dataplane does not come to rest: {:?}", self.plane.counters());
    }

    /// Settles again and again until `good`, as events and short waits need.
    pub(crate) fn eventually(&mut self, what: &str, mut good: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            self.settle();
            if good(self) {
                return;
            }
            assert!(Instant::now() < end, "not within 5 s: {what}\n{}\n{:?}", self.picture(), self.statuses);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn picture(&self) -> String {
        format!("{}{}{}", self.space.ip("-d link"), self.space.ip("route"), self.space.ip("-6 route"))
    }

    pub(crate) fn routes(&self) -> Vec<String> {
        lines(&self.space.ip("route"))
    }

    pub(crate) fn routes6(&self) -> Vec<String> {
        lines(&self.space.ip("-6 route"))
            .into_iter()
            .filter(|l| !["fe80", "multicast", "2001:db8::1"].iter().any(|p| l.starts_with(p)))
            .collect()
    }

    pub(crate) fn has_link(&self, name: &str) -> bool {
        self.space.try_ip(&format!("link show dev {name}")).is_ok()
    }

    pub(crate) fn state(&self, pod: &str) -> Option<State> {
        self.statuses.get(&id(pod)).map(|s| s.state)
    }

    pub(crate) fn reason(&self, pod: &str) -> String {
        self.statuses.get(&id(pod)).and_then(|s| s.reason.clone()).unwrap_or_default()
    }

    pub(crate) fn is_up(&mut self, pod: &str) {
        self.eventually(&format!("{pod} is up"), |h| h.state(pod) == Some(State::Up));
    }
}

pub(crate) fn lines(text: &str) -> Vec<String> {
    text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

pub(crate) fn id(pod: &str) -> WepId {
    WepId { orchestrator: "k8s".into(), workload: format!("default/{pod}"), endpoint: "eth0".into() }
}

/// A workload whose link is on us.
pub(crate) fn made(iface: &str, space: &Space, addresses: &[&str]) -> Workload {
    Workload { netns: Some(space.path().to_string_lossy().into_owned()), ..routed(iface, addresses) }
}

/// A workload whose link is somebody else's.
pub(crate) fn routed(iface: &str, addresses: &[&str]) -> Workload {
    let mut addresses: Vec<std::net::IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    addresses.sort_unstable();
    Workload {
        iface: iface.into(),
        netns: None,
        peer: "eth0".into(),
        mac: Some([0xca, 0xfe, 0x1d, 0, 0, 0x0f]),
        addresses,
        spoofs: false,
    }
}

/// Every change that the kernel of this thread's namespace reports while `work` runs, less what the kernel does by itself.
pub(crate) fn changes(work: impl FnOnce()) -> Vec<Event> {
    let mut monitor =
        Monitor::open(Groups::LINK | Groups::ROUTE | Groups::ADDRESS | Groups::NEIGHBOUR).unwrap();
    work();
    let mut all = Vec::new();
    loop {
        let events = monitor.try_next().unwrap();
        if events.is_empty() {
            return all;
        }
        all.extend(events);
    }
}
