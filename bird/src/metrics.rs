//! What Prometheus reads of the speaker. `docs/bgp-metrics.md` is the table of it.
//!
//! Nothing is counted over routes while nobody asks: a scrape asks the loop, the loop counts in slices between its other work
//! and answers, and a loop that does not answer in time leaves the scrape with the figures of the last one. The number of
//! series does not depend on the number of peers beyond [`Limits`].

use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use caracal_process::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::plan::{Mailbox, Message};

/// How long a scrape waits for the loop.
const WAIT: Duration = Duration::from_secs(3);
/// Peers with series of their own, unless configured.
const PEERS: usize = 100;

/// How much is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// So many peers have series of their own, the others are one.
    pub(crate) peers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { peers: PEERS }
    }
}

impl Limits {
    /// `CARACAL_BGP_METRICS_PEERS`.
    pub(crate) fn from_env() -> Self {
        let set = std::env::var("CARACAL_BGP_METRICS_PEERS").ok();
        match set.as_deref().map(str::trim).filter(|v| !v.is_empty()).map(str::parse) {
            Some(Ok(peers)) => Self { peers },
            Some(Err(_)) => {
                tracing::warn!(
                    fix = "write a number of peers",
                    "CARACAL_BGP_METRICS_PEERS is no number; {PEERS} counts"
                );
                Self::default()
            }
            None => Self::default(),
        }
    }
}

/// One metric with all its series.
#[derive(Debug, Clone)]
pub(crate) struct Metric {
    /// Its name; counters without `_total`.
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    pub(crate) series: Vec<Series>,
}

/// Labels and value.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) value: Value,
}

/// Which kind a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Number(u64),
    Times(Times),
}

/// Upper bounds of the buckets of [`Times`], seconds.
const BOUNDS: [f64; 10] = [1e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1, 5e-1, f64::INFINITY];

/// How long something took, many times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times {
    sum: Duration,
    buckets: [u64; BOUNDS.len()],
}

impl Times {
    pub(crate) fn note(&mut self, took: Duration) {
        self.sum += took;
        let seconds = took.as_secs_f64();
        let at = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len() - 1);
        self.buckets[at] += 1;
    }

    fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Types of BGP messages, by their number less one.
pub(crate) const TYPES: [&str; 5] = ["open", "update", "notification", "keepalive", "route-refresh"];

/// Messages sent, by type.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sent {
    pub(crate) messages: [u64; TYPES.len()],
}

impl Sent {
    /// Counts what is handed out to be written: chunks of whole messages.
    pub(crate) fn note(&mut self, chunks: &[Bytes]) {
        for chunk in chunks {
            let mut rest: &[u8] = chunk;
            while let Some(&[high, low, kind]) = rest.get(16..19) {
                if let Some(count) = self.messages.get_mut(usize::from(kind).wrapping_sub(1)) {
                    *count += 1;
                }
                let length = usize::from(u16::from_be_bytes([high, low])).max(19);
                rest = rest.get(length..).unwrap_or_default();
            }
        }
    }
}

/// Lets the process's registry ask the loop.
pub(crate) fn register(metrics: &Metrics, mailbox: Mailbox) {
    let source = Source { mailbox, last: Mutex::new(Vec::new()) };
    metrics.register(|registry| registry.register_collector(Box::new(source)));
}

#[derive(Debug)]
struct Source {
    mailbox: Mailbox,
    last: Mutex<Vec<Metric>>,
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (reply, answer) = mpsc::sync_channel(1);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.mailbox.send(Message::Measure(reply))
            && let Ok(fresh) = answer.recv_timeout(WAIT)
        {
            *last = fresh;
        }
        last.iter().try_for_each(|metric| metric.encode(&mut encoder))
    }
}

impl Metric {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let kind = match self.kind {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
            Kind::Histogram => MetricType::Histogram,
        };
        let mut all = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for Series { labels, value } in &self.series {
            if labels.is_empty() {
                value.encode(self.kind, &mut all)?;
            } else {
                value.encode(self.kind, &mut all.encode_family(&labels.as_slice())?)?;
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(&self, kind: Kind, one: &mut MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        match (self, kind) {
            (Value::Number(n), Kind::Counter) => one.encode_counter::<NoLabelSet, u64, u64>(n, None),
            (Value::Number(n), _) => one.encode_gauge(&i64::try_from(*n).unwrap_or(i64::MAX)),
            (Value::Times(times), _) => {
                let buckets: Vec<(f64, u64)> = BOUNDS.into_iter().zip(times.buckets).collect();
                one.encode_histogram::<NoLabelSet>(times.sum.as_secs_f64(), times.count(), &buckets, None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: usize) -> Vec<u8> {
        let mut bytes = vec![0xff; 16];
        bytes.extend(u16::try_from(19 + body).unwrap().to_be_bytes());
        bytes.push(kind);
        bytes.resize(19 + body, 0);
        bytes
    }

    #[test]
    fn messages_are_counted_by_type_and_rubbish_ends_it() {
        let mut sent = Sent::default();
        let updates = [message(2, 4), message(2, 400), message(4, 0)].concat();
        sent.note(&[updates.into(), message(1, 10).into(), message(3, 2).into(), Bytes::new()]);
        sent.note(&[vec![0; 18].into(), vec![0; 19].into(), vec![0xff; 25].into()]);
        assert_eq!(sent.messages, [1, 2, 1, 1, 0]);
    }

    #[test]
    fn times_fall_into_their_buckets() {
        let mut times = Times::default();
        for micros in [1, 10, 11, 900, 2_000_000] {
            times.note(Duration::from_micros(micros));
        }
        assert_eq!(times.buckets, [2, 1, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(times.count(), 5);
    }
}
