//! Who asks.

use async_graphql::Context;
use runtime::auth::Identity;
use schema::{UserId, graphql::GraphqlError};

use crate::order::find::Owner;

/// The caller of a request; nobody without a token.
#[derive(Debug, Clone, Default)]
pub struct Viewer(pub Option<Identity>);

impl Viewer {
    /// The signed-in user.
    ///
    /// # Errors
    /// UNAUTHENTICATED.
    pub fn user(&self) -> Result<UserId, GraphqlError> {
        self.0.as_ref().map(|identity| UserId(identity.subject.clone())).ok_or_else(GraphqlError::unauthenticated)
    }

    /// Whether the caller is an operator.
    pub fn is_admin(&self) -> bool {
        self.0.as_ref().is_some_and(Identity::is_admin)
    }

    /// Whose orders the caller may see; nobody's without a token.
    pub fn owner(&self) -> Option<Owner> {
        let identity = self.0.as_ref()?;
        Some(if identity.is_admin() { Owner::Anyone } else { Owner::User(UserId(identity.subject.clone())) })
    }

    /// As [`Viewer::owner`], for fields that need a user.
    ///
    /// # Errors
    /// UNAUTHENTICATED.
    pub fn require_owner(&self) -> Result<Owner, GraphqlError> {
        self.owner().ok_or_else(GraphqlError::unauthenticated)
    }

    /// Whether the caller may see this user.
    pub fn may_see(&self, user: &UserId) -> bool {
        self.owner().is_some_and(|owner| owner.may_see(user))
    }
}

/// The viewer of a request; a request that was not prepared has none.
pub fn viewer<'a>(ctx: &Context<'a>) -> &'a Viewer {
    static NOBODY: Viewer = Viewer(None);
    ctx.data_opt::<Viewer>().unwrap_or(&NOBODY)
}
