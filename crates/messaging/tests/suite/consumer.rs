//! The consumer loop when messages are bad.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use database::testing::{TestDatabase, on_both, sqlite};
use messaging::consumer::dead_letter_header;
use messaging::{Broker, ConsumerStatus, DeadLetter, Delivery, Record, TopicSpec};
use uuid::Uuid;

use crate::support::{TestBroker, TestHandler, TestMigrator, applied, count, event, eventually, new_log, run_loop, soon};

/// A broker with topic `tasks` and its dead-letter topic.
pub(crate) async fn broker(log: &TestDatabase) -> TestBroker {
    let inner = messaging::EmbeddedBroker::open((*log).clone(), messaging::EmbeddedOptions::default()).await.unwrap();
    let tasks = TopicSpec::new("tasks");
    inner.ensure_topics(&[tasks.clone(), tasks.dead_letters()]).await.unwrap();
    TestBroker::new(inner)
}

pub(crate) async fn publish(broker: &TestBroker, records: &[Record]) {
    for answer in broker.inner.publish(records).await {
        answer.unwrap();
    }
}

/// The next `count` dead letters, read by a group of their own.
pub(crate) async fn dead_letters(broker: &TestBroker, count: usize) -> Vec<(Delivery, DeadLetter)> {
    let group = Uuid::now_v7().to_string();
    let mut consumer = broker.inner.consumer(&group, &["tasks.dlq".to_owned()]).await.unwrap();
    let mut letters = Vec::new();
    while letters.len() < count {
        let batch = soon("dead letters", consumer.next_batch(100)).await.unwrap();
        let read = |delivery: &Delivery| (delivery.clone(), DeadLetter::from_delivery(delivery).unwrap());
        letters.extend(batch.deliveries.iter().map(read));
    }
    letters
}

/// The next delivery for the loop's group, after the loop is gone.
pub(crate) async fn nothing_left(broker: &TestBroker) -> bool {
    publish(broker, &[event("tasks", "last", "last")]).await;
    let mut consumer = broker.inner.consumer("group", &["tasks".to_owned()]).await.unwrap();
    let batch = soon("the last one", consumer.next_batch(1_000)).await.unwrap();
    batch.deliveries.len() == 1 && batch.deliveries[0].payload == "last"
}

fn payloads(applied: &[(i32, String)]) -> Vec<&str> {
    applied.iter().map(|(_, payload)| payload.as_str()).collect()
}

