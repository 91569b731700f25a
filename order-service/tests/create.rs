//! Creating orders: what must not happen when calls are repeated, raced or abandoned.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{TOPIC, new_order};
use database::{ConnectOptions, Database, DatabaseError, testing::on_both};
use messaging::OutboxRow;
use migrations::OrdersMigrator;
use order_service::order::{
    CreateOutcome, NewOrder, Order, OrderStatus, Position,
    create::{Created, create_orders_batch},
    find,
};
use sea_orm::{ConnectionTrait as _, Statement};

/// What became of a batch whose keys could all be looked up.
struct Told {
    outcomes: Vec<CreateOutcome>,
    outbox: Vec<OutboxRow>,
}

async fn create(db: &Database, new: Vec<NewOrder>) -> Result<Told, DatabaseError> {
    let Created { mut outcomes, repeats, outbox, .. } = create_orders_batch(db, TOPIC, &new).await?;
    for (index, outcome) in repeats.look_up(db.reader()).await? {
        assert!(outcomes[index].replace(outcome).is_none());
    }
    Ok(Told { outcomes: outcomes.into_iter().map(Option::unwrap).collect(), outbox })
}

async fn count(db: &Database, table: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) AS count FROM {table}");
    let row = db.reader().query_one_raw(Statement::from_string(db.backend(), sql)).await.unwrap().unwrap();
    row.try_get("", "count").unwrap()
}

fn accepted(outcome: &CreateOutcome) -> &Order {
    match outcome {
        CreateOutcome::Created(order) | CreateOutcome::AlreadyCreated(order) => order,
        CreateOutcome::KeyReused => panic!("refused"),
    }
}

on_both!(OrdersMigrator;
    async fn an_accepted_order_has_its_row_its_event_and_its_task_in_one_commit(db: &TestDatabase) {
        let created = create(db, vec![new_order("ada", 1250, None), new_order("bob", 99, Some("k")), new_order("ada", 7, None)]).await.unwrap();
        let totals: Vec<i64> = created.outcomes.iter().map(|outcome| accepted(outcome).total_minor).collect();
        assert_eq!(totals, [1250, 99, 7], "every caller gets its own order");
        assert_eq!(created.outbox.len(), 3);
        assert_eq!((count(db, "orders").await, count(db, "order_events").await, count(db, "outbox_orders").await), (3, 3, 3));

        let mut stored = find::by_ids(db.reader(), &find::Owner::Anyone, &created.outcomes.iter().map(|o| accepted(o).id).collect::<Vec<_>>()).await.unwrap();
        for outcome in &created.outcomes {
            let told = accepted(outcome);
            assert_eq!(stored.remove(&told.id).as_ref(), Some(told), "what is told is what is stored");
            assert_eq!((told.status, told.version), (OrderStatus::Pending, 1));
        }
    }

    async fn the_events_that_are_handed_out_are_those_that_are_stored(db: &TestDatabase) {
        create(db, vec![new_order("ada", 1, Some("k"))]).await.unwrap();
        let batch = [new_order("bob", 2, None), new_order("ada", 1, Some("k")), new_order("ada", 3, Some("l")), new_order("ada", 4, None)];
        let created = create_orders_batch(db, TOPIC, &batch).await.unwrap();
        let stored = find::events_after(db.reader(), Position(1), 10).await.unwrap();
        assert_eq!((created.events.len(), created.events), (3, stored));
    }

    async fn the_same_key_twice_in_one_batch_makes_one_order(db: &TestDatabase) {
        let created = create(db, vec![new_order("ada", 5, Some("k")), new_order("ada", 5, Some("k")), new_order("bob", 5, Some("k"))]).await.unwrap();
        assert!(matches!(created.outcomes[0], CreateOutcome::Created(_)));
        assert!(matches!(created.outcomes[1], CreateOutcome::AlreadyCreated(_)));
        assert!(matches!(created.outcomes[2], CreateOutcome::Created(_)), "keys are per user");
        assert_eq!(accepted(&created.outcomes[0]).id, accepted(&created.outcomes[1]).id);
        assert_eq!((count(db, "orders").await, created.outbox.len()), (2, 2));
    }

    async fn a_repeated_call_answers_with_the_order_and_has_no_second_effect(db: &TestDatabase) {
        let first = create(db, vec![new_order("ada", 5, Some("k"))]).await.unwrap();
        let again = create(db, vec![new_order("ada", 5, Some("k"))]).await.unwrap();
        assert_eq!(again.outcomes, [CreateOutcome::AlreadyCreated(accepted(&first.outcomes[0]).clone())]);
        assert!(again.outbox.is_empty());
        assert_eq!((count(db, "orders").await, count(db, "order_events").await, count(db, "outbox_orders").await), (1, 1, 1));
    }

    async fn a_key_reused_with_other_arguments_is_refused_and_fails_nobody_else(db: &TestDatabase) {
        create(db, vec![new_order("ada", 5, Some("k"))]).await.unwrap();
        let batch = vec![new_order("ada", 6, Some("k")), new_order("ada", 6, Some("other")), new_order("ada", 7, Some("other"))];
        let created = create(db, batch).await.unwrap();
        assert_eq!(created.outcomes[0], CreateOutcome::KeyReused);
        assert!(matches!(created.outcomes[1], CreateOutcome::Created(_)));
        assert_eq!(created.outcomes[2], CreateOutcome::KeyReused);
        assert_eq!(count(db, "orders").await, 2);
    }

    async fn two_replicas_racing_with_one_key_make_one_order(db: &TestDatabase) {
        let race = (0..8).map(|_| create(db, vec![new_order("ada", 5, Some("a")), new_order("ada", 5, Some("b"))]));
        let created = futures_util::future::join_all(race).await;
        let mut ids: Vec<_> = created.iter().map(|created| {
            let outcomes = &created.as_ref().unwrap().outcomes;
            (accepted(&outcomes[0]).id, accepted(&outcomes[1]).id)
        }).collect();
        ids.dedup();
        assert_eq!(ids.len(), 1, "everybody is told the same two orders");
        assert_eq!((count(db, "orders").await, count(db, "outbox_orders").await), (2, 2));
    }
);

