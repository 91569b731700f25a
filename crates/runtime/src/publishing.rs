//! What every service does to publish: create the topics that it writes to, and send what stands in its outbox.

use std::sync::Arc;

use database::Database;
use messaging::{Broker, Gate, OutboxTable, Relay, RelayHandle, RelayOptions, Sweeper, SweeperOptions, TopicSpec, create_topics};

use crate::stage::Stage;

/// Creates the topics as soon as the broker is there: until then rows wait in the outbox.
pub fn start_creating_topics(broker: &Arc<dyn Broker>, topics: Vec<TopicSpec>, stage: &Stage) {
    let (broker, token) = (Arc::clone(broker), stage.token());
    stage.spawn("topics", async move {
        if let Some(Err(error)) = token.run_until_cancelled(create_topics(&*broker, &topics)).await {
            tracing::error!(%error, "the broker refuses the topics");
        }
    });
}

/// Starts the relay of an outbox and its sweeper, each behind its gate.
pub fn start_publishing(
    database: &Database,
    outbox: OutboxTable,
    broker: &Arc<dyn Broker>,
    stage: &Stage,
    [relay_gate, sweeper_gate]: [Gate; 2],
) -> RelayHandle {
    let options = RelayOptions::default();
    let (relay, task) = Relay::start(database.clone(), outbox, Arc::clone(broker), options, stage.token(), relay_gate);
    stage.adopt("relay", task);
    let sweeper = Sweeper::new(database.clone(), outbox, Arc::clone(broker), SweeperOptions::default());
    stage.adopt("sweeper", sweeper.start(stage.token(), sweeper_gate));
    relay
}
