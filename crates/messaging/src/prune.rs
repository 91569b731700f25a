//! Removes old claims from an inbox, in bounded batches, so that the table stays small.

use std::time::Duration;

use database::{Database, DatabaseError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::inbox::{self, InboxTable};

/// Rows per transaction: some milliseconds, so that on SQLite nobody waits noticeably for the one writer.
pub const PRUNE_BATCH_ROWS: usize = 500;

/// Batches per round: a round ends in bounded time, and at one round per [`PRUNE_EVERY_BUSY`] it still removes more than
/// any service here can insert.
pub const PRUNE_ROUND_BATCHES: usize = 20;

/// Between two rounds when the last one found everything.
pub const PRUNE_EVERY: Duration = Duration::from_secs(30);

/// Between two rounds when the last one was cut short.
pub const PRUNE_EVERY_BUSY: Duration = Duration::from_secs(1);

/// Prunes one inbox.
#[derive(Clone, Debug)]
pub struct Pruner {
    db: Database,
    table: InboxTable,
    retention: Duration,
}

impl Pruner {
    /// A pruner for claims older than `retention`.
    #[must_use]
    pub fn new(db: Database, table: InboxTable, retention: Duration) -> Self {
        Self { db, table, retention }
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
                    tracing::warn!(table = %self.table, %error, "pruning failed; later again");
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
            tracing::debug!(table = %self.table, rows = round.rows, "pruned");
        }
        Ok(round)
    }

    async fn batch(&self) -> Result<u64, DatabaseError> {
        let (table, retention) = (self.table, self.retention);
        self.db
            .transaction("prune", move |tx| {
                Box::pin(async move { Ok(inbox::prune_claims_batch(tx, table, retention, PRUNE_BATCH_ROWS).await?) })
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
