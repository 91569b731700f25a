//! Payment results: repeated, shuffled, contradicting, unknown.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::{sync::Arc, time::Duration};

use common::create_orders;
use database::{BoxFuture, Database, DatabaseError, testing::on_both};
use messaging::{CloudEvent, Delivery, Handler as _};
use migrations::OrdersMigrator;
use order_service::{
    events::PaymentResults,
    feed::Feed,
    order::{
        EventAndOrder, Order, OrderEvent, OrderStatus, Position, find,
        settle::{ReceivedResult, SettleError, ready_results_batch, settle_orders_batch},
    },
};
use schema::{
    EventId, EventSource as _, OrderId, PaymentOutcome, PaymentResult, RejectionReason, Timestamp, UserId,
    graphql::{Direction, Window},
};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, DbBackend, Statement};
use tokio::sync::oneshot;

/// The longest wait for a condition that is certain to come.
const PATIENCE: Duration = Duration::from_secs(20);

fn paid(order: &Order) -> ReceivedResult {
    result(order.id, PaymentOutcome::Paid, None)
}

fn rejected(order: &Order) -> ReceivedResult {
    result(order.id, PaymentOutcome::Rejected, Some(RejectionReason::InsufficientFunds))
}

fn result(order_id: OrderId, outcome: PaymentOutcome, rejection_reason: Option<RejectionReason>) -> ReceivedResult {
    let result =
        PaymentResult { order_id, user_id: UserId("ada".to_owned()), outcome, rejection_reason, decided_at_ms: Timestamp::now() };
    ReceivedResult { event_id: EventId::generate(), result, traceparent: None }
}

/// As the consumer does it. The error as text.
async fn settle(db: &Database, results: Vec<ReceivedResult>) -> Result<usize, String> {
    if db.backend() == DbBackend::Postgres {
        match at_once(db, &results).await {
            Err(error) if error.needs_locks() => {}
            settled => return settled.map(|events| events.len()).map_err(|error| error.to_string()),
        }
    }
    settle_in_tx(db, results).await
}

/// PostgreSQL: without a look at the orders.
async fn at_once(db: &Database, results: &[ReceivedResult]) -> Result<Vec<EventAndOrder>, SettleError> {
    ready_results_batch(results, Timestamp::now())?.settle_batch(db).await
}

/// As on SQLite, and on PostgreSQL after somebody else was faster. The error as text: it has to pass through the database's own error type.
async fn settle_in_tx(db: &Database, results: Vec<ReceivedResult>) -> Result<usize, String> {
    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error(transparent)]
        Settle(#[from] SettleError),
        #[error(transparent)]
        Database(#[from] DatabaseError),
    }
    db.transaction("test", move |tx: &DatabaseTransaction| -> BoxFuture<'_, Result<usize, Failure>> {
        Box::pin(async move { Ok(settle_orders_batch(tx, &results, Timestamp::now()).await?.len()) })
    })
    .await
    .map_err(|error| error.to_string())
}

async fn stored(db: &Database, order: &Order) -> (Order, Vec<OrderEvent>) {
    let order_now = find::by_ids(db.reader(), &find::Owner::Anyone, &[order.id]).await.unwrap().remove(&order.id).unwrap();
    let history = find::histories(db.reader(), &[order.id]).await.unwrap().remove(&order.id).unwrap();
    (order_now, history)
}

