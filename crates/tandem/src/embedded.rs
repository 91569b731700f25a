//! Everything in one process: both services, each with its own SQLite file, and the broker in a third one.
//!
//! The services are the same as in a cluster and talk only through the broker and GraphQL over loopback HTTP; what differs is configuration.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use database::{ConnectOptions, Database, DatabaseError, DatabaseUrl};
use graphql_transport::OriginPattern;
use messaging::{BrokerError, EmbeddedBroker, EmbeddedOptions, broker::DEFAULT_PARTITIONS};
use order_service::{
    app::OrderService,
    endpoint::{DemoUser, EndpointOptions},
};
use payment_service::PaymentService;
use runtime::{
    auth::{Secret, SecretFileError, TokenError, TokenSigner, TokenVerifier},
    serve::{self, BindError},
    settings::SettingError,
    stage::TaskDied,
};

/// Whom the demo token names.
pub const DEMO_USER: &str = "demo";
/// The demo token is made on each start and lasts for a day of work and a night.
const DEMO_TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

/// Where and how to listen, and where the data is.
#[derive(Clone)]
pub struct EmbeddedSettings {
    /// Name or address to listen on.
    pub host: String,
    /// 0 takes a free one.
    pub port: u16,
    /// Created when absent.
    pub data_dir: PathBuf,
    /// GraphiQL is served.
    pub graphiql: bool,
    /// Introspection is answered.
    pub introspection: bool,
    /// Browser origins that may call, besides pages of this machine.
    pub cors_origins: Vec<OriginPattern>,
    /// Signs and checks tokens instead of the folder's own key.
    pub jwt_secret: Option<String>,
}

impl std::fmt::Debug for EmbeddedSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("data_dir", &self.data_dir)
            .field("graphiql", &self.graphiql)
            .field("introspection", &self.introspection)
            .field("cors_origins", &self.cors_origins)
            .field("jwt_secret", &self.jwt_secret.as_ref().map(|_| "(secret)"))
            .finish()
    }
}

impl EmbeddedSettings {
    /// Whether only this machine can reach it.
    fn is_loopback_only(&self) -> bool {
        matches!(self.host.as_str(), "127.0.0.1" | "localhost" | "::1" | "[::1]")
    }

    /// As `tandem run` has it without flags, on this folder and port.
    pub fn local(data_dir: &Path, port: u16) -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port,
            data_dir: data_dir.to_owned(),
            graphiql: true,
            introspection: true,
            cors_origins: Vec::new(),
            jwt_secret: None,
        }
    }
}

