//! One membership of a group: from joining until shutdown, a broken consumer, or dead letters that a person has to see.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::Instant;

use backon::ExponentialBackoff;
use tokio_util::sync::CancellationToken;

use super::bisect::Applied;
use super::{BoxError, ConsumerLoop, Handler, dead_letter};
use crate::broker::{Batch, BrokerError, Consumer, TopicPartition};
use crate::gate::Gate;

/// Why a membership ended.
pub(super) enum End {
    Shutdown,
    /// A new consumer is needed.
    Broken(BrokerError),
    /// A person is needed.
    Stopped(String),
}

/// A message found to be unappliable, while its dead letter is not yet acknowledged.
#[derive(Clone, Copy)]
pub(super) struct FirstFailure {
    pub(super) offset: i64,
    pub(super) at_ms: i64,
}

/// What is remembered of a partition between batches; at most one per assigned partition.
#[derive(Default)]
pub(super) struct PartitionState {
    /// Set while the partition waits for its next try.
    due: Option<Instant>,
    /// Continues from try to try; gone after a part that went well, or was put away.
    pub(super) backoff: Option<ExponentialBackoff>,
    pub(super) first_failure: Option<FirstFailure>,
    pub(super) dead_letters: dead_letter::Run,
    /// Deliveries per transaction while smaller ones than usual are tried.
    pub(super) part_max: Option<NonZeroUsize>,
}

impl PartitionState {
    /// A batch that is too much for the database's time limits must not be tried in the same size for ever.
    fn try_smaller(&mut self, failed: usize) {
        self.part_max = NonZeroUsize::new(failed / 2).or(Some(NonZeroUsize::MIN));
    }

    /// Back to the bound of a transaction, step by step.
    fn try_larger(&mut self, transaction_deliveries: usize) {
        self.part_max = self
            .part_max
            .map(|part_max| part_max.saturating_mul(NonZeroUsize::MIN.saturating_add(1)))
            .filter(|part_max| part_max.get() < transaction_deliveries);
    }
}

pub(super) struct Session<'a, H> {
    pub(super) wiring: &'a ConsumerLoop<H>,
    pub(super) consumer: Box<dyn Consumer>,
    pub(super) shutdown: &'a CancellationToken,
    gate: &'a Gate,
    pub(super) partitions: HashMap<TopicPartition, PartitionState>,
    /// Partitions that had something while the gate was closed.
    at_gate: Vec<TopicPartition>,
    pub(super) dead_letters: dead_letter::Run,
    pub(super) progress: bool,
}

impl<'a, H: Handler> Session<'a, H> {
    pub(super) fn new(
        wiring: &'a ConsumerLoop<H>,
        consumer: Box<dyn Consumer>,
        shutdown: &'a CancellationToken,
        gate: &'a Gate,
    ) -> Self {
        Self {
            wiring,
            consumer,
            shutdown,
            gate,
            partitions: HashMap::new(),
            at_gate: Vec::new(),
            dead_letters: dead_letter::Run::default(),
            progress: false,
        }
    }

    /// Whether this membership got anything done.
    pub(super) fn made_progress(&self) -> bool {
        self.progress
    }

    pub(super) async fn close(self) -> Result<(), BrokerError> {
        self.consumer.close().await
    }

    pub(super) async fn run(&mut self) -> End {
        loop {
            match self.step().await {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(error) => return End::Broken(error),
            }
        }
    }

