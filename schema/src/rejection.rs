//! Why a payment is refused.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why an order was not paid.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    async_graphql::Enum,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    sea_orm::DeriveValueType,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[sea_orm(value_type = "String")]
pub enum RejectionReason {
    /// The user had no account when the payment was decided.
    AccountNotFound,
    /// The balance was lower than the order's total.
    InsufficientFunds,
    /// The account is held in another currency than the order's.
    CurrencyMismatch,
}

/// The text is no [`RejectionReason`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a rejection reason")]
pub struct UnknownRejectionReason(pub String);

impl RejectionReason {
    /// As stored and as shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccountNotFound => "ACCOUNT_NOT_FOUND",
            Self::InsufficientFunds => "INSUFFICIENT_FUNDS",
            Self::CurrencyMismatch => "CURRENCY_MISMATCH",
        }
    }
}

impl fmt::Display for RejectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RejectionReason {
    type Err = UnknownRejectionReason;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::AccountNotFound, Self::InsufficientFunds, Self::CurrencyMismatch]
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| UnknownRejectionReason(text.chars().take(64).collect()))
    }
}
