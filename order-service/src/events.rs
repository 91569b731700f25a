//! From a message to a use case, inside the consumer's transaction.

use async_trait::async_trait;
use messaging::{Delivery, Handler, HandlerError, trace::Step};
use schema::{EventId, EventSource as _, PaymentResult, Timestamp};
use sea_orm::DatabaseTransaction;

use crate::{
    feed::Feed,
    order::{
        EventAndOrder,
        settle::{ReceivedResult, SettleError, settle_orders_batch},
    },
};

/// Consumer group of payment results, without the prefix of its environment.
pub const CONSUMER_GROUP: &str = "order-service";

/// Applies `payment_results`.
pub struct PaymentResults {
    /// Gets what happened after each commit.
    pub feed: Feed,
}

#[async_trait]
impl Handler for PaymentResults {
    /// What happened to orders, and the steps of the traces that go through here; they end with the commit.
    type Committed = (Vec<EventAndOrder>, Vec<Step>);

    async fn apply_in_tx(&self, tx: &DatabaseTransaction, batch: &[Delivery]) -> Result<Self::Committed, HandlerError> {
        let mut steps = Vec::new();
        let results = batch.iter().map(|delivery| read(delivery, &mut steps)).collect::<Result<Vec<_>, _>>()?;
        let settled = settle_orders_batch(tx, &results, Timestamp::now()).await.map_err(|error| match error {
            SettleError::Database(error) => error.into(),
            refusal => HandlerError::permanent(refusal),
        })?;
        Ok((settled, steps))
    }

    async fn committed(&self, (settled, _steps): Self::Committed) {
        metrics::counter!("orders_settled_total").increment(settled.len() as u64);
        self.feed.committed(settled);
    }
}

fn read(delivery: &Delivery, steps: &mut Vec<Step>) -> Result<ReceivedResult, HandlerError> {
    let event_id = EventId(delivery.event_id()?);
    let result = PaymentResult::from_message(delivery.event_type(), &delivery.payload).map_err(HandlerError::permanent)?;
    let step = Step::receiving(delivery, "settle order").map(|step| step.with("order.id", result.order_id));
    let traceparent = step.as_ref().map(Step::traceparent);
    steps.extend(step);
    Ok(ReceivedResult { event_id, result, traceparent })
}
