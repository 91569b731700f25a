//! Orders that stay PENDING: their task is sent again under the same event id, for as long as it takes.
//!
//! So whatever is lost on the way (a topic, an expired message, a dead letter that was mended) heals by itself. Payments answers a task
//! that it has decided with the recorded result, so sending again is harmless.
//!
//! When is kept in `pending_orders`, which has a row for each PENDING order: inserted and deleted in the transactions that make the order
//! PENDING and that end it. Not in `orders`, because an index on a column that every settlement changes would make each of them write to
//! every index of that table.

use std::{collections::HashMap, time::Duration};

use database::{Database, DatabaseError, now_ms_sql};
use messaging::{OutboxRow, outbox, relay::RelayHandle};
use schema::{EventId, OrderId};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DatabaseTransaction, DbBackend, DbErr, EntityTrait as _, FromQueryResult,
    QueryFilter as _, Statement,
};
use tokio_util::sync::CancellationToken;

use super::{
    Order,
    create::{OUTBOX, payment_task},
    entity,
};
use database::array::{Columns, is_one_of, skip_locked};

/// An order is sent again when it has been PENDING for this long: far longer than a healthy payment takes.
const FIRST_AFTER: Duration = Duration::from_secs(60);
/// The interval doubles up to this: whatever was mended, its orders go on soon enough.
const LONGEST_INTERVAL: Duration = Duration::from_secs(600);
/// How often is looked; a fraction of [`FIRST_AFTER`].
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Orders per transaction, so that the end of a long outage is worked off in bounded steps.
const BATCH: i64 = 200;
/// Between two of them while more orders are due: with [`BATCH`] at most 400 orders per second and replica. While Payments is away or behind,
/// all of its orders become due, and sending them again must not be what keeps it behind.
const PAUSE: Duration = Duration::from_millis(500);
/// From this attempt on an order is counted in the metric `orders_resent_often_total`: somebody should look.
const ATTENTION_FROM: i32 = 5;

/// Milliseconds until an order that was sent again `resends` times is sent the next time.
pub fn delay_ms(resends: u32) -> i64 {
    let first = FIRST_AFTER.as_millis();
    let delay = first.saturating_mul(1_u128.checked_shl(resends).unwrap_or(u128::MAX)).min(LONGEST_INTERVAL.as_millis());
    i64::try_from(delay).unwrap_or(i64::MAX)
}

/// From now on the orders in the table `orders` of the transaction's writes are looked after. Part of the transaction that accepts them.
pub(super) fn insert_from(backend: DbBackend, orders: &str) -> String {
    let (now, delay_ms) = (now_ms_sql(backend), delay_ms(0));
    format!("INSERT INTO pending_orders (order_id, resend_at_ms) SELECT id, {now} + {delay_ms} FROM {orders}")
}

/// The orders of these events are decided. Part of the transaction that settles them.
pub(super) fn delete_from(backend: DbBackend, events: &str) -> String {
    let decided = format!("SELECT order_id FROM {events}");
    format!("DELETE FROM pending_orders WHERE {}", is_one_of(backend, "order_id", &decided))
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
    let (left, lost): (Vec<&Due>, Vec<&Due>) = due.iter().partition(|due| waiting.contains(&due.order.task_event_id));
    if !left.is_empty() {
        tracing::debug!(orders = left.len(), "tasks still wait in the outbox: left to the sweeper");
    }
    for Due { order, resends } in &lost {
        tracing::debug!(order = %order.id, attempt = resends, "order is still PENDING, its payment task is sent again");
    }
    if let Some(most) = lost.iter().max_by_key(|due| due.resends) {
        let (orders, order, attempt) = (lost.len(), most.order.id, most.resends);
        tracing::warn!(orders, %order, attempt, "orders are still PENDING, their payment tasks are sent again");
    }
    let often = lost.iter().filter(|due| due.resends >= ATTENTION_FROM).count();
    metrics::counter!("orders_resent_often_total").increment(often as u64);
    let outbox = lost.into_iter().map(|due| payment_task(&due.order, tasks_topic)).collect::<Result<Vec<_>, _>>()?;
    if !outbox.is_empty() {
        outbox::insert_batch(tx, OUTBOX, &outbox).await?;
    }
    Ok(Round { outbox, due: due.len() })
}

/// An order whose time has come.
struct Due {
    order: Order,
    /// How often it is sent again, with this time.
    resends: i32,
}

/// Claims in one statement with the database's clock; another replica's claims are skipped.
async fn take_due_batch(tx: &DatabaseTransaction) -> Result<Vec<Due>, DbErr> {
    let backend = tx.get_database_backend();
    let now = now_ms_sql(backend);
    let skip = skip_locked(backend);
    let (first, longest) = (FIRST_AFTER.as_millis(), LONGEST_INTERVAL.as_millis());
    let least = if backend == DbBackend::Postgres { "LEAST" } else { "MIN" };
    let due = format!("SELECT order_id FROM pending_orders WHERE resend_at_ms <= {now} ORDER BY resend_at_ms LIMIT $1 {skip}");
    let sql = format!(
        "UPDATE pending_orders SET resends = resends + 1,
                resend_at_ms = {now} + {least}({first} * (1 << {least}(resends + 1, 10)), {longest})
         WHERE {}
         RETURNING order_id, resends",
        is_one_of(backend, "order_id", &due)
    );
    let claimed = tx.query_all_raw(Statement::from_sql_and_values(backend, sql, [BATCH.into()])).await?;
    let resends = claimed
        .iter()
        .map(|row| Ok((row.try_get("", "order_id")?, row.try_get("", "resends")?)))
        .collect::<Result<HashMap<OrderId, i32>, DbErr>>()?;
    if resends.is_empty() {
        return Ok(Vec::new());
    }
    let orders = entity::Entity::find().filter(entity::Column::Id.is_in(resends.keys().copied())).all(tx).await?;
    Ok(orders.into_iter().filter_map(|order| Some(Due { resends: *resends.get(&order.id)?, order })).collect())
}

/// Which of the orders have a task in the outbox that was not acknowledged yet.
async fn waiting_batch(tx: &DatabaseTransaction, due: &[Due]) -> Result<Vec<EventId>, DbErr> {
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let backend = tx.get_database_backend();
    let ids = Columns::new(backend, due).uuid("event_id", |due| due.order.task_event_id.0);
    let statement = ids.statement(|ids| {
        let events = format!("SELECT r.event_id FROM {ids} AS r");
        format!("SELECT DISTINCT event_id FROM {OUTBOX} WHERE {}", is_one_of(backend, "event_id", &events))
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
        let pause = if full { PAUSE } else { POLL_INTERVAL };
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
