//! The command line. Every flag has its environment variable; what cannot be used names the variable, what was read and what is allowed.

use clap::{Args, Parser, Subcommand};
use order_service::{
    app::Settings,
    endpoint::{EndpointOptions, cors_origins},
};
use runtime::{
    broker_settings::BrokerArgs,
    service_settings::{AuthArgs, DatabaseArgs, DrainArgs, HealthcheckArgs, TokenArgs, boolean, listen_address},
    settings::{SettingError, http_url},
    traces::{TraceArgs, TraceExport},
};

/// Order Service: accepts orders, follows their payment, and shows both, live, through one GraphQL API.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs one replica until it is told to stop.
    Run(Box<RunArgs>),
    /// Brings the tables up to date and ends.
    Migrate(DatabaseArgs),
    /// Prints a signed token, and nothing else.
    Token(TokenArgs),
    /// Asks the replica on this machine whether it is ready.
    Healthcheck(HealthcheckArgs),
    /// Prints the subgraph's SDL.
    Schema {
        /// The public schema over both services instead.
        #[arg(long)]
        public: bool,
    },
}

/// Where Payments is when both services run on one machine without further settings.
const DEFAULT_PAYMENTS_URL: &str = "http://localhost:8001/graphql";

impl Command {
    /// Where its traces go; only a replica has some.
    pub fn traces(&self) -> Result<Option<TraceExport>, SettingError> {
        match self {
            Self::Run(args) => args.traces.export("order-service"),
            _ => Ok(None),
        }
    }
}

/// What one replica needs to know.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    pub broker: BrokerArgs,
    #[command(flatten)]
    pub auth: AuthArgs,
    #[command(flatten)]
    drain: DrainArgs,
    #[command(flatten)]
    traces: TraceArgs,
    /// Where to serve the public endpoint: host:port.
    #[arg(long, env = "LISTEN", value_name = "HOST:PORT", default_value = "0.0.0.0:8000")]
    listen: String,
    /// The payments subgraph.
    #[arg(long, env = "PAYMENTS_URL", value_name = "URL", default_value = DEFAULT_PAYMENTS_URL)]
    payments_url: String,
    #[command(flatten)]
    pub public: PublicArgs,
    /// Where to serve the plain orders subgraph, for an external router, and /metrics; off when not given.
    #[arg(long, env = "SUBGRAPH_LISTEN", value_name = "HOST:PORT")]
    subgraph_listen: Option<String>,
}

/// What the public endpoint offers.
#[derive(Debug, Args)]
pub struct PublicArgs {
    /// Serves GraphiQL at /graphiql: true or false.
    #[arg(long, env = "GRAPHIQL", value_name = "BOOL", default_value = "false")]
    graphiql: String,
    /// Answers introspection and serves /schema.graphql: true or false.
    #[arg(long, env = "INTROSPECTION", value_name = "BOOL", default_value = "false")]
    introspection: String,
    /// Browser origins that may call, separated by commas, such as <https://shop.example>.
    #[arg(long, env = "CORS_ORIGINS", value_name = "ORIGIN,…", default_value = "", hide_default_value = true)]
    cors_origins: String,
}

impl RunArgs {
    /// Where to listen, checked.
    pub fn listen(&self) -> Result<String, SettingError> {
        listen_address("LISTEN", &self.listen)
    }

    fn subgraph_listen(&self) -> Result<Option<String>, SettingError> {
        let given = self.subgraph_listen.as_deref().filter(|text| !text.is_empty());
        given.map(|text| listen_address("SUBGRAPH_LISTEN", text)).transpose()
    }

    /// The settings, checked.
    pub fn settings(&self) -> Result<Settings, SettingError> {
        Ok(Settings {
            database: self.database.url()?,
            migrate_on_start: self.database.migrate_on_start()?,
            payments_url: http_url("PAYMENTS_URL", &self.payments_url, DEFAULT_PAYMENTS_URL)?,
            topic_prefix: self.broker.topic_prefix()?.to_owned(),
            partitions: self.broker.partitions()?,
            endpoint: self.public.options()?,
            subgraph_listen: self.subgraph_listen()?,
            metrics: None,
            drain_notice: self.drain.notice()?,
        })
    }
}

impl PublicArgs {
    fn options(&self) -> Result<EndpointOptions, SettingError> {
        Ok(EndpointOptions {
            graphiql: boolean("GRAPHIQL", &self.graphiql, false)?,
            introspection: boolean("INTROSPECTION", &self.introspection, false)?,
            cors_origins: cors_origins(&self.cors_origins)?,
            loopback_only: false,
            demo_user: None,
        })
    }
}
