//! The consumer loop: what one or several partitions have ready → one transaction → commit → [`Handler::committed`] →
//! offsets stored. In this order, so a crash anywhere delivers again and never loses; the handler makes redelivery
//! harmless (see [`crate::inbox`]). The transaction may be a single statement ([`Handler::make_ready`]).
//!
//! What one partition has beyond a transaction is a batch of several parts. Each goes this way, one after the other, and while the database works on
//! one the next one is made ready. A turn of a partition is a few transactions; what is left of its batch is handed back.
//!
//! What can go wrong, and what happens then:
//!
//! * **Anything, while several partitions share the transaction**: it is rolled back, and each is applied alone, as
//!   follows, so that trouble in one is not the others'.
//! * **Transient** errors (connection, lock, serialization, broker away): the partition is paused and handed back, the
//!   others go on, and it is tried again with growing waits and in smaller parts, for ever.
//! * **Permanent** errors: the batch is bisected until the one message is found. The good parts are applied in order,
//!   each in a transaction of its own; the one message goes to the dead-letter topic, acknowledged before its offset is
//!   stored. A panic in a handler is a permanent error of the message that causes it: panics come from data far more
//!   often than from the weather, and retrying one for ever would hold the partition for ever.
//! * **Many dead letters in a row**, or one that the broker will never take: something else than the messages is
//!   broken. The loop leaves the group and waits for [`ConsumerHandle::resume`] (or a restart), with [`ConsumerStatus::Stopped`] for readiness to report.
//!
//! The loop keeps no batch from one transaction to the next: what is in hand is finished, or handed back, and a batch waiting for
//! its retry is in the broker, not here. A partition that a rebalance takes away while others are gathered beside it is applied
//! by its new owner as well, which changes nothing twice; its offset is not stored here.
//!
//! Deliberately absent: a time limit around a handler. The database's own timeouts bound it, and giving up on a
//! transaction that may yet commit would only hide its outcome.

mod bisect;
mod dead_letter;
mod handler;
mod part;
mod session;

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use database::Database;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError, Consumer, TopicSpec};
use crate::gate::Gate;

pub use dead_letter::{DeadLetter, header as dead_letter_header};
pub use handler::{BoxError, Handler, HandlerError, Ready};
use session::{End, Session};

/// How a consumer loop behaves.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// The consumer group.
    pub group: String,
    /// The topics to read. They and their dead-letter topics are created if they are missing.
    pub topics: Vec<TopicSpec>,
    /// Deliveries per transaction at most. Large enough to spread one durable commit over many messages, small enough
    /// for a transaction of some ten milliseconds.
    pub transaction_deliveries: usize,
    /// Transactions in one turn of a partition at most, but for what has to be bisected: what is taken from it at once is applied, and stored, part by part, and
    /// while the database works on one part the next one is made ready. Large enough to keep the database busy, small enough that other partitions' turn comes soon.
    pub batch_transactions: usize,
    /// So many dead letters in a row, in one partition or over all, stop the loop; the same event again is not one more.
    pub max_dead_letters_in_a_row: usize,
    /// The first wait after a transient error; it doubles.
    pub retry_min: Duration,
    /// The longest wait between two tries: how stale a partition may be after the cause is gone.
    pub retry_max: Duration,
}

/// Default of [`ConsumerOptions::transaction_deliveries`].
pub const DEFAULT_TRANSACTION_DELIVERIES: usize = 500;
/// Default of [`ConsumerOptions::batch_transactions`]: three of four parts are made ready ahead.
pub const DEFAULT_BATCH_TRANSACTIONS: usize = 4;
/// Default of [`ConsumerOptions::max_dead_letters_in_a_row`]: more than a client's bad afternoon, far less than a topic.
pub const DEFAULT_MAX_DEAD_LETTERS_IN_A_ROW: usize = 20;
/// Default of [`ConsumerOptions::retry_min`]: a lock timeout's successor should not wait long.
pub const DEFAULT_RETRY_MIN: Duration = Duration::from_millis(100);
/// Default of [`ConsumerOptions::retry_max`].
pub const DEFAULT_RETRY_MAX: Duration = Duration::from_secs(5);

impl ConsumerOptions {
    /// The defaults for a group and its topics.
    #[must_use]
    pub fn new(group: impl Into<String>, topics: Vec<TopicSpec>) -> Self {
        Self {
            group: group.into(),
            topics,
            transaction_deliveries: DEFAULT_TRANSACTION_DELIVERIES,
            batch_transactions: DEFAULT_BATCH_TRANSACTIONS,
            max_dead_letters_in_a_row: DEFAULT_MAX_DEAD_LETTERS_IN_A_ROW,
            retry_min: DEFAULT_RETRY_MIN,
            retry_max: DEFAULT_RETRY_MAX,
        }
    }

    /// What is taken from a partition at once, at most.
    fn batch_deliveries(&self) -> usize {
        self.transaction_deliveries.saturating_mul(self.batch_transactions)
    }

    /// Growing waits with jitter, for ever. One per partition and one for joining the group.
    fn backoff(&self) -> ExponentialBackoff {
        ExponentialBuilder::new()
            .with_min_delay(self.retry_min)
            .with_max_delay(self.retry_max)
            .with_jitter()
            .without_max_times()
            .build()
    }
}

