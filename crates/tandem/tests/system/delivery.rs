//! Messages that come again, out of order, broken, or not at all.

use bytes::Bytes;
use messaging::{CloudEvent, DeadLetter, Headers, Record};
use order_service::order::{CreateOutcome, NewOrder, Order, create::create_orders_batch};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use schema::{
    CurrencyCode, EventId, EventSource as _, Money, OrderId, PaymentOutcome, PaymentResult, PaymentTask, RejectionReason,
    Timestamp, UserId,
};
use serde_json::{Value, json};

use crate::support::{System, User, until};

const TASKS: &str = "payment_tasks";
const RESULTS: &str = "payment_results";

/// Everything about a user's orders and account.
const EVERYTHING: &str = "query($before: DateTime) { me {
    orders(first: 100, filter: { createdBefore: $before }) { nodes {
        id status rejectionReason updatedAt history { cursor version status occurredAt } payment { outcome decidedAt entry { id } } } }
    account { balance { amount } entries(first: 100) { nodes { id amount { amount } balanceAfter { amount } order { id } } } } } }";

/// Three times each message, in an order that has nothing to do with the first one.
fn thrice(records: &[Record], seed: u64) -> Vec<Record> {
    let mut again: Vec<Record> = [records, records, records].concat();
    again.shuffle(&mut StdRng::seed_from_u64(seed));
    again
}

/// An order that is paid tells that everything before it in its user's partition was handled, in both topics: rejected orders count too.
async fn everything_handled(user: &User) {
    for _ in 0..2 {
        user.decided(&user.order("1000000").await).await;
    }
}

/// What is stored of these orders, and everything about the account.
async fn picture(user: &User, until: &str) -> Value {
    user.data(EVERYTHING, json!({ "before": until })).await
}

