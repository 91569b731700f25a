//! `User`: the part that orders know.

use async_graphql::{Context, ID, Object};
use schema::{
    UserId,
    graphql::{ErrorCode, GraphqlError, PageRequest},
};

use super::{
    order::{OrderConnection, OrderFilter, connection},
    viewer::viewer,
};
use crate::order::find::Owner;

/// A user, named by the token's subject.
pub struct User(pub UserId);

/// Both services contribute to it.
#[Object]
impl User {
    /// Opaque id.
    pub(super) async fn id(&self) -> ID {
        ID(self.0.to_public())
    }

    /// The user's orders, newest first. Neither `first` nor `last` means first 20; both, or more than 100, is BAD_USER_INPUT.
    async fn orders(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "So many of the newest.")] first: Option<i32>,
        #[graphql(desc = "Only older ones than at this cursor.")] after: Option<String>,
        #[graphql(desc = "So many of the oldest.")] last: Option<i32>,
        #[graphql(desc = "Only newer ones than at this cursor.")] before: Option<String>,
        #[graphql(desc = "Only these.")] filter: Option<OrderFilter>,
    ) -> Option<Result<OrderConnection, GraphqlError>> {
        if !viewer(ctx).may_see(&self.0) {
            return Some(Err(GraphqlError::new(ErrorCode::Forbidden, "the orders of another user")));
        }
        let request = PageRequest { first, after, last, before };
        Some(connection(ctx, &Owner::User(self.0.clone()), request, filter).await)
    }
}
