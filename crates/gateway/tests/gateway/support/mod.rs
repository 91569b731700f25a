//! Two small subgraphs, one in process and one behind real HTTP, and a gateway over them.

pub mod books;
pub mod recorder;
pub mod reviews;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use async_graphql::{Executor, Request, Response, Variables};
use axum::Router;
use axum::routing::post_service;
use gateway::{Caller, Gateway, HttpSubgraph, HttpSubgraphOptions, Limits, LocalSubgraph, Subgraph};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::recorder::Recorder;

pub const SUPERGRAPH: &str = include_str!("../../fixtures/supergraph.graphql");

/// Serves a router on a free port of the loopback interface until it is dropped.
pub struct Server {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, task }
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

pub fn reviews_router() -> Router {
    Router::new().route("/graphql", post_service(async_graphql_axum::GraphQL::new(reviews::schema())))
}

pub fn http(url: &str, options: HttpSubgraphOptions) -> Arc<HttpSubgraph> {
    Arc::new(HttpSubgraph::new(url, options).unwrap())
}

/// A gateway with its subgraphs.
pub struct World {
    pub gateway: Gateway,
    pub books: Arc<Recorder>,
    pub reviews: Arc<Recorder>,
    /// Events that the subscription's source was asked for.
    pub asked: Arc<AtomicUsize>,
    pub server: Option<Server>,
}

impl World {
    pub async fn start() -> Self {
        Self::with_limits(Limits::default()).await
    }

    pub async fn with_limits(limits: Limits) -> Self {
        let server = Server::start(reviews_router()).await;
        let reviews = http(&server.url(), HttpSubgraphOptions::default());
        let mut world = Self::with_reviews(reviews, limits);
        world.server = Some(server);
        world
    }

    /// Nothing listens where the reviews should be.
    pub fn with_reviews_down() -> Self {
        // Port 1 is reserved and refuses; a free port could be taken by another test meanwhile.
        Self::with_reviews(http("http://127.0.0.1:1/graphql", HttpSubgraphOptions::default()), Limits::default())
    }

    pub fn with_reviews(reviews: Arc<dyn Subgraph>, limits: Limits) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let local = LocalSubgraph::new(books::schema(Arc::clone(&asked)), |request, caller: &Caller| {
            match caller.extensions.get::<books::CallerName>() {
                Some(name) => request.data(name.clone()),
                None => request,
            }
        });
        let books = Recorder::new(Arc::new(local));
        let reviews = Recorder::new(reviews);
        let subgraphs: Vec<(String, Arc<dyn Subgraph>)> =
            vec![("books".to_owned(), books.clone()), ("reviews".to_owned(), reviews.clone())];
        let gateway = Gateway::new(SUPERGRAPH, subgraphs, limits).unwrap();
        Self { gateway, books, reviews, asked, server: None }
    }

    pub async fn ask(&self, query: &str) -> Answer {
        self.send(Request::new(query)).await
    }

    pub async fn ask_with(&self, query: &str, variables: Value) -> Answer {
        self.send(Request::new(query).variables(Variables::from_json(variables))).await
    }

    pub async fn send(&self, request: Request) -> Answer {
        Answer(self.gateway.execute(request).await)
    }
}

/// A response with shortcuts for what tests look at.
#[derive(Debug)]
pub struct Answer(pub Response);

impl Answer {
    /// The data as text, because the order of keys matters.
    pub fn data(&self) -> String {
        serde_json::to_string(&self.0.data).unwrap()
    }

    /// The data of an answer that must have no errors.
    #[track_caller]
    pub fn ok(&self) -> String {
        assert!(self.0.errors.is_empty(), "{:?}", self.0.errors);
        self.data()
    }

    /// `code path: message` of each error.
    pub fn errors(&self) -> Vec<String> {
        let text = |error: &async_graphql::ServerError| {
            let path = error.path.iter().map(|segment| match segment {
                async_graphql::PathSegment::Field(key) => key.clone(),
                async_graphql::PathSegment::Index(index) => index.to_string(),
            });
            format!("{} {}: {}", code(error), path.collect::<Vec<_>>().join("."), error.message)
        };
        self.0.errors.iter().map(text).collect()
    }

    /// `code path` of each error.
    pub fn codes(&self) -> Vec<String> {
        self.errors().into_iter().map(|error| error.split(':').next().unwrap().to_owned()).collect()
    }

    /// The code of a request that was not executed.
    #[track_caller]
    pub fn rejected(&self) -> String {
        assert_eq!(self.0.data, async_graphql::Value::Null);
        assert!(self.0.errors.iter().all(|error| error.path.is_empty()), "{:?}", self.0.errors);
        code(&self.0.errors[0])
    }
}

fn code(error: &async_graphql::ServerError) -> String {
    match error.extensions.as_ref().and_then(|extensions| extensions.get("code")) {
        Some(async_graphql::Value::String(code)) => code.clone(),
        other => format!("{other:?}"),
    }
}
