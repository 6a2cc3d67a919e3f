//! Peers whose address is found and not configured: by the router advertisements of a link, or as the gateway of the
//! default route.
//!
//! ```text
//!   plan: peer `tor` by eth1 ---+                               +--> plan with an address: the speaker's ordinary
//!   radv: who advertises -------+--> Discovery: an address each --+    change of configuration
//!   kernel: links, default route+                               +--> a session over a dead link ends
//! ```
//!
//! Nothing here decides about sessions. A peer that was not found yet stands in the configuration with the unspecified
//! address, so that it is listed with what it waits for.

mod link;
mod packet;
mod radv;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bird_speaker::config::PeerConfig;

use crate::api::DiscoveryView;
use crate::kernel::{DefaultRoute, Kernel};
use crate::plan::Plan;
use radv::{Heard, Radv, Wanted};

/// A thread that could not be started is tried again after this.
const RETRY: Duration = Duration::from_secs(10);

/// How a peer is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum By {
    /// It advertises itself as a router on this interface.
    Advertisements(String),
    /// It is the gateway of the default route of a family.
    DefaultGateway {
        /// IPv4, else IPv6.
        v4: bool,
    },
}

impl By {
    /// The address of a peer that was not found yet.
    pub(crate) fn nowhere(&self) -> IpAddr {
        match self {
            Self::DefaultGateway { v4: true } => Ipv4Addr::UNSPECIFIED.into(),
            Self::DefaultGateway { v4: false } | Self::Advertisements(_) => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// Where a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    address: IpAddr,
    /// Interface of a link-local address.
    interface: Option<Arc<str>>,
}

/// What is known of a peer that is sought.
#[derive(Debug, Default)]
struct Found {
    place: Option<Place>,
    /// Index of its interface when it was looked at last; `None`: it is not there or does not work.
    link: Option<u32>,
}

/// The peers that are sought, and where they are.
#[derive(Debug)]
pub(crate) struct Discovery {
    bell: Arc<mio::Waker>,
    /// The plan as it was told, where it seeks anybody.
    plan: Option<Box<Plan>>,
    found: BTreeMap<String, Found>,
    radv: Option<Radv>,
    retry_at: Option<Instant>,
    wanted: BTreeMap<String, Wanted>,
    /// What was heard, by interface.
    heard: BTreeMap<String, Heard>,
    /// Of the kernel's picture, what was looked at.
    seen: u64,
    /// Sessions or the plan changed.
    pub(crate) stale: bool,
    /// Interfaces of whose other routers something was said.
    said: BTreeSet<String>,
}

/// What follows from a look at everything.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Peers whose session ran over a link that is gone or down.
    pub(crate) cut_off: Vec<String>,
    /// The plan with the addresses that are known now, if any changed.
    pub(crate) plan: Option<Box<Plan>>,
}

impl Discovery {
    /// Nobody is sought yet. `bell` rings when somebody may have been found.
    pub(crate) fn new(bell: Arc<mio::Waker>) -> Self {
        Self {
            bell,
            plan: None,
            found: BTreeMap::new(),
            radv: None,
            retry_at: None,
            wanted: BTreeMap::new(),
            heard: BTreeMap::new(),
            seen: 0,
            stale: false,
            said: BTreeSet::new(),
        }
    }

    /// Takes a plan and gives it back with the addresses that are known.
    pub(crate) fn take(&mut self, mut plan: Plan) -> Plan {
        self.found.retain(|name, _| plan.sought.contains_key(name));
        if let Some(before) = &self.plan {
            // Sought another way now.
            self.found.retain(|name, _| before.sought.get(name) == plan.sought.get(name));
        }
        self.plan = (!plan.sought.is_empty()).then(|| Box::new(plan.clone()));
        self.stale = true;
        self.fill(&mut plan);
        plan
    }

    /// Nobody is sought any more.
    pub(crate) fn silence(&mut self) {
        self.plan = None;
        self.found.clear();
        self.stale = true;
    }

    fn fill(&self, plan: &mut Plan) {
        for peer in &mut plan.config.peers {
            if let Some(place) = self.found.get(&peer.name).and_then(|f| f.place.as_ref()) {
                place.put(peer);
            }
        }
    }

