//! `User`: what Payments Service adds to it.

use async_graphql::{Context, ID, Object};
use schema::{UserId, graphql::GraphqlError};

use super::{account::Account, loader};

/// Somebody with a token.
pub(super) struct User(pub(super) UserId);

/// Both services contribute to it.
#[Object]
impl User {
    /// Opaque id.
    pub(super) async fn id(&self) -> ID {
        self.0.to_public().into()
    }

    /// The user's account. Null when there is none yet, and, with an error, while Payments is unreachable.
    async fn account(&self, ctx: &Context<'_>) -> Option<Result<Account, GraphqlError>> {
        loader::account_of(ctx, &self.0).await.map(|found| found.map(Account)).transpose()
    }
}
