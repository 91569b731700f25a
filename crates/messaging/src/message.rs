//! What travels: headers, records to publish, deliveries received.
//!
//! Headers follow the CloudEvents 1.0 Kafka binding in binary content mode: the event's attributes are headers whose
//! names start with `ce_`, and the payload is the event's data alone.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use uuid::Uuid;

/// Header names of the CloudEvents 1.0 Kafka binding, and the two others that this crate reads or writes.
pub mod header {
    /// The event's id: a UUID, made once and kept through every retry.
    pub const ID: &str = "ce_id";
    /// What happened.
    pub const TYPE: &str = "ce_type";
    /// Who says so.
    pub const SOURCE: &str = "ce_source";
    /// Always [`SPEC_VERSION_VALUE`].
    pub const SPEC_VERSION: &str = "ce_specversion";
    /// The version of CloudEvents written here.
    pub const SPEC_VERSION_VALUE: &str = "1.0";
    /// When it happened, RFC 3339 in UTC with milliseconds.
    pub const TIME: &str = "ce_time";
    /// The media type of the payload.
    pub const CONTENT_TYPE: &str = "content-type";
    /// W3C trace context; kept as it came.
    pub const TRACEPARENT: &str = "traceparent";

    /// All of these, which nearly every message has.
    pub const ALL: [&str; 7] = [ID, TYPE, SOURCE, SPEC_VERSION, TIME, CONTENT_TYPE, TRACEPARENT];
}

const RFC3339_MS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Names and values in the order they were given. As in Kafka, a value is bytes and a name may occur more than once;
/// [`Headers::get`] answers the last one then, as Kafka's clients do.
///
/// As JSON it is one object of strings, in order, names repeated where they are repeated. A value that is not UTF-8,
/// or that itself starts with `base64:`, is written as `base64:` and its base64, so that every value survives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, Bytes)>);

const BASE64_PREFIX: &str = "base64:";

impl Headers {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of `name`, the last one if it is repeated.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The value of `name` if it is there and is UTF-8.
    #[must_use]
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Sets `name` to this one value, in place of those it had.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) {
        let name = name.into();
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, value.into()));
    }

    /// Adds a value, also if the name is there already.
    pub fn append(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) {
        self.0.push((name.into(), value.into()));
    }

    /// As it is stored.
    #[expect(clippy::expect_used, reason = "an object of strings, written to memory")]
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings serialize")
    }

    /// [`Headers::set`] for building in one expression.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) -> Self {
        self.set(name, value);
        self
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all names and values.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

impl<N: Into<Cow<'static, str>>, V: Into<Bytes>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            match std::str::from_utf8(value) {
                Ok(text) if !text.starts_with(BASE64_PREFIX) => map.serialize_entry(name, text)?,
                _ => {
                    let encoded = base64::engine::general_purpose::STANDARD.encode(value);
                    map.serialize_entry(name, &format!("{BASE64_PREFIX}{encoded}"))?;
                }
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Headers;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                use base64::Engine as _;
                let mut headers = Headers::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    let bytes = match value.strip_prefix(BASE64_PREFIX) {
                        Some(encoded) => {
                            base64::engine::general_purpose::STANDARD.decode(encoded).map_err(serde::de::Error::custom)?.into()
                        }
                        None => Bytes::from(value),
                    };
                    headers.append(name, bytes);
                }
                Ok(headers)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// The attributes of one event, as CloudEvents names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEvent {
    /// `ce_id`: made once, kept through every retry.
    pub id: Uuid,
    /// `ce_type`.
    pub type_: Cow<'static, str>,
    /// `ce_source`.
    pub source: Cow<'static, str>,
    /// `ce_time` in milliseconds since the epoch.
    pub time_ms: i64,
}

impl CloudEvent {
    /// The headers of this event with a JSON payload.
    #[must_use]
    pub fn headers(&self) -> Headers {
        Headers::from_iter([
            (header::ID, Bytes::from(self.id.to_string())),
            (header::TYPE, bytes(self.type_.clone())),
            (header::SOURCE, bytes(self.source.clone())),
            (header::SPEC_VERSION, Bytes::from_static(header::SPEC_VERSION_VALUE.as_bytes())),
            (header::TIME, Bytes::from(rfc3339(self.time_ms))),
            (header::CONTENT_TYPE, Bytes::from_static(b"application/json")),
        ])
    }
}

fn bytes(text: Cow<'static, str>) -> Bytes {
    match text {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => text.into(),
    }
}

