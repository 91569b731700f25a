//! The two custom scalars.

use async_graphql::{InputType, InputValueError, InputValueResult, Scalar, ScalarType, Value};

use super::ErrorCode;
use crate::{DecimalText, Timestamp};

/// Money as a decimal string without exponent, for example "12.50"; never a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal(pub DecimalText);

/// Money as a decimal string without exponent, for example "12.50"; never a number.
#[Scalar(name = "Decimal", specified_by_url = "https://www.w3.org/TR/xmlschema11-2/#decimal")]
impl ScalarType for Decimal {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => DecimalText::parse(text).map(Self).map_err(|error| bad_input(InputValueError::custom(error))),
            _ => Err(bad_input(InputValueError::expected_type(value))),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime(pub Timestamp);

/// RFC 3339 in UTC with milliseconds.
#[Scalar(name = "DateTime", specified_by_url = "https://scalars.graphql.org/andimarek/date-time")]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => Timestamp::parse_rfc3339(text)
                .map(Self)
                .ok_or_else(|| bad_input(InputValueError::custom("expected RFC 3339 such as \"2026-01-31T23:59:59.999Z\""))),
            _ => Err(bad_input(InputValueError::expected_type(value))),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_rfc3339())
    }
}

/// The caller's fault, and said so: an error without a code is taken for ours.
fn bad_input<T: InputType>(error: InputValueError<T>) -> InputValueError<T> {
    error.with_extension("code", ErrorCode::BadUserInput.as_str())
}

impl From<Timestamp> for DateTime {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}
