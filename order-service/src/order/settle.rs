//! Payment results: PENDING becomes PAID or REJECTED, once.
//!
//! Order of the statements: the orders are read → each result is looked up in the table of transitions → in one round trip: `orders` is
//! updated, `pending_orders` is cleared, and `order_events` are appended, last. A result that changes nothing is no error: it was applied
//! before, or a decision that stands is contradicted, which is logged.
//!
//! In a transaction the orders are locked when they are read, in id order. But nearly every result is the first one of an order that is as it
//! was created, and then there is nothing to be read first ([`ready_results_batch`]): the writes are a statement that is a
//! transaction of its own, answers the orders, and holds only if each of them was so.

use std::collections::{HashMap, HashSet};

use database::{
    Database, DatabaseError, Writes, Written,
    array::{Columns, columns_of, is_one_of},
};
use schema::{EventId, OrderId, PaymentResult, Timestamp};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityTrait as _, FromQueryResult as _, Statement};

use super::{
    EventAndOrder, FIRST_VERSION, Order, OrderStatus, entity,
    event::{self, NewEvent},
    resend,
    status::after_decision,
};

/// The statement that is a transaction of its own, in logs, metrics and errors.
const SETTLE: &str = "settle orders";

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
    Database(#[from] DatabaseError),
    /// A result for an order that is not here: from another environment, or the database was set back. Never to be dropped silently.
    #[error("order {0} is unknown here")]
    UnknownOrder(OrderId),
    /// A result for an order of somebody else.
    #[error("order {0} belongs to another user than the result says")]
    ForeignOrder(OrderId),
    /// Only the first result of an order can be applied without reading the order.
    #[error("order {0} must be read before this result of it is applied")]
    NotTheFirst(OrderId),
}

impl From<DbErr> for SettleError {
    fn from(error: DbErr) -> Self {
        Self::Database(error.into())
    }
}

impl SettleError {
    /// Whether it takes a look at the orders, under locks: one of them is not as it was created, or not here, or somebody else's. Nothing was
    /// applied.
    pub fn needs_locks(&self) -> bool {
        match self {
            Self::Database(error) => error.is_overtaken(),
            Self::NotTheFirst(_) => true,
            Self::UnknownOrder(_) | Self::ForeignOrder(_) => false,
        }
    }
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
    // SQLite has one writer, who holds the lock on everything.
    let lock = if tx.get_database_backend() == DbBackend::Postgres { "FOR UPDATE" } else { "" };
    let changes = Changes::of(results, read_batch(tx, results, lock).await?, now)?;
    if changes.events.is_empty() {
        return Ok(Vec::new());
    }
    let written = changes.writes(tx.get_database_backend()).run_in_tx(tx).await?;
    Ok(changes.into_appended(&written)?)
}

/// Results that are ready to be applied in one statement.
pub struct ReadyResults {
    events: Vec<NewEvent>,
    writes: Writes,
}

/// PostgreSQL: what is to be written if all of these are the first results of orders.
///
/// # Errors
/// [`SettleError::needs_locks`] asks for [`settle_orders_batch`].
pub fn ready_results_batch(results: &[ReceivedResult], now: Timestamp) -> Result<ReadyResults, SettleError> {
    let mut orders = HashSet::with_capacity(results.len());
    let mut events = Vec::with_capacity(results.len());
    for received in results {
        let order_id = received.result.order_id;
        let first = Some(received).filter(|_| orders.insert(order_id));
        let status = first.and_then(|received| after_decision(OrderStatus::Pending, received.result.outcome));
        let status = status.ok_or(SettleError::NotTheFirst(order_id))?;
        events.push(decided(received, FIRST_VERSION + 1, status, now));
    }
    let writes = first_decisions(DbBackend::Postgres, &events);
    Ok(ReadyResults { events, writes })
}

impl ReadyResults {
    /// Applies them in arrival order and answers what happened, in one round trip, if all of them are the first results of orders.
    ///
    /// # Errors
    /// [`SettleError`]; unless the outcome is unknown nothing was applied. [`SettleError::needs_locks`] asks for [`settle_orders_batch`].
    pub async fn settle_batch(self, database: &Database) -> Result<Vec<EventAndOrder>, SettleError> {
        let written = self.writes.run(database, SETTLE).await?;
        // They are applied by now, and no error may say otherwise.
        let unknown = |error: DbErr| DatabaseError::OutcomeUnknown { transaction: SETTLE, reason: error.to_string() };
        let orders =
            written.rows.iter().map(|row| Order::from_query_result(row, "")).collect::<Result<Vec<_>, _>>().map_err(unknown)?;
        Ok(with_orders(self.events, by_id(orders), &written).map_err(unknown)?)
    }
}

