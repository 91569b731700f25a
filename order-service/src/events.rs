//! From a message to a use case: in one statement where that is possible, else in the consumer's transaction.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use database::Database;
use messaging::{Delivery, Handler, HandlerError, Ready, trace::Step};
use schema::{EventId, EventSource as _, PaymentResult, Timestamp};
use sea_orm::{DatabaseTransaction, DbBackend};

use crate::{
    feed::Feed,
    order::{
        EventAndOrder,
        settle::{ReceivedResult, SettleError, ready_results_batch, settle_orders_batch},
    },
};

/// Consumer group of payment results, without the prefix of its environment.
pub const CONSUMER_GROUP: &str = "order-service";

/// Applies `payment_results`.
pub struct PaymentResults {
    feed: Feed,
    /// Whether some results of the last batch under locks changed nothing. These come in rows, and first of all: what was not stored before a crash
    /// comes again.
    repeats: AtomicBool,
}

impl PaymentResults {
    /// What happened goes to `feed` after each commit.
    pub fn new(feed: Feed) -> Self {
        Self { feed, repeats: AtomicBool::new(true) }
    }
}

#[async_trait]
impl Handler for PaymentResults {
    /// With the steps of the traces that go through here; they end with the commit.
    type Read = (Vec<ReceivedResult>, Vec<Step>);
    /// What happened to orders.
    type Committed = Vec<EventAndOrder>;

    fn read(&self, deliveries: &[Delivery]) -> Result<Self::Read, HandlerError> {
        let mut steps = Vec::new();
        let results = deliveries.iter().map(|delivery| read_result(delivery, &mut steps)).collect::<Result<_, _>>()?;
        Ok((results, steps))
    }

    async fn apply_in_tx(&self, tx: &DatabaseTransaction, (results, _): &Self::Read) -> Result<Self::Committed, HandlerError> {
        let settled = settle_orders_batch(tx, results, Timestamp::now()).await?;
        self.repeats.store(settled.len() < results.len(), Ordering::Relaxed);
        Ok(settled)
    }

    /// On PostgreSQL, unless repetitions are likely. That a result is not the first one of an order that is here, only trying finds out.
    fn make_ready<'a>(
        &'a self,
        database: &'a Database,
        (results, _): &Self::Read,
    ) -> Result<Option<Ready<'a, Self::Committed>>, HandlerError> {
        if database.backend() != DbBackend::Postgres || self.repeats.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let ready = ready_results_batch(results, Timestamp::now());
        Ok(unless_locks_are_needed(ready)?
            .map(|results| -> Ready<'a, _> { Box::pin(async { unless_locks_are_needed(results.settle_batch(database).await) }) }))
    }

    async fn committed(&self, settled: Self::Committed) {
        metrics::counter!("orders_settled_total").increment(settled.len() as u64);
        self.feed.committed(settled);
    }
}

fn unless_locks_are_needed<T>(result: Result<T, SettleError>) -> Result<Option<T>, HandlerError> {
    match result {
        Err(error) if error.needs_locks() => {
            metrics::counter!("orders_batches_locked_total").increment(1);
            Ok(None)
        }
        result => Ok(Some(result?)),
    }
}

impl From<SettleError> for HandlerError {
    fn from(error: SettleError) -> Self {
        match error {
            SettleError::Database(error) => error.into(),
            refusal => Self::permanent(refusal),
        }
    }
}

fn read_result(delivery: &Delivery, steps: &mut Vec<Step>) -> Result<ReceivedResult, HandlerError> {
    let event_id = EventId(delivery.event_id()?);
    let result = PaymentResult::from_message(delivery.event_type(), &delivery.payload).map_err(HandlerError::permanent)?;
    let step = Step::receiving(delivery, "settle order").map(|step| step.with("order.id", result.order_id));
    let traceparent = step.as_ref().map(Step::traceparent);
    steps.extend(step);
    Ok(ReceivedResult { event_id, result, traceparent })
}
