//! Batches that are decided without a lock and written in one statement, against everything that may happen in between.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::{account, account_with, clean_audit, count, eur, results, settle, settle_in_tx, task, task_event, user};
use database::{BoxFuture, ConnectOptions, Database, DatabaseError, DatabaseUrl};
use messaging::{Delivery, EmbeddedBroker, EmbeddedOptions, Gate, Handler as _, Relay, RelayOptions};
use migrations::{BrokerLogMigrator, PaymentsMigrator};
use payment_service::{
    account::{TopUp, top_up_account},
    events::PaymentTasks,
    payment::{OUTBOX, PaymentError, ReadyPayments, Settled, Task, decide_payments_batch, ready_payments_batch},
};
use schema::{CurrencyCode, EventId, EventSource as _, Timestamp};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, DbBackend, QueryResult, Statement};
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A transaction that has done something, and commits when it is told to.
struct Held<T> {
    commit: oneshot::Sender<()>,
    held: JoinHandle<Result<T, common::SettleError>>,
}

impl<T: Send + 'static> Held<T> {
    async fn after(
        db: &Database,
        work: impl for<'t> FnOnce(&'t DatabaseTransaction) -> BoxFuture<'t, Result<T, common::SettleError>> + Send + 'static,
    ) -> Self {
        let (done, is_done) = oneshot::channel();
        let (commit, may_commit) = oneshot::channel::<()>();
        let db = db.clone();
        let held = tokio::spawn(async move {
            db.transaction("held", move |tx| {
                Box::pin(async move {
                    let value = work(tx).await?;
                    done.send(()).unwrap();
                    may_commit.await.unwrap();
                    Ok(value)
                })
            })
            .await
        });
        is_done.await.unwrap();
        Self { commit, held }
    }

    async fn commit(self) -> T {
        self.commit.send(()).unwrap();
        self.held.await.unwrap().unwrap()
    }
}

async fn until_somebody_waits_for_a_lock(db: &Database) {
    let sql = "SELECT COUNT(*) AS counted FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    common::until("the second transaction waits for the first", async || {
        let row = db.reader().query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap().unwrap();
        row.try_get::<i64>("", "counted").unwrap() == 1
    })
    .await;
}

async fn at_once(db: &Database, tasks: &[Task]) -> Result<Settled, PaymentError> {
    ready(tasks)?.write_batch(db).await
}

/// Not written yet.
fn ready(tasks: &[Task]) -> Result<ReadyPayments, PaymentError> {
    ready_payments_batch(common::RESULTS, tasks, Timestamp::now())
}

async fn nothing_is_decided(db: &Database) {
    for table in ["payments", "inbox_payments", "outbox_payments"] {
        assert_eq!(count(db, table).await, 0, "{table}");
    }
}

/// A batch that waits with its writes for the transaction that holds something of it.
async fn waiting_at_once(db: &Database, task: &Task) -> JoinHandle<Result<Settled, PaymentError>> {
    let (competitor, task) = (db.clone(), task.clone());
    let competing = tokio::spawn(async move { at_once(&competitor, &[task]).await });
    until_somebody_waits_for_a_lock(db).await;
    competing
}

/// By its counts: a unique index would be in the way of its debits, later.
fn is_overtaken(error: &PaymentError) -> bool {
    matches!(error, PaymentError::Database(DatabaseError::Db(error)) if database::is_overtaken(error))
}

/// A rejection stands for ever, and is never decided by what was seen without locks. Nor is it an error in the server's log.
#[tokio::test]
async fn a_batch_that_cannot_be_paid_whole_writes_nothing_and_asks_for_locks() {
    let Some(db) = database::testing::postgres::<PaymentsMigrator>().await else { return };
    account_with(&db, "ada", 1_000).await;
    account_with(&db, "bob", 1_000).await;
    let mut in_dollars = task("ada", 1);
    in_dollars.payment.currency = CurrencyCode::USD;
    for rejected in [task("ada", 1_000), task("ada", 1_001), task("nobody", 1), in_dollars] {
        let batch = [task("ada", 1), task("bob", 1), rejected];
        let error = at_once(&db, &batch).await.unwrap_err();
        assert!(matches!(error, PaymentError::NotPayableAtOnce), "{error}");
        nothing_is_decided(&db).await;
    }
    assert_eq!((account(&db, "ada").await.balance_minor, account(&db, "bob").await.balance_minor), (1_000, 1_000));
    clean_audit(&db).await;
}

