//! The yardstick of everything that is stored: `pgbench`, on the same server and in the same run, doing the minimal SQL of the same work.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

use super::{BenchError, progress::Progress};

/// Client counts that are tried for the best rate: a server of two cores is past its best before the last one.
const CLIENTS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];

/// What `pgbench` reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Connections at the same time.
    pub clients: u32,
    /// Transactions per second.
    pub per_second: f64,
    /// Average, in milliseconds.
    pub latency_ms: f64,
}

/// `pgbench`, if it is installed.
#[derive(Debug, Clone)]
pub struct Pgbench(PathBuf);

impl Pgbench {
    /// Looks in `PATH` and where packages put it; `None` when it is missing.
    pub fn find() -> Option<Self> {
        let in_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
        let packaged =
            std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
        in_path.into_iter().chain(packaged).map(|folder| folder.join("pgbench")).find(|program| program.is_file()).map(Self)
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.0
    }

    /// The best rate over 1 to 64 clients, each tried for `seconds`.
    ///
    /// # Errors
    /// When `pgbench` fails or says something unexpected.
    pub async fn best(&self, url: &str, name: &str, script: &str, seconds: u64, progress: &Progress) -> Result<Rate, BenchError> {
        let mut best: Option<Rate> = None;
        for clients in CLIENTS {
            progress.step(format!("pgbench, {name}, {clients} clients"), Duration::from_secs(seconds));
            let rate = self.run(url, script, clients, seconds).await?;
            if best.is_none_or(|best| rate.per_second > best.per_second) {
                best = Some(rate);
            }
        }
        best.ok_or_else(|| BenchError::Unexpected("no client counts".to_owned()))
    }

    /// One run. Statements are prepared once per connection, as the services do.
    ///
    /// # Errors
    /// As [`Pgbench::best`].
    pub async fn run(&self, url: &str, script: &str, clients: u32, seconds: u64) -> Result<Rate, BenchError> {
        let file = tempfile::Builder::new().suffix(".sql").tempfile()?;
        std::fs::write(file.path(), script)?;
        // Two threads: what this machine class has, and the generator of the other side has no more.
        let threads = clients.min(2).to_string();
        let output = Command::new(&self.0)
            .args(["--no-vacuum", "--protocol=prepared", "--client", &clients.to_string(), "--jobs", &threads])
            .args(["--time", &seconds.to_string(), "--file"])
            .arg(file.path())
            .arg(url)
            .stdin(Stdio::null())
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let failed = || {
            let errors = String::from_utf8_lossy(&output.stderr);
            BenchError::Unexpected(format!("pgbench with {clients} clients: {text}{errors}"))
        };
        if !output.status.success() {
            return Err(failed());
        }
        let per_second = number_after(&text, "tps = ").ok_or_else(failed)?;
        let latency_ms = number_after(&text, "latency average = ").ok_or_else(failed)?;
        Ok(Rate { clients, per_second, latency_ms })
    }
}

fn number_after(text: &str, label: &str) -> Option<f64> {
    let rest = &text[text.find(label)? + label.len()..];
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_pgbench_is_read() {
        let text = "number of transactions actually processed: 20\nlatency average = 0.541 ms\ntps = 1848.428835 (without initial connection time)\n";
        assert_eq!(number_after(text, "tps = "), Some(1_848.428_835));
        assert_eq!(number_after(text, "latency average = "), Some(0.541));
        assert_eq!(number_after("pgbench: error", "tps = "), None);
    }
}
