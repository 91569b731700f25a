//! Live events: nothing is missed, repeated or out of order, whoever commits when.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::{pin::pin, sync::Arc, time::Duration};

use common::{create_order, create_orders};
use database::{Database, DatabaseError, Writes, array::Columns, testing::on_both};
use migrations::OrdersMigrator;
use order_service::{
    feed::{
        Feed,
        stream::{self, FeedError},
    },
    order::{
        EventAndOrder, Order, OrderStatus, Position,
        event::{self, NewEvent},
        find,
        settle::{ReceivedResult, settle_orders_batch},
    },
};
use runtime::stage::{Stage, Supervisor};
use schema::{EventId, OrderId, PaymentOutcome, PaymentResult, Timestamp, UserId};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction};
use tokio::sync::oneshot;
use tokio_stream::{Stream, StreamExt as _};

/// Longer than any machine needs; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn ada() -> UserId {
    UserId("ada".to_owned())
}

/// Answers what happened, for [`Feed::committed`].
async fn pay(db: &Database, order: &Order) -> Vec<EventAndOrder> {
    let result = PaymentResult {
        order_id: order.id,
        user_id: ada(),
        outcome: PaymentOutcome::Paid,
        rejection_reason: None,
        decided_at_ms: Timestamp::now(),
    };
    let results = vec![ReceivedResult { event_id: EventId::generate(), result, traceparent: None }];
    db.transaction("test", move |tx| {
        Box::pin(async move { Ok::<_, DatabaseError>(settle_orders_batch(tx, &results, Timestamp::now()).await.unwrap()) })
    })
    .await
    .unwrap()
}

/// It runs until the stage is dropped.
fn start(db: &Database) -> (Feed, Stage) {
    let (feed, stage) = (Feed::new(), Supervisor::default().stage());
    feed.start(db, &stage);
    (feed, stage)
}

async fn next<S>(stream: &mut S) -> Option<Arc<EventAndOrder>>
where
    S: Stream<Item = Result<Arc<EventAndOrder>, FeedError>> + Unpin,
{
    tokio::time::timeout(PATIENCE, stream.next()).await.expect("an event in time").transpose().unwrap()
}

async fn append(tx: &DatabaseTransaction, events: &[NewEvent]) -> Result<(), DatabaseError> {
    let mut writes = Writes::over("events", event::columns(Columns::new(tx.get_database_backend(), events)));
    event::append_from(&mut writes, "events", None);
    writes.run_in_tx(tx).await?;
    Ok(())
}

fn first_event(order_id: OrderId) -> NewEvent {
    NewEvent {
        order_id,
        user_id: ada(),
        version: 1,
        status: OrderStatus::Pending,
        rejection_reason: None,
        occurred_at_ms: Timestamp::now(),
        source_event_id: None,
        traceparent: None,
    }
}

