//! The command line. Every flag has its environment variable.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use order_service::endpoint::cors_origins;
use runtime::{
    service_settings::{TokenRequest, boolean},
    settings::{SettingError, parse},
};
#[cfg(feature = "kafka")]
use tandem::bench::{BenchOptions, FIGURES, stage::replica::ReplicaSettings};
use tandem::{
    embedded::{EmbeddedSettings, signer},
    prove::ProveOptions,
};
use tempfile::TempDir;

/// Orders that are paid exactly once, and seen happening live: everything in one process.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs both services and their broker in this process; the same as no command.
    Run(RunArgs),
    /// Prints a signed token, and nothing else.
    Token(TokenArgs),
    /// Kills itself under load again and again, and shows that nothing is lost or doubled.
    Prove(ProveArgs),
    /// Measures what it costs, each figure beside a yardstick of the same run.
    Bench(BenchArgs),
    /// One service for `bench`, which holds its handle.
    #[cfg(feature = "kafka")]
    #[command(hide = true)]
    BenchReplica(ReplicaArgs),
}

/// What to measure.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Numbers of figures, separated by commas; all if none are given.
    #[cfg(feature = "kafka")]
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", value_parser = clap::value_parser!(u8).range(1..=11))]
    figures: Vec<u8>,
    /// Takes a tenth of the time, to see whether everything works; the values say little.
    #[cfg(feature = "kafka")]
    #[arg(long)]
    quick: bool,
    /// Folder for bench.json and bench.svg.
    #[cfg(feature = "kafka")]
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    output: PathBuf,
    /// Sequential orders whose latency is measured in one process.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub orders: u32,
}

#[cfg(feature = "kafka")]
impl BenchArgs {
    /// What to measure, checked.
    pub fn options(&self) -> BenchOptions {
        let figures = if self.figures.is_empty() { FIGURES.to_vec() } else { self.figures.clone() };
        let yardstick_seconds = if self.quick { 1 } else { 4 };
        BenchOptions { figures, quick: self.quick, output: self.output.clone(), latency_orders: self.orders, yardstick_seconds }
    }
}

/// Which service, and where it finds what it needs.
#[cfg(feature = "kafka")]
#[derive(Debug, Args)]
pub struct ReplicaArgs {
    /// orders or payments.
    pub service: String,
    #[arg(long, env = "DATABASE_URL")]
    database_url: String,
    #[arg(long, env = "KAFKA_BROKERS")]
    kafka_brokers: String,
    #[arg(long, env = "TOPIC_PREFIX")]
    topic_prefix: String,
    #[arg(long, env = "PAYMENTS_URL", default_value = "")]
    payments_url: String,
    #[arg(long, env = "JWT_SECRET", hide_env_values = true)]
    jwt_secret: String,
}

#[cfg(feature = "kafka")]
impl ReplicaArgs {
    /// As they are.
    pub fn settings(self) -> ReplicaSettings {
        let Self { database_url, kafka_brokers, topic_prefix, payments_url, jwt_secret, .. } = self;
        ReplicaSettings { database_url, kafka_brokers, topic_prefix, payments_url, jwt_secret }
    }
}

/// How to run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Port of the public endpoint; 0 takes a free one.
    #[arg(long, env = "PORT", default_value = "8000")]
    port: String,
    /// Name or address to listen on. Anything but this machine itself serves others too, without demo token.
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    host: String,
    #[command(flatten)]
    data: DataArgs,
    /// Serves GraphiQL at /graphiql: true or false.
    #[arg(long, env = "GRAPHIQL", value_name = "BOOL", default_value = "true")]
    graphiql: String,
    /// Answers introspection and serves /schema.graphql: true or false.
    #[arg(long, env = "INTROSPECTION", value_name = "BOOL", default_value = "true")]
    introspection: String,
    /// Browser origins that may call besides pages of this machine, separated by commas.
    #[arg(long, env = "CORS_ORIGINS", value_name = "ORIGIN,…", default_value = "", hide_default_value = true)]
    cors_origins: String,
}

/// Where the data is, and what signs tokens.
#[derive(Args)]
pub struct DataArgs {
    /// Folder of the databases and of the key; made when absent.
    #[arg(long, env = "DATA_DIR", value_name = "FOLDER", default_value = "./data")]
    data_dir: PathBuf,
    /// Signs and checks tokens instead of the folder's own key: secrets of at least 32 bytes, separated by commas.
    #[arg(long, env = "JWT_SECRET", value_name = "SECRETS", hide_env_values = true)]
    jwt_secret: Option<String>,
}

impl std::fmt::Debug for DataArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secret = self.jwt_secret.as_ref().map(|_| "(secret)");
        f.debug_struct("DataArgs").field("data_dir", &self.data_dir).field("jwt_secret", &secret).finish()
    }
}

impl RunArgs {
    /// The settings, checked.
    pub fn settings(self) -> Result<EmbeddedSettings, SettingError> {
        Ok(EmbeddedSettings {
            host: self.host,
            port: parse("PORT", &self.port, "a port from 0 to 65535")?,
            graphiql: boolean("GRAPHIQL", &self.graphiql, true)?,
            introspection: boolean("INTROSPECTION", &self.introspection, true)?,
            cors_origins: cors_origins(&self.cors_origins)?,
            data_dir: self.data.data_dir,
            jwt_secret: self.data.jwt_secret,
        })
    }
}

/// The token to print.
#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(flatten)]
    token: TokenRequest,
    #[command(flatten)]
    data: DataArgs,
}

impl TokenArgs {
    /// The signed token.
    pub fn sign(&self) -> Result<String, Box<dyn std::error::Error>> {
        let signer = signer(&self.data.data_dir, self.data.jwt_secret.clone())?;
        Ok(self.token.sign(&signer)?)
    }
}

/// How hard to try.
#[derive(Debug, Args)]
pub struct ProveArgs {
    /// Orders to create.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    orders: u32,
    /// Times to kill the process meanwhile.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    kills: u32,
    /// Folder for the data, to look at afterwards; a temporary one if none is given. Must be empty.
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
}

impl ProveArgs {
    /// The options, and the temporary folder to hold on to.
    pub fn options(&self) -> std::io::Result<(ProveOptions, Option<TempDir>)> {
        let temporary = if self.data_dir.is_none() { Some(tempfile::tempdir()?) } else { None };
        let data_dir = self.data_dir.clone().or_else(|| temporary.as_ref().map(|folder| folder.path().to_owned()));
        let options = ProveOptions {
            program: std::env::current_exe()?,
            data_dir: data_dir.unwrap_or_default(),
            orders: self.orders as usize,
            kills: self.kills as usize,
            progress: true,
        };
        Ok((options, temporary))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        for args in [&["tandem", "--jwt-secret", "hunter2"][..], &["tandem", "token", "--user", "a", "--jwt-secret", "hunter2"]] {
            let cli = Cli::parse_from(args);
            assert!(!format!("{cli:?}").contains("hunter2"), "{cli:?}");
        }
        let settings = Cli::parse_from(["tandem", "--jwt-secret", "hunter2"]).run.settings().unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
    }
}
