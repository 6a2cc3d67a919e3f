//! What Prometheus reads, under the names that Calico's dashboards ask for.
//!
//! Calico's counters carry no `_total`; OpenMetrics would add it. Those that its dashboards name are therefore
//! exposed as gauges that only grow.

use std::time::Duration;

use caracal_process::Metrics;
use felix_dataplane::{Counters, Dataplane};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// Handles into the process's registry.
#[derive(Debug)]
pub(crate) struct Meter {
    apply_time: Histogram,
    local_endpoints: Gauge,
    routes: Gauge,
    failures: Gauge,
    resyncs: Gauge,
    updates: Gauge,
    writes: Gauge,
    links_made: Gauge,
    links_removed: Gauge,
    overruns: Gauge,
    held: Gauge,
    in_sync: Gauge,
}

impl Meter {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            metrics.register(|registry| registry.register(name, help, gauge.clone()));
            gauge
        };
        let apply_time = Histogram::new(exponential_buckets(1e-4, 4.0, 8));
        let help = "Time of one pass over the dataplane that had something to write";
        metrics.register(|registry| {
            registry.register("felix_int_dataplane_apply_time_seconds", help, apply_time.clone());
        });
        Self {
            apply_time,
            local_endpoints: gauge("felix_active_local_endpoints", "Endpoints of this node"),
            routes: gauge("felix_route_table_num_routes", "Workload routes in the kernel"),
            failures: gauge("felix_int_dataplane_failures", "Kernel writes that failed so far"),
            resyncs: gauge("felix_resyncs_started", "Complete read-backs of the kernel so far"),
            updates: gauge("felix_calc_graph_updates_processed", "Datastore updates heeded so far"),
            writes: gauge("caracal_felix_kernel_writes", "Kernel writes so far"),
            links_made: gauge("caracal_felix_links_made", "Workload links made so far"),
            links_removed: gauge("caracal_felix_links_removed", "Workload links removed so far"),
            overruns: gauge(
                "caracal_felix_notification_overruns",
                "Times that the kernel lost notifications",
            ),
            held: gauge(
                "caracal_felix_endpoints_held",
                "Endpoints that vanished in a resync and are kept for now",
            ),
            in_sync: gauge("felix_resync_state", "2 when the datastore was read completely, else 1"),
        }
    }

    /// One pass, when it wrote something.
    pub(crate) fn pass(&self, took: Duration) {
        self.apply_time.observe(took.as_secs_f64());
    }

    pub(crate) fn set(&self, plane: &Dataplane, updates: u64, held: usize, in_sync: bool) {
        let Counters { writes, failures, resyncs, overruns, links_made, links_removed } = plane.counters();
        let put = |gauge: &Gauge, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        put(&self.local_endpoints, plane.endpoints());
        put(&self.routes, plane.routes());
        put(&self.writes, writes);
        put(&self.failures, failures);
        put(&self.resyncs, resyncs);
        put(&self.overruns, overruns);
        put(&self.links_made, links_made);
        put(&self.links_removed, links_removed);
        put(&self.held, held);
        self.updates.set(i64::try_from(updates).unwrap_or(i64::MAX));
        self.in_sync.set(if in_sync { 2 } else { 1 });
    }
}
