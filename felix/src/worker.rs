//! The one loop: what the datastore says, what the kernel says, what time it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use caracal_datastore::{Store, SyncEvent, SyncStatus, Syncer};
use caracal_process::{Reporter, Shutdown};
use caracal_reconcile::Moment;
use felix_calc::config::Remark;
use felix_calc::guard::Verdict;
use felix_calc::{Calc, Changes, Desired, Guard, Notice, WepId};
use felix_dataplane::Dataplane;

use crate::metrics::Meter;
use crate::report::StatusWriter;
use crate::watchdog::{LONGEST_SLEEP, Watchdog};

/// Trouble that lasts so long makes felix not ready.
const PATIENCE: Duration = Duration::from_secs(4);
/// A pass that takes longer is worth a line.
const SLOW_PASS: Duration = Duration::from_millis(50);
/// What a listing found missing is told within so long of it.
const RESYNC_WINDOW: Duration = Duration::from_millis(500);

/// Everything that felix owns.
pub(crate) struct Worker {
    origin: Instant,
    calc: Calc,
    plane: Dataplane,
    syncer: Syncer,
    status: StatusWriter,
    reporter: Reporter,
    watchdog: Watchdog,
    meter: Meter,
    guard: Guard,
    /// Endpoints that a resync found missing and that are kept for now.
    held: BTreeSet<WepId>,
    in_sync: bool,
    applied_once: bool,
    listings: u64,
    resync_until: Moment,
    updates: u64,
    connected: bool,
    trouble_since: Option<Moment>,
}

impl Worker {
    /// Reads the kernel and begins to read the datastore. Writes nothing.
    pub(crate) fn start(config: crate::Config, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let calc = Calc::new(&config.node, config.environment);
        let plane = Dataplane::open(calc.config().clone(), Moment::ZERO)
            .context("felix cannot open the kernel's netlink; it needs CAP_NET_ADMIN (run as root)")?;
        let reporter = config.health.reporter("felix");
        reporter.not_ready("datastore: not read yet");
        Ok(Self {
            origin: Instant::now(),
            calc,
            plane,
            syncer: Syncer::start(store.clone(), Calc::prefixes()),
            status: StatusWriter::start(&config.node, store),
            watchdog: Watchdog::start(reporter.clone()).context("felix cannot start its watchdog")?,
            reporter,
            meter: Meter::new(&config.metrics),
            guard: Guard::new(),
            held: BTreeSet::new(),
            in_sync: false,
            applied_once: false,
            listings: 0,
            resync_until: Moment::ZERO,
            updates: 0,
            connected: false,
            trouble_since: None,
        })
    }

