//! A group's one consumer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use super::ask;
use super::log::{Membership, Topic};
use super::writer::Command;
use crate::broker::{Batch, BrokerError, Consumer, TopicPartition};

/// A wake-up that got lost delays by this much. None should; the poll costs a look at a few numbers in memory.
pub(super) const POLL: Duration = Duration::from_secs(1);

/// Payload bytes after which a batch takes no further record: large records must not add up to more memory than a
/// process has.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

pub(super) struct EmbeddedConsumer {
    membership: Membership,
    commands: mpsc::Sender<Command>,
    changed: watch::Receiver<u64>,
    partitions: Vec<Partition>,
    /// Where the next look begins, so that partitions take turns.
    turn: usize,
}

struct Partition {
    source: TopicPartition,
    topic: Arc<Topic>,
    next_offset: i64,
    paused: bool,
    /// Changes whenever the partition is moved: batches from before then are nobody's.
    assignment: u64,
}

impl Partition {
    fn end_offset(&self) -> i64 {
        self.topic.head(self.source.partition)
    }

    fn is_ready(&self) -> bool {
        !self.paused && self.next_offset < self.end_offset()
    }
}

impl EmbeddedConsumer {
    pub(super) async fn start(
        membership: Membership,
        commands: mpsc::Sender<Command>,
        topics: &[String],
    ) -> Result<Self, BrokerError> {
        let log = &membership.log;
        let mut partitions = Vec::new();
        for name in topics {
            let topic = log.topic(name)?;
            for partition in 0..topic.partitions() {
                let source = TopicPartition { topic: name.clone(), partition };
                let next_offset = log.stored_offset(&membership.group, &source).await?;
                let assignment = membership.new_assignment();
                partitions.push(Partition { source, topic: Arc::clone(&topic), next_offset, paused: false, assignment });
            }
        }
        let changed = log.changed.subscribe();
        Ok(Self { membership, commands, changed, partitions, turn: 0 })
    }

    fn follow_seeks(&mut self) {
        for (source, next_offset) in self.membership.take_seeks() {
            let assignment = self.membership.new_assignment();
            if let Some(partition) = self.partition(&source) {
                partition.next_offset = next_offset;
                partition.assignment = assignment;
            }
        }
    }

    /// What the next partition has, in turn; `None` when none has something, or the log cannot be read now.
    async fn look(&mut self, max: usize) -> Result<Option<Batch>, BrokerError> {
        if self.commands.is_closed() {
            return Err(BrokerError::Closed);
        }
        self.follow_seeks();
        while let Some(index) = self.ready() {
            match self.read(index, max).await {
                Ok(Some(batch)) => return Ok(Some(batch)),
                Ok(None) => {}
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "could not read the log; trying again");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The next partition, in turn, that has something.
    fn ready(&self) -> Option<usize> {
        let count = self.partitions.len();
        (0..count).map(|step| (self.turn + step) % count).find(|index| self.partitions[*index].is_ready())
    }

    async fn read(&mut self, index: usize, max: usize) -> Result<Option<Batch>, BrokerError> {
        let partition = &self.partitions[index];
        let (source, from) = (partition.source.clone(), partition.next_offset);
        let deliveries = self.membership.log.read_batch(&source, from, max.max(1), MAX_BATCH_BYTES).await?;
        // Nothing was changed up to here: a caller that stopped waiting gets the same deliveries next time.
        self.turn = (index + 1) % self.partitions.len();
        let partition = &mut self.partitions[index];
        let Some(last) = deliveries.last() else {
            partition.next_offset = partition.end_offset();
            return Ok(None);
        };
        partition.next_offset = last.offset + 1;
        Ok(Some(Batch { source, end_offset: Some(partition.end_offset()), deliveries, assignment: partition.assignment }))
    }

    fn partition(&mut self, source: &TopicPartition) -> Option<&mut Partition> {
        self.partitions.iter_mut().find(|partition| partition.source == *source)
    }

    /// The batch's partition, unless it was moved since.
    fn assigned(&mut self, batch: &Batch) -> Option<&mut Partition> {
        self.partition(&batch.source).filter(|partition| partition.assignment == batch.assignment)
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn next_batch(&mut self, max: usize) -> Result<Batch, BrokerError> {
        loop {
            // Before looking, so that what is appended while we look wakes us.
            self.changed.borrow_and_update();
            if let Some(batch) = self.look(max).await? {
                return Ok(batch);
            }
            // Both endings mean the same: look again.
            let _ = tokio::time::timeout(POLL, self.changed.changed()).await;
        }
    }

    async fn ready_batch(&mut self, max: usize) -> Result<Option<Batch>, BrokerError> {
        self.look(max).await
    }

    async fn store(&mut self, batch: &Batch, done: usize) -> Result<(), BrokerError> {
        let lost = || BrokerError::PartitionLost(batch.source.clone());
        self.assigned(batch).ok_or_else(lost)?;
        let Some(last) = done.checked_sub(1).and_then(|last| batch.deliveries.get(last)) else { return Ok(()) };
        if self.membership.store(&batch.source, last.offset + 1) { Ok(()) } else { Err(lost()) }
    }

    async fn hold(&mut self, batch: &Batch, from: usize) -> Result<(), BrokerError> {
        if let Some(partition) = self.assigned(batch) {
            partition.paused = true;
            if let Some(first) = batch.deliveries.get(from) {
                partition.next_offset = first.offset;
            }
        }
        Ok(())
    }

    async fn resume(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        if let Some(partition) = self.partition(partition) {
            partition.paused = false;
        }
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<(), BrokerError> {
        ask(&self.commands, |done| Command::Flush { done }).await
    }
}
