//! The relay, alone and together with the sweeper.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use database::Database;
use database::testing::{on_both, sqlite};
use messaging::outbox::RetrySchedule;
use messaging::{Gate, Relay, RelayHandle, RelayOptions, Sweeper, SweeperOptions};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Mode, OUTBOX, OutboxBroker, TestMigrator, count, eventually, execute, hold, insert, make_due, rows, soon, waiting,
};

struct Running {
    relay: RelayHandle,
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        soon("the relay ends", self.task).await.unwrap();
    }
}

fn start(db: &Database, broker: &Arc<OutboxBroker>, options: RelayOptions, gate: &Gate) -> Running {
    let shutdown = CancellationToken::new();
    let broker = Arc::<OutboxBroker>::clone(broker);
    let (relay, task) = Relay::start(db.clone(), OUTBOX, broker, options, shutdown.clone(), gate.clone());
    Running { relay, task, shutdown }
}

fn sweeper(db: &Database, broker: &Arc<OutboxBroker>) -> Sweeper {
    let retry = RetrySchedule { min: Duration::from_millis(20), max: Duration::from_millis(100) };
    let options = SweeperOptions { poll: Duration::from_millis(5), retry, ..SweeperOptions::default() };
    Sweeper::new(db.clone(), OUTBOX, Arc::<OutboxBroker>::clone(broker), options)
}

