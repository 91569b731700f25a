//! A small schema and a real server for the tests.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of it")]

pub mod node;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_graphql::{Context, Object, Request, Schema, Subscription};
use async_trait::async_trait;
use futures_util::{Stream, StreamExt};
use graphql_transport::{Authenticated, Authenticator, Rejected, TransportOptions, router};
use http::HeaderMap;
use tokio::sync::watch;

/// Nothing in these tests takes longer than this unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What happened inside the resolvers.
#[derive(Clone)]
pub struct Probe {
    pub started: watch::Sender<u32>,
    pub finished: watch::Sender<u32>,
    pub dropped: watch::Sender<u32>,
    pub produced: watch::Sender<u32>,
}

impl Default for Probe {
    fn default() -> Self {
        let counter = || watch::Sender::new(0);
        Self { started: counter(), finished: counter(), dropped: counter(), produced: counter() }
    }
}

/// Waits until a counter has reached `at_least`.
pub async fn reaches(counter: &watch::Sender<u32>, at_least: u32) {
    let mut receiver = counter.subscribe();
    tokio::time::timeout(PATIENCE, receiver.wait_for(|value| *value >= at_least)).await.expect("in time").unwrap();
}

struct CountDrop(watch::Sender<u32>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count += 1);
    }
}

/// The name that the test authenticator attaches.
pub struct User(pub String);

pub struct Query;

#[Object]
impl Query {
    async fn hello(&self) -> &str {
        "world"
    }

    /// So long.
    async fn text(&self, megabytes: usize) -> String {
        "x".repeat(megabytes * 1_000_000)
    }

    async fn zebra(&self) -> i32 {
        1
    }

    async fn apple(&self) -> i32 {
        2
    }

    async fn user(&self, ctx: &Context<'_>) -> Option<String> {
        ctx.data_opt::<User>().map(|user| user.0.clone())
    }

    async fn echo(&self, text: String) -> String {
        text
    }

    async fn failing(&self) -> Option<async_graphql::Result<i32>> {
        Some(Err("it failed".into()))
    }

    async fn failing_required(&self) -> async_graphql::Result<i32> {
        Err("it failed".into())
    }

    async fn panicking(&self) -> i32 {
        "a number".parse().expect("to panic on purpose")
    }

    /// Never answers; counts when it starts and when it is dropped.
    async fn hanging(&self, ctx: &Context<'_>) -> i32 {
        let probe = ctx.data_unchecked::<Probe>();
        let _guard = CountDrop(probe.dropped.clone());
        probe.started.send_modify(|count| *count += 1);
        std::future::pending().await
    }
}

pub struct Mutation;

#[Object]
impl Mutation {
    /// Counts when it starts and, after `millis`, when it has ended.
    async fn write(&self, ctx: &Context<'_>, millis: u64) -> bool {
        let probe = ctx.data_unchecked::<Probe>();
        probe.started.send_modify(|count| *count += 1);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        probe.finished.send_modify(|count| *count += 1);
        true
    }
}

pub struct Subscriptions;

#[Subscription]
impl Subscriptions {
    /// 1, 2, …, `to`, then complete.
    async fn count(&self, to: i32) -> impl Stream<Item = i32> {
        tokio_stream::iter(1..=to)
    }

    /// One tick, and then nothing; counts when it starts and when it is dropped.
    async fn hanging(&self, ctx: &Context<'_>) -> impl Stream<Item = i32> {
        let probe = ctx.data_unchecked::<Probe>().clone();
        probe.started.send_modify(|count| *count += 1);
        let guard = CountDrop(probe.dropped.clone());
        tokio_stream::iter([1]).chain(futures_util::stream::pending()).map(move |tick| {
            let _ = &guard;
            tick
        })
    }

    /// Numbered texts of 16 KiB as fast as they are taken; counts what it has produced.
    async fn flood(&self, ctx: &Context<'_>, to: i32) -> impl Stream<Item = String> {
        let probe = ctx.data_unchecked::<Probe>().clone();
        tokio_stream::iter(1..=to).map(move |number| {
            probe.produced.send_modify(|count| *count += 1);
            format!("{number} {}", "x".repeat(16 * 1024))
        })
    }

    /// A number, an error, and the end.
    async fn breaking(&self) -> impl Stream<Item = async_graphql::Result<i32>> {
        tokio_stream::iter([Ok(1), Err("the source failed".into())])
    }

    async fn refusing(&self) -> async_graphql::Result<impl Stream<Item = i32>> {
        Err::<tokio_stream::Empty<i32>, _>(async_graphql::Error::new("not yours"))
    }

    async fn panicking(&self) -> impl Stream<Item = i32> {
        tokio_stream::iter([1, 2]).map(|number| if number == 2 { panic!("on purpose") } else { number })
    }
}

pub type TestSchema = Schema<Query, Mutation, Subscriptions>;

pub fn schema(probe: &Probe) -> TestSchema {
    Schema::build(Query, Mutation, Subscriptions).data(probe.clone()).finish()
}

/// Tokens say themselves how they want to be treated: `bad`, `forbidden`, `unavailable`, `expires:<ms from now>`, or a name.
pub struct TestAuthenticator;

impl TestAuthenticator {
    fn check(token: Option<&str>) -> Result<Authenticated, Rejected> {
        let Some(token) = token.map(|value| value.trim_start_matches("Bearer ").to_owned()) else {
            return Ok(Authenticated::anonymous());
        };
        let expires_at = match token.split_once(':') {
            Some(("expires", millis)) => Some(SystemTime::now() + Duration::from_millis(millis.parse().unwrap())),
            _ => None,
        };
        match token.as_str() {
            "bad" => Err(Rejected::InvalidToken("the signature is wrong".into())),
            "forbidden" => Err(Rejected::Forbidden("not for you".into())),
            "unavailable" => Err(Rejected::Unavailable("no keys".into())),
            _ => {
                let attach = Arc::new(move |request: Request| request.data(User(token.clone())));
                Ok(Authenticated { attach, expires_at })
            }
        }
    }
}

#[async_trait]
impl Authenticator for TestAuthenticator {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Authenticated, Rejected> {
        Self::check(headers.get("authorization").map(|value| value.to_str().unwrap()))
    }

    async fn authenticate_socket(&self, upgrade: &HeaderMap, init: &serde_json::Value) -> Result<Authenticated, Rejected> {
        let header = upgrade.get("authorization").map(|value| value.to_str().unwrap());
        match init["Authorization"].as_str().or(header) {
            Some("hang") => std::future::pending().await,
            Some(token) => Self::check(Some(token)),
            None => Err(Rejected::InvalidToken("a token is needed".into())),
        }
    }
}

/// The routes over a fresh probe.
pub fn app(options: TransportOptions) -> (axum::Router, Probe) {
    let probe = Probe::default();
    (router(schema(&probe), Arc::new(TestAuthenticator), options), probe)
}

/// A running server; it stops when this is dropped.
pub struct Server {
    pub address: SocketAddr,
    pub probe: Probe,
    pub options: TransportOptions,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(options: TransportOptions) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), options).await
    }

    pub async fn start_at(address: SocketAddr, options: TransportOptions) -> Self {
        let (app, probe) = app(options.clone());
        Self::serve(address, options, app, probe).await
    }

    pub async fn serve(address: SocketAddr, options: TransportOptions, app: axum::Router, probe: Probe) -> Self {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, probe, options, task }
    }

    /// Stops accepting, and returns when the address is free again.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    pub fn url(&self) -> String {
        format!("http://{}/graphql", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
