//! One file as a [`Store`], shared by the processes of a host.
//!
//! SQLite in WAL mode keeps it consistent whatever dies when; one table holds the keys as they are,
//! one the recent history that watches read. Beside the database lies a small file that every
//! writer touches after its commit: watches of other processes hear of it by inotify.
//!
//! ```text
//!   put ──> [kv, log, rev+1] commit ──> touch store.db-notify ──inotify──> read log from rev on
//! ```

mod clock;
mod db;
mod watch;

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;

use crate::error::Error;
use crate::store::{Digest, Expect, KeyValue, Listing, Store, Watch};

/// etcd's limit on a request, kept here too so that what one store takes the other takes.
const LARGEST_VALUE: usize = 1_572_864;

/// A store in one file of this host; cheap to clone.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    files: RwLock<Arc<Files>>,
}

/// The open files. They are replaced together when the path names another file than before.
struct Files {
    inode: (u64, u64),
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    /// Touched after each commit.
    notify: File,
}

impl Embedded {
    /// Opens the file, creating it (mode 0600) and its directory when missing.
    ///
    /// # Errors
    /// [`Error::Config`] when the path cannot be used, naming the path and why.
    pub fn open(path: &Path) -> Result<Embedded, Error> {
        let files = RwLock::new(Arc::new(Files::open(path)?));
        Ok(Embedded { inner: Arc::new(Inner { path: path.to_owned(), files }) })
    }

    /// Runs blocking work off the event loop.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.inner.clone();
        let name = inner.name();
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(err) if err.is_panic() => std::panic::resume_unwind(err.into_panic()),
            Err(_) => Err(Error::Unavailable { endpoint: name, reason: "shutting down".to_owned() }),
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        let key = key.to_owned();
        self.run(move |inner| inner.read(|conn| db::get(conn, &key))).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let prefix = prefix.to_owned();
        self.run(move |inner| inner.read(|conn| db::list(conn, &prefix))).await
    }

    async fn digest(&self, prefix: &str, since: i64) -> Result<Digest, Error> {
        let prefix = prefix.to_owned();
        self.run(move |inner| inner.read(|conn| db::digest(conn, &prefix, since))).await
    }

    async fn put(
        &self,
        key: &str,
        value: Vec<u8>,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<i64, Error> {
        if value.len() > LARGEST_VALUE {
            return Err(Error::TooLarge {
                key: key.to_owned(),
                reason: format!("{} bytes; at most {LARGEST_VALUE} fit", value.len()),
            });
        }
        let key = key.to_owned();
        self.run(move |inner| inner.write(|conn| db::put(conn, &key, &value, expect, ttl))).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<KeyValue, Error> {
        let key = key.to_owned();
        self.run(move |inner| inner.write(|conn| db::delete(conn, &key, expect))).await
    }

    async fn watch(&self, prefixes: &[String], from_rev: i64) -> Result<Watch, Error> {
        let prefixes = prefixes.to_vec();
        let store = self.clone();
        watch::open(store, prefixes, from_rev).await
    }

    fn describe(&self) -> String {
        self.inner.name()
    }
}

impl Inner {
    fn name(&self) -> String {
        format!("embedded {}", self.path.display())
    }

    /// The open files, reopened when another file was put in their place (a restored backup).
    fn files(&self) -> Result<Arc<Files>, Error> {
        let inode = match std::fs::metadata(&self.path) {
            Ok(meta) => (meta.dev(), meta.ino()),
            // Creating an empty store here would look as if everything had been deleted.
            Err(err) => {
                return Err(Error::Unavailable {
                    endpoint: self.name(),
                    reason: format!("the file is gone: {err}; restore it or restart to begin anew"),
                });
            }
        };
        let open = self.files.read().unwrap_or_else(PoisonError::into_inner).clone();
        if open.inode == inode {
            return Ok(open);
        }
        let mut slot = self.files.write().unwrap_or_else(PoisonError::into_inner);
        if slot.inode != inode {
            tracing::warn!(path = %self.path.display(), "embedded store was replaced: reopening it");
            *slot = Arc::new(Files::open(&self.path)?);
        }
        Ok(slot.clone())
    }

    fn read<T>(&self, work: impl FnOnce(&mut Connection) -> db::Result<T>) -> Result<T, Error> {
        let files = self.files()?;
        work(&mut lock(&files.reader)).map_err(|err| self.explain(err))
    }

    fn write<T>(&self, work: impl FnOnce(&mut Connection) -> db::Result<T>) -> Result<T, Error> {
        let files = self.files()?;
        let result = work(&mut lock(&files.writer));
        // Told even when refused: expired keys may have been swept on the way.
        files.touch();
        result.map_err(|err| self.explain(err))
    }

    fn explain(&self, err: db::Failure) -> Error {
        match err {
            db::Failure::Ours(err) => err,
            db::Failure::Sqlite(err) => db::explain(self.name(), &err),
        }
    }
}

impl Files {
    fn open(path: &Path) -> Result<Files, Error> {
        let unusable = |reason: String| Error::Config {
            field: "CARACAL_EMBEDDED_PATH".to_owned(),
            reason: format!("{}: {reason}", path.display()),
        };
        let notify_path = db::beside(path, "-notify");
        let notify = db::create_private(path, &notify_path)
            .map_err(|err| unusable(format!("cannot create: {err}")))?;
        let open = || {
            db::open(path).map_err(|err| match err {
                db::Failure::Ours(err) => err,
                db::Failure::Sqlite(err) => unusable(format!("cannot open: {err}")),
            })
        };
        let (writer, reader) = (open()?, open()?);
        let meta = std::fs::metadata(path).map_err(|err| unusable(format!("cannot read: {err}")))?;
        Ok(Files {
            inode: (meta.dev(), meta.ino()),
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
            notify,
        })
    }

    /// Wakes the watches of every process. Should it fail, they find out at their next look.
    fn touch(&self) {
        if let Err(err) = self.notify.write_at(b"\n", 0) {
            tracing::debug!(%err, "embedded store: watches not woken");
        }
    }
}

fn lock(conn: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    // A panic in the middle of a transaction rolled it back when its guard was dropped.
    conn.lock().unwrap_or_else(PoisonError::into_inner)
}
