//! The clients.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use indicatif::ProgressBar;
use rand::RngExt as _;
use runtime::auth::TokenSigner;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{ProveError, SETTLE_TIME, server::Server};
use crate::{
    client::{Answer, Client},
    embedded::signer,
};

/// Accounts, so that debits meet on some and spread over others.
const USERS: usize = 20;
/// Calls under way at the same time.
const CLIENTS: usize = 16;
/// Orders cost 1.00 to 20.00, on average 10.50.
const MAX_UNITS: usize = 20;
/// A client that got no answer waits this long, so that a server under repair is not hammered.
const REPEAT_AFTER: Duration = Duration::from_millis(20);
/// A kill comes at a random moment within this time after its share of the orders.
const KILL_WITHIN_MS: u64 = 200;

const CREATE_ACCOUNT: &str =
    "mutation($input: CreateAccountInput!) { createAccount(input: $input) { account { id } userErrors { code } } }";
const TOP_UP: &str =
    "mutation($input: TopUpAccountInput!) { topUpAccount(input: $input) { account { id } userErrors { code } } }";
const CREATE_ORDER: &str =
    "mutation($input: CreateOrderInput!) { createOrder(input: $input) { order { id } userErrors { code } } }";
const PENDING: &str = "{ orders(first: 100, filter: { status: [PENDING] }) { nodes { id } } }";

/// Users with their accounts, and how many orders they are going to create.
pub(super) struct Load {
    users: Vec<Client>,
    admin: Client,
    orders: usize,
}

/// What the clients were told: the id of the order of each call.
pub type Accepted = BTreeMap<usize, String>;

impl Load {
    /// Creates the accounts. Each gets money for about three quarters of its orders, so that some are rejected.
    pub(super) async fn prepare(server: &Server, orders: usize) -> Result<Self, ProveError> {
        let signer = signer(server.data_dir(), None).map_err(|error| ProveError::Answer(error.to_string()))?;
        let anonymous = Client::new(&server.url(), None)?;
        let token = |user: &str, scopes: &[&str]| sign(&signer, user, scopes);
        let mut users = Vec::with_capacity(USERS);
        let money = orders.div_ceil(USERS) * (MAX_UNITS + 1) * 3 / 8;
        for user in 0..USERS {
            let client = anonymous.signed_in(token(&format!("prove-{user}"), &[])?);
            let input = json!({ "input": { "currencyCode": "EUR", "idempotencyKey": "account" } });
            mutate(&client, server, CREATE_ACCOUNT, &input, "createAccount").await?;
            let amount = json!({ "amount": format!("{money}.00"), "currencyCode": "EUR" });
            let input = json!({ "input": { "amount": amount, "idempotencyKey": "top-up" } });
            mutate(&client, server, TOP_UP, &input, "topUpAccount").await?;
            users.push(client);
        }
        let admin = anonymous.signed_in(token("prove-admin", &["admin"])?);
        Ok(Self { users, admin, orders })
    }

    /// Creates all orders while the server is killed.
    pub(super) async fn run(&self, server: &Server, kills: usize, bar: &ProgressBar) -> Result<Accepted, ProveError> {
        let next = AtomicUsize::new(0);
        let accepted = Mutex::new(Accepted::new());
        let clients = try_join_all((0..CLIENTS).map(|_| self.client(server, &next, &accepted, bar)));
        tokio::try_join!(clients, self.killer(server, kills, &next, bar))?;
        Ok(accepted.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    async fn client(
        &self,
        server: &Server,
        next: &AtomicUsize,
        accepted: &Mutex<Accepted>,
        bar: &ProgressBar,
    ) -> Result<(), ProveError> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.orders {
                return Ok(());
            }
            let units = number / USERS % MAX_UNITS + 1;
            let input = json!({ "input": {
                "total": { "amount": format!("{units}.00"), "currencyCode": "EUR" },
                "description": format!("order {number}"),
                "idempotencyKey": order_key(number),
            }});
            let payload = mutate(&self.users[number % USERS], server, CREATE_ORDER, &input, "createOrder").await?;
            let id = payload["order"]["id"].as_str().ok_or_else(|| ProveError::Answer(payload.to_string()))?;
            accepted.lock().unwrap_or_else(PoisonError::into_inner).insert(number, id.to_owned());
            bar.inc(1);
        }
    }

    /// Kills spread over the load: each after its share of the orders and at a moment that nobody knows.
    async fn killer(&self, server: &Server, kills: usize, next: &AtomicUsize, bar: &ProgressBar) -> Result<(), ProveError> {
        for kill in 1..=kills {
            let due = self.orders * kill / (kills + 1);
            while next.load(Ordering::Relaxed) < due {
                sleep(Duration::from_millis(1)).await;
            }
            let moment = rand::rng().random_range(0..KILL_WITHIN_MS);
            sleep(Duration::from_millis(moment)).await;
            server.kill_and_restart().await?;
            bar.set_message(format!("killed {kill} of {kills} times"));
        }
        Ok(())
    }

    /// Until no order is PENDING.
    pub(super) async fn wait_until_settled(&self, server: &Server) -> Result<(), ProveError> {
        let deadline = Instant::now() + SETTLE_TIME;
        loop {
            let answer = repeat(&self.admin, server, PENDING, &json!({})).await;
            let pending =
                answer.data["orders"]["nodes"].as_array().ok_or_else(|| ProveError::Answer(format!("{answer:?}")))?.len();
            if pending == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(ProveError::NotSettled(pending));
            }
            sleep(REPEAT_AFTER).await;
        }
    }
}

/// The idempotency key of a call.
pub fn order_key(call: usize) -> String {
    format!("order-{call}")
}

fn sign(signer: &TokenSigner, user: &str, scopes: &[&str]) -> Result<String, ProveError> {
    let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect::<Vec<_>>();
    signer.sign(user, &scopes, Duration::from_secs(12 * 3600)).map_err(|error| ProveError::Answer(error.to_string()))
}

/// Calls until there is an answer, and expects success.
async fn mutate(client: &Client, server: &Server, document: &str, variables: &Value, field: &str) -> Result<Value, ProveError> {
    let answer = repeat(client, server, document, variables).await;
    let payload = &answer.data[field];
    let refused = payload["userErrors"].as_array().is_none_or(|errors| !errors.is_empty());
    if refused { Err(ProveError::Answer(format!("{answer:?}"))) } else { Ok(payload.clone()) }
}

/// Repeats a call without an answer, or with one that says "try again": safe, because every mutation here carries a key.
async fn repeat(client: &Client, server: &Server, document: &str, variables: &Value) -> Answer {
    loop {
        server.running().await;
        match client.run(document, variables.clone()).await {
            Ok(answer) if !matches!(answer.code(), Some("SERVICE_UNAVAILABLE" | "TIMEOUT")) => return answer,
            Ok(answer) => tracing::debug!(code = answer.code(), "trying again"),
            Err(error) => tracing::debug!(%error, "trying again"),
        }
        sleep(REPEAT_AFTER).await;
    }
}
