//! What makes a service ready: its database and its broker have answered, and messages are consumed.
//!
//! Afterwards only the database decides, and a consumer that has stopped. A broker that goes away is no reason to take replicas out of service,
//! as it would do to all of them at once: orders are accepted and accounts are served without it, and payments follow when it is back. The
//! service is then degraded.

use std::{sync::Arc, time::Duration};

use database::Database;
use messaging::{Broker, ConsumerHandle, ConsumerStatus};
use tokio_util::sync::CancellationToken;

use crate::health::{Health, HealthCheck};

/// Between two looks at the database and the broker: a load balancer learns of an outage within the time of a client's retry.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// How long an answer may take: whoever looks shall not see "ready" for as long as others wait for a connection.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The checks, all of them not ready yet: so that a service that is starting says what it waits for.
#[derive(Debug, Clone)]
pub struct Checks {
    /// Whether the database answers; whoever connects says what it waits for.
    pub database: HealthCheck,
    broker: HealthCheck,
    consumer: HealthCheck,
}

impl Checks {
    /// Adds the three checks to `health`.
    pub fn new(health: &Health) -> Self {
        Self { database: health.check("database"), broker: health.check("broker"), consumer: health.check("consumer") }
    }
}

/// Keeps the checks up to date until `stop`.
pub async fn keep_health(
    checks: Checks,
    database: Database,
    broker: Arc<dyn Broker>,
    consumer: ConsumerHandle,
    stop: CancellationToken,
) {
    let probes = futures_util::future::join3(
        probe(checks.database, HealthCheck::not_ready, move || {
            let database = database.clone();
            async move { database.ping().await.map_err(|error| error.to_string()) }
        }),
        probe(checks.broker, HealthCheck::degraded, move || {
            let broker = Arc::clone(&broker);
            async move { broker.ping().await.map_err(|error| error.to_string()) }
        }),
        follow(checks.consumer, consumer),
    );
    stop.run_until_cancelled(probes).await;
}

/// `away` says what it means that there is no answer.
async fn probe<F>(check: HealthCheck, away: impl Fn(&HealthCheck, String), ping: impl Fn() -> F)
where
    F: Future<Output = Result<(), String>>,
{
    loop {
        match tokio::time::timeout(PROBE_TIMEOUT, ping()).await {
            Ok(Ok(())) => check.ready(),
            Ok(Err(error)) => away(&check, error),
            Err(_) => away(&check, format!("no answer within {} s", PROBE_TIMEOUT.as_secs())),
        }
        tokio::time::sleep(PROBE_EVERY).await;
    }
}

async fn follow(check: HealthCheck, consumer: ConsumerHandle) {
    let mut status = consumer.watch();
    loop {
        match &*status.borrow_and_update() {
            ConsumerStatus::Running => check.ready(),
            ConsumerStatus::Starting { waiting_for } => check.degraded(waiting_for.as_deref().unwrap_or("starting")),
            // It needs a person; whoever looks only at load balancers shall see it.
            ConsumerStatus::Stopped { reason } => check.not_ready(format!("stopped: {reason}")),
            ConsumerStatus::Finished => check.not_ready("finished"),
        }
        if status.changed().await.is_err() {
            // The loop has ended; if it did not say so, it died.
            check.not_ready("ended");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_answer_is_soon_not_ready() {
        let health = Health::new();
        let check = health.check("database");
        check.ready();
        let silent = probe(check, HealthCheck::not_ready, std::future::pending);
        let _ = tokio::time::timeout(PROBE_TIMEOUT + Duration::from_millis(1), silent).await;
        assert!(!health.is_ready());
    }
}