/// RFC 3339 with milliseconds and `Z`; an instant beyond the calendar (year 9999) is written as the epoch, because an
/// event with an odd time is better than an event that cannot be written.
fn rfc3339(time_ms: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ms) * 1_000_000)
        .ok()
        .and_then(|instant| instant.format(RFC3339_MS).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00.000Z".to_owned())
}

/// A message to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where to.
    pub topic: String,
    /// Records of one key land in one partition, in the order they are published.
    pub key: String,
    /// See [`header`].
    pub headers: Headers,
    /// The event's data.
    pub payload: Bytes,
}

impl Record {
    /// Bytes of key, headers and payload: what a broker's limit on the size of a record is compared with.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.headers.size_bytes() + self.payload.len()
    }
}

/// A message as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where from.
    pub topic: String,
    /// The topic's partition.
    pub partition: i32,
    /// The position in the partition: growing, not necessarily by one.
    pub offset: i64,
    /// The record's key, if it had one.
    pub key: Option<Bytes>,
    /// As they were published.
    pub headers: Headers,
    /// As it was published.
    pub payload: Bytes,
    /// When the broker or the producer stamped it, milliseconds since the epoch; 0 if unknown.
    pub timestamp_ms: i64,
}

/// A message without a usable event id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedEvent {
    /// No `ce_id`.
    #[error("the message has no `ce_id` header")]
    NoId,
    /// A `ce_id` that is not a UUID; the first characters of it.
    #[error("the message's `ce_id` is not a UUID: {0:?}")]
    IdNotUuid(String),
}

/// Bounds what of a foreign header goes into an error message.
const SHOWN_ID_CHARS: usize = 64;

impl Delivery {
    /// The event's id.
    ///
    /// # Errors
    /// If there is no `ce_id`, or it is not a UUID.
    pub fn event_id(&self) -> Result<Uuid, MalformedEvent> {
        let id = self.headers.get(header::ID).ok_or(MalformedEvent::NoId)?;
        Uuid::try_parse_ascii(id).map_err(|_| {
            let shown = String::from_utf8_lossy(id).chars().take(SHOWN_ID_CHARS).collect();
            MalformedEvent::IdNotUuid(shown)
        })
    }

    /// The event's type, if it is there and is UTF-8.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        self.headers.get_str(header::TYPE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(headers: Headers) -> Delivery {
        Delivery { topic: "t".to_owned(), partition: 0, offset: 0, key: None, headers, payload: Bytes::new(), timestamp_ms: 0 }
    }

    #[test]
    fn headers_survive_json_whatever_their_bytes() {
        let headers = Headers::from_iter([
            ("plain", Bytes::from("text \"quoted\" é")),
            ("binary", Bytes::from_static(&[0, 159, 146, 150])),
            ("looks-encoded", Bytes::from("base64:not really")),
            ("twice", Bytes::from("1")),
            ("twice", Bytes::from("2")),
            ("empty", Bytes::new()),
        ]);
        let json = serde_json::to_string(&headers).unwrap();
        assert_eq!(serde_json::from_str::<Headers>(&json).unwrap(), headers);
        assert_eq!(headers.get_str("twice"), Some("2"));
    }

    #[test]
    fn event_headers_are_the_cloudevents_kafka_binding() {
        let id = Uuid::now_v7();
        let headers =
            CloudEvent { id, type_: "test.happened".into(), source: "/test".into(), time_ms: 1_700_000_000_123 }.headers();
        assert_eq!(headers.get_str("ce_time"), Some("2023-11-14T22:13:20.123Z"));
        assert_eq!(headers.get_str("ce_specversion"), Some("1.0"));
        assert_eq!(headers.get_str("content-type"), Some("application/json"));
        assert_eq!(delivery(headers.clone()).event_id(), Ok(id));
        assert_eq!(delivery(headers).event_type(), Some("test.happened"));
    }

    #[test]
    fn a_message_without_a_usable_id_is_a_typed_error() {
        assert_eq!(delivery(Headers::new()).event_id(), Err(MalformedEvent::NoId));
        let odd = Headers::new().with("ce_id", "x".repeat(1000));
        assert_eq!(delivery(odd).event_id(), Err(MalformedEvent::IdNotUuid("x".repeat(SHOWN_ID_CHARS))));
        let binary = Headers::new().with("ce_id", vec![0xff, 0xfe]);
        assert!(matches!(delivery(binary).event_id(), Err(MalformedEvent::IdNotUuid(_))));
    }
}
