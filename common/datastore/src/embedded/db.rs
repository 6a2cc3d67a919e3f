//! The tables and what is done to them; synchronous.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params,
};

use super::clock;
use crate::error::Error;
use crate::store::{Digest, Event, Expect, KeyValue, Listing};

/// Revisions of history kept for watches that were away.
const KEEP_REVISIONS: i64 = 10_000;
/// Bytes of history kept.
const KEEP_BYTES: i64 = 64 << 20;
/// How often history is looked at, in revisions.
const COMPACT_EVERY: i64 = 256;
/// How long a writer waits for the others, in steps of a millisecond.
const LONGEST_WAIT_MS: i32 = 5000;
/// Most history rows read at once, and about how many bytes.
const ROWS_AT_ONCE: i64 = 1000;
const BYTES_AT_ONCE: usize = 8 << 20;

const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE meta (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        rev INTEGER NOT NULL,          -- the revision of the latest write
        compacted INTEGER NOT NULL,    -- history up to and including this revision is gone
        cluster INTEGER NOT NULL,      -- identifies this store
        boot TEXT NOT NULL             -- the boot that kv.expires counts from
    );
    CREATE TABLE kv (
        key BLOB PRIMARY KEY,
        value BLOB NOT NULL,
        rev INTEGER NOT NULL,
        create_rev INTEGER NOT NULL,
        ttl INTEGER,                   -- milliseconds
        expires INTEGER                -- milliseconds since boot
    ) WITHOUT ROWID;
    CREATE INDEX kv_expires ON kv (expires) WHERE expires IS NOT NULL;
    CREATE TABLE log (
        rev INTEGER PRIMARY KEY,       -- each write is a revision of its own
        key BLOB NOT NULL,
        value BLOB,                    -- NULL: deleted
        create_rev INTEGER NOT NULL,
        prev BLOB
    );
";

/// Either an answer that the caller's contract knows, or trouble with the file.
pub(super) enum Failure {
    Ours(Error),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(err: rusqlite::Error) -> Failure {
        Failure::Sqlite(err)
    }
}

impl From<Error> for Failure {
    fn from(err: Error) -> Failure {
        Failure::Ours(err)
    }
}

pub(super) type Result<T> = std::result::Result<T, Failure>;

/// What a watch reads at once.
pub(super) struct Changes {
    pub(super) events: Vec<Event>,
    /// Everything up to this revision has been read.
    pub(super) rev: i64,
    pub(super) cluster: u64,
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Creates what is missing of directory, database and notification file; private to its user.
/// Returns the notification file.
///
/// The database file itself must never be opened here once SQLite has it: closing any descriptor of
/// it drops the locks that this process holds on it (POSIX).
pub(super) fn create_private(path: &Path, notify: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.exists()) {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    for file in [path, notify] {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                let meta = std::fs::metadata(file)?;
                if !meta.is_file() {
                    return Err(io::Error::other(format!("{} is not a file", file.display())));
                }
                if meta.permissions().mode() & 0o077 != 0 {
                    std::fs::set_permissions(file, Permissions::from_mode(0o600))?;
                }
            }
            Err(err) => return Err(err),
        }
    }
    OpenOptions::new().read(true).write(true).open(notify)
}

/// Opens a connection, making the tables when they are not there yet. A lock on the notification
/// file keeps processes started together from making them twice.
pub(super) fn open(path: &Path) -> Result<Connection> {
    let _guard = guard(&beside(path, "-notify")).map_err(|err| Error::Config {
        field: "CARACAL_EMBEDDED_PATH".to_owned(),
        reason: format!("{}-notify: cannot lock: {err}", path.display()),
    })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    conn.busy_handler(Some(|tries| {
        sleep(Duration::from_millis(1));
        tries < LONGEST_WAIT_MS
    }))?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    // A write that was answered survives a power cut.
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "cache_size", -2048)?;
    let txn = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = txn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        0 => {
            txn.execute_batch(SCHEMA)?;
            txn.execute(
                "INSERT INTO meta (one, rev, compacted, cluster, boot) VALUES (1, 1, 0, ?, ?)",
                params![rand::random::<i64>(), clock::boot()],
            )?;
            txn.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        SCHEMA_VERSION => renew_after_boot(&txn)?,
        newer => {
            return Err(Failure::Ours(Error::Config {
                field: "CARACAL_EMBEDDED_PATH".to_owned(),
                reason: format!(
                    "{} has layout {newer}, this program knows {SCHEMA_VERSION}; use the newer program",
                    path.display()
                ),
            }));
        }
    }
    txn.commit()?;
    Ok(conn)
}

