//! Messages that are never lost and never applied twice, between services that each have a database of their own.
//!
//! It knows nothing of what is in the messages: table names are parameters, and a handler receives the transaction.
//!
//! # What holds
//!
//! * **Nothing committed is lost.** A message is a row of the [outbox](mod@outbox), committed together with the change it
//!   tells about. The committing process publishes it at once from memory ([`relay`]); what it did not get done, a
//!   [`sweeper`] on any replica does. A row is removed only after the broker's durable acknowledgement.
//! * **Nothing is applied twice.** Delivery is at least once. The handler claims message ids in the [inbox](mod@inbox),
//!   or has another guard, in the transaction that applies them; the broker's offset is stored after the commit
//!   ([`consumer`]).
//! * **One bad message stops nobody.** It is found by bisection and put away as a dead letter, acknowledged, before its
//!   offset is stored. Many in a row stop the consumer instead of draining the topic.
//! * **An outage needs nobody.** Broker or database away: everything waits with growing intervals and goes on.
//!
//! What does not hold, on purpose: order per key is best effort (a sweep comes late, a dead letter is replayed), and a
//! message may be published and delivered more than once.
//!
//! # Life of a message
//!
//! ```text
//! transaction { change, outbox::insert_batch } → commit → RelayHandle::committed → Broker::publish → removed
//!                                                  └ crash, full queue, outage → Sweeper ─┘
//! Consumer::next_batch → part by part: Handler::read → transaction { Handler::apply_in_tx: inbox::claim_batch, change, outbox } → commit
//!                        → Handler::committed (relay, hints) → Consumer::store
//!                          (or what Handler::make_ready answers: the same, if one statement can be the whole transaction)
//! ```
//!
//! # Metrics
//!
//! Per outbox: `messaging_relay_published_total`, `messaging_relay_left_to_sweeper_total`,
//! `messaging_sweeper_published_total`, `messaging_sweeper_stuck_rows_total`, `messaging_publish_failed_total`,
//! `messaging_publish_batch_rows`, `messaging_outbox_due_rows`, `messaging_outbox_oldest_due_age_seconds`. Per group:
//! `messaging_consumer_batch_deliveries`, `messaging_consumer_lag`, `messaging_consumer_retries_total`,
//! `messaging_consumer_held_partitions`, `messaging_dead_letters_total`. Embedded broker:
//! `messaging_log_commit_records`.
//!
//! # Traces
//!
//! A row whose headers carry a sampled `traceparent` is published by a span of its own, below which the message's receivers go on: see
//! [`trace`]. It stands in the table with the row, so it survives a crash.
//!
//! # Brokers
//!
//! [`Broker`] and [`Consumer`] are what is needed of one. [`EmbeddedBroker`] is a durable log in a SQLite file for one
//! process; `kafka::KafkaBroker` (feature `kafka`; with TLS: `kafka-tls`) is Apache Kafka. With the feature `testing`,
//! `contract` is the test suite that every adapter has to pass.

pub mod broker;
pub mod consumer;
#[cfg(feature = "testing")]
pub mod contract;
pub mod embedded;
mod gate;
pub mod inbox;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod message;
pub mod outbox;
mod prune;
mod publish;
pub mod relay;
mod sql;
pub mod sweeper;
mod topics;
pub mod trace;

pub use broker::{Batch, Broker, BrokerError, Consumer, TopicPartition, TopicSpec, dead_letter_topic};
pub use consumer::{
    BoxError, ConsumerHandle, ConsumerLoop, ConsumerOptions, ConsumerStatus, DeadLetter, Handler, HandlerError, Ready,
};
pub use embedded::{EmbeddedBroker, EmbeddedOptions};
pub use gate::Gate;
pub use inbox::InboxTable;
pub use message::{CloudEvent, Delivery, Headers, MalformedEvent, Record};
pub use outbox::{OutboxRow, OutboxTable};
pub use prune::{PRUNE_BATCH_ROWS, PRUNE_EVERY, PRUNE_EVERY_BUSY, PRUNE_ROUND_BATCHES, PruneRound, Pruner};
pub use relay::{Relay, RelayHandle, RelayOptions};
pub use sweeper::{Sweep, Sweeper, SweeperOptions};
pub use topics::create_topics;