/// The sum would be below zero, and so look as if anybody could pay it.
#[tokio::test]
async fn amounts_that_together_are_beyond_all_numbers_are_not_paid() {
    let Some(db) = database::testing::postgres::<PaymentsMigrator>().await else { return };
    account_with(&db, "ada", 1_000).await;
    let error = at_once(&db, &[task("ada", i64::MAX), task("ada", i64::MAX)]).await.unwrap_err();
    assert!(error.needs_locks(), "{error}");
    nothing_is_decided(&db).await;
}

/// Entries are numbered, and balances told, in the order of the tasks, whoever else is between them.
#[tokio::test]
async fn a_batch_leaves_the_ledgers_of_its_accounts_as_if_it_were_paid_task_by_task() {
    let Some(db) = database::testing::postgres::<PaymentsMigrator>().await else { return };
    for user in ["ada", "bob", "eve"] {
        account_with(&db, user, 1_000).await;
    }
    let tasks: Vec<Task> = [("eve", 1), ("ada", 600), ("bob", 2), ("ada", 300), ("eve", 3), ("ada", 100)]
        .map(|(user, minor)| task(user, minor))
        .into();
    assert_eq!(at_once(&db, &tasks).await.unwrap().paid, 6);
    let sql = "SELECT e.number, e.balance_after_minor FROM ledger_entries AS e JOIN accounts AS a ON a.id = e.account_id
               WHERE e.kind = 'DEBIT' ORDER BY a.user_id, e.number";
    let rows = db.reader().query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap();
    let entry =
        |row: &QueryResult| (row.try_get::<i64>("", "number").unwrap(), row.try_get::<i64>("", "balance_after_minor").unwrap());
    let entries: Vec<_> = rows.iter().map(entry).collect();
    assert_eq!(entries, [(2, 400), (3, 100), (4, 0), (2, 998), (2, 999), (3, 996)]);
    clean_audit(&db).await;
}

/// The next batch is made ready while this one is written.
#[tokio::test]
async fn batches_that_were_made_ready_together_debit_what_each_of_them_finds() {
    let Some(db) = database::testing::postgres::<PaymentsMigrator>().await else { return };
    account_with(&db, "ada", 1_000).await;
    let _lost = ready(&[task("ada", 1_000)]).unwrap();
    let first = ready(&[task("ada", 600)]).unwrap();
    let second = ready(&[task("ada", 401)]).unwrap();
    let third = ready(&[task("ada", 300), task("ada", 50)]).unwrap();
    assert_eq!(first.write_batch(&db).await.unwrap().paid, 1);
    let error = second.write_batch(&db).await.unwrap_err();
    assert!(matches!(error, PaymentError::NotPayableAtOnce), "{error}");
    top_up_account(&db, TopUp { user: user("ada"), amount: eur(500), key: None }).await.unwrap();
    assert_eq!(third.write_batch(&db).await.unwrap().paid, 2);
    assert_eq!(account(&db, "ada").await.balance_minor, 550);
    clean_audit(&db).await;
}

/// Decisions are not looked up then: their primary key, and the unique index of an order's debit behind it, stand in the way of a second one.
#[tokio::test]
async fn a_repeated_task_among_new_ones_debits_nobody_and_is_decided_under_locks() {
    let Some(db) = database::testing::postgres::<PaymentsMigrator>().await else { return };
    account_with(&db, "ada", 1_000).await;
    let first = task("ada", 300);
    let told = at_once(&db, std::slice::from_ref(&first)).await.unwrap();
    let again = [task("ada", 1), Task { event_id: EventId::generate(), ..first.clone() }];

    let error = at_once(&db, &again).await.unwrap_err();
    assert!(error.needs_locks(), "{error}");
    assert_eq!(account(&db, "ada").await.balance_minor, 700);
    assert_eq!(count(&db, "payments").await, 1);

    let settled = settle(&db, &again).await.unwrap();
    assert_eq!((settled.paid, settled.repeated), (1, 1));
    assert_eq!(results(&settled)[1..], results(&told)[..], "the recorded decision is told again");
    assert_eq!(account(&db, "ada").await.balance_minor, 699);
    clean_audit(&db).await;
}

