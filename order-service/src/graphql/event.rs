//! `OrderEvent`.

use std::sync::Arc;

use async_graphql::{Context, Object};
use schema::{
    RejectionReason,
    graphql::{DateTime, ErrorCode, GraphqlError, decode_cursor, encode_cursor},
};

use super::{loader, order::OrderObject};
use crate::order::{EventAndOrder, OrderEvent, OrderStatus, Position};

/// The list that event cursors belong to.
const LIST: &str = "events";

/// One step of an order's life, as stored.
pub struct OrderEventObject(Arc<EventAndOrder>);

impl From<OrderEvent> for OrderEventObject {
    fn from(event: OrderEvent) -> Self {
        Self(Arc::new((event, None).into()))
    }
}

impl From<Arc<EventAndOrder>> for OrderEventObject {
    fn from(event: Arc<EventAndOrder>) -> Self {
        Self(event)
    }
}

/// One step of an order's life, as stored. Versions of one order are 1, 2, 3, … without holes.
#[Object(name = "OrderEvent")]
impl OrderEventObject {
    /// For `orderEvents(after:)`: everything up to this event has been seen.
    async fn cursor(&self) -> String {
        cursor(self.0.position)
    }

    /// The order as it is now.
    async fn order(&self, ctx: &Context<'_>) -> Result<OrderObject, GraphqlError> {
        let order = match &self.0.order {
            Some(order) => Some(order.clone()),
            None => loader::order(ctx, self.0.order_id).await?,
        };
        order.map(OrderObject).ok_or_else(|| GraphqlError::new(ErrorCode::NotFound, "no such order"))
    }

    /// 1, 2, 3, … per order without holes.
    async fn version(&self) -> i32 {
        self.0.version
    }

    /// The status since this event.
    async fn status(&self) -> OrderStatus {
        self.0.status
    }

    /// Why it was rejected; null unless it was.
    async fn rejection_reason(&self) -> Option<RejectionReason> {
        self.0.rejection_reason
    }

    /// When it happened.
    async fn occurred_at(&self) -> DateTime {
        DateTime(self.0.occurred_at_ms)
    }
}

/// The opaque form of a position.
pub(super) fn cursor(position: Position) -> String {
    encode_cursor(LIST, &position.0.to_string())
}

/// Reads what [`cursor`] wrote.
pub(super) fn parse_cursor(cursor: &str) -> Result<Position, GraphqlError> {
    let position = decode_cursor(LIST, cursor).and_then(|position| position.parse().ok()).map(Position);
    position.ok_or_else(|| GraphqlError::new(ErrorCode::BadUserInput, "`after` is not a cursor of order events"))
}
