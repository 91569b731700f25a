//! Who follows what.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::{mpsc, watch};

use super::{Attachment, Topic};
use crate::order::{EventAndOrder, Position};

/// Events that wait for one subscriber: enough for a burst of one user's orders, small enough for ten thousand subscribers.
const QUEUE_EVENTS: usize = 64;

/// The subscribers of one replica.
#[derive(Clone)]
pub(super) struct Registry {
    state: Arc<Mutex<State>>,
    phase: watch::Sender<Phase>,
}

/// What the feed is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody follows anything: nothing is read.
    Idle,
    /// Somebody waits for the feed to run.
    Wanted,
    /// What is committed is handed out.
    Running,
    /// The service stops.
    Closed,
}

#[derive(Default)]
struct State {
    subscribers: HashMap<Topic, Vec<Subscriber>>,
    next_id: u64,
    /// Everything up to here was handed out; none while the feed does not run.
    position: Option<Position>,
}

struct Subscriber {
    id: u64,
    queue: mpsc::Sender<Arc<EventAndOrder>>,
}

/// Detaches when dropped.
pub(super) struct Guard {
    state: Weak<Mutex<State>>,
    topic: Topic,
    id: u64,
}

impl Default for Registry {
    fn default() -> Self {
        Self { state: Arc::default(), phase: watch::Sender::new(Phase::Idle) }
    }
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

    /// Makes the feed run if it does not, and waits until it does. `false` when the service stops.
    pub(super) async fn running(&self) -> bool {
        loop {
            self.phase.send_if_modified(|phase| {
                let idle = *phase == Phase::Idle;
                if idle {
                    *phase = Phase::Wanted;
                }
                idle
            });
            match self.wait_for(|phase| phase != Phase::Wanted).await {
                Phase::Running => return true,
                Phase::Closed => return false,
                // It ran and went to rest again before this task saw it: it has to be asked again, by this task.
                Phase::Idle | Phase::Wanted => {}
            }
        }
    }

    /// Waits until somebody wants the feed to run.
    pub(super) async fn wanted(&self) {
        self.wait_for(|phase| phase != Phase::Idle).await;
    }

    /// Waits until the feed runs, without making it run. `false` when the service stops.
    pub(super) async fn follows(&self) -> bool {
        self.wait_for(|phase| matches!(phase, Phase::Running | Phase::Closed)).await == Phase::Running
    }

    async fn wait_for(&self, reached: impl Fn(Phase) -> bool) -> Phase {
        // The sender lives as long as `self`.
        self.phase.subscribe().wait_for(|phase| reached(*phase)).await.map_or(Phase::Closed, |phase| *phase)
    }

    /// Says from where on events will be handed out.
    pub(super) fn start_at(&self, position: Position) {
        lock(&self.state).position = Some(position);
        self.phase.send_replace(Phase::Running);
    }

    /// Whether anybody follows anything.
    pub(super) fn is_followed(&self) -> bool {
        !lock(&self.state).subscribers.is_empty()
    }

    /// Stops handing out, unless somebody has attached meanwhile. Whoever attaches later makes the feed run again, from a later position.
    pub(super) fn rest(&self) -> bool {
        let mut state = lock(&self.state);
        let unused = state.subscribers.is_empty();
        if unused {
            state.position = None;
            self.phase.send_replace(Phase::Idle);
        }
        unused
    }

    /// Up to where events were handed out; none while the feed does not run.
    pub(super) fn position(&self) -> Option<Position> {
        lock(&self.state).position
    }

    /// Hands events out that follow each other, in order; whoever has no room is cut off. What was handed out before is left out.
    pub(super) fn dispatch(&self, events: Vec<EventAndOrder>) {
        lock(&self.state).dispatch(events);
    }