/// Where repetitions are likely the locks come first: an attempt that is certain to fail would only cost time.
#[tokio::test]
async fn repetitions_are_met_with_locks_until_there_are_none() {
    let Some(db) = database::testing::postgres::<PaymentsMigrator>().await else { return };
    account_with(&db, "ada", 1_000).await;
    let folder = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::sqlite(folder.path().join("broker.db"));
    let log = Database::connect(&url, &ConnectOptions::new("test")).await.unwrap();
    log.migrate::<BrokerLogMigrator>().await.unwrap();
    let broker = EmbeddedBroker::open(log, EmbeddedOptions::default()).await.unwrap();
    let (broker, gate) = (Arc::new(broker), Gate::new());
    let (relay, _) = Relay::start(db.clone(), OUTBOX, broker, RelayOptions::default(), CancellationToken::new(), gate);
    let handler = Arc::new(PaymentTasks::new(common::RESULTS.to_owned(), relay));
    let tasks: Vec<Task> = (0..4).map(|_| task("ada", 1)).collect();
    let at_once = async |task: &Task| {
        let read = handler.read(&[delivery(task)]).unwrap();
        let ready = handler.make_ready(&db, &read).unwrap()?;
        Some(ready.await.unwrap()?.paid)
    };
    let under_locks = async |task: &Task| {
        let handler = Arc::clone(&handler);
        let read = handler.read(&[delivery(task)]).unwrap();
        let applied = db.transaction("test", move |tx| Box::pin(async move { handler.apply_in_tx(tx, &read).await })).await;
        applied.unwrap().paid
    };
    assert_eq!(at_once(&tasks[0]).await, None, "what was not stored before a crash comes first");
    assert_eq!(under_locks(&tasks[0]).await, 1);
    assert_eq!(at_once(&tasks[1]).await, Some(1));
    assert_eq!(at_once(&tasks[1]).await, None, "decided already");
    assert_eq!(under_locks(&tasks[1]).await, 0);
    assert_eq!(at_once(&tasks[2]).await, None, "there may be more of them");
    assert_eq!(under_locks(&tasks[2]).await, 1);
    assert_eq!(at_once(&tasks[3]).await, Some(1));
    clean_audit(&db).await;
}

fn delivery(task: &Task) -> Delivery {
    let payload = task.payment.to_json().unwrap().into();
    Delivery {
        topic: "tasks".to_owned(),
        partition: 0,
        offset: 0,
        key: None,
        headers: task_event(task).headers(),
        payload,
        timestamp_ms: 0,
    }
}

/// The balance that the statement saw is out of date when it debits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_top_up_that_is_committed_while_a_debit_waits_for_the_account_is_not_overwritten_and_nothing_of_the_batch_is_written() {
    let Some(db) = database::testing::postgres::<PaymentsMigrator>().await else { return };
    account_with(&db, "ada", 1_000).await;
    let task = task("ada", 300);
    // What a top-up does, in its order.
    let top_up = Held::after(&db, |tx| {
        Box::pin(async move {
            let sql = "WITH topped AS (UPDATE accounts SET balance_minor = balance_minor + 500, entry_count = entry_count + 1 RETURNING *)
                       INSERT INTO ledger_entries (id, account_id, number, kind, amount_minor, balance_after_minor, created_at_ms)
                       SELECT gen_random_uuid(), id, entry_count, 'TOP_UP', 500, balance_minor, 1 FROM topped";
            tx.execute_unprepared(sql).await.map_err(DatabaseError::from)?;
            Ok(())
        })
    })
    .await;
    let competing = waiting_at_once(&db, &task).await;
    top_up.commit().await;

    let error = competing.await.unwrap().unwrap_err();
    assert!(is_overtaken(&error) && error.is_transient(), "{error}");
    nothing_is_decided(&db).await;
    assert_eq!(account(&db, "ada").await.balance_minor, 1_500);
    assert_eq!(settle(&db, &[task]).await.unwrap().paid, 1);
    assert_eq!(account(&db, "ada").await.balance_minor, 1_200);
    clean_audit(&db).await;
}

