//! The embedded broker: the contract of every broker, and the dangers of its own.

use std::sync::Arc;

use async_trait::async_trait;
use database::{Database, DatabaseUrl};
use messaging::contract::BrokerUnderTest;
use messaging::embedded::Seek;
use messaging::{Batch, Broker, BrokerError, Consumer, EmbeddedBroker, EmbeddedOptions, Headers, Record, TopicSpec};
use migrations::BrokerLogMigrator;
use tempfile::TempDir;

use crate::support::{count, execute, soon};

mod contract {
    messaging::broker_contract!(start);

    async fn start() -> Option<super::EmbeddedUnderTest> {
        Some(super::EmbeddedUnderTest::start().await)
    }
}

/// A log in a folder of its own, closed and opened again by a restart.
struct EmbeddedUnderTest {
    folder: TempDir,
    database: Option<Database>,
    broker: EmbeddedBroker,
}

impl EmbeddedUnderTest {
    async fn start() -> Self {
        Self::start_with(EmbeddedOptions::default()).await
    }

    async fn start_with(options: EmbeddedOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (database, broker) = open(&folder, options).await;
        Self { folder, database: Some(database), broker }
    }
}

async fn open(folder: &TempDir, options: EmbeddedOptions) -> (Database, EmbeddedBroker) {
    let url = DatabaseUrl::sqlite(folder.path().join("log.db"));
    let database = Database::connect(&url, &database::testing::options()).await.unwrap();
    database.migrate::<BrokerLogMigrator>().await.unwrap();
    let broker = EmbeddedBroker::open(database.clone(), options).await.unwrap();
    (database, broker)
}

#[async_trait]
impl BrokerUnderTest for EmbeddedUnderTest {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.clone())
    }

    async fn restart(&mut self) {
        self.broker.close().await.unwrap();
        self.database.take().unwrap().close().await;
        let (database, broker) = open(&self.folder, EmbeddedOptions::default()).await;
        self.database = Some(database);
        self.broker = broker;
    }
}

fn record(key: &str, payload: &str) -> Record {
    Record { topic: "t".to_owned(), key: key.to_owned(), headers: Headers::new(), payload: payload.to_owned().into() }
}

async fn with_topic() -> EmbeddedUnderTest {
    let under_test = EmbeddedUnderTest::start().await;
    under_test.broker.ensure_topics(&[TopicSpec::new("t")]).await.unwrap();
    under_test
}

async fn publish(broker: &EmbeddedBroker, records: &[Record]) {
    for answer in broker.publish(records).await {
        answer.unwrap();
    }
}

async fn consumer(broker: &EmbeddedBroker) -> Box<dyn Consumer> {
    broker.consumer("group", &["t".to_owned()]).await.unwrap()
}

