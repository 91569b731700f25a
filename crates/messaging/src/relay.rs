//! Publishes what this process committed, straight from memory, and removes it from its outbox.
//!
//! Steps: rows are handed over after their commit ([`RelayHandle::committed`]) → as many as wait go into one publish
//! call, without waiting for the calls before it → acknowledged rows are removed, many per statement. A row
//! that is not acknowledged, does not fit into the queue, or is here when the process dies is still in its table, and a
//! sweeper takes care of it. So nothing here needs to be retried, and nothing here ever makes a caller wait.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use database::{Database, DatabaseError};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::broker::Broker;
use crate::gate::{Gate, Pass};
use crate::outbox::{OutboxRow, OutboxTable, remove_batch};
use crate::publish::{Outage, publish_rows};

/// The bounds of a relay.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// Rows that may wait in memory. Beyond this the broker is slower than the service, and the table is the better
    /// queue.
    pub queue_rows: usize,
    /// Rows per publish call.
    pub publish_rows: usize,
    /// Publish calls that may wait for their acknowledgement at the same time.
    pub publishes_in_flight: usize,
    /// How long a publish call may take before its rows are left to a sweeper.
    pub publish_timeout: Duration,
    /// How long the first acknowledged row waits for others to be removed with it. Removing takes its turn on the same
    /// database as the live path, so it should be rare; sweepers look only after
    /// [`FIRST_ATTEMPT_AFTER`](crate::outbox::FIRST_ATTEMPT_AFTER), so it need not be quick.
    pub remove_after: Duration,
    /// Rows per removing statement.
    pub remove_rows: usize,
    /// How long shutting down may take to publish and remove what is here.
    pub shutdown_grace: Duration,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            queue_rows: 10_000,
            publish_rows: 500,
            publishes_in_flight: 8,
            publish_timeout: Duration::from_secs(30),
            remove_after: Duration::from_millis(100),
            remove_rows: 1_000,
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// Acknowledged rows that may wait to be removed while the database is away; the oldest are given up beyond it, and
/// published once more by a sweeper.
const MAX_UNREMOVED_ROWS: usize = 50_000;

/// After removing failed: the database is away, and nothing is lost by waiting.
const REMOVE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Hands committed rows to the relay. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RelayHandle {
    table: OutboxTable,
    queue: mpsc::Sender<OutboxRow>,
}

impl RelayHandle {
    /// Call it after the commit, with the rows that were inserted. Never waits: what does not fit into the queue is left
    /// to the sweepers.
    pub fn committed(&self, rows: Vec<OutboxRow>) {
        let mut left = 0_u64;
        for row in rows {
            left += u64::from(self.queue.try_send(row).is_err());
        }
        if left > 0 {
            metrics::counter!("messaging_relay_left_to_sweeper_total", "outbox" => self.table.0).increment(left);
            tracing::debug!(table = %self.table, rows = left, "relay full or shut down; rows left to the sweeper");
        }
    }
}

/// The relay of one outbox.
pub struct Relay {
    table: OutboxTable,
    db: Database,
    broker: Arc<dyn Broker>,
    options: RelayOptions,
    gate: Gate,
    queue: mpsc::Receiver<OutboxRow>,
    /// Taken from the queue, not yet handed to the broker.
    taken: Vec<OutboxRow>,
    publishing: FuturesUnordered<Publishing>,
    acknowledged: VecDeque<Uuid>,
    /// When to remove; set while something is acknowledged and not removed.
    remove_at: Option<Instant>,
    removing: Option<Removing>,
    outage: Outage,
}

type Publishing = Pin<Box<dyn Future<Output = Published> + Send>>;
type Removing = Pin<Box<dyn Future<Output = (Vec<Uuid>, Result<(), DatabaseError>)> + Send>>;

struct Published {
    acknowledged: Vec<Uuid>,
    failure: Option<crate::publish::Failure>,
    /// Held from taking the rows until they are answered.
    _pass: Pass,
}

impl Relay {
    /// Starts it on a task, which ends after `shutdown` once everything handed over before is published and removed, or
    /// the grace time is over. Cancel `shutdown` when nothing commits rows any more; rows handed over later are left to
    /// the sweepers. A closed `gate` keeps rows in the queue.
    pub fn start(
        db: Database,
        table: OutboxTable,
        broker: Arc<dyn Broker>,
        options: RelayOptions,
        shutdown: CancellationToken,
        gate: Gate,
    ) -> (RelayHandle, JoinHandle<()>) {
        let (sender, queue) = mpsc::channel(options.queue_rows.max(1));
        let handle = RelayHandle { table, queue: sender };
        let relay = Self {
            table,
            db,
            broker,
            gate,
            queue,
            taken: Vec::with_capacity(options.publish_rows),
            publishing: FuturesUnordered::new(),
            acknowledged: VecDeque::new(),
            remove_at: None,
            removing: None,
            outage: Outage::new(table),
            options,
        };
        (handle, tokio::spawn(relay.run(shutdown)))
    }

