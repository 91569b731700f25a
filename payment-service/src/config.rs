//! The command line. Every flag has its environment variable; what cannot be used names the variable, what was read and what is allowed.

use clap::{Args, Parser, Subcommand};
use runtime::{
    broker_settings::BrokerArgs,
    service_settings::{AuthArgs, DatabaseArgs, DrainArgs, HealthcheckArgs, TokenArgs, listen_address},
    settings::SettingError,
    traces::{TraceArgs, TraceExport},
};

use payment_service::{Settings, Topics};

/// Payments Service: accounts, their ledger, and exactly one payment decision per order.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// `run` if none is given.
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
    /// Adds up all accounts, entries and payments, and lists what does not fit.
    Audit(DatabaseArgs),
    /// Prints a signed token, and nothing else.
    Token(TokenArgs),
    /// Asks the replica on this machine whether it is ready.
    Healthcheck(HealthcheckArgs),
    /// Prints the subgraph's SDL.
    Schema,
}

impl Command {
    /// Where its traces go; only a replica has some.
    pub fn traces(&self) -> Result<Option<TraceExport>, SettingError> {
        match self {
            Self::Run(args) => args.traces.export("payment-service"),
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
    /// Where to serve the subgraph: host:port.
    #[arg(long, env = "LISTEN", value_name = "HOST:PORT", default_value = "0.0.0.0:8001")]
    listen: String,
}

impl RunArgs {
    /// The settings, checked.
    pub fn settings(&self) -> Result<Settings, SettingError> {
        Ok(Settings {
            database: self.database.url()?,
            migrate_on_start: self.database.migrate_on_start()?,
            listen: listen_address("LISTEN", &self.listen)?,
            topics: Topics { partitions: self.broker.partitions()?, ..Topics::with_prefix(self.broker.topic_prefix()?) },
            metrics: None,
            drain_notice: self.drain.notice()?,
        })
    }
}