on_both!(OrdersMigrator;
    async fn lists_by_status_follow_what_is_settled(db: &TestDatabase) {
        let orders = create_orders(db, 6).await;
        settle(db, vec![paid(&orders[1]), rejected(&orders[3]), paid(&orders[4])]).await.unwrap();
        let ids = |of: &[usize]| of.iter().map(|of| orders[*of].id).collect::<Vec<_>>();
        let list = async |owner: &find::Owner, status: &[OrderStatus], window: Window<OrderId>| {
            let filter = find::Filter { status: Some(status.to_vec()), ..find::Filter::default() };
            let page = find::page(db.reader(), owner, &filter, &window).await.unwrap();
            page.rows.iter().map(|order| order.id).collect::<Vec<_>>()
        };
        let window = Window { after: None, before: None, direction: Direction::Forward, size: 10 };
        let backward = Window { direction: Direction::Backward, before: None, after: Some(orders[5].id), size: 2 };
        for owner in [find::Owner::Anyone, find::Owner::User(UserId("ada".to_owned()))] {
            let list = async |status: &[OrderStatus], window: &Window<OrderId>| list(&owner, status, window.clone()).await;
            assert_eq!(list(&[OrderStatus::Pending], &window).await, ids(&[5, 2, 0]));
            assert_eq!(list(&[OrderStatus::Pending; 2], &backward).await, ids(&[2, 0]));
            assert_eq!(list(&[OrderStatus::Paid], &window).await, ids(&[4, 1]));
            assert_eq!(list(&[OrderStatus::Pending, OrderStatus::Rejected], &window).await, ids(&[5, 3, 2, 0]));
            assert!(list(&[], &window).await.is_empty());
        }
    }

    async fn the_same_result_three_times_in_one_batch_and_across_batches_changes_one_order_once(db: &TestDatabase) {
        let orders = create_orders(db, 3).await;
        let (a, b, c) = (paid(&orders[0]), rejected(&orders[1]), paid(&orders[2]));
        assert_eq!(settle(db, vec![b.clone(), a.clone(), a.clone(), b.clone(), a.clone()]).await, Ok(2));
        let before = (stored(db, &orders[0]).await, stored(db, &orders[1]).await);
        assert_eq!(settle(db, vec![a.clone(), c.clone(), b.clone()]).await, Ok(1));
        assert_eq!(settle(db, vec![c, b, a]).await, Ok(0));
        assert_eq!((stored(db, &orders[0]).await, stored(db, &orders[1]).await), before, "nothing moved after the first time");

        let (order, history) = stored(db, &orders[1]).await;
        assert_eq!((order.status, order.rejection_reason, order.version), (OrderStatus::Rejected, Some(RejectionReason::InsufficientFunds), 2));
        assert_eq!(history.iter().map(|event| (event.version, event.status)).collect::<Vec<_>>(), [(1, OrderStatus::Pending), (2, OrderStatus::Rejected)]);
    }

    async fn a_result_that_contradicts_a_decision_changes_nothing(db: &TestDatabase) {
        let orders = create_orders(db, 1).await;
        assert_eq!(settle(db, vec![paid(&orders[0])]).await, Ok(1));
        assert_eq!(settle(db, vec![rejected(&orders[0])]).await, Ok(0));
        assert_eq!(stored(db, &orders[0]).await.0.status, OrderStatus::Paid);
    }

    async fn the_recorded_result_under_a_new_message_id_changes_nothing(db: &TestDatabase) {
        let orders = create_orders(db, 1).await;
        assert_eq!(settle(db, vec![paid(&orders[0]), paid(&orders[0])]).await, Ok(1));
        assert_eq!(stored(db, &orders[0]).await.1.len(), 2);
    }

    async fn a_result_for_an_unknown_order_is_refused_and_rolls_the_batch_back(db: &TestDatabase) {
        let orders = create_orders(db, 1).await;
        let unknown = result(OrderId::generate(), PaymentOutcome::Paid, None);
        assert!(settle(db, vec![paid(&orders[0]), unknown]).await.unwrap_err().contains("unknown here"));
        assert_eq!(stored(db, &orders[0]).await.0.status, OrderStatus::Pending);
    }

    async fn an_order_is_not_settled_without_its_event(db: &TestDatabase) {
        let orders = create_orders(db, 1).await;
        db.transaction("lose the counter", |tx| Box::pin(async move {
            tx.execute_unprepared("DELETE FROM event_cursor").await?;
            Ok::<_, DatabaseError>(())
        })).await.unwrap();
        settle(db, vec![paid(&orders[0])]).await.unwrap_err();
        let (order, history) = stored(db, &orders[0]).await;
        assert_eq!((order.status, history.len()), (OrderStatus::Pending, 1));
    }

    async fn a_result_for_an_order_of_another_user_is_refused(db: &TestDatabase) {
        let orders = create_orders(db, 1).await;
        let mut foreign = paid(&orders[0]);
        foreign.result.user_id = UserId("mallory".to_owned());
        assert!(settle(db, vec![foreign]).await.unwrap_err().contains("another user"));
    }
);

