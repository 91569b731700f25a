//! Figure 1: durable `createOrder` over HTTP, against single-row transactions of `pgbench`.

use std::{future::IntoFuture as _, time::Duration};

use axum::{Router, routing::post};
use hyper::body::Bytes;
use schema::OrderId;

use crate::bench::{
    Bench, BenchError,
    costs::Costs,
    load::{Load, Outcome, Pace, Target},
    pgbench::Rate,
    process::cpu_seconds,
    progress::Progress,
    report::{Bar, Figure, Yardstick},
    stage::{Stage, create_database, execute},
    verify,
};

/// Concurrent clients.
const CLIENTS: usize = 64;

/// Order and outbox row in one statement and one transaction: what a service would do for each order alone. On tables without any
/// constraint but their primary keys, because that is the minimal SQL of the work.
pub const ORDER_SQL: &str = "
WITH o AS (
    INSERT INTO orders (id, user_id, total_minor, currency, description, status, idempotency_key, created_at)
    VALUES (gen_random_uuid(), 'bench-user-1', 1, 'EUR', 'A pair of socks', 'PENDING', gen_random_uuid()::text, now()) RETURNING id
)
INSERT INTO outbox (id, topic, message_key, payload, created_at)
SELECT gen_random_uuid(), 'payment_tasks', 'bench-user-1',
       '{\"orderId\":\"' || id || '\",\"userId\":\"bench-user-1\",\"amountMinor\":1,\"currency\":\"EUR\"}', now() FROM o;
";

/// What [`ORDER_SQL`] writes to.
pub const TABLES: &str = "
CREATE TABLE orders (id uuid PRIMARY KEY, user_id text NOT NULL, total_minor bigint NOT NULL, currency text NOT NULL, description text NOT NULL,
    status text NOT NULL, idempotency_key text, created_at timestamptz NOT NULL);
CREATE TABLE outbox (id uuid PRIMARY KEY, topic text NOT NULL, message_key text NOT NULL, payload text NOT NULL, created_at timestamptz NOT NULL,
    processed_at timestamptz);
";

/// The best rate of `pgbench` for one order per transaction; `None` without `pgbench`.
///
/// # Errors
/// When `pgbench` fails.
pub async fn yardstick(bench: &Bench, progress: &Progress) -> Result<Option<Rate>, BenchError> {
    let Some(pgbench) = &bench.pgbench else { return Ok(None) };
    create_database(&bench.servers, "bench_yardstick_orders").await?;
    let url = bench.servers.database("bench_yardstick_orders");
    execute(&url, TABLES).await?;
    pgbench
        .best(&url, "one order and its outbox row per transaction", ORDER_SQL, bench.options.yardstick_seconds, progress)
        .await
        .map(Some)
}

/// Measures.
///
/// # Errors
/// [`BenchError`].
pub async fn measure(bench: &mut Bench) -> Result<Vec<Figure>, BenchError> {
    let progress = Progress::new("1 createOrder");
    let yardstick = bench.order_yardstick(&progress).await?;
    let plain_http = plain_http(bench, &progress).await?;
    let mut stage = Stage::start(&bench.servers, "create").await?;
    stage.payments.pause().await?;
    stage.orders.pause().await?;
    let before = Costs::now(&stage)?;
    let outcome = run(bench, &stage, &progress, "create").await?;
    let costs = Costs::now(&stage)?.per_order(before, outcome.accepted.len());
    verify::accepted_are_stored(&stage.orders_db, &outcome.accepted).await?;
    stage.stop().await?;
    progress.done();
    let yardstick = yardstick.map(|rate| Yardstick {
        name: format!("pgbench: one order and its outbox row per transaction, best at {} clients", rate.clients),
        value: rate.per_second,
    });
    let name = format!("durable createOrder over HTTP, {CLIENTS} clients");
    let figures = vec![
        Figure::new(1, name, outcome.per_second, "orders/s", yardstick, Bar::AtLeastTimes(1.0)),
        Figure::new(1, "  its 99th percentile", outcome.percentile_ms(99.0), "ms", None, Bar::AtMost(20.0)),
        Figure::new(1, "  processor time of HTTP and generator alone, per request", plain_http, "µs", None, Bar::None),
    ];
    Ok(figures.into_iter().chain(costs.figures(1)).collect())
}

/// What generator and HTTP take from the machine alone, in microseconds of a core per request: the same requests, answered by the same kind of
/// server with nothing behind it. Both are in this process.
async fn plain_http(bench: &Bench, progress: &Progress) -> Result<f64, BenchError> {
    let answer =
        async |_request: Bytes| format!(r#"{{"data":{{"createOrder":{{"order":{{"id":"{}"}}}}}}}}"#, OrderId::generate());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let target = Target { address: listener.local_addr()?, tokens: vec!["nobody-looks".to_owned()] };
    let server = tokio::spawn(axum::serve(listener, Router::new().route("/graphql", post(answer))).into_future());
    let before = cpu_seconds(std::process::id())?;
    let outcome = create_orders(bench, "plain", target, progress, "plain HTTP").await;
    server.abort();
    let used = cpu_seconds(std::process::id())? - before;
    Ok(used * 1e6 / outcome?.accepted.len().max(1) as f64)
}

/// The load of figure 1 on a stage that is paused.
///
/// # Errors
/// [`BenchError`].
pub async fn run(bench: &Bench, stage: &Stage, progress: &Progress, run: &'static str) -> Result<Outcome, BenchError> {
    create_orders(bench, run, stage.target(CLIENTS)?, progress, "createOrder").await
}

async fn create_orders(
    bench: &Bench,
    run: &'static str,
    target: Target,
    progress: &Progress,
    what: &str,
) -> Result<Outcome, BenchError> {
    let (warm_up, measured) = (Duration::from_secs(3), bench.options.measured());
    progress.step(format!("{what}, {CLIENTS} clients"), warm_up + measured);
    Load { run, clients: CLIENTS, pace: Pace::Closed, warm_up, measured }.run(target).await
}