fn guard(path: &Path) -> io::Result<Flock<File>> {
    let mut file = File::open(path)?;
    for _ in 0..LONGEST_WAIT_MS / 5 {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(guard) => return Ok(guard),
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) => file = back,
            Err((_, err)) => return Err(err.into()),
        }
        sleep(Duration::from_millis(5));
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds it"))
}

/// The clock that `expires` counts by began anew: every key gets its full time again.
fn renew_after_boot(txn: &Transaction<'_>) -> Result<()> {
    let boot = clock::boot();
    let changed = txn.execute("UPDATE meta SET boot = ?1 WHERE boot <> ?1", [&boot])?;
    if changed > 0 {
        txn.execute("UPDATE kv SET expires = ttl + ? WHERE ttl IS NOT NULL", [clock::now()])?;
    }
    Ok(())
}

pub(super) fn get(conn: &mut Connection, key: &str) -> Result<Option<KeyValue>> {
    let mut statement = conn.prepare_cached(
        "SELECT key, value, rev, create_rev FROM kv
         WHERE key = ?1 AND (expires IS NULL OR expires > ?2)",
    )?;
    Ok(statement.query_row(params![key.as_bytes(), clock::now()], key_value).optional()?)
}

pub(super) fn list(conn: &mut Connection, prefix: &str) -> Result<Listing> {
    let txn = conn.transaction()?;
    let (rev, cluster) = position(&txn)?;
    let items = {
        let mut statement = txn.prepare_cached(
            "SELECT key, value, rev, create_rev FROM kv
             WHERE key >= ?1 AND (?2 IS NULL OR key < ?2) AND (expires IS NULL OR expires > ?3)
             ORDER BY key",
        )?;
        statement
            .query_map(params![prefix.as_bytes(), after(prefix), clock::now()], key_value)?
            .collect::<rusqlite::Result<Vec<_>>>()?
    };
    Ok(Listing { items, rev, cluster })
}

pub(super) fn digest(conn: &mut Connection, prefix: &str, since: i64) -> Result<Digest> {
    let txn = conn.transaction()?;
    let (rev, cluster) = position(&txn)?;
    let (mut changed, mut count) = (Vec::new(), 0);
    {
        let mut statement = txn.prepare_cached(
            "SELECT key, rev FROM kv
             WHERE key >= ?1 AND (?2 IS NULL OR key < ?2) AND (expires IS NULL OR expires > ?3)",
        )?;
        let mut rows = statement.query(params![prefix.as_bytes(), after(prefix), clock::now()])?;
        while let Some(row) = rows.next()? {
            count += 1;
            let rev: i64 = row.get(1)?;
            if rev > since {
                changed.push((text(row.get(0)?), rev));
            }
        }
    }
    Ok(Digest { changed, count, rev, cluster })
}

pub(super) fn put(
    conn: &mut Connection,
    key: &str,
    value: &[u8],
    expect: Expect,
    ttl: Option<Duration>,
) -> Result<i64> {
    if key.is_empty() {
        return Err(no_key());
    }
    write(conn, |txn| {
        let current = current(txn, key)?;
        check(key, expect, current.as_ref())?;
        let rev = next_rev(txn)?;
        let create_rev = current.as_ref().map_or(rev, |kv| kv.create_rev);
        let ttl = ttl.map(whole_seconds);
        let expires = ttl.map(|ttl| clock::now().saturating_add(ttl));
        txn.prepare_cached(
            "INSERT OR REPLACE INTO kv (key, value, rev, create_rev, ttl, expires)
             VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![key.as_bytes(), value, rev, create_rev, ttl, expires])?;
        log(txn, rev, key.as_bytes(), Some(value), create_rev, current.map(|kv| kv.value))?;
        Ok(rev)
    })
}

