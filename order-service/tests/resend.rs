//! Orders that stay PENDING: sent again, under the same id, at growing intervals, and never needlessly.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{TOPIC, create_order};
use database::{BoxFuture, Database, DatabaseError, testing::on_both};
use migrations::OrdersMigrator;
use order_service::order::{
    Order,
    resend::{self, Round, resend_due_batch},
    settle::{ReceivedResult, settle_orders_batch},
};
use schema::{EventId, PaymentOutcome, PaymentResult, Timestamp};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, Statement};

async fn execute(db: &Database, sql: &'static str) {
    db.transaction("test", move |tx| {
        Box::pin(async move { tx.execute_unprepared(sql).await.map(drop).map_err(DatabaseError::from) })
    })
    .await
    .unwrap();
}

async fn publish_all(db: &Database) {
    execute(db, "DELETE FROM outbox_orders").await;
}

async fn make_due(db: &Database) {
    execute(db, "UPDATE pending_orders SET resend_at_ms = 1").await;
}

async fn resend(db: &Database) -> Round {
    db.transaction("test", |tx: &DatabaseTransaction| -> BoxFuture<'_, Result<Round, DatabaseError>> {
        Box::pin(async move { Ok(resend_due_batch(tx, TOPIC).await?) })
    })
    .await
    .unwrap()
}

/// How often a PENDING order was sent again, and when it is the next time.
async fn pending(db: &Database, order: &Order) -> (i32, i64) {
    let sql = "SELECT resends, resend_at_ms FROM pending_orders WHERE order_id = $1";
    let row =
        db.reader().query_one_raw(Statement::from_sql_and_values(db.backend(), sql, [order.id.0.into()])).await.unwrap().unwrap();
    (row.try_get("", "resends").unwrap(), row.try_get("", "resend_at_ms").unwrap())
}

on_both!(OrdersMigrator;
    async fn a_lost_task_is_sent_again_under_the_same_event_id_with_the_same_body(db: &TestDatabase) {
        let order = create_order(db).await;
        publish_all(db).await;
        assert!(resend(db).await.outbox.is_empty(), "not due yet");
        for _ in 0..3 {
            make_due(db).await;
            let round = resend(db).await;
            assert_eq!(round.outbox.iter().map(|row| row.event_id).collect::<Vec<_>>(), [order.task_event_id.0]);
            assert_eq!(round.outbox[0].payload, order_service::order::create::payment_task(&order, TOPIC).unwrap().payload);
            assert!(resend(db).await.outbox.is_empty(), "claimed: nobody else sends it now");
            publish_all(db).await;
        }
    }

    async fn intervals_in_the_database_are_those_of_the_code(db: &TestDatabase) {
        let order = create_order(db).await;
        publish_all(db).await;
        for resends in 1..=7_u32 {
            make_due(db).await;
            let before = Timestamp::now().0;
            resend(db).await;
            let (sent, at_ms) = pending(db, &order).await;
            assert_eq!(sent, i32::try_from(resends).unwrap());
            let waits = at_ms - before;
            // Both clocks are this machine's; a second is far more than they and the statement differ.
            assert!((waits - resend::delay_ms(resends)).abs() < 1_000, "{resends}: {waits}");
            publish_all(db).await;
        }
    }

    async fn a_task_that_still_waits_in_the_outbox_is_left_to_the_sweeper(db: &TestDatabase) {
        create_order(db).await;
        make_due(db).await;
        let round = resend(db).await;
        assert_eq!((round.due, round.outbox.len()), (1, 0));
    }

    async fn a_decided_order_is_never_sent_again(db: &TestDatabase) {
        let order = create_order(db).await;
        publish_all(db).await;
        make_due(db).await;
        let result = PaymentResult {
            order_id: order.id,
            user_id: order.user_id.clone(),
            outcome: PaymentOutcome::Paid,
            rejection_reason: None,
            decided_at_ms: Timestamp::now(),
        };
        let results = vec![ReceivedResult { event_id: EventId::generate(), result, traceparent: None }];
        db.transaction("test", move |tx| Box::pin(async move {
            settle_orders_batch(tx, &results, Timestamp::now()).await.unwrap();
            Ok::<_, DatabaseError>(())
        })).await.unwrap();
        make_due(db).await;
        assert_eq!(resend(db).await.due, 0);
    }
);
