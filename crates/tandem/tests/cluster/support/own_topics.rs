//! Kafka as if this test had it for itself: topics and groups have a prefix that nobody sees, and a group can be moved while it runs.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use async_trait::async_trait;
use messaging::{
    Batch, Broker, BrokerError, Consumer, Delivery, Record, TopicPartition, TopicSpec, embedded::Seek, kafka::KafkaBroker,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
};
use tokio::sync::watch;

use super::until;

/// For one question to the cluster.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A Kafka broker behind a prefix.
pub struct OwnTopics {
    kafka: KafkaBroker,
    brokers: String,
    prefix: String,
    /// What is to be done before a group's next member joins, and the signal for its current one to leave.
    moves: Mutex<HashMap<String, Move>>,
}

struct Move {
    pending: Option<(String, Seek)>,
    leave: watch::Sender<u64>,
}

impl Default for Move {
    fn default() -> Self {
        Self { pending: None, leave: watch::Sender::new(0) }
    }
}

impl OwnTopics {
    pub fn new(kafka: KafkaBroker, brokers: &str, prefix: &str) -> Self {
        Self { kafka, brokers: brokers.to_owned(), prefix: prefix.to_owned(), moves: Mutex::default() }
    }

    /// Moves a group of one member: it leaves, the group's offsets are changed, and it joins again. Returns when it has.
    pub async fn seek(&self, group: &str, topic: &str, to: Seek) {
        {
            let mut moves = self.moves.lock().unwrap();
            let group = moves.entry(group.to_owned()).or_default();
            group.pending = Some((topic.to_owned(), to));
            group.leave.send_modify(|times| *times += 1);
        }
        until("the group has moved", async || self.moves.lock().unwrap()[group].pending.is_none()).await;
    }

    fn outside(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Changes the offsets of a group that has no members, if somebody wants that.
    async fn carry_out_move(&self, group: &str) -> watch::Receiver<u64> {
        let (pending, leave) = {
            let mut moves = self.moves.lock().unwrap();
            let group = moves.entry(group.to_owned()).or_default();
            let pending = group.pending.as_ref().map(|(topic, to)| (self.outside(topic), *to));
            (pending, group.leave.subscribe())
        };
        if let Some((topic, to)) = pending {
            let (brokers, outside) = (self.brokers.clone(), self.outside(group));
            tokio::task::spawn_blocking(move || set_offsets(&brokers, &outside, &topic, to)).await.unwrap();
        }
        leave
    }
}

fn set_offsets(brokers: &str, group: &str, topic: &str, to: Seek) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", group).set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let mut offsets = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), TIMEOUT).unwrap();
        let offset = match to {
            Seek::Start => low,
            Seek::End => high,
        };
        offsets.add_partition_offset(topic, partition.id(), Offset::Offset(offset)).unwrap();
    }
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
}

#[async_trait]
impl Broker for OwnTopics {
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BrokerError> {
        let outside = |topic: &TopicSpec| TopicSpec { name: self.outside(&topic.name), ..topic.clone() };
        self.kafka.ensure_topics(&topics.iter().map(outside).collect::<Vec<_>>()).await
    }

    async fn publish(&self, records: &[Record]) -> Vec<Result<(), BrokerError>> {
        let outside = |record: &Record| Record { topic: self.outside(&record.topic), ..record.clone() };
        self.kafka.publish(&records.iter().map(outside).collect::<Vec<_>>()).await
    }

    async fn consumer(&self, group: &str, topics: &[String]) -> Result<Box<dyn Consumer>, BrokerError> {
        let mut leave = self.carry_out_move(group).await;
        leave.mark_unchanged();
        let topics: Vec<String> = topics.iter().map(|topic| self.outside(topic)).collect();
        let consumer = self.kafka.consumer(&self.outside(group), &topics).await?;
        if let Some(moved) = self.moves.lock().unwrap().get_mut(group) {
            moved.pending = None;
        }
        Ok(Box::new(OwnConsumer { consumer, prefix: self.prefix.clone(), leave }))
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        self.kafka.ping().await
    }
}

struct OwnConsumer {
    consumer: Box<dyn Consumer>,
    prefix: String,
    leave: watch::Receiver<u64>,
}

impl OwnConsumer {
    fn inside(&self, name: &str) -> String {
        name.strip_prefix(&self.prefix).expect("only own topics").to_owned()
    }

    fn outside(&self, partition: &TopicPartition) -> TopicPartition {
        TopicPartition { topic: format!("{}{}", self.prefix, partition.topic), partition: partition.partition }
    }

    /// The batch as the services know it.
    fn batch_inside(&self, batch: &Batch) -> Batch {
        let inside = |delivery: &Delivery| Delivery { topic: self.inside(&delivery.topic), ..delivery.clone() };
        let deliveries = batch.deliveries.iter().map(inside).collect();
        let source = TopicPartition { topic: self.inside(&batch.source.topic), ..batch.source };
        Batch { source, deliveries, ..*batch }
    }

    /// The batch as the consumer below knows it.
    fn batch_outside(&self, batch: &Batch) -> Batch {
        Batch { source: self.outside(&batch.source), ..batch.clone() }
    }
}

#[async_trait]
impl Consumer for OwnConsumer {
    async fn next_batch(&mut self, max: usize) -> Result<Batch, BrokerError> {
        let batch = tokio::select! {
            _ = self.leave.changed() => return Err(BrokerError::unavailable("the group is moved")),
            batch = self.consumer.next_batch(max) => batch?,
        };
        Ok(self.batch_inside(&batch))
    }

    async fn ready_batch(&mut self, max: usize) -> Result<Option<Batch>, BrokerError> {
        Ok(self.consumer.ready_batch(max).await?.map(|batch| self.batch_inside(&batch)))
    }

    async fn store(&mut self, batch: &Batch, done: usize) -> Result<(), BrokerError> {
        let batch = self.batch_outside(batch);
        self.consumer.store(&batch, done).await
    }

    async fn hold(&mut self, batch: &Batch, from: usize) -> Result<(), BrokerError> {
        let mut batch = self.batch_outside(batch);
        let outside = |delivery: &Delivery| Delivery { topic: batch.source.topic.clone(), ..delivery.clone() };
        batch.deliveries = batch.deliveries.iter().map(outside).collect();
        self.consumer.hold(&batch, from).await
    }

    async fn resume(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        let partition = self.outside(partition);
        self.consumer.resume(&partition).await
    }

    async fn close(self: Box<Self>) -> Result<(), BrokerError> {
        self.consumer.close().await
    }
}
