//! An order's life as one table.

use std::{fmt, str::FromStr};

use async_graphql::Enum;
use schema::{PaymentOutcome, RejectionReason};

/// How far an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Enum, sea_orm::DeriveValueType)]
#[sea_orm(value_type = "String")]
pub enum OrderStatus {
    /// Accepted and durable; the payment is not decided yet.
    Pending,
    /// Paid, for ever.
    Paid,
    /// Refused, for ever; the reason says why.
    Rejected,
}

/// Every status.
pub const ALL: [OrderStatus; 3] = [OrderStatus::Pending, OrderStatus::Paid, OrderStatus::Rejected];

/// A payment decision as it reaches an order.
pub type Decision = (PaymentOutcome, Option<RejectionReason>);

/// The status after a decision; `None` when the order is decided already: a decision is never changed.
pub const fn after_decision(status: OrderStatus, outcome: PaymentOutcome) -> Option<OrderStatus> {
    match (status, outcome) {
        (OrderStatus::Pending, PaymentOutcome::Paid) => Some(OrderStatus::Paid),
        (OrderStatus::Pending, PaymentOutcome::Rejected) => Some(OrderStatus::Rejected),
        (OrderStatus::Paid | OrderStatus::Rejected, _) => None,
    }
}

impl OrderStatus {
    /// Whether nothing follows.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Pending)
    }

    /// As stored and as shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Paid => "PAID",
            Self::Rejected => "REJECTED",
        }
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no [`OrderStatus`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an order status")]
pub struct UnknownStatus(String);

impl FromStr for OrderStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_never_changed() {
        for status in ALL {
            for outcome in [PaymentOutcome::Paid, PaymentOutcome::Rejected] {
                let next = after_decision(status, outcome);
                assert_eq!(next.is_some(), status == OrderStatus::Pending, "{status} + {outcome}");
                assert!(next.is_none_or(OrderStatus::is_final));
            }
        }
    }
}
