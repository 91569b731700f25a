//! SQLite: one file, one writer, a few readers, and a lock file that keeps other processes away.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sea_orm::sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Error as SqlxError, Executor as _, SqlitePool, query_scalar,
};

use crate::error::DatabaseError;
use crate::options::ConnectOptions;
use crate::postgres::connect_error;

/// Pages after which a commit moves the log into the database file: SQLite's own default, 4 MiB.
const WAL_AUTOCHECKPOINT_PAGES: u32 = 1000;

/// Page cache per connection in KiB (negative in the pragma): the hot ends of the indexes fit.
const CACHE_KIB: u32 = 8 * 1024;

/// Prepared statements kept per connection. The statement texts of a service are few and never
/// vary with the number of rows.
const STATEMENT_CACHE: usize = 256;

/// The size of the log is looked at once per so many transactions: a look costs a system call.
const WAL_CHECK_EVERY: u32 = 64;

/// How long writers may stand still while the log is emptied, and how often that may happen: at
/// worst a tenth of the time.
const WAL_STALL_MAX: Duration = Duration::from_millis(100);
const WAL_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The pools and the lock of one open file.
pub(crate) struct SqliteFile {
    pub(crate) writer: SqlitePool,
    pub(crate) reader: SqlitePool,
    pub(crate) wal: Arc<Wal>,
    /// Held while open. The system releases it with the process, however that ends.
    pub(crate) lock: File,
}

/// Opens the file, creating it and its folder.
pub(crate) async fn open(path: &Path, options: &ConnectOptions) -> Result<SqliteFile, DatabaseError> {
    let path = create_folder(path)?;
    let lock = take_lock(&path)?;

    let base = SqliteConnectOptions::new()
        .filename(&path)
        .foreign_keys(true)
        .busy_timeout(options.busy_timeout)
        .synchronous(SqliteSynchronous::Full)
        .statement_cache_capacity(STATEMENT_CACHE)
        .pragma("cache_size", format!("-{CACHE_KIB}"))
        .pragma("temp_store", "MEMORY")
        .disable_statement_logging();
    let shown = format!("sqlite://{}", path.display());

    // One connection that is never given up: the next transaction finds it warm, and writers
    // queue here, in order, instead of polling the file's lock.
    let writer = SqlitePoolOptions::new()
        .min_connections(1)
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .acquire_timeout(options.acquire_timeout)
        .before_acquire(|connection, _| {
            // SQLite ends a transaction by itself on some errors (disk full, IO). The driver still
            // counts it as open and would run the next one as a savepoint: take a new connection.
            let clean = !connection.is_in_transaction();
            Box::pin(async move { Ok(clean) })
        })
        .connect_with(
            base.clone()
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .pragma("wal_autocheckpoint", WAL_AUTOCHECKPOINT_PAGES.to_string())
                .pragma("journal_size_limit", options.wal_limit_bytes.to_string())
                .thread_name(|id| format!("sqlite-writer-{id}")),
        )
        .await
        .map_err(|error| connect_error(shown.clone(), error))?;

    let readers = options.read_connections.clamp(1, ConnectOptions::SQLITE_READERS_MAX);
    let reader = SqlitePoolOptions::new()
        .max_connections(readers)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .acquire_timeout(options.acquire_timeout)
        .connect_with(base.read_only(true).thread_name(|id| format!("sqlite-reader-{id}")))
        .await
        .map_err(|error| connect_error(shown, error))?;

    let wal = Arc::new(Wal::new(&path, options));
    Ok(SqliteFile { writer, reader, wal, lock })
}

/// Creates the folder and resolves it, so that two spellings of one path meet at one lock file.
fn create_folder(path: &Path) -> Result<PathBuf, DatabaseError> {
    let unwritable = |path: &Path, error| DatabaseError::Unwritable { path: path.to_owned(), source: Arc::new(error) };
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, error))?;
    let folder = folder.canonicalize().map_err(|error| unwritable(folder, error))?;
    let name = path.file_name().ok_or_else(|| unwritable(path, std::io::ErrorKind::InvalidFilename.into()))?;
    Ok(folder.join(name))
}

fn take_lock(path: &Path) -> Result<File, DatabaseError> {
    let lock_path = beside(path, ".lock");
    let unwritable = |error| DatabaseError::Unwritable { path: lock_path.clone(), source: Arc::new(error) };
    let lock = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(unwritable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DatabaseError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(unwritable(error)),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Keeps the write-ahead log bounded. Commits move it into the database file by themselves, but
/// it can only start again from its beginning in a moment without any reader; under steady reads
/// that moment may never come.
pub(crate) struct Wal {
    path: PathBuf,
    limit_bytes: u64,
    busy_timeout: Duration,
    transactions: AtomicU32,
    next_attempt: Mutex<Instant>,
}

impl Wal {
    fn new(database: &Path, options: &ConnectOptions) -> Self {
        Self {
            path: beside(database, "-wal"),
            limit_bytes: options.wal_limit_bytes,
            busy_timeout: options.busy_timeout,
            transactions: AtomicU32::new(0),
            next_attempt: Mutex::new(Instant::now()),
        }
    }

    /// Whether the log should be emptied by force now; to be asked after each transaction.
    pub(crate) fn is_due(&self) -> bool {
        let count = self.transactions.fetch_add(1, Ordering::Relaxed);
        if count % WAL_CHECK_EVERY != WAL_CHECK_EVERY - 1
            || !std::fs::metadata(&self.path).is_ok_and(|wal| wal.len() > self.limit_bytes)
        {
            return false;
        }
        let now = Instant::now();
        let mut next_attempt = self.next_attempt.lock().unwrap_or_else(PoisonError::into_inner);
        let due = now >= *next_attempt;
        if due {
            *next_attempt = now + WAL_RETRY_AFTER;
        }
        due
    }

    /// Moves the whole log into the database file and empties it, waiting a moment for readers to
    /// finish. Writers queue meanwhile. With overlapping readers an attempt may fail; the next one
    /// comes a second later.
    pub(crate) async fn empty(&self, writer: &SqlitePool) {
        match self.try_empty(writer).await {
            Ok(true) => tracing::debug!("emptied the write-ahead log"),
            Ok(false) => tracing::info!("the write-ahead log could not be emptied yet: readers are in the way"),
            Err(error) => tracing::warn!(%error, "the write-ahead log could not be emptied"),
        }
    }

    async fn try_empty(&self, writer: &SqlitePool) -> Result<bool, SqlxError> {
        let mut connection = writer.acquire().await?;
        let busy_timeout = |timeout: Duration| AssertSqlSafe(format!("PRAGMA busy_timeout = {}", timeout.as_millis()));
        connection.execute(busy_timeout(WAL_STALL_MAX)).await?;
        let outcome = query_scalar::<_, i64>("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *connection).await;
        connection.execute(busy_timeout(self.busy_timeout)).await?;
        Ok(outcome? == 0)
    }
}