    /// When to look again whatever happens.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Looks at what changed. `session` says of a peer whether it has one.
    pub(crate) fn look(&mut self, kernel: &Kernel, session: impl Fn(&str) -> bool) -> Outcome {
        let news = self.radv.as_ref().is_some_and(Radv::has_news);
        let retry = self.retry_at.is_some_and(|at| at <= Instant::now());
        let moved = self.plan.is_some() && kernel.changes() != self.seen;
        if !(std::mem::take(&mut self.stale) || news || retry || moved) {
            return Outcome::default();
        }
        self.seen = kernel.changes();
        if self.radv.as_ref().is_some_and(|r| !r.is_running()) {
            tracing::error!("the thread of the router advertisements has ended; it is started again");
            self.radv = None;
            self.retry_at = Some(Instant::now() + RETRY);
        }
        if let Some(radv) = &self.radv {
            self.heard = radv.heard();
        }
        let mut outcome = Outcome::default();
        let mut wanted = BTreeMap::new();
        let mut changed = false;
        let Some(plan) = self.plan.take() else {
            self.follow_links(wanted);
            return outcome;
        };
        for (name, by) in &plan.sought {
            let living = session(name);
            let found = self.found.entry(name.clone()).or_default();
            let before = found.place.clone();
            match by {
                By::Advertisements(interface) => {
                    let index = kernel.working_link(interface);
                    if living && found.link.is_some() && found.link != index {
                        outcome.cut_off.push(name.clone());
                    }
                    found.link = index;
                    let heard = self.heard.get(interface).filter(|h| Some(h.index) == index);
                    if let Some(address) = heard.and_then(|h| h.neighbour).filter(|_| !living) {
                        let interface = Some(Arc::from(interface.as_str()));
                        found.place = Some(Place { address: address.into(), interface });
                    }
                    if let Some(index) = index {
                        let session = match found.place.as_ref().filter(|_| living).map(|p| p.address) {
                            Some(IpAddr::V6(address)) => Some(address),
                            _ => None,
                        };
                        wanted.insert(interface.clone(), Wanted { index, session });
                    }
                    warn_of_others(&mut self.said, name, interface, heard);
                }
                By::DefaultGateway { v4 } => match kernel.default_route(*v4) {
                    DefaultRoute::By(gateways) => found.place = gateways.first().map(Place::of),
                    // The session tells by itself whether the gateway is still there.
                    DefaultRoute::None | DefaultRoute::OnLink(_) if living => {}
                    DefaultRoute::None | DefaultRoute::OnLink(_) => found.place = None,
                },
            }
            if found.place != before {
                changed = true;
                match &found.place {
                    Some(place) => tracing::info!(peer = name, by = %by, address = %place, "peer found"),
                    None => tracing::info!(peer = name, by = %by, "peer not found any more"),
                }
            }
        }
        if changed {
            outcome.plan = Some(plan.clone());
        }
        self.plan = Some(plan);
        self.follow_links(wanted);
        outcome
    }

    /// Lets the thread speak and hear on these links; it runs from the first one on.
    fn follow_links(&mut self, wanted: BTreeMap<String, Wanted>) {
        let now = Instant::now();
        let missing = self.radv.is_none() && !wanted.is_empty();
        if missing && self.retry_at.is_none_or(|at| at <= now) {
            self.retry_at = None;
            match Radv::start(Arc::clone(&self.bell)) {
                Ok(radv) => self.radv = Some(radv),
                Err(err) => {
                    tracing::warn!(err = format!("{err:#}"), "no router advertisements; it is tried again");
                    self.retry_at = Some(now + RETRY);
                }
            }
        }
        if wanted.is_empty() {
            self.radv = None;
            self.retry_at = None;
            self.heard.clear();
        }
        if let Some(radv) = &mut self.radv
            && (missing || wanted != self.wanted)
        {
            radv.follow(wanted.clone());
        }
        self.wanted = wanted;
    }

    /// What is known of a peer, for people; `None`: its address is configured.
    pub(crate) fn view(&self, peer: &str, kernel: &Kernel) -> Option<DiscoveryView> {
        let by = self.plan.as_ref()?.sought.get(peer)?;
        let place = self.found.get(peer).and_then(|f| f.place.as_ref());
        let mut view = DiscoveryView {
            by: by.to_string(),
            address: place.map(|p| p.address),
            interface: place.and_then(|p| p.interface.as_deref().map(str::to_owned)),
            heard_ms: None,
            others: Vec::new(),
            missing: None,
            fix: None,
        };
        let (missing, fix) = match by {
            By::Advertisements(interface) => {
                view.interface = Some(interface.clone());
                let heard = self.radv.as_ref().and_then(|r| r.heard().remove(interface));
                if let Some(heard) = &heard {
                    view.heard_ms =
                        heard.at.map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX));
                    view.others.extend(heard.other.map(IpAddr::V6));
                }
                missing_neighbour(interface, kernel, heard.and_then(|h| h.problem))
            }
            By::DefaultGateway { v4 } => {
                let route = kernel.default_route(*v4);
                if let DefaultRoute::By(gateways) = &route {
                    view.others.extend(gateways.iter().skip(1).map(|g| g.address));
                }
                missing_gateway(*v4, &route)
            }
        };
        if place.is_none() {
            (view.missing, view.fix) = (Some(missing), Some(fix));
        }
        Some(view)
    }
}

