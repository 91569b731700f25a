//! A start that does not succeed.
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::{net::TcpListener as StdListener, sync::Arc, time::Duration};

use database::{ConnectOptions, Database, DatabaseUrl};
use messaging::{EmbeddedBroker, EmbeddedOptions, broker::DEFAULT_PARTITIONS};
use migrations::{BrokerLogMigrator, OrdersMigrator};
use order_service::{
    app::{OrderService, Settings},
    endpoint::EndpointOptions,
};
use runtime::auth::{Secret, TokenVerifier};
use tokio::net::TcpListener;

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), waiting).await.is_ok(), "waited in vain until {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_leaves_nothing_running() {
    let folder = tempfile::tempdir().unwrap();
    let (url, options) = (DatabaseUrl::sqlite(folder.path().join("orders.db")), ConnectOptions::new("test"));
    let log = Database::connect(&DatabaseUrl::sqlite(folder.path().join("broker.db")), &options).await.unwrap();
    log.migrate::<BrokerLogMigrator>().await.unwrap();
    let broker = Arc::new(EmbeddedBroker::open(log, EmbeddedOptions::default()).await.unwrap());
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings {
        database: url.clone(),
        migrate_on_start: true,
        payments_url: "http://127.0.0.1:9/graphql".to_owned(),
        topic_prefix: String::new(),
        partitions: DEFAULT_PARTITIONS,
        endpoint: EndpointOptions::default(),
        subgraph_listen: Some(taken.local_addr().unwrap().to_string()),
        metrics: None,
        drain_notice: Duration::ZERO,
    };
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
