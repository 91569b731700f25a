//! What a subscriber sees: the past from storage, then what comes, without gap or repeat.

use std::sync::Arc;

use async_stream::try_stream;
use database::Database;
use messaging::trace::{SpanKind, Step};
use schema::{OrderId, UserId};
use sea_orm::DbErr;
use tokio_stream::Stream;

use super::{Attachment, Feed, Topic};
use crate::order::{
    EventAndOrder, OrderEvent, Position,
    find::{self, Cursor},
};

/// Events per read of the past.
const REPLAY_EVENTS: u64 = 500;

/// Why a stream ends before its time.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The order does not exist, or is not for these eyes.
    #[error("no such order")]
    NotFound,
    /// The position was pruned, or was never given out here.
    #[error("the cursor points to what is not kept")]
    Expired,
    /// The database failed; resume with the last cursor.
    #[error(transparent)]
    Database(#[from] DbErr),
    /// The service stops; resume with the last cursor.
    #[error("the service is stopping")]
    Stopping,
}

/// The current state of one order as its last event, then every change; ends once the payment is decided.
///
/// The caller has checked that the order may be seen.
pub fn of_order(feed: Feed, database: Database, order: OrderId) -> impl Stream<Item = Result<Arc<EventAndOrder>, FeedError>> {
    try_stream! {
        let mut version = 0;
        loop {
            let mut attachment = attach(&feed, Topic::Order(order)).await?;
            // Boxed, here and below: a subscriber that waits does not keep the room that reading took.
            let missed = Box::pin(find::events_since_version(database.reader(), order, version)).await?;
            // At first only the current state; after having been cut off, every change that was missed.
            let skip = if version == 0 { missed.len().saturating_sub(1) } else { 0 };
            if version == 0 && missed.is_empty() {
                Err(FeedError::NotFound)?;
            }
            for event in missed.into_iter().skip(skip) {
                version = event.version;
                let last = event.status.is_final();
                let push = pushing(&event);
                yield Arc::new(event);
                drop(push);
                if last { return; }
            }
            while let Some(event) = attachment.events.recv().await {
                if event.version <= version { continue; }
                version = event.version;
                let last = event.status.is_final();
                let push = pushing(&event);
                yield event;
                drop(push);
                if last { return; }
            }
        }
    }
}

/// All events of one user: after `after`, or from now on.
pub fn of_user(
    feed: Feed,
    database: Database,
    user: UserId,
    after: Option<Position>,
) -> impl Stream<Item = Result<Arc<EventAndOrder>, FeedError>> {
    try_stream! {
        if let Some(after) = after {
            check(Box::pin(find::cursor(database.reader())).await?, after)?;
        }
        let mut seen = after;
        loop {
            let mut attachment = attach(&feed, Topic::User(user.clone())).await?;
            let mut position = seen.unwrap_or(attachment.position);
            loop {
                let past = Box::pin(find::events_of_user(database.reader(), &user, position, REPLAY_EVENTS)).await?;
                let more = past.len() as u64 == REPLAY_EVENTS;
                for event in past {
                    position = event.position;
                    let push = pushing(&event);
                    yield Arc::new(event);
                    drop(push);
                }
                if !more { break; }
            }
            while let Some(event) = attachment.events.recv().await {
                if event.position <= position { continue; }
                position = event.position;
                let push = pushing(&event);
                yield event;
                drop(push);
            }
            // Cut off: go on where this attachment stopped, also when it saw no event.
            seen = Some(position);
        }
    }
}

/// The last step of an order's trace: from handing an event out until its subscriber asks for the next one, which it does when this one
/// was written to its socket.
fn pushing(event: &OrderEvent) -> Option<Step> {
    let step = Step::after(event.traceparent.as_deref()?, "push order event", SpanKind::Producer)?;
    Some(step.with("order.id", event.order_id).with("order.version", event.version))
}

/// A position of which everything later is still there.
fn check(cursor: Cursor, after: Position) -> Result<(), FeedError> {
    let kept = (cursor.oldest - 1)..cursor.next;
    if kept.contains(&after.0) { Ok(()) } else { Err(FeedError::Expired) }
}

async fn attach(feed: &Feed, topic: Topic) -> Result<Attachment, FeedError> {
    feed.attach(topic).await.ok_or(FeedError::Stopping)
}
