//! etcd v3 as a [`Store`].

mod dial;
mod explain;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, ResponseHeader, Txn, TxnOp,
    TxnOpResponse,
};
use tokio::time::timeout;

use crate::config::EtcdConfig;
use crate::error::Error;
use crate::store::{Digest, Expect, KeyValue, Listing, Store, Watch};
use dial::Dialer;

/// Largest message we accept: etcd sends as much as a request asks for, tonic's default is 4 MiB.
const MAX_MESSAGE: usize = 64 << 20;
/// Keys in the first page of a list; the next pages are sized to about [`PAGE_BYTES`].
const FIRST_PAGE: i64 = 500;
const PAGE_BYTES: usize = 4 << 20;
const LARGEST_PAGE: i64 = 10_000;
/// How often a list starts over because its revision was compacted under it.
const LIST_TRIES: u32 = 3;

/// An etcd v3 cluster.
///
/// One connection at a time, to the first member that answers a linearizable read; a call that
/// finds it broken leaves it, and the next call looks for a member again.
pub struct Etcd {
    dialer: Arc<Dialer>,
}

impl Etcd {
    /// Prepares a client without connecting.
    ///
    /// # Errors
    /// [`Error::Config`] for unusable endpoints or certificates.
    pub fn new(config: EtcdConfig) -> Result<Etcd, Error> {
        Ok(Etcd { dialer: Arc::new(Dialer::new(config)?) })
    }

    /// Connects, within seconds or not at all.
    ///
    /// # Errors
    /// As [`crate::connect`].
    pub async fn connect(config: EtcdConfig) -> Result<Etcd, Error> {
        let etcd = Etcd::new(config)?;
        etcd.dialer.conn().await?;
        Ok(etcd)
    }

