//! Figure 5: from when an order is due until its subscriber sees it PAID, in an open loop at a tenth of figure 2's rate.
//!
//! The floor is what the durable steps on the way cost alone: three commits (order, debit, result), one after the other, and two
//! messages through Kafka (task, result). Orders and subscribers are of one thread, as far from the services as any client.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use hyper::header::HeaderValue;
use messaging::{Broker as _, TopicSpec};
use schema::{OrderId, UserId};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use super::{create, hot};
use crate::{
    bench::{
        Bench, BenchError,
        costs::Costs,
        load::{Target, connection::Connection, created, histogram, on_own_thread, open_accounts, order_request},
        progress::Progress,
        report::{Bar, Figure, Yardstick},
        stage::{Stage, create_database, execute, user_name},
        verify,
    },
    subscriber::Subscriber,
};

/// Each with a subscription on a socket of its own.
const USERS: usize = 20;
/// Connections for orders: more than are ever waiting for their answer at this rate.
const CONNECTIONS: usize = 64;
/// Of figure 2's rate: nothing waits for anything else.
const SHARE: f64 = 0.1;
/// Longer than any event may take.
const PATIENCE: Duration = Duration::from_secs(60);
const EVENTS: &str = "subscription Events($after: String) { orderEvents(after: $after) { version status order { id } } }";
/// In front of the idempotency keys.
const RUN: &str = "latency";

/// Measures; figure 2 was measured before.
///
/// # Errors
/// [`BenchError`].
pub async fn measure(bench: &mut Bench) -> Result<Vec<Figure>, BenchError> {
    let progress = Progress::new("5 latency");
    let rate = bench.figure_2()? * SHARE;
    let floor = floor(bench, &progress).await?;
    let stage = Stage::start(&bench.servers, "latency").await?;
    progress.step("accounts", Duration::ZERO);
    let target = stage.target(USERS)?;
    open_accounts(&target, "1000000.00").await?;
    let (warm_up, measured) = (Duration::from_secs(if bench.options.quick { 2 } else { 5 }), bench.options.sustained());
    progress.step(format!("{rate:.0} orders/s"), warm_up + measured);
    let run = Run { target, orders: (rate * (warm_up + measured).as_secs_f64()) as u64, rate, warm_up };
    let before = Costs::now(&stage)?;
    let (accepted, latency) = on_own_thread(move || run.run()).await?;
    let costs = Costs::now(&stage)?.per_order(before, accepted.len());
    verify::accepted_are_settled(&stage, &accepted).await?;
    stage.stop().await?;
    progress.done();
    let ms = |percent| Duration::from_micros(latency.value_at_percentile(percent)).as_secs_f64() * 1e3;
    let name = format!("order to subscriber sees PAID, {rate:.0} orders/s, median");
    let figures = vec![
        Figure::new(5, name, ms(50.0), "ms", floor.clone(), Bar::AtMostTimes(3.0)),
        Figure::new(5, "  its 99th percentile", ms(99.0), "ms", floor, Bar::AtMostTimes(8.0)),
    ];
    Ok(figures.into_iter().chain(costs.figures(5)).collect())
}

/// Three commits of a single client and two round trips of Kafka; `None` without `pgbench`.
async fn floor(bench: &Bench, progress: &Progress) -> Result<Option<Yardstick>, BenchError> {
    let Some(pgbench) = &bench.pgbench else { return Ok(None) };
    create_database(&bench.servers, "bench_yardstick_latency").await?;
    let url = bench.servers.database("bench_yardstick_latency");
    execute(&url, create::TABLES).await?;
    let seconds = 2 * bench.options.yardstick_seconds;
    progress.step("pgbench, one order per transaction, 1 client", Duration::from_secs(seconds));
    let commit_ms = pgbench.run(&url, create::ORDER_SQL, 1, seconds).await?.latency_ms;
    progress.step("round trips of Kafka", Duration::ZERO);
    let round_trip_ms = round_trip_ms(bench).await?;
    let name = format!("3 commits by pgbench ({commit_ms:.2} ms) and 2 round trips of Kafka ({round_trip_ms:.2} ms)");
    Ok(Some(Yardstick { name, value: 3.0 * commit_ms + 2.0 * round_trip_ms }))
}

/// The median time from handing a record to the producer (`acks=all`) until a consumer has it.
async fn round_trip_ms(bench: &Bench) -> Result<f64, BenchError> {
    const WARM_UP: u32 = 100;
    let rounds = if bench.options.quick { 200 } else { 1_000 };
    let broker = hot::broker(bench)?;
    let topic = format!("bench-round-trip-{}", std::process::id());
    broker.ensure_topics(&[TopicSpec { name: topic.clone(), partitions: 1 }]).await.map_err(BenchError::unexpected)?;
    let mut consumer = broker.consumer(&topic, std::slice::from_ref(&topic)).await.map_err(BenchError::unexpected)?;
    let mut times = histogram()?;
    for round in 0..WARM_UP + rounds {
        let records = [hot::task_record(OrderId::generate(), &UserId(user_name(0)), &topic)?];
        let started = Instant::now();
        let received = async {
            let batch = consumer.next_batch(1).await;
            batch.map(|batch| (batch, started.elapsed()))
        };
        // Who waits for the record does not wait for its acknowledgement.
        let (acknowledged, received) = tokio::join!(broker.publish(&records), received);
        let (batch, took) = received.map_err(BenchError::unexpected)?;
        if acknowledged.iter().any(Result::is_err)
            || batch.deliveries.iter().any(|delivery| delivery.payload != records[0].payload)
        {
            return Err(BenchError::Unexpected(format!("Kafka answered {acknowledged:?} and delivered {batch:?}")));
        }
        consumer.store(&batch, 1).await.map_err(BenchError::unexpected)?;
        if round >= WARM_UP {
            record(&mut times, took)?;
        }
    }
    consumer.close().await.map_err(BenchError::unexpected)?;
    Ok(Duration::from_micros(times.value_at_percentile(50.0)).as_secs_f64() * 1e3)
}

