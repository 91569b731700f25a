//! Connections that a worker keeps between its statements must not outlive what they are good for.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use std::time::Duration;

use database::testing::TestDatabase;
use database::{Database, DatabaseError, Writes, testing};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use support::{Migrator, Network, PATIENCE, address_of, count, end_sessions, insert_in_transaction, url_through};

/// Longer than a worker's connection may rest and still be taken for good.
const REST: Duration = Duration::from_millis(1_100);

async fn replica(db: &TestDatabase) -> Database {
    Database::connect(db.url(), &testing::options()).await.unwrap()
}

/// A statement that is a transaction of its own. Answers its session.
async fn insert_alone(worker: &Database, id: i64) -> Result<u64, DatabaseError> {
    let mut writes = Writes::new(DbBackend::Postgres);
    writes.add(Statement::from_sql_and_values(
        DbBackend::Postgres,
        "INSERT INTO entries (id, amount) VALUES ($1, 1)",
        [id.into()],
    ));
    writes.number("session", "SELECT pg_backend_pid()::bigint AS number".to_owned());
    Ok(writes.run(worker, "alone").await?.counts[1])
}

async fn reading_session(worker: &Database) -> i32 {
    let sql = Statement::from_string(DbBackend::Postgres, "SELECT pg_backend_pid()");
    worker.reader().query_all_raw(sql).await.unwrap()[0].try_get_by_index(0).unwrap()
}

#[tokio::test]
async fn a_worker_asks_the_server_for_nothing_but_its_statements() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    let network = Network::before(address_of(&db)).await;
    let replica = Database::connect(&url_through(&db, network.address), &testing::options()).await.unwrap();
    let worker = replica.for_worker(1);
    // They are prepared at their first time.
    let sessions = (insert_alone(&worker, 1).await.unwrap(), reading_session(&worker).await);
    let before = network.requests();
    for id in 2..=10 {
        assert_eq!((insert_alone(&worker, id).await.unwrap(), reading_session(&worker).await), sessions);
    }
    assert_eq!(network.requests() - before, 2 * 9);
    assert_eq!(count(&db).await, 10);
}

#[tokio::test]
async fn a_kept_connection_that_died_takes_one_statement_with_it() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    let worker = replica(&db).await.for_worker(1);
    insert_alone(&worker, 1).await.unwrap();
    end_sessions(&db).await;
    let error = insert_alone(&worker, 2).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    insert_alone(&worker, 3).await.unwrap();
    // Nobody has to repeat what reads.
    reading_session(&worker).await;
    end_sessions(&db).await;
    reading_session(&worker).await;
}

#[tokio::test]
async fn a_connection_that_died_while_it_rested_takes_nothing_with_it() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    let worker = replica(&db).await.for_worker(1);
    insert_alone(&worker, 1).await.unwrap();
    end_sessions(&db).await;
    tokio::time::sleep(REST).await;
    insert_alone(&worker, 2).await.unwrap();
    assert_eq!(count(&db).await, 2);
}

#[tokio::test]
async fn statements_that_fail_leave_no_connection_behind() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    let worker = replica(&db).await.for_worker(1);
    for _ in 0..5 {
        insert_alone(&worker, 1).await.ok();
        insert_in_transaction(&worker, 1).await.unwrap_err();
    }
    insert_alone(&worker, 2).await.unwrap();
    insert_in_transaction(&worker, 3).await.unwrap();
    assert_eq!(count(&db).await, 3);
}

#[tokio::test]
async fn closing_waits_for_no_connection_that_is_kept() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    let replica = replica(&db).await;
    let worker = replica.for_worker(1);
    insert_alone(&worker, 1).await.unwrap();
    reading_session(&worker).await;
    tokio::time::timeout(PATIENCE, replica.close()).await.unwrap();
    let error = insert_alone(&worker, 2).await.unwrap_err();
    assert!(error.is_transient() && !error.is_outcome_unknown(), "{error:?}");
    assert_eq!(count(&db).await, 1);
}
