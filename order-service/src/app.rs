//! One replica of Order Service, from its settings to its end.
//!
//! Start: database → migrations → topics and consumer → relay, sweeper, resender, feed → listener. Everything that has to be waited for is
//! waited for in the background, and `/health/ready` says what is missing. Stop, in the order of the flow: the listener drains, then the
//! intake, then the consumer, then the relay publishes what is left, then the database closes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use database::{ConnectOptions, Database, DatabaseError, DatabaseUrl};
use graphql_transport::TransportOptions;
use messaging::{
    Broker, ConsumerHandle, ConsumerLoop, ConsumerOptions, ConsumerStatus, Gate, TopicSpec,
    relay::{Relay, RelayHandle, RelayOptions},
    sweeper::{Sweeper, SweeperOptions},
};
use runtime::{
    auth::TokenVerifier,
    health::{Health, HealthCheck},
    lifecycle::Shutdown,
    serve,
};
use schema::{TOPIC_PAYMENT_RESULTS, TOPIC_PAYMENT_TASKS};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    endpoint::{self, EndpointError, EndpointOptions, EndpointParts},
    events::{CONSUMER_GROUP, PaymentResults},
    feed::Feed,
    graphql::{self, Context},
    order::{
        create::OUTBOX,
        intake::{Intake, IntakeContext},
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
    /// In front of every topic's name.
    pub topic_prefix: String,
    /// What the public endpoint offers.
    pub endpoint: EndpointOptions,
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
}

/// Time for requests that are under way when the service stops; below the 10 s after which Docker kills.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// Pause between two looks at the database for `/health/ready`: an outage is seen soon, and looking costs nothing.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// A running replica. Dropping it does not stop it; [`OrderService::stop`] does.
pub struct OrderService {
    address: SocketAddr,
    database: Database,
    health: Health,
    gates: Gates,
    stages: Stages,
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
    intake: Stage,
    consumer: Stage,
    relay: Stage,
}

#[derive(Default)]
struct Stage {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Stages {
    fn new() -> Self {
        let listener = Shutdown::new(DRAIN_TIME);
        Self { listener, intake: Stage::default(), consumer: Stage::default(), relay: Stage::default() }
    }

    async fn stop(self) {
        self.listener.begin("order service stops");
        self.listener.finished().await;
        for stage in [self.intake, self.consumer, self.relay] {
            stage.token.cancel();
            stage.tasks.close();
            stage.tasks.wait().await;
        }
    }
}

impl OrderService {
    /// Starts everything and serves on `listener`.
    ///
    /// # Errors
    /// [`StartError`]: what waiting does not cure. A database or broker that is away is waited for.
    pub async fn start(
        settings: Settings,
        broker: Arc<dyn Broker>,
        verifier: TokenVerifier,
        listener: TcpListener,
    ) -> Result<Self, StartError> {
        let (health, gates, stages) = (Health::new(), Gates::default(), Stages::new());
        let database = connect(&settings, &health).await?;
        let topic = |name: &str| TopicSpec::new(format!("{}{name}", settings.topic_prefix));
        let tasks_topic: Arc<str> = topic(TOPIC_PAYMENT_TASKS).name.into();

        let feed = Feed::new();
        let Stage { token, tasks } = &stages.relay;
        feed.start(database.clone(), tasks, token.clone());
        let relay = start_publishing(&database, &broker, &gates, &stages.relay);
        tasks.spawn(resend::run(database.clone(), relay.clone(), Arc::clone(&tasks_topic), token.clone()));

        let handler = Arc::new(PaymentResults { feed: feed.clone() });
        let options = ConsumerOptions::new(CONSUMER_GROUP, vec![topic(TOPIC_PAYMENT_RESULTS)]);
        let consumer = ConsumerLoop::new(database.clone(), broker, handler, options);
        let Stage { token, tasks } = &stages.consumer;
        let (consumer, task) = consumer.start(token.clone(), gates.consumer.clone());
        tasks.spawn(task);
        tasks.spawn(report_consumer(consumer, health.check("broker")));
        tasks.spawn(token.clone().run_until_cancelled_owned(report_database(database.clone(), health.check("database"))));

        let context = IntakeContext { database: database.clone(), relay, feed: feed.clone(), tasks_topic };
        let intake = Intake::start(context, &stages.intake.tasks, stages.intake.token.clone());

        let transport = TransportOptions { drain: stages.listener.soft().clone(), ..TransportOptions::default() };
        let schema = graphql::schema(Context { database: database.clone(), intake, feed });
        let parts = EndpointParts {
            schema,
            database: database.clone(),
            payments_url: settings.payments_url,
            verifier,
            health: health.clone(),
            transport,
        };
        let router = endpoint::router(parts, &settings.endpoint)?;
        let address = listener.local_addr()?;
        stages.listener.spawn(serve::serve(listener, router, stages.listener.clone()));
        Ok(Self { address, database, health, gates, stages })
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

    /// Drains and stops; bounded by the bounds of its parts.
    pub async fn stop(self) {
        self.health.drain();
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

async fn connect(settings: &Settings, health: &Health) -> Result<Database, DatabaseError> {
    let check = health.check("database");
    let waiting = |error: &DatabaseError| check.not_ready(error.to_string());
    let options = ConnectOptions::new("order-service");
    let database = database::connect_with_backoff(&settings.database, &options, waiting).await?;
    if settings.migrate_on_start {
        database.migrate::<migrations::OrdersMigrator>().await?;
    }
    check.ready();
    Ok(database)
}

fn start_publishing(database: &Database, broker: &Arc<dyn Broker>, gates: &Gates, stage: &Stage) -> RelayHandle {
    let Stage { token, tasks } = stage;
    let options = RelayOptions::default();
    let (relay, task) = Relay::start(database.clone(), OUTBOX, Arc::clone(broker), options, token.clone(), gates.relay.clone());
    tasks.spawn(task);
    let sweeper = Sweeper::new(database.clone(), OUTBOX, Arc::clone(broker), SweeperOptions::default());
    tasks.spawn(sweeper.start(token.clone(), gates.sweeper.clone()));
    relay
}

/// Tells `/health/ready` what the consumer does; ends with it.
async fn report_consumer(consumer: ConsumerHandle, check: HealthCheck) {
    let mut status = consumer.watch();
    loop {
        match &*status.borrow_and_update() {
            ConsumerStatus::Running => check.ready(),
            ConsumerStatus::Starting { waiting_for: None } => check.not_ready("joining the consumer group"),
            ConsumerStatus::Starting { waiting_for: Some(reason) } => {
                check.not_ready(format!("waiting for the broker: {reason}"))
            }
            ConsumerStatus::Stopped { reason } => check.not_ready(format!("the consumer stopped: {reason}")),
            ConsumerStatus::Finished => return,
        }
        if status.changed().await.is_err() {
            check.not_ready("the consumer ended");
            return;
        }
    }
}

/// Tells `/health/ready` whether the database answers.
async fn report_database(database: Database, check: HealthCheck) {
    loop {
        match database.ping().await {
            Ok(()) => check.ready(),
            Err(error) => check.not_ready(format!("waiting for the database: {error}")),
        }
        tokio::time::sleep(PING_INTERVAL).await;
    }
}
