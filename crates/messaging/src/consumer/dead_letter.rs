//! Dead letters: the message as it was, with headers that say why and where from.

use std::collections::HashSet;

use bytes::Bytes;
use uuid::Uuid;

use crate::broker::{DEAD_LETTER_SUFFIX, TopicPartition, dead_letter_topic};
use crate::message::{Delivery, Headers, Record};

/// Names of the headers that a dead letter has besides the message's own.
pub mod header {
    /// Why the message could not be applied.
    pub const REASON: &str = "dlq_reason";
    /// The consumer group that could not apply it.
    pub const GROUP: &str = "dlq_group";
    /// The topic it came from.
    pub const TOPIC: &str = "dlq_topic";
    /// The partition it came from.
    pub const PARTITION: &str = "dlq_partition";
    /// Its offset there.
    pub const OFFSET: &str = "dlq_offset";
    /// The event's id; missing if the message has no usable one.
    pub const EVENT_ID: &str = "dlq_event_id";
    /// When it was first found to be the culprit, milliseconds since the epoch.
    pub const FIRST_FAILED_AT_MS: &str = "dlq_first_failed_at_ms";
    /// The message's key where it is not text, since a record's key is; the record's key is empty then.
    pub const KEY: &str = "dlq_key";

    pub(super) const PREFIX: &str = "dlq_";
}

/// Bounds the reason, which may quote the message, well below [`crate::broker::DEAD_LETTER_EXTRA_BYTES`].
const MAX_REASON_CHARS: usize = 2_000;

/// A message that could not be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it came from.
    pub source: TopicPartition,
    /// Its offset there.
    pub offset: i64,
    /// The group that could not apply it.
    pub group: String,
    /// Why.
    pub reason: String,
    /// When it was first found to be the culprit, milliseconds since the epoch.
    pub first_failed_at_ms: i64,
    /// The message as it was, ready to be published to its topic again.
    pub original: Record,
}

/// Messages put away one after the other, with none applied in between. An event that is sent again and again counts once: whoever waits for its
/// result sends it for ever, and where nothing else happens it alone would stop the consumer. At most as many as stop it.
#[derive(Default)]
pub(super) struct Run {
    events: HashSet<Uuid>,
    without_id: usize,
}

impl Run {
    pub(super) fn add(&mut self, delivery: &Delivery) {
        match delivery.event_id() {
            Ok(id) => drop(self.events.insert(id)),
            Err(_) => self.without_id += 1,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.events.len() + self.without_id
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The record for the dead-letter topic.
pub(super) fn record(delivery: &Delivery, group: &str, reason: &str, first_failed_at_ms: i64) -> Record {
    // A dead letter that was replayed and failed again has the old headers: only the new ones tell the truth.
    let mut headers = own_headers(&delivery.headers);
    let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
    headers.set(header::REASON, reason);
    headers.set(header::GROUP, group.to_owned());
    headers.set(header::TOPIC, delivery.topic.clone());
    headers.set(header::PARTITION, delivery.partition.to_string());
    headers.set(header::OFFSET, delivery.offset.to_string());
    headers.set(header::FIRST_FAILED_AT_MS, first_failed_at_ms.to_string());
    if let Ok(event_id) = delivery.event_id() {
        headers.set(header::EVENT_ID, event_id.to_string());
    }
    let raw_key = delivery.key.clone().unwrap_or_default();
    let key = String::from_utf8(raw_key.to_vec()).unwrap_or_else(|_| {
        headers.set(header::KEY, raw_key);
        String::new()
    });
    Record { topic: dead_letter_topic(&delivery.topic), key, headers, payload: delivery.payload.clone() }
}

fn own_headers(headers: &Headers) -> Headers {
    headers
        .iter()
        .filter(|(name, _)| !name.starts_with(header::PREFIX))
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect()
}

impl DeadLetter {
    /// Reads a delivery of a dead-letter topic; `None` if it is not one that this crate wrote.
    #[must_use]
    pub fn from_delivery(delivery: &Delivery) -> Option<Self> {
        let text = |name| delivery.headers.get_str(name);
        let topic = text(header::TOPIC)?;
        if delivery.topic.strip_suffix(DEAD_LETTER_SUFFIX) != Some(topic) {
            return None;
        }
        let key: &Bytes = delivery.headers.get(header::KEY).or(delivery.key.as_ref())?;
        Some(Self {
            source: TopicPartition { topic: topic.to_owned(), partition: text(header::PARTITION)?.parse().ok()? },
            offset: text(header::OFFSET)?.parse().ok()?,
            group: text(header::GROUP)?.to_owned(),
            reason: text(header::REASON)?.to_owned(),
            first_failed_at_ms: text(header::FIRST_FAILED_AT_MS)?.parse().ok()?,
            original: Record {
                topic: topic.to_owned(),
                key: String::from_utf8_lossy(key).into_owned(),
                headers: own_headers(&delivery.headers),
                payload: delivery.payload.clone(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;

    fn delivery(key: Option<Bytes>) -> Delivery {
        Delivery {
            topic: "tasks".to_owned(),
            partition: 3,
            offset: 17,
            key,
            headers: Headers::new()
                .with(message::header::ID, Uuid::nil().to_string())
                .with("custom", vec![1, 2, 255])
                .with(header::REASON, "an older reason"),
            payload: Bytes::from_static(&[0, 255, 1]),
            timestamp_ms: 5,
        }
    }

    fn delivered(record: Record) -> Delivery {
        Delivery {
            topic: record.topic,
            partition: 0,
            offset: 0,
            key: Some(record.key.into_bytes().into()),
            headers: record.headers,
            payload: record.payload,
            timestamp_ms: 9,
        }
    }

    #[test]
    fn a_dead_letter_tells_why_and_where_from_and_keeps_the_message() {
        let source = delivery(Some("user-1".into()));
        let record = record(&source, "payments", "bad amount", 1234);
        assert_eq!(record.topic, "tasks.dlq");
        assert_eq!(record.headers.get_str(header::EVENT_ID), Some("00000000-0000-0000-0000-000000000000"));
        let letter = DeadLetter::from_delivery(&delivered(record)).unwrap();
        assert_eq!(letter.reason, "bad amount");
        assert_eq!(letter.source.to_string(), "tasks[3]");
        assert_eq!((letter.offset, letter.first_failed_at_ms), (17, 1234));
        assert_eq!(letter.original.key, "user-1");
        assert_eq!(letter.original.payload, source.payload);
        assert_eq!(letter.original.headers, own_headers(&source.headers));
    }

    #[test]
    fn odd_keys_and_endless_reasons_still_make_a_dead_letter() {
        let odd = record(&delivery(Some(Bytes::from_static(&[0xff]))), "g", &"é".repeat(10_000), 0);
        assert_eq!(odd.key, "");
        assert_eq!(odd.headers.get(header::KEY), Some(&Bytes::from_static(&[0xff])));
        assert_eq!(odd.headers.get_str(header::REASON).unwrap().chars().count(), MAX_REASON_CHARS);
        let keyless = record(&delivery(None), "g", "r", 0);
        assert!(DeadLetter::from_delivery(&delivered(keyless)).is_some());
        assert!(DeadLetter::from_delivery(&delivery(None)).is_none());
    }
}
