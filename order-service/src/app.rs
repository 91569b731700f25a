//! One replica of Order Service, from its settings to its end.
//!
//! Start: listener (health only) → database → migrations → consumer, relay, sweeper, resender, feed → public routes. What is not there yet is
//! waited for, and `/health/ready` says what it is. Stop, in the order of the flow: `/health/ready` says so and connections are no longer kept,
//! after a moment for load balancers the listener drains, then the intake, then the consumer, then the relay publishes what is left, then the database closes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use async_graphql::ValidationMode;
use database::{ConnectOptions, Database, DatabaseError, DatabaseUrl};
use graphql_transport::TransportOptions;
use messaging::{Broker, ConsumerLoop, ConsumerOptions, Gate, TopicSpec};
use runtime::{
    auth::TokenVerifier,
    health::Health,
    lifecycle::Shutdown,
    metrics::Metrics,
    publishing::{start_creating_topics, start_publishing},
    readiness::{Checks, keep_health},
    serve::{self, BindError},
    stage::{Stage, Supervisor, TaskDied},
};
use schema::{TOPIC_PAYMENT_RESULTS, TOPIC_PAYMENT_TASKS};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::{
    endpoint::{self, EndpointError, EndpointOptions, EndpointParts, LateRouter},
    events::{CONSUMER_GROUP, PaymentResults},
    feed::Feed,
    graphql::{self, Context},
    order::{
        create::OUTBOX,
        intake::{Intake, IntakeContext, MAX_BATCHES},
        resend,
    },
};

