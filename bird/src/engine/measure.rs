//! The loop's answer to a scrape: counted in slices, and only while somebody asks.

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use bird_speaker::fsm::State;
use bird_speaker::view::{Census, RouteCounts};
use bird_speaker::{Counters, ImportReason, Speaker};

use super::Engine;
use crate::metrics::{Kind, Limits, Metric, Sent, Series, TYPES, Times, Value};

/// One slice of counting.
const SLICE: Duration = Duration::from_millis(2);
/// Units of counting between two looks at the clock.
const UNITS: usize = 32;
/// Name of the series of all peers beyond the limit.
const OTHERS: &str = "_others";

/// What the loop counts always, and who waits for more.
#[derive(Debug)]
pub(super) struct Measure {
    limits: Limits,
    waiting: Vec<SyncSender<Vec<Metric>>>,
    census: Option<Census>,
    /// Turns of the loop.
    pub(super) turns: Times,
    /// By how much timers came late.
    late: Times,
    pub(super) sent: Sent,
}

impl Measure {
    pub(super) fn new() -> Self {
        Self {
            limits: Limits::from_env(),
            waiting: Vec::new(),
            census: None,
            turns: Times::default(),
            late: Times::default(),
            sent: Sent::default(),
        }
    }

    /// Somebody wants figures.
    pub(super) fn ask(&mut self, reply: SyncSender<Vec<Metric>>) {
        self.waiting.push(reply);
    }