/// Old replicas go on while a new one migrates. A statement that was prepared with `SELECT *` would fail from then on, on the one connection that
/// a consumer has.
#[tokio::test]
async fn a_column_that_a_later_version_adds_does_not_stop_a_consumer() {
    let Some(db) = database::testing::postgres::<OrdersMigrator>().await else { return };
    let orders = create_orders(&db, 2).await;
    let consumer = db.for_worker(1);
    assert_eq!(settle(&consumer, vec![paid(&orders[0])]).await, Ok(1));
    db.transaction("migrate", |tx| {
        Box::pin(async move {
            tx.execute_unprepared("ALTER TABLE orders ADD COLUMN later TEXT").await?;
            Ok::<_, DatabaseError>(())
        })
    })
    .await
    .unwrap();
    assert_eq!(settle(&consumer, vec![paid(&orders[1])]).await, Ok(1));
}

/// The feed hands it out as if it had been read.
#[tokio::test]
async fn what_is_settled_at_once_is_answered_as_it_is_stored() {
    let Some(db) = database::testing::postgres::<OrdersMigrator>().await else { return };
    let orders = create_orders(&db, 5).await;
    // Not in the order of the ids, which is that of the locks.
    let results = [paid(&orders[3]), rejected(&orders[0]), paid(&orders[4]), rejected(&orders[2]), paid(&orders[1])];
    let before = find::events_after(db.reader(), Position(0), 100).await.unwrap();
    let settled = at_once(&db, &results).await.unwrap();
    let last = before.last().unwrap().position;
    assert_eq!(settled, find::events_after(db.reader(), last, 100).await.unwrap());
    assert_eq!(
        settled.iter().map(|event| event.source_event_id.unwrap()).collect::<Vec<_>>(),
        results.map(|result| result.event_id)
    );
    assert_eq!(settled[1].order.as_ref().unwrap().rejection_reason, Some(RejectionReason::InsufficientFunds));
}

/// Where repetitions are likely the locks come first: an attempt that is certain to fail would only cost time.
#[tokio::test]
async fn repetitions_are_met_with_locks_until_there_are_none() {
    let Some(db) = database::testing::postgres::<OrdersMigrator>().await else { return };
    let orders = create_orders(&db, 4).await;
    let handler = Arc::new(PaymentResults::new(Feed::new()));
    let at_once = async |order: &Order| {
        let read = handler.read(&[delivery(&paid(order))]).unwrap();
        let ready = handler.make_ready(&db, &read).unwrap()?;
        Some(ready.await.unwrap()?.len())
    };
    let under_locks = async |order: &Order| {
        let handler = Arc::clone(&handler);
        let read = handler.read(&[delivery(&paid(order))]).unwrap();
        let applied = db.transaction("test", move |tx| Box::pin(async move { handler.apply_in_tx(tx, &read).await })).await;
        applied.unwrap().len()
    };
    assert_eq!(at_once(&orders[0]).await, None, "what was not stored before a crash comes first");
    assert_eq!(under_locks(&orders[0]).await, 1);
    assert_eq!(at_once(&orders[1]).await, Some(1));
    assert_eq!(at_once(&orders[1]).await, None, "settled already");
    assert_eq!(under_locks(&orders[1]).await, 0);
    assert_eq!(at_once(&orders[2]).await, None, "there may be more of them");
    assert_eq!(under_locks(&orders[2]).await, 1);
    assert_eq!(at_once(&orders[3]).await, Some(1));
}

