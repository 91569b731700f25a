//! Starting, serving, draining and ending.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use runtime::health::Health;
use runtime::lifecycle::{Ending, Shutdown};
use runtime::serve::{BindError, ServeOptions, bind, serve, serve_with};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Everything here is over long before; what hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(20);

async fn start(router: Router, shutdown: &Shutdown, options: ServeOptions) -> String {
    let listener = bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    shutdown.spawn(serve_with(listener, router, shutdown.clone(), options));
    address
}

fn client() -> reqwest::Client {
    runtime::install_tls_provider();
    reqwest::Client::new()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap()
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_says_what_to_do() {
    let first = bind("127.0.0.1:0").await.unwrap();
    let address = first.local_addr().unwrap();
    let error = bind(&address.to_string()).await.unwrap_err();
    assert!(matches!(error, BindError::Taken { .. }), "{error:?}");
    let message = error.to_string();
    let expected = format!("port {} on 127.0.0.1 is taken", address.port());
    assert!(message.starts_with(&expected) && message.contains("another port, such as"), "{message}");

    for (text, expected) in [("192.0.2.1:0", "no address of this machine"), ("nonsense", "must be host:port")] {
        let message = bind(text).await.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn a_request_in_hand_is_answered_during_the_drain() {
    let shutdown = Shutdown::new(PATIENCE);
    let (entered, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (entered, go_on) = (entered.clone(), go_on.clone());
        move || async move {
            entered.notify_one();
            go_on.notified().await;
            "done"
        }
    };
    let router = Router::new().route("/slow", get(handler)).route("/fast", get(async || "fast"));
    let address = start(router, &shutdown, ServeOptions::default()).await;
    // An idle connection must not hold the drain up.
    let mut idle = TcpStream::connect(&address).await.unwrap();
    idle.write_all(b"GET /fast HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut [0; 1024]).await.unwrap() > 0);

    let request = tokio::spawn(client().get(format!("http://{address}/slow")).send());
    within(entered.notified()).await;
    shutdown.begin("test");
    let finished = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { shutdown.finished().await }
    });
    let refused = async {
        while TcpStream::connect(&address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within(refused).await;
    go_on.notify_one();
    assert_eq!(within(request).await.unwrap().unwrap().text().await.unwrap(), "done");
    assert_eq!(within(finished).await.unwrap(), Ending::Drained);
}

#[tokio::test]
async fn after_the_grace_time_a_hanging_request_is_let_go() {
    let shutdown = Shutdown::new(Duration::from_millis(100));
    let entered = Arc::new(Notify::new());
    let handler = {
        let entered = entered.clone();
        move || async move {
            entered.notify_one();
            std::future::pending::<&str>().await
        }
    };
    let address = start(Router::new().route("/", get(handler)), &shutdown, ServeOptions::default()).await;
    let request = tokio::spawn(client().get(format!("http://{address}/")).send());
    within(entered.notified()).await;
    shutdown.begin("test");
    assert_eq!(within(shutdown.finished()).await, Ending::Forced);
    within(request).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_task_that_ignores_everything_does_not_keep_the_process() {
    let shutdown = Shutdown::new(PATIENCE);
    shutdown.spawn(std::future::pending::<()>());
    shutdown.force("second signal");
    assert_eq!(within(shutdown.finished()).await, Ending::Abandoned(1));
}

#[tokio::test]
async fn too_many_connections_wait_instead_of_being_served_or_refused() {
    let shutdown = Shutdown::new(Duration::ZERO);
    let options = ServeOptions { max_connections: 1, ..ServeOptions::default() };
    let address = start(Router::new().route("/", get(async || "hello")), &shutdown, options).await;
    let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = TcpStream::connect(&address).await.unwrap();
    first.write_all(request).await.unwrap();
    assert!(within(first.read(&mut [0; 1024])).await.unwrap() > 0);

    let mut second = TcpStream::connect(&address).await.unwrap();
    second.write_all(request).await.unwrap();
    let mut buffer = [0; 1024];
    let early = tokio::time::timeout(Duration::from_millis(200), second.read(&mut buffer)).await;
    assert!(early.is_err(), "served beyond the bound");
    drop(first);
    assert!(within(second.read(&mut buffer)).await.unwrap() > 0);
}

#[tokio::test]
async fn a_client_that_sends_its_head_too_slowly_is_cut_off() {
    let shutdown = Shutdown::new(Duration::ZERO);
    let options = ServeOptions { header_timeout: Duration::from_millis(200), ..ServeOptions::default() };
    let address = start(Router::new(), &shutdown, options).await;
    let mut slow = TcpStream::connect(&address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhos").await.unwrap();
    let started = Instant::now();
    let mut rest = Vec::new();
    within(slow.read_to_end(&mut rest)).await.unwrap();
    assert!(started.elapsed() < PATIENCE / 2);
}

#[tokio::test]
async fn readiness_names_what_is_missing_and_liveness_does_not_care() {
    let health = Health::new();
    let database = health.check("database");
    let broker = health.check("broker");
    let listener = bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new(Duration::ZERO);
    shutdown.spawn(serve(listener, health.router(), shutdown.clone()));
    let client = client();
    let ask = async |path: &str| {
        let response = client.get(format!("http://{address}/health/{path}")).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };

    database.ready();
    broker.not_ready("waiting for localhost:9092");
    let expected = json!({ "status": "not ready", "checks": { "database": "ready", "broker": "waiting for localhost:9092" } });
    assert_eq!(ask("ready").await, (503, expected));
    assert_eq!(ask("live").await, (200, json!({ "status": "live" })));

    broker.ready();
    within(health.ready()).await;
    assert_eq!(ask("ready").await.0, 200);

    // What was reached once and is away now does not take the replica out of service; what stopped needs to be reached again.
    broker.degraded("no answer");
    let expected = json!({ "status": "degraded", "checks": { "database": "ready", "broker": "degraded: no answer" } });
    assert_eq!(ask("ready").await, (200, expected));
    broker.not_ready("stopped");
    broker.degraded("starting");
    let expected = json!({ "status": "not ready", "checks": { "database": "ready", "broker": "starting" } });
    assert_eq!(ask("ready").await, (503, expected));
    broker.ready();
    assert_eq!(ask("ready").await.1["status"], "ready");

    health.drain();
    assert_eq!(ask("ready").await.1["status"], "draining");
    assert_eq!(ask("live").await.0, 200);
}

#[tokio::test]
async fn metrics_are_served_as_histograms_with_buckets() {
    let metrics = runtime::metrics::Metrics::install().unwrap();
    metrics::counter!("orders_created_total").increment(3);
    metrics::histogram!("request_seconds").record(0.004);
    let text = metrics.render();
    assert!(text.contains("orders_created_total 3"), "{text}");
    assert!(text.contains("request_seconds_bucket{le=\"0.005\"} 1"), "{text}");
    runtime::metrics::Metrics::install().unwrap_err();
}

#[cfg(unix)]
#[tokio::test]
async fn the_first_signal_drains_and_the_second_forces() {
    let shutdown = Shutdown::new(PATIENCE);
    shutdown.on_signals().unwrap();
    let kill = || {
        let status = std::process::Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status();
        assert!(status.unwrap().success());
    };
    kill();
    within(shutdown.soft().cancelled()).await;
    assert!(!shutdown.hard().is_cancelled());
    kill();
    within(shutdown.hard().cancelled()).await;
}