async fn next(consumer: &mut dyn Consumer) -> Batch {
    soon("the next batch", consumer.next_batch(1_000)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_goes_away_stops_nothing_that_was_handed_over() {
    let under_test = with_topic().await;
    let records: Vec<_> = (0..100).map(|n| record("key", &n.to_string())).collect();
    let publishing = under_test.broker.publish(&records);
    tokio::pin!(publishing);
    // Polled once, then dropped.
    assert!(futures_util::poll!(publishing.as_mut()).is_pending());
    #[expect(clippy::drop_non_drop, reason = "ends the borrow")]
    drop(publishing);
    let mut consumer = consumer(&under_test.broker).await;
    let batch = next(&mut *consumer).await;
    assert_eq!(batch.deliveries.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_has_one_consumer_until_that_is_gone() {
    let under_test = with_topic().await;
    let broker = &under_test.broker;
    let first = consumer(broker).await;
    let second = broker.consumer("group", &["t".to_owned()]).await.map(|_| ());
    assert!(matches!(second, Err(BrokerError::GroupInUse { group }) if group == "group"));
    first.close().await.unwrap();
    let third = consumer(broker).await;
    drop(third);
    consumer(broker).await.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_consumer_can_be_moved_back_and_forth() {
    let under_test = with_topic().await;
    let broker = &under_test.broker;
    publish(broker, &(0..5).map(|n| record("key", &n.to_string())).collect::<Vec<_>>()).await;
    let mut consumer = consumer(broker).await;
    let batch = next(&mut *consumer).await;
    consumer.store(&batch, batch.deliveries.len()).await.unwrap();

    broker.seek_group("group", "t", Seek::Start).await.unwrap();
    let again = next(&mut *consumer).await;
    assert_eq!(again.deliveries[..], batch.deliveries[..], "everything again");
    let late = consumer.store(&batch, 5).await;
    assert!(matches!(late, Err(BrokerError::PartitionLost(_))), "progress from before does not undo the move");

    broker.seek_group("group", "t", Seek::Start).await.unwrap();
    let late = consumer.store(&again, 5).await;
    assert!(matches!(late, Err(BrokerError::PartitionLost(_))), "also before the consumer noticed");
    broker.seek_group("group", "t", Seek::End).await.unwrap();
    publish(broker, &[record("key", "new")]).await;
    assert_eq!(next(&mut *consumer).await.deliveries[0].payload, "new", "what was there is skipped");
    assert!(broker.seek_group("group", "unknown", Seek::End).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_failed_leaves_no_hole_and_gives_no_offset_twice() {
    let under_test = with_topic().await;
    let (broker, db) = (&under_test.broker, under_test.database.as_ref().unwrap());
    publish(broker, &[record("key", "0"), record("key", "1")]).await;
    execute(db, "ALTER TABLE log_records RENAME TO away").await;
    let answers = broker.publish(&[record("key", "failed")]).await;
    assert!(matches!(&answers[0], Err(error) if error.is_transient()), "{answers:?}");
    execute(db, "ALTER TABLE away RENAME TO log_records").await;
    publish(broker, &[record("key", "2")]).await;
    let mut consumer = consumer(broker).await;
    let batch = next(&mut *consumer).await;
    let seen: Vec<_> = batch.deliveries.iter().map(|delivery| (delivery.offset, delivery.payload.clone())).collect();
    assert_eq!(seen, [(0, "0".into()), (1, "1".into()), (2, "2".into())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_applied_although_it_seemed_to_fail_is_delivered_and_not_overwritten() {
    let under_test = with_topic().await;
    let (broker, db) = (&under_test.broker, under_test.database.as_ref().unwrap());
    publish(broker, &[record("key", "0")]).await;
    execute(db, "ALTER TABLE log_records RENAME TO away").await;
    assert!(broker.publish(&[record("key", "1")]).await[0].is_err());
    execute(db, "ALTER TABLE away RENAME TO log_records").await;
    execute(
        db,
        r#"INSERT INTO log_records SELECT topic, partition, "offset" + 1, message_key, headers, CAST('1' AS BLOB), appended_at_ms FROM log_records"#,
    )
    .await;
    publish(broker, &[record("key", "2")]).await;
    let mut consumer = consumer(broker).await;
    let batch = next(&mut *consumer).await;
    let seen: Vec<_> = batch.deliveries.iter().map(|delivery| (delivery.offset, delivery.payload.clone())).collect();
    assert_eq!(seen, [(0, "0".into()), (1, "1".into()), (2, "2".into())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_that_could_not_be_written_are_written_later() {
    let under_test = with_topic().await;
    let (broker, db) = (&under_test.broker, under_test.database.as_ref().unwrap());
    publish(broker, &[record("key", "0")]).await;
    let mut first = consumer(broker).await;
    let batch = next(&mut *first).await;
    execute(db, "ALTER TABLE log_offsets RENAME TO away").await;
    first.store(&batch, 1).await.unwrap();
    assert!(first.close().await.is_err(), "the caller is told");
    execute(db, "ALTER TABLE away RENAME TO log_offsets").await;
    publish(broker, &[record("key", "1")]).await;
    let mut second = consumer(broker).await;
    assert_eq!(next(&mut *second).await.deliveries[0].payload, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_writes_what_waits_and_wakes_who_waits() {
    let under_test = with_topic().await;
    let broker = under_test.broker.clone();
    let mut waiting = consumer(&broker).await;
    let waiting = tokio::spawn(async move { waiting.next_batch(1).await });
    let publishing: Vec<_> = (0..20)
        .map(|n| {
            let broker = broker.clone();
            tokio::spawn(async move { broker.publish(&[record("key", &n.to_string())]).await.remove(0) })
        })
        .collect();
    broker.close().await.unwrap();
    broker.close().await.unwrap();
    assert!(matches!(broker.publish(&[record("key", "late")]).await[0], Err(BrokerError::Closed)));
    assert!(broker.ping().await.is_err());
    assert!(broker.consumer("other", &["t".to_owned()]).await.is_err());
    // Woken either by a record or by the end.
    let _ = soon("the waiting consumer", waiting).await.unwrap();
    let mut acknowledged = 0;
    for publishing in publishing {
        match soon("an answer", publishing).await.unwrap() {
            Ok(()) => acknowledged += 1,
            Err(error) => assert!(matches!(error, BrokerError::Closed), "{error}"),
        }
    }
    assert_eq!(count(under_test.database.as_ref().unwrap(), "log_records").await, acknowledged);
}
