//! `Order`: what Payments Service adds to it.

use async_graphql::{Context, ID, Object};
use schema::{OrderId, graphql::GraphqlError};

use super::{loader, payment::Payment};

/// A reference to an order, which Order Service owns. It exists here whether or not the order does.
pub(super) struct Order(pub(super) OrderId);

/// An order and where it stands.
#[Object]
impl Order {
    /// Opaque id.
    pub(super) async fn id(&self) -> ID {
        self.0.to_string().into()
    }

    /// What Payments decided; null until it has.
    async fn payment(&self, ctx: &Context<'_>) -> Option<Result<Payment, GraphqlError>> {
        loader::payment_of(ctx, self.0).await.map(|found| found.map(Payment)).transpose()
    }
}
