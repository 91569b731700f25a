//! A plain Kafka client, as somebody else's program would use one.

use std::time::Duration;

use messaging::{
    Broker as _, Delivery,
    kafka::{KafkaBroker, KafkaOptions},
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use tokio::time::timeout;

use crate::{cluster::unique_prefix, support::PATIENCE};

/// For one question to the cluster.
const TIMEOUT: Duration = Duration::from_secs(20);
/// For removing what nobody needs any more.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// More than any test publishes.
const READ_MAX: usize = 10_000;

/// A message without anything that it need not have.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub key: Option<String>,
    pub headers: Option<Vec<(&'static str, String)>>,
    pub payload: Option<Vec<u8>>,
}

/// One cluster.
pub struct Kafka {
    brokers: String,
    producer: FutureProducer,
}

impl Kafka {
    pub fn new(brokers: &str) -> Self {
        let mut config = ClientConfig::new();
        // As the services have it, so that a key has its partition.
        config.set("bootstrap.servers", brokers).set("partitioner", "murmur2_random").set("linger.ms", "0");
        Self { brokers: brokers.to_owned(), producer: config.create().unwrap() }
    }

    /// Publishes and waits for the acknowledgement; answers the partition.
    pub async fn publish(&self, topic: &str, message: &Message) -> i32 {
        let mut record: FutureRecord<'_, str, [u8]> = FutureRecord::to(topic);
        record.key = message.key.as_deref();
        record.payload = message.payload.as_deref();
        record.headers = message.headers.as_ref().map(|headers| {
            headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }))
        });
        self.producer.send(record, TIMEOUT).await.map_err(|(error, _)| error).unwrap().partition
    }

    /// The first `expected` messages of a topic, in the order of each partition.
    pub async fn read(&self, topic: &str, expected: usize) -> Vec<Delivery> {
        let broker = KafkaBroker::new(KafkaOptions::new(&self.brokers)).unwrap();
        let mut consumer = broker.consumer(&unique_prefix("reader"), &[topic.to_owned()]).await.unwrap();
        let mut deliveries = Vec::new();
        while deliveries.len() < expected {
            let next = timeout(PATIENCE, consumer.next_batch(READ_MAX)).await;
            let batch = next.unwrap_or_else(|_| panic!("{} of {expected} messages in {topic}", deliveries.len())).unwrap();
            deliveries.extend(batch.deliveries.iter().cloned());
        }
        consumer.close().await.unwrap();
        deliveries
    }

    /// Deletes topics and creates them anew, empty.
    pub async fn recreate(&self, topics: &[String], partitions: i32) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        for deleted in admin.delete_topics(&names, &options).await.unwrap() {
            deleted.unwrap();
        }
        let new: Vec<_> = names.iter().map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(1))).collect();
        for created in admin.create_topics(&new, &options).await.unwrap() {
            // A service that noticed first has created it already.
            assert!(
                created.is_ok() || matches!(created, Err((_, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists))),
                "{created:?}"
            );
        }
    }
}

/// Removes the topics of an environment that is gone; for destructors, which cannot wait for anything.
pub fn delete_topics(brokers: &str, prefix: &str) {
    let topics =
        ["payment_tasks", "payment_tasks.dlq", "payment_results", "payment_results.dlq"].map(|topic| format!("{prefix}{topic}"));
    let deleting = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", brokers).create().ok()?;
        let names = topics.each_ref().map(String::as_str);
        // What cannot be deleted costs the cluster little.
        runtime.block_on(admin.delete_topics(&names, &AdminOptions::new().request_timeout(Some(CLEAN_UP_TIMEOUT)))).ok()
    };
    std::thread::scope(|scope| drop(scope.spawn(deleting).join()));
}
