//! Tables, brokers and handlers for the tests.

mod broker;
mod handler;
mod tables;

use std::time::Duration;

use database::testing::TestDatabase;
use migrations::BrokerLogMigrator;

pub(crate) use broker::{Mode, OutboxBroker, TestBroker};
pub(crate) use handler::{
    RunningLoop, TestHandler, event, event_with_id, run_loop, run_loop_in_parts_of, run_loop_of, run_loop_with_growing_waits,
};
pub(crate) use tables::{INBOX, OUTBOX, TestMigrator, applied, count, execute, hold, insert, make_due, row, rows, waiting};

/// Far more than anything here takes: reaching it is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An empty log for an embedded broker.
pub(crate) async fn new_log() -> TestDatabase {
    database::testing::sqlite::<BrokerLogMigrator>().await
}

/// Waits until the condition holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What `future` answers; it must not take longer than [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("took too long: {what}"),
    }
}
