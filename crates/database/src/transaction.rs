//! Write transactions.
//!
//! Order of steps: a task of its own → BEGIN (tried again on a dead connection, nothing has
//! happened yet) → the work → COMMIT. Everything up to the answer of COMMIT that goes wrong, a
//! panic and the time bound included, rolls back; only a COMMIT without answer leaves the outcome
//! unknown, and says so.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sea_orm::metric::Info;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, QueryResult, SqliteTransactionMode, Statement, TransactionOptions,
};
use tokio::task::{JoinError, JoinHandle};
use tracing::Instrument;

use crate::database::{Database, Inner, Store};
use crate::error::{DatabaseError, commit_outcome_is_unknown, is_connection_lost};

/// How often BEGIN is tried when the connection turns out to be dead. The first loss makes the
/// pool test its other connections, so a restarted server costs one attempt; the third is for a
/// server that is just going down.
const BEGIN_ATTEMPTS: u32 = 3;

tokio::task_local! {
    /// Whether a statement of the current transaction failed.
    static STATEMENT_FAILED: Cell<bool>;
}

/// Called by sea-orm after each statement of the writer.
pub(crate) fn note_statement(info: &Info<'_>) {
    if info.failed {
        // Outside of a transaction (a migration) there is nobody to tell.
        let _ = STATEMENT_FAILED.try_with(|failed| failed.set(true));
    }
}

impl Database {
    /// Runs `work` in one write transaction, on a task of its own: a caller that goes away cannot
    /// cancel it half way. `Ok` means that it is committed and durable; on `Err` it is rolled back,
    /// except for [`DatabaseError::OutcomeUnknown`].
    ///
    /// `name` is for logs, metrics (`database_transaction_seconds`) and errors. The work should only
    /// touch the database: on SQLite every other writer waits for it. An error of a statement must
    /// end the work, because PostgreSQL refuses every later statement of the transaction (a nested
    /// transaction, `tx.begin()`, can be used to go on after an expected error).
    ///
    /// # Errors
    ///
    /// What `work` answers, and as `E::from(DatabaseError)`: no connection, a failed COMMIT, a panic,
    /// the time bound.
    ///
    /// ```no_run
    /// # async fn example(db: database::Database) -> Result<(), database::DatabaseError> {
    /// use sea_orm::ConnectionTrait;
    /// db.transaction("close the books", |tx| {
    ///     Box::pin(async move {
    ///         tx.execute_unprepared("UPDATE books SET closed = 1").await?;
    ///         Ok::<_, database::DatabaseError>(())
    ///     })
    /// })
    /// .await
    /// # }
    /// ```
    pub async fn transaction<T, E>(
        &self,
        name: &'static str,
        work: impl for<'t> FnOnce(&'t DatabaseTransaction) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
    {
        let database = self.clone();
        let run = async move {
            let inner = &database.inner;
            let result = STATEMENT_FAILED.scope(Cell::new(false), run(inner, name, work)).await;
            if let Store::Sqlite { writer, wal, .. } = &inner.store
                && wal.is_due()
            {
                let (writer, wal) = (writer.clone(), wal.clone());
                tokio::spawn(async move { wal.empty(&writer).await });
            }
            result
        };
        match spawn(name, run).await {
            Ok(result) => result,
            Err(error) => Err(E::from(match error.try_into_panic() {
                Ok(panic) => DatabaseError::Panicked { transaction: name, message: panic_message(panic.as_ref()) },
                Err(_) => DatabaseError::Cancelled { transaction: name },
            })),
        }
    }

    /// PostgreSQL: runs one statement that writes, as a transaction of its own, in one round trip instead of three: the locks that it takes last
    /// are not held while this side reads its answer and sends COMMIT. On a task of its own, as [`Database::transaction`] does, and with
    /// the same bound in time.
    ///
    /// # Errors
    ///
    /// As of a transaction. From sending the statement on, a lost connection leaves the outcome unknown; nothing is tried again here.
    pub(crate) async fn statement(&self, name: &'static str, statement: Statement) -> Result<Vec<QueryResult>, DatabaseError> {
        let database = self.clone();
        let run = async move { run_statement(&database.inner, name, statement).await };
        let unknown = |error: JoinError| DatabaseError::OutcomeUnknown { transaction: name, reason: error.to_string() };
        spawn(name, run).await.unwrap_or_else(|error| Err(unknown(error)))
    }
}

/// On a task of its own, measured.
fn spawn<T, E>(name: &'static str, run: impl Future<Output = Result<T, E>> + Send + 'static) -> JoinHandle<Result<T, E>>
where
    T: Send + 'static,
    E: Send + 'static,
{
    let measured = async move {
        let started = Instant::now();
        let result = run.await;
        let outcome = if result.is_ok() { "committed" } else { "failed" };
        metrics::histogram!("database_transaction_seconds", "name" => name, "outcome" => outcome).record(started.elapsed());
        result
    };
    tokio::spawn(measured.instrument(tracing::debug_span!("transaction", name)))
}