/// Why it did not start. Each text is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port.
    #[error("{0} (--port, --host)")]
    Bind(#[from] BindError),
    /// The data folder or a file in it.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The key in the data folder, or `JWT_SECRET`.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The demo token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The embedded broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Order Service.
    #[error(transparent)]
    Orders(#[from] order_service::app::StartError),
    /// Payments Service.
    #[error(transparent)]
    Payments(#[from] payment_service::StartError),
    /// An origin that is none.
    #[error(transparent)]
    Origin(#[from] graphql_transport::OriginPatternError),
}

/// Order Service's file.
pub fn orders_database(data_dir: &Path) -> DatabaseUrl {
    DatabaseUrl::sqlite(data_dir.join("orders.db"))
}

/// Payments Service's file.
pub fn payments_database(data_dir: &Path) -> DatabaseUrl {
    DatabaseUrl::sqlite(data_dir.join("payments.db"))
}

/// The broker's file.
pub fn broker_database(data_dir: &Path) -> DatabaseUrl {
    DatabaseUrl::sqlite(data_dir.join("broker.db"))
}

/// The secrets that tokens are signed with: `JWT_SECRET` if it is set, otherwise the folder's own key, made on first use.
///
/// # Errors
/// When the secret is unusable, or the key can neither be read nor made.
pub fn secrets(data_dir: &Path, jwt_secret: Option<String>) -> Result<Vec<Secret>, KeyError> {
    let configured = Secret::from_setting("JWT_SECRET", jwt_secret, None)?;
    if configured.is_empty() { Ok(vec![Secret::load_or_create(&data_dir.join("jwt.key"))?]) } else { Ok(configured) }
}

/// Signs tokens that a server on this folder accepts.
///
/// # Errors
/// As [`secrets`].
pub fn signer(data_dir: &Path, jwt_secret: Option<String>) -> Result<TokenSigner, KeyError> {
    let secrets = secrets(data_dir, jwt_secret)?;
    // Never empty: see `secrets`.
    secrets.first().map(TokenSigner::new).ok_or(KeyError::None)
}

/// Why there is no key for tokens.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// `JWT_SECRET`.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The folder's own key.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// There is none.
    #[error("there is no key for tokens")]
    None,
}

/// Both services and their broker, running.
pub struct Tandem {
    orders: OrderService,
    payments: PaymentService,
    broker: Arc<EmbeddedBroker>,
    /// The broker's file.
    log: Database,
    demo_token: String,
    graphiql: Option<Graphiql>,
}

/// How GraphiQL meets whoever opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Graphiql {
    /// Signed in as [`DEMO_USER`]: only people at this machine can open it.
    SignedIn,
    /// Without a token.
    Anonymous,
}

impl Tandem {
    /// Starts everything and waits until all of it is ready.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(settings: EmbeddedSettings) -> Result<Self, StartError> {
        // What was set is checked before anything is opened or written; then the port: it is what people most often have taken.
        Secret::from_setting("JWT_SECRET", settings.jwt_secret.clone(), None).map_err(KeyError::from)?;
        let listener = serve::bind(&format!("{}:{}", settings.host, settings.port)).await?;
        let connect = ConnectOptions::new("tandem");
        let log = Database::connect(&broker_database(&settings.data_dir), &connect).await?;
        log.migrate::<migrations::BrokerLogMigrator>().await?;
        let broker = Arc::new(EmbeddedBroker::open(log.clone(), EmbeddedOptions::default()).await?);

        let secrets = secrets(&settings.data_dir, settings.jwt_secret.clone())?;
        let verifier = TokenVerifier::new(&secrets, None);
        let signer = signer(&settings.data_dir, settings.jwt_secret.clone())?;
        let demo_token = signer.sign::<&str>(DEMO_USER, &[], DEMO_TOKEN_TTL)?;

        let payments = payments_settings(&settings.data_dir);
        let payments = PaymentService::start(payments, broker.clone(), verifier.clone()).await?;
        let payments_url = format!("http://{}/graphql", payments.address());
        let orders = orders_settings(&settings, payments_url, &demo_token)?;
        let orders = OrderService::start(orders, broker.clone(), verifier, listener).await?;
        tokio::join!(payments.health().ready(), orders.health().ready());
        let graphiql = if settings.is_loopback_only() { Graphiql::SignedIn } else { Graphiql::Anonymous };
        Ok(Self { orders, payments, broker, log, demo_token, graphiql: settings.graphiql.then_some(graphiql) })
    }

    /// Order Service: the public endpoint.
    pub fn orders(&self) -> &OrderService {
        &self.orders
    }

    /// Payments Service.
    pub fn payments(&self) -> &PaymentService {
        &self.payments
    }

    /// The broker between them.
    pub fn broker(&self) -> &Arc<EmbeddedBroker> {
        &self.broker
    }

    /// A token of [`DEMO_USER`].
    pub fn demo_token(&self) -> &str {
        &self.demo_token
    }

    /// Whether GraphiQL is served, and how.
    pub fn graphiql(&self) -> Option<Graphiql> {
        self.graphiql
    }

    /// The public base URL, as this machine reaches it.
    pub fn url(&self) -> String {
        let address = self.orders.address();
        let is_here = address.ip().is_loopback() || address.ip().is_unspecified();
        if is_here { format!("http://localhost:{}", address.port()) } else { format!("http://{address}") }
    }

    /// Answers when a task of one of the services has panicked.
    pub fn death(&self) -> impl Future<Output = TaskDied> + Send + use<> {
        let (orders, payments) = (self.orders.death(), self.payments.death());
        async move {
            tokio::select! {
                died = orders => died,
                died = payments => died,
            }
        }
    }

    /// Drains and stops: first who is called, then who is asked by it, then what lies between them. The data folder is free then.
    pub async fn stop(self) {
        self.orders.stop().await;
        self.payments.stop().await;
        if let Err(error) = self.broker.close().await {
            tracing::warn!(%error, "closing the broker");
        }
        self.log.close().await;
    }
}

fn payments_settings(data_dir: &Path) -> payment_service::Settings {
    payment_service::Settings {
        database: payments_database(data_dir),
        migrate_on_start: true,
        listen: "127.0.0.1:0".to_owned(),
        topics: payment_service::Topics::with_prefix(""),
        metrics: None,
        // Nobody balances load over one process, and whoever stops it waits for its end.
        drain_notice: Duration::ZERO,
    }
}

fn orders_settings(
    settings: &EmbeddedSettings,
    payments_url: String,
    demo_token: &str,
) -> Result<order_service::app::Settings, StartError> {
    let mut cors_origins = settings.cors_origins.clone();
    for host in ["localhost", "127.0.0.1"] {
        cors_origins.push(format!("http://{host}:*").parse()?);
    }
    let loopback_only = settings.is_loopback_only();
    Ok(order_service::app::Settings {
        database: orders_database(&settings.data_dir),
        migrate_on_start: true,
        payments_url,
        topic_prefix: String::new(),
        partitions: DEFAULT_PARTITIONS,
        endpoint: EndpointOptions {
            graphiql: settings.graphiql,
            introspection: settings.introspection,
            cors_origins,
            loopback_only,
            // Whoever can open the page is the demo user: only for people at this machine.
            demo_user: loopback_only.then(|| DemoUser { name: DEMO_USER.to_owned(), token: demo_token.to_owned() }),
        },
        subgraph_listen: None,
        metrics: None,
        // Nobody balances load over one process, and whoever stops it waits for its end.
        drain_notice: Duration::ZERO,
    })
}
