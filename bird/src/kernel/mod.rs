//! What the kernel of this host has, as far as BGP looks at it: links, connected subnets, routes of others, and the
//! way to each next hop.
//!
//! A mirror fed by a full dump and then by the monitor's events. It turns both into the few facts that the speaker
//! takes: local routes that come and go, and changed answers for watched next hops. It writes nothing.
//!
//! The kernel does not tell everything: when a link goes down or an address goes, it drops the IPv4 routes that
//! depend on them without a word. So the mirror drops routes over a link that is down by itself, and asks for a new
//! dump ([`Effects::resync`]) when an address goes.

mod gateway;
mod way;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bird_speaker::io::{LocalRoute, LocalRouteKey, LocalSource, Resolution};
use caracal_netlink::{Address, Event, Link, NextHop, Route, RouteKind, proto};
use ipnet::IpNet;

pub(crate) use gateway::{DefaultRoute, Gateway};

/// `RTPROT_REDIRECT`: made by an ICMP redirect, nothing to tell anybody.
const PROTO_REDIRECT: u8 = 1;
/// Metric of a connected subnet without one of its own.
const CONNECTED_METRIC: u32 = 0;

/// A picture of the kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Owner of our own routes, which are not looked at here.
    own_proto: u8,
    table: u32,
    links: HashMap<u32, LinkState>,
    addresses: BTreeSet<(u32, IpNet)>,
    /// Routes of others: prefix -> what is there.
    routes: HashMap<IpNet, Vec<Entry>>,
    /// How many prefixes of each length there are, IPv4 and IPv6.
    lengths: [[u32; 129]; 2],
    told: BTreeMap<LocalRouteKey, LocalRoute>,
    watched: BTreeMap<IpAddr, Option<Resolution>>,
    /// Routes by a gateway that our own configuration makes: prefix -> gateway.
    statics: BTreeMap<IpNet, IpAddr>,
    /// Changes of links and default routes.
    changes: u64,
}

/// What one change of the kernel means.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// New or changed.
    pub(crate) local: Vec<LocalRoute>,
    /// Gone.
    pub(crate) local_gone: Vec<LocalRouteKey>,
    /// Watched next hops with a new answer.
    pub(crate) next_hops: Vec<(IpAddr, Resolution)>,
    /// Our own routes that somebody removed or replaced.
    pub(crate) own_gone: Vec<Route>,
    /// The kernel may have dropped routes of ours without telling.
    pub(crate) lost_routes: bool,
    /// A link or an address came: sessions may be tried again now.
    pub(crate) came_up: bool,
    /// Read everything again.
    pub(crate) resync: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LinkState {
    name: Arc<str>,
    up: bool,
    running: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    metric: u32,
    proto: u8,
    kind: RouteKind,
    hops: Vec<NextHop>,
}

impl Kernel {
    /// An empty picture. Routes of `own_proto` in `table` are ours; only that table is looked at.
    pub(crate) fn new(own_proto: u8, table: u32) -> Self {
        Self {
            own_proto,
            table,
            links: HashMap::new(),
            addresses: BTreeSet::new(),
            routes: HashMap::new(),
            lengths: [[0; 129]; 2],
            told: BTreeMap::new(),
            watched: BTreeMap::new(),
            statics: BTreeMap::new(),
            changes: 0,
        }
    }

    /// Replaces the picture by a complete dump and says what is different.
    pub(crate) fn replace(
        &mut self,
        links: Vec<Link>,
        addresses: Vec<Address>,
        routes: Vec<Route>,
    ) -> Effects {
        self.links = links.into_iter().map(|l| (l.index, LinkState::of(&l))).collect();
        self.addresses = addresses
            .iter()
            .filter(|a| !a.tentative && !is_link_local(&a.net))
            .map(|a| (a.index, a.net))
            .collect();
        self.changes += 1;
        self.routes.clear();
        self.lengths = [[0; 129]; 2];
        for route in routes {
            if self.is_foreign(&route) {
                self.insert(&route);
            }
        }
        let mut effects = Effects::default();
        self.settle(None, &mut effects);
        effects
    }

    /// Takes in what the monitor heard.
    pub(crate) fn observe(&mut self, events: Vec<Event>) -> Effects {
        let mut effects = Effects::default();
        let mut changed = Changed::default();
        for event in events {
            self.apply(event, &mut changed, &mut effects);
        }
        if changed.any() {
            self.settle(Some(&changed), &mut effects);
        }
        effects
    }

