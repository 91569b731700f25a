//! What a cluster costs that has nothing to do.

use std::time::Duration;

use database::Database;
use sea_orm::{ConnectionTrait as _, Statement};

use crate::cluster::{Cluster, Shape};

/// Long enough to even out what happens every few seconds.
const WATCHED: Duration = Duration::from_secs(10);
/// The server's counters are this much behind, at most.
const COUNTERS_LATE: Duration = Duration::from_secs(2);
/// Transactions per second and replica: a few loops that look once a second or less.
const MAX_PER_SECOND: f64 = 4.0;

/// Transactions in this database so far, those of reads included.
async fn transactions(db: &Database) -> i64 {
    let sql = "SELECT xact_commit + xact_rollback AS count FROM pg_stat_database WHERE datname = current_database()";
    let row = db.reader().query_one_raw(Statement::from_string(db.backend(), sql)).await.unwrap().unwrap();
    row.try_get("", "count").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_replica_leaves_its_database_alone() {
    let Some(cluster) = Cluster::start("idle", Shape::of(1)).await else { return };
    let (orders, payments) = tokio::join!(cluster.orders_db(), cluster.payments_db());
    // What the start has cost is counted by then.
    tokio::time::sleep(COUNTERS_LATE).await;
    let before = [transactions(&orders).await, transactions(&payments).await];
    tokio::time::sleep(WATCHED).await;
    let after = [transactions(&orders).await, transactions(&payments).await];
    for (service, (before, after)) in ["order-service", "payment-service"].iter().zip(before.iter().zip(after)) {
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        let per_second = (after - before) as f64 / WATCHED.as_secs_f64();
        println!("{service}: {per_second} transactions per second");
        assert!(per_second <= MAX_PER_SECOND, "{service}: {per_second} per second");
    }
}
