//! What this crate needs of a broker.
//!
//! Two adapters stand behind these traits and pass one contract test suite. The traits are cut so that a client with
//! rebalancing fits: the consumer loop never keeps a batch while it waits. A batch that cannot be applied now is handed
//! back ([`Consumer::hold`]), so a partition that is taken away leaves nothing behind but a refused
//! [`Consumer::store`].

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;

use crate::message::{Delivery, Record};

/// Partitions of a topic unless said otherwise: enough for six consumers in parallel, few enough to poll cheaply.
pub const DEFAULT_PARTITIONS: i32 = 6;

/// What is appended to a topic's name for its dead letters.
pub const DEAD_LETTER_SUFFIX: &str = ".dlq";

/// The largest record, key and headers included, that any broker behind these traits takes: just under what a Kafka
/// broker takes unless configured otherwise.
pub const MAX_RECORD_BYTES: usize = 1_000_000;

/// What a record for a dead-letter topic may have beyond [`MAX_RECORD_BYTES`], so that the headers that a dead letter
/// adds never make it too large to be put away.
pub const DEAD_LETTER_EXTRA_BYTES: usize = 64 * 1024;

/// The largest record that `topic` takes.
#[must_use]
pub fn max_record_bytes(topic: &str) -> usize {
    if topic.ends_with(DEAD_LETTER_SUFFIX) { MAX_RECORD_BYTES + DEAD_LETTER_EXTRA_BYTES } else { MAX_RECORD_BYTES }
}

/// The name of the topic that takes the dead letters of `topic`.
#[must_use]
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}{DEAD_LETTER_SUFFIX}")
}

/// A topic that has to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions it is created with; an existing topic keeps what it has.
    pub partitions: i32,
}

impl TopicSpec {
    /// A topic with [`DEFAULT_PARTITIONS`].
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), partitions: DEFAULT_PARTITIONS }
    }

    /// The topic for this topic's dead letters: one partition, because a person reads it in order and it is small.
    #[must_use]
    pub fn dead_letters(&self) -> Self {
        Self { name: dead_letter_topic(&self.name), partitions: 1 }
    }
}

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// From 0.
    pub partition: i32,
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// Deliveries of one partition in offset order; never empty.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where they are from.
    pub source: TopicPartition,
    /// In the order of the partition.
    pub deliveries: Vec<Delivery>,
    /// Which assignment of the partition to this consumer they belong to; only the consumer that made it reads it.
    pub assignment: u64,
    /// The offset after the partition's last record, if the consumer knows it without asking: for the lag.
    pub end_offset: Option<i64>,
}

/// Why a broker did not do something.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The topic does not exist; topics are never created by publishing.
    #[error("topic `{topic}` does not exist")]
    UnknownTopic {
        /// Its name.
        topic: String,
    },
    /// The record is larger than the broker takes; it will never be taken.
    #[error("a record of {size_bytes} bytes for topic `{topic}` is larger than the limit of {max_bytes} bytes")]
    RecordTooLarge {
        /// Where it was to go.
        topic: String,
        /// Key, headers and payload.
        size_bytes: usize,
        /// What is allowed.
        max_bytes: usize,
    },
    /// The group has a consumer already, and this broker has no rebalancing.
    #[error("consumer group `{group}` has a consumer already")]
    GroupInUse {
        /// Its name.
        group: String,
    },
    /// The partition is no longer, or not in the same assignment, this consumer's.
    #[error("partition {0} is no longer assigned to this consumer")]
    PartitionLost(TopicPartition),
    /// The broker cannot be reached or cannot write now: worth trying again.
    #[error("the broker is not available: {0}")]
    Unavailable(#[source] Arc<dyn Error + Send + Sync>),
    /// The broker refused for a reason that trying again does not cure.
    #[error("the broker refused: {0}")]
    Rejected(#[source] Arc<dyn Error + Send + Sync>),
    /// The broker has been closed by this process.
    #[error("the broker is closed")]
    Closed,
}

impl BrokerError {
    /// [`BrokerError::Unavailable`] from any error or text.
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(Arc::from(cause.into()))
    }

    /// [`BrokerError::Rejected`] from any error or text.
    pub fn rejected(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Rejected(Arc::from(cause.into()))
    }

    /// Whether the same call may succeed later without anybody changing anything. An unknown topic counts as passing:
    /// everything may start in any order, and somebody else may be about to create it.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::UnknownTopic { .. } | Self::GroupInUse { .. } => true,
            Self::RecordTooLarge { .. } | Self::PartitionLost(_) | Self::Rejected(_) | Self::Closed => false,
        }
    }
}

