//! A whole system: both services, their databases and the broker between them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use database::{Database, DatabaseError};
use messaging::{Broker, Delivery, Record, embedded::Seek};
use order_service::app::OrderService;
use payment_service::{
    PaymentService,
    audit::{AuditReport, audit},
};
use runtime::auth::{Secret, TokenSigner};
use schema::{TOPIC_PAYMENT_RESULTS, TOPIC_PAYMENT_TASKS};
use sea_orm::{ConnectionTrait as _, Statement};
use tandem::client::Client;

use super::{PATIENCE, User};

/// Signs the tokens.
pub const SECRET: &str = "a secret of the tests of 32 bytes or more";

/// Tokens outlive every test.
const TOKEN_TTL: Duration = Duration::from_secs(3600);

/// Deliveries per read of a topic: more than any test publishes.
const READ_MAX: usize = 10_000;

/// Where a system runs: what differs between one process and a cluster.
pub trait Deployment: Sized {
    /// Both services, ready, on data of their own. `None`, loudly, when that needs servers and there are none.
    async fn start() -> Option<Self>;
    /// Stops both services and starts them again on the same data.
    async fn restart(self) -> Self;
    fn orders(&self) -> &OrderService;
    fn payments(&self) -> &PaymentService;
    /// The one between them.
    fn broker(&self) -> Arc<dyn Broker>;
    /// Moves a group within a topic while its consumer runs.
    async fn seek(&self, group: &str, topic: &str, to: Seek);
}

/// A running system of this test alone.
pub struct SystemOn<D> {
    deployment: D,
    signer: TokenSigner,
    client: Client,
}

impl<D: Deployment> SystemOn<D> {
    /// `None`, loudly, when that needs servers and there are none.
    pub async fn start() -> Option<Self> {
        Some(Self::over(D::start().await?))
    }

    fn over(deployment: D) -> Self {
        let signer = TokenSigner::new(&Secret::new(SECRET).unwrap());
        let client = Client::new(&format!("http://{}", deployment.orders().address()), None).unwrap();
        Self { deployment, signer, client }
    }

    /// Stops everything and starts it again on the same data. Users made before speak to nobody.
    pub async fn restart(self) -> Self {
        Self::over(self.deployment.restart().await)
    }

    /// Where the public endpoint listens.
    pub fn address(&self) -> SocketAddr {
        self.deployment.orders().address()
    }

    /// The public endpoint.
    pub fn url(&self) -> String {
        format!("http://{}/graphql", self.address())
    }

    pub fn token(&self, name: &str, scopes: &[&str], ttl: Duration) -> String {
        self.signer.sign(name, scopes, ttl).unwrap()
    }

    pub fn user(&self, name: &str) -> User {
        self.with_token(self.token(name, &[], TOKEN_TTL))
    }

    /// A user with an account and this much in it.
    pub async fn user_with(&self, name: &str, amount: &str, currency: &str) -> User {
        let user = self.user(name);
        user.create_account(currency).await;
        user.top_up(amount, currency).await;
        user
    }

    pub fn admin(&self) -> User {
        self.with_token(self.token("operator", &["admin"], TOKEN_TTL))
    }

    pub fn with_token(&self, token: String) -> User {
        User::new(self.client.signed_in(&token), token, self.address())
    }

    pub fn anonymous(&self) -> Client {
        self.client.clone()
    }

    /// Payments decides nothing until resumed. Tasks wait in the broker.
    pub async fn pause_payments(&self) {
        self.deployment.payments().pause_consumer().await;
    }

    pub fn resume_payments(&self) {
        self.deployment.payments().resume_consumer();
    }

    /// The process does not publish what it commits: as if it died each time.
    pub fn leave_tasks_to_the_sweeper(&self) {
        self.deployment.orders().gates().relay.close();
    }

    /// Order Service applies no results until resumed.
    pub async fn pause_results(&self) {
        let gate = &self.deployment.orders().gates().consumer;
        gate.close();
        gate.quiet().await;
    }

