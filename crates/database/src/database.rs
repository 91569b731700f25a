//! The handle: connect, read, migrate, close. Transactions are in `transaction`.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use sea_orm::sqlx::postgres::PgListener;
use sea_orm::sqlx::{PgPool, SqlitePool};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend};

use crate::error::DatabaseError;
use crate::kept::KeptConnections;
use crate::options::ConnectOptions;
use crate::postgres::{self, Suspicion};
use crate::reader::Reader;
use crate::sqlite::{self, Wal};
use crate::transaction::note_statement;
use crate::url::{DatabaseUrl, PostgresUrl};

/// The first and the longest wait between two attempts to connect. The longest is short enough
/// that a service is up soon after its database; attempts go on without end, because nobody is
/// there to start the service again at the right moment.
const CONNECT_BACKOFF_MIN: Duration = Duration::from_millis(200);
const CONNECT_BACKOFF_MAX: Duration = Duration::from_secs(5);

/// One service's database. Cheap to clone; all clones are the same pools.
#[derive(Clone)]
pub struct Database {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) backend: DbBackend,
    /// For [`Database::transaction`] and [`Database::statement`] only.
    pub(crate) writer: DatabaseConnection,
    /// Of `writer`, for a worker's statements on PostgreSQL.
    pub(crate) kept: Option<KeptConnections>,
    pub(crate) reader: Reader,
    pub(crate) options: ConnectOptions,
    pub(crate) suspicion: Suspicion,
    pub(crate) store: Store,
    url: DatabaseUrl,
    /// The pools of [`Database::for_worker`], to be closed with the others.
    workers: Arc<Mutex<Vec<WorkerPools>>>,
}

struct WorkerPools {
    writer: WorkerPool,
    reader: WorkerPool,
}

struct WorkerPool {
    connection: DatabaseConnection,
    kept: KeptConnections,
}

/// What only one of the backends has.
pub(crate) enum Store {
    Sqlite { writer: SqlitePool, wal: Arc<Wal>, lock: Mutex<Option<File>> },
    Postgres { url: PostgresUrl },
}

impl Database {
    /// Connects, or says at once why not.
    ///
    /// SQLite: creates the file and its folder, and takes the lock file. PostgreSQL: one connection
    /// is made to prove that it can be; the pools open theirs when they are needed.
    ///
    /// # Errors
    ///
    /// [`DatabaseError::Unwritable`], [`DatabaseError::InUse`], [`DatabaseError::Connect`] (transient
    /// when the server is away, permanent when it refuses user or database).
    pub async fn connect(url: &DatabaseUrl, options: &ConnectOptions) -> Result<Self, DatabaseError> {
        let suspicion = Suspicion::new();
        let (backend, writer, reader, store): (_, DatabaseConnection, DatabaseConnection, _) = match url {
            DatabaseUrl::Sqlite(path) => {
                let file = sqlite::open(path, options).await?;
                let store = Store::Sqlite { writer: file.writer.clone(), wal: file.wal, lock: Mutex::new(Some(file.lock)) };
                (DbBackend::Sqlite, file.writer.into(), file.reader.into(), store)
            }
            DatabaseUrl::Postgres(url) => {
                let pools = postgres::open(url, options, &suspicion).await?;
                let store = Store::Postgres { url: url.clone() };
                (DbBackend::Postgres, pools.writer.into(), pools.reader.into(), store)
            }
        };
        let mut writer = writer;
        writer.set_metric_callback(note_statement);
        let reader = Reader { connection: reader, kept: None, timeout: options.read_timeout(), suspicion: suspicion.clone() };
        Ok(Self {
            inner: Arc::new(Inner {
                backend,
                writer,
                kept: None,
                reader,
                options: options.clone(),
                suspicion,
                store,
                url: url.clone(),
                workers: Arc::default(),
            }),
        })
    }

    /// The same database for a worker that runs one transaction after the other: on PostgreSQL with connections of its own, so many for
    /// writing at once, one for reading, and a spare one of both. So it never waits behind requests, and the server's processes that work for it are always the same
    /// two or three, whose caches know its tables and plans; a shared pool takes its connections in turn. Close the database that it comes from,
    /// not the worker's. On SQLite, which has one writer, nothing is different.
    #[must_use]
    pub fn for_worker(&self, connections: u32) -> Self {
        let Inner { backend, options, suspicion, store, url, workers, .. } = &*self.inner;
        let Store::Postgres { url: address } = store else { return self.clone() };
        let pools = postgres::worker(address, options, suspicion, connections);
        let [kept, kept_reader] = [&pools.writer, &pools.reader].map(|pool| KeptConnections::of(pool.clone(), suspicion));
        let (mut writer, reader): (DatabaseConnection, DatabaseConnection) = (pools.writer.into(), pools.reader.into());
        writer.set_metric_callback(note_statement);
        lock(workers).push(WorkerPools {
            writer: WorkerPool { connection: writer.clone(), kept: kept.clone() },
            reader: WorkerPool { connection: reader.clone(), kept: kept_reader.clone() },
        });
        Self {
            inner: Arc::new(Inner {
                backend: *backend,
                writer,
                kept: Some(kept),
                reader: Reader {
                    connection: reader,
                    kept: Some(kept_reader),
                    timeout: options.read_timeout(),
                    suspicion: suspicion.clone(),
                },
                options: options.clone(),
                suspicion: suspicion.clone(),
                store: Store::Postgres { url: address.clone() },
                url: url.clone(),
                workers: Arc::clone(workers),
            }),
        }
    }

