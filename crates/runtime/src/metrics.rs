//! Metrics for Prometheus, as a route of the service's own server.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Bounds in seconds of histograms whose name ends in `_seconds`: from a fast statement to a
/// client's patience.
const SECONDS: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Bounds of histograms that count what is in a batch.
const SIZES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

/// How names of histograms end, by what they measure. One that ends otherwise would be exported as quantiles, which cannot be added up over replicas.
const BUCKETS: [(&str, &[f64]); 5] =
    [("_seconds", SECONDS), ("_size", SIZES), ("_rows", SIZES), ("_deliveries", SIZES), ("_records", SIZES)];

/// How often recorded samples are folded into the histograms. Between two times they take memory
/// per sample.
const UPKEEP: Duration = Duration::from_secs(5);

/// The process's recorder.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder behind the macros of the crate `metrics`, and a task that keeps its
    /// memory bounded. Once per process, inside of the runtime.
    ///
    /// # Errors
    ///
    /// When a recorder is installed already.
    pub fn install() -> Result<Self, BuildError> {
        let handle = builder()?.install_recorder()?;
        let upkeep = handle.clone();
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(UPKEEP);
            loop {
                interval.tick().await;
                upkeep.run_upkeep();
            }
        });
        Ok(Self { handle })
    }

    /// The current values in Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// `GET /metrics`.
    pub fn router(&self) -> Router {
        let metrics = self.clone();
        let answer = move || {
            let text = metrics.render();
            async move { ([(http::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
        };
        Router::new().route("/metrics", get(answer))
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    BUCKETS.into_iter().try_fold(PrometheusBuilder::new(), |builder, (ending, bounds)| {
        builder.set_buckets_for_metric(Matcher::Suffix(ending.to_owned()), bounds)
    })
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_of_replicas_can_be_added_up() {
        let recorder = builder().unwrap().build_recorder();
        let names = [
            "orders_batch_size",
            "messaging_publish_batch_rows",
            "messaging_consumer_batch_deliveries",
            "messaging_log_commit_records",
        ];
        metrics::with_local_recorder(&recorder, || {
            for name in names {
                metrics::histogram!(name).record(3.0);
            }
        });
        let text = recorder.handle().render();
        for name in names {
            assert!(text.contains(&format!("{name}_bucket{{le=\"5\"}} 1")), "{name} has no buckets: {text}");
        }
    }
}
