//! What every broker behind [`Broker`] and [`Consumer`] has to do, as tests.
//!
//! An adapter's test file says how to start its broker and takes the whole suite:
//!
//! ```ignore
//! messaging::broker_contract!(start_my_broker);   // async fn start_my_broker() -> Option<impl BrokerUnderTest>
//! ```
//!
//! `None` skips the test: the server it needs is not there, and the function has said so.
//!
//! Each test uses topics and groups of its own, so all of them can run side by side on one server.

#![expect(clippy::unwrap_used, reason = "only compiled for tests")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::broker::{Batch, Broker, BrokerError, Consumer, MAX_RECORD_BYTES, TopicPartition, TopicSpec, dead_letter_topic};
use crate::message::{Delivery, Headers, Record};

/// Far more than any broker needs to answer, rebalance or deliver: reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long is waited for what must not come.
const QUIET: Duration = Duration::from_millis(300);

/// A broker that can be restarted.
#[async_trait]
pub trait BrokerUnderTest: Send {
    /// The broker, as a process sees it.
    fn broker(&self) -> Arc<dyn Broker>;

    /// What a restart of the process does: a new [`Broker`] on what the old one left behind. Consumers were closed or
    /// dropped before.
    async fn restart(&mut self);
}

/// Defines the tests of the contract for the broker that the given async function starts.
#[macro_export]
macro_rules! broker_contract {
    ($start:path) => {
        $crate::broker_contract!(@tests $start:
            a_record_arrives_as_it_was_sent
            records_of_one_key_keep_their_order
            a_batch_is_bounded_and_of_one_partition
            what_was_not_stored_comes_again_after_a_restart
            what_was_stored_does_not_come_again
            a_partly_stored_batch_goes_on_behind_that_part
            acknowledged_records_survive_a_restart
            a_large_record_arrives
            a_record_that_is_too_large_is_refused_and_stops_no_other
            an_unknown_topic_is_a_typed_error
            many_producers_at_once_lose_and_double_nothing
            a_waiting_consumer_is_woken
            a_cancelled_wait_loses_and_doubles_nothing
            a_held_partition_waits_while_others_go_on
            what_was_held_is_not_stored
            a_batch_of_an_earlier_membership_cannot_be_stored
            groups_do_not_disturb_each_other
            topics_can_be_created_by_everybody_at_once
        );
    };
    (@tests $start:path: $($test:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let Some(mut under_test) = $start().await else { return };
                tokio::time::timeout($crate::contract::PATIENCE, $crate::contract::$test(&mut under_test))
                    .await
                    .expect("the broker should have answered long ago");
            }
        )+
    };
}

fn unique(what: &str) -> String {
    format!("contract-{what}-{}", Uuid::now_v7().simple())
}

async fn new_topic(broker: &dyn Broker) -> String {
    let topic = unique("topic");
    broker.ensure_topics(&[TopicSpec::new(&topic)]).await.unwrap();
    topic
}

fn record(topic: &str, key: &str, payload: impl Into<Bytes>) -> Record {
    Record {
        topic: topic.to_owned(),
        key: key.to_owned(),
        headers: Headers::new().with("ce_id", Uuid::now_v7().to_string()),
        payload: payload.into(),
    }
}

/// `count` records with payloads `0`, `1`, …, over many keys.
fn numbered(topic: &str, count: usize) -> Vec<Record> {
    (0..count).map(|n| record(topic, &format!("key-{}", n % 17), n.to_string())).collect()
}

async fn publish(broker: &dyn Broker, records: &[Record]) {
    let answers = broker.publish(records).await;
    assert_eq!(answers.len(), records.len());
    for answer in answers {
        answer.unwrap();
    }
}

async fn join(broker: &dyn Broker, group: &str, topic: &str) -> Box<dyn Consumer> {
    broker.consumer(group, &[topic.to_owned()]).await.unwrap()
}

/// Batches until there are `count` deliveries.
async fn receive_batches(consumer: &mut dyn Consumer, count: usize, max: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    while batches.iter().map(|batch| batch.deliveries.len()).sum::<usize>() < count {
        batches.push(consumer.next_batch(max).await.unwrap());
    }
    batches
}

