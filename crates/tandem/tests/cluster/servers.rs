//! PostgreSQL and Kafka: those that the tests share, and instances of one test's own.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use database::testing::{POSTGRES_URL, REQUIRE_SERVERS};

/// Names the Kafka cluster for tests.
const KAFKA_BROKERS: &str = "TANDEM_TEST_KAFKA_BROKERS";

/// The scripts choose free ports and take them a moment later.
static STARTING: Mutex<()> = Mutex::new(());

/// Where the servers are.
#[derive(Debug, Clone)]
pub struct Servers {
    /// Any database on the server.
    pub postgres: String,
    pub kafka: String,
}

impl Servers {
    /// Those that all tests share; `None`, loudly, when there are none.
    pub fn shared() -> Option<Self> {
        Some(Self { postgres: named(POSTGRES_URL, "scripts/test-postgres")?, kafka: named(KAFKA_BROKERS, "scripts/test-kafka")? })
    }
}

fn named(variable: &str, script: &str) -> Option<String> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        let required = std::env::var(REQUIRE_SERVERS).is_ok_and(|value| value == "1");
        assert!(!required, "{REQUIRE_SERVERS}=1, but {variable} is not set");
        eprintln!("SKIPPED: {variable} is not set ({script} start)");
    }
    value
}

/// A server of one test alone, which may be stopped and killed. Removed with its data when dropped.
pub struct Instance {
    script: PathBuf,
    name: String,
    /// Its address; the same after a restart.
    pub url: String,
}

impl Instance {
    /// PostgreSQL on an empty data folder.
    pub async fn postgres(name: &str) -> Self {
        Self::start_new("test-postgres", name).await
    }

    /// Kafka without topics.
    pub async fn kafka(name: &str) -> Self {
        Self::start_new("test-kafka", name).await
    }

    async fn start_new(script: &str, name: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(script);
        let mut instance = Self { script, name: format!("cluster-test-{name}"), url: String::new() };
        // What an interrupted run left behind.
        instance.run("remove").await;
        instance.url = instance.run("start").await;
        instance
    }

    /// `start`, `stop`, `kill` or `restart`; returns when it is done.
    pub async fn run(&self, command: &str) -> String {
        let (script, name, command) = (self.script.clone(), self.name.clone(), command.to_owned());
        tokio::task::spawn_blocking(move || call(&script, &command, &name)).await.unwrap()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // In a destructor a failure can only be told.
        let removed = Command::new(&self.script).args(["remove", &self.name]).status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("{} remove {} failed", self.script.display(), self.name);
        }
    }
}

/// The last line of what the script prints.
fn call(script: &Path, command: &str, name: &str) -> String {
    let _alone = matches!(command, "start" | "restart").then(|| STARTING.lock().unwrap_or_else(PoisonError::into_inner));
    let output = Command::new(script).args([command, name]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {command} {name}: {errors}", script.display());
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap_or_default().to_owned()
}
