//! Kafka: the contract of every broker, and the dangers of its own.
//!
//! `TANDEM_TEST_KAFKA_BROKERS` names the cluster (`scripts/test-kafka start` prints one). Without it these tests say
//! so and pass, unless `TANDEM_TEST_REQUIRE_SERVERS=1`. Every test has topics and groups of its own; a test that stops
//! its broker starts one of its own.

mod membership;
mod outage;
mod own_broker;
mod random;
#[cfg(feature = "kafka-tls")]
mod secure;
mod topics;

use std::sync::Arc;

use async_trait::async_trait;
use messaging::contract::BrokerUnderTest;
use messaging::kafka::{KafkaBroker, KafkaOptions};
use messaging::{Broker, Record, TopicSpec};
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

/// Names the cluster for tests.
const BROKERS: &str = "TANDEM_TEST_KAFKA_BROKERS";

mod contract {
    messaging::broker_contract!(super::KafkaUnderTest::start);
}

/// The tests' cluster, if there is one.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn options() -> Option<KafkaOptions> {
    // With RUST_LOG set, the adapter and librdkafka tell what they do.
    let filter = EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    match std::env::var(BROKERS) {
        Ok(brokers) if !brokers.is_empty() => Some(KafkaOptions::new(&brokers)),
        _ if std::env::var(database::testing::REQUIRE_SERVERS).is_ok_and(|value| value == "1") => {
            panic!("{BROKERS} is not set, and {} demands it", database::testing::REQUIRE_SERVERS)
        }
        _ => {
            eprintln!("SKIPPED on Kafka: {BROKERS} is not set (scripts/test-kafka start)");
            None
        }
    }
}

fn broker() -> Option<KafkaBroker> {
    options().map(|options| KafkaBroker::new(options).unwrap())
}

/// For topics and groups: nobody else has it.
fn unique(what: &str) -> String {
    format!("{what}-{}", Uuid::now_v7().simple())
}

async fn new_topic(broker: &KafkaBroker) -> String {
    let topic = unique("topic");
    broker.ensure_topics(&[TopicSpec::new(&topic)]).await.unwrap();
    topic
}

async fn publish(broker: &KafkaBroker, records: &[Record]) {
    for answer in broker.publish(records).await {
        answer.unwrap();
    }
}

/// A restart of the process; the cluster goes on.
struct KafkaUnderTest {
    options: KafkaOptions,
    broker: KafkaBroker,
}

impl KafkaUnderTest {
    async fn start() -> Option<Self> {
        let options = options()?;
        let broker = KafkaBroker::new(options.clone()).unwrap();
        Some(Self { options, broker })
    }
}

#[async_trait]
impl BrokerUnderTest for KafkaUnderTest {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.clone())
    }

    async fn restart(&mut self) {
        self.broker = KafkaBroker::new(self.options.clone()).unwrap();
    }
}
