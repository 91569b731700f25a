//! The consumer loop when the message is good and everything else is not.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use database::testing::{on_both, sqlite};
use messaging::{Broker, ConsumerStatus, TopicSpec};
use uuid::Uuid;

use crate::consumer::{broker, dead_letters, nothing_left, publish};
use crate::support::{
    TestBroker, TestHandler, TestMigrator, applied, count, event, event_with_id, eventually, new_log, run_loop,
    run_loop_with_growing_waits, soon,
};

/// Keys of two different partitions.
const STUCK: &str = "key-0";
const FREE: &str = "key-1";

on_both!(TestMigrator;
    async fn a_transient_error_holds_only_its_partition(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let handler = TestHandler::new();
        handler.stuck.store(true, Ordering::SeqCst);
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        let stuck: Vec<_> = (0..3).map(|n| event("tasks", STUCK, &format!("stuck {n}"))).collect();
        publish(&broker, &stuck).await;
        eventually("it was tried", || async { handler.attempts.lock().unwrap().len() > 3 }).await;
        for n in 0..20 {
            publish(&broker, &[event("tasks", FREE, &format!("free {n}"))]).await;
        }
        eventually("the other partition goes on", || async { count(db, "applied").await == 20 }).await;
        assert!(applied(db).await.iter().all(|(_, payload)| payload.starts_with("free")));
        assert!(running.handle.status().is_running());
        // More behind the held ones stays behind them.
        publish(&broker, &[event("tasks", STUCK, "behind")]).await;
        handler.stuck.store(false, Ordering::SeqCst);
        eventually("the held ones follow", || async { count(db, "applied").await == 24 }).await;
        let last: Vec<_> = applied(db).await.split_off(20).into_iter().map(|(_, payload)| payload).collect();
        assert_eq!(last, ["stuck 0", "stuck 1", "stuck 2", "behind"]);
        running.stop().await;
        assert!(nothing_left(&broker).await);
    }

    async fn a_lost_offset_store_redelivers_and_the_inbox_stops_the_double(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let handler = TestHandler::new();
        broker.faults.store.store(true, Ordering::SeqCst);
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        publish(&broker, &(0..10).map(|n| event("tasks", "key", &n.to_string())).collect::<Vec<_>>()).await;
        eventually("redelivered several times", || async { handler.committed.load(Ordering::SeqCst) >= 30 }).await;
        assert_eq!(count(db, "applied").await, 10);
        broker.faults.store.store(false, Ordering::SeqCst);
        publish(&broker, &[event("tasks", "key", "10")]).await;
        eventually("it goes on", || async { count(db, "applied").await == 11 }).await;
        running.stop().await;
        assert_eq!(count(db, "applied").await, 11);
        assert!(nothing_left(&broker).await);
    }

    async fn death_between_commit_and_offset_applies_nothing_twice(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        publish(&broker, &(0..10).map(|n| event("tasks", "key", &n.to_string())).collect::<Vec<_>>()).await;
        let dying = TestHandler::new();
        dying.hang_after_commit.store(true, Ordering::SeqCst);
        let running = run_loop(db, Arc::new(broker.clone()), &dying);
        eventually("committed", || async { count(db, "applied").await > 0 }).await;
        running.task.abort();
        let _ = running.task.await;

        let handler = TestHandler::new();
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        eventually("all came (again)", || async { handler.committed.load(Ordering::SeqCst) == 10 }).await;
        assert_eq!(count(db, "applied").await, 10);
        running.stop().await;
    }

    async fn a_message_sent_twice_is_applied_once(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let id = Uuid::now_v7();
        let twice = [event_with_id("tasks", "key", "same", id), event_with_id("tasks", "key", "same", id)];
        publish(&broker, &twice).await;
        let handler = TestHandler::new();
        let running = run_loop(db, Arc::new(broker.clone()), &handler);
        publish(&broker, &[event_with_id("tasks", "another key", "same", id)]).await;
        eventually("all three came", || async { handler.committed.load(Ordering::SeqCst) == 3 }).await;
        running.stop().await;
        assert_eq!(count(db, "applied").await, 1);
    }
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_too_much_for_the_database_gets_through_in_smaller_parts() {
    let (db, log) = (sqlite::<TestMigrator>().await, new_log().await);
    let broker = broker(&log).await;
    let handler = TestHandler::new();
    handler.too_many.store(20, Ordering::SeqCst);
    publish(&broker, &(0..200).map(|n| event("tasks", "key", &n.to_string())).collect::<Vec<_>>()).await;
    let running = run_loop(&db, Arc::new(broker.clone()), &handler);
    eventually("all are applied", || async { count(&db, "applied").await == 200 }).await;
    let in_order: Vec<_> = (0..200).map(|n| n.to_string()).collect();
    assert_eq!(applied(&db).await.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), in_order);

    handler.too_many.store(usize::MAX, Ordering::SeqCst);
    for n in 0..10 {
        publish(&broker, &(0..200).map(|_| event("tasks", "key", "more")).collect::<Vec<_>>()).await;
        eventually("applied", || async { count(&db, "applied").await == 400 + n * 200 }).await;
    }
    assert_eq!(handler.attempts.lock().unwrap().last(), Some(&200), "back to whole batches");
    running.stop().await;
    assert!(nothing_left(&broker).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_is_not_acknowledged_keeps_its_offset_back() {
    let (db, log) = (sqlite::<TestMigrator>().await, new_log().await);
    let broker = broker(&log).await;
    let payloads = ["a", "poison", "b"];
    publish(&broker, &payloads.map(|payload| event("tasks", "key", payload))).await;
    broker.faults.publish.store(true, Ordering::SeqCst);
    let handler = TestHandler::new();
    let running = run_loop(&db, Arc::new(broker.clone()), &handler);
    eventually("tried several times", || async { broker.faults.refused.load(Ordering::SeqCst) > 3 }).await;
    assert_eq!(count(&db, "applied").await, 1, "what is behind the poison waits");
    let failing_since = time_ms();
    publish(&broker, &[event("tasks", FREE, "other")]).await;
    eventually("other partitions go on", || async { count(&db, "applied").await >= 2 }).await;

    broker.faults.publish.store(false, Ordering::SeqCst);
    eventually("the rest follows", || async { count(&db, "applied").await == 3 }).await;
    let letters = dead_letters(&broker, 1).await;
    assert_eq!(letters.len(), 1, "put away once");
    assert!(letters[0].1.first_failed_at_ms <= failing_since, "the first failure, not the last");
    running.stop().await;
    assert!(nothing_left(&broker).await);
}

/// A partition that has waited for its dead letter does not make the message behind it wait as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_start_anew_after_a_dead_letter() {
    let (db, log) = (sqlite::<TestMigrator>().await, new_log().await);
    let broker = broker(&log).await;
    publish(&broker, &["poison", "stuck"].map(|payload| event("tasks", "key", payload))).await;
    broker.faults.publish.store(true, Ordering::SeqCst);
    let handler = TestHandler::new();
    handler.stuck.store(true, Ordering::SeqCst);
    let running = run_loop_with_growing_waits(&db, Arc::new(broker.clone()), &handler);
    eventually("waits have grown", || async { broker.faults.refused.load(Ordering::SeqCst) >= 9 }).await;
    broker.faults.publish.store(false, Ordering::SeqCst);
    assert_eq!(dead_letters(&broker, 1).await.len(), 1);
    // Anew, these tries take a tenth of a second; with the waits grown further, longer than anybody has patience.
    let before = handler.attempts.lock().unwrap().len();
    eventually("tried soon", || async { handler.attempts.lock().unwrap().len() >= before + 6 }).await;
    handler.stuck.store(false, Ordering::SeqCst);
    eventually("the message behind is applied", || async { count(&db, "applied").await == 1 }).await;
    running.stop().await;
    assert!(nothing_left(&broker).await);
}

fn time_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down_finishes_the_batch_in_hand_and_stores_its_offset() {
    let (db, log) = (sqlite::<TestMigrator>().await, new_log().await);
    let broker = broker(&log).await;
    publish(&broker, &(0..10).map(|n| event("tasks", "key", &n.to_string())).collect::<Vec<_>>()).await;
    let handler = TestHandler::new();
    handler.permits.forget_permits(usize::MAX);
    let running = run_loop(&db, Arc::new(broker.clone()), &handler);
    let mut begun = handler.begun.subscribe();
    soon("in the transaction", begun.wait_for(|begun| *begun == 1)).await.unwrap();
    running.shutdown.cancel();
    handler.permits.add_permits(1);
    running.stop().await;
    assert_eq!(count(&db, "applied").await, 10);
    assert!(nothing_left(&broker).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down_does_not_wait_for_a_held_partition() {
    let (db, log) = (sqlite::<TestMigrator>().await, new_log().await);
    let broker = broker(&log).await;
    publish(&broker, &[event("tasks", "key", "stuck")]).await;
    let handler = TestHandler::new();
    handler.stuck.store(true, Ordering::SeqCst);
    let running = run_loop(&db, Arc::new(broker.clone()), &handler);
    eventually("it was tried", || async { handler.attempts.lock().unwrap().len() > 2 }).await;
    running.stop().await;

    handler.stuck.store(false, Ordering::SeqCst);
    let running = run_loop(&db, Arc::new(broker.clone()), &handler);
    eventually("the next process applies it", || async { count(&db, "applied").await == 1 }).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_gate_applies_nothing_and_an_open_one_everything_in_order() {
    let (db, log) = (sqlite::<TestMigrator>().await, new_log().await);
    let broker = broker(&log).await;
    let handler = TestHandler::new();
    let running = run_loop(&db, Arc::new(broker.clone()), &handler);
    let mut status = running.handle.watch();
    soon("running", status.wait_for(ConsumerStatus::is_running)).await.unwrap();
    running.gate.close();
    soon("quiet", running.gate.quiet()).await;
    for n in 0..20 {
        publish(&broker, &[event("tasks", FREE, &n.to_string())]).await;
    }
    soon("still quiet", running.gate.quiet()).await;
    assert_eq!(*handler.begun.borrow(), 0);
    running.gate.open();
    eventually("all are applied", || async { count(&db, "applied").await == 20 }).await;
    let in_order: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(applied(&db).await.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), in_order);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_started_before_its_broker_waits_and_says_for_what() {
    let (db, log) = (sqlite::<TestMigrator>().await, new_log().await);
    let inner = messaging::EmbeddedBroker::open((*log).clone(), messaging::EmbeddedOptions::default()).await.unwrap();
    let broker = TestBroker::new(inner);
    broker.faults.away.store(true, Ordering::SeqCst);
    let running = run_loop(&db, Arc::new(broker.clone()), &TestHandler::new());
    let mut status = running.handle.watch();
    let waiting = |status: &ConsumerStatus| matches!(status, ConsumerStatus::Starting { waiting_for: Some(_) });
    soon("waiting", status.wait_for(waiting)).await.unwrap();
    broker.faults.away.store(false, Ordering::SeqCst);
    soon("running", status.wait_for(ConsumerStatus::is_running)).await.unwrap();
    broker.ensure_topics(&[TopicSpec::new("tasks")]).await.unwrap();
    publish(&broker, &[event("tasks", "key", "good")]).await;
    eventually("applied", || async { count(&db, "applied").await == 1 }).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_taken_away_during_a_batch_does_not_end_the_loop() {
    let (db, log) = (sqlite::<TestMigrator>().await, new_log().await);
    let broker = broker(&log).await;
    broker.faults.lost.store(true, Ordering::SeqCst);
    let handler = TestHandler::new();
    let running = run_loop(&db, Arc::new(broker.clone()), &handler);
    publish(&broker, &[event("tasks", "key", "a")]).await;
    eventually("applied", || async { handler.committed.load(Ordering::SeqCst) == 1 }).await;
    broker.faults.lost.store(false, Ordering::SeqCst);
    publish(&broker, &[event("tasks", "key", "b")]).await;
    eventually("it goes on", || async { count(&db, "applied").await == 2 }).await;
    assert!(running.handle.status().is_running());
    running.stop().await;
}
