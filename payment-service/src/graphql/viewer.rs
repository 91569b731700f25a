//! Who asks: the only place that knows how the identity travels.

use async_graphql::Context;
use runtime::auth::Identity;
use schema::{UserId, graphql::GraphqlError};

/// The caller of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Viewer<'a>(&'a Identity);

impl<'a> Viewer<'a> {
    /// The caller, or UNAUTHENTICATED when the request came without a token.
    pub(super) fn of(ctx: &Context<'a>) -> Result<Self, GraphqlError> {
        ctx.data_opt::<Identity>().map(Self).ok_or_else(GraphqlError::unauthenticated)
    }

    /// The caller's own id.
    pub(super) fn user(self) -> UserId {
        UserId(self.0.subject.clone())
    }

    /// Whether something of this owner may be shown: to the owner and to operators.
    pub(super) fn may_see(self, owner: &UserId) -> bool {
        self.0.subject == owner.as_str() || self.0.is_admin()
    }
}
