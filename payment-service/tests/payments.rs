//! The payment of an order, against everything that may happen to its task.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashSet;

use common::{account, account_with, clean_audit, count, entries, eur, results, settle, settle_in_tx, task, user};
use database::{Database, DatabaseError, testing::on_both};
use migrations::PaymentsMigrator;
use payment_service::{
    account::{TopUp, top_up_account},
    payment::{Task, decide_payments_batch},
};
use schema::{CurrencyCode, EventId, PaymentOutcome, RejectionReason, Timestamp};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

on_both!(PaymentsMigrator;
    async fn the_same_task_three_times_in_one_batch_debits_once(db: &TestDatabase) {
        account_with(db, "ada", 1_000).await;
        let task = task("ada", 300);
        let settled = settle(db, &[task.clone(), task.clone(), task.clone()]).await.unwrap();

        assert_eq!((settled.paid, settled.repeated, settled.redelivered), (1, 2, 2));
        assert_eq!(settled.results.len(), 1, "one result per order and batch");
        assert_eq!(account(db, "ada").await.balance_minor, 700);
        assert_eq!(count(db, "outbox_payments").await, 1);
        assert_eq!(count(db, "inbox_payments").await, 1);
        clean_audit(db).await;
    }

    async fn redelivery_in_any_order_and_company_debits_once(db: &TestDatabase) {
        account_with(db, "ada", 10_000).await;
        account_with(db, "bob", 250).await;
        let tasks: Vec<Task> =
            (0..20).map(|at| task(if at % 2 == 0 { "ada" } else { "bob" }, 100)).collect();
        // Every third batch is cut out of the middle, so batches overlap in every way; two orders are mirrored.
        for round in 0..9_usize {
            let from = (round * 7) % 15;
            let mut batch = tasks[from..(from + 6).min(tasks.len())].to_vec();
            if round % 2 == 1 {
                batch.reverse();
            }
            settle(db, &batch).await.unwrap();
        }
        settle(db, &tasks).await.unwrap();

        let report = clean_audit(db).await;
        assert_eq!((report.paid, report.rejected), (12, 8), "ten of ada, two of bob, who has no more");
        assert_eq!(account(db, "ada").await.balance_minor, 9_000);
        assert_eq!(account(db, "bob").await.balance_minor, 50);
    }

    async fn a_task_sent_again_under_a_new_id_gets_the_recorded_result_under_its_first_event_id(db: &TestDatabase) {
        account_with(db, "ada", 1_000).await;
        let first = task("ada", 300);
        let before = settle(db, std::slice::from_ref(&first)).await.unwrap();
        let again = Task { event_id: EventId::generate(), ..first };
        let after = settle(db, &[again]).await.unwrap();

        assert_eq!((after.paid, after.repeated, after.redelivered), (0, 1, 0));
        assert_eq!(before.results[0].event_id, after.results[0].event_id, "one event, told twice");
        assert_ne!(before.results[0].id, after.results[0].id, "in rows of their own");
        assert_eq!(before.results[0].payload, after.results[0].payload);
        assert_eq!(before.results[0].headers.get_str("ce_time"), after.results[0].headers.get_str("ce_time"));
        assert_eq!(account(db, "ada").await.balance_minor, 700);
        clean_audit(db).await;
    }

    async fn a_rejection_for_want_of_an_account_stays_after_the_money_came(db: &TestDatabase) {
        let task = task("ada", 300);
        let before = results(&settle(db, std::slice::from_ref(&task)).await.unwrap());
        assert_eq!(before[0].rejection_reason, Some(RejectionReason::AccountNotFound));

        account_with(db, "ada", 1_000).await;
        let again = Task { event_id: EventId::generate(), ..task.clone() };
        let settled = settle(db, &[task, again]).await.unwrap();
        assert_eq!(results(&settled), before);
        assert_eq!(account(db, "ada").await.balance_minor, 1_000);
        clean_audit(db).await;
    }

    async fn a_rejection_for_want_of_money_stays_after_the_money_came(db: &TestDatabase) {
        account_with(db, "ada", 100).await;
        let task = task("ada", 300);
        settle(db, std::slice::from_ref(&task)).await.unwrap();
        top_up_account(db, TopUp { user: user("ada"), amount: eur(1_000), key: None }).await.unwrap();
        let again = results(&settle(db, &[task]).await.unwrap());
        assert_eq!(again[0].rejection_reason, Some(RejectionReason::InsufficientFunds));
        assert_eq!(account(db, "ada").await.balance_minor, 1_100);
        clean_audit(db).await;
    }

    async fn a_hot_account_pays_many_orders_of_one_batch_with_one_update_and_without_holes(db: &TestDatabase) {
        let before = account_with(db, "ada", 100_000).await;
        let tasks: Vec<Task> = (0..200).map(|_| task("ada", 7)).collect();
        let settled = settle(db, &tasks).await.unwrap();

        assert_eq!(settled.paid, 200);
        let after = account(db, "ada").await;
        assert_eq!((after.balance_minor, after.entry_count), (100_000 - 1_400, before.entry_count + 200));
        let numbers: Vec<i64> = entries(db).await.iter().map(|entry| entry.number).collect();
        assert_eq!(numbers, (1..=201).collect::<Vec<_>>());
        let debits: Vec<_> = entries(db).await.into_iter().skip(1).map(|entry| entry.order_id.unwrap()).collect();
        let asked: Vec<_> = tasks.iter().map(|task| task.payment.order_id).collect();
        assert_eq!(debits, asked, "in the order of arrival");
        clean_audit(db).await;
    }

    async fn money_that_runs_out_in_the_middle_of_a_batch_stops_only_what_it_cannot_pay(db: &TestDatabase) {
        account_with(db, "ada", 500).await;
        let tasks: Vec<Task> = [200, 400, 250, 50, 1].map(|minor| task("ada", minor)).into();
        let settled = settle(db, &tasks).await.unwrap();
        let outcomes: Vec<_> = results(&settled).iter().map(|result| result.outcome).collect();
        use PaymentOutcome::{Paid, Rejected};
        assert_eq!(outcomes, [Paid, Rejected, Paid, Paid, Rejected]);
        assert_eq!(account(db, "ada").await.balance_minor, 0);
        clean_audit(db).await;
    }

    async fn another_currency_is_refused_and_moves_nothing(db: &TestDatabase) {
        account_with(db, "ada", 500).await;
        let mut foreign = task("ada", 1);
        foreign.payment.currency = CurrencyCode::USD;
        let result = results(&settle(db, &[foreign]).await.unwrap());
        assert_eq!(result[0].rejection_reason, Some(RejectionReason::CurrencyMismatch));
        assert_eq!(account(db, "ada").await.balance_minor, 500);
        clean_audit(db).await;
    }

    async fn a_second_task_for_the_same_order_with_other_content_changes_nothing(db: &TestDatabase) {
        account_with(db, "ada", 1_000).await;
        account_with(db, "bob", 1_000).await;
        let first = task("ada", 300);
        let mut dearer = Task { event_id: EventId::generate(), ..first.clone() };
        dearer.payment.amount_minor = 999;
        let mut of_bob = Task { event_id: EventId::generate(), ..first.clone() };
        of_bob.payment.user_id = user("bob");

        let settled = settle(db, &[first, dearer.clone()]).await.unwrap();
        let recorded = results(&settled);
        let again = settle(db, &[of_bob, dearer]).await.unwrap();
        assert_eq!(results(&again), recorded, "the recorded decision, for the recorded user");
        assert_eq!(again.results[0].key, "ada");
        assert_eq!(account(db, "ada").await.balance_minor, 700);
        assert_eq!(account(db, "bob").await.balance_minor, 1_000);
        clean_audit(db).await;
    }

    async fn a_message_id_that_came_with_another_order_before_is_no_reason_to_skip_an_order(db: &TestDatabase) {
        account_with(db, "ada", 1_000).await;
        let first = task("ada", 300);
        settle(db, std::slice::from_ref(&first)).await.unwrap();
        let settled = settle(db, &[Task { event_id: first.event_id, ..task("ada", 200) }, task("ada", 100)]).await.unwrap();
        assert_eq!((settled.paid, settled.redelivered, settled.results.len()), (2, 1, 2));
        assert_eq!(account(db, "ada").await.balance_minor, 400);
        clean_audit(db).await;
    }

    async fn a_rolled_back_batch_leaves_nothing_behind(db: &TestDatabase) {
        account_with(db, "ada", 1_000).await;
        let tasks = vec![task("ada", 300)];
        let copy = tasks.clone();
        let failed: Result<(), common::SettleError> = db
            .transaction("fails after deciding", move |tx| {
                Box::pin(async move {
                    decide_payments_batch(tx, common::RESULTS, &copy, Timestamp::now()).await?;
                    let crash = sea_orm::DbErr::Custom("crash".to_owned());
                    Err(DatabaseError::from(crash).into())
                })
            })
            .await;
        assert!(failed.is_err());
        for table in ["payments", "inbox_payments", "outbox_payments"] {
            assert_eq!(count(db, table).await, 0, "{table}");
        }
        assert_eq!(account(db, "ada").await.balance_minor, 1_000);
        assert_eq!(settle(db, &tasks).await.unwrap().paid, 1);
        clean_audit(db).await;
    }

    async fn transactions_that_decide_the_same_orders_at_once_debit_once(db: &TestDatabase) {
        account_with(db, "ada", 100_000).await;
        account_with(db, "bob", 100_000).await;
        // Half of the users have no account: nothing but the payments row itself orders those decisions.
        let tasks: Vec<Task> = (0..40).map(|at| task(["ada", "eve", "bob", "mallory"][at % 4], 10)).collect();
        let mut running = tokio::task::JoinSet::new();
        for worker in 0..6_usize {
            let db = Database::clone(db);
            let mut batch: Vec<Task> =
                tasks.iter().map(|task| Task { event_id: EventId::generate(), ..task.clone() }).collect();
            batch.rotate_left(worker * 5);
            running.spawn(async move {
                loop {
                    // Some lock first, some find out when they write.
                    let settled = if worker % 2 == 0 { settle(&db, &batch).await } else { settle_in_tx(&db, &batch).await };
                    match settled {
                        Ok(settled) => return settled,
                        // As the consumer loop does; a permanent error would be a dead letter.
                        Err(error) => assert!(error.is_transient(), "{error}"),
                    }
                }
            });
        }
        let mut event_ids: HashSet<_> = HashSet::new();
        let mut paid = 0;
        while let Some(settled) = running.join_next().await {
            let settled = settled.unwrap();
            paid += settled.paid;
            assert_eq!(settled.results.len(), 40, "everybody tells every result");
            event_ids.extend(settled.results.iter().map(|row| row.event_id));
        }
        assert_eq!(paid, 20);
        assert_eq!(event_ids.len(), 40, "one event id per order, whoever tells it");
        assert_eq!(account(db, "ada").await.balance_minor, 100_000 - 100);
        clean_audit(db).await;
    }

    async fn top_ups_between_batches_are_never_overwritten(db: &TestDatabase) {
        account_with(db, "ada", 100_000).await;
        let mut running = tokio::task::JoinSet::new();
        for worker in 0..6 {
            let db = Database::clone(db);
            running.spawn(async move {
                for _ in 0..10 {
                    if worker % 2 == 0 {
                        top_up_account(&db, TopUp { user: user("ada"), amount: eur(5), key: None }).await.unwrap();
                    } else {
                        settle(&db, &[task("ada", 3), task("ada", 4)]).await.unwrap();
                    }
                }
            });
        }
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }
        assert_eq!(account(db, "ada").await.balance_minor, 100_000 + 30 * 5 - 30 * 7);
        clean_audit(db).await;
    }
);

