//! The whole service on SQLite with the embedded broker: messages in, messages out, HTTP beside it.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{account_with, clean_audit, eur, task, task_event, until, user};
use database::{ConnectOptions, Database, DatabaseUrl};
use messaging::{Broker, BrokerError, Consumer, EmbeddedBroker, EmbeddedOptions, Headers, Record, TopicSpec, message::header};
use migrations::BrokerLogMigrator;
use payment_service::{PaymentService, Settings, Topics, payment::Task};
use runtime::auth::{Secret, TokenSigner, TokenVerifier};
use schema::{EventSource as _, OrderId, PaymentOutcome, PaymentResult};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A broker, a folder for the service's database, and a key.
struct Surroundings {
    folder: TempDir,
    broker: Arc<EmbeddedBroker>,
    secret: Secret,
}

impl Surroundings {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::sqlite(folder.path().join("broker.db"));
        let log = Database::connect(&url, &ConnectOptions::new("test")).await.unwrap();
        log.migrate::<BrokerLogMigrator>().await.unwrap();
        let broker = EmbeddedBroker::open(log, EmbeddedOptions::default()).await.unwrap();
        let secret = Secret::new("0123456789abcdef0123456789abcdef").unwrap();
        Self { folder, broker: Arc::new(broker), secret }
    }

    fn settings(&self) -> Settings {
        Settings {
            database: DatabaseUrl::sqlite(self.folder.path().join("payments.db")),
            migrate_on_start: true,
            listen: "127.0.0.1:0".to_owned(),
            topics: Topics::with_prefix("test."),
            metrics: None,
            drain_notice: std::time::Duration::ZERO,
        }
    }

    async fn start(&self) -> PaymentService {
        let verifier = TokenVerifier::new(std::slice::from_ref(&self.secret), None);
        let service = PaymentService::start(self.settings(), self.broker.clone(), verifier).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), service.health().ready()).await.expect("ready in time");
        service
    }

    fn token(&self, name: &str) -> String {
        TokenSigner::new(&self.secret).sign(name, &["user"], Duration::from_secs(60)).unwrap()
    }

    async fn publish(&self, tasks: &[Task]) {
        let records: Vec<Record> = tasks.iter().map(record).collect();
        for answer in self.broker.publish(&records).await {
            answer.unwrap();
        }
    }

    /// Everything in the topic of results, by a group of its own, until so much was told.
    async fn results(&self, group: &str, count: usize) -> Vec<(Headers, PaymentResult)> {
        let mut consumer = self.broker.consumer(group, &["test.payment_results".to_owned()]).await.unwrap();
        let mut seen: Vec<(Headers, PaymentResult)> = Vec::new();
        while seen.len() < count {
            let next = tokio::time::timeout(Duration::from_secs(20), consumer.next_batch(100));
            for delivery in next.await.expect("results in time").unwrap().deliveries.iter() {
                let result = PaymentResult::from_message(delivery.event_type(), &delivery.payload).unwrap();
                assert_eq!(delivery.key.as_deref(), Some(result.user_id.as_str().as_bytes()));
                seen.push((delivery.headers.clone(), result));
            }
        }
        seen
    }
}