    /// The loop. Ends when asked to, or when the kernel cannot be heard any more.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        loop {
            let sleep = self.sleep();
            tokio::select! {
                biased;
                () = shutdown.wait() => return Ok(()),
                batch = self.syncer.next() => self.on_sync(batch),
                heard = self.plane.changed() => heard.context("felix cannot hear the kernel")?,
                () = tokio::time::sleep(sleep) => {}
            }
            self.pass();
            // Status writes and the datastore's own tasks share this thread.
            tokio::task::yield_now().await;
        }
    }

    fn sleep(&self) -> Duration {
        if !self.in_sync {
            return LONGEST_SLEEP;
        }
        let now = self.origin.elapsed();
        let trouble = self.trouble_since.map(|since| since + PATIENCE);
        let due = [self.plane.next_due(now), self.guard.held_until(), trouble.filter(|due| *due > now)];
        let due = due.into_iter().flatten().min().unwrap_or(Moment::MAX);
        due.saturating_sub(now).min(LONGEST_SLEEP)
    }

    fn on_sync(&mut self, batch: Vec<SyncEvent>) {
        let listings = self.syncer.listings();
        if std::mem::replace(&mut self.listings, listings) != listings && self.applied_once {
            self.resync_until = self.origin.elapsed() + RESYNC_WINDOW;
        }
        for event in batch {
            match event {
                SyncEvent::Update { key, value, .. } => {
                    self.updates += 1;
                    self.calc.on_update(&key, value.as_deref());
                }
                SyncEvent::InSync => self.on_in_sync(),
                SyncEvent::Status(status) => self.on_status(status),
            }
        }
    }

    fn on_status(&mut self, status: SyncStatus) {
        match status {
            SyncStatus::Connected => {
                self.status.read_again();
                if !std::mem::replace(&mut self.connected, true) {
                    tracing::info!("datastore connected");
                }
            }
            SyncStatus::Lost { endpoint, reason } => {
                self.connected = false;
                tracing::warn!(endpoint, err = reason, "datastore lost; the dataplane stays as it is");
                if !self.in_sync {
                    self.reporter.not_ready(format!("datastore: {endpoint}: {reason}"));
                }
            }
        }
    }

    /// The datastore was read completely: from now on the kernel is written.
    fn on_in_sync(&mut self) {
        self.in_sync = true;
        self.calc.adopt(self.plane.holders());
        let endpoints = self.heed();
        for (id, desired) in endpoints {
            self.plane.set(id, desired);
        }
        let census = self.plane.census();
        let hold = self.calc.config().endpoint_loss_hold;
        let verdict = self.guard.on_resync(self.origin.elapsed(), census.present, census.unwanted, hold);
        if let Verdict::Hold(_) = verdict {
            self.plane.hold(true);
            alarm(census.unwanted, census.present, hold);
        }
        tracing::info!(endpoints = self.plane.endpoints(), "in sync with the datastore");
    }

    /// What the calculation has to tell: the log and the configuration get theirs, the endpoints are returned.
    fn heed(&mut self) -> Vec<(WepId, Option<Desired>)> {
        let Changes { config, endpoints, notices } = self.calc.poll();
        notices.into_iter().for_each(log);
        if let Some(config) = config {
            self.status.configure(&config);
            self.plane.configure(config);
        }
        endpoints
    }

    /// One pass: whatever woke us, the kernel becomes what it should be.
    fn pass(&mut self) {
        self.watchdog.beat();
        if !self.in_sync {
            return;
        }
        let now = self.origin.elapsed();
        self.take_changes(now);
        if !self.calc.is_ready() && !self.applied_once {
            self.reporter
                .not_ready("datastore is locked (ClusterInformation default: datastoreReady is false)");
            return;
        }
        let before = self.plane.counters().writes;
        let applied = self.plane.apply(now);
        let took = self.origin.elapsed().saturating_sub(now);
        if self.plane.counters().writes != before {
            self.meter.pass(took);
        }
        if took > SLOW_PASS {
            let writes = self.plane.counters().writes - before;
            tracing::debug!(milliseconds = took.as_millis(), writes, "a pass over the dataplane took long");
        }
        for (id, status) in &applied.statuses {
            tracing::debug!(wep = %id, new = status.as_ref().map_or("gone", |s| s.state.as_str()), "endpoint status");
            self.status.set(id, status.as_ref());
        }
        self.judge(now, applied.error);
        self.meter.set(&self.plane, self.updates, self.held.len(), self.in_sync);
    }

    /// Endpoints that came, changed or went; those that a resync found missing may have to wait.
    fn take_changes(&mut self, now: Moment) {
        let changed = self.heed();
        let (gone, changed): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|(_, desired)| desired.is_none());
        for (id, desired) in changed {
            self.held.remove(&id);
            self.plane.set(id, desired);
        }
        let gone: Vec<WepId> = gone.into_iter().map(|(id, _)| id).collect();
        if !gone.is_empty() && self.applied_once && now < self.resync_until {
            let hold = self.calc.config().endpoint_loss_hold;
            self.held.extend(gone);
            // What an earlier life left and nobody wants is missing, too, while it is held.
            let leftovers = if self.guard.held_until().is_some() { self.plane.census().unwanted } else { 0 };
            let (missing, before) = (self.held.len() + leftovers, self.plane.endpoints() + leftovers);
            match self.guard.on_resync(now, before, missing, hold) {
                Verdict::Hold(_) => alarm(missing, before, hold),
                Verdict::Obey => self.release(),
            }
        } else {
            for id in gone {
                self.plane.set(id, None);
            }
        }
        if !self.guard.poll(now) && self.guard.take_obeyed() {
            tracing::warn!(
                endpoints = self.held.len(),
                "the hold is over; endpoints that stayed away are removed"
            );
            self.release();
        }
    }

    fn release(&mut self) {
        self.plane.hold(false);
        for id in std::mem::take(&mut self.held) {
            self.plane.set(id, None);
        }
    }

    /// Says whether felix is ready, and why not.
    fn judge(&mut self, now: Moment, error: Option<String>) {
        let Some(err) = error else {
            if self.trouble_since.take().is_some() {
                tracing::info!("the kernel can be read again");
            }
            if !std::mem::replace(&mut self.applied_once, true) {
                self.status.complete();
                tracing::info!(
                    endpoints = self.plane.endpoints(),
                    routes = self.plane.routes(),
                    "dataplane is as it should be"
                );
            }
            self.reporter.ready();
            return;
        };
        if self.trouble_since.is_none() {
            tracing::warn!(err, "the kernel cannot be read completely; trying again");
        }
        let since = *self.trouble_since.get_or_insert(now);
        if !self.applied_once || now.saturating_sub(since) >= PATIENCE {
            self.reporter.not_ready(format!("kernel: {err}"));
        }
    }
}

fn alarm(missing: usize, present: usize, hold: Duration) {
    tracing::error!(
        missing,
        present,
        hold_seconds = hold.as_secs(),
        "most endpoints of this node vanished from the datastore at once; their links and routes are kept for now, \
         then removed; restore the objects, or set endpointLossHold to 0 to remove them at once"
    );
}

fn log(notice: Notice) {
    match notice {
        Notice::Problem { key, reason } => {
            tracing::warn!(key, err = reason, "stored object cannot be obeyed; others are not affected");
        }
        Notice::Solved { key } => tracing::info!(key, "stored object is in order again"),
        Notice::Config(Remark::Invalid { source, name, reason }) => {
            tracing::warn!(parameter = name, source = %source, err = reason, "configuration value cannot be used");
        }
        Notice::Config(Remark::Ignored { source, name }) => {
            tracing::debug!(parameter = name, source = %source, "configuration parameter is not used here");
        }
        Notice::Locked => {
            tracing::warn!("datastore is locked (datastoreReady is false); the dataplane stays as it is");
        }
        Notice::Unlocked => tracing::info!("datastore is open again"),
    }
}