    pub fn resume_results(&self) {
        self.deployment.orders().gates().consumer.open();
    }

    /// Payments' subgraph does not answer; tasks are still decided.
    pub async fn take_payments_away(&self) {
        self.deployment.payments().stop_listener().await;
    }

    pub async fn bring_payments_back(&self) {
        self.deployment.payments().start_listener().await.unwrap();
    }

    /// Whether a load balancer would send requests here.
    pub async fn is_ready(&self) -> bool {
        let url = format!("http://{}/health/ready", self.address());
        reqwest::get(url).await.unwrap().status().is_success()
    }

    pub fn orders_db(&self) -> &Database {
        self.deployment.orders().database()
    }

    pub fn payments_db(&self) -> &Database {
        self.deployment.payments().database()
    }

    /// How many rows a table has, with an optional condition.
    pub async fn count(&self, db: &Database, rows: &str) -> i64 {
        let sql = format!("SELECT COUNT(*) AS count FROM {rows}");
        let row = db.reader().query_one_raw(Statement::from_string(db.backend(), sql)).await.unwrap().unwrap();
        row.try_get("", "count").unwrap()
    }

    /// Changes Order Service's database behind its back.
    pub async fn change_orders(&self, sql: &'static str) {
        self.orders_db()
            .transaction("test", move |tx| {
                Box::pin(async move { Ok::<_, DatabaseError>(tx.execute_unprepared(sql).await.map(drop)?) })
            })
            .await
            .unwrap();
    }

    /// Every event that there is becomes too old to be kept.
    pub async fn prune_events(&self) {
        self.change_orders("UPDATE event_cursor SET oldest = next").await;
    }

    /// Everything in Payments adds up.
    pub async fn clean_audit(&self) -> AuditReport {
        let report = audit(self.payments_db().reader()).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        report
    }

    pub async fn publish(&self, records: &[Record]) {
        for answer in self.deployment.broker().publish(records).await {
            answer.unwrap();
        }
    }

    /// Everything in a topic, at least `expected` deliveries, in the order of each partition.
    pub async fn read(&self, topic: &str, expected: usize) -> Vec<Delivery> {
        static READERS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let group = format!("test-{}", READERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let mut consumer = self.deployment.broker().consumer(&group, &[topic.to_owned()]).await.unwrap();
        let mut deliveries = Vec::new();
        while deliveries.len() < expected {
            let next = tokio::time::timeout(PATIENCE, consumer.next_batch(READ_MAX)).await;
            let batch = next.unwrap_or_else(|_| panic!("{} of {expected} deliveries in {topic}", deliveries.len())).unwrap();
            deliveries.extend(batch.deliveries.iter().cloned());
        }
        deliveries
    }

    /// The messages of a topic, to be published once more.
    pub async fn records(&self, topic: &str, expected: usize) -> Vec<Record> {
        self.read(topic, expected).await.iter().map(again).collect()
    }

    /// Every payment task that there ever was is delivered to Payments again.
    pub async fn deliver_tasks_again(&self) {
        self.deployment.seek(payment_service::events::GROUP, TOPIC_PAYMENT_TASKS, Seek::Start).await;
    }

    /// Every result that there ever was is delivered to Order Service again.
    pub async fn deliver_results_again(&self) {
        let group = order_service::events::CONSUMER_GROUP;
        self.deployment.seek(group, TOPIC_PAYMENT_RESULTS, Seek::Start).await;
    }

    /// What Payments has not taken yet is lost on the way.
    pub async fn lose_tasks(&self) {
        self.deployment.seek(payment_service::events::GROUP, TOPIC_PAYMENT_TASKS, Seek::End).await;
    }
}

/// The message as it was, ready to be published to its topic again.
pub fn again(delivery: &Delivery) -> Record {
    Record {
        topic: delivery.topic.clone(),
        key: String::from_utf8(delivery.key.clone().unwrap_or_default().to_vec()).unwrap(),
        headers: delivery.headers.clone(),
        payload: delivery.payload.clone(),
    }
}
