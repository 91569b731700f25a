//! The run: servers, figures one after the other, and what they share.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use super::{
    BenchError,
    environment::Environment,
    figures,
    pgbench::{Pgbench, Rate},
    progress::Progress,
    report::{Failed, Figure, Report},
    stage::servers::Servers,
};

/// What to measure, and how long.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Numbers of figures; those that others rest on are measured too.
    pub figures: Vec<u8>,
    /// A tenth of the time, to see whether everything works. Its values say little.
    pub quick: bool,
    /// Where JSON and chart go.
    pub output: PathBuf,
    /// Sequential orders of the latency in one process.
    pub latency_orders: u32,
    /// Of each client count of `pgbench`.
    pub yardstick_seconds: u64,
}

impl BenchOptions {
    /// How long a closed loop is measured.
    pub fn measured(&self) -> Duration {
        Duration::from_secs(if self.quick { 2 } else { 15 })
    }

    /// How long a rate must be sustained.
    pub fn sustained(&self) -> Duration {
        Duration::from_secs(if self.quick { 6 } else { 60 })
    }
}

/// A run.
pub struct Bench {
    /// What is wanted.
    pub options: BenchOptions,
    /// Where everything is stored.
    pub servers: Servers,
    /// `None`, loudly, when it is not installed.
    pub pgbench: Option<Pgbench>,
    /// Figure 2, for those that are relative to it.
    pub settled_per_second: Option<f64>,
    /// Figure 3, for figure 4.
    pub hot_debits_per_second: Option<f64>,
    order_yardstick: Option<Rate>,
}

/// For what the servers of a whole run store at the same time: some million orders and all messages, which was 11 GB; a faster machine stores more.
const DISK_BYTES: u64 = 20_000_000_000;

/// All figures there are.
pub const FIGURES: [u8; 11] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

/// Measures the wanted figures on servers that are started for them, unless the environment names some.
///
/// # Errors
/// When a server cannot be started or removed. Figures that fail are in the report.
pub async fn run(options: BenchOptions) -> Result<Report, BenchError> {
    let pgbench = Pgbench::find();
    if pgbench.is_none() {
        tracing::warn!(
            "pgbench is not installed: THERE ARE NO YARDSTICKS and no ratios in this run. Install PostgreSQL's contrib programs"
        );
    }
    let starting = Progress::new("servers");
    starting.step("starting PostgreSQL and Kafka", Duration::ZERO);
    let servers = Servers::start().await?;
    starting.done();
    let mut bench =
        Bench { options, servers, pgbench, settled_per_second: None, hot_debits_per_second: None, order_yardstick: None };
    let (postgres, own_kafka) = (bench.servers.postgres.clone(), bench.servers.own_kafka());
    let environment = Environment::find(&postgres, own_kafka, bench.pgbench.as_ref(), bench.options.quick).await;
    if let Some(free) = environment.as_ref().ok().and_then(|environment| environment.hardware.free_disk_bytes)
        && free < DISK_BYTES
    {
        let (free, needed) = (free / 1_000_000_000, DISK_BYTES / 1_000_000_000);
        tracing::warn!(
            "{free} GB of disk are free, and all figures together need {needed}: ORDERS MAY BE REFUSED BECAUSE IT IS FULL"
        );
    }
    // Servers in the background would outlive an interrupted run; replicas end with it.
    let measured = tokio::select! {
        measured = bench.measure() => Some(measured),
        _ = tokio::signal::ctrl_c() => None,
    };
    bench.servers.remove().await?;
    let measured = measured.ok_or_else(|| BenchError::Unexpected("interrupted".to_owned()))?;
    let (figures, failed) = measured;
    Ok(Report { environment: environment?, figures, failed })
}

impl Bench {
    /// A figure that fails is none, and says why at the end; the others are measured all the same, because a run takes long.
    async fn measure(&mut self) -> (Vec<Figure>, Vec<Failed>) {
        let (mut measured, mut failed) = (Vec::new(), Vec::new());
        for number in with_foundations(&self.options.figures) {
            match self.figure(number).await {
                Ok(figures) => measured.extend(figures),
                Err(error) => {
                    tracing::error!(number, %error, "there is no figure");
                    failed.push(Failed { number, error: error.to_string() });
                }
            }
        }
        (measured, failed)
    }

    async fn figure(&mut self, number: u8) -> Result<Vec<Figure>, BenchError> {
        let figures = match number {
            1 => figures::create::measure(self).await?,
            2 => figures::settle::measure(self).await?,
            3 => figures::hot::measure(self).await?,
            4 => figures::spread::measure(self).await?,
            5 => figures::latency::measure(self).await?,
            6 => figures::federation::measure(self).await?,
            7 => figures::subscribers::measure(self).await?,
            8 => figures::growth::measure(self).await?,
            9 => figures::idle::measure(self).await?,
            10 => figures::memory::measure(self).await?,
            11 => figures::embedded::measure(self).await?,
            _ => return Err(BenchError::Unexpected(format!("there is no figure {number}"))),
        };
        for figure in &figures {
            let Figure { number, name, value, ratio, .. } = figure;
            tracing::info!(number, name, value, ratio, "measured");
        }
        Ok(figures)
    }

    /// Settled orders per second, for figures that are relative to it.
    ///
    /// # Errors
    /// When figure 2 could not be measured.
    pub fn figure_2(&self) -> Result<f64, BenchError> {
        self.settled_per_second.ok_or_else(|| BenchError::Unexpected("it rests on figure 2, and there is none".to_owned()))
    }

    /// Debits per second on one account, for figure 4.
    ///
    /// # Errors
    /// When figure 3 could not be measured.
    pub fn figure_3(&self) -> Result<f64, BenchError> {
        self.hot_debits_per_second.ok_or_else(|| BenchError::Unexpected("it rests on figure 3, and there is none".to_owned()))
    }

    /// What `pgbench` makes of one order per transaction; measured once per run.
    ///
    /// # Errors
    /// When `pgbench` fails.
    pub async fn order_yardstick(&mut self, progress: &Progress) -> Result<Option<Rate>, BenchError> {
        if self.order_yardstick.is_none() {
            self.order_yardstick = figures::create::yardstick(self, progress).await?;
        }
        Ok(self.order_yardstick)
    }
}

/// The wanted figures, and before them those that they are relative to, in the order of their numbers, each once.
fn with_foundations(wanted: &[u8]) -> Vec<u8> {
    let rests_on = |number: &u8| match number {
        4 => Some(3),
        5 | 10 | 11 => Some(2),
        _ => None,
    };
    let all: BTreeSet<u8> = wanted.iter().copied().chain(wanted.iter().filter_map(rests_on)).collect();
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_figure_rests_on_is_measured_before_it_and_reported_too() {
        assert_eq!(with_foundations(&[11, 4, 5]), [2, 3, 4, 5, 11]);
        assert_eq!(with_foundations(&[1, 2, 2]), [1, 2]);
    }
}
