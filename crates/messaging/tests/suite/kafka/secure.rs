//! TLS and passwords (feature `kafka-tls`), on a broker that the test has to itself.

use messaging::kafka::{KafkaBroker, KafkaOptions};
use messaging::{Broker, BrokerError, TopicSpec};

use super::own_broker::OwnBroker;
use super::{publish, unique};
use crate::support::{event, soon};

fn secure_options(own: &(String, String), password: &str) -> KafkaOptions {
    let (address, certificate) = own;
    KafkaOptions::new(address)
        .with_property("security.protocol", "SASL_SSL")
        .with_property("sasl.mechanism", "SCRAM-SHA-256")
        .with_property("sasl.username", "tandem")
        .with_property("sasl.password", password)
        .with_property("ssl.ca.location", certificate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_over_tls_and_nothing_without_trust_or_the_password() {
    let Some(own) = OwnBroker::start().await else { return };
    let secure = own.secure().await;
    let broker = KafkaBroker::new(secure_options(&secure, "test-password")).unwrap();
    let topic = unique("topic");
    broker.ensure_topics(&[TopicSpec::new(&topic)]).await.unwrap();
    publish(&broker, &[event(&topic, "key", "x")]).await;
    let mut consumer = broker.consumer(&unique("group"), std::slice::from_ref(&topic)).await.unwrap();
    let batch = soon("the record", consumer.next_batch(10)).await.unwrap();
    consumer.store(&batch, 1).await.unwrap();
    consumer.close().await.unwrap();
    broker.ping().await.unwrap();

    let mut distrustful = secure_options(&secure, "test-password");
    distrustful.properties.remove("ssl.ca.location");
    for options in [distrustful, secure_options(&secure, "wrong-password")] {
        let refused = KafkaBroker::new(options).unwrap().ping().await;
        assert!(matches!(refused, Err(BrokerError::Unavailable(_) | BrokerError::Rejected(_))), "{refused:?}");
    }
}
