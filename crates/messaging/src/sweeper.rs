//! Publishes what was left: after a crash, a full relay, a broker outage.
//!
//! Every replica sweeps. Steps: claim due rows by moving their next attempt forward, committed → publish them → remove
//! those that were acknowledged. No lock is held while publishing, so there is no leader and no lease. A row may be
//! published twice (a claimer that is slow, or dies before it removes); receivers have an inbox for that.

use std::sync::Arc;
use std::time::Duration;

use database::{Database, DatabaseError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::gate::Gate;
use crate::outbox::{self, Backlog, OutboxRow, OutboxTable, RetrySchedule};
use crate::publish::{Outage, publish_rows};
use crate::relay::remove;

/// How a sweeper behaves.
#[derive(Clone, Debug)]
pub struct SweeperOptions {
    /// How often it looks when there was nothing left to do. One cheap read each time.
    pub poll: Duration,
    /// Rows per claim: one transaction, one publish call.
    pub claim_rows: usize,
    /// Rows per claim while the broker is not available: enough to notice that it is back, few enough that all others
    /// are still due when it is.
    pub probe_rows: usize,
    /// When a claimed row is due again.
    pub retry: RetrySchedule,
    /// How long a publish call may take.
    pub publish_timeout: Duration,
}

impl Default for SweeperOptions {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            claim_rows: 500,
            probe_rows: 10,
            retry: RetrySchedule { min: Duration::from_secs(5), max: Duration::from_secs(60) },
            publish_timeout: Duration::from_secs(30),
        }
    }
}

/// From this attempt on a row is counted as stuck in the metrics: the outage is long, or the row is one that the broker
/// does not take.
const STUCK_FROM_ATTEMPT: i32 = 5;

/// What one sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Rows that nobody else cares for until they are due again.
    pub claimed: usize,
    /// Of those, acknowledged by the broker and removed.
    pub published: usize,
}

/// Sweeps one outbox.
pub struct Sweeper {
    db: Database,
    table: OutboxTable,
    broker: Arc<dyn Broker>,
    options: SweeperOptions,
    outage: Outage,
}

impl Sweeper {
    /// A sweeper that is not started.
    pub fn new(db: Database, table: OutboxTable, broker: Arc<dyn Broker>, options: SweeperOptions) -> Self {
        Self { db, table, broker, options, outage: Outage::new(table) }
    }

    /// Sweeps on a task of its own until `shutdown`, which does not wait for a broker that is away: what a sweep has claimed is due
    /// again later. `gate` holds it between two sweeps.
    #[must_use]
    pub fn start(self, shutdown: CancellationToken, gate: Gate) -> JoinHandle<()> {
        tokio::spawn(self.run(shutdown, gate))
    }

    #[tracing::instrument(name = "sweeper", skip_all, fields(table = %self.table))]
    async fn run(mut self, shutdown: CancellationToken, gate: Gate) {
        loop {
            let Some(pass) = shutdown.run_until_cancelled(gate.pass()).await else {
                return;
            };
            let Some(swept) = shutdown.run_until_cancelled(self.sweep()).await else {
                return;
            };
            let more = match swept {
                // A full claim: more is due, and the broker takes it.
                Ok(sweep) => sweep.claimed >= self.options.claim_rows && !self.outage.is_on(),
                Err(error) => {
                    tracing::warn!(%error, "sweep failed; later again");
                    false
                }
            };
            drop(pass);
            let wait = if more { Duration::ZERO } else { self.options.poll };
            if shutdown.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// One sweep: nothing but a read if nothing is due.
    ///
    /// # Errors
    /// What the database says. Rows that were claimed before are due again later.
    pub async fn sweep(&mut self) -> Result<Sweep, DatabaseError> {
        let backlog = outbox::due_backlog(self.db.reader(), self.table).await?;
        self.report(backlog);
        if backlog.rows == 0 {
            return Ok(Sweep::default());
        }
        let rows = self.claim().await?;
        let claimed = rows.len();
        if claimed == 0 {
            return Ok(Sweep::default());
        }
        let outcome = publish_rows(&*self.broker, self.table, rows, self.options.publish_timeout).await;
        self.outage.note(outcome.failure);
        let published = outcome.acknowledged.len();
        metrics::counter!("messaging_sweeper_published_total", "outbox" => self.table.0).increment(published as u64);
        tracing::info!(claimed, published, "swept rows that were left in the outbox");
        if published > 0 {
            remove(&self.db, self.table, &outcome.acknowledged).await?;
        }
        Ok(Sweep { claimed, published })
    }

    async fn claim(&self) -> Result<Vec<OutboxRow>, DatabaseError> {
        let limit = if self.outage.is_on() { self.options.probe_rows } else { self.options.claim_rows };
        let (table, retry) = (self.table, self.options.retry);
        let claimed = self
            .db
            .transaction("sweep", move |tx| {
                Box::pin(async move { Ok::<_, DatabaseError>(outbox::claim_due_batch(tx, table, limit, retry).await?) })
            })
            .await?;
        let stuck = claimed.iter().filter(|row| row.attempts >= STUCK_FROM_ATTEMPT).count();
        metrics::counter!("messaging_sweeper_stuck_rows_total", "outbox" => table.0).increment(stuck as u64);
        Ok(claimed.into_iter().map(|claimed| claimed.row).collect())
    }

    #[expect(clippy::cast_precision_loss, reason = "a count up to ten thousand, an age far below 2^52 ms")]
    fn report(&self, backlog: Backlog) {
        metrics::gauge!("messaging_outbox_due_rows", "outbox" => self.table.0).set(backlog.rows as f64);
        metrics::gauge!("messaging_outbox_oldest_due_age_seconds", "outbox" => self.table.0)
            .set(backlog.oldest_age_ms as f64 / 1000.0);
    }
}
