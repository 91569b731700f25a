//! Calls that share a transaction: one that the database refuses, and callers that go away.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use common::{TOPIC, new_order};
use database::{Database, testing::on_both};
use futures_util::future::join_all;
use messaging::{Broker, BrokerError, Consumer, Gate, Record, Relay, RelayOptions, TopicSpec};
use migrations::OrdersMigrator;
use order_service::{
    feed::Feed,
    order::{
        CreateOutcome,
        create::OUTBOX,
        intake::{Intake, IntakeContext, IntakeError},
    },
};
use runtime::stage::{Stage, Supervisor};
use sea_orm::{ConnectionTrait as _, Statement};

/// Longer than any machine needs; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Orders are accepted while the broker is away.
struct Away;

#[async_trait]
impl Broker for Away {
    async fn ensure_topics(&self, _: &[TopicSpec]) -> Result<(), BrokerError> {
        Err(BrokerError::unavailable("away"))
    }

    async fn publish(&self, records: &[Record]) -> Vec<Result<(), BrokerError>> {
        records.iter().map(|_| Err(BrokerError::unavailable("away"))).collect()
    }

    async fn consumer(&self, _: &str, _: &[String]) -> Result<Box<dyn Consumer>, BrokerError> {
        Err(BrokerError::unavailable("away"))
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        Err(BrokerError::unavailable("away"))
    }
}

fn start(db: &Database, stage: &Stage) -> Intake {
    let (relay, _) = Relay::start(db.clone(), OUTBOX, Arc::new(Away), RelayOptions::default(), stage.token(), Gate::new());
    let context =
        IntakeContext { database: db.clone(), reader: db.reader().clone(), relay, feed: Feed::new(), tasks_topic: TOPIC.into() };
    Intake::start(context, stage)
}

async fn count(db: &Database, table: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) AS count FROM {table}");
    let row = db.reader().query_one_raw(Statement::from_string(db.backend(), sql)).await.unwrap().unwrap();
    row.try_get("", "count").unwrap()
}

on_both!(OrdersMigrator;
    async fn an_order_that_the_database_refuses_fails_only_its_own_caller(db: &TestDatabase) {
        let stage = Supervisor::default().stage();
        let intake = start(db, &stage);
        // A total of zero passes no check of the table. Nothing that comes through the API has one.
        let calls = (0..40).map(|n| intake.create(new_order("ada", i64::from(n % 10 != 3), Some(&format!("k{n}")))));
        for (n, answer) in join_all(calls).await.into_iter().enumerate() {
            match answer {
                Ok(CreateOutcome::Created(_)) => assert_ne!(n % 10, 3),
                Err(IntakeError::Database(error)) => {
                    assert_eq!(n % 10, 3, "{error}");
                    assert!(!error.is_transient(), "trying again would not help: {error}");
                }
                other => panic!("{n}: {other:?}"),
            }
        }
        assert_eq!((count(db, "orders").await, count(db, "outbox_orders").await, count(db, "order_events").await), (36, 36, 36));
    }

    async fn callers_that_go_away_before_the_commit_fail_nobody(db: &TestDatabase) {
        let stage = Supervisor::default().stage();
        let intake = start(db, &stage);
        let kept = {
            // Polled once, so the call is in the queue; then dropped, while the ones between are waited for.
            let mut abandoned: Vec<_> = (0..20).map(|n| Box::pin(intake.create(new_order("ada", 1, Some(&format!("abandoned-{n}")))))).collect();
            let mut kept = Vec::new();
            for (n, call) in abandoned.iter_mut().enumerate() {
                assert!(futures_util::poll!(call).is_pending());
                kept.push(Box::pin(intake.create(new_order("ada", 1, Some(&format!("kept-{n}"))))));
                assert!(futures_util::poll!(kept.last_mut().unwrap()).is_pending());
            }
            drop(abandoned);
            join_all(kept).await
        };
        assert!(kept.iter().all(|answer| matches!(answer, Ok(CreateOutcome::Created(_)))), "{kept:?}");
        let again = join_all((0..20).map(|n| intake.create(new_order("ada", 1, Some(&format!("abandoned-{n}")))))).await;
        assert!(again.iter().all(|answer| matches!(answer, Ok(CreateOutcome::AlreadyCreated(_)))), "the worker owned them: {again:?}");
        assert_eq!(count(db, "orders").await, 40);
    }

    async fn calls_that_wait_when_the_service_stops_are_answered(db: &TestDatabase) {
        let stage = Supervisor::default().stage();
        let intake = start(db, &stage);
        let mut calls: Vec<_> = (0..10).map(|n| Box::pin(intake.create(new_order("ada", 1, Some(&format!("k{n}")))))).collect();
        for call in &mut calls {
            assert!(futures_util::poll!(call).is_pending());
        }
        stage.token().cancel();
        let answers = tokio::time::timeout(PATIENCE, join_all(calls)).await.unwrap();
        assert!(answers.iter().all(|answer| matches!(answer, Ok(CreateOutcome::Created(_)))), "{answers:?}");
        tokio::time::timeout(PATIENCE, stage.stop()).await.unwrap();
        let late = intake.create(new_order("ada", 1, Some("late"))).await;
        assert!(matches!(late, Err(IntakeError::Overloaded)), "{late:?}");
        assert_eq!(count(db, "orders").await, 10);
    }
);
