//! Messages that no service can apply: put away with their reason, and nobody behind them waits.

use std::time::Duration;

use messaging::{DeadLetter, dead_letter_topic};
use schema::{CurrencyCode, EventId, EventSource as _, OrderId, PaymentOutcome, PaymentResult, PaymentTask, Timestamp, UserId};
use serde_json::json;
use tandem::client::Client;
use tokio::time::Instant;

use crate::{
    cluster::{Cluster, Shape, change, count},
    kafka::{Kafka, Message},
    load::Load,
    support::{
        until_within,
        user::{CREATE_ORDER, money},
    },
};

/// What a message costs those behind it, at most.
const PER_POISON: Duration = Duration::from_secs(1);
/// For what is not the matter of a test.
const SOON: Duration = Duration::from_secs(30);

/// The headers of a good event.
fn headers(event_type: &str, source: &str) -> Vec<(&'static str, String)> {
    vec![
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", EventId::generate().to_string()),
        ("ce_type", event_type.to_owned()),
        ("ce_source", source.to_owned()),
        ("ce_time", "2024-01-01T00:00:00.000Z".to_owned()),
        ("content-type", "application/json".to_owned()),
    ]
}

fn message(key: &str, headers: Vec<(&'static str, String)>, payload: &[u8]) -> Message {
    Message { key: Some(key.to_owned()), headers: Some(headers), payload: Some(payload.to_owned()) }
}

fn task(user: &str, amount_minor: i64) -> PaymentTask {
    PaymentTask { order_id: OrderId::generate(), user_id: UserId(user.to_owned()), amount_minor, currency: CurrencyCode::EUR }
}

/// Messages with this key, each with a word of its reason. `good` is a body that would be fine with the right headers.
fn poison(key: &str, event_type: &str, good: &str) -> Vec<(Message, &'static str)> {
    let own = || headers(event_type, "/test");
    let unknown = || headers(&event_type.replace(".v1", ".v2"), "/test");
    let foreign = || headers("com.example.something", "/test");
    let nameless = || own().into_iter().filter(|(name, _)| *name != "ce_id").collect();
    vec![
        (message(key, own(), b"no JSON"), "not readable"),
        (message(key, own(), b"[1, 2, 3]"), "not readable"),
        (message(key, own(), br#"{"order_id": 7}"#), "not readable"),
        (message(key, own(), &[0, 159, 255]), "not readable"),
        (message(key, unknown(), good.as_bytes()), ".v2"),
        (message(key, foreign(), good.as_bytes()), "com.example.something"),
        (message(key, nameless(), good.as_bytes()), "ce_id"),
        (Message { headers: None, ..message(key, Vec::new(), good.as_bytes()) }, "ce_id"),
        (Message { headers: None, payload: None, key: Some(key.to_owned()) }, "ce_id"),
    ]
}

/// Exactly these messages, unchanged, each with its reason, the group that could not apply it, and its place.
async fn assert_dead(kafka: &Kafka, topic: &str, group: &str, expected: &[(Message, &str)]) {
    let deliveries = kafka.read(&dead_letter_topic(topic), expected.len()).await;
    assert_eq!(deliveries.len(), expected.len());
    for (delivery, (message, word)) in deliveries.iter().zip(expected) {
        let letter = DeadLetter::from_delivery(delivery).unwrap();
        assert!(letter.reason.contains(word), "{word}: {}", letter.reason);
        assert_eq!((letter.group.as_str(), letter.source.topic.as_str()), (group, topic), "{word}");
        assert_eq!(letter.original.payload[..], message.payload.clone().unwrap_or_default()[..], "{word}");
        assert_eq!(Some(&letter.original.key), message.key.as_ref(), "{word}");
        let headers: Vec<_> =
            letter.original.headers.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))).collect();
        let sent = message.headers.iter().flatten().map(|(name, value)| (*name, value.as_str().into()));
        assert_eq!(headers, sent.collect::<Vec<_>>(), "{word}");
    }
}