on_both!(TestMigrator;
    async fn committed_rows_are_published_once_and_removed(db: &TestDatabase) {
        let broker = OutboxBroker::new(Mode::Up);
        let running = start(db, &broker, RelayOptions::default(), &Gate::new());
        let all = rows(1_000);
        for chunk in all.chunks(10) {
            insert(db, chunk).await;
            running.relay.committed(chunk.to_vec());
        }
        eventually("all are removed", || async { waiting(db).await == 0 }).await;
        let in_order: Vec<_> = (0..all.len()).map(|n| n.to_string()).collect();
        assert_eq!(broker.payloads(), in_order);
        running.stop().await;
    }

    async fn death_between_publish_and_removal_sends_twice_and_loses_nothing(db: &TestDatabase) {
        let broker = OutboxBroker::new(Mode::Up);
        let never = RelayOptions { remove_after: Duration::from_secs(3600), ..RelayOptions::default() };
        let running = start(db, &broker, never, &Gate::new());
        let all = rows(20);
        insert(db, &all).await;
        running.relay.committed(all.clone());
        eventually("published", || async { broker.published().len() == 20 }).await;
        running.task.abort();
        let _ = running.task.await;
        assert_eq!(waiting(db).await, 20);

        make_due(db).await;
        sweeper(db, &broker).sweep().await.unwrap();
        assert_eq!(waiting(db).await, 0);
        let published = broker.published();
        assert_eq!(published.len(), 40);
        assert_eq!(published[..20], published[20..], "with the same event ids");
    }

    async fn a_broker_that_is_away_for_a_while_gets_everything_later(db: &TestDatabase) {
        let broker = OutboxBroker::new(Mode::Down);
        let running = start(db, &broker, RelayOptions::default(), &Gate::new());
        let sweeping = sweeper(db, &broker).start(running.shutdown.clone(), Gate::new());
        let all = rows(300);
        insert(db, &all).await;
        running.relay.committed(all);
        make_due(db).await;
        eventually("both have tried", || async { broker.calls.load(Ordering::SeqCst) > 5 }).await;
        assert_eq!(waiting(db).await, 300);
        broker.set(Mode::Up);
        eventually("all are removed", || async { waiting(db).await == 0 }).await;
        let mut numbers = broker.numbers();
        numbers.dedup();
        assert_eq!(numbers, (0..300).collect::<Vec<_>>());
        running.stop().await;
        soon("the sweeper ends", sweeping).await.unwrap();
    }

    async fn rows_beyond_a_full_queue_are_swept_and_nobody_waits(db: &TestDatabase) {
        let broker = OutboxBroker::new(Mode::Up);
        let small = RelayOptions { queue_rows: 10, publish_rows: 5, ..RelayOptions::default() };
        let gate = Gate::new_closed();
        let running = start(db, &broker, small, &gate);
        let all = rows(100);
        insert(db, &all).await;
        // Not even async: it cannot wait.
        running.relay.committed(all);
        gate.open();
        eventually("the queue is drained", || async { waiting(db).await < 100 }).await;
        let by_relay = broker.published().len();
        assert!((10..=20).contains(&by_relay), "{by_relay}");
        make_due(db).await;
        sweeper(db, &broker).sweep().await.unwrap();
        running.stop().await;
        assert_eq!(waiting(db).await, 0);
        let mut numbers = broker.numbers();
        numbers.dedup();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }

    async fn rows_are_removed_later_when_the_table_cannot_be_reached(db: &TestDatabase) {
        let broker = OutboxBroker::new(Mode::Up);
        let running = start(db, &broker, RelayOptions::default(), &Gate::new());
        let all = rows(10);
        insert(db, &all).await;
        execute(db, "ALTER TABLE outbox_test RENAME TO away").await;
        running.relay.committed(all);
        eventually("published", || async { broker.published().len() == 10 }).await;
        // Long enough for the first try in most runs; whether it is seen or not, the rows end up removed.
        tokio::task::yield_now().await;
        execute(db, "ALTER TABLE away RENAME TO outbox_test").await;
        eventually("removed", || async { waiting(db).await == 0 }).await;
        assert_eq!(broker.published().len(), 10, "removing again does not publish again");
        running.stop().await;
    }
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_does_not_wait_for_earlier_acknowledgements() {
    let db = sqlite::<TestMigrator>().await;
    let broker = OutboxBroker::new(Mode::Silent);
    let few = RelayOptions { publish_rows: 10, publishes_in_flight: 3, ..RelayOptions::default() };
    let running = start(&db, &broker, few, &Gate::new());
    let all = rows(100);
    insert(&db, &all).await;
    running.relay.committed(all);
    eventually("three calls are in flight", || async { broker.calls.load(Ordering::SeqCst) == 3 }).await;
    let in_flight = broker.payloads();
    assert!((3..=30).contains(&in_flight.len()), "bounded: {}", in_flight.len());
    assert_eq!(in_flight, (0..in_flight.len()).map(|n| n.to_string()).collect::<Vec<_>>(), "in order");
    assert_eq!(waiting(&db).await, 100, "nothing is removed before its acknowledgement");
    broker.set(Mode::Up);
    eventually("all are removed", || async { waiting(&db).await == 0 }).await;
    assert_eq!(broker.numbers(), (0..100).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_never_answers_does_not_stop_the_relay_for_ever() {
    let db = sqlite::<TestMigrator>().await;
    let broker = OutboxBroker::new(Mode::Silent);
    let impatient = RelayOptions {
        publish_timeout: Duration::from_millis(30),
        publishes_in_flight: 1,
        publish_rows: 10,
        ..RelayOptions::default()
    };
    let running = start(&db, &broker, impatient, &Gate::new());
    let all = rows(30);
    insert(&db, &all).await;
    running.relay.committed(all);
    eventually("it gave up on the first calls", || async { broker.calls.load(Ordering::SeqCst) == 3 }).await;
    broker.set(Mode::Up);
    let later = rows(5);
    insert(&db, &later).await;
    running.relay.committed(later);
    eventually("later rows are removed", || async { waiting(&db).await <= 30 }).await;
    make_due(&db).await;
    sweeper(&db, &broker).sweep().await.unwrap();
    assert_eq!(waiting(&db).await, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down_publishes_and_removes_what_was_handed_over() {
    let db = sqlite::<TestMigrator>().await;
    let broker = OutboxBroker::new(Mode::Up);
    let gate = Gate::new_closed();
    let running = start(&db, &broker, RelayOptions::default(), &gate);
    let all = rows(2_000);
    insert(&db, &all).await;
    running.relay.committed(all);
    let relay = running.relay.clone();
    running.shutdown.cancel();
    gate.open();
    running.stop().await;
    assert_eq!(waiting(&db).await, 0);
    assert_eq!(broker.published().len(), 2_000);
    relay.committed(rows(1));
    assert_eq!(broker.published().len(), 2_000, "too late: left to the sweeper");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down_ends_also_when_the_broker_never_answers() {
    let db = sqlite::<TestMigrator>().await;
    let broker = OutboxBroker::new(Mode::Silent);
    let hasty = RelayOptions { shutdown_grace: Duration::from_millis(50), ..RelayOptions::default() };
    let running = start(&db, &broker, hasty, &Gate::new());
    let all = rows(10);
    insert(&db, &all).await;
    running.relay.committed(all);
    running.stop().await;
    assert_eq!(waiting(&db).await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_gate_stops_publishing_between_two_batches() {
    let db = sqlite::<TestMigrator>().await;
    let broker = OutboxBroker::new(Mode::Up);
    let gate = Gate::new();
    let running = start(&db, &broker, RelayOptions::default(), &gate);
    gate.close();
    soon("quiet", gate.quiet()).await;
    let all = rows(10);
    insert(&db, &all).await;
    running.relay.committed(all);
    soon("still quiet", gate.quiet()).await;
    assert!(broker.published().is_empty());
    gate.open();
    eventually("removed", || async { waiting(&db).await == 0 }).await;
    running.stop().await;
}

/// Otherwise one small removal follows the other for as long as rows keep coming.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_come_during_a_removal_wait_for_others() {
    let Some(db) = database::testing::postgres::<TestMigrator>().await else { return };
    execute(
        &db,
        "CREATE TABLE removals (at TIMESTAMPTZ);
         CREATE FUNCTION note_removal() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO removals VALUES (now()); RETURN NULL; END $$;
         CREATE TRIGGER removals AFTER DELETE ON outbox_test FOR EACH STATEMENT EXECUTE FUNCTION note_removal();",
    )
    .await;
    let all = rows(4);
    insert(&db, &all).await;
    let held = hold(&db, "0").await;
    let broker = OutboxBroker::new(Mode::Up);
    // Two are removed at once, and one would wait for an hour.
    let options = RelayOptions { remove_rows: 2, remove_after: Duration::from_secs(3600), ..RelayOptions::default() };
    let running = start(&db, &broker, options, &Gate::new());
    running.relay.committed(all[..2].to_vec());
    eventually("the first removal waits for its row", || async { count(&db, "pg_locks WHERE NOT granted").await > 0 }).await;
    running.relay.committed(all[2..3].to_vec());
    eventually("published", || async { broker.published().len() == 3 }).await;
    held.release().await;
    eventually("the first two are removed", || async { waiting(&db).await <= 2 }).await;
    running.relay.committed(all[3..].to_vec());
    eventually("all are removed", || async { waiting(&db).await == 0 }).await;
    assert_eq!(count(&db, "removals").await, 2, "the third waits for the fourth");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_a_sweeper_does_not_wait_for_a_broker_that_never_answers() {
    let db = sqlite::<TestMigrator>().await;
    let broker = OutboxBroker::new(Mode::Silent);
    insert(&db, &rows(3)).await;
    make_due(&db).await;
    let shutdown = CancellationToken::new();
    let patient = SweeperOptions { publish_timeout: Duration::from_secs(3600), ..SweeperOptions::default() };
    let sweeper = Sweeper::new((*db).clone(), OUTBOX, Arc::<OutboxBroker>::clone(&broker), patient);
    let sweeping = sweeper.start(shutdown.clone(), Gate::new());
    eventually("it waits for the broker", || async { broker.calls.load(Ordering::SeqCst) == 1 }).await;
    shutdown.cancel();
    soon("the sweeper ends", sweeping).await.unwrap();
    assert_eq!(waiting(&db).await, 3, "they are due again later");
}