/// One run of the open loop.
struct Run {
    target: Target,
    rate: f64,
    /// All that become due, of the warm-up too.
    orders: u64,
    /// Not measured.
    warm_up: Duration,
}

impl Run {
    /// Every accepted order, and how long those of the measured time took.
    async fn run(self) -> Result<(Vec<OrderId>, Histogram<u64>), BenchError> {
        let authorizations = self.target.authorizations()?;
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(self.target.address).await?);
        }
        let after = cursor(&mut connections[0], &authorizations[0]).await?;
        let url = format!("http://{}", self.target.address);
        let mut watching = Vec::new();
        for (token, user) in self.target.tokens.iter().zip(0_u64..) {
            // Orders go round.
            let orders = self.orders.saturating_sub(user).div_ceil(USERS as u64);
            let subscriber = Subscriber::start(&url, token, EVENTS, json!({ "after": after })).await?;
            watching.push(tokio::spawn(watch(subscriber, orders)));
        }
        let arrivals = Arc::new(Arrivals {
            authorizations,
            start: Instant::now(),
            rate: self.rate,
            orders: self.orders,
            next: AtomicU64::new(0),
        });
        let ordering = connections.into_iter().map(|connection| tokio::spawn(arrivals.clone().order(connection)));
        let (mut due, mut paid) = (Vec::new(), HashMap::new());
        for done in try_join_all(ordering).await? {
            due.extend(done?);
        }
        for done in try_join_all(watching).await? {
            paid.extend(done?);
        }
        let mut latency = histogram()?;
        for (order, due) in &due {
            let paid = paid.get(order).ok_or_else(|| BenchError::Unexpected(format!("nobody was told that {order} is PAID")))?;
            if *due >= arrivals.start + self.warm_up {
                record(&mut latency, *paid - *due)?;
            }
        }
        Ok((due.into_iter().map(|(order, _)| order).collect(), latency))
    }
}

/// A position before all orders of the run, so that no subscription misses the first of them.
async fn cursor(connection: &mut Connection, authorization: &HeaderValue) -> Result<String, BenchError> {
    let body = json!({ "query": "{ orderEventsCursor }" }).to_string();
    let answer: Value = serde_json::from_slice(&connection.post(authorization, body.into_bytes()).await?)?;
    let cursor = answer["data"]["orderEventsCursor"].as_str().map(str::to_owned);
    cursor.ok_or_else(|| BenchError::Answer(answer.to_string()))
}

/// Orders as they become due.
struct Arrivals {
    authorizations: Vec<HeaderValue>,
    start: Instant,
    rate: f64,
    orders: u64,
    next: AtomicU64,
}

impl Arrivals {
    /// Sends them, whoever is free the next; answers those that were accepted, each with the time when it was due.
    async fn order(self: Arc<Self>, mut connection: Connection) -> Result<Vec<(OrderId, Instant)>, BenchError> {
        let mut accepted = Vec::new();
        loop {
            let order = self.next.fetch_add(1, Ordering::Relaxed);
            if order >= self.orders {
                return Ok(accepted);
            }
            let due = self.start + Duration::from_secs_f64(order as f64 / self.rate);
            sleep_until(due).await;
            let authorization = &self.authorizations[usize::try_from(order).unwrap_or_default() % self.authorizations.len()];
            let answer = connection.post(authorization, order_request(RUN, order)).await?;
            accepted.push((created(&answer)?, due));
        }
    }
}

/// Until the user's orders are PAID: each has been PENDING before, and nothing comes twice.
async fn watch(mut events: Subscriber, orders: u64) -> Result<Vec<(OrderId, Instant)>, BenchError> {
    let (mut pending, mut paid) = (HashSet::new(), Vec::new());
    while (paid.len() as u64) < orders {
        let event = timeout(PATIENCE, events.next()).await;
        let event = event
            .map_err(|_| BenchError::Unexpected(format!("{} of {orders} orders are PAID, and no event comes", paid.len())))??;
        let at = Instant::now();
        let event = event.map(|mut data| data["orderEvents"].take()).unwrap_or_default();
        let wrong = || BenchError::Answer(event.to_string());
        let order: OrderId = event["order"]["id"].as_str().and_then(|id| id.parse().ok()).ok_or_else(wrong)?;
        match (event["version"].as_u64(), event["status"].as_str()) {
            (Some(1), Some("PENDING")) if pending.insert(order) => {}
            (Some(2), Some("PAID")) if pending.remove(&order) => paid.push((order, at)),
            _ => return Err(wrong()),
        }
    }
    Ok(paid)
}

fn record(times: &mut Histogram<u64>, took: Duration) -> Result<(), BenchError> {
    times.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX)).map_err(BenchError::unexpected)
}
