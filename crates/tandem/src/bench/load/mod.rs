//! Load through the public endpoint: `createOrder` with a token, an idempotency key of its own each, every answer read.
//!
//! Closed loop: each client sends its next order when the last one is answered; measures capacity. Open loop: orders arrive at fixed
//! times, and one that finds all clients busy waits, with its clock running; measures whether a rate is sustained.

pub mod connection;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use hyper::header::HeaderValue;
use runtime::auth::TokenSigner;
use schema::OrderId;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use self::connection::Connection;
use super::{BenchError, stage::user_name};

const CREATE_ORDER: &str = "mutation Order($input: CreateOrderInput!) { createOrder(input: $input) { order { id number status } userErrors { code message } } }";
const OPEN_ACCOUNT: &str = "mutation Open($amount: MoneyInput!) {
    createAccount(input: { currencyCode: EUR, idempotencyKey: \"bench\" }) { userErrors { code } }
    topUpAccount(input: { amount: $amount, idempotencyKey: \"bench\" }) { account { id } userErrors { code } }
}";

/// Longer than any run.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

/// Whom to call, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// Of the public endpoint.
    pub address: SocketAddr,
    /// One token per user; orders go round.
    pub tokens: Vec<String>,
}

impl Target {
    /// This address, signed in as so many different users.
    ///
    /// # Errors
    /// When a token cannot be signed.
    pub fn new(address: SocketAddr, signer: &TokenSigner, users: usize) -> Result<Self, BenchError> {
        let token = |user| signer.sign::<&str>(&user_name(user), &[], TOKEN_TTL);
        let tokens = (0..users).map(token).collect::<Result<_, _>>().map_err(BenchError::unexpected)?;
        Ok(Self { address, tokens })
    }

    /// The tokens as they travel.
    ///
    /// # Errors
    /// When one is none.
    pub fn authorizations(&self) -> Result<Vec<HeaderValue>, BenchError> {
        let bearer = |token: &String| HeaderValue::try_from(format!("Bearer {token}"));
        let headers = self.tokens.iter().map(bearer).collect::<Result<_, _>>();
        headers.map_err(BenchError::unexpected)
    }
}

/// How orders arrive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As fast as they are answered.
    Closed,
    /// So many per second, whatever the answers do.
    Open(f64),
}

/// One run.
#[derive(Debug, Clone)]
pub struct Load {
    /// In front of its idempotency keys: no two runs on one database may share it.
    pub run: &'static str,
    /// Connections, and orders that may wait for their answer at the same time.
    pub clients: usize,
    /// How orders arrive.
    pub pace: Pace,
    /// Before counting starts: plans, statements, connections and pages become warm.
    pub warm_up: Duration,
    /// While answers are counted.
    pub measured: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Every accepted order, those of the warm-up too.
    pub accepted: Vec<OrderId>,
    /// From when an order was due to its answer, in microseconds; only of the measured time.
    pub latency: Histogram<u64>,
    /// Answers per second of the measured time.
    pub per_second: f64,
}

impl Outcome {
    /// So many percent of the answers came at least as fast, in milliseconds.
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        Duration::from_micros(self.latency.value_at_percentile(percent)).as_secs_f64() * 1e3
    }
}

impl Load {
    /// Runs on a thread of its own, so that it costs one wake-up per answer and not two.
    ///
    /// # Errors
    /// The first answer that is no accepted order.
    pub async fn run(self, target: Target) -> Result<Outcome, BenchError> {
        on_own_thread(move || async move {
            let shared = Arc::new(Shared::new(self, &target)?);
            let clients =
                try_join_all((0..shared.load.clients).map(|client| Client::open(client, &shared, target.address))).await?;
            // Only now, so that connecting is nobody's latency.
            let start = Instant::now();
            let mut outcome = Outcome { accepted: Vec::new(), latency: histogram()?, per_second: 0.0 };
            let running = clients.into_iter().map(|client| tokio::spawn(client.run(start)));
            for done in try_join_all(running).await? {
                let (accepted, latency) = done?;
                outcome.accepted.extend(accepted);
                outcome.latency.add(latency).map_err(BenchError::unexpected)?;
            }
            outcome.per_second = outcome.latency.len() as f64 / shared.load.measured.as_secs_f64();
            Ok(outcome)
        })
        .await
    }
}

/// Runs a generator on a thread and a runtime of its own.
///
/// # Errors
/// Its own.
pub async fn on_own_thread<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T, BenchError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, BenchError>>,
{
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work())
    })
    .await?
}

/// An empty one of microseconds.
///
/// # Errors
/// None in practice.
pub fn histogram() -> Result<Histogram<u64>, BenchError> {
    // Three digits are more than the machine repeats.
    Histogram::new(3).map_err(BenchError::unexpected)
}

struct Shared {
    load: Load,
    tokens: Vec<HeaderValue>,
    /// The next order that is due, in the open loop.
    next: AtomicU64,
}

