//! Figure 9: what a cluster costs that has nothing to do: queries to its databases, and the processor.
//!
//! It has had work before, so that connections are open and loops are past their start. Queries are counted by PostgreSQL, as transactions: what
//! an idle service asks is one statement each. They are read from another database of the server, so that asking is not counted, and only at
//! the start and at the end. A connection reports what it did at the latest 10 s after it went quiet, so what belongs to the last seconds
//! may be missing at both ends alike.

use std::time::Duration;

use sea_orm::{ConnectOptions, Database, DatabaseConnection};
use tokio::time::{Instant, sleep_until};

use super::settle;
use crate::bench::{
    Bench, BenchError,
    load::{Load, Pace, open_accounts},
    process::cpu_seconds,
    progress::Progress,
    report::{Bar, Figure},
    stage::{self, Stage},
    verify,
};

/// Users that order before.
const USERS: usize = 20;
/// PostgreSQL's own time after which a quiet connection reports what it did (`PGSTAT_IDLE_INTERVAL`), and a second.
const REPORTED_AFTER: Duration = Duration::from_secs(11);

/// Measures.
///
/// # Errors
/// [`BenchError`].
pub async fn measure(bench: &mut Bench) -> Result<Vec<Figure>, BenchError> {
    let progress = Progress::new("9 idle");
    let stage = Stage::start(&bench.servers, "idle").await?;
    work(&stage, &progress).await?;
    let watch = Watch::new(bench, &stage).await?;
    progress.step("waiting until the work before is counted", REPORTED_AFTER);
    sleep_until(Instant::now() + REPORTED_AFTER).await;
    let measured = Duration::from_secs(if bench.options.quick { 10 } else { 30 });
    progress.step("doing nothing", measured);
    let (started, before) = (Instant::now(), watch.read().await?);
    sleep_until(started + measured).await;
    let after = watch.read().await?;
    let seconds = started.elapsed().as_secs_f64();
    watch.server.close().await?;
    stage.stop().await?;
    progress.done();
    let mut figures = Vec::new();
    for (service, before, after) in [("Order", before.orders, after.orders), ("Payments", before.payments, after.payments)] {
        let queries = (after.transactions - before.transactions) as f64 / seconds;
        let name = format!("database queries of an idle {service} Service");
        figures.push(Figure::new(9, name, queries, "/s", None, Bar::AtMost(2.0)));
        let share = (after.cpu_seconds - before.cpu_seconds) / seconds * 100.0;
        figures.push(Figure::new(9, "  its share of one core", share, "%", None, Bar::AtMost(1.0)));
    }
    Ok(figures)
}

/// A second of orders, all settled.
async fn work(stage: &Stage, progress: &Progress) -> Result<(), BenchError> {
    progress.step("some orders before", Duration::from_secs(1));
    let target = stage.target(USERS)?;
    open_accounts(&target, "1000000.00").await?;
    let load = Load { run: "idle", clients: 8, pace: Pace::Closed, warm_up: Duration::ZERO, measured: Duration::from_secs(1) };
    let accepted = load.run(target).await?.accepted;
    settle::wait_until_settled(stage, accepted.len()).await?;
    verify::accepted_are_settled(stage, &accepted).await
}

/// Where the counters are.
struct Watch {
    server: DatabaseConnection,
    orders: Watched,
    payments: Watched,
}

struct Watched {
    database: String,
    pid: u32,
}

struct Counts {
    orders: Count,
    payments: Count,
}

struct Count {
    transactions: i64,
    cpu_seconds: f64,
}

impl Watch {
    async fn new(bench: &Bench, stage: &Stage) -> Result<Self, BenchError> {
        let mut options = ConnectOptions::new(bench.servers.postgres.clone());
        options.max_connections(1);
        let orders = Watched { database: Stage::orders_database("idle"), pid: stage.orders.pid };
        let payments = Watched { database: Stage::payments_database("idle"), pid: stage.payments.pid };
        Ok(Self { server: Database::connect(options).await?, orders, payments })
    }

    async fn read(&self) -> Result<Counts, BenchError> {
        Ok(Counts { orders: self.orders.read(&self.server).await?, payments: self.payments.read(&self.server).await? })
    }
}

impl Watched {
    async fn read(&self, server: &DatabaseConnection) -> Result<Count, BenchError> {
        let sql = format!("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{}'", self.database);
        Ok(Count { transactions: stage::number(server, &sql).await?, cpu_seconds: cpu_seconds(self.pid)? })
    }
}
