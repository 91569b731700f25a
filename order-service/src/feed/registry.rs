//! Who follows what.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::{mpsc, watch};

use super::{Attachment, Topic};
use crate::order::{OrderEvent, Position};

/// Events that wait for one subscriber: enough for a burst of one user's orders, small enough for ten thousand subscribers.
const QUEUE_EVENTS: usize = 64;

/// The subscribers of one replica.
#[derive(Clone, Default)]
pub(super) struct Registry {
    state: Arc<Mutex<State>>,
    started: Arc<Started>,
}

struct Started(watch::Sender<bool>);

impl Default for Started {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

#[derive(Default)]
struct State {
    subscribers: HashMap<Topic, Vec<Subscriber>>,
    next_id: u64,
    /// Everything up to here was handed out; none before the feed runs.
    position: Option<Position>,
}

struct Subscriber {
    id: u64,
    queue: mpsc::Sender<Arc<OrderEvent>>,
}

/// Detaches when dropped.
pub(super) struct Guard {
    state: Weak<Mutex<State>>,
    topic: Topic,
    id: u64,
}

impl Registry {
    pub(super) fn attach(&self, topic: Topic) -> Option<Attachment> {
        let mut state = lock(&self.state);
        let position = state.position?;
        let id = state.next_id;
        state.next_id += 1;
        let (queue, events) = mpsc::channel(QUEUE_EVENTS);
        state.subscribers.entry(topic.clone()).or_default().push(Subscriber { id, queue });
        metrics::gauge!("feed_subscribers").increment(1.0);
        Some(Attachment { events, position, _guard: Guard { state: Arc::downgrade(&self.state), topic, id } })
    }

    pub(super) async fn running(&self) {
        // The sender lives as long as `self`.
        let _ = self.started.0.subscribe().wait_for(|started| *started).await;
    }

    /// Says from where on events will be handed out.
    pub(super) fn start_at(&self, position: Position) {
        lock(&self.state).position = Some(position);
        self.started.0.send_replace(true);
    }

    /// Hands events out, in order; whoever has no room is cut off.
    pub(super) fn dispatch(&self, events: Vec<OrderEvent>) {
        let mut state = lock(&self.state);
        for event in events.into_iter().map(Arc::new) {
            state.position = Some(event.position);
            for topic in [Topic::Order(event.order_id), Topic::User(event.user_id.clone())] {
                state.offer(&topic, &event);
            }
        }
    }

    /// Cuts everybody off: the service stops.
    pub(super) fn close(&self) {
        lock(&self.state).subscribers.clear();
    }
}

impl State {
    fn offer(&mut self, topic: &Topic, event: &Arc<OrderEvent>) {
        let Some(subscribers) = self.subscribers.get_mut(topic) else { return };
        subscribers.retain(|subscriber| {
            let kept = subscriber.queue.try_send(Arc::clone(event)).is_ok();
            if !kept {
                metrics::counter!("feed_subscribers_cut_off_total").increment(1);
            }
            kept
        });
        if subscribers.is_empty() {
            self.subscribers.remove(topic);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        metrics::gauge!("feed_subscribers").decrement(1.0);
        let Some(state) = self.state.upgrade() else { return };
        let mut state = lock(&state);
        if let Some(subscribers) = state.subscribers.get_mut(&self.topic) {
            subscribers.retain(|subscriber| subscriber.id != self.id);
            if subscribers.is_empty() {
                state.subscribers.remove(&self.topic);
            }
        }
    }
}

/// Nothing in here panics half way through a change, so a poisoned lock still guards a whole state.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use schema::{EventId, OrderId, Timestamp, UserId};

    use super::*;
    use crate::order::OrderStatus;

    fn event(position: i64, user: &str) -> OrderEvent {
        OrderEvent {
            position: Position(position),
            order_id: OrderId::generate(),
            user_id: UserId(user.to_owned()),
            version: 2,
            status: OrderStatus::Paid,
            rejection_reason: None,
            occurred_at_ms: Timestamp(0),
            source_event_id: Some(EventId::generate()),
        }
    }

    fn registry() -> Registry {
        let registry = Registry::default();
        registry.start_at(Position(0));
        registry
    }

    #[test]
    fn nobody_attaches_before_the_position_is_known() {
        assert!(Registry::default().attach(Topic::User(UserId("a".to_owned()))).is_none());
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_cut_off_and_a_fast_one_is_not_held_up() {
        let registry = registry();
        let mut slow = registry.attach(Topic::User(UserId("a".to_owned()))).unwrap();
        let mut fast = registry.attach(Topic::User(UserId("a".to_owned()))).unwrap();
        for position in 1..=100 {
            registry.dispatch(vec![event(position, "a")]);
            assert_eq!(fast.events.recv().await.map(|event| event.position), Some(Position(position)));
        }
        let mut seen = 0;
        while slow.events.recv().await.is_some() {
            seen += 1;
        }
        assert_eq!(seen, QUEUE_EVENTS, "what was queued is still delivered, then the queue ends");
    }

    #[test]
    fn who_detaches_leaves_nothing_behind() {
        let registry = registry();
        drop(registry.attach(Topic::User(UserId("a".to_owned()))));
        assert!(lock(&registry.state).subscribers.is_empty());
    }
}
