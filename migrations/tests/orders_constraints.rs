//! The rules that Order Service's database keeps by itself, whatever the code does.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use database::{Database, DatabaseError, constraint_name, is_check_violation, is_unique_violation, testing::on_both};
use migrations::OrdersMigrator;
use sea_orm::{ConnectionTrait as _, DbBackend, DbErr};

/// A uuid literal.
fn uuid(db: &Database, number: u32) -> String {
    match db.backend() {
        DbBackend::Postgres => format!("'00000000-0000-7000-8000-{number:012x}'::uuid"),
        _ => format!("X'000000000000700080{number:014x}'"),
    }
}

async fn execute(db: &Database, sql: String) -> Result<(), DbErr> {
    let result = db
        .transaction("test", move |tx| {
            Box::pin(async move { tx.execute_unprepared(&sql).await.map(drop).map_err(DatabaseError::from) })
        })
        .await;
    result.map_err(|error| match error {
        DatabaseError::Db(error) => error,
        other => DbErr::Custom(other.to_string()),
    })
}

/// A valid order, with some columns replaced by other SQL.
async fn insert_order(db: &Database, number: u32, replaced: &[(&str, &str)]) -> Result<(), DbErr> {
    let id = uuid(db, number);
    let number = number.to_string();
    let mut columns = vec![
        ("id", id.as_str()),
        ("number", &number),
        ("user_id", "'ada'"),
        ("total_minor", "1"),
        ("currency", "'EUR'"),
        ("description", "'a book'"),
        ("status", "'PENDING'"),
        ("rejection_reason", "NULL"),
        ("version", "1"),
        ("updated_at_ms", "0"),
        ("task_event_id", id.as_str()),
        ("idempotency_key", "NULL"),
        ("idempotency_hash", "NULL"),
    ];
    replace(&mut columns, replaced);
    insert(db, "orders", &columns).await
}

/// The first event of an order, with some columns replaced by other SQL.
async fn insert_event(db: &Database, position: u32, replaced: &[(&str, &str)]) -> Result<(), DbErr> {
    let (id, position) = (uuid(db, position), position.to_string());
    let mut columns = vec![
        ("position", position.as_str()),
        ("order_id", &id),
        ("user_id", "'ada'"),
        ("version", "1"),
        ("status", "'PENDING'"),
        ("rejection_reason", "NULL"),
        ("occurred_at_ms", "0"),
        ("source_event_id", "NULL"),
    ];
    replace(&mut columns, replaced);
    insert(db, "order_events", &columns).await
}

fn replace<'a>(columns: &mut [(&'a str, &'a str)], replaced: &[(&str, &'a str)]) {
    for (name, value) in replaced {
        columns.iter_mut().find(|(known, _)| known == name).unwrap().1 = value;
    }
}

async fn insert(db: &Database, table: &str, columns: &[(&str, &str)]) -> Result<(), DbErr> {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let values: Vec<&str> = columns.iter().map(|(_, value)| *value).collect();
    execute(db, format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), values.join(", "))).await
}

fn assert_check(result: Result<(), DbErr>) {
    let error = result.unwrap_err();
    assert!(is_check_violation(&error), "{error}");
}

fn assert_unique(result: Result<(), DbErr>) {
    let error = result.unwrap_err();
    assert!(is_unique_violation(&error), "{error} ({:?})", constraint_name(&error));
}

on_both!(OrdersMigrator;
    async fn an_order_costs_something_and_not_too_much(db: &TestDatabase) {
        assert_check(insert_order(db, 1, &[("total_minor", "0")]).await);
        assert_check(insert_order(db, 1, &[("total_minor", "-1")]).await);
        assert_check(insert_order(db, 1, &[("total_minor", "1000000000000001")]).await);
        insert_order(db, 1, &[("total_minor", "1000000000000000")]).await.unwrap();
    }

    async fn an_order_has_a_known_status_and_a_reason_exactly_when_rejected(db: &TestDatabase) {
        assert_check(insert_order(db, 1, &[("status", "'SHIPPED'")]).await);
        assert_check(insert_order(db, 1, &[("status", "'REJECTED'")]).await);
        assert_check(insert_order(db, 1, &[("status", "'PAID'"), ("rejection_reason", "'INSUFFICIENT_FUNDS'")]).await);
        assert_check(insert_order(db, 1, &[("status", "'REJECTED'"), ("rejection_reason", "'MOOD'")]).await);
        insert_order(db, 1, &[("status", "'REJECTED'"), ("rejection_reason", "'INSUFFICIENT_FUNDS'")]).await.unwrap();
    }

    async fn a_pending_order_waits_once(db: &TestDatabase) {
        let id = uuid(db, 1);
        let wait = format!("INSERT INTO pending_orders (order_id, resend_at_ms) VALUES ({id}, 0)");
        execute(db, wait.clone()).await.unwrap();
        assert_unique(execute(db, wait).await);
    }

    async fn an_idempotency_key_makes_one_order_per_user(db: &TestDatabase) {
        let keyed = [("idempotency_key", "'k'"), ("idempotency_hash", if db.backend() == DbBackend::Postgres { "'\\x00'" } else { "X'00'" })];
        insert_order(db, 1, &keyed).await.unwrap();
        assert_unique(insert_order(db, 2, &keyed).await);
        insert_order(db, 3, &[keyed[0], keyed[1], ("user_id", "'bob'")]).await.unwrap();
        insert_order(db, 4, &[]).await.unwrap();
        insert_order(db, 5, &[]).await.unwrap();
        assert_check(insert_order(db, 6, &[keyed[0]]).await);
    }

    async fn an_order_number_is_given_once(db: &TestDatabase) {
        insert_order(db, 1, &[]).await.unwrap();
        assert_unique(insert_order(db, 2, &[("number", "1")]).await);
    }

    async fn a_message_is_the_source_of_one_event(db: &TestDatabase) {
        let source = uuid(db, 77);
        let change = [("version", "2"), ("status", "'PAID'"), ("source_event_id", source.as_str())];
        insert_event(db, 1, &change).await.unwrap();
        assert_unique(insert_event(db, 2, &change).await);
        assert_check(insert_event(db, 3, &[("source_event_id", &source)]).await);
        assert_check(insert_event(db, 3, &[("version", "2"), ("status", "'PAID'")]).await);
    }

    async fn an_order_has_each_version_once(db: &TestDatabase) {
        let order = uuid(db, 1);
        insert_event(db, 1, &[]).await.unwrap();
        assert_unique(insert_event(db, 2, &[("order_id", &order)]).await);
        assert_check(insert_event(db, 2, &[("version", "0")]).await);
    }

    async fn there_is_one_event_counter_and_it_never_falls_behind_what_is_kept(db: &TestDatabase) {
        assert_unique(execute(db, "INSERT INTO event_cursor (singleton, next, oldest) VALUES (1, 1, 1)".to_owned()).await);
        assert_check(execute(db, "INSERT INTO event_cursor (singleton, next, oldest) VALUES (2, 1, 1)".to_owned()).await);
        assert_check(execute(db, "UPDATE event_cursor SET next = 0".to_owned()).await);
    }
);
