//! Members that come and go at random, through the real consumer loop: every message is applied exactly once.
//!
//! `TANDEM_TEST_REBALANCE_SECONDS` makes it longer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use database::Database;
use database::testing::on_both;
use messaging::kafka::KafkaBroker;
use messaging::{Broker, TopicSpec};
use rand::RngExt as _;
use tokio_util::sync::CancellationToken;

use super::{options, unique};
use crate::support::{RunningLoop, TestHandler, TestMigrator, applied, count, event, run_loop_of};

const SECONDS: &str = "TANDEM_TEST_REBALANCE_SECONDS";
const DEFAULT_SECONDS: u64 = 20;

/// Members at the same time; there are six partitions.
const MAX_MEMBERS: usize = 4;

/// Between two interruptions: shorter than a rebalance at times, and longer at others.
const PAUSE_MS: std::ops::Range<u64> = 20..2_500;

const KEYS: usize = 40;
const RECORDS_PER_CALL: usize = 20;
const CALL_EVERY: Duration = Duration::from_millis(20);

/// After the last interruption, for what was interrupted; a member that vanished has to be missed first.
const SETTLE: Duration = Duration::from_secs(60);

struct Group {
    db: Database,
    broker: KafkaBroker,
    handler: Arc<TestHandler>,
    name: String,
    topic: String,
    members: Vec<RunningLoop>,
    /// Clean leaves, and members that vanished.
    interrupted: [usize; 2],
}

impl Group {
    fn join(&mut self) {
        let broker: Arc<dyn Broker> = Arc::new(self.broker.clone());
        self.members.push(run_loop_of(&self.db, broker, &self.handler, &self.name, &self.topic));
    }

    async fn interrupt(&mut self) {
        let dice = rand::rng().random_range(0..3);
        let member = rand::rng().random_range(0..self.members.len().max(1));
        if self.members.is_empty() || (dice == 0 && self.members.len() < MAX_MEMBERS) {
            self.join();
        } else if dice == 1 {
            self.interrupted[0] += 1;
            self.members.swap_remove(member).stop().await;
        } else {
            // In the middle of whatever it is doing.
            self.interrupted[1] += 1;
            let member = self.members.swap_remove(member);
            member.task.abort();
            let _ = member.task.await;
        }
    }
}

/// Publishes numbered events until told to stop; answers how many.
async fn publish_all(broker: KafkaBroker, topic: String, stop: CancellationToken) -> usize {
    let mut published = 0;
    while !stop.is_cancelled() {
        let numbers = published..published + RECORDS_PER_CALL;
        let records: Vec<_> = numbers.map(|n| event(&topic, &format!("key-{}", n % KEYS), &n.to_string())).collect();
        super::publish(&broker, &records).await;
        published += RECORDS_PER_CALL;
        tokio::time::sleep(CALL_EVERY).await;
    }
    published
}

on_both!(TestMigrator;
    async fn members_that_come_and_go_at_random_apply_every_message_exactly_once(db: &TestDatabase) {
        let Some(options) = options() else { return };
        let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_SECONDS);
        let broker = KafkaBroker::new(options).unwrap();
        let (topic, name) = (unique("topic"), unique("group"));
        broker.ensure_topics(&[TopicSpec::new(&topic)]).await.unwrap();
        let stop = CancellationToken::new();
        let publishing = tokio::spawn(publish_all(broker.clone(), topic.clone(), stop.clone()));
        let handler = TestHandler::new();
        let mut group =
            Group { db: (**db).clone(), broker, handler, name, topic, members: Vec::new(), interrupted: [0; 2] };
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            group.interrupt().await;
            let pause = rand::rng().random_range(PAUSE_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        stop.cancel();
        let published = publishing.await.unwrap();
        if group.members.is_empty() {
            group.join();
        }
        let deadline = Instant::now() + SETTLE;
        while count(db, "applied").await < i64::try_from(published).unwrap() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for member in group.members {
            member.stop().await;
        }
        let mut times: HashMap<String, usize> = HashMap::new();
        for (_, payload) in applied(db).await {
            *times.entry(payload).or_default() += 1;
        }
        let lost: Vec<_> = (0..published).filter(|n| !times.contains_key(&n.to_string())).collect();
        let doubled: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        assert!(lost.is_empty() && doubled.is_empty(), "of {published}, lost: {lost:?}; applied twice: {doubled:?}");
        let [left, vanished] = group.interrupted;
        let delivered = group.handler.committed.load(Ordering::SeqCst);
        tracing::info!(published, delivered, left, vanished, "members came and went");
    }
);