fn missing_neighbour(interface: &str, kernel: &Kernel, problem: Option<String>) -> (String, String) {
    if kernel.link_index(interface).is_none() {
        return (
            format!("this host has no interface {interface}"),
            "create it, or correct the interface of this peer".to_owned(),
        );
    }
    if kernel.working_link(interface).is_none() {
        return (
            format!("interface {interface} is down or has no carrier"),
            format!("ip link set {interface} up; check the cable and the far end"),
        );
    }
    if let Some(problem) = problem {
        let fix = if problem.contains("CAP_NET_RAW") {
            "give the process CAP_NET_RAW (the unit's CapabilityBoundingSet and AmbientCapabilities)"
                .to_owned()
        } else {
            format!("sysctl net.ipv6.conf.{interface}.disable_ipv6=0, and wait for the address")
        };
        return (problem, fix);
    }
    (
        format!("no router advertises itself on {interface}"),
        "let the neighbour send router advertisements there: FRR does with `neighbor IFACE interface`, caracal with \
         an interface neighbour"
            .to_owned(),
    )
}

fn missing_gateway(v4: bool, route: &DefaultRoute) -> (String, String) {
    let (family, flag) = if v4 { ("IPv4", "-4") } else { ("IPv6", "-6") };
    let text = match route {
        DefaultRoute::OnLink(interface) => {
            format!("the {family} default route leads to {interface} and has no gateway")
        }
        DefaultRoute::None | DefaultRoute::By(_) => format!("no {family} default route"),
    };
    (text, format!("ip {flag} route add default via GATEWAY, or give this peer an address"))
}

/// Says once that a second router is heard.
fn warn_of_others(said: &mut BTreeSet<String>, peer: &str, interface: &str, heard: Option<&Heard>) {
    let Some((other, neighbour)) = heard.and_then(|h| Some((h.other?, h.neighbour?))) else { return };
    if !said.insert(interface.to_owned()) {
        return;
    }
    tracing::warn!(
        peer, interface, %other, %neighbour,
        fix = "let only the neighbour advertise there, or name the peer by its address",
        "another router advertises itself on this link; the first one stays the peer"
    );
}

impl Place {
    fn of(gateway: &crate::kernel::Gateway) -> Self {
        let link_local = matches!(gateway.address, IpAddr::V6(a) if a.is_unicast_link_local());
        Self { address: gateway.address, interface: link_local.then(|| Arc::clone(&gateway.interface)) }
    }

    fn put(&self, peer: &mut PeerConfig) {
        peer.address = self.address;
        peer.interface = self.interface.as_deref().map(str::to_owned);
        if self.interface.is_some()
            || peer.source_address.is_some_and(|s| s.is_ipv4() != self.address.is_ipv4())
        {
            // From the link's own address, which the kernel knows.
            peer.source_address = None;
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{}%{interface}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Advertisements(interface) => write!(f, "router advertisements on {interface}"),
            Self::DefaultGateway { v4: true } => f.write_str("the IPv4 default route"),
            Self::DefaultGateway { v4: false } => f.write_str("the IPv6 default route"),
        }
    }
}

#[cfg(test)]
mod tests {
    use bird_speaker::config::Config;
    use caracal_netlink::{Address, Event, Link, Route, proto};

    use super::*;
    use crate::plan::Redistribute;

    fn kernel() -> Kernel {
        let link = Link {
            index: 2,
            name: "eth0".into(),
            up: true,
            running: true,
            mac: None,
            mtu: 1500,
            kind: String::new(),
            group: 0,
            peer_index: None,
            peer_netns: None,
            master: None,
            alias: None,
        };
        let mut kernel = Kernel::new(12, 254);
        kernel.replace(vec![link], vec![Address::new(2, "10.0.0.1/24".parse().unwrap())], Vec::new());
        kernel
    }

    fn plan(by: &[(&str, By)]) -> Plan {
        let peer = |(name, by): &(&str, By)| PeerConfig {
            name: (*name).into(),
            address: by.nowhere(),
            source_address: Some("fd00::1".parse().unwrap()),
            ..PeerConfig::default()
        };
        let config = Config { peers: by.iter().map(peer).collect(), ..Config::default() };
        Plan {
            config,
            listen: Vec::new(),
            passwords: BTreeMap::new(),
            range_passwords: BTreeMap::new(),
            sought: by.iter().map(|(name, by)| ((*name).to_owned(), by.clone())).collect(),
            redistribute: Redistribute { connected: false, kernel: false },
        }
    }

