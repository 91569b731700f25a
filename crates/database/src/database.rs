//! The handle: connect, read, migrate, close. Transactions are in `transaction`.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use sea_orm::sqlx::postgres::PgListener;
use sea_orm::sqlx::{PgPool, SqlitePool};
use sea_orm::{ConnectionTrait, DbBackend};

use crate::error::DatabaseError;
use crate::options::ConnectOptions;
use crate::pool::{Pool, Pools};
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
    pub(crate) writer: Pool,
    pub(crate) reader: Reader,
    pub(crate) options: ConnectOptions,
    pub(crate) suspicion: Suspicion,
    pub(crate) store: Store,
    url: DatabaseUrl,
    /// Its own and those of [`Database::for_worker`], which are watched and closed together.
    all: Arc<Mutex<Vec<Pools>>>,
}

/// What only one of the backends has.
pub(crate) enum Store {
    Sqlite { writer: SqlitePool, wal: Arc<Wal>, lock: Mutex<Option<File>> },
    Postgres { url: PostgresUrl },
}

impl Store {
    fn backend(&self) -> DbBackend {
        match self {
            Self::Sqlite { .. } => DbBackend::Sqlite,
            Self::Postgres { .. } => DbBackend::Postgres,
        }
    }
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
        let (pools, store) = match url {
            DatabaseUrl::Sqlite(path) => {
                let file = sqlite::open(path, options).await?;
                let store = Store::Sqlite { writer: file.writer.clone(), wal: file.wal, lock: Mutex::new(Some(file.lock)) };
                (Pools { writer: Pool::shared(file.writer), reader: Pool::shared(file.reader) }, store)
            }
            DatabaseUrl::Postgres(url) => {
                let pools = postgres::open(url, options, &suspicion).await?;
                (pools, Store::Postgres { url: url.clone() })
            }
        };
        Ok(Self::of(pools, options, suspicion, store, url, Arc::default()))
    }

    fn of(
        mut pools: Pools,
        options: &ConnectOptions,
        suspicion: Suspicion,
        store: Store,
        url: &DatabaseUrl,
        all: Arc<Mutex<Vec<Pools>>>,
    ) -> Self {
        pools.writer.connection.set_metric_callback(note_statement);
        lock(&all).push(pools.clone());
        let Pools { writer, reader } = pools;
        let reader = Reader { pool: reader, timeout: options.read_timeout(), suspicion: suspicion.clone() };
        let backend = store.backend();
        let options = options.clone();
        Self { inner: Arc::new(Inner { backend, writer, reader, options, suspicion, store, url: url.clone(), all }) }
    }

    /// The same database for a worker that runs one transaction after the other: on PostgreSQL with connections of its own, so many for
    /// writing at once, one for reading, and a spare one of both. So it never waits behind requests, and the server's processes that work for it are always the same
    /// two or three, whose caches know its tables and plans; a shared pool takes its connections in turn. Close the database that it comes from,
    /// not the worker's. On SQLite, which has one writer, nothing is different.
    #[must_use]
    pub fn for_worker(&self, connections: u32) -> Self {
        let Inner { options, suspicion, store, url, all, .. } = &*self.inner;
        let Store::Postgres { url: address } = store else { return self.clone() };
        let pools = postgres::worker(address, options, suspicion, connections);
        let store = Store::Postgres { url: address.clone() };
        Self::of(pools, options, suspicion.clone(), store, url, Arc::clone(all))
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
        let all = lock(&self.inner.all);
        let sizes = [
            ("write", all.iter().map(|pools| pools.writer.size()).collect::<Vec<_>>()),
            ("read", all.iter().map(|pools| pools.reader.size()).collect()),
        ];
        for (pool, sizes) in sizes {
            let open: u32 = sizes.iter().map(|(open, _)| open).sum();
            let idle = u32::try_from(sizes.iter().map(|(_, idle)| idle).sum::<usize>()).unwrap_or(u32::MAX);
            metrics::gauge!("database_connections", "pool" => pool, "state" => "idle").set(idle);
            metrics::gauge!("database_connections", "pool" => pool, "state" => "used").set(open.saturating_sub(idle));
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
        let all = std::mem::take(&mut *lock(&self.inner.all));
        for Pools { writer, reader } in all {
            writer.close().await;
            reader.close().await;
        }
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
