//! Payment results: PENDING becomes PAID or REJECTED, once.
//!
//! Order of the statements: the orders are locked in id order and read → each result is looked up in the table of transitions → in one
//! round trip: `orders` is updated, `pending_orders` is cleared, and `order_events` are appended, last. A result that changes nothing is
//! no error: it was applied before, or a decision that stands is contradicted, which is logged.

use std::collections::HashMap;

use database::{
    Writes,
    array::{Columns, columns_of, is_one_of},
};
use schema::{EventId, OrderId, PaymentResult, Timestamp};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, DbBackend, DbErr, EntityTrait as _};

use super::{
    EventAndOrder, Order, entity,
    event::{self, NewEvent},
    resend,
    status::after_decision,
};

/// A result with the id of the message that it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedResult {
    /// `ce_id`.
    pub event_id: EventId,
    /// What Payments decided.
    pub result: PaymentResult,
    /// The trace that it belongs to, if that is sampled; the order's event goes on with it.
    pub traceparent: Option<String>,
}

/// Why results were not applied.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbErr),
    /// A result for an order that is not here: from another environment, or the database was set back. Never to be dropped silently.
    #[error("order {0} is unknown here")]
    UnknownOrder(OrderId),
    /// A result for an order of somebody else.
    #[error("order {0} belongs to another user than the result says")]
    ForeignOrder(OrderId),
}

/// Applies results in arrival order and answers what happened: one event for each order that changed.
///
/// # Errors
/// [`SettleError`]; the transaction is then to be rolled back.
pub async fn settle_orders_batch(
    tx: &DatabaseTransaction,
    results: &[ReceivedResult],
    now: Timestamp,
) -> Result<Vec<EventAndOrder>, SettleError> {
    let mut orders = lock_batch(tx, results).await?;
    let mut events = Vec::with_capacity(results.len());
    for received in results {
        let result = &received.result;
        let order = orders.get_mut(&result.order_id).ok_or(SettleError::UnknownOrder(result.order_id))?;
        if order.user_id != result.user_id {
            return Err(SettleError::ForeignOrder(order.id));
        }
        events.extend(apply(order, received, now));
    }
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let rows = event::columns(Columns::new(tx.get_database_backend(), &events));
    let mut writes = Writes::over("events", rows);
    writes.add_sql(update_from("events"));
    writes.add_sql(resend::delete_from(writes.backend(), "events"));
    event::append_from(&mut writes, "events");
    let written = writes.run_in_tx(tx).await?;
    let changed = |event: NewEvent| {
        let order = orders.remove(&event.order_id);
        (event, order)
    };
    Ok(event::appended(&written, events.into_iter().map(changed).collect())?)
}

/// The pure part: the order after the result, and the event to store; `None` when nothing changes.
fn apply(order: &mut Order, received: &ReceivedResult, now: Timestamp) -> Option<NewEvent> {
    let result = &received.result;
    let Some(status) = after_decision(order.status, result.outcome) else {
        let contradicts =
            (order.status.as_str() != result.outcome.to_string()) || order.rejection_reason != result.rejection_reason;
        if contradicts {
            tracing::error!(order = %order.id, status = %order.status, outcome = %result.outcome, "a result contradicts a decision that stands");
        } else {
            tracing::debug!(order = %order.id, event = %received.event_id, "result was applied before");
        }
        return None;
    };
    order.status = status;
    order.rejection_reason = result.rejection_reason;
    order.version += 1;
    order.updated_at_ms = now;
    Some(NewEvent {
        order_id: order.id,
        user_id: order.user_id.clone(),
        version: order.version,
        status,
        rejection_reason: result.rejection_reason,
        occurred_at_ms: now,
        source_event_id: Some(received.event_id),
        traceparent: received.traceparent.clone(),
    })
}

async fn lock_batch(tx: &DatabaseTransaction, results: &[ReceivedResult]) -> Result<HashMap<OrderId, Order>, DbErr> {
    let backend = tx.get_database_backend();
    let ids = Columns::new(backend, results).uuid("id", |received| received.result.order_id.0);
    // SQLite has one writer, who holds the lock on everything.
    let lock = if backend == DbBackend::Postgres { "FOR UPDATE" } else { "" };
    let statement = ids.statement(|ids| {
        format!(
            "SELECT {} FROM orders AS o WHERE {} ORDER BY o.id {lock}",
            columns_of::<entity::Entity>("o"),
            is_one_of(backend, "o.id", &format!("SELECT r.id FROM {ids} AS r"))
        )
    });
    let orders = entity::Entity::find().from_raw_sql(statement).all(tx).await?;
    Ok(orders.into_iter().map(|order| (order.id, order)).collect())
}

fn update_from(events: &str) -> String {
    format!(
        "UPDATE orders SET status = e.status, rejection_reason = e.rejection_reason, version = e.version,
                updated_at_ms = e.occurred_at_ms
         FROM {events} AS e WHERE orders.id = e.order_id AND orders.status = 'PENDING'"
    )
}
