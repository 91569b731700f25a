//! The service put together: database, consumer, relay, sweeper, pruner, listener.
//!
//! [`PaymentService::start`] answers once everything runs. It waits for the database as long as it takes, while the health routes answer
//! already; the broker may come later, and everything that needs it waits in the background.
//!
//! [`PaymentService::stop`] goes the way of the data: after a moment for load balancers no more requests, no more tasks, then everything committed is published.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use database::{ConnectOptions, Database, DatabaseError, DatabaseUrl, connect_with_backoff};
use messaging::{Broker, ConsumerHandle, ConsumerLoop, ConsumerOptions, Gate, Pruner, TopicSpec, broker::DEFAULT_PARTITIONS};
use migrations::PaymentsMigrator;
use runtime::{
    auth::TokenVerifier,
    health::Health,
    metrics::Metrics,
    publishing::{start_creating_topics, start_publishing},
    readiness::{Checks, keep_health},
    serve::BindError,
    stage::{Stage, Supervisor, TaskDied},
};
use schema::{TOPIC_PAYMENT_RESULTS, TOPIC_PAYMENT_TASKS};
use sea_orm::DbErr;

use crate::{
    audit::AuditReport,
    events::{GROUP, PaymentTasks},
    graphql,
    http::{self, LateSchema},
    listener::Listener,
    payment::{INBOX, OUTBOX},
};

/// How long claims of messages are kept. They only tell a redelivery from a task that was sent again: the guard against a second debit is
/// the payment's own row, which is kept for ever.
const INBOX_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The longest check of an audit, which reads whole tables.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// What a replica needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where its database is.
    pub database: DatabaseUrl,
    /// Whether to bring the tables up to date before anything else.
    pub migrate_on_start: bool,
    /// `host:port` where the subgraph is served; port 0 takes a free one.
    pub listen: String,
    /// What its topics are called.
    pub topics: Topics,
    /// Served at `/metrics` if there is a recorder.
    pub metrics: Option<Metrics>,
    /// Between reporting that it is not ready and taking no more connections when it stops: time for load balancers to look elsewhere.
    pub drain_notice: Duration,
}

/// The names of the topics, and of the group that reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// Where tasks come from.
    pub tasks: String,
    /// Where results go.
    pub results: String,
    /// The consumer group of all replicas.
    pub group: String,
    /// Of the topics that are created here.
    pub partitions: i32,
}

impl Topics {
    /// The names with a prefix in front, which keeps environments apart that share a broker; it may be empty.
    pub fn with_prefix(prefix: &str) -> Self {
        let (tasks, results) = (format!("{prefix}{TOPIC_PAYMENT_TASKS}"), format!("{prefix}{TOPIC_PAYMENT_RESULTS}"));
        // Environments that share a Kafka would otherwise take part in each other's rebalances.
        let group = format!("{prefix}{GROUP}");
        Self { tasks, results, group, partitions: DEFAULT_PARTITIONS }
    }

