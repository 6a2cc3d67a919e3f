//! One endpoint: from what it should have to its link, its inside, its routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;

use caracal_netlink::netns::NetnsId;
use caracal_netlink::{Errno, Error, Link, Mac, Request, SetLink};
use caracal_reconcile::Moment;
use felix_calc::{Desired, WepId, Workload};

use crate::convert::{self, Inside};
use crate::dataplane::Dataplane;
use crate::inside::{self, InsideError, Visit, Visited};
use crate::links::OUR_GROUP;
use crate::neighbours::NeighbourKey;
use crate::routes::RouteKey;
use crate::status::Status;
use crate::sysctls;

/// Namespaces that are open at one time while links are made: the process's limit of files may be 1,024.
const BIRTHS_AT_ONCE: usize = 64;

/// What is known of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Endpoint {
    desired: Option<Desired>,
    faults: BTreeMap<Stage, String>,
    routes: BTreeSet<RouteKey>,
    neighbours: BTreeSet<NeighbourKey>,
    /// The link that is ours to remove with it.
    made: Option<u32>,
    /// The link whose switches were set, and whether they are to be set again.
    switched: Option<u32>,
    /// The link whose inside was made, and as what.
    inside: Option<(u32, Inside)>,
    /// Addresses that an earlier life left inside.
    stale: Vec<IpAddr>,
    /// The workload's Ethernet address as found inside, when the object does not say.
    learned: Option<Mac>,
}

/// Where something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Link,
    Inside,
    Switches,
}

impl Endpoint {
    pub(crate) fn set(&mut self, desired: Option<Desired>) {
        self.desired = desired;
        self.faults.clear();
    }

    fn workload(&self) -> Option<&Workload> {
        self.desired.as_ref()?.workload.as_ref()
    }

    pub(crate) fn iface(&self) -> Option<&str> {
        self.workload().map(|w| w.iface.as_str())
    }

    /// Whether its link is ours to make.
    pub(crate) fn is_made_here(&self) -> bool {
        self.workload().is_some_and(|w| w.netns.is_some())
    }
}

impl Dataplane {
    /// Brings one endpoint as far as it goes without making a link; returns whether its link has to be made.
    pub(crate) fn place(&mut self, id: &WepId, now: Moment) -> bool {
        let Some(endpoint) = self.endpoints.get(id) else { return false };
        let workload = endpoint.workload().cloned();
        let name = endpoint.made.and_then(|index| self.links.name_of(index));
        if name.is_some() && name != workload.as_ref().map(|w| w.iface.as_str()) {
            self.withdraw(id);
            self.remove_made_link(id);
        }
        let Some(workload) = workload else {
            self.withdraw(id);
            return false;
        };
        let Some(link) = self.links.named(&workload.iface).cloned() else {
            self.withdraw(id);
            return workload.netns.is_some() && !self.links.is_leaving(&workload.iface);
        };
        if workload.netns.is_some() && !self.own(id, &link, now) {
            return false;
        }
        if !link.up && workload.netns.is_none() {
            self.withdraw(id);
            return false;
        }
        self.enter_if_changed(id, &workload, &link);
        self.lead(id, &workload, link.index);
        false
    }

    /// Makes the links of `unborn` and wants their routes; returns the visits that their insides need.
    pub(crate) fn make_links(&mut self, unborn: &[WepId], now: Moment) -> Vec<Visit> {
        unborn.chunks(BIRTHS_AT_ONCE).flat_map(|chunk| self.bear(chunk, now)).collect()
    }

    fn bear(&mut self, ids: &[WepId], now: Moment) -> Vec<Visit> {
        let mut requests = Vec::new();
        let mut born = Vec::new();
        for id in ids {
            let workload = self.endpoints.get(id).and_then(|e| e.workload().cloned());
            let Some(workload) = workload else { continue };
            match inside::open(workload.netns.as_deref().unwrap_or_default(), self.netlink.netns().id()) {
                Ok(netns) => {
                    let mut veth = convert::veth(&workload, self.mtu.value());
                    veth.peer_netns = Some(netns.clone());
                    requests.push(Request::AddLink(veth));
                    born.push((id, workload, netns));
                }
                Err(err) => self.fault(id, Stage::Link, err.to_string(), now),
            }
        }
        let failed: BTreeMap<usize, Errno> = self.netlink.apply(&requests).into_iter().collect();
        self.counters.writes += requests.len();
        self.counters.links_made += requests.len() - failed.len();
        self.drain(now);
        let mut visits = Vec::new();
        for (at, (id, workload, netns)) in born.into_iter().enumerate() {
            if let Some(errno) = failed.get(&at) {
                self.on_stillborn(id, &workload, *errno, now);
                continue;
            }
            self.cure(id, Stage::Link);
            // Gone again already: the event says so, and the next round makes it anew.
            let Some(link) = self.links.named(&workload.iface).cloned() else { continue };
            tracing::debug!(wep = %id, iface = workload.iface, "link made");
            let wanted = Inside::new(&workload, self.mtu.value());
            if let Some(endpoint) = self.endpoints.get_mut(id) {
                endpoint.made = Some(link.index);
                endpoint.inside = Some((link.index, wanted.clone()));
            }
            self.lead(id, &workload, link.index);
            visits.extend(self.visit_to(id, Some(netns.id())));
        }
        visits
    }