async fn receive(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let batches = receive_batches(consumer, count, 100).await;
    batches.iter().flat_map(|batch| batch.deliveries.iter().cloned()).collect()
}

async fn assert_quiet(consumer: &mut dyn Consumer) {
    let more = tokio::time::timeout(QUIET, consumer.next_batch(100)).await;
    assert!(more.is_err(), "nothing more was to come: {more:?}");
}

fn payloads(deliveries: &[Delivery]) -> BTreeSet<String> {
    deliveries.iter().map(|delivery| String::from_utf8(delivery.payload.to_vec()).unwrap()).collect()
}

fn numbers(count: usize) -> BTreeSet<String> {
    (0..count).map(|n| n.to_string()).collect()
}

/// Key, headers (binary, empty and repeated ones), payload bytes.
pub async fn a_record_arrives_as_it_was_sent(test: &mut impl BrokerUnderTest) {
    let broker = test.broker();
    let topic = new_topic(&*broker).await;
    let sent = Record {
        topic: topic.clone(),
        key: "Schlüssel \"1\"".to_owned(),
        headers: Headers::from_iter([
            ("ce_id", Bytes::from(Uuid::now_v7().to_string())),
            ("binary", Bytes::from_static(&[0, 1, 255, 254])),
            ("empty", Bytes::new()),
            ("twice", Bytes::from("first")),
            ("twice", Bytes::from("base64:second")),
        ]),
        payload: Bytes::from_static(&[0, 255, b'{', 0]),
    };
    publish(&*broker, std::slice::from_ref(&sent)).await;
    let mut consumer = join(&*broker, &unique("group"), &topic).await;
    let received = receive(&mut *consumer, 1).await.remove(0);
    assert_eq!(received.key.as_deref(), Some(sent.key.as_bytes()));
    assert_eq!(received.headers, sent.headers);
    assert_eq!(received.payload, sent.payload);
    assert_eq!(received.topic, topic);
    assert!(received.timestamp_ms > 1_600_000_000_000, "{}", received.timestamp_ms);
    consumer.close().await.unwrap();
}

/// Also when publish calls overlap.
pub async fn records_of_one_key_keep_their_order(test: &mut impl BrokerUnderTest) {
    const KEYS: usize = 5;
    const RECORDS: usize = 1_000;
    let broker = test.broker();
    let topic = new_topic(&*broker).await;
    let records: Vec<_> = (0..RECORDS).map(|n| record(&topic, &format!("key-{}", n % KEYS), n.to_string())).collect();
    let calls: Vec<_> = records.chunks(50).map(|chunk| broker.publish(chunk)).collect();
    for answer in futures_util::future::join_all(calls).await.into_iter().flatten() {
        answer.unwrap();
    }
    let mut consumer = join(&*broker, &unique("group"), &topic).await;
    let mut by_key: BTreeMap<Bytes, Vec<(i32, i64, usize)>> = BTreeMap::new();
    for delivery in receive(&mut *consumer, RECORDS).await {
        let n = std::str::from_utf8(&delivery.payload).unwrap().parse().unwrap();
        by_key.entry(delivery.key.unwrap()).or_default().push((delivery.partition, delivery.offset, n));
    }
    assert_eq!(by_key.len(), KEYS);
    for (key, seen) in by_key {
        assert!(seen.windows(2).all(|pair| pair[0].0 == pair[1].0), "{key:?} is in one partition");
        assert!(seen.windows(2).all(|pair| pair[0].1 < pair[1].1), "{key:?}: offsets grow");
        assert!(seen.windows(2).all(|pair| pair[0].2 < pair[1].2), "{key:?}: {seen:?}");
    }
    consumer.close().await.unwrap();
}

