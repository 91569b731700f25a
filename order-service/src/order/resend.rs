//! Orders that stay PENDING: their task is sent again under the same event id, for as long as it takes.
//!
//! So whatever is lost on the way (a topic, an expired message, a dead letter that was mended) heals by itself. Payments answers a task
//! that it has decided with the recorded result, so sending again is harmless.

use std::time::Duration;

use database::{Database, DatabaseError, now_ms_sql};
use messaging::{OutboxRow, outbox, relay::RelayHandle};
use schema::EventId;
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, DbBackend, DbErr, EntityTrait as _, FromQueryResult, Statement};
use tokio_util::sync::CancellationToken;

use super::{
    Order,
    create::{OUTBOX, payment_task},
    entity,
};
use database::array::Columns;

/// An order is sent again when it has been PENDING for this long: far longer than a healthy payment takes.
const FIRST_AFTER: Duration = Duration::from_secs(60);
/// The interval doubles up to this: a day's outage leaves few repeats, and its end is noticed soon enough.
const LONGEST_INTERVAL: Duration = Duration::from_secs(600);
/// How often is looked; a fraction of [`FIRST_AFTER`].
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Orders per transaction, so that the end of a long outage is worked off in bounded steps.
const BATCH: i64 = 200;
/// From this attempt on an order is counted in the metric `orders_resent_often_total`: somebody should look.
const ATTENTION_FROM: i32 = 5;

/// Milliseconds until an order that was sent again `resends` times is sent the next time.
pub fn delay_ms(resends: u32) -> i64 {
    let first = FIRST_AFTER.as_millis();
    let delay = first.saturating_mul(1_u128.checked_shl(resends).unwrap_or(u128::MAX)).min(LONGEST_INTERVAL.as_millis());
    i64::try_from(delay).unwrap_or(i64::MAX)
}

/// One round.
#[derive(Debug)]
pub struct Round {
    /// To hand to the relay after the commit.
    pub outbox: Vec<OutboxRow>,
    /// How many orders were due, including those whose task waits in the outbox and is left to the sweeper.
    pub due: usize,
}

#[derive(FromQueryResult)]
struct Waiting {
    event_id: EventId,
}

/// Moves the due orders' next time forward and writes their tasks to the outbox again.
///
/// # Errors
/// What the database says; the transaction is then to be rolled back.
pub async fn resend_due_batch(tx: &DatabaseTransaction, tasks_topic: &str) -> Result<Round, DbErr> {
    let due = take_due_batch(tx).await?;
    let waiting = waiting_batch(tx, &due).await?;
    let (left, lost): (Vec<&Order>, Vec<&Order>) = due.iter().partition(|order| waiting.contains(&order.task_event_id));
    if !left.is_empty() {
        tracing::debug!(orders = left.len(), "tasks still wait in the outbox: left to the sweeper");
    }
    for order in &lost {
        tracing::warn!(order = %order.id, attempt = order.resends, "order is still PENDING, its payment task is sent again");
        if order.resends >= ATTENTION_FROM {
            metrics::counter!("orders_resent_often_total").increment(1);
        }
    }
    let outbox = lost.into_iter().map(|order| payment_task(order, tasks_topic)).collect::<Result<Vec<_>, _>>()?;
    if !outbox.is_empty() {
        outbox::insert_batch(tx, OUTBOX, &outbox).await?;
    }
    Ok(Round { outbox, due: due.len() })
}

/// Claims in one statement with the database's clock; another replica's claims are skipped.
async fn take_due_batch(tx: &DatabaseTransaction) -> Result<Vec<Order>, DbErr> {
    let backend = tx.get_database_backend();
    let now = now_ms_sql(backend);
    let skip = if backend == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    let (first, longest) = (FIRST_AFTER.as_millis(), LONGEST_INTERVAL.as_millis());
    let least = if backend == DbBackend::Postgres { "LEAST" } else { "MIN" };
    let sql = format!(
        "UPDATE orders SET resends = resends + 1,
                resend_at_ms = {now} + {least}({first} * (1 << {least}(resends + 1, 10)), {longest})
         WHERE id IN (SELECT id FROM orders WHERE resend_at_ms <= {now} ORDER BY resend_at_ms LIMIT $1 {skip})
         RETURNING *"
    );
    let statement = Statement::from_sql_and_values(backend, sql, [BATCH.into()]);
    entity::Entity::find().from_raw_sql(statement).all(tx).await
}

/// Which of the orders have a task in the outbox that was not acknowledged yet.
async fn waiting_batch(tx: &DatabaseTransaction, orders: &[Order]) -> Result<Vec<EventId>, DbErr> {
    if orders.is_empty() {
        return Ok(Vec::new());
    }
    let ids = Columns::new(tx.get_database_backend(), orders).uuid("event_id", |order| order.task_event_id.0);
    let statement = ids.statement(|ids| {
        format!(
            "SELECT DISTINCT o.event_id FROM {ids} AS r JOIN outbox_orders AS o ON o.event_id = r.event_id
             WHERE o.processed_at_ms IS NULL"
        )
    });
    let waiting = Waiting::find_by_statement(statement).all(tx).await?;
    Ok(waiting.into_iter().map(|row| row.event_id).collect())
}

/// Looks for due orders until `shutdown`. On every replica; they skip each other's claims.
pub async fn run(database: Database, relay: RelayHandle, tasks_topic: std::sync::Arc<str>, shutdown: CancellationToken) {
    loop {
        let topic = std::sync::Arc::clone(&tasks_topic);
        let round = database
            .transaction("resend pending orders", move |tx| {
                Box::pin(async move { resend_due_batch(tx, &topic).await.map_err(DatabaseError::from) })
            })
            .await;
        let full = match round {
            Ok(round) => {
                if !round.outbox.is_empty() {
                    relay.committed(round.outbox);
                }
                round.due >= usize::try_from(BATCH).unwrap_or(usize::MAX)
            }
            Err(error) => {
                tracing::warn!(%error, "looking for orders to send again failed; trying again");
                false
            }
        };
        let pause = if full { Duration::ZERO } else { POLL_INTERVAL };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_grow_to_ten_minutes_and_never_overflow() {
        assert_eq!((0..6).map(delay_ms).collect::<Vec<_>>(), [60_000, 120_000, 240_000, 480_000, 600_000, 600_000]);
        assert_eq!(delay_ms(u32::MAX), 600_000);
    }
}