    /// The same, if they continue where the feed stands. `false` when something is missing in front of them, or the feed does not run.
    pub(super) fn dispatch_next(&self, events: Vec<EventAndOrder>) -> bool {
        let mut state = lock(&self.state);
        let first = events.first().map(|event| event.position.0);
        let continues = state.position.is_some_and(|position| first.is_none_or(|first| first <= position.0 + 1));
        if continues {
            state.dispatch(events);
        }
        continues
    }

    /// Cuts everybody off: the service stops.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.subscribers.clear();
        state.position = None;
        self.phase.send_replace(Phase::Closed);
    }
}

impl State {
    fn dispatch(&mut self, events: Vec<EventAndOrder>) {
        for event in events {
            if self.position.is_none_or(|position| event.position <= position) {
                continue;
            }
            self.position = Some(event.position);
            let event = Arc::new(event);
            for topic in [Topic::Order(event.order_id), Topic::User(event.user_id.clone())] {
                self.offer(&topic, &event);
            }
        }
    }

    fn offer(&mut self, topic: &Topic, event: &Arc<EventAndOrder>) {
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
    use crate::order::{OrderEvent, OrderStatus};

    fn event(position: i64, user: &str) -> EventAndOrder {
        let event = OrderEvent {
            position: Position(position),
            order_id: OrderId::generate(),
            user_id: UserId(user.to_owned()),
            version: 2,
            status: OrderStatus::Paid,
            rejection_reason: None,
            occurred_at_ms: Timestamp(0),
            source_event_id: Some(EventId::generate()),
            traceparent: None,
        };
        (event, None).into()
    }

    fn registry() -> Registry {
        let registry = Registry::default();
        registry.start_at(Position(0));
        registry
    }

    #[tokio::test]
    async fn the_feed_rests_only_while_nobody_follows_and_runs_again_from_a_later_position() {
        let registry = registry();
        let topic = || Topic::User(UserId("a".to_owned()));
        let attached = registry.attach(topic());
        assert!(!registry.rest(), "somebody follows");
        drop(attached);
        assert!(registry.rest());
        assert!(registry.attach(topic()).is_none(), "its position would be one that nobody reads from");
        let mut waiting = std::pin::pin!(registry.running());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        registry.wanted().await;
        registry.start_at(Position(7));
        assert!(waiting.await);
        assert_eq!(registry.attach(topic()).map(|attachment| attachment.position), Some(Position(7)));
        registry.close();
        assert!(!registry.running().await, "it stops");
    }

    #[tokio::test]
    async fn a_subscriber_that_comes_while_the_feed_goes_to_rest_is_not_forgotten() {
        let registry = Registry::default();
        let mut waiting = std::pin::pin!(registry.running());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        // The waiting task gets its turn only after all of this.
        registry.start_at(Position(1));
        assert!(registry.rest());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        assert!(futures_util::poll!(std::pin::pin!(registry.wanted())).is_ready(), "it asks again");
        registry.start_at(Position(2));
        assert!(waiting.await);
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

    #[tokio::test]
    async fn what_was_committed_here_is_handed_out_only_where_the_feed_stands() {
        let registry = registry();
        let mut attached = registry.attach(Topic::User(UserId("a".to_owned()))).unwrap();
        let told =
            |positions: std::ops::RangeInclusive<i64>| registry.dispatch_next(positions.map(|at| event(at, "a")).collect());
        assert!(told(1..=2));
        assert!(!told(4..=4), "3 was committed before it, and is not here yet");
        assert!(told(1..=2) && told(2..=3), "what was handed out is not handed out again");
        assert!(told(4..=4));
        let queued: Vec<i64> = std::iter::from_fn(|| attached.events.try_recv().ok()).map(|event| event.position.0).collect();
        assert_eq!(queued, [1, 2, 3, 4]);
        drop(attached);
        assert!(registry.rest());
        assert!(!told(5..=5), "nobody knows where a feed that rests stands");
    }

    #[test]
    fn who_detaches_leaves_nothing_behind() {
        let registry = registry();
        drop(registry.attach(Topic::User(UserId("a".to_owned()))));
        assert!(lock(&registry.state).subscribers.is_empty());
    }
}
