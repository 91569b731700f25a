//! `Payment`.

use async_graphql::{Context, ID, Object};
use schema::{
    PaymentId, PaymentOutcome, RejectionReason,
    graphql::{DateTime, GraphqlError, MoneyOutput},
};

use super::{entry::LedgerEntry, loader, order::Order};
use crate::payment::Payment as Row;

/// A payment that the viewer may see.
pub(super) struct Payment(pub(super) Row);

/// How the payment of one order was decided, once and for ever.
#[Object]
impl Payment {
    /// Opaque id.
    pub(super) async fn id(&self) -> ID {
        PaymentId::from(self.0.order_id).to_string().into()
    }

    /// The order that was decided.
    async fn order(&self) -> Option<Order> {
        Some(Order(self.0.order_id))
    }

    /// What was to be paid.
    async fn amount(&self) -> MoneyOutput {
        self.0.amount().into()
    }

    /// Whether it was paid.
    async fn outcome(&self) -> PaymentOutcome {
        self.0.outcome
    }

    /// Why it was not; null when it was paid.
    async fn rejection_reason(&self) -> Option<RejectionReason> {
        self.0.rejection_reason
    }

    /// The debit; null when it was not paid.
    async fn entry(&self, ctx: &Context<'_>) -> Option<Result<LedgerEntry, GraphqlError>> {
        loader::line(ctx, self.0.entry_id?).await.map(|found| found.map(LedgerEntry)).transpose()
    }

    /// When it was decided.
    async fn decided_at(&self) -> DateTime {
        self.0.decided_at_ms.into()
    }
}
