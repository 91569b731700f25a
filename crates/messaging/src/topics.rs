//! Topics that are created at start, by whoever starts first.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

use crate::broker::{Broker, BrokerError, TopicSpec};

/// Waits between two attempts while the broker is away.
const RETRY_MIN: Duration = Duration::from_millis(200);
/// The longest of these waits: a service is useful soon after its broker.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Creates the topics that are missing, with their dead-letter topics, and waits for a broker that is not there yet, for as long as it takes.
///
/// # Errors
/// What waiting does not cure.
pub async fn create_topics(broker: &dyn Broker, topics: &[TopicSpec]) -> Result<(), BrokerError> {
    let specs: Vec<TopicSpec> = topics.iter().flat_map(|topic| [topic.clone(), topic.dead_letters()]).collect();
    let mut waits =
        ExponentialBuilder::new().with_min_delay(RETRY_MIN).with_max_delay(RETRY_MAX).with_jitter().without_max_times().build();
    loop {
        match broker.ensure_topics(&specs).await {
            Err(error) if error.is_transient() => tracing::warn!(%error, "waiting for the broker to create topics"),
            result => return result,
        }
        tokio::time::sleep(waits.next().unwrap_or(RETRY_MAX)).await;
    }
}
