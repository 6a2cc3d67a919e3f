//! What Prometheus reads: one registry a process.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::registry::Registry;

/// The process's registry. Cheap to clone; all clones share it.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers what `f` wants to register.
    pub fn register<R>(&self, f: impl FnOnce(&mut Registry) -> R) -> R {
        f(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The registry in OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match prometheus_client::encoding::text::encode(&mut text, &registry) {
            Ok(()) => text,
            Err(_) => "# encoding failed\n".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn a_counter_is_seen_by_the_reader() {
        let metrics = Metrics::new();
        let counter: Counter = Counter::default();
        metrics.register(|r| r.register("felix_resyncs_started", "Resyncs begun", counter.clone()));
        counter.inc();
        assert!(metrics.encode().contains("felix_resyncs_started_total 1"));
    }
}