pub(super) fn delete(conn: &mut Connection, key: &str, expect: Expect) -> Result<KeyValue> {
    if key.is_empty() {
        return Err(no_key());
    }
    write(conn, |txn| {
        let Some(kv) = current(txn, key)? else {
            return Err(Failure::Ours(Error::NotFound { key: key.to_owned() }));
        };
        check(key, expect, Some(&kv))?;
        remove(txn, key.as_bytes(), Some(kv.value.clone()))?;
        Ok(kv)
    })
}

/// Deletes what has expired.
pub(super) fn sweep(conn: &mut Connection) -> Result<()> {
    write(conn, |_| Ok(()))
}

/// How long until the next key expires.
pub(super) fn next_expiry(conn: &Connection) -> Result<Option<Duration>> {
    let at: Option<i64> = conn
        .prepare_cached("SELECT min(expires) FROM kv WHERE expires IS NOT NULL")?
        .query_row([], |row| row.get(0))?;
    Ok(at.map(|at| Duration::from_millis(u64::try_from(at - clock::now()).unwrap_or(0))))
}

/// The latest revision: one page read, for deciding whether to look further.
pub(super) fn latest(conn: &Connection) -> Result<i64> {
    Ok(conn.prepare_cached("SELECT rev FROM meta")?.query_row([], |row| row.get(0))?)
}

/// Reads history after `rev`, keeping what lies under one of `prefixes`.
pub(super) fn changes(conn: &mut Connection, prefixes: &[String], after: i64) -> Result<Changes> {
    let txn = conn.transaction()?;
    let (latest, cluster) = position(&txn)?;
    let compacted: i64 = txn.query_row("SELECT compacted FROM meta", [], |row| row.get(0))?;
    if after < compacted {
        return Err(Failure::Ours(Error::Compacted { rev: compacted.saturating_add(1) }));
    }
    let mut events = Vec::new();
    let (mut rev, mut rows_read, mut bytes) = (after, 0, 0);
    {
        let mut statement = txn.prepare_cached(
            "SELECT rev, key, value, create_rev, prev FROM log WHERE rev > ? ORDER BY rev LIMIT ?",
        )?;
        let mut rows = statement.query([after, ROWS_AT_ONCE])?;
        while bytes < BYTES_AT_ONCE
            && let Some(row) = rows.next()?
        {
            rows_read += 1;
            rev = row.get(0)?;
            let key = text(row.get(1)?);
            for (prefix, _) in prefixes.iter().enumerate().filter(|(_, p)| key.starts_with(*p)) {
                let value: Option<Vec<u8>> = row.get(2)?;
                let prev: Option<Vec<u8>> = row.get(4)?;
                bytes += value.as_ref().map_or(0, Vec::len) + prev.as_ref().map_or(0, Vec::len);
                let create_rev = if value.is_some() { row.get(3)? } else { 0 };
                events.push(Event { prefix, key: key.clone(), value, rev, create_rev, prev });
            }
        }
    }
    if rows_read < ROWS_AT_ONCE && bytes < BYTES_AT_ONCE {
        rev = rev.max(latest);
    }
    Ok(Changes { events, rev, cluster })
}

/// What to call trouble with the file.
pub(super) fn explain(endpoint: String, err: &rusqlite::Error) -> Error {
    let reason = err.to_string();
    match err.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Unavailable {
            endpoint,
            reason: format!("another process holds the file for more than {LONGEST_WAIT_MS} ms"),
        },
        Some(ErrorCode::DiskFull) => Error::Full { endpoint, reason },
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => Error::Unauthorized { endpoint, reason },
        Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure) => Error::Unavailable { endpoint, reason },
        _ => Error::Failed { endpoint, reason },
    }
}