    #[tracing::instrument(name = "relay", skip_all, fields(table = %self.table))]
    async fn run(mut self, shutdown: CancellationToken) {
        let mut deadline: Option<Instant> = None;
        // Set once every handle is gone, or the queue was closed, and nothing is left in it.
        let mut queue_ended = false;
        while !(queue_ended && self.is_idle()) {
            let room = self.publishing.len() < self.options.publishes_in_flight;
            tokio::select! {
                // In this order: what is under way is polled before more is started, which keeps the order of publish
                // calls, and removals are started before more rows are taken, which keeps them from piling up.
                biased;
                () = shutdown.cancelled(), if deadline.is_none() => {
                    self.queue.close();
                    deadline = Some(Instant::now() + self.options.shutdown_grace);
                    self.remove_at = self.remove_at.map(|_| Instant::now());
                }
                () = sleep_until(deadline) => {
                    tracing::warn!(
                        unpublished = self.queue.len() + self.taken.len(),
                        "grace time is over; the sweeper publishes the rest"
                    );
                    return;
                }
                Some(published) = self.publishing.next() => self.settle(published, deadline.is_some()),
                (ids, result) = wait_for(&mut self.removing) => self.removed(ids, result),
                () = sleep_until(self.remove_at), if self.removing.is_none() => self.remove(),
                pass = self.gate.pass(), if room && !self.taken.is_empty() => self.publish(pass),
                taken = self.queue.recv_many(&mut self.taken, self.options.publish_rows),
                    if !queue_ended && self.taken.is_empty() => queue_ended = taken == 0,
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.taken.is_empty() && self.publishing.is_empty() && self.acknowledged.is_empty() && self.removing.is_none()
    }

    fn publish(&mut self, pass: Pass) {
        let rows = std::mem::replace(&mut self.taken, Vec::with_capacity(self.options.publish_rows));
        let broker = Arc::clone(&self.broker);
        let (table, timeout) = (self.table, self.options.publish_timeout);
        self.publishing.push(Box::pin(async move {
            let outcome = publish_rows(&*broker, table, rows, timeout).await;
            Published { acknowledged: outcome.acknowledged, failure: outcome.failure, _pass: pass }
        }));
    }

    fn settle(&mut self, published: Published, hurry: bool) {
        metrics::counter!("messaging_relay_published_total", "outbox" => self.table.0)
            .increment(published.acknowledged.len() as u64);
        self.outage.note(published.failure);
        if published.acknowledged.is_empty() {
            return;
        }
        self.acknowledged.extend(published.acknowledged);
        let full = self.acknowledged.len() >= self.options.remove_rows;
        let wait = if full || hurry { Duration::ZERO } else { self.options.remove_after };
        let remove_at = Instant::now() + wait;
        self.remove_at = Some(self.remove_at.map_or(remove_at, |earlier| earlier.min(remove_at)));
    }

    fn remove(&mut self) {
        self.remove_at = None;
        let count = self.acknowledged.len().min(self.options.remove_rows);
        if count == 0 {
            return;
        }
        let ids: Vec<Uuid> = self.acknowledged.drain(..count).collect();
        let (db, table) = (self.db.clone(), self.table);
        self.removing = Some(Box::pin(async move {
            let result = remove(&db, table, &ids).await;
            (ids, result)
        }));
    }

    fn removed(&mut self, ids: Vec<Uuid>, result: Result<(), DatabaseError>) {
        self.removing = None;
        match result {
            Ok(()) => {
                // What came meanwhile has its own time already.
                if !self.acknowledged.is_empty() {
                    self.remove_at.get_or_insert_with(Instant::now);
                }
            }
            Err(error) => {
                tracing::warn!(%error, rows = ids.len(), "could not remove published rows; trying again");
                self.acknowledged.extend(ids);
                let given_up = self.acknowledged.len().saturating_sub(MAX_UNREMOVED_ROWS);
                self.acknowledged.drain(..given_up);
                self.remove_at = Some(Instant::now() + REMOVE_RETRY_AFTER);
            }
        }
    }
}

/// In a transaction of its own.
pub(crate) async fn remove(db: &Database, table: OutboxTable, ids: &[Uuid]) -> Result<(), DatabaseError> {
    if ids.is_empty() {
        return Ok(());
    }
    remove_batch(db.backend(), table, ids).run(db, "remove published").await.map(drop)
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => pending().await,
    }
}

async fn wait_for<F: Future + Unpin>(running: &mut Option<F>) -> F::Output {
    match running {
        Some(running) => running.await,
        None => pending().await,
    }
}
