//! Subscribers that resume where they were when their replica is gone, as clients in the field do.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tandem::subscriber::{SubscribeError, Subscriber};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    load::Load,
    support::{until_within, user::text},
};

const EVENTS: &str = "subscription($after: String) { orderEvents(after: $after) { cursor version status order { id } } }";
/// The cursor of a user who has no orders yet is the start of everything.
const CURSOR: &str = "{ orderEventsCursor }";
/// For connecting, signing in and subscribing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before trying the next replica.
const AGAIN: Duration = Duration::from_millis(50);
/// For the last events, after everything has happened.
const LAST_EVENTS_WITHIN: Duration = Duration::from_secs(30);

/// What one follower saw: order, version and status, in the order in which they came.
type Seen = Vec<(String, i64, String)>;

/// Of every user one at each replica.
pub struct Followers {
    followers: Vec<Follower>,
    tasks: JoinSet<()>,
}

struct Follower {
    user: usize,
    seen: Arc<Mutex<Seen>>,
    /// Why it had to connect again, and how often.
    ends: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Followers {
    /// Starts them before the first order.
    pub async fn start(load: &Load) -> Self {
        let mut followers = Vec::new();
        let mut tasks = JoinSet::new();
        for user in 0..load.users.len() {
            let start = load.client(user).run(CURSOR, json!({})).await.unwrap();
            for first in 0..load.bases().len() {
                let follower = Follower { user, seen: Arc::default(), ends: Arc::default() };
                let (seen, ends) = (follower.seen.clone(), follower.ends.clone());
                let (bases, token) = (load.bases().to_vec(), load.token(user).to_owned());
                let after = text(&start.data["orderEventsCursor"]);
                tasks.spawn(async move { follow(&bases, first, &token, after, &seen, &ends).await });
                followers.push(follower);
            }
        }
        Self { followers, tasks }
    }

    /// Every follower sees each of its user's orders exactly once per state, and the same as the user's other followers. `last` are the
    /// last orders of the users, created when everything else had happened. Answers how often followers had to connect again, and why.
    pub async fn saw_everything_once(mut self, load: &Load, last: &[String]) -> BTreeMap<String, usize> {
        let sees_last = |follower: &Follower| {
            let seen = follower.seen.lock().unwrap();
            seen.iter().rev().take(2).any(|(order, version, _)| *order == last[follower.user] && *version == 2)
        };
        until_within(LAST_EVENTS_WITHIN, "every follower has seen the last order paid or rejected", async || {
            if let Some(ended) = self.tasks.try_join_next() {
                ended.unwrap();
            }
            self.followers.iter().all(sees_last)
        })
        .await;
        self.tasks.shutdown().await;

        let users = load.users.len();
        let mut orders = vec![Vec::new(); users];
        for (number, id) in load.accepted() {
            orders[number % users].push(id);
        }
        let mut first: BTreeMap<usize, Seen> = BTreeMap::new();
        let mut ends = BTreeMap::new();
        for follower in &self.followers {
            let seen = follower.seen.lock().unwrap().clone();
            assert_complete(&orders[follower.user], &seen);
            let same = first.entry(follower.user).or_insert_with(|| seen.clone());
            assert_eq!(*same, seen, "both followers of {}", load.users[follower.user]);
            for (end, times) in follower.ends.lock().unwrap().iter() {
                *ends.entry(end.clone()).or_default() += times;
            }
        }
        ends
    }
}

/// Each order's steps are 1, PENDING, and 2, its end, each once and in this order.
fn assert_complete(orders: &[String], seen: &Seen) {
    let mut steps: BTreeMap<&str, Vec<(i64, &str)>> = orders.iter().map(|order| (order.as_str(), Vec::new())).collect();
    for (order, version, status) in seen {
        steps.get_mut(order.as_str()).unwrap_or_else(|| panic!("{order} was accepted by nobody")).push((*version, status));
    }
    for (order, steps) in steps {
        let complete = matches!(steps[..], [(1, "PENDING"), (2, "PAID" | "REJECTED")]);
        assert!(complete, "{order}: {steps:?}");
    }
}

/// Reads events until it is stopped; goes on at the next replica after whatever ends a subscription.
async fn follow(
    bases: &[String],
    first: usize,
    token: &str,
    mut after: String,
    seen: &Mutex<Seen>,
    ends: &Mutex<BTreeMap<String, usize>>,
) {
    for base in bases.iter().cycle().skip(first) {
        let end = read(base, token, &mut after, seen).await;
        *ends.lock().unwrap().entry(end).or_default() += 1;
        sleep(AGAIN).await;
    }
}

/// Reads at one replica; why it ended.
async fn read(base: &str, token: &str, after: &mut String, seen: &Mutex<Seen>) -> String {
    let connecting = Subscriber::start(base, token, EVENTS, json!({ "after": after }));
    let mut subscriber = match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(subscriber)) => subscriber,
        Ok(Err(error)) => return kind(&error),
        Err(_) => return "no answer".to_owned(),
    };
    loop {
        match subscriber.next().await {
            Ok(Some(mut data)) => {
                let event: Value = data["orderEvents"].take();
                let step = (text(&event["order"]["id"]), event["version"].as_i64().unwrap(), text(&event["status"]));
                seen.lock().unwrap().push(step);
                *after = text(&event["cursor"]);
            }
            Ok(None) => return "complete".to_owned(),
            Err(error) => return kind(&error),
        }
    }
}

/// Without what differs from time to time.
fn kind(error: &SubscribeError) -> String {
    match error {
        SubscribeError::Socket(_) => "connection".to_owned(),
        SubscribeError::Closed(reason) => format!("closed: {reason}"),
        // The server says that it cannot go on now; anything else fails the test.
        SubscribeError::Unexpected(message) => {
            let retriable = message.contains("SERVICE_UNAVAILABLE") || message.contains("TIMEOUT");
            assert!(retriable, "{message}");
            "unavailable".to_owned()
        }
    }
}
