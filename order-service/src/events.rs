//! From a message to a use case, inside the consumer's transaction.

use async_trait::async_trait;
use messaging::{Delivery, Handler, HandlerError};
use schema::{EventId, EventSource as _, PaymentResult, Timestamp};
use sea_orm::DatabaseTransaction;

use crate::{
    feed::Feed,
    order::settle::{ReceivedResult, SettleError, settle_orders_batch},
};

/// Consumer group of payment results, without the prefix of its environment.
pub const CONSUMER_GROUP: &str = "order-service";

/// Applies `payment_results`.
pub struct PaymentResults {
    /// Told after each commit.
    pub feed: Feed,
}

#[async_trait]
impl Handler for PaymentResults {
    type Committed = usize;

    async fn apply_in_tx(&self, tx: &DatabaseTransaction, batch: &[Delivery]) -> Result<usize, HandlerError> {
        let results = batch.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        settle_orders_batch(tx, &results, Timestamp::now()).await.map_err(|error| match error {
            SettleError::Database(error) => error.into(),
            refusal => HandlerError::permanent(refusal),
        })
    }

    async fn committed(&self, settled: usize) {
        if settled > 0 {
            metrics::counter!("orders_settled_total").increment(settled as u64);
            self.feed.hint();
        }
    }
}

fn read(delivery: &Delivery) -> Result<ReceivedResult, HandlerError> {
    let event_id = EventId(delivery.event_id()?);
    let result = PaymentResult::from_message(delivery.event_type(), &delivery.payload).map_err(HandlerError::permanent)?;
    Ok(ReceivedResult { event_id, result })
}
