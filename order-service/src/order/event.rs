//! The table `order_events`: each step of an order's life, numbered in the order of the commits.

use schema::{EventId, OrderId, RejectionReason, Timestamp, UserId};
use sea_orm::{DbBackend, Statement, entity::prelude::*};

use database::{Writes, Written, array::Columns};

use super::{Order, OrderStatus, entity};

/// One step of an order's life.
pub type OrderEvent = Model;

/// Place of an event among all events. Who has read up to a position has missed nothing before it: positions become visible in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sea_orm::DeriveValueType)]
pub struct Position(pub i64);

/// A row of `order_events`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "order_events")]
pub struct Model {
    /// In commit order, without holes.
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: Position,
    /// Whose life.
    pub order_id: OrderId,
    /// The order's owner.
    pub user_id: UserId,
    /// 1, 2, 3, … per order without holes.
    pub version: i32,
    /// The status since this event.
    pub status: OrderStatus,
    /// Present exactly when rejected.
    pub rejection_reason: Option<RejectionReason>,
    /// When it happened.
    pub occurred_at_ms: Timestamp,
    /// The message that it comes from; unique, so that no message is applied twice.
    pub source_event_id: Option<EventId>,
    /// The trace that it belongs to, if that is sampled: telling subscribers is a part of it.
    pub traceparent: Option<String>,
}

/// Events are read with their orders for subscribers; see [`EventAndOrder`].
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// Whose life.
    #[sea_orm(belongs_to = "entity::Entity", from = "Column::OrderId", to = "entity::Column::Id")]
    Order,
}

impl Related<entity::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Order.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}

/// An event as subscribers get it, with its order as it was when the event was committed here or read: one of that serves all
/// subscribers of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventAndOrder {
    /// What happened.
    pub event: OrderEvent,
    /// To whom; it is written in the same transaction as its first event, so it is there.
    pub order: Option<Order>,
}

impl std::ops::Deref for EventAndOrder {
    type Target = OrderEvent;

    fn deref(&self) -> &OrderEvent {
        &self.event
    }
}

impl From<(OrderEvent, Option<Order>)> for EventAndOrder {
    fn from((event, order): (OrderEvent, Option<Order>)) -> Self {
        Self { event, order }
    }
}

/// An event that has no position yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Whose life.
    pub order_id: OrderId,
    /// The order's owner.
    pub user_id: UserId,
    /// One more than that of the event before.
    pub version: i32,
    /// The new status.
    pub status: OrderStatus,
    /// Present exactly when rejected.
    pub rejection_reason: Option<RejectionReason>,
    /// When it happened.
    pub occurred_at_ms: Timestamp,
    /// The message that it comes from.
    pub source_event_id: Option<EventId>,
    /// The trace that it belongs to, if that is sampled.
    pub traceparent: Option<String>,
}

impl NewEvent {
    fn at(self, position: Position) -> OrderEvent {
        let Self { order_id, user_id, version, status, rejection_reason, occurred_at_ms, source_event_id, traceparent } = self;
        OrderEvent {
            position,
            order_id,
            user_id,
            version,
            status,
            rejection_reason,
            occurred_at_ms,
            source_event_id,
            traceparent,
        }
    }
}

/// The table of events for [`append_from`].
pub fn columns(events: Columns<'_, NewEvent>) -> Columns<'_, NewEvent> {
    events
        .uuid("order_id", |event| event.order_id.0)
        .text("user_id", |event| event.user_id.as_str())
        .int("version", |event| event.version)
        .text("status", |event| event.status.as_str())
        .opt_text("rejection_reason", |event| event.rejection_reason.map(RejectionReason::as_str))
        .bigint("occurred_at_ms", |event| event.occurred_at_ms.0)
        .opt_uuid("source_event_id", |event| event.source_event_id.map(|id| id.0))
        .opt_text("traceparent", |event| event.traceparent.as_deref())
}

/// Appends the events in the table `events` of these writes, which has the columns of `order_events` but the position, and `ord`. Must be the
/// last of a transaction's last writes; [`appended`] reads their counts. Where there must be `exactly` so many, nothing is written with another number.
///
/// The counter's row lock is taken here and held until the commit, so whoever gets later positions commits later: a reader that remembers
/// the highest position skips nothing. Taken earlier, the lock would only be held longer.
pub fn append_from(writes: &mut Writes, events: &'static str, exactly: Option<usize>) {
    let count = format!("(SELECT COUNT(*) FROM {events})");
    // Without events nobody waits for the counter.
    let any = format!("EXISTS (SELECT 1 FROM {events})");
    let (take, next, from) = if writes.backend() == DbBackend::Postgres {
        let take = format!("SELECT number FROM take_event_positions({count}) AS number WHERE {any} AND number IS NOT NULL");
        (take, "taken.number", format!("{events}, taken"))
    } else {
        let take = format!("UPDATE event_cursor SET next = next + {count} WHERE {any} RETURNING next AS number");
        // One writer: nobody else moves the counter in between.
        (take, "(SELECT next FROM event_cursor)", events.to_owned())
    };
    writes.number("taken", take);
    let sql = format!(
        "INSERT INTO order_events (position, order_id, user_id, version, status, rejection_reason, occurred_at_ms, source_event_id,
                                   traceparent)
         SELECT {next} - {count} + ROW_NUMBER() OVER (ORDER BY ord) - 1, order_id, user_id, version, status, rejection_reason,
                occurred_at_ms, source_event_id, traceparent
         FROM {from}"
    );
    match exactly {
        Some(count) => writes.add_exactly(count, Statement::from_string(writes.backend(), sql)),
        None => writes.add_sql(sql),
    }
}

/// What [`append_from`] has stored: the events of its table in their order, each with its order as it is since then.
///
/// # Errors
/// When it has stored another number of events.
pub fn appended(written: &Written, events: Vec<(NewEvent, Option<Order>)>) -> Result<Vec<EventAndOrder>, DbErr> {
    let (next, count) = match written.counts.as_slice() {
        [.., next, count] => (*next, *count),
        _ => (0, 0),
    };
    if usize::try_from(count) != Ok(events.len()) {
        return Err(DbErr::Custom(format!("{count} of {} events were stored", events.len())));
    }
    let first = i64::try_from(next - count).map_err(|error| DbErr::Custom(error.to_string()))?;
    let stored = (first..).map(Position).zip(events);
    Ok(stored.map(|(position, (event, order))| EventAndOrder { event: event.at(position), order }).collect())
}