/// No batch is empty, mixed or larger than asked for, and every partition gets its turn.
pub async fn a_batch_is_bounded_and_of_one_partition(test: &mut impl BrokerUnderTest) {
    let broker = test.broker();
    let topic = new_topic(&*broker).await;
    publish(&*broker, &numbered(&topic, 300)).await;
    let mut consumer = join(&*broker, &unique("group"), &topic).await;
    let batches = receive_batches(&mut *consumer, 300, 7).await;
    for batch in &batches {
        assert!((1..=7).contains(&batch.deliveries.len()), "{}", batch.deliveries.len());
        let source = |delivery: &Delivery| TopicPartition { topic: delivery.topic.clone(), partition: delivery.partition };
        assert!(batch.deliveries.iter().all(|delivery| source(delivery) == batch.source));
        assert!(batch.deliveries.windows(2).all(|pair| pair[0].offset < pair[1].offset));
    }
    let sources: HashSet<_> = batches.iter().map(|batch| batch.source.clone()).collect();
    assert!(sources.len() > 1, "many keys are in several partitions");
    consumer.close().await.unwrap();
}

/// A crash before the offset was stored.
pub async fn what_was_not_stored_comes_again_after_a_restart(test: &mut impl BrokerUnderTest) {
    let broker = test.broker();
    let (topic, group) = (new_topic(&*broker).await, unique("group"));
    publish(&*broker, &numbered(&topic, 60)).await;
    let mut consumer = join(&*broker, &group, &topic).await;
    assert_eq!(payloads(&receive(&mut *consumer, 60).await), numbers(60));
    drop((consumer, broker));
    test.restart().await;
    let mut consumer = join(&*test.broker(), &group, &topic).await;
    assert_eq!(payloads(&receive(&mut *consumer, 60).await), numbers(60));
    consumer.close().await.unwrap();
}

/// Neither to the next consumer nor after a restart.
pub async fn what_was_stored_does_not_come_again(test: &mut impl BrokerUnderTest) {
    let broker = test.broker();
    let (topic, group) = (new_topic(&*broker).await, unique("group"));
    publish(&*broker, &numbered(&topic, 60)).await;
    let mut consumer = join(&*broker, &group, &topic).await;
    for batch in receive_batches(&mut *consumer, 60, 100).await {
        consumer.store(&batch, batch.deliveries.len()).await.unwrap();
    }
    consumer.close().await.unwrap();

    let mut consumer = join(&*broker, &group, &topic).await;
    assert_quiet(&mut *consumer).await;
    consumer.close().await.unwrap();
    drop(broker);
    test.restart().await;

    let broker = test.broker();
    let mut consumer = join(&*broker, &group, &topic).await;
    publish(&*broker, &[record(&topic, "key", "new")]).await;
    assert_eq!(&receive(&mut *consumer, 1).await[0].payload[..], b"new");
    assert_quiet(&mut *consumer).await;
    consumer.close().await.unwrap();
}

/// What bisection needs: the good half is stored, the rest comes again.
pub async fn a_partly_stored_batch_goes_on_behind_that_part(test: &mut impl BrokerUnderTest) {
    let broker = test.broker();
    let (topic, group) = (new_topic(&*broker).await, unique("group"));
    let records: Vec<_> = (0..10).map(|n| record(&topic, "one key", n.to_string())).collect();
    publish(&*broker, &records).await;
    let mut consumer = join(&*broker, &group, &topic).await;
    let mut left = 10;
    let mut stored = 0;
    while left > 0 {
        let batch = consumer.next_batch(10).await.unwrap();
        left -= batch.deliveries.len();
        if stored == 0 {
            stored = batch.deliveries.len().min(4);
            consumer.store(&batch, stored).await.unwrap();
            // Storing nothing of a batch changes nothing.
            consumer.store(&batch, 0).await.unwrap();
        }
    }
    consumer.close().await.unwrap();
    let mut consumer = join(&*broker, &group, &topic).await;
    let again = receive(&mut *consumer, 10 - stored).await;
    assert_eq!(&again[0].payload[..], stored.to_string().as_bytes());
    assert_eq!(again.len(), 10 - stored);
    consumer.close().await.unwrap();
}

