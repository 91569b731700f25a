//! Removes what is old from an outbox or an inbox, in bounded batches, so that the tables stay small.

use std::time::Duration;

use database::{Database, DatabaseError};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement, Value};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::inbox::{self, InboxTable};
use crate::outbox::{self, OutboxTable};
use crate::sql::{bigint, commit_without_sync};

/// Rows per transaction: some milliseconds, so that on SQLite nobody waits noticeably for the one writer.
pub const PRUNE_BATCH_ROWS: usize = 500;

/// Batches per round: a round ends in bounded time, and at one round per [`PRUNE_EVERY_BUSY`] it still removes more than
/// any service here can insert.
pub const PRUNE_ROUND_BATCHES: usize = 20;

/// Between two rounds when the last one found everything.
pub const PRUNE_EVERY: Duration = Duration::from_secs(30);

/// Between two rounds when the last one was cut short.
pub const PRUNE_EVERY_BUSY: Duration = Duration::from_secs(1);

/// What is pruned.
#[derive(Clone, Copy, Debug)]
pub enum PruneTarget {
    /// Processed rows.
    Outbox(OutboxTable),
    /// Claims.
    Inbox(InboxTable),
}

/// Prunes one table.
#[derive(Clone, Debug)]
pub struct Pruner {
    db: Database,
    target: PruneTarget,
    retention: Duration,
}

impl Pruner {
    /// A pruner for rows older than `retention`.
    #[must_use]
    pub fn new(db: Database, target: PruneTarget, retention: Duration) -> Self {
        Self { db, target, retention }
    }

    /// Prunes now and then on a task until `shutdown`. Every replica may do so: they skip each other's rows.
    #[must_use]
    pub fn start(self, shutdown: CancellationToken) -> JoinHandle<()> {
        tokio::spawn(async move {
            shutdown.run_until_cancelled(self.run()).await;
        })
    }

    async fn run(&self) {
        let mut wait = PRUNE_EVERY;
        loop {
            tokio::time::sleep(wait).await;
            wait = match self.round().await {
                Ok(round) if round.cut_short => PRUNE_EVERY_BUSY,
                Ok(_) => PRUNE_EVERY,
                Err(error) => {
                    tracing::warn!(target = ?self.target, %error, "pruning failed; later again");
                    PRUNE_EVERY
                }
            };
        }
    }

    /// One round: batches until nothing old is left, at most [`PRUNE_ROUND_BATCHES`].
    ///
    /// # Errors
    /// What the database says; batches before stay pruned.
    pub async fn round(&self) -> Result<PruneRound, DatabaseError> {
        let mut round = PruneRound { rows: 0, cut_short: false };
        for _ in 0..PRUNE_ROUND_BATCHES {
            let removed = self.batch().await?;
            round.rows += removed;
            round.cut_short = removed == PRUNE_BATCH_ROWS as u64;
            if !round.cut_short {
                break;
            }
        }
        if round.rows > 0 {
            tracing::debug!(target = ?self.target, rows = round.rows, "pruned");
        }
        Ok(round)
    }

    async fn batch(&self) -> Result<u64, DatabaseError> {
        let (target, retention) = (self.target, self.retention);
        self.db
            .transaction("prune", move |tx| {
                Box::pin(async move {
                    commit_without_sync(tx).await?;
                    let removed = match target {
                        PruneTarget::Outbox(table) => {
                            outbox::prune_processed_batch(tx, table, retention, PRUNE_BATCH_ROWS).await?
                        }
                        PruneTarget::Inbox(table) => inbox::prune_claims_batch(tx, table, retention, PRUNE_BATCH_ROWS).await?,
                    };
                    Ok(removed)
                })
            })
            .await
    }
}

/// What a round did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneRound {
    /// Rows removed.
    pub rows: u64,
    /// Whether it ended by its bound, with probably more to remove.
    pub cut_short: bool,
}

/// Deletes the first `limit` rows that meet `is_old`, in the order of an indexed column; rows that another replica holds are skipped.
/// `is_old` may use `$2` and on for `values`.
pub(crate) async fn delete_old_batch<C: ConnectionTrait>(
    tx: &C,
    (table, key): (&str, &str),
    (is_old, order): (&str, &str),
    limit: usize,
    values: Vec<Value>,
) -> Result<u64, DbErr> {
    let backend = tx.get_database_backend();
    let old = format!("SELECT {key} FROM {table} WHERE {is_old} ORDER BY {order} LIMIT $1");
    let sql = match backend {
        // Materialized, because a plan may otherwise run a limited subquery once per row.
        DbBackend::Postgres => format!(
            "WITH old AS MATERIALIZED ({old} FOR UPDATE SKIP LOCKED)
             DELETE FROM {table} AS t USING old WHERE t.{key} = old.{key}"
        ),
        _ => format!("DELETE FROM {table} WHERE {key} IN ({old})"),
    };
    let values = std::iter::once(bigint(limit)).chain(values);
    let done = tx.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    Ok(done.rows_affected())
}