/// What a replica has to be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where its database is.
    pub database: DatabaseUrl,
    /// Whether to migrate on start; otherwise somebody else has to (`order-service migrate`).
    pub migrate_on_start: bool,
    /// The payments subgraph, for example `http://payment-service:8001/graphql`.
    pub payments_url: String,
    /// In front of every topic's name and of the consumer group's.
    pub topic_prefix: String,
    /// Of the topics that are created here.
    pub partitions: i32,
    /// What the public endpoint offers.
    pub endpoint: EndpointOptions,
    /// Where the plain subgraph and `/metrics` are served, for an external router and for operators; off when absent.
    pub subgraph_listen: Option<String>,
    /// What `/metrics` shows.
    pub metrics: Option<Metrics>,
    /// Between reporting that it is not ready and taking no more connections when it stops: time for load balancers to look elsewhere.
    pub drain_notice: Duration,
}

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be opened or migrated, and waiting does not help.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The supergraph does not fit, or the URL of Payments is none.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The listener has no address.
    #[error("cannot listen: {0}")]
    Listen(#[from] io::Error),
    /// The internal listener.
    #[error("SUBGRAPH_LISTEN: {0}")]
    SubgraphListen(#[from] BindError),
}

/// Time for requests that are under way when the service stops; below the 10 s after which Docker kills.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// A running replica. Dropping it stops everything without draining; [`OrderService::stop`] drains.
pub struct OrderService {
    address: SocketAddr,
    database: Database,
    health: Health,
    gates: Gates,
    supervisor: Supervisor,
    stages: Stages,
    drain_notice: Duration,
}

/// Let a test or an operator hold a part of the flow between two batches.
#[derive(Debug, Clone, Default)]
pub struct Gates {
    /// Payment results are not applied while closed.
    pub consumer: Gate,
    /// Payment tasks of new orders are not published while closed.
    pub relay: Gate,
    /// What was left in the outbox is not published while closed.
    pub sweeper: Gate,
}

/// The tasks in the order in which they stop: each stage ends before the one that it feeds.
struct Stages {
    listener: Shutdown,
    /// Sockets, and mutations whose client went away.
    transport: TaskTracker,
    intake: Stage,
    consumer: Stage,
    relay: Stage,
}

impl Stages {
    fn new(supervisor: &Supervisor) -> Self {
        let listener = Shutdown::new(DRAIN_TIME);
        let transport = TaskTracker::new();
        Self { listener, transport, intake: supervisor.stage(), consumer: supervisor.stage(), relay: supervisor.stage() }
    }

    /// What the transport needs to drain with the listener.
    fn transport(&self) -> TransportOptions {
        TransportOptions { drain: self.listener.soft().clone(), tasks: self.transport.clone(), ..TransportOptions::default() }
    }

    async fn stop(&self) {
        self.listener.begin("order service stops");
        self.listener.finished().await;
        self.transport.close();
        if tokio::time::timeout(DRAIN_TIME, self.transport.wait()).await.is_err() {
            tracing::warn!(tasks = self.transport.len(), "ending with operations that do not end");
        }
        for stage in [&self.intake, &self.consumer, &self.relay] {
            stage.stop().await;
        }
    }
}

/// A start that fails, or is given up, leaves nothing running: the stages end when they are dropped.
impl Drop for Stages {
    fn drop(&mut self) {
        self.listener.force("order service was dropped");
    }
}

impl OrderService {
    /// Starts everything and serves on `listener`.
    ///
    /// # Errors
    /// [`StartError`]: what waiting does not cure. A database or broker that is away is waited for. Nothing is left running then, nor when
    /// the returned future is dropped.
    pub async fn start(
        settings: Settings,
        broker: Arc<dyn Broker>,
        verifier: TokenVerifier,
        listener: TcpListener,
    ) -> Result<Self, StartError> {
        let (health, gates, supervisor) = (Health::new(), Gates::default(), Supervisor::default());
        let stages = Stages::new(&supervisor);
        let (checks, routes) = (Checks::new(&health), health.check("routes"));
        let (address, late) = (listener.local_addr()?, LateRouter::default());
        stages.listener.spawn(serve::serve(listener, late.router(&health), stages.listener.clone()));
        let database = connect(&settings, &checks).await?;
        let topic = |name: &str| TopicSpec { name: format!("{}{name}", settings.topic_prefix), partitions: settings.partitions };
        let tasks_topic: Arc<str> = topic(TOPIC_PAYMENT_TASKS).name.into();

        let feed = Feed::new();
        // The consumer creates the topic that it reads; this is the one that is written to.
        start_creating_topics(&broker, vec![topic(TOPIC_PAYMENT_TASKS)], &stages.relay);
        feed.start(&database, &stages.relay);
        let relay = start_publishing(&database, OUTBOX, &broker, &stages.relay, [gates.relay.clone(), gates.sweeper.clone()]);
        let resending = resend::run(database.clone(), relay.clone(), Arc::clone(&tasks_topic), stages.relay.token());
        stages.relay.spawn("resend", resending);

        let handler = Arc::new(PaymentResults::new(feed.clone()));
        // Environments that share a Kafka would otherwise take part in each other's rebalances.
        let group = format!("{}{CONSUMER_GROUP}", settings.topic_prefix);
        let options = ConsumerOptions::new(group, vec![topic(TOPIC_PAYMENT_RESULTS)]);
        let consumer = ConsumerLoop::new(database.for_worker(1), Arc::clone(&broker), handler, options);
        let (consumer, task) = consumer.start(stages.consumer.token(), gates.consumer.clone());
        stages.consumer.adopt("consumer", task);
        stages.consumer.spawn("health", keep_health(checks, database.clone(), broker, consumer, stages.consumer.token()));

        let reader = database.reader().clone();
        let context =
            IntakeContext { database: database.for_worker(MAX_BATCHES), reader, relay, feed: feed.clone(), tasks_topic };
        let intake = Intake::start(context, &stages.intake);

        let context = Context { database: database.clone(), intake, feed };
        let parts = EndpointParts {
            schema: graphql::schema(context.clone(), ValidationMode::Fast),
            database: database.clone(),
            payments_url: settings.payments_url,
            verifier,
            transport: stages.transport(),
        };
        if let Some(listen) = &settings.subgraph_listen {
            let schema = graphql::schema(context, ValidationMode::Strict);
            let router = endpoint::internal::router(schema, &parts, settings.metrics.as_ref());
            stages.listener.spawn(serve::serve(serve::bind(listen).await?, router, stages.listener.clone()));
        }
        late.set(endpoint::router(parts, &settings.endpoint)?);
        routes.ready();
        Ok(Self { address, database, health, gates, supervisor, stages, drain_notice: settings.drain_notice })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is ready.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Its database, for audits.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// To hold parts of the flow.
    pub fn gates(&self) -> &Gates {
        &self.gates
    }

    /// Answers when one of its tasks has panicked: it is to be stopped then, and started anew.
    pub fn death(&self) -> impl Future<Output = TaskDied> + Send + use<> {
        self.supervisor.clone().death()
    }

    /// Drains and stops; bounded by the bounds of its parts.
    pub async fn stop(self) {
        self.health.drain();
        self.stages.listener.announce();
        tokio::time::sleep(self.drain_notice).await;
        self.stages.stop().await;
        self.database.close().await;
    }
}

/// Brings the tables up to date and nothing else: for `order-service migrate`.
///
/// # Errors
/// When the database cannot be used, and waiting does not help.
pub async fn migrate(url: &DatabaseUrl) -> Result<(), DatabaseError> {
    let database = database::connect_with_backoff(url, &ConnectOptions::new("order-service"), |_| {}).await?;
    let migrated = database.migrate::<migrations::OrdersMigrator>().await;
    database.close().await;
    migrated
}

async fn connect(settings: &Settings, checks: &Checks) -> Result<Database, DatabaseError> {
    let options = ConnectOptions::new("order-service");
    let waiting = |error: &DatabaseError| checks.database.not_ready(error.to_string());
    let database = database::connect_with_backoff(&settings.database, &options, waiting).await?;
    if settings.migrate_on_start {
        database.migrate::<migrations::OrdersMigrator>().await?;
    }
    Ok(database)
}