    fn on_stillborn(&mut self, id: &WepId, workload: &Workload, errno: Errno, now: Moment) {
        self.counters.failures += 1;
        let why = match errno {
            Errno::EEXIST if self.links.named(&workload.iface).is_some() => {
                // Somebody was faster: taken over in the next round.
                self.dirty.insert(id.clone());
                return;
            }
            Errno::EEXIST if self.links.is_leaving(&workload.iface) => {
                "the link of an earlier endpoint is still leaving".into()
            }
            Errno::EEXIST => format!(
                "spec.endpoint: the workload's namespace has a link {} already; remove that one or name another",
                workload.peer
            ),
            errno => format!("link {} cannot be made: {}", workload.iface, errno.desc().to_ascii_lowercase()),
        };
        self.fault(id, Stage::Link, why, now);
    }

    /// Takes care of a link that is ours to make and is there already: mark, address, MTU, up. False: it cannot be.
    fn own(&mut self, id: &WepId, link: &Link, now: Moment) -> bool {
        if link.kind != "veth" {
            let why = format!(
                "spec.interfaceName: {} is a link of kind {}, not a pair; remove it or name another",
                link.name,
                shown(&link.kind)
            );
            self.fault(id, Stage::Link, why, now);
            return false;
        }
        let set = SetLink {
            up: (!link.up).then_some(true),
            mac: (link.mac != Some(Mac::WORKLOAD_HOST)).then_some(Mac::WORKLOAD_HOST),
            mtu: Some(self.mtu.value()).filter(|mtu| link.mtu != *mtu),
            group: (link.group != OUR_GROUP).then_some(OUR_GROUP),
            ..SetLink::new(link.index)
        };
        if let Some(endpoint) = self.endpoints.get_mut(id) {
            endpoint.made = Some(link.index);
        }
        if set.up.is_none() && set.mac.is_none() && set.mtu.is_none() && set.group.is_none() {
            self.cure(id, Stage::Link);
            return true;
        }
        self.counters.writes += 1;
        match self.netlink.apply_one(Request::SetLink(set)) {
            Ok(()) => {
                tracing::debug!(wep = %id, iface = link.name, "link set right");
                self.cure(id, Stage::Link);
                true
            }
            Err(errno) => {
                self.fault(
                    id,
                    Stage::Link,
                    format!("link {} cannot be set up: {}", link.name, errno.desc().to_ascii_lowercase()),
                    now,
                );
                false
            }
        }
    }

    /// Has the inside visited when it is wanted otherwise than it was last made; an inside of an earlier life waits
    /// for its turn, as its link is in use already.
    fn enter_if_changed(&mut self, id: &WepId, workload: &Workload, link: &Link) {
        if workload.netns.is_none() {
            return;
        }
        let wanted = Inside::new(workload, self.mtu.value());
        let stale = self.routes.stale_on(link.index, self.config.route_protocol);
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        match &endpoint.inside {
            Some((index, made)) if *index == link.index => {
                if *made != wanted {
                    endpoint.stale.extend(made.addresses.iter().copied());
                    self.callers.insert(id.clone());
                }
            }
            _ => {
                endpoint.stale.extend(stale);
                self.suspects.insert(id.clone());
            }
        }
    }

