//! How to reach Kafka, and the settings that the adapter's promises rest on.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use crate::broker::{DEAD_LETTER_EXTRA_BYTES, MAX_RECORD_BYTES};

/// Default of [`KafkaOptions::delivery_timeout`]: longer than a broker needs to be replaced as a leader.
pub const DEFAULT_DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// What Kafka's format may add to key, headers and payload of the largest record.
pub(super) const RECORD_OVERHEAD_BYTES: usize = 32 * 1024;

/// How to reach Kafka.
#[derive(Clone)]
pub struct KafkaOptions {
    /// `host:port` of some brokers of the cluster; the others are learned from them.
    pub brokers: Vec<String>,
    /// What the brokers' logs and quotas call this process.
    pub client_id: String,
    /// Replicas of topics that are created here; the brokers' default if `None`.
    pub replication: Option<i32>,
    /// How long a record may wait for its acknowledgement, retries included. Later ones are answered with an error.
    pub delivery_timeout: Duration,
    /// Further settings by the names that librdkafka gives them, above all those of `security.protocol`, `sasl.*` and
    /// `ssl.*`. Those that this adapter's promises rest on are refused.
    pub properties: BTreeMap<String, String>,
}

/// Passwords and keys stay out of logs: of the properties, only the names are shown.
impl std::fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .field("replication", &self.replication)
            .field("delivery_timeout", &self.delivery_timeout)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

/// Options that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaOptionsError {
    /// No address.
    #[error("no Kafka broker is named")]
    NoBrokers,
    /// TLS is asked for, and it is not in this build.
    #[error("the Kafka setting `{name}={value}` needs TLS, which is not in this build: build it with the feature `kafka-tls`")]
    TlsNotBuilt {
        /// The property.
        name: String,
        /// Its value.
        value: String,
    },
    /// A property that this adapter sets itself.
    #[error("the Kafka setting `{name}` is not yours to change: what this program promises rests on it")]
    Reserved {
        /// The property.
        name: String,
    },
    /// librdkafka does not take it.
    #[error("the Kafka settings cannot be used: {reason}")]
    Invalid {
        /// What it says.
        reason: String,
    },
}

impl KafkaOptionsError {
    /// A value is never repeated; it may be a password.
    pub(super) fn invalid(error: &KafkaError) -> Self {
        let reason = match error {
            KafkaError::ClientConfig(_, reason, name, _) => format!("`{name}`: {reason}"),
            other => other.to_string(),
        };
        Self::Invalid { reason }
    }
}

impl KafkaOptions {
    /// The defaults, for brokers as in `KAFKA_BROKERS`: addresses separated by commas.
    #[must_use]
    pub fn new(brokers: &str) -> Self {
        let brokers = brokers.split(',').map(str::trim).filter(|broker| !broker.is_empty());
        Self {
            brokers: brokers.map(str::to_owned).collect(),
            client_id: "messaging".to_owned(),
            replication: None,
            delivery_timeout: DEFAULT_DELIVERY_TIMEOUT,
            properties: BTreeMap::new(),
        }
    }

    /// Adds one of [`KafkaOptions::properties`].
    #[must_use]
    pub fn with_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// What every client needs.
    pub(super) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers.join(",")).set("client.id", &self.client_id);
        for (name, value) in CLIENT {
            config.set(*name, *value);
        }
        config
    }

    /// # Errors
    /// If the options cannot work.
    pub(super) fn producer_config(&self) -> Result<ClientConfig, KafkaOptionsError> {
        let mut config = self.client_config();
        for (name, value) in PRODUCER {
            config.set(*name, *value);
        }
        config.set("message.timeout.ms", self.delivery_timeout.as_millis().max(1).to_string());
        let largest = MAX_RECORD_BYTES + DEAD_LETTER_EXTRA_BYTES + RECORD_OVERHEAD_BYTES;
        config.set("message.max.bytes", largest.to_string());
        self.finish(config)
    }

    /// # Errors
    /// If the options cannot work.
    pub(super) fn consumer_config(&self) -> Result<ClientConfig, KafkaOptionsError> {
        let mut config = self.client_config();
        for (name, value) in CONSUMER {
            config.set(*name, *value);
        }
        self.finish(config)
    }

    /// # Errors
    /// If the options cannot work.
    pub(super) fn admin_config(&self) -> Result<ClientConfig, KafkaOptionsError> {
        self.finish(self.client_config())
    }

    fn finish(&self, mut config: ClientConfig) -> Result<ClientConfig, KafkaOptionsError> {
        if self.brokers.is_empty() {
            return Err(KafkaOptionsError::NoBrokers);
        }
        for (name, value) in &self.properties {
            if config.get(name).is_some_and(|_| !CHANGEABLE.contains(&name.as_str())) || RESERVED.contains(&name.as_str()) {
                return Err(KafkaOptionsError::Reserved { name: name.clone() });
            }
            if !cfg!(feature = "kafka-tls") && needs_tls(name, value) {
                return Err(KafkaOptionsError::TlsNotBuilt { name: name.clone(), value: value.clone() });
            }
            config.set(name, value);
        }
        config.create_native_config().map_err(|error| KafkaOptionsError::invalid(&error))?;
        Ok(config)
    }
}

/// In librdkafka, SCRAM and OAUTHBEARER need OpenSSL, too.
fn needs_tls(name: &str, value: &str) -> bool {
    let value = value.to_ascii_uppercase();
    match name {
        "security.protocol" => value == "SSL" || value == "SASL_SSL",
        "sasl.mechanism" | "sasl.mechanisms" => value.starts_with("SCRAM") || value == "OAUTHBEARER",
        _ => false,
    }
}