/// What a consumer loop is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerStatus {
    /// Joining its group, again and again until the broker answers; `waiting_for` says why it is not there yet.
    Starting {
        /// The last error.
        waiting_for: Option<String>,
    },
    /// A member of its group.
    Running,
    /// Too many dead letters in a row, or one that cannot be put away; nothing is consumed until it is resumed.
    Stopped {
        /// For a person.
        reason: String,
    },
    /// Shut down.
    Finished,
}

impl ConsumerStatus {
    /// Whether messages are being consumed.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running)
    }
}

/// Watches and resumes a consumer loop.
#[derive(Clone, Debug)]
pub struct ConsumerHandle {
    status: watch::Receiver<ConsumerStatus>,
    resume: Arc<Notify>,
}

impl ConsumerHandle {
    /// The current status.
    #[must_use]
    pub fn status(&self) -> ConsumerStatus {
        self.status.borrow().clone()
    }

    /// To be told of changes. The channel closing without [`ConsumerStatus::Finished`] means that the loop died.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ConsumerStatus> {
        self.status.clone()
    }

    /// Lets a stopped loop start again, at the first message that is not done. No effect on one that is not stopped.
    pub fn resume(&self) {
        self.resume.notify_waiters();
    }
}

/// A consumer loop before it is started.
pub struct ConsumerLoop<H> {
    db: Database,
    broker: Arc<dyn Broker>,
    handler: Arc<H>,
    options: ConsumerOptions,
}

impl<H: Handler> ConsumerLoop<H> {
    /// A loop that applies what `options.topics` brings to `db` through `handler`.
    pub fn new(db: Database, broker: Arc<dyn Broker>, handler: Arc<H>, options: ConsumerOptions) -> Self {
        Self { db, broker, handler, options }
    }

    /// Starts it on a task. On `shutdown` the part in hand is finished and its offset stored, then the task ends.
    /// `gate` holds it between two batches.
    pub fn start(self, shutdown: CancellationToken, gate: Gate) -> (ConsumerHandle, JoinHandle<()>) {
        let status = watch::Sender::new(ConsumerStatus::Starting { waiting_for: None });
        let resume = Arc::new(Notify::new());
        let handle = ConsumerHandle { status: status.subscribe(), resume: Arc::clone(&resume) };
        let running = Running { wiring: self, status, resume, shutdown, gate };
        (handle, tokio::spawn(running.run()))
    }
}

struct Running<H> {
    wiring: ConsumerLoop<H>,
    status: watch::Sender<ConsumerStatus>,
    resume: Arc<Notify>,
    shutdown: CancellationToken,
    gate: Gate,
}

impl<H: Handler> Running<H> {
    /// Join, consume, and again after whatever ended it, until shutdown.
    #[tracing::instrument(name = "consumer", skip_all, fields(group = %self.wiring.options.group))]
    async fn run(self) {
        let mut backoff = self.wiring.options.backoff();
        while !self.shutdown.is_cancelled() {
            let ended = match self.join().await {
                Some(Ok(consumer)) => {
                    self.status.send_replace(ConsumerStatus::Running);
                    tracing::info!("consuming");
                    self.consume(consumer, &mut backoff).await
                }
                Some(Err(error)) => End::Broken(error),
                None => End::Shutdown,
            };
            match ended {
                End::Shutdown => break,
                End::Broken(error) => self.wait_after(&error, &mut backoff).await,
                End::Stopped(reason) => self.wait_for_resume(reason).await,
            }
        }
        self.status.send_replace(ConsumerStatus::Finished);
        tracing::info!("consumer finished");
    }

    /// `None` if shutdown comes first.
    async fn join(&self) -> Option<Result<Box<dyn Consumer>, BrokerError>> {
        let options = &self.wiring.options;
        let joining = async {
            let specs: Vec<_> = options.topics.iter().flat_map(|topic| [topic.clone(), topic.dead_letters()]).collect();
            self.wiring.broker.ensure_topics(&specs).await?;
            let names: Vec<_> = options.topics.iter().map(|topic| topic.name.clone()).collect();
            self.wiring.broker.consumer(&options.group, &names).await
        };
        self.shutdown.run_until_cancelled(joining).await
    }

    async fn consume(&self, consumer: Box<dyn Consumer>, backoff: &mut ExponentialBackoff) -> End {
        let mut session = Session::new(&self.wiring, consumer, &self.shutdown, &self.gate);
        let end = session.run().await;
        if session.made_progress() {
            *backoff = self.wiring.options.backoff();
        }
        // Offsets that cannot be stored now are no loss: those deliveries come again.
        if let Err(error) = session.close().await {
            tracing::warn!(%error, "left the group without storing the last offsets");
        }
        end
    }

    async fn wait_after(&self, error: &BrokerError, backoff: &mut ExponentialBackoff) {
        let wait = backoff.next().unwrap_or(self.wiring.options.retry_max);
        tracing::warn!(%error, ?wait, "no consumer; trying again");
        self.status.send_replace(ConsumerStatus::Starting { waiting_for: Some(error.to_string()) });
        self.shutdown.run_until_cancelled(tokio::time::sleep(wait)).await;
    }

    async fn wait_for_resume(&self, reason: String) {
        // Registered before the status is seen, so that a resume that follows the status is never missed.
        let resumed = self.resume.notified();
        tokio::pin!(resumed);
        resumed.as_mut().enable();
        tracing::error!(%reason, "consumer stopped; it waits to be resumed");
        self.status.send_replace(ConsumerStatus::Stopped { reason });
        self.shutdown.run_until_cancelled(resumed).await;
        self.status.send_replace(ConsumerStatus::Starting { waiting_for: None });
    }
}
