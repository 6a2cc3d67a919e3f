//! Watching the file: asleep until a writer touches the notification file.

use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use rusqlite::Connection;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::{Embedded, Files, db, lock};
use crate::error::Error;
use crate::store::{Watch, WatchBatch, WatchSource};

/// How often to look without having been woken: a writer that died between its commit and its wake
/// is noticed, and so is a file put in place of ours.
const LOOK_ANYWAY: Duration = Duration::from_millis(250);

pub(super) async fn open(store: Embedded, prefixes: Vec<String>, from_rev: i64) -> Result<Watch, Error> {
    if prefixes.is_empty() {
        return Err(Error::Config {
            field: "watch".to_owned(),
            reason: "no prefix given; name at least one".to_owned(),
        });
    }
    let (files, conn, inotify) = store
        .run(|inner| {
            let files = inner.files()?;
            let conn = db::open(&inner.path).map_err(|err| inner.explain(err))?;
            let inotify = inotify(&db::beside(&inner.path, "-notify")).map_err(|err| Error::Unavailable {
                endpoint: inner.name(),
                reason: format!("cannot watch with inotify: {err}"),
            })?;
            Ok((files, conn, inotify))
        })
        .await?;
    #[expect(
        deprecated,
        reason = "the successor is an unsafe fn asking that the descriptor stay open and the same; \
                  `Wake` owns its inotify and never gives it away"
    )]
    let wake = AsyncFd::with_interest(inotify, Interest::READABLE);
    let wake = wake.map_err(|err| Error::Unavailable {
        endpoint: store.inner.name(),
        reason: format!("cannot wait for inotify: {err}"),
    })?;
    let mut source = EmbeddedWatch {
        store,
        files,
        conn: Arc::new(Mutex::new(conn)),
        wake,
        prefixes: prefixes.into(),
        rev: from_rev.saturating_sub(1),
        early: WatchBatch::default(),
    };
    let now = lock(&source.conn).query_row("SELECT rev FROM meta", [], |row| row.get(0));
    let now: i64 = now.map_err(|err| db::explain(source.store.inner.name(), &err))?;
    let (batch, cluster) = source.read().await?;
    source.early = batch;
    Ok(Watch::new(now, cluster, Box::new(source)))
}

struct EmbeddedWatch {
    store: Embedded,
    /// The files this watch began with.
    files: Arc<Files>,
    conn: Arc<Mutex<Connection>>,
    wake: AsyncFd<Wake>,
    prefixes: Arc<[String]>,
    /// Everything up to this revision has been delivered.
    rev: i64,
    early: WatchBatch,
}

#[async_trait]
impl WatchSource for EmbeddedWatch {
    async fn next(&mut self) -> Result<WatchBatch, Error> {
        if !self.early.events.is_empty() {
            return Ok(std::mem::take(&mut self.early));
        }
        loop {
            // A glance costs microseconds, so it is taken here and not on another thread.
            let (latest, expiry) = self.glance()?;
            if expiry.is_some_and(|left| left.is_zero()) {
                self.store.run(|inner| inner.write(db::sweep)).await?;
                continue;
            }
            if latest > self.rev {
                let (batch, _) = self.read().await?;
                if !batch.events.is_empty() {
                    return Ok(batch);
                }
                continue;
            }
            let patience = expiry.map_or(LOOK_ANYWAY, |left| left.min(LOOK_ANYWAY));
            match timeout(patience.max(Duration::from_millis(1)), self.wake.readable()).await {
                Ok(Ok(mut ready)) => {
                    ready.get_inner().drain();
                    ready.clear_ready();
                }
                Ok(Err(err)) => return Err(self.gone(format!("cannot wait for inotify: {err}"))),
                Err(_) => {
                    if !Arc::ptr_eq(&self.files, &self.store.inner.files()?) {
                        return Err(self.gone("another file was put in its place".to_owned()));
                    }
                }
            }
        }
    }
}

impl EmbeddedWatch {
    /// The latest revision and the time until the next key expires.
    fn glance(&self) -> Result<(i64, Option<Duration>), Error> {
        let conn = lock(&self.conn);
        db::latest(&conn)
            .and_then(|latest| Ok((latest, db::next_expiry(&conn)?)))
            .map_err(|err| self.store.inner.explain(err))
    }

    /// What came after `self.rev`, which moves on only here: a cancelled read is read again.
    async fn read(&mut self) -> Result<(WatchBatch, u64), Error> {
        let (conn, prefixes, rev) = (self.conn.clone(), self.prefixes.clone(), self.rev);
        let changes = self
            .store
            .run(move |inner| db::changes(&mut lock(&conn), &prefixes, rev).map_err(|err| inner.explain(err)))
            .await?;
        self.rev = changes.rev;
        Ok((WatchBatch { events: changes.events, complete: Vec::new() }, changes.cluster))
    }

    fn gone(&self, reason: String) -> Error {
        Error::Unavailable { endpoint: self.store.inner.name(), reason }
    }
}

/// An inotify instance as Tokio wants it.
struct Wake(Inotify);

impl AsRawFd for Wake {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Wake {
    /// Forgets what was signalled: one look answers any number of signals.
    fn drain(&self) {
        while self.0.read_events().is_ok_and(|events| !events.is_empty()) {}
    }
}

fn inotify(path: &std::path::Path) -> Result<Wake, Errno> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    inotify.add_watch(path, AddWatchFlags::IN_MODIFY)?;
    Ok(Wake(inotify))
}
