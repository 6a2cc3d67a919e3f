//! Several prefixes on one etcd watch stream, with a pulse.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{EventType, ResponseHeader, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Instant, timeout, timeout_at};

use super::dial::Dialer;
use super::{MAX_MESSAGE, explain, range_end, range_start, text};
use crate::config::Timing;
use crate::error::Error;
use crate::store::{Event, Watch, WatchBatch, WatchSource};

/// Opens the stream, creates one watch for each prefix and waits until all of them stand.
pub(super) async fn open(dialer: &Arc<Dialer>, prefixes: &[String], from_rev: i64) -> Result<Watch, Error> {
    let Some((first, rest)) = prefixes.split_first() else {
        return Err(Error::Config {
            field: "watch".to_owned(),
            reason: "no prefix given; name at least one".to_owned(),
        });
    };
    let conn = dialer.conn().await?;
    let limit = dialer.timing().call;
    let opening = async {
        let mut client = conn.client.watch_client().max_decoding_message_size(MAX_MESSAGE);
        let mut stream = client.watch(range_start(first), Some(options(first, 1, from_rev))).await?;
        for (id, prefix) in (2..).zip(rest) {
            stream.watch(range_start(prefix), Some(options(prefix, id, from_rev))).await?;
        }
        Ok(stream)
    };
    let stream = match timeout(limit, opening).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(err)) => {
            let err = explain::explain(&conn.endpoint, first, &err);
            if matches!(err, Error::Unavailable { .. }) {
                dialer.leave(conn.serial);
            }
            return Err(err);
        }
        Err(_) => {
            dialer.leave(conn.serial);
            return Err(no_answer(&conn.endpoint, limit));
        }
    };
    let mut source = EtcdWatch {
        stream,
        dialer: dialer.clone(),
        serial: conn.serial,
        endpoint: conn.endpoint.clone(),
        timing: *dialer.timing(),
        prefixes: prefixes.to_vec(),
        heard: Instant::now(),
        asked: None,
        floors: vec![from_rev; prefixes.len()],
        early: WatchBatch::default(),
        created: 0,
        rev: 0,
        cluster: 0,
    };
    let deadline = Instant::now() + limit;
    while source.created < prefixes.len() {
        let Ok(result) = timeout_at(deadline, source.stream.message()).await else {
            dialer.leave(conn.serial);
            return Err(no_answer(&conn.endpoint, limit));
        };
        let mut batch = source.take(result)?;
        source.early.events.append(&mut batch.events);
        source.early.complete.append(&mut batch.complete);
    }
    Ok(Watch::new(source.rev, source.cluster, Box::new(source)))
}

fn options(prefix: &str, id: i64, from_rev: i64) -> WatchOptions {
    WatchOptions::new()
        .with_range(range_end(prefix))
        .with_watch_id(id)
        .with_start_revision(from_rev)
        .with_prev_key()
        .with_progress_notify()
        // Bounds a message to about etcd's request limit, however much there is to catch up.
        .with_fragment()
}

fn no_answer(endpoint: &str, limit: Duration) -> Error {
    Error::Unavailable {
        endpoint: endpoint.to_owned(),
        reason: format!("watch: no answer within {} s", limit.as_secs_f32()),
    }
}

struct EtcdWatch {
    stream: WatchStream,
    dialer: Arc<Dialer>,
    serial: u64,
    endpoint: String,
    timing: Timing,
    prefixes: Vec<String>,
    /// When the server last said anything.
    heard: Instant,
    /// When we asked for a sign of life that has not come yet.
    asked: Option<Instant>,
    /// For each prefix the latest revision seen: anything below it is a replay.
    floors: Vec<i64>,
    /// What came while the watches were being created.
    early: WatchBatch,
    created: usize,
    rev: i64,
    cluster: u64,
}

