//! Clients that create orders through all replicas, and go on at another one with the same idempotency key when theirs fails them.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tandem::{
    client::{Answer, Client},
    prove::{Accepted, order_key},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    cluster::Cluster,
    support::user::{CREATE_ACCOUNT, CREATE_ORDER, TOP_UP, money},
};

/// Orders cost 1.00 to 20.00, on average 10.50.
const MAX_UNITS: usize = 20;
/// Pause of a client that was refused, so that replicas in trouble are not hammered.
const REPEAT_AFTER: Duration = Duration::from_millis(20);
/// No order takes longer, whatever happens meanwhile.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(60);

/// What a client got instead of an answer to go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// No HTTP response, or none in time.
    NoAnswer,
    /// `SERVICE_UNAVAILABLE`.
    Unavailable,
    /// `TIMEOUT`.
    Unknown,
}

/// Users and their orders.
pub struct Load {
    bases: Vec<String>,
    pub users: Vec<String>,
    tokens: Vec<String>,
    /// Of each user at each replica.
    clients: Vec<Vec<Client>>,
    /// How long a client waits for one replica.
    pub patience: Duration,
    /// How long a client rests between two orders.
    pub pause: Duration,
    next: AtomicUsize,
    accepted: Mutex<Accepted>,
    troubles: Mutex<BTreeMap<Trouble, usize>>,
    slowest: Mutex<Duration>,
}

impl Load {
    /// Users with accounts, each with money for about three quarters of so many orders.
    pub async fn prepare(cluster: &Cluster, users: usize, orders_per_user: usize) -> Self {
        Self::prepare_at(cluster, cluster.bases(), users, orders_per_user).await
    }

    /// [`Load::prepare`] for clients that call other addresses than the replicas' own.
    pub async fn prepare_at(cluster: &Cluster, bases: Vec<String>, users: usize, orders_per_user: usize) -> Self {
        let users: Vec<String> = (0..users).map(|number| format!("user-{number}")).collect();
        let tokens: Vec<String> = users.iter().map(|user| cluster.token(user)).collect();
        let anonymous: Vec<Client> = bases.iter().map(|base| Client::new(base, None).unwrap()).collect();
        let clients = tokens.iter().map(|token| anonymous.iter().map(|client| client.signed_in(token)).collect()).collect();
        let load = Self {
            bases,
            users,
            tokens,
            clients,
            patience: Duration::from_secs(10),
            pause: Duration::ZERO,
            next: AtomicUsize::new(0),
            accepted: Mutex::default(),
            troubles: Mutex::default(),
            slowest: Mutex::default(),
        };
        let amount = format!("{}.00", orders_per_user * (MAX_UNITS + 1) * 3 / 8);
        join_all((0..load.users.len()).map(|user| load.open_account(user, &amount))).await;
        load
    }

    async fn open_account(&self, user: usize, amount: &str) {
        let account = json!({ "currencyCode": "EUR", "idempotencyKey": "account" });
        self.mutate(user, 0, CREATE_ACCOUNT, "createAccount", account).await;
        let top_up = json!({ "amount": money(amount, "EUR"), "idempotencyKey": "top-up" });
        self.mutate(user, 0, TOP_UP, "topUpAccount", top_up).await;
    }

    pub fn token(&self, user: usize) -> &str {
        &self.tokens[user]
    }

    /// The user at the first replica.
    pub fn client(&self, user: usize) -> &Client {
        &self.clients[user][0]
    }

    pub fn bases(&self) -> &[String] {
        &self.bases
    }

    /// Orders taken on so far, accepted or not.
    pub fn begun(&self) -> usize {
        self.next.load(Ordering::Relaxed)
    }

    /// What the clients were told so far.
    pub fn accepted(&self) -> Accepted {
        self.accepted.lock().unwrap().clone()
    }

    /// What the clients met so far, and how often.
    pub fn troubles(&self) -> BTreeMap<Trouble, usize> {
        self.troubles.lock().unwrap().clone()
    }

    /// The longest time from a client's first try to its answer so far.
    pub fn slowest(&self) -> Duration {
        *self.slowest.lock().unwrap()
    }

    /// So many clients create orders one after the other, for as long as `go_on` says so of the next order's number.
    pub async fn run(&self, clients: usize, go_on: impl Fn(usize) -> bool) {
        let client = async || {
            while let Ok(number) =
                self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |number| go_on(number).then_some(number + 1))
            {
                self.order(number).await;
                sleep(self.pause).await;
            }
        };
        join_all((0..clients).map(|_| client())).await;
    }

    /// One more order of each user, with ids in the order of the users. Whoever follows a user and has seen this one has seen everything.
    pub async fn last_orders(&self) -> Vec<String> {
        let users = self.users.len();
        let first = self.next.load(Ordering::Relaxed).div_ceil(users) * users;
        self.next.store(first + users, Ordering::Relaxed);
        join_all((first..first + users).map(|number| self.order(number))).await
    }

    /// Creates an order under its number's key; the replica that is asked first changes from order to order of a user.
    async fn order(&self, number: usize) -> String {
        let user = number % self.users.len();
        let units = number / self.users.len() % MAX_UNITS + 1;
        let input = json!({
            "total": money(&format!("{units}.00"), "EUR"),
            "description": format!("order {number}"),
            "idempotencyKey": order_key(number),
        });
        let begin = Instant::now();
        let payload = self.mutate(user, number / self.users.len() + user, CREATE_ORDER, "createOrder", input).await;
        let id = payload["order"]["id"].as_str().unwrap().to_owned();
        self.accepted.lock().unwrap().insert(number, id.clone());
        let mut slowest = self.slowest.lock().unwrap();
        *slowest = begin.elapsed().max(*slowest);
        id
    }

    /// Repeats a call at one replica after the other until it is answered, and expects no refusal.
    async fn mutate(&self, user: usize, first: usize, document: &str, field: &str, input: Value) -> Value {
        let clients = &self.clients[user];
        let deadline = Instant::now() + ACCEPTED_WITHIN;
        for client in clients.iter().cycle().skip(first % clients.len()) {
            let answer = timeout(self.patience, client.run(document, json!({ "input": input }))).await;
            let trouble = match answer {
                Err(_) | Ok(Err(_)) => Trouble::NoAnswer,
                Ok(Ok(mut answer)) => match trouble(&answer) {
                    Some(trouble) => trouble,
                    None => {
                        assert_eq!(answer.data[field]["userErrors"], json!([]), "{answer:?}");
                        return answer.data[field].take();
                    }
                },
            };
            *self.troubles.lock().unwrap().entry(trouble).or_default() += 1;
            assert!(Instant::now() < deadline, "{field} {input}: {:?}", self.troubles());
            sleep(REPEAT_AFTER).await;
        }
        unreachable!("the replicas are asked in a circle");
    }
}

/// An answer that says "try again"; every other error fails the test.
fn trouble(answer: &Answer) -> Option<Trouble> {
    match answer.code() {
        None => {
            assert_eq!(answer.errors, Vec::<Value>::new());
            None
        }
        Some("SERVICE_UNAVAILABLE") => Some(Trouble::Unavailable),
        Some("TIMEOUT") => Some(Trouble::Unknown),
        Some(other) => panic!("{other} is not worth trying again: {answer:?}"),
    }
}
