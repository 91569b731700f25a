//! Money in and out.

use async_graphql::{InputObject, SimpleObject};

use super::{Decimal, UserError, UserErrorCode};
use crate::{CurrencyCode, Money, MoneyError};

/// An amount of one currency.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(name = "Money", shareable)]
pub struct MoneyOutput {
    /// Always with the currency's number of decimals: "12.50" EUR, "1250" JPY.
    amount: Decimal,
    /// What it is an amount of.
    currency_code: CurrencyCode,
}

impl From<Money> for MoneyOutput {
    fn from(money: Money) -> Self {
        Self { amount: Decimal(money.decimal()), currency_code: money.currency }
    }
}

/// An amount of one currency, greater than zero.
#[derive(Debug, Clone, PartialEq, Eq, InputObject)]
pub struct MoneyInput {
    /// At most the currency's number of decimals.
    pub amount: Decimal,
    /// What it is an amount of.
    pub currency_code: CurrencyCode,
}

impl MoneyInput {
    /// The amount in minor units, or the refusal for the input field `path`.
    pub fn to_money(&self, path: &[&str]) -> Result<Money, UserError> {
        Money::from_decimal(&self.amount.0, self.currency_code).map_err(|error| {
            let code = match error {
                MoneyError::NotPositive => UserErrorCode::AmountNotPositive,
                MoneyError::TooPrecise { .. } => UserErrorCode::AmountTooPrecise,
                MoneyError::TooLarge { .. } => UserErrorCode::AmountTooLarge,
            };
            let field: Vec<&str> = path.iter().copied().chain(["amount"]).collect();
            UserError::new(code, error.to_string(), &field)
        })
    }
}
