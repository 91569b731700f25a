//! The outbox's SQL and the sweeper.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use database::DatabaseError;
use database::testing::on_both;
use messaging::outbox::{RetrySchedule, due_backlog, insert_batch, remove_batch};
use messaging::{Sweep, Sweeper, SweeperOptions};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use tokio::sync::oneshot;

use crate::support::{
    Mode, OUTBOX, OutboxBroker, TestMigrator, count, execute, hold, insert, make_due, row, rows, soon, waiting,
};

fn sweeper(db: &database::Database, broker: &Arc<OutboxBroker>) -> Sweeper {
    Sweeper::new(db.clone(), OUTBOX, Arc::<OutboxBroker>::clone(broker), SweeperOptions::default())
}

/// Milliseconds until the only row is due again, and how often it was claimed.
async fn schedule(db: &database::Database) -> (i64, i32) {
    let now = database::now_ms_sql(db.backend());
    let sql = format!("SELECT next_attempt_at_ms - {now}, attempts FROM outbox_test");
    let row = db.reader().query_one_raw(Statement::from_string(db.backend(), sql)).await.unwrap().unwrap();
    (row.try_get_by_index(0).unwrap(), row.try_get_by_index(1).unwrap())
}

on_both!(TestMigrator;
    async fn death_between_commit_and_publish_loses_nothing(db: &TestDatabase) {
        let broker = OutboxBroker::new(Mode::Up);
        let mut sweeper = sweeper(db, &broker);
        let written = row("{\"text\":\"é\\u0000\"}").with_header("traceparent", "00-abc").with_header("odd", vec![255]);
        insert(db, std::slice::from_ref(&written)).await;

        assert_eq!(sweeper.sweep().await.unwrap(), Sweep::default(), "a fresh row is its committer's");
        make_due(db).await;
        assert_eq!(due_backlog(db.reader(), OUTBOX).await.unwrap().rows, 1);
        assert_eq!(sweeper.sweep().await.unwrap(), Sweep { claimed: 1, published: 1 });
        assert_eq!(broker.published(), [written.to_record()]);
        assert_eq!(waiting(db).await, 0);
        assert_eq!(sweeper.sweep().await.unwrap(), Sweep::default());
    }

    async fn death_between_claim_and_publish_loses_nothing(db: &TestDatabase) {
        let broker = OutboxBroker::new(Mode::Silent);
        insert(db, &rows(3)).await;
        make_due(db).await;
        let mut dying = sweeper(db, &broker);
        let sweeping = tokio::spawn(async move { dying.sweep().await });
        crate::support::eventually("published", || async { broker.published().len() == 3 }).await;
        sweeping.abort();
        let _ = sweeping.await;
        assert_eq!(waiting(db).await, 3);

        broker.set(Mode::Up);
        let mut next = sweeper(db, &broker);
        assert_eq!(next.sweep().await.unwrap(), Sweep::default(), "the claim holds without its claimer");
        make_due(db).await;
        assert_eq!(next.sweep().await.unwrap(), Sweep { claimed: 3, published: 3 });
        assert_eq!(broker.numbers(), [0, 0, 1, 1, 2, 2], "twice, never lost");
        assert_eq!(waiting(db).await, 0);
    }

    async fn two_sweepers_never_claim_the_same_row_at_once(db: &TestDatabase) {
        const ROWS: usize = 600;
        const SWEEPERS: usize = 6;
        insert(db, &rows(ROWS)).await;
        make_due(db).await;
        let broker = OutboxBroker::new(Mode::Up);
        let sweeping: Vec<_> = (0..SWEEPERS)
            .map(|_| {
                let options = SweeperOptions { claim_rows: 25, ..SweeperOptions::default() };
                let mut sweeper = Sweeper::new((*db).clone(), OUTBOX, Arc::<OutboxBroker>::clone(&broker), options);
                let db = (*db).clone();
                tokio::spawn(async move {
                    let mut claimed = 0;
                    while due_backlog(db.reader(), OUTBOX).await.unwrap().rows > 0 {
                        claimed += sweeper.sweep().await.unwrap().claimed;
                    }
                    claimed
                })
            })
            .collect();
        let mut claimed = 0;
        for sweeping in sweeping {
            claimed += soon("sweeping", sweeping).await.unwrap();
        }
        assert_eq!(claimed, ROWS);
        assert_eq!(broker.numbers(), (0..ROWS).collect::<Vec<_>>());
        assert_eq!(waiting(db).await, 0);
    }

    async fn ids_that_commit_out_of_order_lose_no_row(db: &TestDatabase) {
        let (early, late) = (row("early"), row("late"));
        assert!(early.id < late.id);
        let broker = OutboxBroker::new(Mode::Up);
        let mut sweeper = sweeper(db, &broker);
        let (commit, may_commit) = oneshot::channel::<()>();
        let inserting = {
            let (db, early) = ((*db).clone(), early.clone());
            let overlaps = db.backend() == DbBackend::Postgres;
            tokio::spawn(async move {
                // SQLite has one writer: there the early id is simply written later.
                let mut may_commit = Some(may_commit);
                if !overlaps {
                    may_commit.take().unwrap().await.unwrap();
                }
                db.transaction("early", move |tx| {
                    Box::pin(async move {
                        insert_batch(tx, OUTBOX, &[early]).await?;
                        if let Some(may_commit) = may_commit {
                            may_commit.await.unwrap();
                        }
                        Ok::<_, DatabaseError>(())
                    })
                })
                .await
                .unwrap();
            })
        };
        insert(db, &[late]).await;
        make_due(db).await;
        sweeper.sweep().await.unwrap();
        assert_eq!(broker.payloads(), ["late"]);
        commit.send(()).unwrap();
        inserting.await.unwrap();
        make_due(db).await;
        sweeper.sweep().await.unwrap();
        assert_eq!(broker.payloads(), ["late", "early"]);
        assert_eq!(waiting(db).await, 0);
    }

    async fn an_outage_spends_few_attempts_and_the_end_is_noticed(db: &TestDatabase) {
        insert(db, &rows(50)).await;
        make_due(db).await;
        let broker = OutboxBroker::new(Mode::Down);
        let mut sweeper = Sweeper::new(
            (*db).clone(),
            OUTBOX,
            Arc::<OutboxBroker>::clone(&broker),
            SweeperOptions { claim_rows: 5, probe_rows: 1, ..SweeperOptions::default() },
        );
        assert_eq!(sweeper.sweep().await.unwrap(), Sweep { claimed: 5, published: 0 });
        for _ in 0..3 {
            assert_eq!(sweeper.sweep().await.unwrap(), Sweep { claimed: 1, published: 0 }, "only probing");
        }
        broker.set(Mode::Up);
        assert_eq!(sweeper.sweep().await.unwrap(), Sweep { claimed: 1, published: 1 });
        for _ in 0..8 {
            assert_eq!(sweeper.sweep().await.unwrap(), Sweep { claimed: 5, published: 5 }, "at full speed again");
        }
        make_due(db).await;
        while sweeper.sweep().await.unwrap().claimed > 0 {}
        assert_eq!(waiting(db).await, 0);
        assert_eq!(broker.numbers(), (0..50).collect::<Vec<_>>());
    }

    async fn attempts_grow_apart_and_never_end(db: &TestDatabase) {
        insert(db, &[row("refused")]).await;
        let broker = OutboxBroker::new(Mode::Picky);
        let retry = RetrySchedule { min: Duration::from_secs(100), max: Duration::from_secs(300) };
        let options = SweeperOptions { retry, ..SweeperOptions::default() };
        let mut sweeper = Sweeper::new((*db).clone(), OUTBOX, Arc::<OutboxBroker>::clone(&broker), options);
        for (attempt, expected_s) in [(1, 100), (2, 200), (3, 300), (4, 300)] {
            make_due(db).await;
            assert_eq!(sweeper.sweep().await.unwrap(), Sweep { claimed: 1, published: 0 });
            let (wait_ms, attempts) = schedule(db).await;
            assert_eq!(attempts, attempt);
            assert!((expected_s * 1000 - 20_000..=expected_s * 1000).contains(&wait_ms), "attempt {attempt}: {wait_ms} ms");
        }
        execute(db, "UPDATE outbox_test SET attempts = 2000000").await;
        make_due(db).await;
        sweeper.sweep().await.unwrap();
        assert!(schedule(db).await.0 > 280_000, "no overflow after very many attempts");
    }

    async fn a_row_that_is_never_taken_stops_no_other(db: &TestDatabase) {
        let mut all = rows(4);
        all.push(row("refused"));
        let unreadable = row("unreadable");
        all.push(unreadable.clone());
        insert(db, &all).await;
        execute(db, "UPDATE outbox_test SET headers = 'no json' WHERE payload = 'unreadable'").await;
        make_due(db).await;
        let broker = OutboxBroker::new(Mode::Picky);
        let mut sweeper = sweeper(db, &broker);
        assert_eq!(sweeper.sweep().await.unwrap(), Sweep { claimed: 5, published: 4 });
        assert_eq!(broker.numbers(), [0, 1, 2, 3]);
        assert_eq!(waiting(db).await, 2);
        insert(db, &rows(1)).await;
        make_due(db).await;
        assert_eq!(sweeper.sweep().await.unwrap().published, 1, "still at full speed");
    }

    async fn swept_rows_are_published_in_the_order_they_were_written(db: &TestDatabase) {
        insert(db, &rows(100)).await;
        make_due(db).await;
        let broker = OutboxBroker::new(Mode::Up);
        sweeper(db, &broker).sweep().await.unwrap();
        let in_order: Vec<_> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(broker.payloads(), in_order);
        assert_eq!(broker.calls.load(Ordering::SeqCst), 1);
    }

    async fn what_is_gone_is_removed_again_without_an_error(db: &TestDatabase) {
        let written = rows(3);
        insert(db, &written).await;
        let remove = |ids: &[uuid::Uuid]| remove_batch(db.backend(), OUTBOX, ids).run(db, "remove");
        remove(&[written[0].id]).await.unwrap();
        remove(&[written[1].id, written[0].id, uuid::Uuid::now_v7(), written[1].id]).await.unwrap();
        remove(&[]).await.unwrap();
        assert_eq!(waiting(db).await, 1);
        assert_eq!(count(db, "outbox_test WHERE payload = '2'").await, 1);
    }
);

