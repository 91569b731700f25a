//! Apache Kafka, through librdkafka (feature `kafka`).
//!
//! What holds:
//!
//! * A publish is acknowledged by every in-sync replica (`acks=all`) of an idempotent producer: its own retries neither
//!   double nor reorder. Records of all calls share one bounded queue and travel together.
//! * A group's partitions are spread over its members and move with as little standstill as the protocol allows
//!   (`cooperative-sticky`). A partition moves only while its consumer asks for a batch, never while one is being applied;
//!   offsets stored before are committed before it goes. Where a transaction gathers batches of several partitions, one of
//!   them may move while the next is asked for: its new owner applies that batch, too, and here its offset is refused.
//! * An offset is stored only for a partition that is this member's, in the assignment that its batch is from.
//! * Nobody has to be up first, and everything recovers by itself: brokers that come back, topics that are created
//!   later, or deleted and created again.
//!
//! librdkafka's own log lines go to `tracing` with the target `librdkafka`.
//!
//! Known limit: a topic that is deleted and created again within the fraction of a second that a consumer needs to
//! notice, and that by then has more records than the consumer had read of the old one, is read on from the old
//! position (librdkafka does not reset it yet).

mod consumer;
mod error;
mod lag;
mod log;
mod membership;
mod options;
mod producer;
mod topics;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use rdkafka::ClientConfig;

use crate::broker::{Broker, BrokerError, Consumer, TopicSpec};
use crate::message::Record;
use consumer::KafkaConsumer;
use lag::LagProbe;
use producer::Publisher;

pub use options::{DEFAULT_DELIVERY_TIMEOUT, KafkaOptions, KafkaOptionsError};

/// A Kafka cluster. Cheap to clone; all clones share one producer.
#[derive(Clone, Debug)]
pub struct KafkaBroker {
    inner: Arc<Inner>,
}

struct Inner {
    options: KafkaOptions,
    publisher: Publisher,
    consumer_config: ClientConfig,
    /// A topic that exists, to be asked for when only the answer matters.
    some_topic: OnceLock<String>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("options", &self.options).finish_non_exhaustive()
    }
}

impl KafkaBroker {
    /// Checks the options and starts a producer. Waits for nobody: the brokers may come later.
    ///
    /// # Errors
    /// If the options cannot work, among them TLS in a build without it.
    pub fn new(options: KafkaOptions) -> Result<Self, KafkaOptionsError> {
        let consumer_config = options.consumer_config()?;
        let publisher = Publisher::start(options.producer_config()?, options.delivery_timeout)?;
        let inner = Inner { options, publisher, consumer_config, some_topic: OnceLock::new() };
        Ok(Self { inner: Arc::new(inner) })
    }
}

#[async_trait]
impl Broker for KafkaBroker {
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BrokerError> {
        let inner = &self.inner;
        topics::ensure(inner.publisher.producer()?, &inner.options, topics).await?;
        if let Some(topic) = topics.first() {
            inner.some_topic.get_or_init(|| topic.name.clone());
        }
        Ok(())
    }

    async fn publish(&self, records: &[Record]) -> Vec<Result<(), BrokerError>> {
        self.inner.publisher.publish(records).await
    }

    async fn consumer(&self, group: &str, topics: &[String]) -> Result<Box<dyn Consumer>, BrokerError> {
        topics::require(self.inner.publisher.producer()?, topics).await?;
        let mut config = self.inner.consumer_config.clone();
        config.set("group.id", group);
        let lag = LagProbe::start(Arc::downgrade(&self.inner), group);
        Ok(Box::new(KafkaConsumer::join(&config, topics, lag)?))
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        topics::ping(self.inner.publisher.producer()?, self.inner.some_topic.get().cloned()).await
    }
}

/// What librdkafka has no asynchronous call for, on a thread that may wait. Each call is bounded in time.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, BrokerError> + Send + 'static) -> Result<T, BrokerError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(BrokerError::unavailable(error)))
}

/// Destroys a client on a thread of its own: it may take a second, and a runtime that is shutting down does not wait.
fn drop_aside<T: Send + 'static>(client: T) {
    // Without a thread to be had, it is destroyed right here.
    let _ = std::thread::Builder::new().name("kafka-drop".to_owned()).spawn(move || drop(client));
}
