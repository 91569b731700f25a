//! Figure 9: what a cluster costs that has nothing to do: queries to its databases, and the processor.
//!
//! It has had work before, so that connections are open and loops are past their start. Queries are counted by PostgreSQL, as transactions: what
//! an idle service asks is one statement each. They are read from another database of the server, so that asking is not counted, and only at
//! the ends of three windows. A connection reports what it did at the latest 10 s after it went quiet, so what belongs to the last seconds
//! may be missing at both ends alike. Autovacuum has transactions of its own, which are not the service's: it visits a database once a minute,
//! so it is in one of the windows at most, and their median counts.

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
/// All three together are shorter than `autovacuum_naptime` by default.
const WINDOW: Duration = Duration::from_secs(18);
const QUICK_WINDOW: Duration = Duration::from_secs(4);

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
    let window = if bench.options.quick { QUICK_WINDOW } else { WINDOW };
    progress.step("doing nothing", 3 * window);
    let started = Instant::now();
    let end_of = async |number: u32| {
        sleep_until(started + number * window).await;
        watch.read().await
    };
    let counts = [end_of(0).await?, end_of(1).await?, end_of(2).await?, end_of(3).await?];
    watch.server.close().await?;
    stage.stop().await?;
    progress.done();
    let (orders, payments) = (counts.map(|counts| counts.orders), counts.map(|counts| counts.payments));
    Ok([figures("Order", orders, window), figures("Payments", payments, window)].concat())
}

/// Of the counts before, between and after the three windows.
fn figures(service: &str, [first, second, third, last]: [Count; 4], window: Duration) -> [Figure; 2] {
    let queries = |from: Count, to: Count| to.transactions - from.transactions;
    let mut windows = [queries(first, second), queries(second, third), queries(third, last)];
    windows.sort_unstable();
    let [_, median, _] = windows;
    let share = (last.cpu_seconds - first.cpu_seconds) / (3 * window).as_secs_f64() * 100.0;
    let name = format!("database queries of an idle {service} Service");
    [
        Figure::new(9, name, median as f64 / window.as_secs_f64(), "/s", None, Bar::AtMost(2.0)),
        Figure::new(9, "  its share of one core", share, "%", None, Bar::AtMost(1.0)),
    ]
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

#[derive(Clone, Copy)]
struct Counts {
    orders: Count,
    payments: Count,
}

#[derive(Clone, Copy)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_visit_of_autovacuum_is_not_the_services_work() {
        let counts = [(100, 0.0), (115, 0.1), (160, 0.2), (175, 0.3)];
        let counts = counts.map(|(transactions, cpu_seconds)| Count { transactions, cpu_seconds });
        let [queries, share] = figures("Order", counts, Duration::from_secs(10));
        assert!((queries.value - 1.5).abs() < 1e-9 && (share.value - 1.0).abs() < 1e-9, "{queries:?} {share:?}");
        let counts = [100, 130, 160, 190].map(|transactions| Count { transactions, cpu_seconds: 0.0 });
        assert_eq!(figures("Order", counts, Duration::from_secs(10))[0].met, Some(false), "what it always asks is");
    }
}