    /// Sets the switches of links, then makes the visits, on a thread that goes from one to the next.
    pub(crate) fn visit(&mut self, visits: Vec<Visit>, now: Moment) {
        // Not side by side: a write of an IPv6 switch spins in the kernel while somebody else holds its network lock.
        self.set_switches(now);
        if visits.is_empty() {
            return;
        }
        let visited = thread::scope(|scope| {
            let thread = thread::Builder::new().name("felix-inside".into());
            match thread.spawn_scoped(scope, || inside::tour(visits)) {
                Ok(tour) => tour.join().expect("invariant: a visit does not panic"),
                Err(err) => {
                    tracing::warn!(%err, "no thread for the insides of workloads; the next audit tries again");
                    Vec::new()
                }
            }
        });
        for visited in visited {
            self.on_visited(visited, now);
        }
    }

    /// The visit to one endpoint, when it has an inside that is ours to make.
    pub(crate) fn visit_to(&self, id: &WepId, fresh: Option<NetnsId>) -> Option<Visit> {
        let endpoint = self.endpoints.get(id)?;
        let workload = endpoint.workload()?;
        let host = self.links.named(&workload.iface).filter(|link| link.up)?.clone();
        Some(Visit {
            id: id.clone(),
            path: workload.netns.clone()?,
            own: self.netlink.netns().id(),
            host,
            want: Inside::new(workload, self.mtu.value()),
            stale: endpoint.stale.clone(),
            fresh,
        })
    }

    /// Has the switches of an endpoint's link compared by the next pass over them.
    pub(crate) fn doubt_switches(&mut self, id: &WepId) {
        if let Some(endpoint) = self.endpoints.get_mut(id) {
            endpoint.switched = None;
            self.stirred.insert(id.clone());
        }
    }

    fn on_visited(&mut self, Visited { visit, result }: Visited, now: Moment) {
        let Visit { id, path, host, want, .. } = visit;
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        match result {
            Ok(outcome) => {
                self.counters.writes += outcome.writes;
                endpoint.stale.clear();
                endpoint.inside = Some((host.index, want));
                if endpoint.learned != outcome.mac {
                    endpoint.learned = outcome.mac;
                    self.dirty.insert(id.clone());
                }
                self.cure(&id, Stage::Inside);
            }
            Err(InsideError::Elsewhere) if host.group == OUR_GROUP => {
                tracing::debug!(wep = %id, iface = host.name, "link leads to another namespace than the endpoint's; made anew");
                self.withdraw(&id);
                self.remove_link(host.index);
            }
            Err(InsideError::Elsewhere) => {
                let why = format!(
                    "spec.interfaceName: {} exists and leads elsewhere than to {path}; remove that link or the annotation",
                    host.name
                );
                endpoint.inside = None;
                self.fault(&id, Stage::Inside, why, now);
            }
            Err(err) => {
                endpoint.inside = None;
                self.fault(&id, Stage::Inside, err.to_string(), now);
            }
        }
    }

