//! Applies batches: those of several partitions in one transaction if that works; else each alone, whole if that works; else in ever
//! smaller parts until the one message that does not.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use super::handler::{Handler, HandlerError};
use super::session::{FirstFailure, Session};
use super::{BoxError, dead_letter};
use crate::broker::{Batch, BrokerError};
use crate::message::Delivery;

/// How far a batch got.
pub(super) enum Applied {
    /// Every delivery is applied or put away, and stored.
    All,
    /// The first `done` are, which is enough for one turn of the partition.
    Enough { done: usize },
    /// The first `done` are; the next `failed`, tried together, have to be tried again.
    Until { done: usize, failed: usize, error: BoxError },
    /// The partition is somebody else's now: so is the rest of the batch.
    Lost,
    /// A person has to look at it, for this reason.
    Stop(String),
}

enum Put {
    Away,
    NotNow(BoxError),
    Never(String),
}

impl<H: Handler> Session<'_, H> {
    /// Applies the batches of several partitions in one transaction and answers whether that is done. If not, nothing is: each is then
    /// to be applied alone, so that trouble in one partition is not the others'.
    ///
    /// # Errors
    /// If the consumer is of no use any more. What was committed and not stored is delivered again.
    pub(super) async fn apply_together(&mut self, batches: &[Batch]) -> Result<bool, BrokerError> {
        if !batches.iter().all(|batch| self.is_healthy(&batch.source)) {
            return Ok(false);
        }
        let deliveries: Vec<Delivery> = batches.iter().flat_map(|batch| batch.deliveries.iter().cloned()).collect();
        if let Err(error) = self.wiring.apply_part(&deliveries, None, &[]).await {
            tracing::debug!(%error, partitions = batches.len(), "not applied together; each partition alone");
            return Ok(false);
        }
        self.report_transaction(deliveries.len());
        for batch in batches {
            self.report_lag(batch);
            self.applied(batch);
            if !self.store(batch, batch.deliveries.len()).await? {
                self.partitions.remove(&batch.source);
            }
        }
        Ok(true)
    }

    /// Parts are taken in the order of the partition, and each is stored before the next one is sent. The stack holds
    /// at most one part per halving besides those that the batch was cut into at first.
    ///
    /// # Errors
    /// If the consumer is of no use any more. What was committed and not stored is delivered again.
    pub(super) async fn apply(&mut self, batch: &Batch) -> Result<Applied, BrokerError> {
        self.report_lag(batch);
        let wiring = self.wiring;
        let (mut parts, end) = self.first_parts(batch);
        let mut ahead = None;
        while let Some(part) = parts.pop() {
            if part.start > 0 && self.shutdown.is_cancelled() {
                return Ok(Applied::Enough { done: part.start });
            }
            let next = parts.last().map_or(&[][..], |next| &batch.deliveries[next.clone()]);
            match wiring.apply_part(&batch.deliveries[part.clone()], ahead.take(), next).await {
                Ok(next) => {
                    self.report_transaction(part.len());
                    self.applied(batch);
                    ahead = next;
                }
                Err(HandlerError::Transient(error)) => return Ok(Applied::Until { done: part.start, failed: part.len(), error }),
                Err(HandlerError::Permanent(error)) if part.len() > 1 => {
                    tracing::debug!(partition = %batch.source, ?part, %error, "part refused; bisecting");
                    let middle = part.start + part.len() / 2;
                    parts.push(middle..part.end);
                    parts.push(part.start..middle);
                    continue;
                }
                Err(HandlerError::Permanent(error)) => match self.put_away(batch, part.start, &error).await {
                    Put::Away => {}
                    Put::NotNow(error) => return Ok(Applied::Until { done: part.start, failed: part.len(), error }),
                    Put::Never(reason) => return Ok(Applied::Stop(reason)),
                },
            }
            if !self.store(batch, part.end).await? {
                return Ok(Applied::Lost);
            }
            if let Some(reason) = self.too_many_dead_letters(batch) {
                return Ok(Applied::Stop(reason));
            }
        }
        Ok(if end < batch.deliveries.len() { Applied::Enough { done: end } } else { Applied::All })
    }

    /// Stores that the first `done` deliveries are done; `false` when the partition is somebody else's now, and what is left of the batch too.
    async fn store(&mut self, batch: &Batch, done: usize) -> Result<bool, BrokerError> {
        match self.consumer.store(batch, done).await {
            Ok(()) => {
                self.progress = true;
                Ok(true)
            }
            Err(BrokerError::PartitionLost(partition)) => {
                tracing::info!(%partition, "partition taken away; what is left of its batch is dropped");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Each as large as a transaction may be, unless that was too much lately; as many as may be taken in one turn, and where they end. The last part is
    /// the first one to be tried.
    fn first_parts(&mut self, batch: &Batch) -> (Vec<Range<usize>>, usize) {
        let options = &self.wiring.options;
        let (usual, at_most) = (options.transaction_deliveries, options.batch_transactions.max(1));
        let part_max = self.state(&batch.source).part_max.map_or(usual, NonZeroUsize::get).max(1);
        let end = batch.deliveries.len().min(part_max.saturating_mul(at_most));
        let starts = (0..end).step_by(part_max);
        (starts.rev().map(|start| start..end.min(start.saturating_add(part_max))).collect(), end)
    }

    fn applied(&mut self, batch: &Batch) {
        self.dead_letters.clear();
        let state = self.state(&batch.source);
        state.dead_letters.clear();
        state.first_failure = None;
        state.backoff = None;
    }

    /// Publishes one message to the dead-letter topic and waits for the acknowledgement: the partition must not go on
    /// without it. What goes wrong with that is tried again, unless that cannot help.
    async fn put_away(&mut self, batch: &Batch, index: usize, error: &BoxError) -> Put {
        let delivery = &batch.deliveries[index];
        let group = &self.wiring.options.group;
        let first_failure = self.first_failure(batch, delivery);
        let record = dead_letter::record(delivery, group, &error.to_string(), first_failure.at_ms);
        let answer = self.wiring.broker.publish(&[record]).await.pop();
        match answer.unwrap_or_else(|| Err(BrokerError::unavailable("the broker gave no answer"))) {
            Ok(()) => {
                tracing::error!(
                    partition = %batch.source,
                    offset = delivery.offset,
                    event_id = delivery.event_id().ok().map(tracing::field::display),
                    %error,
                    "message put away as a dead letter"
                );
                metrics::counter!("messaging_dead_letters_total", "group" => group.clone(), "topic" => batch.source.topic.clone())
                    .increment(1);
                self.dead_letters.add(delivery);
                let state = self.state(&batch.source);
                state.dead_letters.add(delivery);
                state.first_failure = None;
                state.backoff = None;
                Put::Away
            }
            Err(refused) => {
                let (source, offset) = (&batch.source, delivery.offset);
                let what = format!("dead letter of {source} at offset {offset} ({error}) not acknowledged: {refused}");
                if refused.is_transient() { Put::NotNow(what.into()) } else { Put::Never(what) }
            }
        }
    }

    fn first_failure(&mut self, batch: &Batch, delivery: &Delivery) -> FirstFailure {
        let state = self.state(&batch.source);
        match state.first_failure {
            Some(known) if known.offset == delivery.offset => known,
            _ => *state.first_failure.insert(FirstFailure { offset: delivery.offset, at_ms: now_ms() }),
        }
    }

    /// In a row in this partition, or over all: a topic of rubbish beside a healthy one must stop the loop too.
    fn too_many_dead_letters(&mut self, batch: &Batch) -> Option<String> {
        let limit = self.wiring.options.max_dead_letters_in_a_row;
        let run = self.state(&batch.source).dead_letters.len().max(self.dead_letters.len());
        (run >= limit).then(|| {
            format!(
                "{run} messages in a row could not be applied, the last ones of {}; they are in its dead-letter topic",
                batch.source
            )
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
    fn report_transaction(&self, deliveries: usize) {
        let group = self.wiring.options.group.clone();
        metrics::histogram!("messaging_consumer_batch_deliveries", "group" => group).record(deliveries as f64);
    }

    #[expect(clippy::cast_precision_loss, reason = "lags far below 2^52")]
    fn report_lag(&self, batch: &Batch) {
        let group = self.wiring.options.group.clone();
        if let (Some(end), Some(last)) = (batch.end_offset, batch.deliveries.last()) {
            let lag = (end - last.offset - 1).max(0);
            let partition = batch.source.partition.to_string();
            metrics::gauge!("messaging_consumer_lag", "group" => group, "topic" => batch.source.topic.clone(), "partition" => partition)
                .set(lag as f64);
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|elapsed| i64::try_from(elapsed.as_millis()).ok()).unwrap_or(0)
}