on_both!(TestMigrator;
    async fn one_poisonous_message_among_200_stops_no_other(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let mut records: Vec<_> = (0..200).map(|n| event("tasks", "one key", &n.to_string())).collect();
        records[117] = event("tasks", "one key", "poison");
        publish(&broker, &records).await;
        let handler = TestHandler::new();
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        eventually("199 are applied", || async { count(db, "applied").await == 199 }).await;
        let letters = dead_letters(&broker, 1).await;
        running.stop().await;

        let expected: Vec<_> = (0..200).filter(|n| *n != 117).map(|n| n.to_string()).collect();
        assert_eq!(payloads(&applied(db).await), expected, "each once, in order");
        assert_eq!(handler.committed.load(Ordering::SeqCst), 199);
        assert_eq!(handler.attempts.lock().unwrap()[0], 200, "the whole batch is tried first");
        let (delivery, letter) = &letters[0];
        assert_eq!(letter.original, records[117]);
        assert_eq!((letter.offset, letter.group.as_str()), (117, "group"));
        assert_eq!(letter.reason, "cannot apply poison");
        assert_eq!(delivery.event_id(), letters[0].0.event_id());
        assert_eq!(delivery.headers.get(dead_letter_header::EVENT_ID), records[117].headers.get("ce_id"));
        assert!(nothing_left(&broker).await);
    }

    async fn what_several_partitions_have_ready_is_one_transaction(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let records: Vec<_> = (0..60).map(|n| event("tasks", &n.to_string(), &n.to_string())).collect();
        publish(&broker, &records).await;
        let handler = TestHandler::new();
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        eventually("all are applied", || async { count(db, "applied").await == 60 }).await;
        running.stop().await;
        assert_eq!(*handler.attempts.lock().unwrap(), [60]);
        let partitions: std::collections::HashSet<i32> = applied(db).await.into_iter().map(|(partition, _)| partition).collect();
        assert!(partitions.len() > 1, "{partitions:?}");
        assert!(nothing_left(&broker).await, "each partition's offset is stored");
    }

    async fn a_poisonous_message_costs_other_partitions_of_its_transaction_nothing(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let mut records: Vec<_> = (0..60).map(|n| event("tasks", &n.to_string(), &n.to_string())).collect();
        records[17] = event("tasks", "17", "poison");
        publish(&broker, &records).await;
        let handler = TestHandler::new();
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        eventually("59 are applied", || async { count(db, "applied").await == 59 }).await;
        let letters = dead_letters(&broker, 1).await;
        running.stop().await;
        assert_eq!(letters[0].1.original, records[17]);
        assert_eq!(handler.attempts.lock().unwrap()[0], 60, "all partitions are tried together first");
        let applied = applied(db).await;
        let mut once: Vec<&str> = payloads(&applied);
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), 59);
        assert!(nothing_left(&broker).await);
    }

    async fn a_panicking_handler_costs_one_message_and_not_the_loop(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let payloads_sent = ["a", "panic", "b"];
        let records: Vec<_> = payloads_sent.iter().map(|payload| event("tasks", "key", payload)).collect();
        publish(&broker, &records).await;
        let handler = TestHandler::new();
        handler.panic_after_commit.store(true, Ordering::SeqCst);
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        let letters = dead_letters(&broker, 1).await;
        assert!(letters[0].1.reason.contains("told to panic by panic"), "{}", letters[0].1.reason);
        publish(&broker, &[event("tasks", "key", "c")]).await;
        eventually("the loop goes on", || async { count(db, "applied").await == 3 }).await;
        assert_eq!(payloads(&applied(db).await), ["a", "b", "c"]);
        assert!(running.handle.status().is_running());
        running.stop().await;
    }

    async fn what_can_be_applied_at_once_needs_no_transaction_and_all_else_gets_one(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let handler = TestHandler::new();
        handler.at_once.store(true, Ordering::SeqCst);
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        let send = async |payloads: &[&str]| {
            let records: Vec<_> = payloads.iter().map(|payload| event("tasks", "key", payload)).collect();
            publish(&broker, &records).await;
        };
        send(&["a", "b"]).await;
        eventually("both are applied and told", || async { handler.committed.load(Ordering::SeqCst) == 2 }).await;
        assert!(handler.attempts.lock().unwrap().is_empty(), "no transaction was begun");
        send(&["overtaken", "c"]).await;
        eventually("both are applied", || async { count(db, "applied").await == 4 }).await;
        assert!(!handler.attempts.lock().unwrap().is_empty(), "in a transaction");
        send(&["poison", "d", "panic", "e"]).await;
        let letters = dead_letters(&broker, 2).await;
        let reasons: Vec<_> = letters.iter().map(|(_, letter)| letter.reason.as_str()).collect();
        assert_eq!(reasons, ["cannot apply at once", "the handler panicked: told to panic at once"]);
        eventually("the good ones are applied", || async { count(db, "applied").await == 6 }).await;
        assert_eq!(payloads(&applied(db).await), ["a", "b", "overtaken", "c", "d", "e"]);
        running.stop().await;
        assert!(nothing_left(&broker).await);
    }
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_without_an_id_is_put_away_as_it_was() {
    let (db, log) = (sqlite::<TestMigrator>().await, new_log().await);
    let broker = broker(&log).await;
    let mut malformed = event("tasks", "key", "whatever");
    malformed.headers.set("ce_id", "not a uuid");
    let mut nameless = event("tasks", "key", "nameless");
    nameless.headers = messaging::Headers::new();
    publish(&broker, &[malformed.clone(), event("tasks", "key", "good"), nameless.clone()]).await;
    let running = run_loop(&db, Arc::new(broker.clone()), &TestHandler::new());
    let letters = dead_letters(&broker, 2).await;
    assert_eq!(letters[0].1.original, malformed);
    assert_eq!(letters[1].1.original, nameless);
    assert!(letters[0].1.reason.contains("not a UUID"));
    eventually("the good one is applied", || async { count(&db, "applied").await == 1 }).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_poisonous_messages_stop_the_consumer_instead_of_draining_the_topic() {
    let (db, log) = (sqlite::<TestMigrator>().await, new_log().await);
    let broker = broker(&log).await;
    let mut records: Vec<_> = (0..12).map(|n| event("tasks", "key", &format!("poison {n}"))).collect();
    records.insert(2, event("tasks", "key", "good"));
    publish(&broker, &records).await;
    let running = run_loop(&db, Arc::new(broker.clone()), &TestHandler::new());
    let mut status = running.handle.watch();
    let stopped = |status: &ConsumerStatus| matches!(status, ConsumerStatus::Stopped { .. });
    soon("stopped", status.wait_for(stopped)).await.unwrap();
    let ConsumerStatus::Stopped { reason } = running.handle.status() else { panic!() };
    assert!(reason.contains("5 messages in a row"), "{reason}");
    // Two, one good one that ends the run, and five in a row.
    assert_eq!(dead_letters(&broker, 7).await.len(), 7);

    running.handle.resume();
    soon("stopped again", status.wait_for(|status| !stopped(status))).await.unwrap();
    soon("stopped again", status.wait_for(stopped)).await.unwrap();
    let letters = dead_letters(&broker, 12).await;
    let reasons: Vec<_> = letters.iter().map(|(_, letter)| letter.reason.clone()).collect();
    let expected: Vec<_> = (0..12).map(|n| format!("cannot apply poison {n}")).collect();
    assert_eq!(reasons, expected, "each once, in order");

    running.handle.resume();
    soon("running", status.wait_for(ConsumerStatus::is_running)).await.unwrap();
    publish(&broker, &[event("tasks", "key", "fine again")]).await;
    eventually("it goes on", || async { count(&db, "applied").await == 2 }).await;
    running.stop().await;
    assert_eq!(*status.borrow(), ConsumerStatus::Finished);
}

/// Whoever waits for its result sends it again and again, perhaps for hours in which nothing else comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poisonous_event_that_is_sent_again_and_again_does_not_stop_the_consumer() {
    let (db, log) = (sqlite::<TestMigrator>().await, new_log().await);
    let broker = broker(&log).await;
    let again = event("tasks", "key", "poison");
    publish(&broker, &vec![again; 12]).await;
    let running = run_loop(&db, Arc::new(broker.clone()), &TestHandler::new());
    assert_eq!(dead_letters(&broker, 12).await.len(), 12);

    // Others still count.
    let others: Vec<_> = (0..5).map(|n| event("tasks", "key", &format!("poison {n}"))).collect();
    publish(&broker, &others).await;
    let mut status = running.handle.watch();
    soon("stopped", status.wait_for(|status| matches!(status, ConsumerStatus::Stopped { .. }))).await.unwrap();
    assert_eq!(dead_letters(&broker, 16).await.len(), 16, "with the first one they are five");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_partition_does_not_hide_that_another_one_is_rubbish() {
    let (db, log) = (sqlite::<TestMigrator>().await, new_log().await);
    let broker = broker(&log).await;
    let running = run_loop(&db, Arc::new(broker.clone()), &TestHandler::new());
    let mut status = running.handle.watch();
    let stopped = |status: &ConsumerStatus| matches!(status, ConsumerStatus::Stopped { .. });
    // Each rubbish message is followed by one good one of another partition, which keeps the run over all short.
    for n in 0..10 {
        publish(&broker, &[event("tasks", "key-0", "poison"), event("tasks", "key-1", "good")]).await;
        eventually("the good one is applied or the loop stopped", || async {
            count(&db, "applied").await > n || stopped(&running.handle.status())
        })
        .await;
    }
    soon("stopped", status.wait_for(stopped)).await.unwrap();
    assert!(count(&db, "applied").await > 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_is_never_taken_stops_the_consumer_and_loses_nothing() {
    let (db, log) = (sqlite::<TestMigrator>().await, new_log().await);
    let broker = broker(&log).await;
    publish(&broker, &["a", "poison", "b"].map(|payload| event("tasks", "key", payload))).await;
    broker.faults.refuse.store(true, Ordering::SeqCst);
    let running = run_loop(&db, Arc::new(broker.clone()), &TestHandler::new());
    let mut status = running.handle.watch();
    let stopped = |status: &ConsumerStatus| matches!(status, ConsumerStatus::Stopped { reason } if reason.contains("not that"));
    soon("stopped", status.wait_for(stopped)).await.unwrap();
    assert_eq!(payloads(&applied(&db).await), ["a"]);
    broker.faults.refuse.store(false, Ordering::SeqCst);
    running.handle.resume();
    eventually("it goes on", || async { count(&db, "applied").await == 2 }).await;
    assert_eq!(dead_letters(&broker, 1).await[0].1.original.payload, "poison");
    running.stop().await;
}
