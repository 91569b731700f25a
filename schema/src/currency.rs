//! ISO 4217 currencies that have minor units or are defined to have none.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Declares [`CurrencyCode`] from `CODE = "name",` lines.
macro_rules! currency_codes {
    ($($code:ident = $name:literal,)+) => {
        /// ISO 4217 codes of the currencies with a defined number of decimals.
        ///
        /// Metals, test codes and other units without one (XAU, XTS, XXX) are left out: an amount in them could not be checked.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
            async_graphql::Enum, serde::Serialize, serde::Deserialize, schemars::JsonSchema, sea_orm::DeriveValueType,
        )]
        #[sea_orm(value_type = "String")]
        #[allow(clippy::upper_case_acronyms, reason = "ISO 4217 writes the codes in capitals")]
        pub enum CurrencyCode {
            $(#[doc = $name] $code,)+
        }

        impl CurrencyCode {
            /// Every code, in alphabetical order.
            pub const EVERY: &'static [Self] = &[$(Self::$code,)+];

            /// The three letters of ISO 4217.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$code => stringify!($code),)+ }
            }
        }
    };
}
pub(crate) use currency_codes;

pub use crate::currency_codes::CurrencyCode;

/// The text is no code of [`CurrencyCode`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("`{0}` is not an ISO 4217 currency with a defined number of decimals")]
pub struct UnknownCurrency(pub String);

impl CurrencyCode {
    /// Digits after the decimal point: 2 for EUR, 0 for JPY, 3 for KWD, at most 4.
    pub fn digits(self) -> u32 {
        iso_currency::Currency::from_code(self.code()).and_then(iso_currency::Currency::exponent).map_or(0, u32::from)
    }
}

impl fmt::Display for CurrencyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl FromStr for CurrencyCode {
    type Err = UnknownCurrency;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::EVERY
            .binary_search_by(|code| code.code().cmp(text))
            .map(|at| Self::EVERY[at])
            .map_err(|_| UnknownCurrency(text.chars().take(16).collect()))
    }
}

#[cfg(test)]
mod tests {
    use iso_currency::IntoEnumIterator;

    use super::*;

    #[test]
    fn lists_exactly_the_currencies_with_a_defined_number_of_decimals() {
        let mut expected: Vec<&str> = iso_currency::Currency::iter()
            .filter(|currency| currency.exponent().is_some())
            .map(|currency| currency.code())
            .collect();
        expected.sort_unstable();
        let listed: Vec<&str> = CurrencyCode::EVERY.iter().map(|code| code.code()).collect();
        assert_eq!(listed, expected);
    }

    #[test]
    fn parses_every_code_and_nothing_else() {
        for code in CurrencyCode::EVERY {
            assert_eq!(code.code().parse(), Ok(*code));
        }
        for text in ["", "eur", "EURO", "XAU", "XXX"] {
            assert_eq!(text.parse::<CurrencyCode>(), Err(UnknownCurrency(text.to_owned())));
        }
    }

    #[test]
    fn knows_the_digits() {
        let digits = |code: CurrencyCode| code.digits();
        assert_eq!(digits(CurrencyCode::EUR), 2);
        assert_eq!(digits(CurrencyCode::JPY), 0);
        assert_eq!(digits(CurrencyCode::KWD), 3);
        assert!(CurrencyCode::EVERY.iter().all(|code| code.digits() <= 4));
    }
}
