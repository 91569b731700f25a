//! A decimal number as text, exactly as it was written.

use std::fmt;

/// A syntactically valid decimal: an optional `-`, digits, and optionally a point with digits; no exponent, no `+`, any length.
///
/// It is not a number yet: only together with a currency ([`crate::Money::from_decimal`]) is it known whether it has too many digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecimalText(String);

/// The text is not a decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a decimal number such as \"12.50\": digits with at most one point, no exponent, no spaces")]
pub struct DecimalSyntaxError;

impl DecimalText {
    /// Checks the syntax; the text stays as it is.
    pub fn parse(text: &str) -> Result<Self, DecimalSyntaxError> {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (integer, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if digits(integer) && digits(fraction) { Ok(Self(text.to_owned())) } else { Err(DecimalSyntaxError) }
    }

    pub(crate) fn from_digits(text: String) -> Self {
        Self(text)
    }

    /// The digits before and after the point without zeros that carry no value.
    fn parts(&self) -> (&str, &str) {
        let unsigned = self.0.trim_start_matches('-');
        let (integer, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        (integer.trim_start_matches('0'), fraction.trim_end_matches('0'))
    }

    pub(crate) fn is_positive(&self) -> bool {
        !self.0.starts_with('-') && self.parts() != ("", "")
    }

    pub(crate) fn fraction_digits(&self) -> usize {
        self.parts().1.len()
    }

    /// The value times 10^`digits` without its sign; `None` when it does not fit an `i64`. The fraction must not be longer than `digits`.
    pub(crate) fn scaled(&self, digits: usize) -> Option<i64> {
        let (integer, fraction) = self.parts();
        let scaled = format!("{integer}{fraction:0<digits$}");
        if scaled.is_empty() { Some(0) } else { scaled.parse().ok() }
    }
}

impl fmt::Display for DecimalText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
