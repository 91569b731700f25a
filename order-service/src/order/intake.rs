//! Concurrent `createOrder` calls share a transaction.
//!
//! A call waits in a bounded queue. A worker takes what waits, up to [`create::MAX_BATCH`], commits it in one transaction and gives each caller
//! its own answer; while it commits, the next batch gathers. Nobody waits for a batch to fill: an order alone is a batch of one. On
//! PostgreSQL a batch that has become large does not wait for the commit of the one before it: while the database works for some of the
//! callers, this process works for the others. The worker owns the orders, so a caller that goes away cancels nothing.

use std::{collections::HashMap, sync::Arc};

use database::{BoxFuture, Database, DatabaseError, Reader};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use messaging::{relay::RelayHandle, trace::Step};
use runtime::stage::Stage;
use sea_orm::DbBackend;
use tokio::sync::{
    mpsc,
    oneshot::{self, error::RecvError},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use super::create::{self, CreateOutcome, Created, NewOrder, Repeats, create_orders_batch};
use crate::feed::Feed;

/// Calls that may wait: some batches, so that a stall of the database is answered with an error instead of with growing memory.
const QUEUE_CALLS: usize = 4 * create::MAX_BATCH;

/// Batches that are committed at the same time on PostgreSQL: their transactions end one after the other, at the event counter's lock, so a
/// third would only wait. SQLite has one writer.
pub const MAX_BATCHES: u32 = 2;

/// Orders that must wait for a batch to be started beside another one: a statement's fixed part is then shared by enough of them.
const SECOND_BATCH: usize = 32;

/// Why a call was not answered with an outcome.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IntakeError {
    /// More calls wait than can be served soon, or the service is stopping. Nothing was stored.
    #[error("too many orders are waiting")]
    Overloaded,
    /// The database failed. Unless the error says that the outcome is unknown, nothing was stored.
    #[error(transparent)]
    Database(Arc<DatabaseError>),
}

struct Call {
    order: NewOrder,
    answer: oneshot::Sender<Result<CreateOutcome, IntakeError>>,
    span: tracing::Span,
}

/// Accepts orders. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    calls: mpsc::Sender<Call>,
}

/// What a worker needs to commit orders and to tell about them.
#[derive(Clone)]
pub struct IntakeContext {
    /// Where orders are stored; [`MAX_BATCHES`] transactions run at a time.
    pub database: Database,
    /// Reads the orders of calls that are repeated, as many at a time as there are such calls.
    pub reader: Reader,
    /// Publishes the payment tasks after the commit.
    pub relay: RelayHandle,
    /// Gets the events after the commit, so that subscribers need not wait for its poll.
    pub feed: Feed,
    /// Topic of the payment tasks.
    pub tasks_topic: Arc<str>,
}

impl Intake {
    /// Starts the worker; when `stage` stops, it answers the calls that wait and ends.
    pub fn start(context: IntakeContext, stage: &Stage) -> Self {
        let (calls, queue) = mpsc::channel(QUEUE_CALLS);
        let worker = Worker { context, tasks: stage.tasks().clone() };
        stage.spawn("intake", work(worker, queue, stage.token()));
        Self { calls }
    }

    /// Answers once the order and its payment task are durable.
    ///
    /// # Errors
    /// [`IntakeError`].
    pub async fn create(&self, mut order: NewOrder) -> Result<CreateOutcome, IntakeError> {
        // Of the caller's trace; ends with the answer.
        let step = Step::here("create order");
        order.traceparent = step.as_ref().map(Step::traceparent);
        let (answer, answered) = oneshot::channel();
        let call = Call { order, answer, span: tracing::Span::current() };
        self.calls.try_send(call).map_err(|_| IntakeError::Overloaded)?;
        // Whoever had the order is gone, and perhaps had stored it.
        let unknown = |error: RecvError| DatabaseError::OutcomeUnknown { transaction: create::CREATE, reason: error.to_string() };
        answered.await.map_err(|error| IntakeError::Database(Arc::new(unknown(error))))?
    }
}

/// What a batch needs.
#[derive(Clone)]
struct Worker {
    context: IntakeContext,
    tasks: TaskTracker,
}

/// Batches that are being committed.
type Committing = FuturesUnordered<BoxFuture<'static, ()>>;