/// The event of a result that decides its order.
fn decided(received: &ReceivedResult, version: i32, status: OrderStatus, now: Timestamp) -> NewEvent {
    let result = &received.result;
    NewEvent {
        order_id: result.order_id,
        user_id: result.user_id.clone(),
        version,
        status,
        rejection_reason: result.rejection_reason,
        occurred_at_ms: now,
        source_event_id: Some(received.event_id),
        traceparent: received.traceparent.clone(),
    }
}

/// Everything of these events, and their orders as they are then; nothing, if one of the orders is not as it was created.
fn first_decisions(backend: DbBackend, events: &[NewEvent]) -> Writes {
    let mut writes = Writes::over("events", event::columns(Columns::new(backend, events)));
    let columns = columns_of::<entity::Entity>("orders");
    let as_created = "orders.version = e.version - 1 AND orders.user_id = e.user_id";
    writes.answer_exactly(events.len(), "settled", format!("{} AND {as_created} RETURNING {columns}", update_from("events")));
    writes.add_sql(resend::delete_from(backend, "events"));
    event::append_from(&mut writes, "events", Some(events.len()));
    writes
}

/// What results do to the orders that were read.
struct Changes {
    /// In arrival order, at most one per order.
    events: Vec<NewEvent>,
    /// As they are after the events.
    orders: HashMap<OrderId, Order>,
}

impl Changes {
    fn of(results: &[ReceivedResult], mut orders: HashMap<OrderId, Order>, now: Timestamp) -> Result<Self, SettleError> {
        let mut events = Vec::with_capacity(results.len());
        for received in results {
            let result = &received.result;
            let order = orders.get_mut(&result.order_id).ok_or(SettleError::UnknownOrder(result.order_id))?;
            if order.user_id != result.user_id {
                return Err(SettleError::ForeignOrder(order.id));
            }
            events.extend(apply(order, received, now));
        }
        Ok(Self { events, orders })
    }

    fn writes(&self, backend: DbBackend) -> Writes {
        let mut writes = Writes::over("events", event::columns(Columns::new(backend, &self.events)));
        writes.add_exactly(self.events.len(), Statement::from_string(backend, update_from("events")));
        writes.add_sql(resend::delete_from(backend, "events"));
        event::append_from(&mut writes, "events", Some(self.events.len()));
        writes
    }

    fn into_appended(self, written: &Written) -> Result<Vec<EventAndOrder>, DbErr> {
        with_orders(self.events, self.orders, written)
    }
}

fn with_orders(
    events: Vec<NewEvent>,
    mut orders: HashMap<OrderId, Order>,
    written: &Written,
) -> Result<Vec<EventAndOrder>, DbErr> {
    let events = events.into_iter().map(|event| {
        let order = orders.remove(&event.order_id);
        (event, order)
    });
    event::appended(written, events.collect())
}

fn by_id(orders: Vec<Order>) -> HashMap<OrderId, Order> {
    orders.into_iter().map(|order| (order.id, order)).collect()
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
    Some(decided(received, order.version, status, now))
}

async fn read_batch(db: &impl ConnectionTrait, results: &[ReceivedResult], lock: &str) -> Result<HashMap<OrderId, Order>, DbErr> {
    let backend = db.get_database_backend();
    let ids = Columns::new(backend, results).uuid("id", |received| received.result.order_id.0);
    let statement = ids.statement(|ids| {
        format!(
            "SELECT {} FROM orders AS o WHERE {} ORDER BY o.id {lock}",
            columns_of::<entity::Entity>("o"),
            is_one_of(backend, "o.id", &format!("SELECT r.id FROM {ids} AS r"))
        )
    });
    Ok(by_id(entity::Entity::find().from_raw_sql(statement).all(db).await?))
}

/// In the order of the orders' ids, so that two replicas that settle the same orders wait for each other instead of deadlocking.
fn update_from(events: &str) -> String {
    format!(
        "UPDATE orders SET status = e.status, rejection_reason = e.rejection_reason, version = e.version,
                updated_at_ms = e.occurred_at_ms
         FROM (SELECT * FROM {events} ORDER BY order_id) AS e WHERE orders.id = e.order_id AND orders.status = 'PENDING'"
    )
}
