//! Brokers that die, on a broker that the test has to itself.

use std::sync::Arc;
use std::time::Duration;

use messaging::kafka::{KafkaBroker, KafkaOptions};
use messaging::{Broker, BrokerError, Record, TopicSpec};
use tokio_util::sync::CancellationToken;

use super::own_broker::OwnBroker;
use super::unique;
use crate::support::{TestHandler, TestMigrator, applied, count, event, eventually, run_loop_of, soon};

/// Publishes every event until it is acknowledged, as relay and sweeper do together; answers how many.
async fn publish_all(broker: KafkaBroker, topic: String, stop: CancellationToken) -> usize {
    let mut published = 0;
    while !stop.is_cancelled() {
        let mut records: Vec<Record> =
            (published..published + 10).map(|n| event(&topic, &format!("key-{}", n % 17), &n.to_string())).collect();
        published += records.len();
        while !records.is_empty() {
            let answers = broker.publish(&records).await;
            let mut answers = answers.into_iter();
            records.retain(|_| match answers.next().unwrap() {
                Ok(()) => false,
                Err(error) => {
                    assert!(error.is_transient(), "{error}");
                    true
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    published
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_while_publishing_and_consuming_loses_and_doubles_nothing() {
    let Some(own) = OwnBroker::start().await else { return };
    let db = database::testing::sqlite::<TestMigrator>().await;
    let broker = KafkaBroker::new(own.options.clone()).unwrap();
    let (topic, group) = (unique("topic"), unique("group"));
    broker.ensure_topics(&[TopicSpec::new(&topic)]).await.unwrap();
    let handler = TestHandler::new();
    let running = run_loop_of(&db, Arc::new(broker.clone()), &handler, &group, &topic);
    let stop = CancellationToken::new();
    let publishing = tokio::spawn(publish_all(broker.clone(), topic.clone(), stop.clone()));
    for command in ["kill", "restart", "kill"] {
        let before = count(&db, "applied").await;
        eventually("messages flow", || async { count(&db, "applied").await > before + 100 }).await;
        own.run(command).await;
        if command == "kill" {
            let error = soon("an answer", broker.ping()).await.unwrap_err();
            assert!(error.is_transient(), "{error}");
            own.run("start").await;
        }
        eventually("the broker answers again", || async { broker.ping().await.is_ok() }).await;
    }
    let before = count(&db, "applied").await;
    eventually("messages flow", || async { count(&db, "applied").await > before + 100 }).await;
    stop.cancel();
    let published = publishing.await.unwrap();
    eventually("all are applied", || async { count(&db, "applied").await >= i64::try_from(published).unwrap() }).await;
    running.stop().await;
    let mut numbers: Vec<usize> = applied(&db).await.into_iter().map(|(_, payload)| payload.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..published).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_starts_before_its_broker_is_told_so_in_time_and_works_when_it_comes() {
    let Some(own) = OwnBroker::start().await else { return };
    own.run("kill").await;
    let db = database::testing::sqlite::<TestMigrator>().await;
    let options = KafkaOptions { delivery_timeout: Duration::from_secs(2), ..own.options.clone() };
    let broker = KafkaBroker::new(options).unwrap();
    let (topic, group) = (unique("topic"), unique("group"));
    let spec = [TopicSpec::new(&topic)];
    let away = |result: Result<(), BrokerError>| assert!(matches!(result, Err(BrokerError::Unavailable(_))), "{result:?}");
    let record = [event(&topic, "key", "early")];
    let (pinged, published, ensured, joined) = soon("answers", async {
        tokio::join!(
            broker.ping(),
            broker.publish(&record),
            broker.ensure_topics(&spec),
            broker.consumer(&group, std::slice::from_ref(&topic)),
        )
    })
    .await;
    away(pinged);
    away(published.into_iter().next().unwrap());
    away(ensured);
    away(joined.map(|_| ()));
    let running = run_loop_of(&db, Arc::new(broker.clone()), &TestHandler::new(), &group, &topic);

    own.run("start").await;
    eventually("it is running", || async { running.handle.status().is_running() }).await;
    eventually("a record is taken", || async { broker.publish(&record).await[0].is_ok() }).await;
    eventually("and applied", || async { count(&db, "applied").await == 1 }).await;
    running.stop().await;
}