on_both!(OrdersMigrator;
    async fn an_undecided_order_yields_its_state_then_the_change_and_ends(db: &TestDatabase) {
        let (feed, _running) = start(db);
        let order = create_order(db).await;
        let mut events = pin!(stream::of_order(feed.clone(), (*db).clone(), order.id));
        assert_eq!(next(&mut events).await.unwrap().status, OrderStatus::Pending);
        pay(db, &order).await;
        feed.hint();
        let change = next(&mut events).await.unwrap();
        assert_eq!((change.status, change.version), (OrderStatus::Paid, 2));
        assert!(next(&mut events).await.is_none());
    }

    async fn what_was_committed_here_comes_in_order_and_once_however_it_is_told(db: &TestDatabase) {
        let (feed, _running) = start(db);
        let orders = create_orders(db, 4).await;
        let mut events = pin!(stream::of_user(feed.clone(), (*db).clone(), ada(), Some(Position(0))));
        for position in 1..=4 {
            assert_eq!(next(&mut events).await.unwrap().position, Position(position));
        }
        // Who commits first need not tell first.
        let (first, second) = (pay(db, &orders[0]).await, pay(db, &orders[1]).await);
        feed.committed(second.clone());
        feed.committed(first);
        feed.committed(second);
        feed.committed(pay(db, &orders[2]).await);
        // Without being told, as by another replica.
        pay(db, &orders[3]).await;
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(EventAndOrder::clone(&*next(&mut events).await.unwrap()));
        }
        let stored = find::events_after(db.reader(), Position(4), 10).await.unwrap();
        assert_eq!(seen, stored, "what comes from memory is what is stored");
    }

    async fn a_decided_order_yields_one_event_and_ends(db: &TestDatabase) {
        let (feed, _running) = start(db);
        let order = create_order(db).await;
        pay(db, &order).await;
        let mut events = pin!(stream::of_order(feed, (*db).clone(), order.id));
        assert_eq!(next(&mut events).await.unwrap().status, OrderStatus::Paid);
        assert!(next(&mut events).await.is_none());
    }

    async fn a_change_without_a_hint_is_seen_all_the_same(db: &TestDatabase) {
        let (feed, _running) = start(db);
        let order = create_order(db).await;
        let mut events = pin!(stream::of_order(feed, (*db).clone(), order.id));
        next(&mut events).await;
        pay(db, &order).await;
        assert_eq!(next(&mut events).await.unwrap().status, OrderStatus::Paid);
    }

    async fn resuming_by_cursor_misses_nothing_and_repeats_nothing(db: &TestDatabase) {
        let (feed, _running) = start(db);
        let before = find::cursor(db.reader()).await.unwrap().last();
        let mut orders = Vec::new();
        for _ in 0..5 { orders.push(create_order(db).await); }
        let mut seen = Vec::new();
        let mut cursor = before;
        // The socket drops after every third event; the client resumes with the last cursor it got.
        for round in 0..6 {
            let mut events = pin!(stream::of_user(feed.clone(), (*db).clone(), ada(), Some(cursor)));
            if let Some(order) = orders.get(round) { pay(db, order).await; feed.hint(); }
            while seen.len() < (5 + (round + 1).min(5)).min(3 * (round + 1)) {
                let event = next(&mut events).await.unwrap();
                cursor = event.position;
                seen.push(event);
            }
        }
        let positions: Vec<i64> = seen.iter().map(|event| event.position.0).collect();
        assert_eq!(positions, (before.0 + 1..=before.0 + 10).collect::<Vec<_>>());
    }

    async fn a_subscriber_far_behind_sees_every_event_once_and_in_order(db: &TestDatabase) {
        let (feed, _running) = start(db);
        let mut events = pin!(stream::of_user(feed.clone(), (*db).clone(), ada(), Some(Position(0))));
        let first = create_order(db).await;
        feed.hint();
        assert_eq!(next(&mut events).await.unwrap().order_id, first.id);
        // More than its queue holds, while it does not read: it is cut off and goes on from storage.
        for _ in 0..3 {
            let ids: Vec<OrderId> = (0..70).map(|_| OrderId::generate()).collect();
            db.transaction("test", move |tx| Box::pin(async move {
                let events: Vec<NewEvent> = ids.into_iter().map(first_event).collect();
                append(tx, &events).await?;
                Ok::<_, DatabaseError>(())
            })).await.unwrap();
            feed.hint();
        }
        for position in 2..=211 {
            assert_eq!(next(&mut events).await.unwrap().position, Position(position));
        }
    }

    async fn a_cursor_that_was_pruned_or_never_given_is_expired(db: &TestDatabase) {
        let (feed, _running) = start(db);
        create_order(db).await;
        let expired = async |after: i64| {
            let mut events = pin!(stream::of_user(feed.clone(), (*db).clone(), ada(), Some(Position(after))));
            matches!(tokio::time::timeout(Duration::from_millis(200), events.next()).await, Ok(Some(Err(FeedError::Expired))))
        };
        assert!(!expired(0).await && !expired(1).await);
        assert!(expired(2).await && expired(-1).await, "positions that were never given out");
        db.transaction("test", |tx| Box::pin(async move {
            use sea_orm::ConnectionTrait as _;
            tx.execute_unprepared("UPDATE event_cursor SET oldest = 2").await?;
            Ok::<_, DatabaseError>(())
        })).await.unwrap();
        assert!(expired(0).await);
        assert!(!expired(1).await, "everything after position 1 is still there");
    }
);