    /// Whether figures are being made.
    pub(super) fn is_busy(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Engine {
    /// Notes by how much the timer that is due now is late.
    pub(super) fn note_lateness(&mut self) {
        let now = self.elapsed();
        let due = self.speaker.as_ref().and_then(Speaker::next_timeout);
        if let Some(late) = due.and_then(|due| now.checked_sub(due)) {
            self.measure.late.note(late);
        }
    }

    /// A slice of counting, if somebody waits for it.
    pub(super) fn count(&mut self) {
        if self.measure.waiting.is_empty() {
            return;
        }
        let mut census = self.measure.census.take().unwrap_or_default();
        if let Some(speaker) = &self.speaker {
            let until = Instant::now() + SLICE;
            while !speaker.census_step(&mut census, UNITS) {
                if Instant::now() >= until {
                    self.measure.census = Some(census);
                    return;
                }
            }
        }
        let metrics = self.figures(&census);
        for reply in std::mem::take(&mut self.measure.waiting) {
            // A scrape that gave up is no loss.
            let _ = reply.try_send(metrics.clone());
        }
    }

    fn figures(&self, census: &Census) -> Vec<Metric> {
        let mut page = Page::default();
        if let Some(speaker) = &self.speaker {
            sessions(&mut page, speaker, census, self.measure.limits);
            tables(&mut page, speaker, census);
            let restart = speaker.restart_view(self.elapsed());
            page.gauge("caracal_bgp_restart_active", "1 while our own restart lasts", restart.active.into());
            page.gauge(
                "caracal_bgp_restart_waiting_peers",
                "Peers that our restart waits for",
                restart.waiting.len() as u64,
            );
            page.gauge(
                "caracal_bgp_restart_helped_peers",
                "Families of peers whose routes are kept over their restart",
                restart.helping.len() as u64,
            );
        }
        let written = &self.fib.written;
        page.counter("caracal_bgp_fib_writes", "Kernel writes", written.requests);
        page.counter("caracal_bgp_fib_write_failures", "Kernel writes that failed", written.failures);
        page.gauge(
            "caracal_bgp_fib_refused",
            "Routes that the kernel refuses at present",
            self.fib.refused_count() as u64,
        );
        page.times("caracal_bgp_fib_batch_seconds", "Time of a batch of kernel writes", &written.times);
        page.times("caracal_bgp_loop_turn_seconds", "Work of one turn of the loop", &self.measure.turns);
        page.times(
            "caracal_bgp_timer_late_seconds",
            "By how much a timer was late when the loop came to it",
            &self.measure.late,
        );
        let bfd = self.watch.tally();
        for (state, count) in [("up", bfd.up), ("down", bfd.down)] {
            let labels = vec![("state", state.to_owned())];
            page.add("caracal_bgp_bfd_sessions", "BFD sessions of peers", Kind::Gauge, labels, count);
        }
        page.counter("caracal_bgp_bfd_failures", "Times that BFD saw a path fail", bfd.failures);
        for (kind, count) in TYPES.iter().zip(self.measure.sent.messages) {
            let labels = vec![("type", (*kind).to_owned())];
            page.add("caracal_bgp_messages_sent", "BGP messages sent", Kind::Counter, labels, count);
        }
        page.metrics
    }
}

/// Metrics in the making.
#[derive(Default)]
struct Page {
    metrics: Vec<Metric>,
}

type Labels = Vec<(&'static str, String)>;

impl Page {
    fn add(&mut self, name: &'static str, help: &'static str, kind: Kind, labels: Labels, value: u64) {
        self.put(name, help, kind, Series { labels, value: Value::Number(value) });
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.add(name, help, Kind::Gauge, Labels::new(), value);
    }

    fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.add(name, help, Kind::Counter, Labels::new(), value);
    }

    fn times(&mut self, name: &'static str, help: &'static str, times: &Times) {
        let series = Series { labels: Labels::new(), value: Value::Times(times.clone()) };
        self.put(name, help, Kind::Histogram, series);
    }

    fn put(&mut self, name: &'static str, help: &'static str, kind: Kind, series: Series) {
        match self.metrics.iter_mut().find(|m| m.name == name) {
            Some(metric) => metric.series.push(series),
            None => self.metrics.push(Metric { name, help, kind, series: vec![series] }),
        }
    }
}

/// A peer, or all those without series of their own.
#[derive(Default)]
struct Sums {
    established: u64,
    counters: Counters,
    routes: BTreeMap<String, RouteCounts>,
}

impl Sums {
    fn add(&mut self, established: bool, counters: &Counters, routes: &[RouteCounts]) {
        self.established += u64::from(established);
        self.counters.add(counters);
        for counts in routes {
            self.routes.entry(counts.family.clone()).or_default().add(counts);
        }
    }
}

const STATES: [State; 6] =
    [State::Idle, State::Connect, State::Active, State::OpenSent, State::OpenConfirm, State::Established];

fn sessions(page: &mut Page, speaker: &Speaker, census: &Census, limits: Limits) {
    let mut names: Vec<String> = speaker.peer_names().into_iter().map(|(name, _)| name).collect();
    // The mesh is what may be large; others are asked about one by one.
    names.sort_by_key(|name| name.starts_with("Mesh_"));
    let (mut states, mut all, mut others) = ([0; STATES.len()], Sums::default(), Sums::default());
    let mut single = Vec::new();
    let mut rejected: BTreeMap<(String, ImportReason), u64> = BTreeMap::new();
    for (at, name) in names.iter().enumerate() {
        let Some(view) = speaker.peer_view_of(census, name) else { continue };
        if let Some(state) = STATES.iter().position(|s| *s == view.state) {
            states[state] += 1;
        }
        let routes = speaker.counts_of(census, name);
        for counts in &routes {
            for (reason, count) in &counts.rejected {
                *rejected.entry((counts.family.clone(), *reason)).or_default() += count;
            }
        }
        let up = view.state == State::Established;
        all.add(up, &view.counters, &routes);
        if at < limits.peers {
            let mut sums = Sums::default();
            sums.add(up, &view.counters, &routes);
            single.push((name.clone(), sums));
        } else {
            others.add(up, &view.counters, &routes);
        }
    }
    if names.len() > limits.peers {
        single.push((OTHERS.to_owned(), others));
    }
    for (state, count) in STATES.iter().zip(states) {
        let labels = vec![("state", format!("{state:?}").to_lowercase())];
        page.add("caracal_bgp_sessions", "Peers by the state of their session", Kind::Gauge, labels, count);
    }
    for (peer, sums) in &single {
        peer_series(page, peer, sums);
    }
    let received = [
        ("update", all.counters.updates_received),
        ("keepalive", all.counters.keepalives_received),
        ("route-refresh", all.counters.refreshes_received),
    ];
    for (kind, count) in received {
        let labels = vec![("type", kind.to_owned())];
        page.add(
            "caracal_bgp_messages_received",
            "BGP messages received from the peers there are",
            Kind::Counter,
            labels,
            count,
        );
    }
    for ((family, reason), count) in rejected {
        let reason = serde_json::to_value(reason).ok().and_then(|v| v.as_str().map(str::to_owned));
        let labels = vec![("family", family), ("reason", reason.unwrap_or_default())];
        page.add(
            "caracal_bgp_rejected_paths",
            "Paths that import does not take, by reason",
            Kind::Gauge,
            labels,
            count,
        );
    }
    let notifications = speaker.notifications();
    for (direction, counts) in [("sent", &notifications.sent), ("received", &notifications.received)] {
        for ((code, subcode), count) in counts {
            let labels = vec![
                ("direction", direction.to_owned()),
                ("code", code.to_string()),
                ("subcode", subcode.to_string()),
            ];
            page.add(
                "caracal_bgp_notifications",
                "NOTIFICATION messages by code and subcode; 0/0: of a code that no RFC knows",
                Kind::Counter,
                labels,
                *count,
            );
        }
    }
}

fn peer_series(page: &mut Page, peer: &str, sums: &Sums) {
    let labels = || vec![("peer", peer.to_owned())];
    let c = &sums.counters;
    page.add("caracal_bgp_peer_up", "Established sessions", Kind::Gauge, labels(), sums.established);
    let counters: [(&'static str, &'static str, u64); 7] = [
        ("caracal_bgp_peer_established", "Times that the session came up", c.established),
        ("caracal_bgp_peer_lost", "Times that the session ended", c.flaps),
        ("caracal_bgp_peer_updates_received", "UPDATE messages received", c.updates_received),
        ("caracal_bgp_peer_keepalives_received", "KEEPALIVE messages received", c.keepalives_received),
        ("caracal_bgp_peer_bytes_sent", "Octets sent", c.bytes_sent),
        ("caracal_bgp_peer_malformed_updates", "UPDATE messages with an error (RFC 7606)", c.malformed),
        (
            "caracal_bgp_peer_treated_as_withdraw",
            "Of these, those whose routes were treated as withdrawn",
            c.treated_as_withdraw,
        ),
    ];
    for (name, help, value) in counters {
        page.add(name, help, Kind::Counter, labels(), value);
    }
    for (family, counts) in &sums.routes {
        for (what, value) in [
            ("received", counts.received),
            ("accepted", counts.accepted),
            ("rejected", counts.rejected_all()),
            ("unreachable", counts.unreachable),
            ("best", counts.best),
            ("stale", counts.stale),
            ("advertised", counts.advertised),
        ] {
            let mut labels = labels();
            labels.extend([("family", family.clone()), ("what", what.to_owned())]);
            page.add("caracal_bgp_peer_paths", "Paths of a peer", Kind::Gauge, labels, value);
        }
    }
}

fn tables(page: &mut Page, speaker: &Speaker, census: &Census) {
    for totals in speaker.totals_of(census) {
        for (what, value) in [
            ("prefixes", totals.prefixes),
            ("paths", totals.paths),
            ("own", totals.own),
            ("rejected", totals.rejected),
            ("best", totals.best),
            ("programmed", totals.programmed),
        ] {
            let labels = vec![("family", totals.family.clone()), ("what", what.to_owned())];
            page.add("caracal_bgp_table", "What the tables hold", Kind::Gauge, labels, value);
        }
    }
    let (sets, groups) = speaker.sizes();
    page.gauge("caracal_bgp_attribute_sets", "Distinct sets of path attributes", sets as u64);
    page.gauge("caracal_bgp_update_groups", "Groups of peers that are sent the same", groups as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bird_speaker::{Config, PeerConfig, Start, Time};

    fn page(peers: u8, limits: Limits) -> Vec<Metric> {
        let peer = |n: u8| PeerConfig {
            name: format!("{}_{n}", if n.is_multiple_of(2) { "Mesh" } else { "Node" }),
            address: [10, 0, 0, n].into(),
            remote_as: 64512,
            ..PeerConfig::default()
        };
        let config = Config { peers: (1..=peers).map(peer).collect(), ..Config::default() };
        let speaker = Speaker::new(Time::from_secs(1), config, Start::default());
        let mut census = Census::default();
        while !speaker.census_step(&mut census, 32) {}
        let mut page = Page::default();
        sessions(&mut page, &speaker, &census, limits);
        tables(&mut page, &speaker, &census);
        page.metrics
    }

    #[test]
    fn the_number_of_series_is_bounded_and_the_mesh_is_summed_first() {
        let limits = Limits { peers: 3 };
        let count = |metrics: &[Metric]| metrics.iter().map(|m| m.series.len()).sum::<usize>();
        assert_eq!(count(&page(10, limits)), count(&page(200, limits)));
        assert!(count(&page(200, Limits { peers: 100 })) > count(&page(200, limits)));
        let metrics = page(10, limits);
        let up = metrics.iter().find(|m| m.name == "caracal_bgp_peer_up").unwrap();
        let peers: Vec<&str> = up.series.iter().map(|s| s.labels[0].1.as_str()).collect();
        assert_eq!(peers, ["Node_1", "Node_3", "Node_5", "_others"]);
        let few = page(3, limits);
        let up = few.iter().find(|m| m.name == "caracal_bgp_peer_up").unwrap();
        assert!(up.series.iter().all(|s| s.labels[0].1 != "_others"));
    }

    #[test]
    fn every_peer_is_in_one_state() {
        let metrics = page(20, Limits::default());
        let states = metrics.iter().find(|m| m.name == "caracal_bgp_sessions").unwrap();
        let sum: u64 = states
            .series
            .iter()
            .map(|s| match s.value {
                Value::Number(n) => n,
                Value::Times(_) => 0,
            })
            .sum();
        assert_eq!(sum, 20);
        assert_eq!(states.series.len(), 6);
    }
}
