//! `Order` and its lists.

use async_graphql::{Context, ID, InputObject, Object, SimpleObject, resolver_utils::EnumType as _};
use schema::{
    OrderId, RejectionReason,
    graphql::{DateTime, GraphqlError, MoneyOutput, PageInfo, PageRequest, decode_cursor, encode_cursor},
};

use super::{Context as Services, event::OrderEventObject, loader, user::User};
use crate::order::{
    Order, OrderStatus,
    find::{self, Filter, Owner},
    number,
};

/// The list that order cursors belong to.
const LIST: &str = "orders";

/// An order: accepted at once, paid or rejected soon after, and never changed again.
pub struct OrderObject(pub Order);

#[Object(name = "Order")]
impl OrderObject {
    /// Opaque id.
    pub(super) async fn id(&self) -> ID {
        ID::from(self.0.id)
    }

    /// Short, readable, unique; what a person reads out on the telephone.
    async fn number(&self) -> String {
        number::display(self.0.number)
    }

    /// Who ordered and pays.
    async fn user(&self) -> User {
        User(self.0.user_id.clone())
    }

    /// What is to be paid.
    async fn total(&self) -> MoneyOutput {
        self.0.total().into()
    }

    /// What the client wrote.
    async fn description(&self) -> &str {
        &self.0.description
    }

    /// How far it is.
    async fn status(&self) -> OrderStatus {
        self.0.status
    }

    /// Why it was rejected; null unless it was.
    async fn rejection_reason(&self) -> Option<RejectionReason> {
        self.0.rejection_reason
    }

    /// Oldest first.
    async fn history(&self, ctx: &Context<'_>) -> Result<Vec<OrderEventObject>, GraphqlError> {
        let events = loader::history(ctx, self.0.id).await?;
        Ok(events.into_iter().map(OrderEventObject::from).collect())
    }

    /// When it was accepted.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.id.created_at())
    }

    /// When its status changed last.
    async fn updated_at(&self) -> DateTime {
        DateTime(self.0.updated_at_ms)
    }
}

/// Narrows a list of orders. Bounds are inclusive. An empty status list matches nothing.
#[derive(Debug, Default, InputObject)]
pub struct OrderFilter {
    /// One of these.
    status: Option<Vec<OrderStatus>>,
    /// Created at or after.
    created_after: Option<DateTime>,
    /// Created at or before.
    created_before: Option<DateTime>,
}

impl From<OrderFilter> for Filter {
    fn from(filter: OrderFilter) -> Self {
        // Each once, however often it was named: a statement takes so many parameters.
        let distinct = |named: Vec<OrderStatus>| {
            let every = OrderStatus::items().iter().map(|item| item.value);
            every.filter(|status| named.contains(status)).collect()
        };
        Self {
            status: filter.status.map(distinct),
            created_after: filter.created_after.map(|at| at.0),
            created_before: filter.created_before.map(|at| at.0),
        }
    }
}

/// An order in a list.
#[derive(SimpleObject)]
pub struct OrderEdge {
    /// For `after` and `before`.
    cursor: String,
    /// The order.
    node: OrderObject,
}

/// A page of orders, newest first.
pub struct OrderConnection {
    orders: Vec<Order>,
    page_info: PageInfo,
}

/// A page of orders, newest first.
#[Object]
impl OrderConnection {
    /// Orders with their cursors.
    async fn edges(&self) -> Vec<OrderEdge> {
        self.orders.iter().map(|order| OrderEdge { cursor: cursor(order), node: OrderObject(order.clone()) }).collect()
    }

    /// The orders alone.
    async fn nodes(&self) -> Vec<OrderObject> {
        self.orders.iter().cloned().map(OrderObject).collect()
    }

    /// Whether there is more.
    async fn page_info(&self) -> &PageInfo {
        &self.page_info
    }
}

/// Reads a page for `orders` fields.
pub(super) async fn connection(
    ctx: &Context<'_>,
    owner: &Owner,
    request: PageRequest,
    filter: Option<OrderFilter>,
) -> Result<OrderConnection, GraphqlError> {
    let window = request.window(|cursor| decode_cursor(LIST, cursor)?.parse::<OrderId>().ok())?;
    let services = ctx.data::<Services>().map_err(|_| GraphqlError::internal())?;
    loader::budget(ctx)?.take(window.size)?;
    let page = find::page(services.database.reader(), owner, &filter.unwrap_or_default().into(), &window).await;
    let page = page.map_err(|error| loader::failure(&error))?;
    let page_info = page.info(cursor);
    Ok(OrderConnection { orders: page.rows, page_info })
}

fn cursor(order: &Order) -> String {
    encode_cursor(LIST, &order.id.to_string())
}
