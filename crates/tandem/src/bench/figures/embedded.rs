//! Figure 11: everything in one process on SQLite, as `cargo run` starts it, in a process of its own.
//!
//! Orders come in a closed loop; what counts is how many are stored as PAID, from the end of the warm-up until the last one is settled. The
//! database is read from beside the server: SQLite lets readers of other processes in.

use std::{path::Path, time::Duration};

use indicatif::ProgressBar;
use sea_orm::{ConnectOptions, Database, DatabaseConnection};
use tokio::time::{Instant, sleep_until};

use crate::{
    bench::{
        Bench, BenchError, latency,
        load::{Load, Pace, Target, open_accounts},
        progress::Progress,
        report::{Bar, Figure, Yardstick},
        stage,
        verify::{self, Earlier},
    },
    embedded::signer,
    prove::server::Server,
};

/// Concurrent clients, as in figure 1.
const CLIENTS: usize = 64;
/// Users that order: more than a batch has orders, so that accounts are no bottleneck of their own.
const USERS: usize = 300;
/// After the last order, everything is settled within this time or the figure is none.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at what is settled.
const POLL: Duration = Duration::from_millis(20);

/// Measures; figure 2 was measured before.
///
/// # Errors
/// [`BenchError`].
pub async fn measure(bench: &mut Bench) -> Result<Vec<Figure>, BenchError> {
    let figure_2 = bench.figure_2()?;
    let progress = Progress::new("11 embedded");
    // Whether the server is ready is asked over HTTP.
    runtime::install_tls_provider();
    let folder = tempfile::tempdir()?;
    let server = Server::start(std::env::current_exe()?, folder.path().to_owned()).await?;
    let per_second = settled_per_second(bench, &server, &progress).await?;
    server.stop().await?;
    progress.step(format!("latency of {} orders, one after the other", bench.options.latency_orders), Duration::ZERO);
    let latency = latency::measure(u64::from(bench.options.latency_orders), &ProgressBar::hidden()).await?;
    progress.done();
    let yardstick = Yardstick { name: "figure 2: the same on PostgreSQL and Kafka".to_owned(), value: figure_2 };
    let name = format!("settled orders in one process on SQLite, {CLIENTS} clients");
    let ms = |percent| latency.percentile(percent).as_secs_f64() * 1e3;
    let alone = "  from request to subscriber's PAID, one at a time";
    Ok(vec![
        Figure::new(11, name, per_second, "orders/s", Some(yardstick), Bar::AtLeastTimes(0.3)),
        Figure::new(11, format!("{alone}, median"), ms(50.0), "ms", None, Bar::None),
        Figure::new(11, format!("{alone}, p99"), ms(99.0), "ms", None, Bar::None),
    ])
}

async fn settled_per_second(bench: &Bench, server: &Server, progress: &Progress) -> Result<f64, BenchError> {
    // Signed with the folder's own key.
    let target = Target::new(server.address(), &signer(server.data_dir(), None)?, USERS)?;
    progress.step("accounts", Duration::ZERO);
    open_accounts(&target, "1000000.00").await?;
    let (orders_db, payments_db) = (open(server.data_dir(), "orders.db").await?, open(server.data_dir(), "payments.db").await?);
    let (warm_up, measured) = (Duration::from_secs(3), bench.options.measured());
    progress.step(format!("createOrder, {CLIENTS} clients"), warm_up + measured);
    let load = Load { run: "embedded", clients: CLIENTS, pace: Pace::Closed, warm_up, measured };
    let counted = Instant::now() + warm_up;
    let running = tokio::spawn(load.run(target));
    sleep_until(counted).await;
    let before = settled(&orders_db).await?;
    let accepted = running.await??.accepted;
    let expected = i64::try_from(accepted.len()).unwrap_or(i64::MAX);
    let deadline = Instant::now() + SETTLED_WITHIN;
    while settled(&orders_db).await? < expected {
        if Instant::now() > deadline {
            return Err(BenchError::Unexpected(format!("{} of {expected} orders are settled", settled(&orders_db).await?)));
        }
        sleep_until(Instant::now() + POLL).await;
    }
    let took = counted.elapsed();
    verify::accepted_are_paid(&orders_db, &payments_db, &accepted, Earlier::default()).await?;
    orders_db.close().await?;
    payments_db.close().await?;
    Ok((expected - before) as f64 / took.as_secs_f64())
}

/// For reading, beside its owner.
async fn open(data_dir: &Path, file: &str) -> Result<DatabaseConnection, BenchError> {
    let url = format!("sqlite://{}?mode=ro", data_dir.join(file).display());
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    Ok(Database::connect(options).await?)
}

/// Each order has one event when it is created and one when it is decided. Both counters start at 1; one statement reads one state.
async fn settled(orders_db: &DatabaseConnection) -> Result<i64, BenchError> {
    stage::number(orders_db, "SELECT (SELECT next FROM event_cursor) - (SELECT next FROM order_number)").await
}