/// There was enough when the statement began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_that_another_order_takes_while_a_debit_waits_is_not_spent_twice_and_nothing_of_the_batch_is_written() {
    let Some(db) = database::testing::postgres::<PaymentsMigrator>().await else { return };
    account_with(&db, "ada", 1_000).await;
    let (other, task) = (task("ada", 800), task("ada", 300));
    let holder = Held::after(&db, |tx| {
        Box::pin(async move { Ok(decide_payments_batch(tx, common::RESULTS, &[other], Timestamp::now()).await?) })
    })
    .await;
    let competing = waiting_at_once(&db, &task).await;
    holder.commit().await;

    let error = competing.await.unwrap().unwrap_err();
    assert!(is_overtaken(&error) && error.is_transient(), "{error}");
    for table in ["payments", "inbox_payments", "outbox_payments"] {
        assert_eq!(count(&db, table).await, 1, "of the other order alone: {table}");
    }
    assert_eq!(account(&db, "ada").await.balance_minor, 200);
    assert_eq!(settle(&db, &[task]).await.unwrap().rejected, 1);
    clean_audit(&db).await;
}

/// Their accounts differ, so it is only the decision itself that tells them apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_of_another_user_for_an_order_that_is_decided_meanwhile_debits_nobody() {
    let Some(db) = database::testing::postgres::<PaymentsMigrator>().await else { return };
    account_with(&db, "ada", 1_000).await;
    account_with(&db, "bob", 1_000).await;
    let first = task("ada", 300);
    let mut of_bob = Task { event_id: EventId::generate(), ..first.clone() };
    of_bob.payment.user_id = user("bob");
    let holder = Held::after(&db, |tx| {
        Box::pin(async move { Ok(decide_payments_batch(tx, common::RESULTS, &[first], Timestamp::now()).await?) })
    })
    .await;
    let competing = waiting_at_once(&db, &of_bob).await;
    let told = holder.commit().await;

    let error = competing.await.unwrap().unwrap_err();
    assert!(error.needs_locks(), "{error}");
    let again = settle(&db, &[of_bob]).await.unwrap();
    assert_eq!(results(&again), results(&told), "the recorded decision, for the recorded user");
    assert_eq!((account(&db, "ada").await.balance_minor, account(&db, "bob").await.balance_minor), (700, 1_000));
    clean_audit(&db).await;
}

/// Without an account there is no lock that orders the two; only the payments row itself is in the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_decided_while_it_is_being_decided_elsewhere_is_tried_again() {
    let Some(db) = database::testing::postgres::<PaymentsMigrator>().await else { return };
    let first = task("nobody", 100);
    let second = Task { event_id: EventId::generate(), ..first.clone() };
    let holder = Held::after(&db, |tx| {
        Box::pin(async move { Ok(decide_payments_batch(tx, common::RESULTS, &[first], Timestamp::now()).await?) })
    })
    .await;
    let (competitor, competing) = (Database::clone(&db), second.clone());
    let competing = tokio::spawn(async move { settle_in_tx(&competitor, &[competing]).await });
    until_somebody_waits_for_a_lock(&db).await;
    let told = holder.commit().await;

    let error = competing.await.unwrap().unwrap_err();
    assert!(error.is_transient(), "{error}");
    let again = settle(&db, &[second]).await.unwrap();
    assert_eq!((again.paid, again.rejected, again.repeated), (0, 0, 1));
    assert_eq!(again.results[0].event_id, told.results[0].event_id);
    clean_audit(&db).await;
}