/// Nobody may be told that nothing was stored when it was: without a key the order would be placed twice.
#[tokio::test]
async fn an_order_is_accepted_although_the_key_of_another_call_cannot_be_looked_up() {
    let options =
        ConnectOptions { read_connections: 1, acquire_timeout: Duration::from_millis(100), ..database::testing::options() };
    let Some(db) = database::testing::postgres_with::<OrdersMigrator>(&options).await else { return };
    create(&db, vec![new_order("ada", 5, Some("k"))]).await.unwrap();
    let reader = db.reader().clone();
    let sleeping = tokio::spawn(async move { reader.execute_unprepared("SELECT pg_sleep(60)").await });
    let observer = Database::connect(db.url(), &database::testing::options()).await.unwrap();
    let asleep = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    while observer.reader().query_all_raw(Statement::from_string(observer.backend(), asleep)).await.unwrap().is_empty() {}
    let created = create_orders_batch(&db, TOPIC, &[new_order("ada", 5, Some("k")), new_order("bob", 7, None)]).await.unwrap();
    assert!(matches!(&created.outcomes[1], Some(CreateOutcome::Created(order)) if order.user_id.as_str() == "bob"));
    assert_eq!((created.outbox.len(), created.events.len()), (1, 1), "it is published, and its subscribers are told");
    let error = DatabaseError::from(created.repeats.look_up(db.reader()).await.unwrap_err());
    assert!(error.is_transient() && !error.is_outcome_unknown(), "{error:?}");
    sleeping.abort();
}

/// Clients that repeat their calls because the service is slow must not make it slower: settling orders holds the event counter.
#[tokio::test]
async fn calls_that_create_nothing_do_not_wait_for_the_event_counter() {
    let Some(db) = database::testing::postgres::<OrdersMigrator>().await else { return };
    let first = create(&db, vec![new_order("ada", 5, Some("k"))]).await.unwrap();
    let again = (*db).clone();
    let repeated = db
        .transaction("hold the counter", move |tx| {
            Box::pin(async move {
                tx.execute_unprepared("SELECT * FROM event_cursor FOR UPDATE").await?;
                create(&again, vec![new_order("ada", 5, Some("k"))]).await
            })
        })
        .await
        .unwrap();
    assert_eq!(repeated.outcomes, [CreateOutcome::AlreadyCreated(accepted(&first.outcomes[0]).clone())]);
}
