//! How long an order takes until its subscriber sees it paid: five durable commits, two services and a broker in between.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::Instant;

use super::BenchError;
use crate::{
    client::Client,
    embedded::{EmbeddedSettings, Tandem},
    subscriber::Subscriber,
};

/// Orders before counting starts: plans, statements and pages become warm.
const WARM_UP: u64 = 20;

const SETUP: &str = "mutation {
    createAccount(input: { currencyCode: EUR }) { userErrors { code } }
    topUpAccount(input: { amount: { amount: \"100000.00\", currencyCode: EUR } }) { account { id } userErrors { code } }
}";
const ORDER: &str = "mutation($key: String!) { createOrder(input: {
    total: { amount: \"1.00\", currencyCode: EUR }, description: \"latency\", idempotencyKey: $key
}) { order { id } userErrors { code } } }";
const EVENTS: &str = "subscription { orderEvents { status order { id } } }";

/// From the `createOrder` request to the subscriber's PAID event.
#[derive(Debug)]
pub struct Latency {
    /// Microseconds.
    histogram: Histogram<u64>,
}

impl Latency {
    /// So many percent of the orders were not slower.
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.histogram.value_at_percentile(percent))
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        write!(
            f,
            "order → subscriber sees PAID, {} sequential orders: p50 {:.1} ms, p99 {:.1} ms",
            self.histogram.len(),
            ms(50.0),
            ms(99.0)
        )
    }
}

/// Measures `orders` sequential orders in embedded mode, on a temporary folder.
///
/// # Errors
/// [`BenchError`].
pub async fn measure(orders: u64, bar: &ProgressBar) -> Result<Latency, BenchError> {
    let folder = tempfile::tempdir()?;
    let tandem = Tandem::start(EmbeddedSettings::local(folder.path(), 0)).await?;
    let client = Client::new(&tandem.url(), Some(tandem.demo_token().to_owned()))?;
    let answer = client.run(SETUP, json!({})).await?;
    if answer.data["topUpAccount"]["account"].is_null() {
        return Err(BenchError::Answer(format!("{answer:?}")));
    }
    let mut events = Subscriber::start(&tandem.url(), tandem.demo_token(), EVENTS, json!({})).await?;
    // Three digits are more than the machine repeats.
    let mut histogram = Histogram::new(3).map_err(|error| BenchError::Answer(error.to_string()))?;
    for number in 0..WARM_UP + orders {
        let took = one_order(&client, &mut events, number).await?;
        if number >= WARM_UP {
            // It grows with its values; hours would not fit, and are no latency.
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            histogram.record(micros).map_err(|error| BenchError::Answer(error.to_string()))?;
            bar.inc(1);
        }
    }
    tandem.stop().await;
    Ok(Latency { histogram })
}

async fn one_order(client: &Client, events: &mut Subscriber, number: u64) -> Result<Duration, BenchError> {
    let started = Instant::now();
    let answer = client.run(ORDER, json!({ "key": format!("latency-{number}") })).await?;
    let id = answer.data["createOrder"]["order"]["id"].clone();
    if id.is_null() {
        return Err(BenchError::Answer(format!("{answer:?}")));
    }
    loop {
        let event = events.next().await?.ok_or_else(|| BenchError::Answer("the subscription completed".to_owned()))?;
        let event = &event["orderEvents"];
        if event["order"]["id"] == id && event["status"] == "PAID" {
            return Ok(started.elapsed());
        }
    }
}