    /// Runs one call with its time limit. `repeatable` calls get a second chance on another
    /// connection; others only when it is certain that nothing was sent.
    async fn call<T, F, Fut>(&self, key: &str, repeatable: bool, op: F) -> Result<T, Error>
    where
        F: Fn(Client) -> Fut + Send,
        Fut: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let limit = self.dialer.timing().call;
        let mut first = true;
        loop {
            let conn = self.dialer.conn().await?;
            let err = match timeout(limit, op(conn.client.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(err)) => {
                    let unsent = explain::is_connect_failure(&err);
                    let err = explain::explain(&conn.endpoint, key, &err);
                    if matches!(err, Error::Unavailable { .. }) {
                        self.dialer.leave(conn.serial);
                        if first && (repeatable || unsent) {
                            first = false;
                            continue;
                        }
                    }
                    err
                }
                Err(_) => {
                    self.dialer.leave(conn.serial);
                    Error::Unavailable {
                        endpoint: conn.endpoint.clone(),
                        reason: format!("no answer within {} s", limit.as_secs_f32()),
                    }
                }
            };
            return Err(err);
        }
    }

    async fn grant(&self, key: &str, ttl: Duration) -> Result<i64, Error> {
        let millis = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX / 2);
        let seconds = millis.saturating_add(999).max(1000) / 1000;
        self.call(
            key,
            true,
            |client| async move { Ok(client.lease_client().grant(seconds, None).await?.id()) },
        )
        .await
    }

    /// One pinned, paged walk over a prefix.
    async fn list_once(&self, prefix: &str) -> Result<Listing, Error> {
        let end = range_end(prefix);
        let mut from = range_start(prefix);
        let mut listing = Listing { items: Vec::new(), rev: 0, cluster: 0 };
        let mut page = FIRST_PAGE;
        loop {
            let (start, rev) = (from.clone(), listing.rev);
            let answer = self
                .call(prefix, true, |client| {
                    let options =
                        GetOptions::new().with_range(end.clone()).with_limit(page).with_revision(rev);
                    let start = start.clone();
                    async move {
                        let mut kv = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
                        kv.get(start, Some(options)).await
                    }
                })
                .await;
            let mut answer = match answer {
                Ok(answer) => answer,
                // A page of huge values: ask for fewer.
                Err(Error::TooLarge { .. }) if page > 1 => {
                    page = (page / 8).max(1);
                    continue;
                }
                Err(err) => return Err(err),
            };
            if listing.rev == 0 {
                let header = answer.header();
                listing.rev = header.map_or(0, ResponseHeader::revision);
                listing.cluster = header.map_or(0, ResponseHeader::cluster_id);
            }
            let more = answer.more();
            let kvs = answer.take_kvs();
            if let Some(last) = kvs.last() {
                from = last.key().to_vec();
                from.push(0);
            }
            let bytes: usize = kvs.iter().map(|kv| kv.key().len() + kv.value().len()).sum();
            if let Some(average) = bytes.checked_div(kvs.len()) {
                let fit = PAGE_BYTES / average.max(1);
                page = i64::try_from(fit).unwrap_or(LARGEST_PAGE).clamp(1, LARGEST_PAGE);
            }
            let done = !more || kvs.is_empty();
            listing.items.extend(kvs.into_iter().map(key_value));
            if done {
                return Ok(listing);
            }
        }
    }
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        let mut answer = self
            .call(key, true, |client| async move {
                let mut kv = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
                kv.get(key, None).await
            })
            .await?;
        Ok(answer.take_kvs().into_iter().next().map(key_value))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let mut tries = 1;
        loop {
            match self.list_once(prefix).await {
                Err(Error::Compacted { .. }) if tries < LIST_TRIES => tries += 1,
                other => return other,
            }
        }
    }

    /// One round trip: etcd counts the whole range and sends only the keys written after `since`.
    async fn digest(&self, prefix: &str, since: i64) -> Result<Digest, Error> {
        let options = GetOptions::new()
            .with_range(range_end(prefix))
            .with_min_mod_revision(since.saturating_add(1))
            .with_keys_only();
        let start = range_start(prefix);
        let mut answer = self
            .call(prefix, true, |client| {
                let (start, options) = (start.clone(), options.clone());
                async move {
                    let mut kv = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
                    kv.get(start, Some(options)).await
                }
            })
            .await?;
        let (rev, cluster) =
            answer.header().map_or((0, 0), |header| (header.revision(), header.cluster_id()));
        Ok(Digest {
            count: usize::try_from(answer.count()).unwrap_or(0),
            changed: answer.take_kvs().into_iter().map(key_value).map(|kv| (kv.key, kv.rev)).collect(),
            rev,
            cluster,
        })
    }

    async fn put(
        &self,
        key: &str,
        value: Vec<u8>,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<i64, Error> {
        let lease = match ttl {
            Some(ttl) => Some(self.grant(key, ttl).await?),
            None => None,
        };
        let options = lease.map(|lease| PutOptions::new().with_lease(lease));
        let compare = match expect {
            Expect::Any => Vec::new(),
            Expect::Absent => vec![Compare::version(key, CompareOp::Equal, 0)],
            Expect::Rev(rev) => vec![Compare::mod_revision(key, CompareOp::Equal, rev)],
        };
        let txn = Txn::new()
            .when(compare)
            .and_then(vec![TxnOp::put(key, value, options)])
            .or_else(vec![TxnOp::get(key, None)]);
        let answer = self
            .call(key, expect == Expect::Any, |client| {
                let txn = txn.clone();
                async move {
                    let mut kv = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
                    kv.txn(txn).await
                }
            })
            .await;
        let result = match answer {
            Ok(answer) if answer.succeeded() => {
                return Ok(answer.header().map_or(0, ResponseHeader::revision));
            }
            Ok(answer) => Err(lost_race(key, expect, found(answer.op_responses()))),
            Err(err) => Err(err),
        };
        // A write that did not happen leaves no lease behind; if this fails too it simply expires.
        if let Some(lease) = lease {
            let _ = self
                .call(key, false, |client| async move { client.lease_client().revoke(lease).await })
                .await;
        }
        result
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<KeyValue, Error> {
        let compare = match expect {
            Expect::Any => Vec::new(),
            Expect::Absent => vec![Compare::version(key, CompareOp::Equal, 0)],
            Expect::Rev(rev) => vec![Compare::mod_revision(key, CompareOp::Equal, rev)],
        };
        let txn = Txn::new()
            .when(compare)
            .and_then(vec![TxnOp::delete(key, Some(DeleteOptions::new().with_prev_key()))])
            .or_else(vec![TxnOp::get(key, None)]);
        let answer = self
            .call(key, false, |client| {
                let txn = txn.clone();
                async move {
                    let mut kv = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
                    kv.txn(txn).await
                }
            })
            .await?;
        let found = found(answer.op_responses());
        if answer.succeeded() {
            found.ok_or_else(|| Error::NotFound { key: key.to_owned() })
        } else {
            Err(match found {
                Some(current) => Error::Conflict { key: key.to_owned(), current: Some(current) },
                None => Error::NotFound { key: key.to_owned() },
            })
        }
    }

    async fn watch(&self, prefixes: &[String], from_rev: i64) -> Result<Watch, Error> {
        watch::open(&self.dialer, prefixes, from_rev).await
    }

    fn describe(&self) -> String {
        format!("etcd {}", self.dialer.endpoints().join(","))
    }
}

fn lost_race(key: &str, expect: Expect, current: Option<KeyValue>) -> Error {
    match (expect, current) {
        (Expect::Rev(_), None) => Error::NotFound { key: key.to_owned() },
        (_, current) => Error::Conflict { key: key.to_owned(), current },
    }
}

/// The key in a transaction's answer: what a delete removed, or what the else branch read.
fn found(answers: Vec<TxnOpResponse>) -> Option<KeyValue> {
    match answers.into_iter().next()? {
        TxnOpResponse::Get(mut answer) => answer.take_kvs().into_iter().next().map(key_value),
        TxnOpResponse::Delete(mut answer) => answer.take_prev_kvs().into_iter().next().map(key_value),
        TxnOpResponse::Put(_) | TxnOpResponse::Txn(_) => None,
    }
}

fn key_value(kv: etcd_client::KeyValue) -> KeyValue {
    let (rev, create_rev) = (kv.mod_revision(), kv.create_revision());
    let (key, value) = kv.into_key_value();
    KeyValue { key: text(key), value, rev, create_rev }
}

/// A key that is not UTF-8 is none of ours: it keeps a readable shape that parses as no known key.
fn text(key: Vec<u8>) -> String {
    String::from_utf8(key).unwrap_or_else(|err| String::from_utf8_lossy(err.as_bytes()).into_owned())
}

fn range_start(prefix: &str) -> Vec<u8> {
    if prefix.is_empty() { vec![0] } else { prefix.as_bytes().to_vec() }
}

/// The first key after everything that starts with `prefix`; a single zero byte means no end.
fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    vec![0]
}