impl Shared {
    fn new(load: Load, target: &Target) -> Result<Self, BenchError> {
        Ok(Self { load, tokens: target.authorizations()?, next: AtomicU64::new(0) })
    }
}

struct Client {
    connection: Connection,
    shared: Arc<Shared>,
    number: usize,
}

impl Client {
    async fn open(number: usize, shared: &Arc<Shared>, address: SocketAddr) -> Result<Self, BenchError> {
        Ok(Self { connection: Connection::open(address).await?, shared: Arc::clone(shared), number })
    }

    async fn run(mut self, start: Instant) -> Result<(Vec<OrderId>, Histogram<u64>), BenchError> {
        let shared = Arc::clone(&self.shared);
        let load = &shared.load;
        let counted = start + load.warm_up;
        let end = counted + load.measured;
        let (mut accepted, mut latency) = (Vec::new(), histogram()?);
        for sent in 0_u64.. {
            let (order, due) = match load.pace {
                Pace::Closed => (sent * load.clients as u64 + self.number as u64, Instant::now()),
                Pace::Open(rate) => {
                    let order = shared.next.fetch_add(1, Ordering::Relaxed);
                    (order, start + Duration::from_secs_f64(order as f64 / rate))
                }
            };
            if due >= end {
                break;
            }
            sleep_until(due).await;
            accepted.push(self.order(order).await?);
            let answered = Instant::now();
            if answered >= counted && answered < end {
                let micros = u64::try_from((answered - due).as_micros()).unwrap_or(u64::MAX);
                latency.record(micros).map_err(BenchError::unexpected)?;
            }
        }
        Ok((accepted, latency))
    }

    async fn order(&mut self, order: u64) -> Result<OrderId, BenchError> {
        let token = &self.shared.tokens[usize::try_from(order).unwrap_or_default() % self.shared.tokens.len()];
        let answer = self.connection.post(token, order_request(self.shared.load.run, order)).await?;
        created(&answer)
    }
}

/// The body that asks for the order with this number of a run, under an idempotency key of its own.
pub fn order_request(run: &str, order: u64) -> Vec<u8> {
    let input = json!({
        "total": { "amount": "0.01", "currencyCode": "EUR" },
        "description": "A pair of socks",
        "idempotencyKey": format!("{run}-{order}"),
    });
    json!({ "query": CREATE_ORDER, "variables": { "input": input } }).to_string().into_bytes()
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow, rename = "createOrder")]
    create_order: Payload<'a>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    order: Created<'a>,
}

#[derive(Deserialize)]
struct Created<'a> {
    id: &'a str,
}

/// The id of the accepted order; everything else is no figure.
///
/// # Errors
/// When there is none.
pub fn created(answer: &[u8]) -> Result<OrderId, BenchError> {
    let unexpected = || BenchError::Answer(String::from_utf8_lossy(answer).into_owned());
    let answer: Answer<'_> = serde_json::from_slice(answer).map_err(|_| unexpected())?;
    answer.data.create_order.order.id.parse().map_err(|_| unexpected())
}

/// Gives every user of the target an account with this amount, in euros.
///
/// # Errors
/// The first user who has none afterwards.
pub async fn open_accounts(target: &Target, amount: &'static str) -> Result<(), BenchError> {
    /// More would only wait for the database.
    const CLIENTS: usize = 16;
    let (address, authorizations) = (target.address, target.authorizations()?);
    on_own_thread(move || async move {
        let open = async |client: usize| {
            let mut connection = Connection::open(address).await?;
            for authorization in authorizations.iter().skip(client).step_by(CLIENTS) {
                let variables = json!({ "amount": { "amount": amount, "currencyCode": "EUR" } });
                let body = json!({ "query": OPEN_ACCOUNT, "variables": variables }).to_string();
                let answer = connection.post(authorization, body.into_bytes()).await?;
                let answer: serde_json::Value = serde_json::from_slice(&answer)?;
                if answer["data"]["topUpAccount"]["account"]["id"].is_null() {
                    return Err(BenchError::Answer(answer.to_string()));
                }
            }
            Ok(())
        };
        try_join_all((0..CLIENTS).map(open)).await.map(drop)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_accepted_order_is_an_answer() {
        let id = OrderId::generate();
        let accepted = format!(
            r#"{{"data":{{"createOrder":{{"order":{{"id":"{id}","number":"1","status":"PENDING"}},"userErrors":[]}}}}}}"#
        );
        assert_eq!(created(accepted.as_bytes()).unwrap(), id);
        for refused in [
            r#"{"data":{"createOrder":{"order":null,"userErrors":[{"code":"AMOUNT_TOO_LARGE","message":"m"}]}}}"#,
            r#"{"data":{"createOrder":null},"errors":[{"message":"m"}]}"#,
            r#"{"errors":[{"message":"m"}]}"#,
            "",
        ] {
            assert!(matches!(created(refused.as_bytes()), Err(BenchError::Answer(_))), "{refused}");
        }
    }
}
