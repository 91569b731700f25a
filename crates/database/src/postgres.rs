//! PostgreSQL: two bounded pools whose connections cannot hang, and what keeps a dead connection
//! from being handed out again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sea_orm::sqlx::{ConnectOptions as _, Connection as _, Error as SqlxError, Row as _};
use sea_orm::{DbErr, RuntimeErr};

use crate::error::DatabaseError;
use crate::options::ConnectOptions;
use crate::pool::{Pool, Pools};
use crate::url::PostgresUrl;

/// TCP keepalives on the server's side: a session whose client vanished without a word (a cut
/// network, a lost machine) ends, and lets go of its locks, after 10 + 3 × 5 s.
const KEEPALIVES_IDLE_S: u32 = 10;
const KEEPALIVES_INTERVAL_S: u32 = 5;
const KEEPALIVES_COUNT: u32 = 3;

/// A pooled connection is closed after this time without use, so that a burst does not occupy the
/// server for ever.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// A connection is replaced after this age, so that replicas spread again after a failover and
/// the server's memory per session stays bounded.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);

/// How long a ping may take before its connection counts as dead.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections of a worker beyond those that it uses at once. The pool pings a connection that comes back, without a bound, and when the network is cut
/// just then the connection keeps its place for as long as TCP retransmits, a quarter of an hour: with a single place a worker would have none. That it meets
/// another ping before the first connection is given up is left to happen.
const SPARE_CONNECTIONS: u32 = 1;

/// An idle connection is pinged before use only if it rested for so long; until then the ping on
/// its return to the pool is proof enough, and no round trip is spent.
const PING_AFTER_IDLE: Duration = Duration::from_secs(30);

/// The same for workers: their statements may be transactions of their own, which nobody tries again,
/// because nobody knows what became of the one that met a dead connection.
pub(crate) const WORKER_PING_AFTER_IDLE: Duration = Duration::from_secs(1);

/// After a connection was lost, every idle connection is pinged before use for this long: the
/// others probably died with it.
const SUSPICION: Duration = Duration::from_secs(30);

/// Prepared statements kept per connection, as for SQLite.
const STATEMENT_CACHE: usize = 256;

/// Whether a connection was lost lately. Shared by the pools of one database.
#[derive(Clone, Debug)]
pub(crate) struct Suspicion {
    start: Instant,
    /// Milliseconds after `start` until which connections are suspected.
    until_ms: Arc<AtomicU64>,
}

impl Suspicion {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), until_ms: Arc::default() }
    }

    pub(crate) fn raise(&self) {
        let until = self.start.elapsed() + SUSPICION;
        let until_ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.until_ms.fetch_max(until_ms, Ordering::Relaxed);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.start.elapsed().as_millis() < u128::from(self.until_ms.load(Ordering::Relaxed))
    }
}

/// Every statement of a service finds its rows through an index, however many there are. But a prepared statement keeps the plan that was
/// made first, and on a table that is new and empty that is one that reads it whole: it would stay, while the table grows, until the next
/// automatic ANALYZE. So plans that read whole tables are only for statements that have no other; those look expensive then, and must not
/// be compiled for it.
const PLANS: [(&str, &str); 5] = [
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
    // The plan would be the same for other parameters, and making it costs more than following it.
    ("plan_cache_mode", "force_generic_plan"),
];

/// Connects once, without the pool's patience, so that a wrong URL fails at once and with its own
/// error; the pools then open their connections when they are needed.
pub(crate) async fn open(url: &PostgresUrl, options: &ConnectOptions, suspicion: &Suspicion) -> Result<Pools, DatabaseError> {
    let session = session_options(url, options);
    let mut first = connect_once(url, &session, options.acquire_timeout).await?;
    warn_unless_durable(&mut first).await;
    // It has served its purpose; an error while leaving says nothing about the next connection.
    let _ = first.close().await;

    let pool = |connections| pool(connections, PING_AFTER_IDLE, options, suspicion);
    Ok(Pools {
        reader: Pool::shared(pool(options.read_connections).connect_lazy_with(read_only(&session))),
        writer: Pool::shared(pool(options.write_connections).connect_lazy_with(session)),
    })
}