/// A crash may lose the removal: the row is published once more then. Everything else that is committed does wait.
#[tokio::test]
async fn only_removing_does_not_wait_for_the_disk() {
    let Some(db) = database::testing::postgres::<TestMigrator>().await else { return };
    execute(
        &db,
        "CREATE TABLE commits (sync TEXT);
         CREATE FUNCTION note_commit() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO commits VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
         CREATE TRIGGER commits AFTER INSERT OR DELETE ON outbox_test FOR EACH STATEMENT EXECUTE FUNCTION note_commit();",
    )
    .await;
    let worker = db.for_worker(1);
    for round in 1..=2 {
        let written = rows(1);
        insert(&worker, &written).await;
        remove_batch(DbBackend::Postgres, OUTBOX, &[written[0].id]).run(&worker, "remove").await.unwrap();
        assert_eq!(waiting(&db).await, 0);
        assert_eq!(count(&db, "commits WHERE sync = 'on'").await, round);
        assert_eq!(count(&db, "commits WHERE sync = 'off'").await, round);
    }
}

/// `SKIP LOCKED`: a claimer that is paused in the middle must not stop the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_locked_by_a_paused_claimer_is_skipped_not_waited_for() {
    let Some(db) = database::testing::postgres::<TestMigrator>().await else { return };
    insert(&db, &rows(5)).await;
    make_due(&db).await;
    let held = hold(&db, "3").await;
    let broker = OutboxBroker::new(Mode::Up);
    let mut sweeper = sweeper(&db, &broker);
    assert_eq!(sweeper.sweep().await.unwrap(), Sweep { claimed: 4, published: 4 });
    held.release().await;
    assert_eq!(sweeper.sweep().await.unwrap(), Sweep { claimed: 1, published: 1 });
    assert_eq!(broker.numbers(), [0, 1, 2, 3, 4]);
}

