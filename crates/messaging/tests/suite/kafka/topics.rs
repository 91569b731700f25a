//! Topics and records as others make them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use messaging::kafka::KafkaBroker;
use messaging::{Broker as _, BrokerError, DeadLetter, EmbeddedBroker, EmbeddedOptions, TopicSpec, dead_letter_topic};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::{broker, new_topic, options, publish, unique};
use crate::support::{TestHandler, TestMigrator, applied, count, event, eventually, new_log, run_loop_of, soon};

fn plain_config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", options().unwrap().brokers.join(","));
    config
}

async fn delete(topic: &str) {
    let admin: AdminClient<DefaultClientContext> = plain_config().create().unwrap();
    for deleted in admin.delete_topics(&[topic], &AdminOptions::new()).await.unwrap() {
        deleted.unwrap();
    }
}

/// As a sweeper does: until it is taken.
async fn publish_until_taken(broker: &KafkaBroker, topic: &str, payload: &str) {
    let record = [event(topic, payload, payload)];
    eventually("the record is taken", || async { broker.publish(&record).await[0].is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_deleted_is_created_again_and_consumed_from_its_start() {
    let Some(broker) = broker() else { return };
    let db = database::testing::sqlite::<TestMigrator>().await;
    let (topic, group) = (new_topic(&broker).await, unique("group"));
    let handler = TestHandler::new();
    let running = run_loop_of(&db, Arc::new(broker.clone()), &handler, &group, &topic);
    for n in 0..50 {
        publish_until_taken(&broker, &topic, &format!("old-{n}")).await;
    }
    eventually("all are applied", || async { count(&db, "applied").await == 50 }).await;

    delete(&topic).await;
    for n in 0..60 {
        publish_until_taken(&broker, &topic, &format!("new-{n}")).await;
    }
    eventually("the new ones are applied", || async { count(&db, "applied").await == 110 }).await;
    assert!(running.handle.status().is_running());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_deleted_and_created_again_at_once_loses_nothing_that_was_published_later() {
    let Some(broker) = broker() else { return };
    let db = database::testing::sqlite::<TestMigrator>().await;
    let (topic, group) = (new_topic(&broker).await, unique("group"));
    let running = run_loop_of(&db, Arc::new(broker.clone()), &TestHandler::new(), &group, &topic);
    for n in 0..50 {
        publish_until_taken(&broker, &topic, &format!("old-{n}")).await;
    }
    eventually("all are applied", || async { count(&db, "applied").await == 50 }).await;

    delete(&topic).await;
    eventually("it can be created", || async { broker.ensure_topics(&[TopicSpec::new(&topic)]).await.is_ok() }).await;
    // Fewer than there were: the old position is behind the end.
    for n in 0..10 {
        publish_until_taken(&broker, &topic, &format!("new-{n}")).await;
    }
    eventually("the new ones are applied", || async { count(&db, "applied").await == 60 }).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_heals_when_an_unknown_topic_appears() {
    let Some(broker) = broker() else { return };
    let topic = unique("late");
    let record = [event(&topic, "key", "x")];
    for _ in 0..2 {
        let answer = soon("an answer", broker.publish(&record)).await.remove(0);
        assert!(matches!(&answer, Err(BrokerError::UnknownTopic { topic: named }) if *named == topic), "{answer:?}");
    }
    broker.ensure_topics(&[TopicSpec::new(&topic)]).await.unwrap();
    publish_until_taken(&broker, &topic, "y").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_plain_producer_become_dead_letters_and_stop_no_other() {
    let Some(broker) = broker() else { return };
    let db = database::testing::sqlite::<TestMigrator>().await;
    let (topic, group) = (new_topic(&broker).await, unique("group"));
    let plain: FutureProducer = plain_config().create().unwrap();
    let to = || FutureRecord::<[u8], [u8]>::to(&topic).partition(0);
    let odd_key = [0xff, 0xfe];
    let odd = [to().payload(b"no key, no headers"), to().key(&odd_key).payload(b"odd key"), to().key(b"tombstone")];
    for record in odd {
        plain.send(record, Duration::from_secs(10)).await.unwrap();
    }
    let good: Vec<_> = (0..100).map(|n| event(&topic, &format!("key-{n}"), &n.to_string())).collect();
    publish(&broker, &good).await;
    let handler = TestHandler::new();
    let running = run_loop_of(&db, Arc::new(broker.clone()), &handler, &group, &topic);
    eventually("the good ones are applied", || async { count(&db, "applied").await == 100 }).await;
    eventually("none is left", || async { handler.committed.load(Ordering::SeqCst) == 100 }).await;
    running.stop().await;

    let mut letters = broker.consumer(&unique("group"), &[dead_letter_topic(&topic)]).await.unwrap();
    let mut payloads = Vec::new();
    while payloads.len() < 3 {
        for delivery in soon("dead letters", letters.next_batch(10)).await.unwrap().deliveries.iter() {
            let letter = DeadLetter::from_delivery(delivery).unwrap();
            assert!(letter.reason.contains("ce_id"), "{}", letter.reason);
            payloads.push(String::from_utf8(letter.original.payload.to_vec()).unwrap());
        }
    }
    assert_eq!(payloads, ["no key, no headers", "odd key", ""]);
    letters.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_others_compressed_can_be_read() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker).await;
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        let plain: FutureProducer = plain_config().set("compression.type", codec).create().unwrap();
        let record = || FutureRecord::to(&topic).key("key").payload("a text that repeats itself, a text that repeats itself");
        let sent: Vec<_> = (0..50).map(|_| plain.send_result(record()).unwrap()).collect();
        for sent in sent {
            sent.await.unwrap().unwrap();
        }
    }
    let mut consumer = broker.consumer(&unique("group"), std::slice::from_ref(&topic)).await.unwrap();
    let mut read = 0;
    while read < 50 * codecs.len() {
        read += soon("a batch", consumer.next_batch(1_000)).await.unwrap().deliveries.len();
    }
    consumer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_has_the_same_partition_as_in_the_embedded_broker() {
    let Some(kafka) = broker() else { return };
    let log = new_log().await;
    let embedded = EmbeddedBroker::open((*log).clone(), EmbeddedOptions::default()).await.unwrap();
    let topic = unique("topic");
    let keys: Vec<_> = (0..200).map(|n| format!("user_{n:x}")).chain([String::new(), "Ünïcode".to_owned()]).collect();
    let records: Vec<_> = keys.iter().map(|key| event(&topic, key, key)).collect();
    let mut partitions = Vec::new();
    for broker in [&kafka as &dyn messaging::Broker, &embedded] {
        broker.ensure_topics(&[TopicSpec::new(&topic)]).await.unwrap();
        for answer in broker.publish(&records).await {
            answer.unwrap();
        }
        let mut consumer = broker.consumer(&unique("group"), std::slice::from_ref(&topic)).await.unwrap();
        let mut placed: Vec<(String, i32)> = Vec::new();
        while placed.len() < keys.len() {
            let batch = soon("a batch", consumer.next_batch(1_000)).await.unwrap();
            placed.extend(batch.deliveries.iter().map(|one| (String::from_utf8(one.payload.to_vec()).unwrap(), one.partition)));
        }
        placed.sort();
        partitions.push(placed);
        consumer.close().await.unwrap();
    }
    assert_eq!(partitions[0], partitions[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_one_key_are_applied_in_their_order() {
    let Some(broker) = broker() else { return };
    let db = database::testing::sqlite::<TestMigrator>().await;
    let (topic, group) = (new_topic(&broker).await, unique("group"));
    let running = run_loop_of(&db, Arc::new(broker.clone()), &TestHandler::new(), &group, &topic);
    let records: Vec<_> = (0..2_000).map(|n| event(&topic, "one key", &n.to_string())).collect();
    publish(&broker, &records).await;
    eventually("all are applied", || async { count(&db, "applied").await == 2_000 }).await;
    running.stop().await;
    let payloads: Vec<_> = applied(&db).await.into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, (0..2_000).map(|n| n.to_string()).collect::<Vec<_>>());
}