/// Publishes records and opens consumers.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Creates the topics that are missing and leaves the others as they are. Safe to call from everywhere at once.
    ///
    /// # Errors
    /// If the broker cannot be reached or refuses.
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BrokerError>;

    /// Publishes records; one answer per record in the same order. `Ok` means durably acknowledged; an error says
    /// nothing about whether the record was written.
    ///
    /// Calls are pipelined: a second call may be made before the first one is answered, and records of calls whose
    /// futures were first polled in that order keep their order per key. Answers come within a bounded time. A caller
    /// that goes away (drops the future) stops nothing that was handed over.
    async fn publish(&self, records: &[Record]) -> Vec<Result<(), BrokerError>>;

    /// Joins a group, at the offsets it has stored, or at the earliest record where it has none.
    ///
    /// # Errors
    /// If the broker cannot be reached, a topic does not exist, or the group is in use and there is no rebalancing.
    async fn consumer(&self, group: &str, topics: &[String]) -> Result<Box<dyn Consumer>, BrokerError>;

    /// Whether the broker answers now, within a bounded time: for readiness.
    ///
    /// # Errors
    /// If it does not.
    async fn ping(&self) -> Result<(), BrokerError>;
}

/// One member of a group. Dropping it leaves the group in the background, with or without flushing stored offsets;
/// [`Consumer::close`] flushes.
#[async_trait]
pub trait Consumer: Send {
    /// Waits for the next deliveries of one partition that is not paused, between 1 and `max` of them; partitions take
    /// turns. Cancel safe: what was not returned is returned by the next call. Must be called regularly, also while
    /// every partition is paused, because a group member that does not poll is thrown out.
    ///
    /// # Errors
    /// Passing faults are the consumer's to ride out. An error means that this consumer is of no use any more and that
    /// a new one is needed.
    async fn next_batch(&mut self, max: usize) -> Result<Batch, BrokerError>;

    /// The same for what is here already: `None`, without waiting for it, when no partition has something.
    ///
    /// # Errors
    /// As for [`Consumer::next_batch`].
    async fn ready_batch(&mut self, max: usize) -> Result<Option<Batch>, BrokerError>;

    /// After the database commit: the first `done` deliveries of the batch, and everything before them in the
    /// partition, need not be delivered to this group again. Not waited for to be durable, so redelivery after a crash
    /// remains possible.
    ///
    /// # Errors
    /// [`BrokerError::PartitionLost`] if the partition was taken away since: somebody else gets the deliveries.
    async fn store(&mut self, batch: &Batch, done: usize) -> Result<(), BrokerError>;

    /// Hands the batch back from its delivery number `from` on and pauses the partition: after
    /// [`Consumer::resume`] those deliveries come first. Nothing happens for a partition that was taken away.
    ///
    /// # Errors
    /// As for [`Consumer::next_batch`].
    async fn hold(&mut self, batch: &Batch, from: usize) -> Result<(), BrokerError>;

    /// Lets a paused partition deliver again. Nothing happens if it is not paused or not ours any more.
    ///
    /// # Errors
    /// As for [`Consumer::next_batch`].
    async fn resume(&mut self, partition: &TopicPartition) -> Result<(), BrokerError>;

    /// Makes the stored offsets durable and leaves the group, within a bounded time.
    ///
    /// # Errors
    /// If the offsets could not be made durable: what was done since is delivered again.
    async fn close(self: Box<Self>) -> Result<(), BrokerError>;
}
