//! When, where and of what the figures are: without it they cannot be compared with others.

use std::{fs, path::Path, process::Stdio};

use schema::Timestamp;
use sea_orm::{ConnectionTrait as _, Database, Statement};
use serde::Serialize;
use tokio::process::Command;

use super::{BenchError, pgbench::Pgbench};

/// What `scripts/test-kafka` starts.
const KAFKA_POM: &str = include_str!("../../../../scripts/kafka/pom.xml");

/// The circumstances of a run. What cannot be found out is `null`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Environment {
    /// When it started: RFC 3339 in UTC.
    pub when: String,
    /// Of this checkout, with `-dirty` when files differ from it.
    pub commit: Option<String>,
    /// `release` or `debug`; only the first says something.
    pub build: &'static str,
    /// A tenth of the time was taken; the values say little.
    pub quick: bool,
    /// What it ran on: services, servers and generators together.
    pub hardware: Hardware,
    /// What it ran with.
    pub versions: Versions,
}

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hardware {
    /// That this process may use.
    pub cores: Option<usize>,
    /// As the processor calls itself.
    pub cpu: Option<String>,
    /// All there is.
    pub memory_bytes: Option<u64>,
    /// Its release.
    pub kernel: Option<String>,
    /// What is free where the servers that are started here store everything.
    pub free_disk_bytes: Option<u64>,
}

/// The programs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Versions {
    /// This one.
    pub tandem: &'static str,
    /// The server, as it says.
    pub postgres: Option<String>,
    /// The broker that was started here; one that the environment names does not say.
    pub kafka: Option<String>,
    /// The yardstick's program.
    pub pgbench: Option<String>,
}

impl Environment {
    /// Looks around. `postgres` is a URL, and `own_kafka` says whether the broker is the one that the scripts start.
    ///
    /// # Errors
    /// When PostgreSQL does not answer.
    pub async fn find(postgres: &str, own_kafka: bool, pgbench: Option<&Pgbench>, quick: bool) -> Result<Self, BenchError> {
        let pgbench = match pgbench {
            Some(pgbench) => output(Command::new(pgbench.program()).arg("--version")).await,
            None => None,
        };
        let number =
            |text: String| text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned);
        Ok(Self {
            when: Timestamp::now().to_rfc3339(),
            commit: commit().await,
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            quick,
            hardware: Hardware::find().await,
            versions: Versions {
                tandem: env!("CARGO_PKG_VERSION"),
                postgres: postgres_version(postgres).await?.and_then(number),
                kafka: own_kafka.then(|| pom_version(KAFKA_POM)).flatten(),
                pgbench: pgbench.and_then(number),
            },
        })
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let Self { when, commit, build, hardware, versions, .. } = self;
        let gigabytes = hardware.memory_bytes.map(|bytes| format!("{:.0} GB", bytes as f64 / 1e9));
        let cores = hardware.cores.map(|cores| format!("{cores} cores"));
        let postgres = versions.postgres.as_ref().map(|version| format!("PostgreSQL {version}"));
        let kafka = versions.kafka.as_ref().map(|version| format!("Kafka {version}"));
        let commit = commit.as_ref().map(|commit| commit.replacen(commit.get(12..40).unwrap_or_default(), "", 1));
        let day = when.get(..10).unwrap_or_default().to_owned();
        let parts = [Some(day), hardware.cpu.clone(), cores, gigabytes, postgres, kafka, commit, Some(format!("{build} build"))];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
    }
}

impl Hardware {
    async fn find() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let kilobytes =
            value_of(&read("/proc/meminfo"), "MemTotal").and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
        Self {
            cores: std::thread::available_parallelism().ok().map(usize::from),
            cpu: value_of(&read("/proc/cpuinfo"), "model name"),
            memory_bytes: kilobytes.map(|kilobytes| kilobytes * 1024),
            kernel: Some(read("/proc/sys/kernel/osrelease").trim().to_owned()).filter(|release| !release.is_empty()),
            free_disk_bytes: free_disk_bytes().await,
        }
    }
}

/// Of the first `name : value` line.
fn value_of(text: &str, name: &str) -> Option<String> {
    let value = text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name);
    value.map(|(_, value)| value.trim().to_owned())
}

/// Of Kafka, in the list of jars.
fn pom_version(pom: &str) -> Option<String> {
    let (_, rest) = pom.split_once("<groupId>org.apache.kafka</groupId>")?;
    let (version, _) = rest.split_once("<version>")?.1.split_once("</version>")?;
    Some(version.to_owned())
}

async fn postgres_version(url: &str) -> Result<Option<String>, BenchError> {
    let db = Database::connect(url).await?;
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), "SHOW server_version")).await?;
    db.close().await?;
    Ok(row.map(|row| row.try_get_by_index(0)).transpose()?)
}

async fn free_disk_bytes() -> Option<u64> {
    let free = output(Command::new("df").args(["--output=avail", "--block-size=1", env!("CARGO_MANIFEST_DIR")])).await?;
    free.lines().last()?.trim().parse().ok()
}

async fn commit() -> Option<String> {
    let git = |arguments: &'static [&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(Path::new(env!("CARGO_MANIFEST_DIR"))).args(arguments);
        git
    };
    let commit = output(&mut git(&["rev-parse", "HEAD"])).await?;
    let changed = output(&mut git(&["status", "--porcelain", "--untracked-files=no"])).await?;
    Some(if changed.is_empty() { commit } else { format!("{commit}-dirty") })
}

/// What a program prints; `None` when it is not there or fails.
async fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().await.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_kafka_is_that_of_the_jars() {
        let version = pom_version(KAFKA_POM).unwrap();
        assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()), "{version}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn this_machine_is_described() {
        let hardware = Hardware::find().await;
        assert!(hardware.cores.is_some() && hardware.memory_bytes.is_some() && hardware.kernel.is_some(), "{hardware:?}");
        assert!(hardware.free_disk_bytes.is_some_and(|bytes| bytes > 1_000_000), "{hardware:?}");
    }

    #[test]
    fn the_summary_leaves_out_what_is_unknown() {
        let commit = Some("0123456789abcdef0123456789abcdef01234567-dirty".to_owned());
        let environment =
            Environment { when: "2026-02-02T02:40:00.007Z".to_owned(), commit, build: "release", ..Environment::default() };
        assert_eq!(environment.summary(), "2026-02-02 · 0123456789ab-dirty · release build");
    }
}
