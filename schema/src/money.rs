//! Money in integer minor units of its currency; arithmetic is checked.

use std::fmt;

use crate::{CurrencyCode, DecimalText};

/// Largest amount of one order or top-up, in minor units: ten trillion euros. Far below 2^53, so that every JSON reader gets it exactly.
pub const MAX_AMOUNT_MINOR: i64 = 1_000_000_000_000_000;
/// Largest balance in minor units: 2^53 - 1, the largest integer that every JSON reader gets exactly.
pub const MAX_BALANCE_MINOR: i64 = 9_007_199_254_740_991;

/// An amount of one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    /// Minor units (cents for EUR); may be negative in a ledger entry.
    pub minor: i64,
    /// What it is an amount of.
    pub currency: CurrencyCode,
}

/// Why a decimal is not an amount that can be ordered or topped up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Zero or below.
    #[error("the amount must be greater than zero")]
    NotPositive,
    /// More decimals than the currency has.
    #[error("{currency} has {digits} decimals at most")]
    TooPrecise {
        /// The currency of the amount.
        currency: CurrencyCode,
        /// Its number of decimals.
        digits: u32,
    },
    /// Above [`MAX_AMOUNT_MINOR`].
    #[error("the amount must not be greater than {}", Money { minor: MAX_AMOUNT_MINOR, currency: *currency })]
    TooLarge {
        /// The currency of the amount.
        currency: CurrencyCode,
    },
}

impl Money {
    /// A positive amount of at most [`MAX_AMOUNT_MINOR`] from what a client wrote. `12.500` is 12.50 EUR: zeros carry no precision.
    pub fn from_decimal(decimal: &DecimalText, currency: CurrencyCode) -> Result<Self, MoneyError> {
        if !decimal.is_positive() {
            return Err(MoneyError::NotPositive);
        }
        let digits = currency.digits();
        if decimal.fraction_digits() > digits as usize {
            return Err(MoneyError::TooPrecise { currency, digits });
        }
        match decimal.scaled(digits as usize) {
            Some(minor) if minor <= MAX_AMOUNT_MINOR => Ok(Self { minor, currency }),
            _ => Err(MoneyError::TooLarge { currency }),
        }
    }

    /// The amount without its currency, always with the currency's digits: `12.50`, `-3`, `0.005`.
    pub fn decimal(self) -> DecimalText {
        let digits = self.currency.digits();
        let sign = if self.minor < 0 { "-" } else { "" };
        let unit = 10_u64.pow(digits);
        let minor = self.minor.unsigned_abs();
        DecimalText::from_digits(match digits as usize {
            0 => format!("{sign}{minor}"),
            digits => format!("{sign}{}.{:0digits$}", minor / unit, minor % unit),
        })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decimal(), self.currency)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn money(text: &str, currency: CurrencyCode) -> Result<i64, MoneyError> {
        let decimal = DecimalText::parse(text).expect("a decimal");
        Money::from_decimal(&decimal, currency).map(|money| money.minor)
    }

    #[test]
    fn reads_amounts_in_the_currency_s_own_precision() {
        use CurrencyCode::{EUR, JPY, KWD};
        assert_eq!(money("12.50", EUR), Ok(1250));
        assert_eq!(money("12.5", EUR), Ok(1250));
        assert_eq!(money("012.500", EUR), Ok(1250));
        assert_eq!(money("0.01", EUR), Ok(1));
        assert_eq!(money("7", JPY), Ok(7));
        assert_eq!(money("0.005", KWD), Ok(5));
    }

    #[test]
    fn refuses_what_is_no_amount() {
        use CurrencyCode::{EUR, JPY};
        for text in ["0", "0.00", "-1", "-0.001", "-0"] {
            assert_eq!(money(text, EUR), Err(MoneyError::NotPositive), "{text}");
        }
        assert!(matches!(money("0.001", EUR), Err(MoneyError::TooPrecise { digits: 2, .. })));
        assert!(matches!(money("1.5", JPY), Err(MoneyError::TooPrecise { digits: 0, .. })));
        let too_large = Err(MoneyError::TooLarge { currency: EUR });
        assert_eq!(money("1234567890123456789012345", EUR), too_large);
        assert_eq!(money("10000000000000.01", EUR), too_large);
        assert_eq!(money("10000000000000", EUR), Ok(MAX_AMOUNT_MINOR));
    }

    #[test]
    fn refuses_what_is_no_decimal() {
        for text in ["", "-", ".", "1.", ".5", "1e3", "+1", " 1", "1 ", "1,5", "٣", "0x1", "1.2.3", "NaN", "--1"] {
            assert!(DecimalText::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(minor in 1..=MAX_AMOUNT_MINOR, at in 0..CurrencyCode::EVERY.len()) {
            let currency = CurrencyCode::EVERY[at];
            let money = Money { minor, currency };
            let decimal = DecimalText::parse(&money.decimal().to_string()).expect("a decimal");
            prop_assert_eq!(Money::from_decimal(&decimal, currency), Ok(money));
        }
    }
}
