//! Figure 8: whether it becomes slower with what it stores: figures 1 and 2 and a page of a user's orders with a million orders stored, against
//! the same with ten thousand.

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use hyper::{body::Bytes, header::HeaderValue};
use serde_json::json;
use tokio::time::Instant;

use super::{create, settle};
use crate::bench::{
    Bench, BenchError,
    load::{connection::Connection, on_own_thread},
    progress::Progress,
    report::{Bar, Figure, Yardstick},
    stage::{Stage, seed::Seed},
    verify::{self, Earlier},
};

/// Each of its users has the page that is asked for, and no more.
const FEW: Seed = Seed { users: 500, orders_per_user: PAGE };
/// All of figure 2's users.
const MANY: Seed = Seed { users: 1_000, orders_per_user: 1_000 };
/// A tenth of [`MANY`], to see whether it works.
const QUICK: Seed = Seed { users: 1_000, orders_per_user: 100 };
const PAGE: i64 = 20;
/// Concurrent clients that ask for pages.
const CLIENTS: usize = 32;
const ORDERS: &str = "query Orders { orders(first: 20) { nodes { id number status total { amount currencyCode } } pageInfo { hasNextPage endCursor } } }";
/// Within a fifth.
const BAR: Bar = Bar::AtLeastTimes(0.8);

/// Per second.
struct Rates {
    pages: f64,
    settled: f64,
    created: f64,
}

/// Measures.
///
/// # Errors
/// [`BenchError`].
pub async fn measure(bench: &mut Bench) -> Result<Vec<Figure>, BenchError> {
    let progress = Progress::new("8 growth");
    let seed = if bench.options.quick { QUICK } else { MANY };
    let few = rates(bench, "few", FEW, &progress).await?;
    let many = rates(bench, "many", seed, &progress).await?;
    progress.done();
    let figure = |name: &str, unit, few, many| {
        let yardstick = Yardstick { name: format!("the same with {} orders stored", FEW.orders()), value: few };
        Figure::new(8, format!("{name} with {} orders stored", seed.orders()), many, unit, Some(yardstick), BAR)
    };
    Ok(vec![
        figure("createOrder", "orders/s", few.created, many.created),
        figure("settled orders", "orders/s", few.settled, many.settled),
        figure("orders(first: 20)", "pages/s", few.pages, many.pages),
    ])
}

/// All three, reading first, because the loads add orders.
async fn rates(bench: &Bench, name: &str, seed: Seed, progress: &Progress) -> Result<Rates, BenchError> {
    progress.step(format!("storing {} orders", seed.orders()), Duration::ZERO);
    let mut stage = seed.start(&bench.servers, name).await?;
    let pages = pages(bench, &stage, progress).await?;
    let settled = settle::find_rate(bench, &stage, progress).await?.per_second;
    stage.earlier = Earlier::all(&stage.orders_db).await?;
    stage.payments.pause().await?;
    stage.orders.pause().await?;
    let created = create::run(bench, &stage, progress, "growth").await?;
    verify::accepted_are_stored_besides(&stage.orders_db, &created.accepted, stage.earlier).await?;
    stage.stop().await?;
    Ok(Rates { pages, settled, created: created.per_second })
}

/// Pages that are answered per second, asked for by all users who have one on both stages.
async fn pages(bench: &Bench, stage: &Stage, progress: &Progress) -> Result<f64, BenchError> {
    let (warm_up, measured) = (Duration::from_secs(1), bench.options.measured());
    progress.step(format!("orders(first: {PAGE}), {CLIENTS} clients"), warm_up + measured);
    let users = usize::try_from(FEW.users).unwrap_or_default();
    let authorizations: Arc<[HeaderValue]> = stage.target(users)?.authorizations()?.into();
    let address = stage.orders.address;
    on_own_thread(move || async move {
        let connections = try_join_all((0..CLIENTS).map(|_| Connection::open(address))).await?;
        let counted = Instant::now() + warm_up;
        let client = async |(client, mut connection): (usize, Connection)| {
            let mut answered = 0_u64;
            for authorization in authorizations.iter().cycle().skip(client * authorizations.len() / CLIENTS) {
                let answer = connection.post(authorization, json!({ "query": ORDERS }).to_string().into_bytes()).await?;
                let now = Instant::now();
                if now >= counted + measured {
                    break;
                }
                check(&answer)?;
                answered += u64::from(now >= counted);
            }
            Ok::<_, BenchError>(answered)
        };
        let answered = try_join_all(connections.into_iter().enumerate().map(client)).await?;
        Ok(answered.into_iter().sum::<u64>() as f64 / measured.as_secs_f64())
    })
    .await
}

/// A full page of paid orders. Read without being taken apart, because the generator shares the machine with what it measures.
fn check(answer: &Bytes) -> Result<(), BenchError> {
    let text = std::str::from_utf8(answer).unwrap_or_default();
    if text.matches(r#""status":"PAID""#).count() == PAGE as usize && !text.contains(r#""errors""#) {
        return Ok(());
    }
    Err(BenchError::Answer(String::from_utf8_lossy(answer).into_owned()))
}