/// Orders for 1.00 and waits for the end; answers how long it took.
async fn order_to_its_end(client: &Client) -> Duration {
    let begin = Instant::now();
    let input = json!({ "input": { "total": money("1", "EUR"), "description": "a book" } });
    let created = client.run(CREATE_ORDER, input).await.unwrap();
    let id = created.data["createOrder"]["order"]["id"].clone();
    until_within(SOON, "an order behind bad messages is paid", async || {
        let order = client.run("query($id: ID!) { order(id: $id) { status } }", json!({ "id": id })).await.unwrap();
        order.data["order"]["status"] == "PAID"
    })
    .await;
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_nobody_can_read_are_put_away_and_stop_nobody() {
    let Some(cluster) = Cluster::start("poison", Shape::of(1)).await else { return };
    let load = Load::prepare(&cluster, 1, 100).await;
    let (user, client) = (load.users[0].as_str(), load.client(0));
    let kafka = Kafka::new(&cluster.places.kafka);
    let healthy = order_to_its_end(client).await;

    let result = PaymentResult {
        order_id: OrderId::generate(),
        user_id: UserId(user.to_owned()),
        outcome: PaymentOutcome::Paid,
        rejection_reason: None,
        decided_at_ms: Timestamp::now(),
    };
    let result = result.to_json().unwrap();
    let unknown_order = (message(user, headers(PaymentResult::TYPE, "/test"), result.as_bytes()), "unknown here");
    for (topic, group, poison) in [
        ("payment_tasks", "payment-service", poison(user, PaymentTask::TYPE, &task(user, 100).to_json().unwrap())),
        ("payment_results", "order-service", [poison(user, PaymentResult::TYPE, &result), vec![unknown_order]].concat()),
    ] {
        let (topic, group) = (format!("{}{topic}", cluster.places.prefix), format!("{}{group}", cluster.places.prefix));
        for (message, _) in &poison {
            kafka.publish(&topic, message).await;
        }
        // In the same partition, behind all of them.
        let behind = order_to_its_end(client).await;
        let bound = healthy + PER_POISON * u32::try_from(poison.len()).unwrap();
        assert!(behind < bound, "{topic}: {behind:?}");
        println!("an order behind {} bad messages in {topic}: {behind:?}, alone: {healthy:?}", poison.len());
        assert_dead(&kafka, &topic, &group, &poison).await;
    }
    assert_eq!(crate::replica::health(&cluster.orders[0].base()).await.unwrap().0, 200, "a few dead letters stop nobody");
    assert_eq!(crate::replica::health(&cluster.payments[0].base()).await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_only_the_database_refuses_fails_alone_of_its_batch() {
    const GOOD: usize = 199;
    let Some(mut cluster) = Cluster::start("refused", Shape::of(1)).await else { return };
    let load = Load::prepare(&cluster, 1, GOOD + 1).await;
    let user = load.users[0].clone();
    let kafka = Kafka::new(&cluster.places.kafka);
    let tasks = format!("{}payment_tasks", cluster.places.prefix);
    // A user that no token can name is refused by the code; an amount that a constraint of its own forbids, only by PostgreSQL.
    let (nameless, forbidden) = (task("nobody\0", 100), task(&user, 77_777));
    let payments = cluster.payments_db().await;
    change(&payments, "ALTER TABLE payments ADD CONSTRAINT test CHECK (amount_minor <> 77777)").await;

    // All of them wait in one partition, so that they come in few batches.
    cluster.payments[0].kill().await;
    load.run(16, |number| number < GOOD / 2).await;
    kafka.read(&tasks, GOOD / 2).await;
    let poison: Vec<(Message, &str)> = [(&nameless, "user_id"), (&forbidden, "test")]
        .map(|(task, word)| (message(&user, headers(PaymentTask::TYPE, "/test"), task.to_json().unwrap().as_bytes()), word))
        .into();
    for (message, _) in &poison {
        kafka.publish(&tasks, message).await;
    }
    load.run(16, |number| number < GOOD).await;
    kafka.read(&tasks, GOOD + poison.len()).await;
    cluster.payments[0].start();
    cluster.payments[0].ready().await;

    cluster.settled(SOON).await;
    let verdict = cluster.verdict(&load.accepted(), 1).await;
    assert!(verdict.is_clean() && verdict.accepted == GOOD, "\n{verdict}");
    assert_eq!(count(&payments, "payments").await, i64::try_from(GOOD).unwrap());
    payments.close().await;
    assert_dead(&kafka, &tasks, &format!("{}payment-service", cluster.places.prefix), &poison).await;
}
