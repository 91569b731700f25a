//! Received messages become payment decisions, in the transaction of the consumer loop.
//!
//! A message that is no payment task is a permanent error: the loop finds it by bisection and puts it away as a dead letter.

use async_trait::async_trait;
use messaging::{Delivery, Handler, HandlerError, RelayHandle, message::header};
use schema::{EventId, EventSource as _, PaymentTask, Timestamp};
use sea_orm::DatabaseTransaction;

use crate::payment::{Settled, Task, decide_payments_batch};

/// The consumer group of all replicas, without the prefix of their environment.
pub const GROUP: &str = "payment-service";

/// Handles `payment_tasks`.
#[derive(Debug, Clone)]
pub struct PaymentTasks {
    /// The topic of the results, with its prefix.
    results_topic: String,
    relay: RelayHandle,
}

impl PaymentTasks {
    /// Results go to `results_topic` through `relay`.
    pub fn new(results_topic: String, relay: RelayHandle) -> Self {
        Self { results_topic, relay }
    }
}

#[async_trait]
impl Handler for PaymentTasks {
    type Committed = Settled;

    async fn apply_in_tx(&self, tx: &DatabaseTransaction, batch: &[Delivery]) -> Result<Settled, HandlerError> {
        let tasks = batch.iter().map(read_task).collect::<Result<Vec<_>, _>>()?;
        Ok(decide_payments_batch(tx, &self.results_topic, &tasks, Timestamp::now()).await?)
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

fn read_task(delivery: &Delivery) -> Result<Task, HandlerError> {
    let event_id = EventId(delivery.event_id()?);
    let payment = PaymentTask::from_message(delivery.event_type(), &delivery.payload).map_err(HandlerError::permanent)?;
    Ok(Task { event_id, payment, traceparent: delivery.headers.get(header::TRACEPARENT).cloned() })
}