async fn work(worker: Worker, mut queue: mpsc::Receiver<Call>, shutdown: CancellationToken) {
    let batches = if worker.context.database.backend() == DbBackend::Sqlite { 1 } else { MAX_BATCHES };
    let mut waiting = Vec::with_capacity(create::MAX_BATCH);
    let mut committing = Committing::new();
    let mut open = true;
    while open || !waiting.is_empty() || !committing.is_empty() {
        let room = create::MAX_BATCH - waiting.len();
        tokio::select! {
            biased;
            Some(()) = committing.next(), if !committing.is_empty() => {}
            received = queue.recv_many(&mut waiting, room), if open && room > 0 => open = received > 0,
            () = shutdown.cancelled(), if !queue.is_closed() => queue.close(),
        }
        let worth_it = committing.is_empty() || (committing.len() < batches as usize && waiting.len() >= SECOND_BATCH);
        if worth_it && !waiting.is_empty() {
            let calls = std::mem::replace(&mut waiting, Vec::with_capacity(create::MAX_BATCH));
            let worker = worker.clone();
            committing.push(Box::pin(async move { commit(&worker, calls).await }));
        }
    }
}

async fn commit(worker: &Worker, calls: Vec<Call>) {
    let context = &worker.context;
    let span = tracing::info_span!("create_orders", orders = calls.len());
    for call in &calls {
        span.follows_from(call.span.id());
    }
    metrics::histogram!("orders_batch_size").record(calls.len() as f64);
    let orders: Vec<NewOrder> = calls.iter().map(|call| call.order.clone()).collect();
    let stored = create_orders_batch(&context.database, &context.tasks_topic, &orders).instrument(span.clone()).await;
    match stored {
        Ok(created) => hand_out(worker, calls, created),
        Err(error) if error.is_transient() || calls.len() == 1 => {
            tracing::warn!(parent: &span, %error, "orders could not be stored");
            // If they are stored all the same, subscribers need not wait for a poll.
            context.feed.hint();
            let error = IntakeError::Database(Arc::new(error));
            calls.into_iter().for_each(|call| drop(call.answer.send(Err(error.clone()))));
        }
        // One of them is refused by the database: alone, it fails only its own caller.
        Err(_) => {
            for call in calls {
                Box::pin(commit(worker, vec![call])).await;
            }
        }
    }
}

/// Tells everybody what was stored. Who repeats an earlier call is answered when its order was read, for which nobody else waits.
fn hand_out(Worker { context, tasks }: &Worker, calls: Vec<Call>, created: Created) {
    let Created { outcomes, repeats, outbox, events } = created;
    if !outbox.is_empty() {
        metrics::counter!("orders_created_total").increment(outbox.len() as u64);
        context.relay.committed(outbox);
        context.feed.committed(events);
    }
    let mut repeating = HashMap::new();
    for (index, (call, outcome)) in calls.into_iter().zip(outcomes).enumerate() {
        match outcome {
            // A caller that went away has no answer to get; its order stands.
            Some(outcome) => drop(call.answer.send(Ok(outcome))),
            None => drop(repeating.insert(index, call)),
        }
    }
    if !repeats.is_empty() {
        let reader = context.reader.clone();
        // As many as there are callers, which the endpoint bounds.
        tasks.spawn(async move { answer_repeats(&reader, repeats, repeating).await });
    }
}

async fn answer_repeats(reader: &Reader, repeats: Repeats, mut calls: HashMap<usize, Call>) {
    match repeats.look_up(reader).await {
        Ok(outcomes) => {
            for (index, outcome) in outcomes {
                if let Some(call) = calls.remove(&index) {
                    drop(call.answer.send(Ok(outcome)));
                }
            }
        }
        Err(error) => {
            tracing::warn!(%error, "orders of repeated calls could not be read");
            let error = IntakeError::Database(Arc::new(error.into()));
            calls.into_values().for_each(|call| drop(call.answer.send(Err(error.clone()))));
        }
    }
}

#[cfg(test)]
mod tests {
    use schema::{CurrencyCode, Money, UserId};

    use super::*;

    /// Whoever is told that nothing was stored orders once more.
    #[tokio::test]
    async fn an_order_whose_answer_is_lost_may_have_been_stored() {
        let (calls, mut queue) = mpsc::channel(1);
        let order = NewOrder {
            user_id: UserId("ada".to_owned()),
            total: Money { minor: 5, currency: CurrencyCode::EUR },
            description: "a book".to_owned(),
            idempotency_key: None,
            traceparent: None,
        };
        let intake = Intake { calls };
        let (answer, ()) = tokio::join!(intake.create(order), async { drop(queue.recv().await) });
        assert!(matches!(answer, Err(IntakeError::Database(error)) if error.is_outcome_unknown()));
    }
}
