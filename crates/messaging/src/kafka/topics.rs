//! Topics: whether they exist, and creating them; whether anybody answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::Producer as _;

use super::error::{broker_error, topic_error};
use super::options::RECORD_OVERHEAD_BYTES;
use super::producer::Producer;
use super::{KafkaOptions, blocking};
use crate::broker::{BrokerError, TopicSpec, max_record_bytes};

/// For one question about the cluster; it includes connecting.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// For readiness: a broker that needs longer is of no use now.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// For the controller to create topics.
const CREATE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a new topic may take until all brokers know it, and how often they are asked.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(10);
const VISIBLE_POLL: Duration = Duration::from_millis(20);

/// The brokers' own default of replicas.
const DEFAULT_REPLICATION: i32 = -1;

/// The brokers' own limit on a batch of records.
const DEFAULT_MAX_BATCH_BYTES: usize = 1_048_588;

/// Creates what is missing; looks first, because not everybody who may use a topic may create it.
pub(super) async fn ensure(producer: Arc<Producer>, options: &KafkaOptions, topics: &[TopicSpec]) -> Result<(), BrokerError> {
    if let Some(topic) = topics.iter().find(|topic| topic.partitions < 1) {
        return Err(BrokerError::rejected(format!("topic `{}` without partitions", topic.name)));
    }
    let names: Vec<_> = topics.iter().map(|topic| topic.name.clone()).collect();
    let missing = missing(Arc::clone(&producer), names).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let specs: Vec<_> = topics.iter().filter(|topic| missing.contains(&topic.name)).cloned().collect();
    create(options, specs).await?;
    wait_until_visible(producer, missing).await
}

/// # Errors
/// [`BrokerError::UnknownTopic`] if one of them does not exist.
pub(super) async fn require(producer: Arc<Producer>, topics: &[String]) -> Result<(), BrokerError> {
    match missing(producer, topics.to_vec()).await?.into_iter().next() {
        Some(topic) => Err(BrokerError::UnknownTopic { topic }),
        None => Ok(()),
    }
}

/// Whether the cluster answers. About `topic` if there is one: all topics of a large cluster are a long answer.
pub(super) async fn ping(producer: Arc<Producer>, topic: Option<String>) -> Result<(), BrokerError> {
    blocking(move || {
        let metadata = producer.client().fetch_metadata(topic.as_deref(), PING_TIMEOUT).map_err(broker_error)?;
        if metadata.brokers().is_empty() { Err(BrokerError::unavailable("the cluster has no broker")) } else { Ok(()) }
    })
    .await
}

async fn missing(producer: Arc<Producer>, topics: Vec<String>) -> Result<Vec<String>, BrokerError> {
    blocking(move || {
        let mut missing = Vec::new();
        for topic in topics {
            if !exists(&producer, &topic)? {
                missing.push(topic);
            }
        }
        Ok(missing)
    })
    .await
}

fn exists(producer: &Producer, topic: &str) -> Result<bool, BrokerError> {
    let metadata = producer.client().fetch_metadata(Some(topic), METADATA_TIMEOUT).map_err(broker_error)?;
    let error = metadata.topics().iter().find(|known| known.name() == topic).and_then(MetadataTopic::error);
    match error.map(RDKafkaErrorCode::from) {
        // Leaders may still be being elected.
        None | Some(RDKafkaErrorCode::LeaderNotAvailable) => Ok(true),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(false),
        Some(code) => Err(topic_error(code, topic, 0)),
    }
}

async fn create(options: &KafkaOptions, topics: Vec<TopicSpec>) -> Result<(), BrokerError> {
    let replication = options.replication.unwrap_or(DEFAULT_REPLICATION);
    // Needed so rarely that it has its own short-lived connections.
    let admin: AdminClient<DefaultClientContext> =
        options.admin_config().map_err(BrokerError::rejected)?.create().map_err(broker_error)?;
    let sizes: Vec<_> = topics.iter().map(|topic| max_batch_bytes(&topic.name).to_string()).collect();
    let new = topics.iter().zip(&sizes).map(|(topic, max_bytes)| {
        NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(replication))
            // What is not yet consumed, or is to be read again, is never removed behind anybody's back.
            .set("retention.ms", "-1")
            .set("max.message.bytes", max_bytes)
    });
    let new: Vec<_> = new.collect();
    let how = AdminOptions::new().request_timeout(Some(CREATE_TIMEOUT)).operation_timeout(Some(CREATE_TIMEOUT));
    let answers = admin.create_topics(&new, &how).await.map_err(broker_error);
    drop(new);
    // Its thread takes a moment to end.
    super::drop_aside(admin);
    for answer in answers? {
        match answer {
            // Somebody else was quicker.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(topic_error(code, &topic, 0)),
        }
    }
    Ok(())
}

/// Room for the largest record, and never less than usual.
fn max_batch_bytes(topic: &str) -> usize {
    (max_record_bytes(topic) + RECORD_OVERHEAD_BYTES).max(DEFAULT_MAX_BATCH_BYTES)
}

/// Creating is the controller's work, and the brokers learn of it afterwards.
async fn wait_until_visible(producer: Arc<Producer>, topics: Vec<String>) -> Result<(), BrokerError> {
    let deadline = Instant::now() + VISIBLE_TIMEOUT;
    loop {
        let missing = missing(Arc::clone(&producer), topics.clone()).await?;
        let Some(topic) = missing.into_iter().next() else { return Ok(()) };
        if Instant::now() > deadline {
            return Err(BrokerError::UnknownTopic { topic });
        }
        tokio::time::sleep(VISIBLE_POLL).await;
    }
}
