//! Live order events: every replica hands what was committed to its own subscribers, in the order of the positions.
//!
//! Each event is put into the bounded queue of each subscriber of its order or user. Positions become visible in their order and without
//! holes, so remembering the last one that was handed out is enough. What this process has committed is handed out from memory if it
//! continues right there ([`Feed::committed`]). Everything else one task per replica reads from `order_events`, each batch once: what
//! others have committed, and what was committed here when something is missing in front of it. Hints shorten its wait; a poll every second
//! is the fallback, and nothing depends on the hint.
//!
//! While nobody is subscribed nothing is read: the feed rests, and the first subscriber waits for it to find its position.
//!
//! A subscriber attaches first, then reads what was before, then takes what comes; so there is no gap. One whose queue is full is cut off
//! and told so by the end of its queue: it attaches again and reads from storage what it has not seen ([`stream`]). So nobody misses
//! anything silently, and a slow subscriber costs a bounded amount of memory.

mod announce;
mod registry;
pub mod stream;
mod tail;

use std::sync::Arc;

use database::Database;
use runtime::stage::Stage;
use schema::{OrderId, UserId};
use tokio::sync::{Notify, mpsc};

use self::registry::Registry;
use crate::order::{EventAndOrder, Position};

/// What one subscriber follows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// One order.
    Order(OrderId),
    /// All orders of one user.
    User(UserId),
}

/// The feed of one replica. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Registry,
    /// Wakes the tail: something was committed that is to be read.
    hint: Notify,
    /// Wakes the announcer: something was committed here.
    committed: Notify,
}

/// A subscriber's place in the feed; dropping it detaches.
pub struct Attachment {
    /// Events from after [`Attachment::position`] on; ends when the subscriber was too slow or the service stops.
    pub events: mpsc::Receiver<Arc<EventAndOrder>>,
    /// Everything up to here was handed out before.
    pub position: Position,
    _guard: registry::Guard,
}

impl Feed {
    /// A feed that is not running yet: hints are kept, events come once [`Feed::start`] was called.
    pub fn new() -> Self {
        Self { shared: Arc::new(Shared { registry: Registry::default(), hint: Notify::new(), committed: Notify::new() }) }
    }

    /// Starts reading behind the last position that is committed now.
    pub fn start(&self, database: &Database, stage: &Stage) {
        stage.spawn("announce events", announce::run(self.clone(), database.clone(), stage.token()));
        stage.spawn("tail events", tail::run(self.clone(), database.clone(), stage.token()));
    }

    /// Hands out what a transaction of this process has appended, all of it, after its commit; never blocks. When a transaction before it has
    /// not been handed out yet, the tail reads both.
    pub fn committed(&self, events: Vec<EventAndOrder>) {
        if events.is_empty() {
            return;
        }
        if !self.shared.registry.dispatch_next(events) {
            self.hint();
        }
        self.shared.committed.notify_one();
    }

    /// Tells that something is there to be read; never blocks.
    pub fn hint(&self) {
        self.shared.hint.notify_one();
    }

    /// Attaches a subscriber, after waking the feed if it rests. `None` when the service stops.
    pub async fn attach(&self, topic: Topic) -> Option<Attachment> {
        while self.shared.registry.running().await {
            // It may have gone to rest again in between.
            if let Some(attachment) = self.shared.registry.attach(topic.clone()) {
                return Some(attachment);
            }
        }
        None
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}
