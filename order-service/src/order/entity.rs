//! The table `orders`.

use schema::{CurrencyCode, EventId, Money, OrderId, RejectionReason, Timestamp, UserId};
use sea_orm::entity::prelude::*;

use super::OrderStatus;

/// One order.
pub type Order = Model;

/// The version of an order, and of its event, when it is created.
pub const FIRST_VERSION: i32 = 1;

/// A row of `orders`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "orders")]
pub struct Model {
    /// Holds the creation time.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: OrderId,
    /// From a database sequence; see [`super::number`].
    pub number: i64,
    /// Who ordered and pays.
    pub user_id: UserId,
    /// In minor units, greater than zero.
    pub total_minor: i64,
    /// Of the total.
    pub currency: CurrencyCode,
    /// What the client wrote.
    pub description: String,
    /// How far it is.
    pub status: OrderStatus,
    /// Present exactly when rejected.
    pub rejection_reason: Option<RejectionReason>,
    /// Version of the last event: [`FIRST_VERSION`] on creation, 2 when decided.
    pub version: i32,
    /// When the last event happened.
    pub updated_at_ms: Timestamp,
    /// The id under which the payment is asked for, every time.
    pub task_event_id: EventId,
    /// The key of the `createOrder` call, unique per user.
    pub idempotency_key: Option<String>,
    /// SHA-256 of the arguments of that call.
    pub idempotency_hash: Option<Vec<u8>>,
}

/// Nothing is joined: an order's events and payment are loaded in batches.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// What is to be paid.
    pub fn total(&self) -> Money {
        Money { minor: self.total_minor, currency: self.currency }
    }
}
