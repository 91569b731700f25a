//! A start that does not succeed, and an end that nobody asked for.
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::{net::TcpListener as StdListener, sync::Arc, time::Duration};

use async_trait::async_trait;
use database::{ConnectOptions, Database, DatabaseUrl};
use messaging::{Broker, BrokerError, Consumer, EmbeddedBroker, EmbeddedOptions, Record, TopicSpec, broker::DEFAULT_PARTITIONS};
use migrations::{BrokerLogMigrator, OrdersMigrator};
use order_service::{
    app::{OrderService, Settings},
    endpoint::EndpointOptions,
};
use runtime::auth::{Secret, TokenSigner, TokenVerifier};
use sea_orm::{ConnectionTrait as _, Statement};
use tokio::net::TcpListener;

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), waiting).await.is_ok(), "waited in vain until {what}");
}

/// A broker with an error in its code.
struct Panicking;

#[async_trait]
impl Broker for Panicking {
    async fn ensure_topics(&self, _: &[TopicSpec]) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn publish(&self, _: &[Record]) -> Vec<Result<(), BrokerError>> {
        panic!("seen in the log of this test");
    }

    async fn consumer(&self, _: &str, _: &[String]) -> Result<Box<dyn Consumer>, BrokerError> {
        Err(BrokerError::unavailable("away"))
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        Ok(())
    }
}

fn settings(database: DatabaseUrl) -> Settings {
    Settings {
        database,
        migrate_on_start: true,
        payments_url: "http://127.0.0.1:9/graphql".to_owned(),
        topic_prefix: String::new(),
        partitions: DEFAULT_PARTITIONS,
        endpoint: EndpointOptions::default(),
        subgraph_listen: None,
        metrics: None,
        drain_notice: Duration::ZERO,
    }
}

/// Otherwise it would look alive, accept orders, and publish none of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_relay_panics_says_so_and_stops_with_the_order_stored() {
    runtime::install_tls_provider();
    let folder = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::sqlite(folder.path().join("orders.db"));
    let secret = Secret::new("0123456789abcdef0123456789abcdef").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let verifier = TokenVerifier::new(std::slice::from_ref(&secret), None);
    let service = OrderService::start(settings(url.clone()), Arc::new(Panicking), verifier, listener).await.unwrap();
    let died = service.death();

    let create = "mutation { createOrder(input: { total: { amount: \"1\", currencyCode: EUR }, description: \"book\" }) { order { id } } }";
    let answer = reqwest::Client::new()
        .post(format!("http://{}/graphql", service.address()))
        .bearer_auth(TokenSigner::new(&secret).sign("ada", &["user"], Duration::from_secs(60)).unwrap())
        .json(&serde_json::json!({ "query": create }))
        .send();
    assert_eq!(answer.await.unwrap().status(), 200);
    let died = tokio::time::timeout(Duration::from_secs(20), died).await.unwrap();
    assert_eq!(died.task, "relay");

    tokio::time::timeout(Duration::from_secs(20), service.stop()).await.unwrap();
    let database = Database::connect(&url, &ConnectOptions::new("test")).await.unwrap();
    let count = Statement::from_string(database.backend(), "SELECT COUNT(*) AS count FROM outbox_orders");
    let row = database.reader().query_one_raw(count).await.unwrap().unwrap();
    assert_eq!(row.try_get::<i64>("", "count").unwrap(), 1, "left to the next start");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_leaves_nothing_running() {
    let folder = tempfile::tempdir().unwrap();
    let (url, options) = (DatabaseUrl::sqlite(folder.path().join("orders.db")), ConnectOptions::new("test"));
    let log = Database::connect(&DatabaseUrl::sqlite(folder.path().join("broker.db")), &options).await.unwrap();
    log.migrate::<BrokerLogMigrator>().await.unwrap();
    let broker = Arc::new(EmbeddedBroker::open(log, EmbeddedOptions::default()).await.unwrap());
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings { subgraph_listen: Some(taken.local_addr().unwrap().to_string()), ..settings(url.clone()) };
    let verifier = TokenVerifier::new(&[Secret::new("0123456789abcdef0123456789abcdef").unwrap()], None);
    let start = async |settings: Settings| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        match OrderService::start(settings, broker.clone(), verifier.clone(), listener).await {
            Ok(_) => panic!("it started"),
            Err(error) => (address, error.to_string()),
        }
    };

    // At its last step: everything else runs already.
    let (address, error) = start(settings.clone()).await;
    assert!(error.contains("SUBGRAPH_LISTEN") && error.contains("taken"), "{error}");
    until("the port is free again", async || StdListener::bind(address).is_ok()).await;
    until("the database is free again", async || Database::connect(&url, &options).await.is_ok()).await;

    // Before anything but the listener runs.
    let holder = Database::connect(&url, &options).await.unwrap();
    holder.migrate::<OrdersMigrator>().await.unwrap();
    let (address, error) = start(settings).await;
    assert!(error.contains("in use"), "{error}");
    until("the port is free again", async || StdListener::bind(address).is_ok()).await;
}
