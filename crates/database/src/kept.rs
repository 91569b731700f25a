//! PostgreSQL: connections that a worker keeps from one statement to the next.
//!
//! The pool pings each connection that comes back to it, which for a statement that is a transaction of its own is another round trip. A worker runs
//! one such statement after the other, so it gives its connection back only when the pool has something to decide: after an error, after a rest, when
//! connections are suspected to be dead, and now and then.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::{AssertSqlSafe, Error as SqlxError, PgPool, Postgres, query_with};
use sea_orm::{ConnAcquireErr, DbErr, QueryResult, RuntimeErr, Statement, Values};
use sea_query_sqlx::SqlxValues;

use crate::database::lock;
use crate::postgres::{Suspicion, WORKER_PING_AFTER_IDLE};

/// Then it goes back, so that the pool can replace it when it is old.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// The connections of one pool that are kept. Cheap to clone.
#[derive(Clone)]
pub(crate) struct KeptConnections {
    pool: PgPool,
    suspicion: Suspicion,
    /// As many at most as statements run at once.
    resting: Arc<Resting>,
}

/// `None` once nothing is to be kept any more.
struct Resting(Mutex<Option<Vec<Kept>>>);

struct Kept {
    connection: PoolConnection<Postgres>,
    since: Instant,
    used: Instant,
}

impl KeptConnections {
    pub(crate) fn of(pool: PgPool, suspicion: &Suspicion) -> Self {
        Self { pool, suspicion: suspicion.clone(), resting: Arc::new(Resting(Mutex::new(Some(Vec::new())))) }
    }

    /// As sea-orm's method of that name.
    pub(crate) async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut kept = self.take().await?;
        let values = SqlxValues(statement.values.unwrap_or_else(|| Values(Vec::new())));
        let query = query_with(AssertSqlSafe(statement.sql), values);
        // After an error, and when nobody waits any longer, it goes back to the pool.
        let rows =
            query.fetch_all(&mut *kept.connection).await.map_err(|error| DbErr::Query(RuntimeErr::SqlxError(error.into())))?;
        kept.used = Instant::now();
        if let Some(resting) = &mut *lock(&self.resting.0) {
            resting.push(kept);
        }
        Ok(rows.into_iter().map(QueryResult::from).collect())
    }

    async fn take(&self) -> Result<Kept, DbErr> {
        let resting = lock(&self.resting.0).as_mut().and_then(Vec::pop);
        if let Some(kept) = resting.filter(|kept| self.is_good(kept)) {
            return Ok(kept);
        }
        let connection = self.pool.acquire().await.map_err(acquire_error)?;
        let now = Instant::now();
        Ok(Kept { connection, since: now, used: now })
    }

    fn is_good(&self, kept: &Kept) -> bool {
        kept.used.elapsed() < WORKER_PING_AFTER_IDLE && kept.since.elapsed() < KEPT_FOR && !self.suspicion.is_raised()
    }

    /// For the metrics: of the connections that the pool has handed out, those that do nothing.
    pub(crate) fn resting(&self) -> usize {
        lock(&self.resting.0).as_ref().map_or(0, Vec::len)
    }

    /// Gives back what rests: for who takes connections from the pool itself, and must not find their places occupied.
    pub(crate) fn give_back(&self) {
        let resting = lock(&self.resting.0).as_mut().map(std::mem::take);
        drop(resting);
    }

    /// The same, for good. The pool cannot close before.
    pub(crate) fn close(&self) {
        let resting = lock(&self.resting.0).take();
        drop(resting);
    }
}

impl std::fmt::Debug for KeptConnections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KeptConnections").field(&self.resting()).finish()
    }
}

impl Drop for Resting {
    /// Without a runtime, perhaps, and giving a connection back needs one.
    fn drop(&mut self) {
        for kept in lock(&self.0).take().into_iter().flatten() {
            drop(kept.connection.detach());
        }
    }
}

/// As sea-orm tells it.
fn acquire_error(error: SqlxError) -> DbErr {
    match error {
        SqlxError::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
        SqlxError::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
        error => DbErr::Conn(RuntimeErr::SqlxError(error.into())),
    }
}
