//! `Subscription`.

use std::sync::Arc;

use async_graphql::{Context, ID, Subscription as SubscriptionMacro};
use schema::{
    OrderId,
    graphql::{ErrorCode, GraphqlError},
};
use tokio_stream::{Stream, StreamExt as _};

use super::{
    Context as Services,
    event::{OrderEventObject, parse_cursor},
    loader::{self, Budget},
    viewer::viewer,
};
use crate::{
    feed::stream::{self, FeedError},
    order::EventAndOrder,
};

/// Everything that can be followed.
pub struct Subscription;

/// Everything that can be followed.
#[SubscriptionMacro]
impl Subscription {
    /// The current state first, then every change; completes once the payment is decided. Unknown or foreign: an error with code NOT_FOUND.
    async fn order_status_changed(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Of the order.")] order_id: ID,
    ) -> Result<impl Stream<Item = Result<OrderEventObject, GraphqlError>> + use<>, GraphqlError> {
        viewer(ctx).user()?;
        let not_found = || GraphqlError::new(ErrorCode::NotFound, "no such order");
        let id: OrderId = order_id.parse().map_err(|_| not_found())?;
        // Boxed, so that the subscription does not keep its room.
        let order = Box::pin(loader::order(ctx, id)).await?.ok_or_else(not_found)?;
        let services = ctx.data::<Services>().map_err(|_| GraphqlError::internal())?;
        let events = stream::of_order(services.feed.clone(), services.database.clone(), order.id);
        Ok(to_objects(events, loader::budget(ctx)?.clone()))
    }

    /// All of the caller's orders from now on, or, with `after`, everything since that cursor and then on: no gap, no repeat. A cursor that was pruned is CURSOR_EXPIRED.
    async fn order_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "A cursor of an event, or of `orderEventsCursor`.")] after: Option<String>,
    ) -> Result<impl Stream<Item = Result<OrderEventObject, GraphqlError>> + use<>, GraphqlError> {
        let user = viewer(ctx).user()?;
        let after = after.as_deref().map(parse_cursor).transpose()?;
        let services = ctx.data::<Services>().map_err(|_| GraphqlError::internal())?;
        let events = stream::of_user(services.feed.clone(), services.database.clone(), user, after);
        Ok(to_objects(events, loader::budget(ctx)?.clone()))
    }
}

/// Each event with a budget of its own for what is asked about it.
fn to_objects(
    events: impl Stream<Item = Result<Arc<EventAndOrder>, FeedError>>,
    budget: Budget,
) -> impl Stream<Item = Result<OrderEventObject, GraphqlError>> {
    events.map(move |event| {
        budget.renew();
        to_object(event)
    })
}

fn to_object(event: Result<Arc<EventAndOrder>, FeedError>) -> Result<OrderEventObject, GraphqlError> {
    event.map(OrderEventObject::from).map_err(|error| match error {
        FeedError::NotFound => GraphqlError::new(ErrorCode::NotFound, "no such order"),
        FeedError::Expired => {
            GraphqlError::new(ErrorCode::CursorExpired, "the cursor points to what is not kept: read `orders` and start anew")
        }
        FeedError::Database(error) => loader::failure(&error),
        FeedError::Stopping => GraphqlError::unavailable(),
    })
}