fn record(task: &Task) -> Record {
    Record {
        topic: "test.payment_tasks".to_owned(),
        key: task.payment.user_id.as_str().to_owned(),
        headers: task_event(task).headers().with(header::TRACEPARENT, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        payload: task.payment.to_json().unwrap().into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_answered_once_each_and_again_when_they_come_again_also_after_a_restart() {
    let around = Surroundings::new().await;
    let service = around.start().await;
    account_with(service.database(), "ada", 1_000).await;
    let tasks: Vec<Task> = [400, 700, 600, 1].map(|minor| task("ada", minor)).into();
    around.publish(&tasks).await;
    let told = around.results("first", 4).await;
    let outcomes: HashMap<OrderId, PaymentOutcome> = told.iter().map(|(_, result)| (result.order_id, result.outcome)).collect();
    use PaymentOutcome::{Paid, Rejected};
    let expected = [Paid, Rejected, Paid, Rejected];
    assert!(tasks.iter().zip(expected).all(|(task, outcome)| outcomes[&task.payment.order_id] == outcome));
    let trace = told[0].0.get_str(header::TRACEPARENT);
    assert_eq!(trace, Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), "one trace through both services");
    service.stop().await;

    let service = around.start().await;
    around.publish(&tasks).await;
    let again = around.results("second", 8).await.split_off(4);
    let report = clean_audit(service.database()).await;
    assert_eq!((report.paid, report.rejected), (2, 2));
    let ids = |told: &[(Headers, PaymentResult)]| -> HashMap<OrderId, String> {
        told.iter().map(|(headers, result)| (result.order_id, headers.get_str(header::ID).unwrap().to_owned())).collect()
    };
    assert_eq!(ids(&told), ids(&again), "the same events");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_no_task_is_put_away_and_stops_nobody() {
    let around = Surroundings::new().await;
    let service = around.start().await;
    account_with(service.database(), "ada", 1_000).await;
    let good = task("ada", 100);
    let mut unreadable = record(&task("ada", 100));
    unreadable.payload = "{}".into();
    let mut too_much = task("ada", 100);
    too_much.payment.amount_minor = i64::MAX;
    let mut without_id = record(&task("ada", 100));
    without_id.headers = Headers::new();
    for answer in around.broker.publish(&[unreadable, record(&too_much), without_id, record(&good)]).await {
        answer.unwrap();
    }
    let told = around.results("test", 1).await;
    assert_eq!(told[0].1.order_id, good.payment.order_id);
    let mut dead = around.broker.consumer("dead", &["test.payment_tasks.dlq".to_owned()]).await.unwrap();
    let mut count = 0;
    while count < 3 {
        let batch = tokio::time::timeout(Duration::from_secs(20), dead.next_batch(10));
        count += batch.await.expect("dead letters in time").unwrap().deliveries.len();
    }
    assert_eq!(clean_audit(service.database()).await.paid, 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_consumer_decides_nothing_and_goes_on_where_it_was() {
    let around = Surroundings::new().await;
    let service = around.start().await;
    account_with(service.database(), "ada", 1_000).await;
    service.pause_consumer().await;
    around.publish(&[task("ada", 100), task("ada", 100)]).await;
    // Top-ups are still possible; a decision would be in the way of this balance.
    let top_up = payment_service::account::TopUp { user: user("ada"), amount: eur(5), key: None };
    let topped_up = payment_service::account::top_up_account(service.database(), top_up).await.unwrap();
    assert_eq!(topped_up.into_parts().0.balance_minor, 1_005);
    assert_eq!(common::count(service.database(), "payments").await, 0);
    service.resume_consumer();
    around.results("test", 2).await;
    assert_eq!(common::account(service.database(), "ada").await.balance_minor, 805);
    service.stop().await;
}

async fn post(
    service: &PaymentService,
    token: Option<&str>,
    content_type: &str,
    body: String,
) -> Result<reqwest::Response, reqwest::Error> {
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).build()?;
    let request = client.post(format!("http://{}/graphql", service.address())).header("content-type", content_type).body(body);
    match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
    .send()
    .await
}

fn create_account() -> String {
    json!({ "query": "mutation { createAccount(input: { currencyCode: EUR }) { account { balance { amount } } } }" }).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_endpoint_takes_json_with_a_good_token_and_nothing_else() {
    runtime::install_tls_provider();
    let around = Surroundings::new().await;
    let service = around.start().await;
    let token = around.token("ada");
    let json_type = "application/json";

    let response = post(&service, Some(&token), json_type, create_account()).await.unwrap();
    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body, json!({ "data": { "createAccount": { "account": { "balance": { "amount": "0.00" } } } } }));

    let response = post(&service, None, json_type, create_account()).await.unwrap();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["errors"][0]["extensions"]["code"], json!("UNAUTHENTICATED"));

    let response = post(&service, Some("nonsense"), json_type, create_account()).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));

    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        assert_eq!(post(&service, Some(&token), content_type, create_account()).await.unwrap().status(), 415);
    }
    assert_eq!(post(&service, Some(&token), json_type, "{".to_owned()).await.unwrap().status(), 400);
    let long = json!({ "query": "query ($of: [_Any!]!) { _entities(representations: $of) { __typename } }",
        "variables": { "of": vec![json!({ "__typename": "User", "id": "user_YQ" }); 1_001] } });
    let response = post(&service, Some(&token), json_type, long.to_string()).await.unwrap();
    assert_eq!(response.status(), 400);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["errors"][0]["extensions"]["code"], json!("LIMIT_EXCEEDED"));
    let huge = " ".repeat(payment_service::http::MAX_BODY_BYTES + 1);
    assert_eq!(post(&service, Some(&token), json_type, huge).await.unwrap().status(), 413);
    let get = reqwest::get(format!("http://{}/graphql?query={{__typename}}", service.address())).await.unwrap();
    assert_eq!(get.status(), 405);
    service.stop().await;
}