    /// Begins to watch a next hop and answers how it is reached now.
    pub(crate) fn watch(&mut self, address: IpAddr) -> Resolution {
        let answer = self.resolve(address);
        self.watched.insert(address, Some(answer.clone()));
        answer
    }

    /// Nobody asks about it any more.
    pub(crate) fn forget(&mut self, address: IpAddr) {
        self.watched.remove(&address);
    }

    /// Whether an address is one of this host's, on a link that is up.
    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        self.addresses
            .iter()
            .any(|(index, net)| net.addr() == address && self.links.get(index).is_some_and(|l| l.up))
    }

    /// Our address of the other family on the link on which a connection ends.
    pub(crate) fn other_address(&self, local: SocketAddr) -> Option<IpAddr> {
        let index = match local {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => v6.scope_id(),
            _ => self.addresses.iter().find(|(_, net)| net.addr() == local.ip())?.0,
        };
        self.addresses
            .iter()
            .map(|(i, net)| (*i, net.addr()))
            .find(|(i, a)| *i == index && a.is_ipv4() != local.is_ipv4() && !a.is_loopback())
            .map(|(_, address)| address)
    }

    /// The owner number of our own routes.
    pub(crate) fn own_proto(&self) -> u8 {
        self.own_proto
    }

    /// The table that is looked at.
    pub(crate) fn table(&self) -> u32 {
        self.table
    }

    /// Everything that was told as a local route.
    pub(crate) fn local_routes(&self) -> impl Iterator<Item = &LocalRoute> {
        self.told.values()
    }

    /// Whether somebody else has a route with this prefix and metric.
    pub(crate) fn has_foreign(&self, prefix: IpNet, metric: u32) -> bool {
        self.routes.get(&prefix).is_some_and(|entries| entries.iter().any(|e| e.metric == metric))
    }

    /// The name of a link.
    pub(crate) fn link_name(&self, index: u32) -> Option<Arc<str>> {
        self.links.get(&index).map(|l| Arc::clone(&l.name))
    }

    /// Whether a watched next hop is, or was when last told, reached over this link.
    fn carries_next_hops(&self, index: u32) -> bool {
        self.watched.values().flatten().any(|resolution| match resolution {
            Resolution::Via { hops, .. } => hops.iter().any(|h| h.ifindex == index),
            Resolution::Unreachable => false,
        })
    }

    /// Counts what changed of links and default routes; whoever remembers it knows when to look again.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The index of a link that is up and has carrier.
    pub(crate) fn working_link(&self, name: &str) -> Option<u32> {
        self.links.iter().find(|(_, l)| &*l.name == name && l.usable()).map(|(index, _)| *index)
    }

    /// The index of a link.
    pub(crate) fn link_index(&self, name: &str) -> Option<u32> {
        self.links.iter().find(|(_, l)| &*l.name == name).map(|(index, _)| *index)
    }

    fn apply(&mut self, event: Event, changed: &mut Changed, effects: &mut Effects) {
        match event {
            Event::Link(link) => {
                let state = LinkState::of(&link);
                let before = self.links.insert(link.index, state.clone());
                if before.as_ref() == Some(&state) {
                    return;
                }
                changed.connected = true;
                changed.prefixes.extend(self.prefixes_over(link.index));
                // A workload's link is no way to a peer, and there are many of them.
                let uplink = !state.name.starts_with("cali");
                self.changes += u64::from(uplink);
                effects.came_up |=
                    uplink && state.usable() && !before.as_ref().is_some_and(LinkState::usable);
                if !state.up && before.is_none_or(|b| b.up) {
                    self.link_down(link.index, effects);
                }
            }
            Event::LinkGone { index, .. } => {
                if let Some(link) = self.links.remove(&index) {
                    self.changes += u64::from(!link.name.starts_with("cali"));
                    changed.connected = true;
                    changed.prefixes.extend(self.prefixes_over(index));
                    self.addresses.retain(|(i, _)| *i != index);
                    self.link_down(index, effects);
                }
            }
            Event::Address(address) => {
                let counts = !address.tentative && !is_link_local(&address.net);
                if counts && self.addresses.insert((address.index, address.net)) {
                    changed.connected = true;
                    changed.addresses = true;
                    effects.came_up = true;
                }
            }
            Event::AddressGone(address) => {
                if self.addresses.remove(&(address.index, address.net)) {
                    changed.connected = true;
                    changed.addresses = true;
                    // Routes with this source address went without a word.
                    effects.resync = true;
                }
            }
            Event::Route { route, gone, replaced } => {
                if route.table != self.table {
                    return;
                }
                if route.proto == self.own_proto {
                    if gone {
                        effects.own_gone.push(route);
                    }
                    return;
                }
                if replaced && !gone {
                    // It took the place of a route of ours or of a third; both are gone without an event.
                    let mut place = route.clone();
                    place.proto = self.own_proto;
                    effects.own_gone.push(place);
                    self.remove_metric(route.dst, route.metric);
                }
                if self.is_foreign(&route) {
                    self.changes += u64::from(route.dst.prefix_len() == 0);
                    changed.prefixes.insert(route.dst);
                    if gone {
                        self.remove(&route);
                    } else {
                        self.insert(&route);
                    }
                }
            }
            Event::Neighbour { .. } => {}
            Event::Overrun => effects.resync = true,
        }
    }

    fn prefixes_over(&self, index: u32) -> Vec<IpNet> {
        let over = |entries: &[Entry]| entries.iter().any(|e| e.hops.iter().any(|h| h.ifindex == index));
        self.routes.iter().filter(|(_, entries)| over(entries)).map(|(prefix, _)| *prefix).collect()
    }

    /// The kernel dropped every IPv4 route over this link.
    fn link_down(&mut self, index: u32, effects: &mut Effects) {
        let leads_out = |p: &IpNet| p.prefix_len() < p.max_prefix_len();
        if self.carries_next_hops(index) || self.prefixes_over(index).iter().any(leads_out) {
            effects.lost_routes = true;
        }
        let lengths = &mut self.lengths;
        self.routes.retain(|prefix, entries| {
            entries.retain(|e| e.hops.is_empty() || !e.hops.iter().all(|h| h.ifindex == index));
            if entries.is_empty() {
                let count = length_of(lengths, prefix);
                *count = count.saturating_sub(1);
            }
            !entries.is_empty()
        });
    }

    fn is_foreign(&self, route: &Route) -> bool {
        route.table == self.table
            && route.proto != self.own_proto
            && matches!(
                route.kind,
                RouteKind::Unicast | RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit
            )
            && !is_link_local(&route.dst)
    }

    fn insert(&mut self, route: &Route) {
        let entry =
            Entry { metric: route.metric, proto: route.proto, kind: route.kind, hops: route.hops.to_vec() };
        let entries = self.routes.entry(route.dst).or_default();
        if entries.is_empty() {
            *length_of(&mut self.lengths, &route.dst) += 1;
        }
        match entries.iter_mut().find(|e| e.same_place(&entry)) {
            Some(old) => *old = entry,
            None => entries.push(entry),
        }
        entries.sort_by_key(|e| e.metric);
    }

    fn remove(&mut self, route: &Route) {
        let gone =
            Entry { metric: route.metric, proto: route.proto, kind: route.kind, hops: route.hops.to_vec() };
        self.retain(route.dst, |e| {
            !(e.metric == gone.metric && e.proto == gone.proto && e.hops == gone.hops)
        });
    }

    fn remove_metric(&mut self, prefix: IpNet, metric: u32) {
        self.retain(prefix, |e| e.metric != metric);
    }

    fn retain(&mut self, prefix: IpNet, keep: impl Fn(&Entry) -> bool) {
        if let Some(entries) = self.routes.get_mut(&prefix) {
            entries.retain(keep);
            if entries.is_empty() {
                self.routes.remove(&prefix);
                let count = length_of(&mut self.lengths, &prefix);
                *count = count.saturating_sub(1);
            }
        }
    }

    /// Compares what was told with what is; `changed` bounds where to look.
    fn settle(&mut self, changed: Option<&Changed>, effects: &mut Effects) {
        let mut now = BTreeMap::new();
        let mut before: Vec<LocalRouteKey> = Vec::new();
        match changed {
            None => {
                for prefix in self.routes.keys() {
                    now.extend(self.local_routes_of(*prefix));
                }
                now.extend(self.connected());
                before.extend(self.told.keys().cloned());
            }
            Some(changed) => {
                for prefix in &changed.prefixes {
                    now.extend(self.local_routes_of(*prefix));
                    before.extend(self.told_of(*prefix).filter(|k| k.source == LocalSource::Kernel).cloned());
                }
                if changed.connected {
                    now.extend(self.connected());
                    before.extend(self.told.keys().filter(|k| k.source == LocalSource::Connected).cloned());
                }
            }
        }
        self.tell(now, before, effects);
        let concerned: Vec<IpAddr> = self
            .watched
            .keys()
            .filter(|a| {
                changed.is_none_or(|c| c.addresses || c.prefixes.iter().any(|p| p.contains(*a)))
                    || self.by_gateway(**a)
            })
            .copied()
            .collect();
        self.answer_again(concerned, effects);
    }

    /// Looks for the way to watched next hops again, and says what is different.
    fn answer_again(&mut self, concerned: Vec<IpAddr>, effects: &mut Effects) {
        for address in concerned {
            let answer = self.resolve(address);
            let told = self.watched.entry(address).or_default();
            if told.as_ref() != Some(&answer) {
                *told = Some(answer.clone());
                effects.next_hops.push((address, answer));
            }
        }
    }

    fn tell(
        &mut self,
        now: BTreeMap<LocalRouteKey, LocalRoute>,
        before: Vec<LocalRouteKey>,
        effects: &mut Effects,
    ) {
        for key in before {
            if !now.contains_key(&key) {
                self.told.remove(&key);
                effects.local_gone.push(key);
            }
        }
        for (key, route) in now {
            if self.told.get(&key) != Some(&route) {
                self.told.insert(key, route.clone());
                effects.local.push(route);
            }
        }
    }

    fn told_of(&self, prefix: IpNet) -> impl Iterator<Item = &LocalRouteKey> {
        let from =
            LocalRouteKey { prefix, source: LocalSource::Connected, metric: 0, interface: Arc::from("") };
        self.told.range(from..).map(|(key, _)| key).take_while(move |key| key.prefix == prefix)
    }

    /// Routes that another program or an operator made.
    fn local_routes_of(&self, prefix: IpNet) -> BTreeMap<LocalRouteKey, LocalRoute> {
        let mut found = BTreeMap::new();
        for entry in self.routes.get(&prefix).into_iter().flatten() {
            if matches!(entry.proto, proto::KERNEL | PROTO_REDIRECT) || !self.is_usable(entry) {
                continue;
            }
            let first = entry.hops.first();
            let interface = first
                .and_then(|h| self.links.get(&h.ifindex))
                .map_or_else(|| Arc::from(""), |l| Arc::clone(&l.name));
            let key = LocalRouteKey { prefix, source: LocalSource::Kernel, metric: entry.metric, interface };
            let gateway = first.and_then(|h| h.via);
            found.insert(key.clone(), LocalRoute { key, gateway });
        }
        found
    }

    /// Subnets of this host's addresses on links that are up.
    fn connected(&self) -> BTreeMap<LocalRouteKey, LocalRoute> {
        let mut found = BTreeMap::new();
        for (index, net) in &self.addresses {
            let Some(link) = self.links.get(index).filter(|l| l.usable()) else { continue };
            if is_link_local(net) || net.addr().is_loopback() {
                continue;
            }
            let key = LocalRouteKey {
                prefix: net.trunc(),
                source: LocalSource::Connected,
                metric: CONNECTED_METRIC,
                interface: Arc::clone(&link.name),
            };
            found.insert(key.clone(), LocalRoute { key, gateway: None });
        }
        found
    }

    /// A route that leads nowhere on purpose, or over a link that works.
    fn is_usable(&self, entry: &Entry) -> bool {
        entry.kind != RouteKind::Unicast
            || entry.hops.iter().any(|h| self.links.get(&h.ifindex).is_some_and(LinkState::usable))
    }
}