/// Rows of the outbox that the session has read in this transaction, and perhaps in earlier ones.
async fn rows_read(tx: &sea_orm::DatabaseTransaction) -> i64 {
    let sql = "SELECT seq_tup_read + COALESCE(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relname = 'outbox_test'";
    tx.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

/// An outbox is empty most of the time, also when PostgreSQL analyzes it; with the plans that are best for an empty table, removing some of
/// many rows would read all of them.
#[tokio::test]
async fn an_outbox_that_was_analyzed_while_it_was_empty_is_not_read_as_a_whole() {
    let Some(db) = database::testing::postgres::<TestMigrator>().await else { return };
    insert(&db, &rows(500)).await;
    execute(&db, "DELETE FROM outbox_test").await;
    execute(&db, "ANALYZE outbox_test").await;
    let written = rows(500);
    insert(&db, &written).await;
    let ids: Vec<_> = written.iter().take(10).map(|row| row.id).collect();
    let removing = db
        .transaction("remove", move |tx| {
            Box::pin(async move {
                let before = rows_read(tx).await;
                remove_batch(DbBackend::Postgres, OUTBOX, &ids).run_in_tx(tx).await?;
                Ok::<_, DatabaseError>(rows_read(tx).await - before)
            })
        })
        .await
        .unwrap();
    assert_eq!((waiting(&db).await, removing), (490, 10));
}