#[async_trait]
impl WatchSource for EtcdWatch {
    async fn next(&mut self) -> Result<WatchBatch, Error> {
        if !self.early.events.is_empty() || !self.early.complete.is_empty() {
            return Ok(std::mem::take(&mut self.early));
        }
        loop {
            let deadline = match self.asked {
                None => self.heard + self.timing.probe_after,
                Some(at) => at + self.timing.probe_timeout,
            };
            let Ok(result) = timeout_at(deadline, self.stream.message()).await else {
                if self.asked.is_some() {
                    self.dialer.leave(self.serial);
                    let silence = self.heard.elapsed().as_secs_f32();
                    return Err(self.gone(format!("watch silent for {silence:.1} s")));
                }
                // Set before sending: whatever happens to the question, the answer has its limit.
                self.asked = Some(Instant::now());
                let limit = self.timing.probe_timeout;
                if let Ok(Err(err)) = timeout(limit, self.stream.request_progress()).await {
                    self.dialer.leave(self.serial);
                    return Err(self.gone(err.to_string()));
                }
                continue;
            };
            let batch = self.take(result)?;
            if !batch.events.is_empty() || !batch.complete.is_empty() {
                return Ok(batch);
            }
        }
    }
}

impl EtcdWatch {
    fn take(
        &mut self,
        result: Result<Option<WatchResponse>, etcd_client::Error>,
    ) -> Result<WatchBatch, Error> {
        let response = match result {
            Ok(Some(response)) => response,
            Ok(None) => {
                self.dialer.leave(self.serial);
                return Err(self.gone("watch stream closed".to_owned()));
            }
            Err(err) => {
                let err = explain::explain(&self.endpoint, "watch", &err);
                // Whatever it was, the next attempt gets a fresh connection and a fresh login.
                self.dialer.leave(self.serial);
                return Err(err);
            }
        };
        self.heard = Instant::now();
        self.asked = None;
        let id = response.watch_id();
        // A compacted watch is cancelled in a message and then the stream just stays open.
        if response.canceled() {
            return Err(self.cancelled(&response));
        }
        let rev = response.header().map_or(0, ResponseHeader::revision);
        if response.created() {
            self.created += 1;
            self.rev = self.rev.max(rev);
            self.cluster = response.header().map_or(0, ResponseHeader::cluster_id);
            return Ok(WatchBatch::default());
        }
        let mut batch = WatchBatch::default();
        // Answers to our own question carry no watch id. etcd before 3.4.25 may send them ahead of
        // events they cover, so they are a sign of life and nothing else.
        let Some(prefix) = usize::try_from(id - 1).ok().filter(|at| *at < self.floors.len()) else {
            return Ok(batch);
        };
        if response.events().is_empty() {
            batch.complete.push((prefix, rev));
            return Ok(batch);
        }
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            let rev = kv.mod_revision();
            if rev < self.floors[prefix] {
                continue;
            }
            self.floors[prefix] = rev;
            let put = event.event_type() == EventType::Put;
            batch.events.push(Event {
                prefix,
                key: text(kv.key().to_vec()),
                value: put.then(|| kv.value().to_vec()),
                rev,
                create_rev: if put { kv.create_revision() } else { 0 },
                prev: event.prev_kv().map(|kv| kv.value().to_vec()),
            });
        }
        Ok(batch)
    }

    fn cancelled(&self, response: &WatchResponse) -> Error {
        let reason = response.cancel_reason();
        if response.compact_revision() > 0 || reason.contains("compacted") {
            return Error::Compacted { rev: response.compact_revision() };
        }
        // No permission, no leader, shutting down, …: elsewhere or after a new login it may work.
        self.dialer.leave(self.serial);
        if reason.contains("permission denied") || reason.contains("auth") {
            let at = usize::try_from(response.watch_id() - 1).ok();
            let prefix = at
                .and_then(|at| self.prefixes.get(at))
                .map_or_else(|| self.prefixes.join(" or "), Clone::clone);
            return Error::Unauthorized {
                endpoint: self.endpoint.clone(),
                reason: format!("{reason} (watch {prefix})"),
            };
        }
        self.gone(format!("watch cancelled: {reason}"))
    }

    fn gone(&self, reason: String) -> Error {
        Error::Unavailable { endpoint: self.endpoint.clone(), reason }
    }
}