/// A body that never ends keeps nobody's place whose token is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_token_is_refused_before_the_body_has_come() {
    let around = Surroundings::new().await;
    let service = around.start().await;
    let mut connection = TcpStream::connect(service.address()).await.unwrap();
    let head = "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer nonsense\r\n\
                content-length: 1000000\r\n\r\n{";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    let answered = tokio::time::timeout(Duration::from_secs(5), connection.read_exact(&mut status)).await;
    answered.expect("an answer before the body").unwrap();
    assert_eq!(&status, b"HTTP/1.1 401");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listener_can_be_taken_away_and_comes_back_at_the_same_port() {
    runtime::install_tls_provider();
    let around = Surroundings::new().await;
    let service = around.start().await;
    let (address, token) = (service.address(), around.token("ada"));
    service.stop_listener().await;
    let refused = post(&service, Some(&token), "application/json", create_account()).await.unwrap_err();
    assert!(refused.is_connect(), "{refused}");

    // Tasks are decided all the same.
    around.publish(&[task("ada", 100)]).await;
    around.results("test", 1).await;

    service.start_listener().await.unwrap();
    assert_eq!(service.address(), address);
    let response = post(&service, Some(&token), "application/json", create_account()).await.unwrap();
    assert_eq!(response.status(), 200);
    let health = reqwest::get(format!("http://{address}/health/ready")).await.unwrap();
    assert_eq!(health.status(), 200);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_leaves_nothing_running() {
    let around = Surroundings::new().await;
    let service = around.start().await;
    let verifier = || TokenVerifier::new(std::slice::from_ref(&around.secret), None);
    // The database file is in use by the first one; its port must be free again afterwards.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let settings = Settings { listen: address.clone(), ..around.settings() };
    let error = PaymentService::start(settings, around.broker.clone(), verifier()).await.err().unwrap();
    assert!(error.to_string().contains("in use"), "{error}");
    until("the port is free again", async || std::net::TcpListener::bind(&address).is_ok()).await;
    service.stop().await;
}

/// A broker with an error in its code.
struct Panicking(Arc<EmbeddedBroker>);

#[async_trait::async_trait]
impl Broker for Panicking {
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BrokerError> {
        self.0.ensure_topics(topics).await
    }

    async fn publish(&self, _: &[Record]) -> Vec<Result<(), BrokerError>> {
        panic!("seen in the log of this test");
    }

    async fn consumer(&self, group: &str, topics: &[String]) -> Result<Box<dyn Consumer>, BrokerError> {
        self.0.consumer(group, topics).await
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        self.0.ping().await
    }
}

/// Otherwise it would look alive, decide tasks, and tell nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_relay_panics_says_so_and_the_next_one_tells_its_result() {
    let around = Surroundings::new().await;
    let verifier = TokenVerifier::new(std::slice::from_ref(&around.secret), None);
    let broker = Arc::new(Panicking(around.broker.clone()));
    let service = PaymentService::start(around.settings(), broker, verifier).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), service.health().ready()).await.expect("ready in time");
    let died = service.death();
    around.publish(&[task("ada", 100)]).await;
    let died = tokio::time::timeout(Duration::from_secs(20), died).await.expect("told in time");
    assert_eq!(died.task, "relay");
    tokio::time::timeout(Duration::from_secs(20), service.stop()).await.expect("stopped in time");

    let service = around.start().await;
    around.results("test", 1).await;
    service.stop().await;
}

/// A broker that is away until it is switched on.
struct Switched {
    inner: Arc<EmbeddedBroker>,
    on: AtomicBool,
}

impl Switched {
    fn check(&self) -> Result<(), BrokerError> {
        if self.on.load(Ordering::SeqCst) { Ok(()) } else { Err(BrokerError::unavailable("switched off")) }
    }
}

#[async_trait::async_trait]
impl Broker for Switched {
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BrokerError> {
        self.check()?;
        self.inner.ensure_topics(topics).await
    }

    async fn publish(&self, records: &[Record]) -> Vec<Result<(), BrokerError>> {
        match self.check() {
            Ok(()) => self.inner.publish(records).await,
            Err(error) => records.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn consumer(&self, group: &str, topics: &[String]) -> Result<Box<dyn Consumer>, BrokerError> {
        self.check()?;
        self.inner.consumer(group, topics).await
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        self.check()?;
        self.inner.ping().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_late_is_waited_for_while_accounts_are_served() {
    runtime::install_tls_provider();
    let around = Surroundings::new().await;
    let broker = Arc::new(Switched { inner: around.broker.clone(), on: AtomicBool::new(false) });
    let verifier = TokenVerifier::new(std::slice::from_ref(&around.secret), None);
    let service = PaymentService::start(around.settings(), broker.clone(), verifier).await.unwrap();

    let response = post(&service, Some(&around.token("ada")), "application/json", create_account()).await.unwrap();
    assert_eq!(response.status(), 200);
    let ready = async || reqwest::get(format!("http://{}/health/ready", service.address())).await.unwrap().text().await.unwrap();
    until("readiness names the broker", async || {
        ready().await.contains("\"broker\":\"the broker is not available: switched off\"")
    })
    .await;
    assert!(!service.health().is_ready());

    broker.on.store(true, Ordering::SeqCst);
    tokio::time::timeout(Duration::from_secs(20), service.health().ready()).await.expect("ready in time");
    around.publish(&[task("ada", 100)]).await;
    around.results("test", 1).await;

    // From now on it may go: accounts are still served, and no load balancer needs to look elsewhere.
    broker.on.store(false, Ordering::SeqCst);
    until("the service is degraded", async || ready().await.contains("\"status\":\"degraded\"")).await;
    assert!(service.health().is_ready());
    broker.on.store(true, Ordering::SeqCst);
    until("it is whole again", async || ready().await.contains("\"status\":\"ready\"")).await;
    service.stop().await;
}
