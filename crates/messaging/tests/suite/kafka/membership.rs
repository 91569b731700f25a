//! Partitions that move between members of a group.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use messaging::kafka::{KafkaBroker, KafkaOptions};
use messaging::{Batch, Broker, BrokerError, Consumer, TopicPartition};

use super::{new_topic, options, publish, unique};
use crate::support::{event, soon};

const RECORDS: usize = 120;

/// Commits come from closing and from partitions that move, and from nothing else.
fn options_without_background_commits() -> Option<KafkaOptions> {
    options().map(|options| options.with_property("auto.commit.interval.ms", "3600000"))
}

async fn publish_numbers(broker: &KafkaBroker, topic: &str, from: usize, count: usize) {
    let records: Vec<_> = (from..from + count).map(|n| event(topic, &format!("key-{n}"), &n.to_string())).collect();
    publish(broker, &records).await;
}

fn numbers(batch: &Batch) -> Vec<usize> {
    batch.deliveries.iter().map(|delivery| std::str::from_utf8(&delivery.payload).unwrap().parse().unwrap()).collect()
}

async fn next(consumer: &mut dyn Consumer) -> Batch {
    soon("the next batch", consumer.next_batch(1_000)).await.unwrap()
}

/// All of `count` records, stored if so wanted.
async fn drain(consumer: &mut dyn Consumer, count: usize, store: bool) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    while batches.iter().map(|batch| batch.deliveries.len()).sum::<usize>() < count {
        let batch = next(consumer).await;
        if store {
            consumer.store(&batch, batch.deliveries.len()).await.unwrap();
        }
        batches.push(batch);
    }
    batches
}

/// Polls both until each has received something; every batch is stored.
async fn share(
    first: &mut Box<dyn Consumer>,
    second: &mut Box<dyn Consumer>,
    expected: &BTreeSet<usize>,
) -> [BTreeSet<usize>; 2] {
    let mut received = [BTreeSet::new(), BTreeSet::new()];
    while received.iter().map(BTreeSet::len).sum::<usize>() < expected.len() {
        let (of, consumer, batch) = tokio::select! {
            batch = first.next_batch(1_000) => (0, &mut *first, batch.unwrap()),
            batch = second.next_batch(1_000) => (1, &mut *second, batch.unwrap()),
        };
        consumer.store(&batch, batch.deliveries.len()).await.unwrap();
        for number in numbers(&batch) {
            assert!(expected.contains(&number), "{number} was stored before");
            assert!(!received.iter().any(|seen| seen.contains(&number)), "{number} came twice");
            received[of].insert(number);
        }
    }
    received
}

