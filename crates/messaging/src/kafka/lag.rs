//! How far behind a consumer is, as the gauge `messaging_consumer_lag` per partition.
//!
//! Asked of the brokers now and then, because a consumer that is stuck, or holds a partition, learns nothing about the
//! end of it. Over the producer's connections: a consumer must not be kept alive by somebody who only looks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rdkafka::producer::Producer as _;
use tokio::task::JoinHandle;

use super::error::broker_error;
use super::{Inner, blocking};
use crate::broker::{BrokerError, TopicPartition};

/// One small question per partition each time.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// Per partition. The first one that is not answered ends the round.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The next offset to be done, of each partition that is this member's and has delivered something. A partition that
/// has not is left out: the group's offset there is unknown here, and nobody is waiting.
#[derive(Default)]
pub(super) struct Positions(Mutex<HashMap<TopicPartition, i64>>);

impl Positions {
    /// A first delivery; later ones change nothing until they are done.
    pub(super) fn seen(&self, partition: &TopicPartition, first_offset: i64) {
        let mut positions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !positions.contains_key(partition) {
            positions.insert(partition.clone(), first_offset);
        }
    }

    pub(super) fn done(&self, partition: &TopicPartition, next_offset: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(partition.clone(), next_offset);
    }

    pub(super) fn forget(&self, partition: &TopicPartition) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(partition);
    }

    fn get(&self, partition: &TopicPartition) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(partition).copied()
    }

    fn partitions(&self) -> Vec<TopicPartition> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

/// Looks until it is dropped.
pub(super) struct LagProbe {
    group: String,
    pub(super) positions: Arc<Positions>,
    task: JoinHandle<()>,
}

impl LagProbe {
    pub(super) fn start(broker: Weak<Inner>, group: &str) -> Self {
        let positions = Arc::<Positions>::default();
        let task = tokio::spawn(look(broker, group.to_owned(), Arc::clone(&positions)));
        Self { group: group.to_owned(), positions, task }
    }

    /// Somebody else's now, and so is its lag.
    pub(super) fn forget(&self, partition: &TopicPartition) {
        self.positions.forget(partition);
        report(&self.group, partition, 0);
    }
}

impl Drop for LagProbe {
    fn drop(&mut self) {
        self.task.abort();
        for partition in self.positions.partitions() {
            self.forget(&partition);
        }
    }
}

async fn look(broker: Weak<Inner>, group: String, positions: Arc<Positions>) {
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        let Some(producer) = broker.upgrade().and_then(|broker| broker.publisher.producer().ok()) else { continue };
        let partitions = positions.partitions();
        let asking = blocking(move || {
            let end = |of: TopicPartition| {
                let (_, end) =
                    producer.client().fetch_watermarks(&of.topic, of.partition, ANSWER_TIMEOUT).map_err(broker_error)?;
                Ok((of, end))
            };
            partitions.into_iter().map(end).collect::<Result<Vec<_>, BrokerError>>()
        });
        match asking.await {
            Ok(ends) => {
                for (partition, end) in ends {
                    // It may have moved away meanwhile.
                    if let Some(position) = positions.get(&partition) {
                        report(&group, &partition, end - position);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "the lag is unknown"),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "lags far below 2^52")]
fn report(group: &str, partition: &TopicPartition, lag: i64) {
    let labels =
        [("group", group.to_owned()), ("topic", partition.topic.clone()), ("partition", partition.partition.to_string())];
    metrics::gauge!("messaging_consumer_lag", &labels).set(lag.max(0) as f64);
}