/// Counted by the server inside of the transaction: `pg_stat_xact_user_tables` holds the row versions that this transaction made, and those
/// of the connection's earlier ones that were not reported yet.
#[tokio::test]
async fn a_hot_account_costs_one_row_version_per_batch() {
    let Some(db) = database::testing::postgres::<PaymentsMigrator>().await else { return };
    account_with(&db, "ada", 100_000).await;
    let tasks: Vec<Task> = (0..200).map(|_| task("ada", 7)).collect();
    let updated: Result<i64, common::SettleError> = db
        .transaction("count row versions", move |tx| {
            Box::pin(async move {
                let versions = async || {
                    let sql = "SELECT n_tup_upd FROM pg_stat_xact_user_tables WHERE relname = 'accounts'";
                    let row = tx.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap().unwrap();
                    row.try_get::<i64>("", "n_tup_upd").unwrap()
                };
                let before = versions().await;
                decide_payments_batch(tx, common::RESULTS, &tasks, Timestamp::now()).await?;
                Ok(versions().await - before)
            })
        })
        .await;
    assert_eq!(updated.unwrap(), 1);
}

/// Old replicas go on while a new one migrates. A statement that was prepared with `SELECT *` would fail from then on, on the one connection that
/// a consumer has.
#[tokio::test]
async fn columns_that_a_later_version_adds_do_not_stop_a_consumer() {
    let Some(db) = database::testing::postgres::<PaymentsMigrator>().await else { return };
    account_with(&db, "ada", 1_000).await;
    let consumer = db.for_worker(1);
    assert_eq!(settle(&consumer, &[task("ada", 300)]).await.unwrap().paid, 1);
    db.transaction("migrate", |tx| {
        Box::pin(async move {
            tx.execute_unprepared("ALTER TABLE accounts ADD COLUMN later TEXT").await?;
            tx.execute_unprepared("ALTER TABLE payments ADD COLUMN later TEXT").await?;
            Ok::<_, DatabaseError>(())
        })
    })
    .await
    .unwrap();
    assert_eq!(settle(&consumer, &[task("ada", 300)]).await.unwrap().paid, 1);
}