/// The answer to a publish call is a promise.
pub async fn acknowledged_records_survive_a_restart(test: &mut impl BrokerUnderTest) {
    let broker = test.broker();
    let topic = new_topic(&*broker).await;
    publish(&*broker, &numbered(&topic, 40)).await;
    drop(broker);
    test.restart().await;
    let broker = test.broker();
    publish(&*broker, &[record(&topic, "key-0", "40")]).await;
    let mut consumer = join(&*broker, &unique("group"), &topic).await;
    let deliveries = receive(&mut *consumer, 41).await;
    assert_eq!(payloads(&deliveries), numbers(41));
    let places: HashSet<_> = deliveries.iter().map(|delivery| (delivery.partition, delivery.offset)).collect();
    assert_eq!(places.len(), 41, "no offset is given twice");
    consumer.close().await.unwrap();
}

/// Almost as large as is allowed; the dead-letter topic takes even a little more.
pub async fn a_large_record_arrives(test: &mut impl BrokerUnderTest) {
    let broker = test.broker();
    let topic = new_topic(&*broker).await;
    let spec = TopicSpec::new(&topic);
    broker.ensure_topics(&[spec.dead_letters()]).await.unwrap();
    let large: Vec<u8> = (0..MAX_RECORD_BYTES - 1_000).map(|n| (n % 251) as u8).collect();
    let put_away = Record {
        headers: Headers::new().with("dlq_reason", "x".repeat(20_000)),
        ..record(&dead_letter_topic(&topic), "key", large.clone())
    };
    publish(&*broker, &[record(&topic, "key", large.clone()), put_away]).await;
    let topics = [topic.clone(), dead_letter_topic(&topic)];
    let mut consumer = broker.consumer(&unique("group"), &topics).await.unwrap();
    for delivery in receive(&mut *consumer, 2).await {
        assert!(delivery.payload == large, "{} bytes arrived", delivery.payload.len());
    }
    consumer.close().await.unwrap();
}

/// One answer per record, and the others are written.
pub async fn a_record_that_is_too_large_is_refused_and_stops_no_other(test: &mut impl BrokerUnderTest) {
    let broker = test.broker();
    let topic = new_topic(&*broker).await;
    let records =
        [record(&topic, "key", "0"), record(&topic, "key", vec![b'x'; MAX_RECORD_BYTES + 1]), record(&topic, "key", "1")];
    let answers = broker.publish(&records).await;
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    match &answers[1] {
        Err(error @ BrokerError::RecordTooLarge { size_bytes, max_bytes, .. }) => {
            assert!(size_bytes > max_bytes && !error.is_transient());
        }
        other => panic!("{other:?}"),
    }
    let mut consumer = join(&*broker, &unique("group"), &topic).await;
    assert_eq!(payloads(&receive(&mut *consumer, 2).await), numbers(2));
    consumer.close().await.unwrap();
}

/// Topics are created on purpose, never by using them.
pub async fn an_unknown_topic_is_a_typed_error(test: &mut impl BrokerUnderTest) {
    let broker = test.broker();
    let topic = new_topic(&*broker).await;
    let unknown = unique("unknown");
    let answers = broker.publish(&[record(&unknown, "key", "x"), record(&topic, "key", "0")]).await;
    assert!(matches!(&answers[0], Err(BrokerError::UnknownTopic { topic }) if *topic == unknown), "{answers:?}");
    assert!(answers[1].is_ok());
    let group = unique("group");
    let consumer = broker.consumer(&group, std::slice::from_ref(&unknown)).await;
    let error = consumer.map(|_| ()).unwrap_err();
    assert!(matches!(&error, BrokerError::UnknownTopic { topic } if *topic == unknown), "{error}");
    assert!(error.is_transient(), "somebody may be about to create it");
    // The failed attempt left nothing behind.
    join(&*broker, &group, &topic).await.close().await.unwrap();
}