/// The creation time of the newest order.
async fn newest(user: &User) -> String {
    let data = user.data("{ orders(first: 1) { nodes { createdAt } } }", json!({})).await;
    crate::support::user::text(&data["orders"]["nodes"][0]["createdAt"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_comes_again_and_again_in_any_order_pays_once() {
    const ORDERS: usize = 10;
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    system.pause_payments().await;
    let mut orders = Vec::new();
    for _ in 0..ORDERS {
        orders.push(ada.order("15").await);
    }
    let until = newest(&ada).await;
    let tasks = system.records(TASKS, ORDERS).await;
    // Within one batch: Payments finds the first delivery and three more of each.
    system.publish(&thrice(&tasks, 1)).await;
    system.resume_payments();
    everything_handled(&ada).await;
    let first = picture(&ada, &until).await;
    let outcomes = |status: &str| {
        let orders = first["me"]["orders"]["nodes"].as_array().unwrap();
        orders.iter().filter(|order| order["status"] == status).count()
    };
    assert_eq!((outcomes("PAID"), outcomes("REJECTED")), (6, 4));
    assert_eq!(first["me"]["account"]["balance"]["amount"], "10.00");
    assert_eq!(first["me"]["account"]["entries"]["nodes"].as_array().unwrap().len(), 7);

    // Across batches, and by the broker itself.
    for seed in 2..5 {
        for few in thrice(&tasks, seed).chunks(7) {
            system.publish(few).await;
        }
        everything_handled(&ada).await;
    }
    system.deliver_tasks_again().await;
    everything_handled(&ada).await;
    assert_eq!(picture(&ada, &until).await, first);
    assert_eq!(system.clean_audit().await.paid, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_comes_again_and_again_in_any_order_changes_nothing() {
    const ORDERS: usize = 10;
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    system.pause_results().await;
    for _ in 0..ORDERS {
        ada.order("15").await;
    }
    let until = newest(&ada).await;
    let results = system.records(RESULTS, ORDERS).await;
    system.publish(&thrice(&results, 1)).await;
    system.resume_results();
    everything_handled(&ada).await;
    let first = picture(&ada, &until).await;
    let history = &first["me"]["orders"]["nodes"][0]["history"];
    assert_eq!(history.as_array().unwrap().len(), 2, "{history}");

    for seed in 2..5 {
        for few in thrice(&results, seed).chunks(7) {
            system.publish(few).await;
        }
        everything_handled(&ada).await;
    }
    system.deliver_results_again().await;
    // A result that contradicts what stands, under a new id: it stands.
    let order: OrderId = crate::support::user::text(&first["me"]["orders"]["nodes"][ORDERS - 1]["id"]).parse().unwrap();
    system.publish(&[result(order, "ada", PaymentOutcome::Rejected)]).await;
    everything_handled(&ada).await;
    assert_eq!(picture(&ada, &until).await, first);
    system.clean_audit().await;
}

fn result(order_id: OrderId, user: &str, outcome: PaymentOutcome) -> Record {
    let rejection_reason = (outcome == PaymentOutcome::Rejected).then_some(RejectionReason::InsufficientFunds);
    let user_id = UserId(user.to_owned());
    let result = PaymentResult { order_id, user_id, outcome, rejection_reason, decided_at_ms: Timestamp::now() };
    record(RESULTS, user, PaymentResult::TYPE, result.to_json().unwrap())
}

fn record(topic: &str, key: &str, event_type: &str, payload: String) -> Record {
    let event = CloudEvent {
        id: EventId::generate().0,
        type_: event_type.to_owned().into(),
        source: "/test".into(),
        time_ms: Timestamp::now().0,
    };
    Record { topic: topic.to_owned(), key: key.to_owned(), headers: event.headers(), payload: payload.into() }
}

/// The dead letters of a topic: exactly these messages, unchanged, each with a reason that contains its word.
async fn assert_dead(system: &System, topic: &str, group: &str, expected: &[(Record, &str)]) {
    let letters = system.read(&format!("{topic}.dlq"), expected.len()).await;
    let letters: Vec<DeadLetter> = letters.iter().map(|delivery| DeadLetter::from_delivery(delivery).unwrap()).collect();
    assert_eq!(letters.len(), expected.len(), "{letters:?}");
    for (letter, (original, word)) in letters.iter().zip(expected) {
        assert_eq!(&letter.original, original, "every byte and header as it was");
        assert!(letter.reason.contains(word), "{word}: {}", letter.reason);
        assert_eq!((letter.group.as_str(), letter.source.topic.as_str()), (group, topic));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_cannot_be_read_are_put_away_and_the_others_of_their_batch_are_paid() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    let task = |minor: i64| PaymentTask {
        order_id: OrderId::generate(),
        user_id: UserId("ada".to_owned()),
        amount_minor: minor,
        currency: CurrencyCode::EUR,
    };
    let good = task(100).to_json().unwrap();
    let nameless = {
        let named = record(TASKS, "ada", PaymentTask::TYPE, good.clone());
        let headers: Headers =
            named.headers.iter().filter(|(name, _)| *name != "ce_id").map(|(n, v)| (n.to_owned(), v.clone())).collect();
        Record { headers, ..named }
    };
    let bad = [
        (record(TASKS, "ada", PaymentTask::TYPE, "no JSON".to_owned()), "not readable"),
        (record(TASKS, "ada", PaymentResult::TYPE, good.clone()), "event type"),
        (record(TASKS, "ada", "tandem.payment_task.v2", good.clone()), "tandem.payment_task.v2"),
        (nameless, "ce_id"),
        (record(TASKS, "ada", PaymentTask::TYPE, task(-5).to_json().unwrap()), "amount_minor"),
        (
            Record { payload: Bytes::from_static(&[0, 159, 255]), ..record(TASKS, "ada", PaymentTask::TYPE, String::new()) },
            "not readable",
        ),
    ];
    system.pause_payments().await;
    let mut orders = Vec::new();
    for pair in bad.chunks(2) {
        orders.push(ada.order("10").await);
        // The relay publishes on its own time: the bad ones are to come between the good ones.
        system.read(TASKS, orders.len() + 2 * (orders.len() - 1)).await;
        system.publish(&pair.iter().map(|(record, _)| record.clone()).collect::<Vec<_>>()).await;
    }
    orders.push(ada.order("10").await);
    system.resume_payments();
    for order in &orders {
        ada.paid(order).await;
    }
    assert_dead(&system, TASKS, payment_service::events::GROUP, &bad).await;
    assert_eq!(ada.balance().await, "60.00");
    assert_eq!(system.clean_audit().await.paid, 4);
    assert!(system.is_ready().await, "a few dead letters stop nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_of_unknown_or_foreign_orders_are_put_away_and_the_others_of_their_batch_are_applied() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    let bob = system.user("bob").order("1").await;
    system.user("bob").decided(&bob).await;
    system.pause_results().await;
    let first = ada.order("10").await;
    let bobs_result = 1;
    system.read(RESULTS, bobs_result + 1).await;
    let foreign: OrderId = bob.parse().unwrap();
    let bad = [
        (result(OrderId::generate(), "ada", PaymentOutcome::Paid), "unknown here"),
        (result(foreign, "ada", PaymentOutcome::Paid), "another user"),
        (record(RESULTS, "ada", PaymentResult::TYPE, "[]".to_owned()), "not readable"),
    ];
    system.publish(&bad.iter().map(|(record, _)| record.clone()).collect::<Vec<_>>()).await;
    let second = ada.order("10").await;
    system.resume_results();
    ada.paid(&first).await;
    ada.paid(&second).await;
    assert_dead(&system, RESULTS, order_service::events::CONSUMER_GROUP, &bad).await;
    assert_eq!(system.user("bob").status(&bob).await.0, "REJECTED", "not paid by a message that says so");
    assert!(system.is_ready().await);
}

/// Accepts an order as a replica does that dies right after the commit: nobody publishes its task.
async fn accepted_by_a_dying_replica(system: &System, user: &str) -> Order {
    let new = NewOrder {
        user_id: UserId(user.to_owned()),
        total: Money { minor: 1_000, currency: CurrencyCode::EUR },
        description: "a book".to_owned(),
        idempotency_key: None,
        traceparent: None,
    };
    let created = create_orders_batch(system.orders_db(), TASKS, &[new]).await.unwrap();
    match created.outcomes.into_iter().next() {
        Some(Some(CreateOutcome::Created(order))) => order,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_whose_replica_died_before_publishing_is_swept_up_and_paid() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    let order = accepted_by_a_dying_replica(&system, "ada").await;
    ada.paid(&order.id.to_string()).await;
    assert_eq!(ada.balance().await, "90.00");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_whose_task_was_lost_is_sent_again_under_the_same_id_and_paid_once() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    // Lost in the broker.
    system.pause_payments().await;
    let skipped = ada.order("10").await;
    system.read(TASKS, 1).await;
    system.lose_tasks().await;
    system.resume_payments();
    // Lost on the way to it, although its outbox row is gone.
    let unsent = accepted_by_a_dying_replica(&system, "ada").await.id.to_string();
    system.change_orders("DELETE FROM outbox_orders").await;
    ada.paid(&ada.order("10").await).await;
    for lost in [&skipped, &unsent] {
        assert_eq!(ada.status(lost).await.0, "PENDING", "its task is lost indeed");
    }
    // A minute has passed.
    system.change_orders("UPDATE pending_orders SET resend_at_ms = 1").await;
    for lost in [&skipped, &unsent] {
        ada.paid(lost).await;
    }
    assert_eq!(ada.balance().await, "70.00");
    let ids = |order: &str| {
        let order: OrderId = order.parse().unwrap();
        let system = &system;
        async move {
            let tasks = system.read(TASKS, 4).await;
            let of_order = tasks
                .iter()
                .filter(|task| PaymentTask::from_message(task.event_type(), &task.payload).unwrap().order_id == order);
            of_order.map(|task| task.event_id().unwrap()).collect::<Vec<_>>()
        }
    };
    let sent = ids(&skipped).await;
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], sent[1], "a receiver can recognize it");
    assert_eq!(system.count(system.orders_db(), "pending_orders").await, 0, "and never again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_told_while_orders_were_away_arrive_when_it_is_back() {
    let Some(system) = System::start().await else { return };
    let ada = system.user_with("ada", "100", "EUR").await;
    system.pause_results().await;
    let orders = futures_util::future::join_all((0..20).map(|_| ada.order("1"))).await;
    until("all are paid for", async || ada.balance().await == "80.00").await;
    assert_eq!(system.count(system.orders_db(), "orders WHERE status = 'PENDING'").await, 20);
    system.resume_results();
    for order in &orders {
        ada.paid(order).await;
    }
}
