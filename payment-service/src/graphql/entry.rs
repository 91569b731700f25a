//! `LedgerEntry`.

use async_graphql::{ID, Object};
use schema::graphql::{DateTime, MoneyOutput};

use super::order::Order;
use crate::ledger::{LedgerEntryKind, Line};

/// A ledger entry that the viewer may see.
#[derive(Clone)]
pub(super) struct LedgerEntry(pub(super) Line);

/// One change of an account's balance. Immutable. The amount is signed: debits are negative.
#[Object]
impl LedgerEntry {
    /// Opaque id.
    pub(super) async fn id(&self) -> ID {
        self.0.entry.id.to_string().into()
    }

    /// What changed the balance.
    async fn kind(&self) -> LedgerEntryKind {
        self.0.entry.kind
    }

    /// By how much; negative for a debit.
    async fn amount(&self) -> MoneyOutput {
        self.0.amount().into()
    }

    /// The account's balance with this entry.
    async fn balance_after(&self) -> MoneyOutput {
        self.0.balance_after().into()
    }

    /// The order that a debit paid; null for a top-up.
    async fn order(&self) -> Option<Order> {
        self.0.entry.order_id.map(Order)
    }

    /// When the balance changed.
    async fn created_at(&self) -> DateTime {
        self.0.entry.created_at_ms.into()
    }
}