#[derive(Debug, Default)]
struct Changed {
    /// Some address of this host.
    addresses: bool,
    /// Something that decides which connected subnets there are.
    connected: bool,
    prefixes: BTreeSet<IpNet>,
}

impl Changed {
    fn any(&self) -> bool {
        self.addresses || self.connected || !self.prefixes.is_empty()
    }
}

impl LinkState {
    fn of(link: &Link) -> Self {
        Self { name: Arc::from(link.name.as_str()), up: link.up, running: link.running }
    }

    fn usable(&self) -> bool {
        self.up && self.running
    }
}

impl Entry {
    /// The kernel keeps one of these only: IPv4 routes differ by metric, IPv6 routes by metric and hop.
    fn same_place(&self, other: &Self) -> bool {
        self.metric == other.metric
            && self.proto == other.proto
            && self.kind == other.kind
            && self.hops == other.hops
    }
}

fn length_of<'a>(lengths: &'a mut [[u32; 129]; 2], prefix: &IpNet) -> &'a mut u32 {
    &mut lengths[usize::from(prefix.addr().is_ipv6())][usize::from(prefix.prefix_len())]
}

/// Link-local subnets exist on every link and mean nothing to others.
fn is_link_local(net: &IpNet) -> bool {
    match net {
        IpNet::V4(_) => false,
        IpNet::V6(v6) => v6.addr().is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
