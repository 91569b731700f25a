//! PostgreSQL and Kafka: those that the environment names, or instances of the benchmark's own, as the tests have them.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::bench::BenchError;

/// Of the instances that are started here.
const INSTANCE: &str = "bench";
/// Kafka's, as for tests, but with both of Java's compilers: it runs long enough here for the second one to pay, as in production.
const KAFKA_JAVA_OPTIONS: &str = "-Xmx512m -XX:+UseSerialGC";

/// Where the servers are.
#[derive(Debug, Clone)]
pub struct Servers {
    /// Any database on the server.
    pub postgres: String,
    /// `host:port`.
    pub kafka: String,
    started: Vec<PathBuf>,
}

impl Servers {
    /// Uses `TANDEM_TEST_POSTGRES_URL` and `TANDEM_TEST_KAFKA_BROKERS`, and starts what they do not name.
    ///
    /// # Errors
    /// When a server cannot be started; the text is the script's own.
    pub async fn start() -> Result<Self, BenchError> {
        let mut started = Vec::new();
        let postgres = named_or_started("TANDEM_TEST_POSTGRES_URL", "test-postgres", &mut started).await?;
        let kafka = named_or_started("TANDEM_TEST_KAFKA_BROKERS", "test-kafka", &mut started).await?;
        Ok(Self { postgres, kafka, started })
    }

    /// Stops what was started here and deletes its data.
    ///
    /// # Errors
    /// When a script fails.
    pub async fn remove(self) -> Result<(), BenchError> {
        for script in &self.started {
            call(script, "remove").await?;
        }
        Ok(())
    }

    /// Whether Kafka is the one that is started here.
    pub fn own_kafka(&self) -> bool {
        self.started.iter().any(|script| script.ends_with("test-kafka"))
    }

    /// The URL of another database on the same PostgreSQL.
    pub fn database(&self, name: &str) -> String {
        let (server, _) = self.postgres.rsplit_once('/').unwrap_or((&self.postgres, ""));
        format!("{server}/{name}")
    }
}

async fn named_or_started(variable: &str, script: &str, started: &mut Vec<PathBuf>) -> Result<String, BenchError> {
    if let Some(named) = std::env::var(variable).ok().filter(|named| !named.is_empty()) {
        return Ok(named);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(script);
    // What an interrupted run left behind; figures start on empty disks.
    call(&script, "remove").await?;
    let url = call(&script, "start").await?;
    started.push(script);
    Ok(url)
}

/// The last line of what the script prints.
async fn call(script: &Path, command: &str) -> Result<String, BenchError> {
    let output = Command::new(script)
        .args([command, INSTANCE])
        .env("TANDEM_TEST_KAFKA_JAVA_OPTIONS", KAFKA_JAVA_OPTIONS)
        .stdin(Stdio::null())
        .output()
        .await?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(BenchError::Unexpected(format!("{} {command} {INSTANCE}: {errors}", script.display())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned())
}