    /// Which SQL to write.
    pub fn backend(&self) -> DbBackend {
        self.inner.backend
    }

    /// Where it is, without the password when displayed.
    pub fn url(&self) -> &DatabaseUrl {
        &self.inner.url
    }

    /// Pooled reads that see every transaction answered before they start.
    pub fn reader(&self) -> &Reader {
        &self.inner.reader
    }

    /// Answers when the database answers, for the readiness check; and tells the metric `database_connections` how the pools stand, because it
    /// is called every few seconds.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from answering; always within the bound of a read.
    pub async fn ping(&self) -> Result<(), DatabaseError> {
        self.report_connections();
        self.reader().execute_unprepared("SELECT 1").await?;
        Ok(())
    }

    fn report_connections(&self) {
        let workers = lock(&self.inner.workers);
        let of_worker = |pool: &WorkerPool| {
            let (open, idle) = self.size(&pool.connection);
            (open, idle + pool.kept.resting())
        };
        let writers = workers.iter().map(|pools| of_worker(&pools.writer)).chain([self.size(&self.inner.writer)]);
        let readers = workers.iter().map(|pools| of_worker(&pools.reader)).chain([self.size(&self.inner.reader.connection)]);
        let sizes = [("write", writers.collect::<Vec<_>>()), ("read", readers.collect())];
        for (pool, sizes) in sizes {
            let open: u32 = sizes.iter().map(|(open, _)| open).sum();
            let idle = u32::try_from(sizes.iter().map(|(_, idle)| idle).sum::<usize>()).unwrap_or(u32::MAX);
            metrics::gauge!("database_connections", "pool" => pool, "state" => "idle").set(idle);
            metrics::gauge!("database_connections", "pool" => pool, "state" => "used").set(open.saturating_sub(idle));
        }
    }

    /// How many connections of a pool are open, and how many of them are idle.
    fn size(&self, connection: &DatabaseConnection) -> (u32, usize) {
        match self.inner.backend {
            DbBackend::Postgres => {
                let pool = connection.get_postgres_connection_pool();
                (pool.size(), pool.num_idle())
            }
            _ => {
                let pool = connection.get_sqlite_connection_pool();
                (pool.size(), pool.num_idle())
            }
        }
    }

    /// PostgreSQL: notifications of a channel, on a connection of their own that is outside of the
    /// pools. `None` on SQLite, where everything happens in one process.
    ///
    /// Notifications are hints: one may be lost with its connection.
    ///
    /// # Errors
    ///
    /// When the connection cannot be made.
    pub async fn listen(&self, channel: &str) -> Result<Option<PgListener>, DatabaseError> {
        let Store::Postgres { url } = &self.inner.store else {
            return Ok(None);
        };
        let failed = |error| postgres::connect_error(url.to_string(), error);
        let session = postgres::session_options(url, &self.inner.options);
        let pool: PgPool = sea_orm::sqlx::postgres::PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(self.inner.options.acquire_timeout)
            .connect_lazy_with(session);
        let mut listener = PgListener::connect_with(&pool).await.map_err(failed)?;
        listener.listen(channel).await.map_err(failed)?;
        Ok(Some(listener))
    }

    /// Waits for running transactions, closes every connection and releases the lock file. All
    /// clones are closed with it: later work fails with a transient error.
    pub async fn close(self) {
        // Closing only fails for connections that are gone already.
        let workers = std::mem::take(&mut *lock(&self.inner.workers));
        for pool in workers.into_iter().flat_map(|WorkerPools { writer, reader }| [writer, reader]) {
            pool.kept.close();
            let _ = pool.connection.close().await;
        }
        let _ = self.inner.writer.close_by_ref().await;
        let _ = self.inner.reader.connection.close_by_ref().await;
        if let Store::Sqlite { lock: file, .. } = &self.inner.store {
            lock(file).take();
        }
    }
}

/// Nothing in here panics half way through a change, so a poisoned lock still guards a whole value.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Database").field(&self.inner.url.to_string()).finish()
    }
}

/// [`Database::connect`] for a service that may start before its database: tries again for as long
/// as the error is transient, logging what is awaited, and tells `on_wait` before each wait (for
/// the readiness check).
///
/// # Errors
///
/// The first error that waiting cannot cure.
pub async fn connect_with_backoff(
    url: &DatabaseUrl,
    options: &ConnectOptions,
    mut on_wait: impl FnMut(&DatabaseError),
) -> Result<Database, DatabaseError> {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(CONNECT_BACKOFF_MIN)
        .with_max_delay(CONNECT_BACKOFF_MAX)
        .with_jitter()
        .without_max_times();
    (|| Database::connect(url, options))
        .retry(backoff)
        .when(DatabaseError::is_transient)
        .notify(|error, wait| {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(%error, wait_ms, "waiting for the database");
            on_wait(error);
        })
        .await
}