    /// Wants the routes and neighbours of an endpoint over its link, and none else.
    fn lead(&mut self, id: &WepId, workload: &Workload, index: u32) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let mac = workload.mac.map(Mac).or(endpoint.learned);
        let old_routes = std::mem::take(&mut endpoint.routes);
        let old_neighbours = std::mem::take(&mut endpoint.neighbours);
        let mut routes = BTreeSet::new();
        let mut neighbours = BTreeSet::new();
        for address in &workload.addresses {
            let key = self.routes.want(convert::workload_route(*address, index, &self.config));
            self.owners.insert(key, id.clone());
            routes.insert(key);
            // Not looked inside yet in this life: what the earlier one found stands.
            let mac = mac
                .or_else(|| self.neighbours.actual(&(index, *address)).filter(|_| workload.netns.is_some()));
            if let Some(mac) = mac {
                self.neighbours.want((index, *address), mac);
                neighbours.insert((index, *address));
            }
        }
        for key in old_routes.difference(&routes) {
            self.disown(id, key);
        }
        for key in old_neighbours.difference(&neighbours) {
            self.neighbours.unwant(key);
        }
        if let Some(endpoint) = self.endpoints.get_mut(id) {
            endpoint.routes = routes;
            endpoint.neighbours = neighbours;
        }
    }

    /// Wants no route or neighbour of an endpoint any more.
    fn withdraw(&mut self, id: &WepId) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let routes = std::mem::take(&mut endpoint.routes);
        let neighbours = std::mem::take(&mut endpoint.neighbours);
        endpoint.inside = None;
        endpoint.switched = None;
        for key in routes {
            self.disown(id, &key);
        }
        for key in neighbours {
            self.neighbours.unwant(&key);
        }
    }

    /// The address may have passed to another endpoint meanwhile, whose wish stands.
    fn disown(&mut self, id: &WepId, key: &RouteKey) {
        if self.owners.get(key) == Some(id) {
            self.owners.remove(key);
            self.routes.unwant(key);
        }
    }

    /// The switches of links that came, came up again, or are to be verified.
    fn set_switches(&mut self, now: Moment) {
        let waiting: Vec<WepId> = self
            .stirred
            .iter()
            .filter(|id| self.endpoints.get(id).is_some_and(|e| e.switched.is_none() && !e.routes.is_empty()))
            .cloned()
            .collect();
        for id in waiting {
            self.switch(&id, now);
        }
    }

    fn switch(&mut self, id: &WepId, now: Moment) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let Some(workload) = endpoint.workload().cloned() else { return };
        let Some(index) = self.links.named(&workload.iface).map(|link| link.index) else { return };
        endpoint.switched = Some(index);
        let made = workload.netns.is_some();
        match sysctls::for_link(&self.sysctls, &workload, &self.rp_filter, self.config.ipv6, made) {
            Ok(writes) => {
                self.counters.writes += writes;
                self.cure(id, Stage::Switches);
            }
            // The link went meanwhile; its end is an event of its own.
            Err(err) if err.errno() == Some(Errno::ENOENT) => {}
            Err(err) => self.fault(id, Stage::Switches, describe(&err), now),
        }
    }

    /// Hands a link over for deletion; for everybody here it is gone already.
    pub(crate) fn remove_link(&mut self, index: u32) {
        self.links.doom(index);
        self.janitor.delete_link(index);
        self.counters.links_removed += 1;
    }

    /// A link of ours that no endpoint has.
    pub(crate) fn is_leftover(&self, link: &Link) -> bool {
        link.group == OUR_GROUP
            && link.kind == "veth"
            && self.is_workload_name(&link.name)
            && !self.by_iface.contains_key(&link.name)
            && !self.links.is_leaving(&link.name)
    }

    /// Removes the link of an endpoint that has it no more. Unlike a leftover's, its end is somebody's will.
    fn remove_made_link(&mut self, id: &WepId) {
        let Some(index) = self.endpoints.get_mut(id).and_then(|e| e.made.take()) else { return };
        let leftover = self.links.iter().any(|link| link.index == index && self.is_leftover(link));
        if leftover {
            self.remove_link(index);
        }
    }

    fn fault(&mut self, id: &WepId, stage: Stage, why: String, now: Moment) {
        self.counters.failures += 1;
        self.retries.failed(id.clone(), now);
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        if endpoint.faults.get(&stage) != Some(&why) {
            tracing::warn!(wep = %id, err = why, "endpoint cannot be programmed");
            endpoint.faults.insert(stage, why);
        }
        self.stirred.insert(id.clone());
    }

    fn cure(&mut self, id: &WepId, stage: Stage) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        if endpoint.faults.remove(&stage).is_some() {
            tracing::info!(wep = %id, "endpoint programmed after an error");
        }
        if endpoint.faults.is_empty() {
            self.retries.forget(id);
        }
        self.stirred.insert(id.clone());
    }

    /// How an endpoint is; `None`: it is no more.
    pub(crate) fn status(&self, id: &WepId) -> Option<Status> {
        let endpoint = self.endpoints.get(id)?;
        let desired = endpoint.desired.as_ref()?;
        let refusals = endpoint.routes.iter().filter_map(|key| self.routes.refusal(key));
        let faults =
            desired.problem.iter().map(String::as_str).chain(endpoint.faults.values().map(String::as_str));
        let reasons: Vec<&str> = faults.chain(refusals).collect();
        if !reasons.is_empty() {
            return Some(Status::error(reasons.join("; also ")));
        }
        let iface = endpoint.iface().unwrap_or_default();
        Some(match self.links.named(iface) {
            None => Status::down(format!("link {iface} does not exist")),
            Some(link) if !link.running => Status::down(format!("link {iface} is down")),
            Some(_) if endpoint.routes.iter().all(|key| self.routes.is_settled(key)) => Status::up(),
            Some(_) => Status::down("routes are not programmed yet"),
        })
    }
}

/// An error with its cause, for people.
fn describe(err: &Error) -> String {
    match err.errno() {
        Some(errno) => format!("{err}: {}", errno.desc().to_ascii_lowercase()),
        None => err.to_string(),
    }
}

fn shown(kind: &str) -> &str {
    if kind.is_empty() { "hardware" } else { kind }
}