/// Keeps the first member polling until the second one has got a record of its own.
async fn until_shared(broker: &KafkaBroker, topic: &str, first: &mut Box<dyn Consumer>, second: &mut Box<dyn Consumer>) -> usize {
    let mut published = RECORDS;
    loop {
        publish_numbers(broker, topic, published, RECORDS).await;
        let expected = (published..published + RECORDS).collect();
        published += RECORDS;
        let [_, of_second] = soon("both receive", share(first, second, &expected)).await;
        if !of_second.is_empty() {
            return published;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_is_not_delivered_again_when_partitions_move_or_a_member_leaves() {
    let Some(options) = options_without_background_commits() else { return };
    let broker = KafkaBroker::new(options).unwrap();
    let (topic, group) = (new_topic(&broker).await, unique("group"));
    publish_numbers(&broker, &topic, 0, RECORDS).await;
    let topics = [topic.clone()];
    let mut first = broker.consumer(&group, &topics).await.unwrap();
    drain(&mut *first, RECORDS, true).await;

    let mut second = broker.consumer(&group, &topics).await.unwrap();
    let published = until_shared(&broker, &topic, &mut first, &mut second).await;
    first.close().await.unwrap();

    publish_numbers(&broker, &topic, published, RECORDS).await;
    let rest: Vec<_> = drain(&mut *second, RECORDS, true).await.iter().flat_map(numbers).collect();
    assert_eq!(rest.into_iter().collect::<BTreeSet<_>>(), (published..published + RECORDS).collect());
    second.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_a_partition_that_moved_away_cannot_be_stored_and_is_delivered_to_the_other_member() {
    let Some(options) = options_without_background_commits() else { return };
    let broker = KafkaBroker::new(options).unwrap();
    let (topic, group) = (new_topic(&broker).await, unique("group"));
    publish_numbers(&broker, &topic, 0, RECORDS).await;
    let topics = [topic.clone()];
    let mut first = broker.consumer(&group, &topics).await.unwrap();
    let in_hand = drain(&mut *first, RECORDS, false).await;

    // The first member has nothing left to receive, and gives up partitions while it waits.
    let mut second = broker.consumer(&group, &topics).await.unwrap();
    let moved = soon("a partition moves", async {
        tokio::select! {
            batch = second.next_batch(1_000) => batch.unwrap(),
            batch = first.next_batch(1_000) => panic!("nothing new was published: {batch:?}"),
        }
    });
    let moved = moved.await;
    let mut lost: HashSet<TopicPartition> = HashSet::new();
    for batch in &in_hand {
        match first.store(batch, batch.deliveries.len()).await {
            Ok(()) => {}
            Err(BrokerError::PartitionLost(partition)) => {
                assert_eq!(partition, batch.source);
                // Nor does handing it back do anything.
                first.hold(batch, 0).await.unwrap();
                lost.insert(partition);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(lost.contains(&moved.source), "{} is somebody else's now", moved.source);
    assert!(lost.len() < 6, "and some stayed");
    first.close().await.unwrap();
    let expected: BTreeSet<usize> = in_hand.iter().filter(|batch| lost.contains(&batch.source)).flat_map(numbers).collect();
    let mut again: BTreeSet<usize> = numbers(&moved).into_iter().collect();
    while again.len() < expected.len() {
        again.extend(numbers(&next(&mut *second).await));
    }
    assert_eq!(again, expected, "what could not be stored comes again, and nothing else");
    second.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hung_for_too_long_cannot_store_what_others_were_given() {
    let Some(options) = options() else { return };
    let hanging = options.clone().with_property("max.poll.interval.ms", "6000");
    let (hanging, broker) = (KafkaBroker::new(hanging).unwrap(), KafkaBroker::new(options).unwrap());
    let (topic, group) = (new_topic(&broker).await, unique("group"));
    publish_numbers(&broker, &topic, 0, RECORDS).await;
    let topics = [topic.clone()];
    let mut first = hanging.consumer(&group, &topics).await.unwrap();
    let in_hand = drain(&mut *first, RECORDS, false).await;

    // From here on it does not poll: it is thrown out, and the other one gets everything.
    let mut second = broker.consumer(&group, &topics).await.unwrap();
    drain(&mut *second, RECORDS, true).await;
    for batch in &in_hand {
        let refused = first.store(batch, 1).await;
        assert!(matches!(refused, Err(BrokerError::PartitionLost(_))), "{refused:?}");
    }

    // It joins again as soon as it polls.
    until_shared(&broker, &topic, &mut second, &mut first).await;
    first.close().await.unwrap();
    second.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_vanishes_is_replaced_after_the_session_timeout() {
    let Some(options) = options() else { return };
    let broker = KafkaBroker::new(options).unwrap();
    let (topic, group) = (new_topic(&broker).await, unique("group"));
    publish_numbers(&broker, &topic, 0, RECORDS).await;
    let topics = [topic.clone()];
    let mut first = broker.consumer(&group, &topics).await.unwrap();
    drain(&mut *first, RECORDS, true).await;
    // Dropped without a good-bye of its owner: whether or not its offsets made it, nothing is lost.
    drop(first);
    publish_numbers(&broker, &topic, RECORDS, RECORDS).await;
    let mut second = broker.consumer(&group, &topics).await.unwrap();
    let mut seen = BTreeSet::new();
    let new: BTreeSet<usize> = (RECORDS..2 * RECORDS).collect();
    while !seen.is_superset(&new) {
        seen.extend(numbers(&next(&mut *second).await));
    }
    second.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_held_for_long_keeps_its_place_while_others_go_on() {
    let Some(options) = options() else { return };
    let broker = KafkaBroker::new(options).unwrap();
    let (topic, group) = (new_topic(&broker).await, unique("group"));
    publish_numbers(&broker, &topic, 0, RECORDS).await;
    let mut consumer = broker.consumer(&group, std::slice::from_ref(&topic)).await.unwrap();
    let held = next(&mut *consumer).await;
    consumer.hold(&held, 0).await.unwrap();
    let mut others = RECORDS - held.deliveries.len();
    while others > 0 {
        let batch = next(&mut *consumer).await;
        consumer.store(&batch, batch.deliveries.len()).await.unwrap();
        others -= batch.deliveries.len();
    }
    // Longer than the session timeout, polling all the time as the consumer loop does.
    let quiet = tokio::time::timeout(Duration::from_secs(7), consumer.next_batch(1_000)).await;
    assert!(quiet.is_err(), "{quiet:?}");
    consumer.resume(&held.source).await.unwrap();
    let back = next(&mut *consumer).await;
    assert_eq!(back.deliveries[..held.deliveries.len()], held.deliveries[..]);
    consumer.store(&back, back.deliveries.len()).await.unwrap();
    consumer.close().await.unwrap();
}