    fn spec(&self, name: &str) -> TopicSpec {
        TopicSpec { name: name.to_owned(), partitions: self.partitions }
    }
}

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be used, and waiting does not help.
    #[error("cannot use the database: {0}")]
    Database(#[source] DatabaseError),
    /// The tables cannot be brought up to date.
    #[error("cannot bring the tables up to date: {0}")]
    Migrate(#[source] DatabaseError),
    /// The address is taken or not ours.
    #[error("LISTEN: {0}")]
    Listen(#[from] BindError),
    /// Nothing could be added up.
    #[error("cannot add everything up: {0}")]
    Audit(#[source] DbErr),
}

/// A running replica. Dropping it stops everything without draining; [`PaymentService::stop`] drains.
pub struct PaymentService {
    database: Database,
    health: Health,
    listener: Listener,
    consumer: ConsumerHandle,
    consumer_gate: Gate,
    supervisor: Supervisor,
    stages: Stages,
    drain_notice: Duration,
}

/// The tasks in the order in which they stop: each stage ends before the one that it feeds.
struct Stages {
    consumer: Stage,
    relay: Stage,
}

impl PaymentService {
    /// Starts a replica that talks through `broker` and believes the tokens that `verifier` accepts.
    ///
    /// # Errors
    ///
    /// What waiting cannot cure; see [`StartError`]. Nothing is left running then, nor when the returned future is dropped.
    pub async fn start(settings: Settings, broker: Arc<dyn Broker>, verifier: TokenVerifier) -> Result<Self, StartError> {
        let health = Health::new();
        let checks = Checks::new(&health);
        let schema = LateSchema::default();
        let listener = Listener::start(&settings.listen, router(&settings, &schema, verifier, &health)).await?;
        let database = connect(&settings, &checks).await?;
        // Nothing else sets it.
        let _ = schema.set(graphql::schema(database.clone()));
        let supervisor = Supervisor::default();
        let stages = Stages { consumer: supervisor.stage(), relay: supervisor.stage() };

        let Topics { tasks, results, .. } = &settings.topics;
        let topics = [tasks, results].map(|name| settings.topics.spec(name));
        start_creating_topics(&broker, topics.into(), &stages.relay);
        let relay = start_publishing(&database, OUTBOX, &broker, &stages.relay, [Gate::new(), Gate::new()]);
        let pruner = Pruner::new(database.clone(), INBOX, INBOX_RETENTION);
        stages.relay.adopt("pruner", pruner.start(stages.relay.token()));

        let consumer_gate = Gate::new();
        let (consumer, task) = ConsumerLoop::new(
            database.for_worker(1),
            Arc::clone(&broker),
            Arc::new(PaymentTasks::new(settings.topics.results.clone(), relay)),
            ConsumerOptions::new(&settings.topics.group, vec![settings.topics.spec(&settings.topics.tasks)]),
        )
        .start(stages.consumer.token(), consumer_gate.clone());
        stages.consumer.adopt("consumer", task);
        let probing = keep_health(checks, database.clone(), broker, consumer.clone(), stages.consumer.token());
        stages.consumer.spawn("health", probing);
        tracing::info!(address = %listener.address(), database = %database.url(), "Payments Service is up");

        Ok(Self { database, health, listener, consumer, consumer_gate, supervisor, stages, drain_notice: settings.drain_notice })
    }

    /// Where the subgraph is served, also while the listener is stopped.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Whether everything that it needs is there; the same as its health routes answer.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The service's database, for [`crate::audit`].
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// What the consumer of tasks is doing; lets an operator resume it after too many dead letters.
    pub fn consumer(&self) -> &ConsumerHandle {
        &self.consumer
    }

    /// Decides nothing more until [`PaymentService::resume_consumer`]; answers when the batch in hand is done.
    pub async fn pause_consumer(&self) {
        self.consumer_gate.close();
        self.consumer_gate.quiet().await;
    }

    /// Goes on where [`PaymentService::pause_consumer`] stopped.
    pub fn resume_consumer(&self) {
        self.consumer_gate.open();
    }

    /// Takes the subgraph away, as if the service were unreachable. Tasks are still decided.
    pub async fn stop_listener(&self) {
        self.listener.stop().await;
    }

    /// Serves the subgraph again at the same address.
    ///
    /// # Errors
    ///
    /// When somebody else took the address meanwhile.
    pub async fn start_listener(&self) -> Result<(), BindError> {
        self.listener.resume().await
    }

    /// Answers when one of its tasks has panicked: it is to be stopped then, and started anew.
    pub fn death(&self) -> impl Future<Output = TaskDied> + Send + use<> {
        self.supervisor.clone().death()
    }

    /// Stops in the order of the data's way and returns when everything that was committed is published, or left to the next start
    /// after the relay's grace time. Then closes the database.
    pub async fn stop(self) {
        self.health.drain();
        self.listener.announce_stop().await;
        tokio::time::sleep(self.drain_notice).await;
        self.listener.stop().await;
        self.stages.consumer.stop().await;
        self.stages.relay.stop().await;
        self.database.close().await;
        tracing::info!("Payments Service has stopped");
    }
}

/// Brings the tables up to date and nothing else: for `payment-service migrate`.
///
/// # Errors
///
/// [`StartError::Database`] or [`StartError::Migrate`].
pub async fn migrate(url: &DatabaseUrl) -> Result<(), StartError> {
    let database = open(url, |_| {}).await?;
    let migrated = database.migrate::<PaymentsMigrator>().await.map_err(StartError::Migrate);
    database.close().await;
    migrated
}

/// Adds everything up and nothing else: for `payment-service audit`. Takes minutes where there are millions of payments, and no lock.
///
/// # Errors
///
/// [`StartError::Database`] or [`StartError::Audit`].
pub async fn audit(url: &DatabaseUrl) -> Result<AuditReport, StartError> {
    let options = ConnectOptions { statement_timeout: AUDIT_TIMEOUT, ..ConnectOptions::new("payment-service audit") };
    let database = connect_with_backoff(url, &options, |_| {}).await.map_err(StartError::Database)?;
    let report = crate::audit::audit(database.reader()).await.map_err(StartError::Audit);
    database.close().await;
    report
}

async fn connect(settings: &Settings, checks: &Checks) -> Result<Database, StartError> {
    let database = open(&settings.database, |error| checks.database.not_ready(error.to_string())).await?;
    if settings.migrate_on_start {
        database.migrate::<PaymentsMigrator>().await.map_err(StartError::Migrate)?;
    }
    Ok(database)
}

async fn open(url: &DatabaseUrl, on_wait: impl FnMut(&DatabaseError)) -> Result<Database, StartError> {
    let options = ConnectOptions::new("payment-service");
    connect_with_backoff(url, &options, on_wait).await.map_err(StartError::Database)
}

fn router(settings: &Settings, schema: &LateSchema, verifier: TokenVerifier, health: &Health) -> Router {
    let router = http::router(Arc::clone(schema), verifier).merge(health.router());
    match &settings.metrics {
        Some(metrics) => router.merge(metrics.router()),
        None => router,
    }
}