/// Also while a consumer reads.
pub async fn many_producers_at_once_lose_and_double_nothing(test: &mut impl BrokerUnderTest) {
    const PRODUCERS: usize = 16;
    const CALLS: usize = 20;
    const RECORDS: usize = 5;
    let broker = test.broker();
    let topic = new_topic(&*broker).await;
    let producers = (0..PRODUCERS).map(|producer| {
        let (broker, topic) = (Arc::clone(&broker), topic.clone());
        tokio::spawn(async move {
            for call in 0..CALLS {
                let number = |n| (producer * CALLS + call) * RECORDS + n;
                let records: Vec<_> =
                    (0..RECORDS).map(|n| record(&topic, &format!("key-{producer}"), number(n).to_string())).collect();
                publish(&*broker, &records).await;
            }
        })
    });
    let producers: Vec<_> = producers.collect();
    let mut consumer = join(&*broker, &unique("group"), &topic).await;
    let deliveries = receive(&mut *consumer, PRODUCERS * CALLS * RECORDS).await;
    for producer in producers {
        producer.await.unwrap();
    }
    assert_eq!(deliveries.len(), PRODUCERS * CALLS * RECORDS);
    assert_eq!(payloads(&deliveries), numbers(PRODUCERS * CALLS * RECORDS));
    assert_quiet(&mut *consumer).await;
    consumer.close().await.unwrap();
}

/// Whichever comes first, the record or the wait.
pub async fn a_waiting_consumer_is_woken(test: &mut impl BrokerUnderTest) {
    let broker = test.broker();
    let topic = new_topic(&*broker).await;
    let mut consumer = join(&*broker, &unique("group"), &topic).await;
    for n in 0..20 {
        let records = [record(&topic, &format!("key-{n}"), n.to_string())];
        let waiting = consumer.next_batch(10);
        let publishing = publish(&*broker, &records);
        let (batch, ()) = tokio::join!(waiting, publishing);
        assert_eq!(&batch.unwrap().deliveries[0].payload[..], n.to_string().as_bytes());
    }
    consumer.close().await.unwrap();
}

/// The consumer loop stops waiting whenever something else is to be done.
pub async fn a_cancelled_wait_loses_and_doubles_nothing(test: &mut impl BrokerUnderTest) {
    const RECORDS: usize = 200;
    let broker = test.broker();
    let topic = new_topic(&*broker).await;
    let mut consumer = join(&*broker, &unique("group"), &topic).await;
    let producer = {
        let (broker, topic) = (Arc::clone(&broker), topic.clone());
        tokio::spawn(async move {
            for record in numbered(&topic, RECORDS) {
                publish(&*broker, &[record]).await;
            }
        })
    };
    let mut received = Vec::new();
    let mut wait_us = 0;
    while received.len() < RECORDS {
        // Cut off at ever other moments.
        wait_us = (wait_us + 137) % 5_000;
        if let Ok(batch) = tokio::time::timeout(Duration::from_micros(wait_us), consumer.next_batch(3)).await {
            received.extend(batch.unwrap().deliveries.iter().cloned());
        }
    }
    producer.await.unwrap();
    assert_eq!(received.len(), RECORDS);
    assert_eq!(payloads(&received), numbers(RECORDS));
    assert_quiet(&mut *consumer).await;
    consumer.close().await.unwrap();
}

/// What a transient error needs.
pub async fn a_held_partition_waits_while_others_go_on(test: &mut impl BrokerUnderTest) {
    let broker = test.broker();
    let topic = new_topic(&*broker).await;
    publish(&*broker, &numbered(&topic, 200)).await;
    let mut consumer = join(&*broker, &unique("group"), &topic).await;
    let mut held = consumer.next_batch(10).await.unwrap();
    while held.deliveries.len() < 2 {
        held = consumer.next_batch(10).await.unwrap();
    }
    consumer.hold(&held, 1).await.unwrap();

    publish(&*broker, &numbered(&topic, 200)).await;
    let mut others = BTreeSet::new();
    while let Ok(batch) = tokio::time::timeout(QUIET * 3, consumer.next_batch(50)).await {
        let batch = batch.unwrap();
        assert_ne!(batch.source, held.source, "a held partition is silent");
        others.insert(batch.source.partition);
    }
    assert!(!others.is_empty());

    consumer.resume(&held.source).await.unwrap();
    let back = consumer.next_batch(50).await.unwrap();
    assert_eq!(back.source, held.source);
    assert_eq!(back.deliveries[0], held.deliveries[1], "it goes on where it was held");
    assert!(back.deliveries.windows(2).all(|pair| pair[0].offset < pair[1].offset));
    consumer.close().await.unwrap();
}

