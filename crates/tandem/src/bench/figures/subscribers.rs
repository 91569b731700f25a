//! Figure 7: ten thousand WebSocket subscribers on one Order Service, each of an order of its own: their memory, and how soon all of them
//! know after a burst has settled all their orders.
//!
//! 1. Payments Service is held; the orders are created, and each subscriber has seen its order PENDING.
//! 2. Payments Service goes on. The time runs from the last commit in Order Service's database until the last subscriber has PAID.
//!
//! The subscribers are of one thread of the benchmark, so what they hold is not the service's memory.

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use schema::OrderId;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde_json::{Value, json};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    bench::{
        Bench, BenchError,
        load::{Load, Pace, on_own_thread, open_accounts},
        process::resident_bytes,
        progress::Progress,
        report::{Bar, Figure},
        stage::{Stage, user_name},
        verify,
    },
    subscriber::Subscriber,
};

/// Users that order, spread over all partitions.
const USERS: usize = 200;
/// Sockets that are opened at the same time: fewer than the service's queue of connections takes.
const CONNECTING: usize = 64;
/// Longer than connecting all of them and settling their orders may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// How exactly the last commit is seen.
const POLL: Duration = Duration::from_millis(5);
const CHANGES: &str = "subscription Changes($id: ID!) { orderStatusChanged(orderId: $id) { version status } }";

/// Measures.
///
/// # Errors
/// [`BenchError`].
pub async fn measure(bench: &mut Bench) -> Result<Vec<Figure>, BenchError> {
    let progress = Progress::new("7 subscribers");
    let subscribers: u32 = if bench.options.quick { 500 } else { 10_000 };
    let mut stage = Stage::start(&bench.servers, "subscribers").await?;
    let accepted = pending_orders(bench, &mut stage, subscribers, &progress).await?;
    progress.step(format!("connecting {subscribers} subscribers"), Duration::ZERO);
    let (connected, all_connected) = oneshot::channel();
    let audience =
        Audience { url: format!("http://{}", stage.orders.address), pid: stage.orders.pid, orders: owned_orders(&stage).await? };
    let watching = tokio::spawn(on_own_thread(move || audience.watch(connected)));
    let Ok(memory) = all_connected.await else {
        watching.await??;
        return Err(BenchError::Unexpected("the subscribers ended without having waited".to_owned()));
    };
    progress.step("settling their orders", Duration::ZERO);
    stage.payments.resume().await?;
    let committed = last_commit(&stage, i64::from(2 * subscribers)).await?;
    let notified = watching.await??;
    verify::accepted_are_settled(&stage, &accepted).await?;
    stage.stop().await?;
    progress.done();
    let per_subscriber = |bytes: u64, subscribers: u32| bytes as f64 / 1000.0 / f64::from(subscribers);
    let rest = subscribers - subscribers / 10;
    let seconds = notified.saturating_duration_since(committed).as_secs_f64();
    Ok(vec![
        Figure::new(
            7,
            format!("memory of Order Service per WebSocket subscriber, of {subscribers}"),
            per_subscriber(memory.all.saturating_sub(memory.before), subscribers),
            "KB",
            None,
            Bar::AtMost(30.0),
        ),
        Figure::new(
            7,
            "  of the last nine tenths alone",
            per_subscriber(memory.all.saturating_sub(memory.tenth), rest),
            "KB",
            None,
            Bar::None,
        ),
        Figure::new(7, "  last commit until all of them have PAID", seconds, "s", None, Bar::AtMost(2.0)),
    ])
}

/// Exactly so many orders, created while Payments Service is held.
async fn pending_orders(bench: &Bench, stage: &mut Stage, orders: u32, progress: &Progress) -> Result<Vec<OrderId>, BenchError> {
    progress.step("accounts", Duration::ZERO);
    let target = stage.target(USERS)?;
    open_accounts(&target, "1000000.00").await?;
    stage.payments.pause().await?;
    let measured = Duration::from_secs(if bench.options.quick { 4 } else { 10 });
    progress.step(format!("{orders} orders"), measured);
    // Every order that is due before the end is sent, however late.
    let rate = f64::from(orders) / measured.as_secs_f64();
    let load = Load { run: "subscribers", clients: 64, pace: Pace::Open(rate), warm_up: Duration::ZERO, measured };
    let accepted = load.run(target).await?.accepted;
    if accepted.len() != usize::try_from(orders).unwrap_or_default() {
        return Err(BenchError::Unexpected(format!("{} of {orders} orders were accepted", accepted.len())));
    }
    verify::accepted_are_stored(&stage.orders_db, &accepted).await?;
    Ok(accepted)
}

