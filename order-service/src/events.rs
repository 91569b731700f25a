//! From a message to a use case: in one statement where that is possible, else in the consumer's transaction.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use database::Database;
use messaging::{Delivery, Handler, HandlerError, trace::Step};
use schema::{EventId, EventSource as _, PaymentResult, Timestamp};
use sea_orm::{DatabaseTransaction, DbBackend};

use crate::{
    feed::Feed,
    order::{
        EventAndOrder,
        settle::{ReceivedResult, SettleError, settle_orders_at_once_batch, settle_orders_batch},
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
    /// What happened to orders, and the steps of the traces that go through here; they end with the commit.
    type Committed = (Vec<EventAndOrder>, Vec<Step>);

    async fn apply_in_tx(&self, tx: &DatabaseTransaction, batch: &[Delivery]) -> Result<Self::Committed, HandlerError> {
        let (results, steps) = read_all(batch)?;
        let settled = settle_orders_batch(tx, &results, Timestamp::now()).await?;
        self.repeats.store(settled.len() < results.len(), Ordering::Relaxed);
        Ok((settled, steps))
    }

    /// On PostgreSQL, unless repetitions are likely; or a result is not the first one of an order that is here, which only trying finds out: traces show
    /// the step twice then.
    async fn apply_at_once(&self, database: &Database, batch: &[Delivery]) -> Option<Result<Self::Committed, HandlerError>> {
        if database.backend() != DbBackend::Postgres || self.repeats.load(Ordering::Relaxed) {
            return None;
        }
        let (results, steps) = match read_all(batch) {
            Ok(read) => read,
            Err(error) => return Some(Err(error)),
        };
        match settle_orders_at_once_batch(database, &results, Timestamp::now()).await {
            Ok(settled) => Some(Ok((settled, steps))),
            Err(error) if error.needs_locks() => {
                metrics::counter!("orders_batches_locked_total").increment(1);
                None
            }
            Err(error) => Some(Err(error.into())),
        }
    }

    async fn committed(&self, (settled, _steps): Self::Committed) {
        metrics::counter!("orders_settled_total").increment(settled.len() as u64);
        self.feed.committed(settled);
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

/// With the steps of the traces that go through here.
fn read_all(batch: &[Delivery]) -> Result<(Vec<ReceivedResult>, Vec<Step>), HandlerError> {
    let mut steps = Vec::new();
    let results = batch.iter().map(|delivery| read(delivery, &mut steps)).collect::<Result<_, _>>()?;
    Ok((results, steps))
}

fn read(delivery: &Delivery, steps: &mut Vec<Step>) -> Result<ReceivedResult, HandlerError> {
    let event_id = EventId(delivery.event_id()?);
    let result = PaymentResult::from_message(delivery.event_type(), &delivery.payload).map_err(HandlerError::permanent)?;
    let step = Step::receiving(delivery, "settle order").map(|step| step.with("order.id", result.order_id));
    let traceparent = step.as_ref().map(Step::traceparent);
    steps.extend(step);
    Ok(ReceivedResult { event_id, result, traceparent })
}