    fn discovery() -> Discovery {
        let poll = mio::Poll::new().unwrap();
        Discovery::new(Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap()))
    }

    fn default_route(kernel: &mut Kernel, via: &str, gone: bool) {
        let any = if via.contains(':') { "::/0" } else { "0.0.0.0/0" };
        let route = Route::via(any.parse().unwrap(), proto::BOOT, via.parse().unwrap(), 2);
        kernel.observe(vec![Event::Route { route, gone, replaced: false }]);
    }

    /// What a look changes: the addresses of the peers, if anything.
    fn look(discovery: &mut Discovery, kernel: &Kernel, living: bool) -> Option<Vec<String>> {
        let plan = discovery.look(kernel, |_| living).plan?;
        let plan = discovery.take(*plan);
        Some(plan.config.peers.iter().map(|p| p.address.to_string()).collect())
    }

    #[test]
    fn a_gateway_is_followed_and_outlives_its_route_while_its_session_lives() {
        let (mut kernel, mut discovery) = (kernel(), discovery());
        let seeks = plan(&[("g", By::DefaultGateway { v4: true })]);
        assert_eq!(discovery.take(seeks.clone()), seeks, "nowhere yet");
        assert_eq!(look(&mut discovery, &kernel, false), None);
        assert_eq!(discovery.view("g", &kernel).unwrap().missing.unwrap(), "no IPv4 default route");
        default_route(&mut kernel, "10.0.0.2", false);
        assert_eq!(look(&mut discovery, &kernel, false).unwrap(), ["10.0.0.2"]);
        assert_eq!(look(&mut discovery, &kernel, false), None, "nothing new");
        default_route(&mut kernel, "10.0.0.2", true);
        assert_eq!(look(&mut discovery, &kernel, true), None, "its session lives");
        discovery.stale = true;
        assert_eq!(look(&mut discovery, &kernel, false).unwrap(), ["0.0.0.0"]);
        default_route(&mut kernel, "10.0.0.3", false);
        assert_eq!(look(&mut discovery, &kernel, true).unwrap(), ["10.0.0.3"], "another one counts at once");
        // The same plan again, as after a change elsewhere: what was found stays.
        assert_eq!(discovery.take(seeks.clone()).config.peers[0].address.to_string(), "10.0.0.3");
        // Sought another way.
        let other = plan(&[("g", By::DefaultGateway { v4: false })]);
        assert!(discovery.take(other).config.peers[0].address.is_unspecified());
        discovery.silence();
        assert_eq!(look(&mut discovery, &kernel, false), None);
        assert_eq!(discovery.view("g", &kernel), None);
    }

    #[test]
    fn a_link_local_gateway_comes_with_its_link_and_without_a_source_of_elsewhere() {
        let (mut kernel, mut discovery) = (kernel(), discovery());
        discovery.take(plan(&[("g", By::DefaultGateway { v4: false })]));
        for (via, interface, source) in [("fe80::1", Some("eth0"), None), ("fd00::2", None, Some("fd00::1"))]
        {
            default_route(&mut kernel, via, false);
            let plan = discovery.look(&kernel, |_| false).plan.unwrap();
            let peer = &discovery.take(*plan).config.peers[0];
            assert_eq!((peer.address.to_string().as_str(), peer.interface.as_deref()), (via, interface));
            assert_eq!(peer.source_address.map(|s| s.to_string()).as_deref(), source);
            default_route(&mut kernel, via, true);
        }
    }

    #[test]
    fn a_session_over_a_link_that_went_is_cut_off() {
        let (mut kernel, mut discovery) = (kernel(), discovery());
        discovery.take(plan(&[("u", By::Advertisements("eth0".into()))]));
        assert!(discovery.look(&kernel, |_| true).cut_off.is_empty());
        assert_eq!(discovery.wanted["eth0"].index, 2);
        kernel.observe(vec![Event::LinkGone { index: 2, name: "eth0".into() }]);
        assert_eq!(discovery.look(&kernel, |_| true).cut_off, ["u"]);
        assert!(discovery.wanted.is_empty() && discovery.radv.is_none());
        let view = discovery.view("u", &kernel).unwrap();
        assert_eq!(view.missing.unwrap(), "this host has no interface eth0");
        discovery.stale = true;
        assert!(discovery.look(&kernel, |_| true).cut_off.is_empty(), "said once");
    }
}