/// Each order with its user's token.
async fn owned_orders(stage: &Stage) -> Result<Vec<(OrderId, String)>, BenchError> {
    let tokens: HashMap<String, String> =
        stage.target(USERS)?.tokens.into_iter().enumerate().map(|(user, token)| (user_name(user), token)).collect();
    let rows =
        stage.orders_db.query_all_raw(Statement::from_string(DbBackend::Postgres, "SELECT id, user_id FROM orders")).await?;
    let owned = |row: &sea_orm::QueryResult| {
        let (order, user): (OrderId, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        let token = tokens.get(&user).cloned();
        token.map(|token| (order, token)).ok_or_else(|| BenchError::Unexpected(format!("an order of {user}")))
    };
    rows.iter().map(owned).collect()
}

/// When Order Service had committed its last event: at the latest look that did not show it yet, so never too late.
async fn last_commit(stage: &Stage, events: i64) -> Result<Instant, BenchError> {
    let started = Instant::now();
    let mut before = started;
    loop {
        let looked = Instant::now();
        let committed = stage.events().await?;
        if committed == events {
            return Ok(before);
        }
        if started.elapsed() > PATIENCE {
            return Err(BenchError::Unexpected(format!("{committed} of {events} events after {} s", PATIENCE.as_secs())));
        }
        before = looked;
        sleep_until(looked + POLL).await;
    }
}

/// What Order Service holds, in bytes.
#[derive(Debug)]
struct Memory {
    /// Without a subscriber.
    before: u64,
    /// With a tenth of them: from there on, nothing is needed for the first time and nothing is left over from the orders' creation.
    tenth: u64,
    /// With all of them.
    all: u64,
}

/// Those who watch.
struct Audience {
    url: String,
    /// Of Order Service.
    pid: u32,
    orders: Vec<(OrderId, String)>,
}

impl Audience {
    /// Connects, says so, and answers when the last one has seen its order PAID.
    async fn watch(self, connected: oneshot::Sender<Memory>) -> Result<Instant, BenchError> {
        let (tenth, rest) = self.orders.split_at(self.orders.len() / 10);
        let before = resident_bytes(self.pid)?;
        let mut watching = self.connect(tenth).await?;
        let of_tenth = resident_bytes(self.pid)?;
        watching.extend(self.connect(rest).await?);
        let memory = Memory { before, tenth: of_tenth, all: resident_bytes(self.pid)? };
        connected.send(memory).map_err(|_| BenchError::Unexpected("nobody waits for the subscribers".to_owned()))?;
        let notified = try_join_all(watching).await?.into_iter().collect::<Result<Vec<Instant>, _>>()?;
        notified.into_iter().max().ok_or_else(|| BenchError::Unexpected("no subscribers".to_owned()))
    }

    /// Each in a task of its own, so that pings are answered meanwhile.
    async fn connect(
        &self,
        orders: &[(OrderId, String)],
    ) -> Result<Vec<tokio::task::JoinHandle<Result<Instant, BenchError>>>, BenchError> {
        let one = async |(order, token): &(OrderId, String)| {
            let subscriber = Subscriber::start(&self.url, token, CHANGES, json!({ "id": order.to_string() })).await;
            let mut subscriber =
                subscriber.map_err(|error| BenchError::Unexpected(format!("a subscriber cannot connect: {error}")))?;
            expect(subscriber.next().await?, 1, "PENDING")?;
            Ok::<_, BenchError>(tokio::spawn(paid(subscriber)))
        };
        stream::iter(orders).map(one).buffer_unordered(CONNECTING).try_collect().await
    }
}

/// The next and last event is PAID.
async fn paid(mut subscriber: Subscriber) -> Result<Instant, BenchError> {
    let late = |_| BenchError::Unexpected(format!("a subscriber has not seen PAID after {} s", PATIENCE.as_secs()));
    let event = timeout(PATIENCE, subscriber.next()).await.map_err(late)??;
    let at = Instant::now();
    expect(event, 2, "PAID")?;
    match timeout(PATIENCE, subscriber.next()).await.map_err(late)?? {
        None => Ok(at),
        Some(event) => Err(BenchError::Answer(format!("after PAID: {event}"))),
    }
}

fn expect(event: Option<Value>, version: u64, status: &str) -> Result<(), BenchError> {
    match event {
        Some(event) if event == json!({ "orderStatusChanged": { "version": version, "status": status } }) => Ok(()),
        event => Err(BenchError::Answer(format!("instead of {status}: {event:?}"))),
    }
}