fn delivery(received: &ReceivedResult) -> Delivery {
    let event = CloudEvent {
        id: received.event_id.0,
        type_: PaymentResult::TYPE.into(),
        source: PaymentResult::SOURCE.into(),
        time_ms: Timestamp::now().0,
    };
    let payload = received.result.to_json().unwrap().into();
    Delivery {
        topic: "results".to_owned(),
        partition: 0,
        offset: 0,
        key: None,
        headers: event.headers(),
        payload,
        timestamp_ms: 0,
    }
}

/// The statement has no rows of orders then, and must not end with the events of these orders all the same.
#[tokio::test]
async fn results_that_do_not_fit_their_orders_leave_nothing_behind() {
    let Some(db) = database::testing::postgres::<OrdersMigrator>().await else { return };
    let orders = create_orders(&db, 2).await;
    assert_eq!(settle(&db, vec![paid(&orders[1])]).await, Ok(1));
    let mut foreign = paid(&orders[0]);
    foreign.result.user_id = UserId("mallory".to_owned());
    let unknown = result(OrderId::generate(), PaymentOutcome::Paid, None);
    let alone = [foreign, unknown, paid(&orders[1])].map(|refused| vec![refused]);
    let in_company = alone.clone().map(|refused| [refused, vec![paid(&orders[0])]].concat());
    for refused in alone.into_iter().chain(in_company) {
        let error = at_once(&db, &refused).await.unwrap_err();
        assert!(error.needs_locks(), "{error}");
    }
    let count = "SELECT (SELECT COUNT(*) FROM order_events) * 10 + (SELECT COUNT(*) FROM pending_orders) AS counts";
    let counts = db.reader().query_one_raw(Statement::from_string(DbBackend::Postgres, count)).await.unwrap().unwrap();
    assert_eq!(counts.try_get::<i64>("", "counts").unwrap(), 31, "three events, one order that is PENDING");
    assert_eq!(stored(&db, &orders[0]).await.0.status, OrderStatus::Pending);
}

/// Partitions are handed over while a batch of theirs is being applied: the same results, and others for the same orders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_are_being_settled_elsewhere_are_settled_once() {
    let Some(db) = database::testing::postgres::<OrdersMigrator>().await else { return };
    let orders = create_orders(&db, 2).await;
    let (first, second) = (paid(&orders[0]), paid(&orders[1]));
    let (settled, is_settled) = oneshot::channel();
    let (commit, may_commit) = oneshot::channel::<()>();
    let (holder, held) = (Database::clone(&db), vec![first.clone()]);
    let holding = tokio::spawn(async move {
        holder
            .transaction("held", move |tx| {
                Box::pin(async move {
                    settle_orders_batch(tx, &held, Timestamp::now()).await.unwrap();
                    settled.send(()).unwrap();
                    may_commit.await.unwrap();
                    Ok::<_, DatabaseError>(())
                })
            })
            .await
    });
    is_settled.await.unwrap();
    let (competitor, both) = (Database::clone(&db), vec![first.clone(), second.clone()]);
    let competing = tokio::spawn(async move { at_once(&competitor, &both).await });
    let waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waits =
        async || !db.reader().query_all_raw(Statement::from_string(DbBackend::Postgres, waiting)).await.unwrap().is_empty();
    tokio::time::timeout(PATIENCE, async { while !waits().await {} }).await.unwrap();
    commit.send(()).unwrap();
    holding.await.unwrap().unwrap();

    let error = competing.await.unwrap().unwrap_err();
    let SettleError::Database(DatabaseError::Db(error)) = error else { panic!("{error}") };
    assert!(database::is_overtaken(&error), "not by a unique index: {error}");
    assert_eq!(stored(&db, &orders[1]).await.0.status, OrderStatus::Pending, "nothing of the batch is written");
    assert_eq!(settle_in_tx(&db, vec![first, second]).await, Ok(1));
    for order in &orders {
        let (order, history) = stored(&db, order).await;
        assert_eq!((order.status, order.version, history.len()), (OrderStatus::Paid, 2, 2));
    }
}