/// One write transaction: expired keys go first, history is trimmed last. What was swept stays
/// swept when `work` refuses.
fn write<T>(conn: &mut Connection, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
    let txn = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let expired = {
        let mut statement =
            txn.prepare_cached("SELECT key, value FROM kv WHERE expires IS NOT NULL AND expires <= ?")?;
        statement
            .query_map([clock::now()], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<Vec<(Vec<u8>, Vec<u8>)>>>()?
    };
    for (key, value) in expired {
        remove(&txn, &key, Some(value))?;
    }
    match work(&txn) {
        Ok(done) => {
            compact(&txn)?;
            txn.commit()?;
            Ok(done)
        }
        Err(Failure::Ours(err)) => {
            txn.commit()?;
            Err(Failure::Ours(err))
        }
        Err(err) => Err(err),
    }
}

fn remove(txn: &Transaction<'_>, key: &[u8], prev: Option<Vec<u8>>) -> Result<()> {
    let rev = next_rev(txn)?;
    txn.prepare_cached("DELETE FROM kv WHERE key = ?")?.execute([key])?;
    log(txn, rev, key, None, 0, prev)
}

fn log(
    txn: &Transaction<'_>,
    rev: i64,
    key: &[u8],
    value: Option<&[u8]>,
    create_rev: i64,
    prev: Option<Vec<u8>>,
) -> Result<()> {
    txn.prepare_cached("INSERT INTO log (rev, key, value, create_rev, prev) VALUES (?, ?, ?, ?, ?)")?
        .execute(params![rev, key, value, create_rev, prev])?;
    Ok(())
}

fn compact(txn: &Transaction<'_>) -> Result<()> {
    let (rev, _) = position(txn)?;
    if rev % COMPACT_EVERY != 0 {
        return Ok(());
    }
    let mut upto = rev - KEEP_REVISIONS;
    // From the newest backwards: the first revision that no longer fits ends what is kept.
    let mut statement = txn.prepare_cached(
        "SELECT rev, ifnull(length(value), 0) + ifnull(length(prev), 0) FROM log
         WHERE rev > ? ORDER BY rev DESC",
    )?;
    let mut rows = statement.query([upto])?;
    let mut bytes: i64 = 0;
    while let Some(row) = rows.next()? {
        bytes = bytes.saturating_add(row.get(1)?);
        if bytes > KEEP_BYTES {
            upto = row.get(0)?;
            break;
        }
    }
    if upto > 0 {
        txn.execute("DELETE FROM log WHERE rev <= ?", [upto])?;
        txn.execute("UPDATE meta SET compacted = max(compacted, ?)", [upto])?;
    }
    Ok(())
}

fn check(key: &str, expect: Expect, current: Option<&KeyValue>) -> Result<()> {
    let holds = match expect {
        Expect::Any => true,
        Expect::Absent => current.is_none(),
        Expect::Rev(rev) => current.is_some_and(|kv| kv.rev == rev),
    };
    if holds {
        return Ok(());
    }
    Err(Failure::Ours(match (expect, current) {
        (Expect::Rev(_), None) => Error::NotFound { key: key.to_owned() },
        (_, current) => Error::Conflict { key: key.to_owned(), current: current.cloned() },
    }))
}

fn current(txn: &Transaction<'_>, key: &str) -> Result<Option<KeyValue>> {
    Ok(txn
        .prepare_cached("SELECT key, value, rev, create_rev FROM kv WHERE key = ?")?
        .query_row([key.as_bytes()], key_value)
        .optional()?)
}

fn next_rev(txn: &Transaction<'_>) -> Result<i64> {
    Ok(txn.prepare_cached("UPDATE meta SET rev = rev + 1 RETURNING rev")?.query_row([], |row| row.get(0))?)
}

fn position(txn: &Transaction<'_>) -> Result<(i64, u64)> {
    Ok(txn
        .prepare_cached("SELECT rev, cluster FROM meta")?
        .query_row([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?)
}

fn key_value(row: &rusqlite::Row<'_>) -> rusqlite::Result<KeyValue> {
    Ok(KeyValue { key: text(row.get(0)?), value: row.get(1)?, rev: row.get(2)?, create_rev: row.get(3)? })
}

fn text(key: Vec<u8>) -> String {
    String::from_utf8(key).unwrap_or_else(|err| String::from_utf8_lossy(err.as_bytes()).into_owned())
}

/// The first key after everything that starts with `prefix`; `None` when there is no end.
fn after(prefix: &str) -> Option<Vec<u8>> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

fn whole_seconds(ttl: Duration) -> i64 {
    let millis = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX / 4);
    millis.saturating_add(999).max(1000) / 1000 * 1000
}

fn no_key() -> Failure {
    Failure::Ours(Error::Failed {
        endpoint: "embedded store".to_owned(),
        reason: "key is not provided".to_owned(),
    })
}
