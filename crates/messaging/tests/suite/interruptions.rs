//! Everything together, interrupted again and again: what is committed is applied exactly once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use database::testing::on_both;
use messaging::outbox::RetrySchedule;
use messaging::{Gate, OutboxRow, Relay, RelayHandle, RelayOptions, Sweeper, SweeperOptions};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::consumer::broker;
use crate::support::{
    OUTBOX, RunningLoop, TestBroker, TestHandler, TestMigrator, applied, eventually, insert, make_due, new_log, row,
    run_loop_in_parts_of, soon, waiting,
};

const ROUNDS: usize = 40;
const COMMITS_PER_ROUND: usize = 4;
const ROWS_PER_COMMIT: usize = 5;

/// The same throws in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// What one process runs.
struct Process {
    relay: RelayHandle,
    relaying: JoinHandle<()>,
    sweeping: JoinHandle<()>,
    consuming: RunningLoop,
    shutdown: CancellationToken,
}

impl Process {
    /// In small parts, so that there are several; with transactions around them, or without.
    fn start(db: &database::Database, broker: &TestBroker, at_once: bool) -> Self {
        let shutdown = CancellationToken::new();
        let shared = || Arc::new(broker.clone());
        let options = RelayOptions::default();
        let (relay, relaying) = Relay::start(db.clone(), OUTBOX, shared(), options, shutdown.clone(), Gate::new());
        let options = SweeperOptions {
            poll: Duration::from_millis(5),
            retry: RetrySchedule { min: Duration::from_millis(10), max: Duration::from_millis(50) },
            ..SweeperOptions::default()
        };
        let sweeping = Sweeper::new(db.clone(), OUTBOX, shared(), options).start(shutdown.clone(), Gate::new());
        let handler = TestHandler::new();
        handler.at_once.store(at_once, Ordering::SeqCst);
        let consuming = run_loop_in_parts_of(3, db, shared(), &handler);
        Self { relay, relaying, sweeping, consuming, shutdown }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        soon("the relay ends", self.relaying).await.unwrap();
        soon("the sweeper ends", self.sweeping).await.unwrap();
        self.consuming.stop().await;
    }

    async fn die(self) {
        for task in [self.relaying, self.sweeping, self.consuming.task] {
            task.abort();
            let _ = task.await;
        }
        self.shutdown.cancel();
    }
}

fn numbered_rows(from: usize, dice: &mut Dice) -> Vec<OutboxRow> {
    let numbered =
        |n: usize| OutboxRow { topic: "tasks".to_owned(), key: format!("key-{}", dice.below(20)), ..row(&n.to_string()) };
    (from..from + ROWS_PER_COMMIT).map(numbered).collect()
}

on_both!(TestMigrator;
    async fn whatever_is_interrupted_nothing_is_lost_and_nothing_applied_twice(db: &TestDatabase) {
        let log = new_log().await;
        let broker = broker(&log).await;
        let mut dice = Dice(2024);
        let mut written = 0;
        for _ in 0..ROUNDS {
            broker.faults.publish.store(dice.one_in(4), Ordering::SeqCst);
            broker.faults.store.store(dice.one_in(4), Ordering::SeqCst);
            let process = Process::start(db, &broker, dice.one_in(2));
            for _ in 0..COMMITS_PER_ROUND {
                let rows = numbered_rows(written, &mut dice);
                written += rows.len();
                insert(db, &rows).await;
                // Sometimes the process "dies" before it hands its rows over.
                if !dice.one_in(5) {
                    process.relay.committed(rows);
                }
            }
            if dice.one_in(3) {
                make_due(db).await;
            }
            // Not a wait for anything: the moment of the interruption.
            tokio::time::sleep(Duration::from_micros(dice.below(15_000))).await;
            if dice.one_in(4) { process.stop().await } else { process.die().await }
        }
        broker.faults.publish.store(false, Ordering::SeqCst);
        broker.faults.store.store(false, Ordering::SeqCst);
        let process = Process::start(db, &broker, true);
        make_due(db).await;
        eventually("everything is published", || async { waiting(db).await == 0 }).await;
        eventually("everything is applied", || async { applied(db).await.len() >= written }).await;
        process.stop().await;
        let mut numbers: Vec<usize> = applied(db).await.iter().map(|(_, payload)| payload.parse().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..written).collect::<Vec<_>>());
    }
);