/// The danger: ids and transaction ids commit out of order, so a reader that remembers the highest one it saw skips what commits later.
/// On SQLite it cannot happen, since there is one writer.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_took_its_positions_first_commits_first() {
    let Some(db) = database::testing::postgres::<OrdersMigrator>().await else { return };
    let (feed, _running) = start(&db);
    drop(feed.attach(order_service::feed::Topic::User(ada())).await);
    let mut events = pin!(stream::of_user(feed.clone(), (*db).clone(), ada(), Some(Position(0))));

    let (slow_order, fast_order) = (OrderId::generate(), OrderId::generate());
    let (took, has_taken) = oneshot::channel();
    let (commit, may_commit) = oneshot::channel::<()>();
    let slow = {
        let db = (*db).clone();
        tokio::spawn(async move {
            db.transaction("slow", move |tx| {
                Box::pin(async move {
                    append(tx, &[first_event(slow_order)]).await?;
                    took.send(()).unwrap();
                    may_commit.await.unwrap();
                    Ok::<_, DatabaseError>(())
                })
            })
            .await
        })
    };
    has_taken.await.unwrap();
    let fast = {
        let db = (*db).clone();
        tokio::spawn(async move {
            db.transaction("fast", move |tx| {
                Box::pin(async move {
                    append(tx, &[first_event(fast_order)]).await?;
                    Ok::<_, DatabaseError>(())
                })
            })
            .await
        })
    };
    // The second transaction waits for the first one's lock, so a reader sees neither.
    wait_until_blocked(&db).await;
    feed.hint();
    assert!(find::events_after(db.reader(), Position(0), 10).await.unwrap().is_empty());
    commit.send(()).unwrap();
    slow.await.unwrap().unwrap();
    fast.await.unwrap().unwrap();
    feed.hint();

    let seen = [next(&mut events).await.unwrap(), next(&mut events).await.unwrap()];
    assert_eq!(seen.map(|event| (event.position.0, event.order_id)), [(1, slow_order), (2, fast_order)]);
}

/// Until a backend of this database waits for a lock.
async fn wait_until_blocked(db: &Database) {
    let sql = "SELECT COUNT(*) AS count FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    wait_for_count(db, sql, 1).await;
}

async fn wait_for_count(db: &Database, sql: &str, count: i64) {
    use sea_orm::{ConnectionTrait as _, Statement};
    let reached = async {
        loop {
            let row = db.reader().query_one_raw(Statement::from_string(db.backend(), sql)).await.unwrap().unwrap();
            if row.try_get::<i64>("", "count").unwrap() >= count {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect(sql);
}

/// The other replica's subscriber need not wait for its poll.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_on_one_replica_wakes_the_feed_of_another() {
    let Some(db) = database::testing::postgres::<OrdersMigrator>().await else { return };
    let ((here, _a), (there, _b)) = (start(&db), start(&db));
    let order = create_order(&db).await;
    let mut events = pin!(stream::of_order(there.clone(), (*db).clone(), order.id));
    next(&mut events).await;
    wait_until_listening(&db, 2).await;
    // Nobody tells `there` in process.
    here.committed(pay(&db, &order).await);
    assert_eq!(next(&mut events).await.unwrap().status, OrderStatus::Paid);
}

/// Until so many connections of this database listen.
async fn wait_until_listening(db: &Database, listeners: i64) {
    let sql = "SELECT COUNT(*) AS count FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    wait_for_count(db, sql, listeners).await;
}