/// A worker's own pools, which open their connections when they are needed. The spare one also serves a statement that comes before the last one's
/// connection is back.
pub(crate) fn worker(url: &PostgresUrl, options: &ConnectOptions, suspicion: &Suspicion, writing: u32) -> Pools {
    let session = session_options(url, options);
    let pool = |connections, ping_after_idle| pool(connections + SPARE_CONNECTIONS, ping_after_idle, options, suspicion);
    Pools {
        reader: Pool::kept(pool(1, PING_AFTER_IDLE).connect_lazy_with(read_only(&session)), suspicion),
        writer: Pool::kept(pool(writing, WORKER_PING_AFTER_IDLE).connect_lazy_with(session), suspicion),
    }
}

fn read_only(session: &PgConnectOptions) -> PgConnectOptions {
    session.clone().options([("default_transaction_read_only", "on")])
}

/// One connection outside of any pool, within the given time.
pub(crate) async fn connect_once(
    url: &PostgresUrl,
    session: &PgConnectOptions,
    timeout: Duration,
) -> Result<PgConnection, DatabaseError> {
    match tokio::time::timeout(timeout, session.connect()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(connect_error(url.to_string(), error)),
        Err(_) => Err(DatabaseError::TimedOut { what: "connecting", after: timeout }),
    }
}

pub(crate) fn connect_error(url: String, error: SqlxError) -> DatabaseError {
    DatabaseError::Connect { url, source: DbErr::Conn(RuntimeErr::SqlxError(error.into())) }
}

/// The settings that every session starts with.
pub(crate) fn session_options(url: &PostgresUrl, options: &ConnectOptions) -> PgConnectOptions {
    let ms = |duration: Duration| duration.as_millis().to_string();
    url.options()
        .clone()
        .application_name(&options.application_name)
        .statement_cache_capacity(STATEMENT_CACHE)
        .options([
            ("statement_timeout", ms(options.statement_timeout)),
            ("lock_timeout", ms(options.lock_timeout)),
            ("idle_in_transaction_session_timeout", ms(options.idle_in_transaction_timeout)),
            ("tcp_keepalives_idle", KEEPALIVES_IDLE_S.to_string()),
            ("tcp_keepalives_interval", KEEPALIVES_INTERVAL_S.to_string()),
            ("tcp_keepalives_count", KEEPALIVES_COUNT.to_string()),
        ])
        .options(PLANS)
        .disable_statement_logging()
}

fn pool(connections: u32, ping_after_idle: Duration, options: &ConnectOptions, suspicion: &Suspicion) -> PgPoolOptions {
    let (suspicion, suspicion_on_release) = (suspicion.clone(), suspicion.clone());
    PgPoolOptions::new()
        .max_connections(connections.max(1))
        .acquire_timeout(options.acquire_timeout)
        .idle_timeout(IDLE_TIMEOUT)
        .max_lifetime(MAX_LIFETIME)
        // No ping per use: it would cost every transaction a round trip. Errors of connections
        // that died unnoticed are transient, and see `SUSPICION`.
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let suspected = meta.idle_for > ping_after_idle || suspicion.is_raised();
            Box::pin(async move {
                if suspected {
                    bounded_ping(connection).await?;
                }
                Ok(true)
            })
        })
        // The pool pings a connection that comes back, without a bound. Who was not answered has raised
        // the suspicion before the connection comes back, and that ping is not reached. Without the
        // suspicion the answer came a moment ago; see `SPARE_CONNECTIONS` for a cut within this moment.
        .after_release(move |connection, _| {
            let suspected = suspicion_on_release.is_raised();
            Box::pin(async move {
                if suspected {
                    bounded_ping(connection).await?;
                }
                Ok(true)
            })
        })
}

async fn bounded_ping(connection: &mut PgConnection) -> Result<(), SqlxError> {
    match tokio::time::timeout(PING_TIMEOUT, connection.ping()).await {
        Ok(result) => result,
        Err(_) => Err(SqlxError::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// An accepted order must survive the server's crash, and that is the server's to configure.
async fn warn_unless_durable(connection: &mut PgConnection) {
    let settings = sea_orm::sqlx::query("SELECT current_setting('fsync'), current_setting('synchronous_commit')")
        .fetch_one(connection)
        .await;
    let Ok(row) = settings else { return };
    let (Ok(fsync), Ok(commit)) = (row.try_get::<String, _>(0), row.try_get::<String, _>(1)) else {
        return;
    };
    if fsync == "off" || commit == "off" {
        tracing::warn!(
            fsync,
            synchronous_commit = commit,
            "the PostgreSQL server is configured to lose acknowledged commits in a crash"
        );
    }
}
