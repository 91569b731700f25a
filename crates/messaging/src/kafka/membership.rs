//! What librdkafka tells a consumer about its place in the group.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use super::log;
use crate::broker::TopicPartition;

/// A change of the partitions that are this member's.
pub(super) enum Change {
    /// To be taken over: until then nothing is fetched.
    Assigned(Vec<TopicPartition>),
    /// Gone already, stored offsets being committed.
    Revoked(Vec<TopicPartition>),
}

/// Collects changes while the consumer is polled, for the consumer to follow them. Assignments are left to the consumer
/// because each partition's queue has to be split off before its first record arrives.
#[derive(Default)]
pub(super) struct Membership {
    changes: Mutex<Vec<Change>>,
    /// Nobody follows any more.
    leaving: AtomicBool,
}

impl Membership {
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// In the order in which they happened.
    pub(super) fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on, whatever the group still decides is answered right away.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    fn push(&self, change: Change) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }
}

impl ConsumerContext for Membership {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let named = names(partitions);
        let result = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS if self.leaving.load(Ordering::SeqCst) => {
                consumer.incremental_assign(partitions)
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.push(Change::Assigned(named));
                Ok(())
            }
            _ => {
                tracing::info!(partitions = %list(&named), lost = consumer.assignment_lost(), "partitions taken away");
                self.push(Change::Revoked(named));
                // Commits what was stored before the partitions go.
                consumer.incremental_unassign(partitions)
            }
        };
        if let Err(error) = result {
            tracing::warn!(%error, "could not follow a rebalance");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        match result {
            Ok(()) => tracing::trace!(?offsets, "offsets committed"),
            // No loss: they come again, to us or to another member.
            Err(error) => tracing::debug!(%error, ?offsets, "offsets not committed"),
        }
    }
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log::report(&error, reason);
    }
}

fn names(partitions: &TopicPartitionList) -> Vec<TopicPartition> {
    let elements = partitions.elements();
    elements.iter().map(|one| TopicPartition { topic: one.topic().to_owned(), partition: one.partition() }).collect()
}

/// For a log line.
pub(super) fn list(partitions: &[TopicPartition]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
