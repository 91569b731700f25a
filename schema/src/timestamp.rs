//! Instants with millisecond precision.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

/// Milliseconds since 1970-01-01T00:00:00Z. The same on the wire of events and in every database column.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    sea_orm::DeriveValueType,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// The last instant that RFC 3339 can write: 9999-12-31T23:59:59.999Z.
const MAX_MS: i64 = 253_402_300_799_999;
/// The first instant that RFC 3339 can write: 0000-01-01T00:00:00.000Z.
const MIN_MS: i64 = -62_167_219_200_000;

impl Timestamp {
    /// This process's clock.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(MAX_MS))
    }

    /// Reads RFC 3339 in any offset; digits below the millisecond are cut off.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let ms = instant.unix_timestamp_nanos().div_euclid(1_000_000);
        i64::try_from(ms).ok().filter(|ms| (MIN_MS..=MAX_MS).contains(ms)).map(Self)
    }

    /// RFC 3339 in UTC with milliseconds: `2026-01-31T23:59:59.999Z`. Instants outside of years 0 to 9999 are shown as the nearest one inside.
    pub fn to_rfc3339(self) -> String {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        let ms = self.0.clamp(MIN_MS, MAX_MS);
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
            .ok()
            .and_then(|instant| instant.format(&format).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_milliseconds_and_z() {
        assert_eq!(Timestamp(0).to_rfc3339(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(1_770_000_000_007).to_rfc3339(), "2026-02-02T02:40:00.007Z");
        assert_eq!(Timestamp(i64::MAX).to_rfc3339(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn reads_any_offset() {
        assert_eq!(Timestamp::parse_rfc3339("1970-01-01T01:00:00.0019+01:00"), Some(Timestamp(1)));
        assert_eq!(Timestamp::parse_rfc3339("1970-01-01T00:00:00Z"), Some(Timestamp(0)));
        for text in ["", "1970-01-01", "1970-01-01T00:00:00", "yesterday"] {
            assert_eq!(Timestamp::parse_rfc3339(text), None, "{text}");
        }
    }
}
