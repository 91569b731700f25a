//! What this crate promises, each promise under the danger that threatens it: the SQL on SQLite and on PostgreSQL, the
//! loops against the embedded broker, against brokers that fail on purpose, and against Kafka.

#![expect(clippy::unwrap_used, reason = "tests")]

mod consumer;
mod consumer_failures;
mod consumer_parts;
mod embedded;
mod inbox;
mod interruptions;
mod kafka;
mod outbox;
mod relay;
mod support;
