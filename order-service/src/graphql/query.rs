//! `Query`.

use async_graphql::{Context, ID, Object};
use schema::{
    OrderId, UserId,
    graphql::{ErrorCode, GraphqlError, PageRequest},
};

use super::{
    Context as Services, event, loader,
    node::{self, Node},
    order::{OrderConnection, OrderFilter, OrderObject, connection},
    user::User,
    viewer::viewer,
};
use crate::order::find;

/// Everything that can be read.
pub struct Query;

/// Everything that can be read.
#[Object]
impl Query {
    /// The signed-in user.
    async fn me(&self, ctx: &Context<'_>) -> Result<User, GraphqlError> {
        viewer(ctx).user().map(User)
    }

    /// Another user: for the scope `admin`; everyone else gets themselves or FORBIDDEN.
    async fn user(&self, ctx: &Context<'_>, #[graphql(desc = "Of the user.")] id: ID) -> Option<Result<User, GraphqlError>> {
        let viewer = viewer(ctx);
        let me = match viewer.user() {
            Ok(me) => me,
            Err(error) => return Some(Err(error)),
        };
        match UserId::from_public(&id) {
            Ok(user) if user == me || viewer.is_admin() => Some(Ok(User(user))),
            Err(_) if viewer.is_admin() => None,
            _ => Some(Err(GraphqlError::new(ErrorCode::Forbidden, "another user: needs the scope `admin`"))),
        }
    }

    /// Null when it does not exist or is not the caller's; both look the same.
    async fn order(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Of the order.")] id: ID,
    ) -> Option<Result<OrderObject, GraphqlError>> {
        if let Err(error) = viewer(ctx).require_owner() {
            return Some(Err(error));
        }
        let id: OrderId = id.parse().ok()?;
        loader::order(ctx, id).await.transpose().map(|order| order.map(OrderObject))
    }

    /// Newest first; the caller's own, everyone's for the scope `admin`. Neither `first` nor `last` means first 20; both, or more than 100, is BAD_USER_INPUT.
    async fn orders(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "So many of the newest.")] first: Option<i32>,
        #[graphql(desc = "Only older ones than at this cursor.")] after: Option<String>,
        #[graphql(desc = "So many of the oldest.")] last: Option<i32>,
        #[graphql(desc = "Only newer ones than at this cursor.")] before: Option<String>,
        #[graphql(desc = "Only these.")] filter: Option<OrderFilter>,
    ) -> Result<OrderConnection, GraphqlError> {
        let owner = viewer(ctx).require_owner()?;
        connection(ctx, &owner, PageRequest { first, after, last, before }, filter).await
    }

    /// Whatever the id names: an order, a user, an account, a ledger entry or a payment. Null when it does not exist or is not the caller's.
    async fn node(&self, ctx: &Context<'_>, #[graphql(desc = "Of anything.")] id: ID) -> Option<Result<Node, GraphqlError>> {
        if let Err(error) = viewer(ctx).require_owner() {
            return Some(Err(error));
        }
        node::find(ctx, &id).await.transpose()
    }

    /// Everything up to here is visible to reads that start later. Take it, read `orders`, then subscribe to `orderEvents(after:)`: nothing falls between.
    async fn order_events_cursor(&self, ctx: &Context<'_>) -> Result<String, GraphqlError> {
        viewer(ctx).user()?;
        let services = ctx.data::<Services>().map_err(|_| GraphqlError::internal())?;
        let cursor = find::cursor(services.database.reader()).await.map_err(|error| loader::failure(&error))?;
        Ok(event::cursor(cursor.last()))
    }

    /// Resolves a reference of the other subgraph. Null for what does not exist or is not the viewer's.
    #[graphql(entity)]
    async fn find_order(&self, ctx: &Context<'_>, id: ID) -> Result<Option<OrderObject>, GraphqlError> {
        match id.parse() {
            Ok(id) => Ok(loader::order(ctx, id).await?.map(OrderObject)),
            Err(_) => Ok(None),
        }
    }

    /// Resolves a reference of the other subgraph.
    #[graphql(entity)]
    async fn find_user(&self, ctx: &Context<'_>, id: ID) -> Option<User> {
        UserId::from_public(&id).ok().filter(|user| viewer(ctx).may_see(user)).map(User)
    }
}
