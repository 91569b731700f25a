use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use messaging::{Batch, Broker, BrokerError, Consumer, EmbeddedBroker, Record, TopicPartition, TopicSpec};
use tokio::sync::watch;

/// How an [`OutboxBroker`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Up,
    /// Refuses everything as not available.
    Down,
    /// Takes the records and answers only when the mode changes; then they are acknowledged.
    Silent,
    /// Refuses payloads that say `refused`, for ever.
    Picky,
}

/// Remembers what was published; for relay and sweeper.
pub(crate) struct OutboxBroker {
    mode: watch::Sender<Mode>,
    published: Mutex<Vec<Record>>,
    pub(crate) calls: AtomicUsize,
}

impl OutboxBroker {
    pub(crate) fn new(mode: Mode) -> Arc<Self> {
        Arc::new(Self { mode: watch::Sender::new(mode), published: Mutex::default(), calls: AtomicUsize::new(0) })
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub(crate) fn published(&self) -> Vec<Record> {
        self.published.lock().unwrap().clone()
    }

    /// The payloads in the order of publishing.
    pub(crate) fn payloads(&self) -> Vec<String> {
        self.published().iter().map(|record| String::from_utf8(record.payload.to_vec()).unwrap()).collect()
    }

    /// The payloads as numbers, sorted.
    pub(crate) fn numbers(&self) -> Vec<usize> {
        let mut numbers: Vec<_> = self.payloads().iter().map(|payload| payload.parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }
}

#[async_trait]
impl Broker for OutboxBroker {
    async fn ensure_topics(&self, _: &[TopicSpec]) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn publish(&self, records: &[Record]) -> Vec<Result<(), BrokerError>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut changes = self.mode.subscribe();
        let mode = *changes.borrow_and_update();
        let mut answers = Vec::new();
        for record in records {
            answers.push(match mode {
                Mode::Down => Err(BrokerError::unavailable("down")),
                Mode::Picky if record.payload == "refused" => Err(BrokerError::rejected("picky")),
                Mode::Up | Mode::Silent | Mode::Picky => {
                    self.published.lock().unwrap().push(record.clone());
                    Ok(())
                }
            });
        }
        if mode == Mode::Silent {
            let _ = changes.changed().await;
        }
        answers
    }

    async fn consumer(&self, _: &str, _: &[String]) -> Result<Box<dyn Consumer>, BrokerError> {
        Err(BrokerError::rejected("nothing to consume"))
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        Ok(())
    }
}

/// The embedded broker with faults that can be switched on; for the consumer loop.
#[derive(Clone)]
pub(crate) struct TestBroker {
    pub(crate) inner: EmbeddedBroker,
    pub(crate) faults: Arc<Faults>,
}

#[derive(Default)]
pub(crate) struct Faults {
    /// Nothing can be reached.
    pub(crate) away: AtomicBool,
    pub(crate) publish: AtomicBool,
    /// What is published is refused for ever.
    pub(crate) refuse: AtomicBool,
    pub(crate) store: AtomicBool,
    /// Every partition counts as taken away.
    pub(crate) lost: AtomicBool,
    pub(crate) refused: AtomicUsize,
}

impl Faults {
    fn check(&self, fault: &AtomicBool) -> Result<(), BrokerError> {
        if fault.load(Ordering::SeqCst) || self.away.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(BrokerError::unavailable("switched off by the test"));
        }
        Ok(())
    }
}

impl TestBroker {
    pub(crate) fn new(inner: EmbeddedBroker) -> Self {
        Self { inner, faults: Arc::default() }
    }
}

#[async_trait]
impl Broker for TestBroker {
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BrokerError> {
        self.faults.check(&self.faults.away)?;
        self.inner.ensure_topics(topics).await
    }

    async fn publish(&self, records: &[Record]) -> Vec<Result<(), BrokerError>> {
        if self.faults.refuse.load(Ordering::SeqCst) {
            return records.iter().map(|_| Err(BrokerError::rejected("not that"))).collect();
        }
        match self.faults.check(&self.faults.publish) {
            Ok(()) => self.inner.publish(records).await,
            Err(error) => records.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn consumer(&self, group: &str, topics: &[String]) -> Result<Box<dyn Consumer>, BrokerError> {
        self.faults.check(&self.faults.away)?;
        let inner = self.inner.consumer(group, topics).await?;
        Ok(Box::new(TestConsumer { inner, faults: Arc::clone(&self.faults) }))
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        self.inner.ping().await
    }
}

struct TestConsumer {
    inner: Box<dyn Consumer>,
    faults: Arc<Faults>,
}

#[async_trait]
impl Consumer for TestConsumer {
    async fn next_batch(&mut self, max: usize) -> Result<Batch, BrokerError> {
        self.inner.next_batch(max).await
    }

    async fn ready_batch(&mut self, max: usize) -> Result<Option<Batch>, BrokerError> {
        self.inner.ready_batch(max).await
    }

    async fn store(&mut self, batch: &Batch, done: usize) -> Result<(), BrokerError> {
        if self.faults.lost.load(Ordering::SeqCst) {
            return Err(BrokerError::PartitionLost(batch.source.clone()));
        }
        self.faults.check(&self.faults.store)?;
        self.inner.store(batch, done).await
    }

    async fn hold(&mut self, batch: &Batch, from: usize) -> Result<(), BrokerError> {
        self.inner.hold(batch, from).await
    }

    async fn resume(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        self.inner.resume(partition).await
    }

    async fn close(self: Box<Self>) -> Result<(), BrokerError> {
        self.inner.close().await
    }
}