/// For producers and consumers.
const CLIENT: &[(&str, &str)] = &[
    // The brokers never create topics on their own either; this is for clusters where they would.
    ("allow.auto.create.topics", "false"),
    // A broker that is back should not be noticed ten seconds later.
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    // A host that swallows packets must not count as being connected to for half a minute.
    ("socket.connection.setup.timeout.ms", "5000"),
    ("socket.timeout.ms", "10000"),
    ("socket.keepalive.enable", "true"),
    ("socket.nagle.disable", "true"),
    // Brokers close idle connections all the time.
    ("log.connection.close", "false"),
    // New partitions and topics that were created again are noticed within this time.
    ("topic.metadata.refresh.interval.ms", "10000"),
    ("statistics.interval.ms", "0"),
];

const PRODUCER: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // As in Kafka's Java client, so that a key has one partition whoever writes it.
    ("partitioner", "murmur2_random"),
    // Publish calls bring batches; this lets the few that come together travel together.
    ("linger.ms", "1"),
    // A new topic needs a moment to be known to all brokers; after this time it counts as unknown.
    ("topic.metadata.propagation.max.ms", "2000"),
    // Well below the delivery timeout, so that a broker that died is not waited for all the time.
    ("request.timeout.ms", "10000"),
    // The publisher bounds the queue, in bytes and fairly; 0 is "no limit in records".
    ("queue.buffering.max.messages", "0"),
];

const CONSUMER: &[(&str, &str)] = &[
    // What the consumer loop stores after the database's commit is committed in the background, and before a partition
    // goes to another member.
    ("enable.auto.offset.store", "false"),
    ("enable.auto.commit", "true"),
    // A crash delivers again what was done in this time.
    ("auto.commit.interval.ms", "500"),
    ("auto.offset.reset", "earliest"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    // A member that died is noticed after this time: the least that brokers accept unless configured otherwise.
    ("session.timeout.ms", "6000"),
    ("heartbeat.interval.ms", "1500"),
    // A member that hangs in a batch holds up others that want to join for this time, and is then thrown out. Longer
    // than the few transactions of a batch, unless each of them takes almost as long as the database's timeouts allow.
    ("max.poll.interval.ms", "120000"),
    // Records are sent as soon as there are any; an idle broker waits this long, and so does a partition that is new.
    ("fetch.min.bytes", "1"),
    ("fetch.wait.max.ms", "100"),
    ("fetch.error.backoff.ms", "100"),
    // A group's coordinator that moved is looked for at once; this is for an answer that got lost.
    ("coordinator.query.interval.ms", "10000"),
    // Per partition, what is fetched ahead of the consumer: some batches, bounded in bytes too. A full partition is
    // looked at again soon, because a batch empties it in milliseconds.
    ("queued.min.messages", "20000"),
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.queue.backoff.ms", "10"),
    // Per answer of a broker.
    ("fetch.max.bytes", "16777216"),
    ("enable.partition.eof", "false"),
];

/// Set here, and a matter of taste all the same.
const CHANGEABLE: &[&str] = &[
    "auto.commit.interval.ms",
    "fetch.max.bytes",
    "fetch.wait.max.ms",
    "linger.ms",
    "log.connection.close",
    "max.poll.interval.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.timeout.ms",
    "topic.metadata.refresh.interval.ms",
];

/// Other names of what is set here, and what would break it.
const RESERVED: &[&str] = &[
    "auto.commit.enable",
    "delivery.timeout.ms",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "log.queue",
    "metadata.broker.list",
    "request.required.acks",
    "transactional.id",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, value: &str) -> KafkaOptionsError {
        let options = KafkaOptions::new("localhost:1").with_property(name, value);
        options.producer_config().and(options.consumer_config()).unwrap_err()
    }

    #[cfg(not(feature = "kafka-tls"))]
    #[test]
    fn tls_in_a_build_without_it_is_an_error_that_names_the_feature() {
        for (name, value) in
            [("security.protocol", "SSL"), ("security.protocol", "sasl_ssl"), ("sasl.mechanism", "SCRAM-SHA-512")]
        {
            let error = refused(name, value);
            assert_eq!(error, KafkaOptionsError::TlsNotBuilt { name: name.to_owned(), value: value.to_owned() });
            assert!(error.to_string().contains("kafka-tls"), "{error}");
        }
        let plain = KafkaOptions::new("localhost:1").with_property("security.protocol", "SASL_PLAINTEXT");
        assert!(plain.with_property("sasl.mechanism", "PLAIN").consumer_config().is_ok());
    }

    #[test]
    fn what_the_promises_rest_on_cannot_be_changed() {
        for name in ["enable.idempotence", "acks", "request.required.acks", "enable.auto.offset.store", "partitioner", "group.id"]
        {
            assert_eq!(refused(name, "1"), KafkaOptionsError::Reserved { name: name.to_owned() });
        }
        assert!(KafkaOptions::new("localhost:1").with_property("linger.ms", "2").producer_config().is_ok());
    }

    #[test]
    fn mistakes_are_named_without_repeating_values() {
        assert_eq!(KafkaOptions::new(" , ").producer_config().unwrap_err(), KafkaOptionsError::NoBrokers);
        let error = refused("sasl.pasword", "hunter2").to_string();
        assert!(error.contains("sasl.pasword") && !error.contains("hunter2"), "{error}");
        let options = KafkaOptions::new("a:1, b:2").with_property("sasl.password", "hunter2");
        assert_eq!(options.brokers, ["a:1", "b:2"]);
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    #[test]
    fn every_setting_is_one_that_librdkafka_knows() {
        let options = KafkaOptions::new("localhost:1");
        options.producer_config().unwrap();
        options.consumer_config().unwrap();
    }
}