/// A held batch is nobody's progress.
pub async fn what_was_held_is_not_stored(test: &mut impl BrokerUnderTest) {
    let broker = test.broker();
    let (topic, group) = (new_topic(&*broker).await, unique("group"));
    let records: Vec<_> = (0..6).map(|n| record(&topic, "one key", n.to_string())).collect();
    publish(&*broker, &records).await;
    let mut consumer = join(&*broker, &group, &topic).await;
    let batch = consumer.next_batch(2).await.unwrap();
    consumer.store(&batch, 1).await.unwrap();
    consumer.hold(&batch, 1).await.unwrap();
    consumer.close().await.unwrap();
    let mut consumer = join(&*broker, &group, &topic).await;
    assert_eq!(&receive(&mut *consumer, 5).await[0].payload[..], b"1");
    consumer.close().await.unwrap();
}

/// What keeps a consumer that was away from overwriting its successor's progress.
pub async fn a_batch_of_an_earlier_membership_cannot_be_stored(test: &mut impl BrokerUnderTest) {
    let broker = test.broker();
    let (topic, group) = (new_topic(&*broker).await, unique("group"));
    publish(&*broker, &numbered(&topic, 5)).await;
    let mut consumer = join(&*broker, &group, &topic).await;
    let old = consumer.next_batch(10).await.unwrap();
    consumer.close().await.unwrap();
    let mut consumer = join(&*broker, &group, &topic).await;
    assert_eq!(receive(&mut *consumer, 5).await.len(), 5);
    let refused = consumer.store(&old, 1).await;
    assert!(matches!(&refused, Err(BrokerError::PartitionLost(partition)) if *partition == old.source), "{refused:?}");
    consumer.hold(&old, 0).await.unwrap();
    assert_quiet(&mut *consumer).await;
    consumer.close().await.unwrap();
}

/// Each has its own offsets, and begins at the earliest record.
pub async fn groups_do_not_disturb_each_other(test: &mut impl BrokerUnderTest) {
    let broker = test.broker();
    let topic = new_topic(&*broker).await;
    publish(&*broker, &numbered(&topic, 30)).await;
    let mut first = join(&*broker, &unique("group"), &topic).await;
    for batch in receive_batches(&mut *first, 30, 100).await {
        first.store(&batch, batch.deliveries.len()).await.unwrap();
    }
    let mut second = join(&*broker, &unique("group"), &topic).await;
    assert_eq!(payloads(&receive(&mut *second, 30).await), numbers(30));
    publish(&*broker, &[record(&topic, "key", "30")]).await;
    assert_eq!(receive(&mut *first, 1).await[0], receive(&mut *second, 1).await[0]);
    first.close().await.unwrap();
    second.close().await.unwrap();
}

/// Services start in any order; an existing topic keeps its records and partitions.
pub async fn topics_can_be_created_by_everybody_at_once(test: &mut impl BrokerUnderTest) {
    let broker = test.broker();
    let topic = unique("topic");
    let spec = TopicSpec { partitions: 3, ..TopicSpec::new(&topic) };
    let creating: Vec<_> = (0..8)
        .map(|_| {
            let (broker, specs) = (Arc::clone(&broker), [spec.clone(), spec.dead_letters()]);
            tokio::spawn(async move { broker.ensure_topics(&specs).await })
        })
        .collect();
    for created in creating {
        created.await.unwrap().unwrap();
    }
    publish(&*broker, &numbered(&topic, 10)).await;
    broker.ensure_topics(&[TopicSpec { partitions: 9, ..spec }]).await.unwrap();
    let mut consumer = join(&*broker, &unique("group"), &topic).await;
    let deliveries = receive(&mut *consumer, 10).await;
    assert!(deliveries.iter().all(|delivery| (0..3).contains(&delivery.partition)));
    broker.ping().await.unwrap();
    consumer.close().await.unwrap();
}
