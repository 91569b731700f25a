//! Received messages become payment decisions: in one statement where that is possible, else in the transaction of the consumer loop.
//!
//! A message that is no payment task is a permanent error: the loop finds it by bisection and puts it away as a dead letter.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use database::Database;
use messaging::{Delivery, Handler, HandlerError, Ready, RelayHandle, message::header, trace::Step};
use schema::{EventId, EventSource as _, PaymentTask, Timestamp};
use sea_orm::{DatabaseTransaction, DbBackend};

use crate::payment::{PaymentError, Settled, Task, decide_payments_batch, ready_payments_batch};

/// The consumer group of all replicas, without the prefix of their environment.
pub const GROUP: &str = "payment-service";

/// Handles `payment_tasks`.
#[derive(Debug)]
pub struct PaymentTasks {
    /// The topic of the results, with its prefix.
    results_topic: String,
    relay: RelayHandle,
    /// Whether some tasks of the last batch under locks were repetitions. These come in rows, and first of all: what was not stored before a crash
    /// comes again.
    repeats: AtomicBool,
}

impl PaymentTasks {
    /// Results go to `results_topic` through `relay`.
    pub fn new(results_topic: String, relay: RelayHandle) -> Self {
        Self { results_topic, relay, repeats: AtomicBool::new(true) }
    }
}

#[async_trait]
impl Handler for PaymentTasks {
    /// With the steps of the traces that go through here; they end with the commit.
    type Read = (Vec<Task>, Vec<Step>);
    type Committed = Settled;

    fn read(&self, deliveries: &[Delivery]) -> Result<Self::Read, HandlerError> {
        let mut steps = Vec::new();
        let tasks = deliveries.iter().map(|delivery| read_task(delivery, &mut steps)).collect::<Result<_, _>>()?;
        Ok((tasks, steps))
    }

    async fn apply_in_tx(&self, tx: &DatabaseTransaction, (tasks, _): &Self::Read) -> Result<Settled, HandlerError> {
        let settled = decide_payments_batch(tx, &self.results_topic, tasks, Timestamp::now()).await?;
        self.repeats.store(settled.repeated > 0, Ordering::Relaxed);
        Ok(settled)
    }

    /// On PostgreSQL, unless repetitions are likely. That an order was decided before, or is to be rejected, only trying finds out.
    fn make_ready<'a>(
        &'a self,
        database: &'a Database,
        (tasks, _): &Self::Read,
    ) -> Result<Option<Ready<'a, Settled>>, HandlerError> {
        if database.backend() != DbBackend::Postgres || self.repeats.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let ready = ready_payments_batch(&self.results_topic, tasks, Timestamp::now());
        Ok(unless_locks_are_needed(ready)?.map(|payments| -> Ready<'a, _> {
            Box::pin(async { unless_locks_are_needed(payments.write_batch(database).await) })
        }))
    }

    async fn committed(&self, settled: Settled) {
        let count = |name: &'static str, value: usize| metrics::counter!(name).increment(value as u64);
        count("payments_paid_total", settled.paid);
        count("payments_rejected_total", settled.rejected);
        count("payments_tasks_repeated_total", settled.repeated);
        count("payments_tasks_redelivered_total", settled.redelivered);
        self.relay.committed(settled.results);
    }
}

fn unless_locks_are_needed<T>(result: Result<T, PaymentError>) -> Result<Option<T>, HandlerError> {
    match result {
        Err(error) if error.needs_locks() => {
            metrics::counter!("payments_batches_locked_total").increment(1);
            Ok(None)
        }
        result => Ok(Some(result?)),
    }
}

fn read_task(delivery: &Delivery, steps: &mut Vec<Step>) -> Result<Task, HandlerError> {
    let event_id = EventId(delivery.event_id()?);
    let payment = PaymentTask::from_message(delivery.event_type(), &delivery.payload).map_err(HandlerError::permanent)?;
    let step = Step::receiving(delivery, "decide payment").map(|step| step.with("order.id", payment.order_id));
    let traceparent = match &step {
        Some(step) => Some(step.traceparent().into()),
        // Not recorded here, but perhaps by those who come after.
        // Copied, because it may wait for the broker, and would keep the whole message.
        None => delivery.headers.get(header::TRACEPARENT).map(|sent| Bytes::copy_from_slice(sent)),
    };
    steps.extend(step);
    Ok(Task { event_id, payment, traceparent })
}