async fn run_statement(inner: &Inner, name: &'static str, statement: Statement) -> Result<Vec<QueryResult>, DatabaseError> {
    let bound = inner.options.transaction_timeout;
    match tokio::time::timeout(bound, inner.writer.query_all_raw(statement)).await {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(error)) => {
            note_loss(inner, &error);
            // Other errors come from looking for a connection.
            let was_sent = matches!(error, DbErr::Query(_) | DbErr::Exec(_));
            Err(if was_sent { commit_error(name, error) } else { DatabaseError::Db(error) })
        }
        Err(_) => {
            inner.suspicion.raise();
            let reason = DatabaseError::TimedOut { what: name, after: bound }.to_string();
            Err(DatabaseError::OutcomeUnknown { transaction: name, reason })
        }
    }
}

async fn run<T, E>(
    inner: &Inner,
    name: &'static str,
    work: impl for<'t> FnOnce(&'t DatabaseTransaction) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    E: From<DatabaseError>,
{
    let bound = inner.options.transaction_timeout;
    let deadline = tokio::time::Instant::now() + bound;
    let timed_out = || DatabaseError::TimedOut { what: name, after: bound };

    let until_commit = async {
        let tx = begin(inner).await.map_err(DatabaseError::Db)?;
        match work(&tx).await {
            Ok(value) => {
                refuse_hidden_failure(inner, name, &tx).await?;
                Ok((tx, value))
            }
            Err(error) => {
                if let Err(rollback) = tx.rollback().await {
                    // The server rolls back by itself when the connection ends.
                    note_loss(inner, &rollback);
                    tracing::debug!(error = %rollback, "rolling back failed");
                }
                Err(error)
            }
        }
    };
    let (tx, value) = match tokio::time::timeout_at(deadline, until_commit).await {
        Ok(result) => result?,
        Err(_) => {
            // Dropped in the middle of a statement: the pool tests the connection, and closes it if
            // it stays silent.
            inner.suspicion.raise();
            return Err(timed_out().into());
        }
    };

    match tokio::time::timeout_at(commit_deadline(deadline), tx.commit()).await {
        Ok(Ok(())) => Ok(value),
        Ok(Err(error)) => {
            note_loss(inner, &error);
            Err(commit_error(name, error).into())
        }
        Err(_) => {
            inner.suspicion.raise();
            Err(DatabaseError::OutcomeUnknown { transaction: name, reason: timed_out().to_string() }.into())
        }
    }
}

/// COMMIT gets at least this long, even when the work has used up the transaction's time: giving
/// up on it leaves the outcome unknown, which is worse than being late.
const COMMIT_TIME_MIN: Duration = Duration::from_secs(5);

fn commit_deadline(deadline: tokio::time::Instant) -> tokio::time::Instant {
    deadline.max(tokio::time::Instant::now() + COMMIT_TIME_MIN)
}

async fn begin(inner: &Inner) -> Result<DatabaseTransaction, DbErr> {
    let mut attempt = 1;
    loop {
        let options = TransactionOptions {
            // A deferred transaction that reads first and writes later can fail with BUSY in the
            // middle; taking the write lock first cannot.
            sqlite_transaction_mode: (inner.backend == DbBackend::Sqlite).then_some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        match inner.writer.begin(options).await {
            Err(error) if is_connection_lost(&error) => {
                inner.suspicion.raise();
                if attempt == BEGIN_ATTEMPTS {
                    return Err(error);
                }
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// After a failed statement PostgreSQL answers COMMIT with a ROLLBACK that looks like success. A
/// statement in between makes it tell; it is only sent when a statement failed.
async fn refuse_hidden_failure(inner: &Inner, name: &'static str, tx: &DatabaseTransaction) -> Result<(), DatabaseError> {
    if inner.backend != DbBackend::Postgres || !STATEMENT_FAILED.with(Cell::get) {
        return Ok(());
    }
    match tx.execute_unprepared("SELECT 1").await {
        // It failed inside of a nested transaction that was rolled back on purpose.
        Ok(_) => Ok(()),
        Err(source) => Err(DatabaseError::HiddenFailure { transaction: name, source }),
    }
}

fn note_loss(inner: &Inner, error: &DbErr) {
    if is_connection_lost(error) {
        inner.suspicion.raise();
    }
}

fn commit_error(transaction: &'static str, error: DbErr) -> DatabaseError {
    if commit_outcome_is_unknown(&error) {
        DatabaseError::OutcomeUnknown { transaction, reason: error.to_string() }
    } else {
        DatabaseError::Db(error)
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}