    /// Waits for the one thing that comes first and does it.
    async fn step(&mut self) -> Result<Option<End>, BrokerError> {
        let due = self.partitions.values().filter_map(|state| state.due).min();
        let retry = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let batch = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Ok(Some(End::Shutdown)),
            () = retry => return self.resume_due().await.map(|()| None),
            () = self.gate.wait_open(), if !self.at_gate.is_empty() => return self.resume_at_gate().await.map(|()| None),
            batch = self.consumer.next_batch(self.wiring.options.batch_deliveries()) => batch?,
        };
        let batches = self.gather(batch).await?;
        self.work(&batches).await
    }

    /// What other partitions have ready already, up to a transaction's bound: under load one durable commit then serves all of them, and
    /// nobody waits for it.
    async fn gather(&mut self, first: Batch) -> Result<Vec<Batch>, BrokerError> {
        let bound = self.wiring.options.transaction_deliveries;
        let mut room = bound.saturating_sub(first.deliveries.len());
        let mut batches = vec![first];
        while room > 0 {
            let Some(next) = self.consumer.ready_batch(room).await? else { break };
            if batches.iter().any(|batch| batch.source == next.source) {
                // One batch per partition, so that what is held later stays in order: this one comes first next time.
                self.consumer.hold(&next, 0).await?;
                self.consumer.resume(&next.source).await?;
                break;
            }
            room = room.saturating_sub(next.deliveries.len());
            batches.push(next);
        }
        Ok(batches)
    }

    async fn work(&mut self, batches: &[Batch]) -> Result<Option<End>, BrokerError> {
        let Some(_pass) = self.gate.try_pass() else {
            for batch in batches {
                self.consumer.hold(batch, 0).await?;
                self.at_gate.push(batch.source.clone());
            }
            return Ok(None);
        };
        if batches.len() > 1 && self.apply_together(batches).await? {
            return Ok(None);
        }
        for batch in batches {
            if let Some(end) = self.work_alone(batch).await? {
                // The batches after it are not stored: they are delivered again.
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    async fn work_alone(&mut self, batch: &Batch) -> Result<Option<End>, BrokerError> {
        match self.apply(batch).await? {
            Applied::All => self.try_larger(&batch.source),
            Applied::Enough { done } => {
                self.try_larger(&batch.source);
                self.consumer.hold(batch, done).await?;
                self.consumer.resume(&batch.source).await?;
            }
            Applied::Until { done, failed, error } => {
                self.consumer.hold(batch, done).await?;
                self.state(&batch.source).try_smaller(failed);
                self.retry_later(&batch.source, &error);
            }
            Applied::Lost => {
                self.partitions.remove(&batch.source);
            }
            Applied::Stop(reason) => return Ok(Some(End::Stopped(reason))),
        }
        self.report_held();
        Ok(None)
    }

    /// Nothing has gone wrong with it lately.
    pub(super) fn is_healthy(&self, partition: &TopicPartition) -> bool {
        self.partitions.get(partition).is_none_or(|state| {
            state.due.is_none() && state.backoff.is_none() && state.part_max.is_none() && state.first_failure.is_none()
        })
    }

    pub(super) fn state(&mut self, partition: &TopicPartition) -> &mut PartitionState {
        self.partitions.entry(partition.clone()).or_default()
    }

    fn try_larger(&mut self, partition: &TopicPartition) {
        let transaction_deliveries = self.wiring.options.transaction_deliveries;
        self.state(partition).try_larger(transaction_deliveries);
    }

    fn retry_later(&mut self, partition: &TopicPartition, error: &BoxError) {
        let options = &self.wiring.options;
        let state = self.partitions.entry(partition.clone()).or_default();
        let first = state.backoff.is_none();
        let backoff = state.backoff.get_or_insert_with(|| options.backoff());
        let wait = backoff.next().unwrap_or(options.retry_max);
        state.due = Some(Instant::now() + wait);
        metrics::counter!("messaging_consumer_retries_total", "group" => options.group.clone()).increment(1);
        // Once per outage at the level that wakes somebody; the tries in between are for those who look.
        if first {
            tracing::warn!(%partition, error = %error, ?wait, "cannot apply now; the partition waits, others go on");
        } else {
            tracing::debug!(%partition, error = %error, ?wait, "still cannot apply");
        }
    }

    async fn resume_due(&mut self) -> Result<(), BrokerError> {
        let now = Instant::now();
        for (partition, state) in &mut self.partitions {
            if state.due.is_some_and(|due| due <= now) {
                state.due = None;
                self.consumer.resume(partition).await?;
            }
        }
        Ok(())
    }

    async fn resume_at_gate(&mut self) -> Result<(), BrokerError> {
        for partition in self.at_gate.drain(..) {
            self.consumer.resume(&partition).await?;
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge of a handful of partitions")]
    fn report_held(&self) {
        let held = self.partitions.values().filter(|state| state.due.is_some()).count();
        metrics::gauge!("messaging_consumer_held_partitions", "group" => self.wiring.options.group.clone()).set(held as f64);
    }
}
