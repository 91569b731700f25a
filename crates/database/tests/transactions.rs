//! What `Database::transaction` and `Database::reader` promise, on both databases.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use std::time::Duration;

use database::testing::on_both;
use database::{ConnectOptions, DatabaseError, testing};
use sea_orm::{ConnectionTrait, DbBackend, TransactionTrait};
use support::{Migrator, PATIENCE, count, insert, insert_in_transaction};
use tokio::sync::oneshot;

on_both!(Migrator;
    async fn a_caller_that_goes_away_does_not_cancel_the_transaction(db: &TestDatabase) {
        let (inside, is_inside) = oneshot::channel();
        let (go_on, may_go_on) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let caller = db.transaction("abandoned", move |tx| Box::pin(async move {
            insert(tx, 1).await?;
            inside.send(()).unwrap();
            may_go_on.await.unwrap();
            insert(tx, 2).await?;
            done.send(()).unwrap();
            Ok::<_, DatabaseError>(())
        }));
        tokio::select! {
            _ = caller => panic!("the transaction waits for the test"),
            entered = is_inside => entered.unwrap(),
        }
        // The caller's future is gone now.
        go_on.send(()).unwrap();
        is_done.await.unwrap();
        // The commit follows; a later transaction comes after it on SQLite, a poll on PostgreSQL.
        let committed = async { while count(db).await != 2 { tokio::task::yield_now().await; } };
        tokio::time::timeout(PATIENCE, committed).await.unwrap();
    }

    async fn a_panic_rolls_back_and_the_next_transaction_works(db: &TestDatabase) {
        let result = db.transaction("panics", |tx| Box::pin(async move {
            insert(tx, 1).await?;
            assert!(count_in(tx).await? > 1, "one entry only");
            Ok::<_, DatabaseError>(())
        })).await;
        let Err(DatabaseError::Panicked { transaction, message }) = result else { panic!("{result:?}") };
        assert_eq!((transaction, message.as_str()), ("panics", "one entry only"));
        insert_in_transaction(db, 2).await.unwrap();
        assert_eq!(count(db).await, 1);
    }

    async fn an_error_of_the_work_rolls_back_and_comes_through(db: &TestDatabase) {
        #[derive(Debug)]
        enum Refusal { NotToday, Database(#[expect(dead_code)] DatabaseError) }
        impl From<DatabaseError> for Refusal {
            fn from(error: DatabaseError) -> Self { Self::Database(error) }
        }
        let result: Result<(), Refusal> = db.transaction("refuses", |tx| Box::pin(async move {
            insert(tx, 1).await.map_err(DatabaseError::from)?;
            Err(Refusal::NotToday)
        })).await;
        assert!(matches!(result, Err(Refusal::NotToday)), "{result:?}");
        assert_eq!(count(db).await, 0);
    }

    async fn a_read_after_the_answer_sees_the_commit(db: &TestDatabase) {
        for id in 1..=200 {
            insert_in_transaction(db, id).await.unwrap();
            assert_eq!(count(db).await, id);
        }
    }

    async fn concurrent_transactions_all_commit(db: &TestDatabase) {
        let tasks: Vec<_> = (1..=100).map(|id| {
            let db = (*db).clone();
            tokio::spawn(async move { insert_in_transaction(&db, id).await })
        }).collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(count(db).await, 100);
    }

    async fn the_reader_cannot_write(db: &TestDatabase) {
        insert(db.reader(), 1).await.unwrap_err();
        db.reader().execute_unprepared("DELETE FROM entries").await.unwrap_err();
        assert_eq!(count(db).await, 0);
    }

    async fn an_error_at_commit_is_reported_and_nothing_is_applied(db: &TestDatabase) {
        let result = db.transaction("dangling", |tx| Box::pin(async move {
            insert(tx, 1).await?;
            // Checked at COMMIT: there is no entry 7.
            tx.execute_unprepared("INSERT INTO notes (id, entry) VALUES (1, 7)").await?;
            Ok::<_, DatabaseError>(())
        })).await;
        let error = result.unwrap_err();
        assert!(matches!(error, DatabaseError::Db(_)), "{error:?}");
        assert!(!error.is_transient() && !error.is_outcome_unknown());
        insert_in_transaction(db, 2).await.unwrap();
        assert_eq!(count(db).await, 1);
    }

    async fn a_nested_transaction_may_fail_and_the_outer_one_goes_on(db: &TestDatabase) {
        db.transaction("outer", |tx| Box::pin(async move {
            insert(tx, 1).await?;
            let nested = tx.begin().await?;
            assert!(database::is_unique_violation(&insert(&nested, 1).await.unwrap_err()));
            nested.rollback().await?;
            insert(tx, 2).await?;
            Ok::<_, DatabaseError>(())
        })).await.unwrap();
        assert_eq!(count(db).await, 2);
    }

    async fn closing_waits_for_the_running_transaction(db: &TestDatabase) {
        let (inside, is_inside) = oneshot::channel();
        let running = tokio::spawn({
            let db = (*db).clone();
            async move {
                db.transaction("slow", move |tx| Box::pin(async move {
                    inside.send(()).unwrap();
                    insert(tx, 1).await?;
                    insert(tx, 2).await?;
                    Ok::<_, DatabaseError>(())
                })).await
            }
        });
        is_inside.await.unwrap();
        (*db).clone().close().await;
        running.await.unwrap().unwrap();
        let late = insert_in_transaction(db, 3).await.unwrap_err();
        assert!(late.is_transient(), "work in hand at a shutdown is not faulty: {late}");
    }

    async fn the_clock_of_the_database_counts_milliseconds_since_the_epoch(db: &TestDatabase) {
        let sql = format!("SELECT {}", database::now_ms_sql(db.backend()));
        let before = now_ms();
        let row = db.reader().query_one_raw(sea_orm::Statement::from_string(db.backend(), sql)).await.unwrap().unwrap();
        let at: i64 = row.try_get_by_index(0).unwrap();
        assert!((before - 1..=now_ms() + 1).contains(&at), "{before} {at}");
    }
);

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

async fn count_in(connection: &impl ConnectionTrait) -> Result<i64, sea_orm::DbErr> {
    let statement = sea_orm::Statement::from_string(connection.get_database_backend(), "SELECT COUNT(*) FROM entries");
    connection.query_one_raw(statement).await?.unwrap().try_get_by_index(0)
}

#[tokio::test]
async fn a_transaction_that_takes_too_long_is_rolled_back_and_lets_go_of_the_writer() {
    let options = ConnectOptions { transaction_timeout: Duration::from_millis(300), ..testing::options() };
    let mut databases = vec![testing::sqlite_with::<Migrator>(&options).await];
    databases.extend(testing::postgres_with::<Migrator>(&options).await);
    for db in databases {
        let result = db
            .transaction("hangs", |tx| {
                Box::pin(async move {
                    insert(tx, 1).await?;
                    std::future::pending::<Result<(), DatabaseError>>().await
                })
            })
            .await;
        let error = result.unwrap_err();
        assert!(matches!(error, DatabaseError::TimedOut { what: "hangs", .. }), "{error:?}");
        assert!(error.is_transient());
        insert_in_transaction(&db, 1).await.unwrap();
        assert_eq!(count(&db).await, 1);
    }
}

#[tokio::test]
async fn a_hidden_error_of_a_statement_is_not_taken_for_a_commit() {
    let Some(db) = testing::postgres::<Migrator>().await else { return };
    assert_eq!(db.backend(), DbBackend::Postgres);
    insert_in_transaction(&db, 1).await.unwrap();
    let result = db
        .transaction("hides", |tx| {
            Box::pin(async move {
                insert(tx, 2).await?;
                // PostgreSQL aborts the transaction here; COMMIT would be a ROLLBACK without an error.
                let _ = insert(tx, 1).await;
                Ok::<_, DatabaseError>(())
            })
        })
        .await;
    assert!(matches!(result, Err(DatabaseError::HiddenFailure { .. })), "{result:?}");
    assert_eq!(count(&db).await, 1);
}
