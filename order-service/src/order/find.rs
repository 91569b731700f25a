//! Reads. Each takes the owner whose orders may be seen, so that a read of everybody's looks as unusual as it is.

use std::collections::HashMap;

use schema::{
    OrderId, Timestamp, UserId,
    graphql::{Direction, Page, Window},
};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DbErr, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    SelectTwo,
    sea_query::{Query, SelectStatement},
};

use super::{EventAndOrder, Order, OrderEvent, OrderStatus, Position, entity, event};

/// Whose orders may be seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// One user's.
    User(UserId),
    /// Everybody's: for operators.
    Anyone,
}

impl Owner {
    /// Whether an order of this user may be seen.
    pub fn may_see(&self, user_id: &UserId) -> bool {
        match self {
            Self::User(owner) => owner == user_id,
            Self::Anyone => true,
        }
    }
}

/// What a list is narrowed to. Bounds are inclusive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    /// One of these; an empty list matches nothing.
    pub status: Option<Vec<OrderStatus>>,
    /// Created at or after.
    pub created_after: Option<Timestamp>,
    /// Created at or before.
    pub created_before: Option<Timestamp>,
}

/// Orders by id, those that exist.
///
/// # Errors
/// What the database says.
pub async fn by_ids(db: &impl ConnectionTrait, owner: &Owner, ids: &[OrderId]) -> Result<HashMap<OrderId, Order>, DbErr> {
    let orders = entity::Entity::find().filter(entity::Column::Id.is_in(ids.iter().copied())).all(db).await?;
    Ok(orders.into_iter().filter(|order| owner.may_see(&order.user_id)).map(|order| (order.id, order)).collect())
}

/// One page, newest first. Reads one row more than the page shows.
///
/// # Errors
/// What the database says.
pub async fn page(
    db: &impl ConnectionTrait,
    owner: &Owner,
    filter: &Filter,
    window: &Window<OrderId>,
) -> Result<Page<Order>, DbErr> {
    use entity::Column::{Id, Status, UserId};
    let mut select = entity::Entity::find().filter(in_bounds(filter, window));
    if let Owner::User(owner) = owner {
        select = select.filter(UserId.eq(owner.clone()));
    }
    if let Some(status) = &filter.status {
        select = select.filter(Status.is_in(status.iter().copied()));
        if *owner == Owner::Anyone && status.iter().all(|status| *status == OrderStatus::Pending) {
            select = select.filter(Id.in_subquery(pending()));
        }
    }
    select = match window.direction {
        Direction::Forward => select.order_by_desc(Id),
        Direction::Backward => select.order_by_asc(Id),
    };
    let rows = select.limit(window.size as u64 + 1).all(db).await?;
    Ok(Page::new(window, rows))
}

/// Ids of all orders that are PENDING, of which there are few, where no index has the status: otherwise everybody's whole history would be read to find
/// them. One user's newest orders are found soon enough without, also when everybody's are PENDING.
fn pending() -> SelectStatement {
    Query::select().column("order_id").from("pending_orders").to_owned()
}

/// Time bounds and cursors are both bounds of the id, which holds the creation time.
fn in_bounds(filter: &Filter, window: &Window<OrderId>) -> Condition {
    use entity::Column::Id;
    Condition::all()
        .add_option(window.after.map(|after| Id.lt(after)))
        .add_option(window.before.map(|before| Id.gt(before)))
        .add_option(filter.created_after.map(|at| Id.gte(OrderId::first_at(at))))
        .add_option(filter.created_before.map(|at| Id.lt(OrderId::first_at(Timestamp(at.0.saturating_add(1))))))
}

/// The whole lives of orders, oldest first.
///
/// # Errors
/// What the database says.
pub async fn histories(db: &impl ConnectionTrait, ids: &[OrderId]) -> Result<HashMap<OrderId, Vec<OrderEvent>>, DbErr> {
    let events = event::Entity::find()
        .filter(event::Column::OrderId.is_in(ids.iter().copied()))
        .order_by_asc(event::Column::Version)
        .all(db)
        .await?;
    let mut histories: HashMap<OrderId, Vec<OrderEvent>> = HashMap::new();
    for event in events {
        histories.entry(event.order_id).or_default().push(event);
    }
    Ok(histories)
}

/// An order's events with a version above this, oldest first. An order has few.
///
/// # Errors
/// What the database says.
pub async fn events_since_version(db: &impl ConnectionTrait, order: OrderId, version: i32) -> Result<Vec<EventAndOrder>, DbErr> {
    let events = events().filter(event::Column::OrderId.eq(order)).filter(event::Column::Version.gt(version));
    all(events.order_by_asc(event::Column::Version), db).await
}

/// Up to `limit` events of one user after a position, in order.
///
/// # Errors
/// What the database says.
pub async fn events_of_user(
    db: &impl ConnectionTrait,
    user: &UserId,
    after: Position,
    limit: u64,
) -> Result<Vec<EventAndOrder>, DbErr> {
    let events = events().filter(event::Column::UserId.eq(user.clone())).filter(event::Column::Position.gt(after));
    all(events.order_by_asc(event::Column::Position).limit(limit), db).await
}

/// Up to `limit` events of everybody after a position, in order.
///
/// # Errors
/// What the database says.
pub async fn events_after(db: &impl ConnectionTrait, after: Position, limit: u64) -> Result<Vec<EventAndOrder>, DbErr> {
    let events = events().filter(event::Column::Position.gt(after));
    all(events.order_by_asc(event::Column::Position).limit(limit), db).await
}

fn events() -> SelectTwo<event::Entity, entity::Entity> {
    event::Entity::find().find_also_related(entity::Entity)
}

async fn all(events: SelectTwo<event::Entity, entity::Entity>, db: &impl ConnectionTrait) -> Result<Vec<EventAndOrder>, DbErr> {
    Ok(events.all(db).await?.into_iter().map(EventAndOrder::from).collect())
}

/// What positions are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sea_orm::FromQueryResult)]
pub struct Cursor {
    /// The next position to be given: every smaller one is visible to reads that start later.
    pub next: i64,
    /// The oldest position that is kept.
    pub oldest: i64,
}

impl Cursor {
    /// The last position that was given.
    pub fn last(self) -> Position {
        Position(self.next - 1)
    }
}

/// Reads the event counter.
///
/// # Errors
/// What the database says.
pub async fn cursor(db: &impl ConnectionTrait) -> Result<Cursor, DbErr> {
    use sea_orm::FromQueryResult as _;
    let sql = "SELECT next, oldest FROM event_cursor";
    let statement = sea_orm::Statement::from_string(db.get_database_backend(), sql);
    Cursor::find_by_statement(statement).one(db).await?.ok_or_else(|| DbErr::RecordNotFound("event_cursor".to_owned()))
}
