//! Command-line settings of the broker, shared by the services.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use messaging::{Broker, broker::DEFAULT_PARTITIONS};

use crate::{
    service_settings::{given, is_host_and_port, missing},
    settings::{SettingError, value_or_file},
};

/// How to reach the broker, and what its topics are like.
#[derive(Args, Clone)]
pub struct BrokerArgs {
    /// Kafka's brokers: host:port, separated by commas.
    #[arg(long, env = "KAFKA_BROKERS", value_name = "HOST:PORT,…")]
    kafka_brokers: Option<String>,
    /// How to talk to them: plaintext, ssl, sasl_plaintext or sasl_ssl.
    #[arg(long, env = "KAFKA_SECURITY_PROTOCOL", value_name = "PROTOCOL", default_value = "plaintext")]
    kafka_security_protocol: String,
    /// How to sign in, with the sasl_ protocols: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    #[arg(long, env = "KAFKA_SASL_MECHANISM", value_name = "MECHANISM")]
    kafka_sasl_mechanism: Option<String>,
    /// Who signs in.
    #[arg(long, env = "KAFKA_SASL_USERNAME", value_name = "NAME")]
    kafka_sasl_username: Option<String>,
    /// With which password.
    #[arg(long, env = "KAFKA_SASL_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    kafka_sasl_password: Option<String>,
    /// A file that contains the password.
    #[arg(long, env = "KAFKA_SASL_PASSWORD_FILE", value_name = "FILE")]
    kafka_sasl_password_file: Option<PathBuf>,
    /// Certificates of the authorities that are trusted, with the ssl protocols; the system's own when not given.
    #[arg(long, env = "KAFKA_CA_FILE", value_name = "FILE")]
    kafka_ca_file: Option<PathBuf>,
    /// Partitions of topics that are created here: the largest number of replicas that work at the same time. 1 to 1000.
    #[arg(long, env = "KAFKA_PARTITIONS", value_name = "NUMBER", default_value_t = DEFAULT_PARTITIONS.to_string())]
    kafka_partitions: String,
    /// Copies of topics that are created here, 1 to 100; what the brokers have as their default when not given.
    #[arg(long, env = "KAFKA_REPLICATION", value_name = "NUMBER")]
    kafka_replication: Option<String>,
    /// Stands in front of the names of all topics and consumer groups, to keep environments apart on one Kafka.
    #[arg(long, env = "TOPIC_PREFIX", value_name = "PREFIX", default_value = "", hide_default_value = true)]
    topic_prefix: String,
}

impl std::fmt::Debug for BrokerArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerArgs")
            .field("kafka_brokers", &self.kafka_brokers)
            .field("kafka_security_protocol", &self.kafka_security_protocol)
            .field("kafka_sasl_mechanism", &self.kafka_sasl_mechanism)
            .field("kafka_sasl_username", &self.kafka_sasl_username)
            .field("kafka_sasl_password", &self.kafka_sasl_password.as_ref().map(|_| "(secret)"))
            .field("kafka_sasl_password_file", &self.kafka_sasl_password_file)
            .field("kafka_ca_file", &self.kafka_ca_file)
            .field("kafka_partitions", &self.kafka_partitions)
            .field("kafka_replication", &self.kafka_replication)
            .field("topic_prefix", &self.topic_prefix)
            .finish()
    }
}

/// Kafka allows 249 characters for a topic; what is left is more than any topic's own name with `.dlq` needs.
const TOPIC_PREFIX_MAX_CHARS: usize = 200;

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum NoBroker {
    /// A setting.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The build.
    #[cfg(not(feature = "kafka"))]
    #[error("KAFKA_BROKERS is set, but Kafka is not in this build: build it with the feature `kafka`")]
    NotInThisBuild,
    /// Settings that do not fit each other or this build.
    #[cfg(feature = "kafka")]
    #[error(transparent)]
    Kafka(#[from] messaging::kafka::KafkaOptionsError),
}

impl BrokerArgs {
    /// Prepares Kafka's clients; they connect by themselves when it is there.
    ///
    /// # Errors
    ///
    /// [`NoBroker`]: a setting that is missing or cannot be used.
    pub fn broker(&self, client_id: &str) -> Result<Arc<dyn Broker>, NoBroker> {
        let brokers = self.kafka_brokers()?;
        let (properties, replication) = (self.properties()?, self.replication()?);
        kafka(&brokers, client_id, properties, replication)
    }

    /// Checks everything that [`BrokerArgs::broker`] and the topics need.
    ///
    /// # Errors
    ///
    /// The first setting that is missing or cannot be used.
    pub fn check(&self) -> Result<(), SettingError> {
        self.kafka_brokers()?;
        self.properties()?;
        self.replication()?;
        self.partitions()?;
        self.topic_prefix().map(drop)
    }

    /// The prefix; may be empty.
    ///
    /// # Errors
    ///
    /// When Kafka would not take it in a topic's name.
    pub fn topic_prefix(&self) -> Result<&str, SettingError> {
        let prefix = self.topic_prefix.as_str();
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if prefix.chars().all(legal) && prefix.len() <= TOPIC_PREFIX_MAX_CHARS {
            return Ok(prefix);
        }
        let allowed = format!("at most {TOPIC_PREFIX_MAX_CHARS} letters, digits, points, underscores and hyphens");
        Err(SettingError::invalid("TOPIC_PREFIX", prefix, allowed))
    }

    /// Partitions of topics that are created here.
    ///
    /// # Errors
    ///
    /// When it is no number from 1 to 1000.
    pub fn partitions(&self) -> Result<i32, SettingError> {
        number("KAFKA_PARTITIONS", &self.kafka_partitions, 1_000)
    }

    fn replication(&self) -> Result<Option<i32>, SettingError> {
        given(self.kafka_replication.as_deref()).map(|text| number("KAFKA_REPLICATION", text, 100)).transpose()
    }

    fn kafka_brokers(&self) -> Result<String, SettingError> {
        let allowed = "host:port, several of them separated by commas";
        let text = given(self.kafka_brokers.as_deref()).ok_or_else(|| {
            missing(
                "KAFKA_BROKERS",
                "host:port of Kafka's brokers; to run everything in one process without Kafka, start `tandem`",
            )
        })?;
        if text.split(',').all(|broker| is_host_and_port(broker.trim())) {
            return Ok(text.to_owned());
        }
        Err(SettingError::invalid("KAFKA_BROKERS", text, allowed))
    }

    /// librdkafka's names of the settings, and their values.
    fn properties(&self) -> Result<Vec<(&'static str, String)>, SettingError> {
        let protocol = one_of(
            "KAFKA_SECURITY_PROTOCOL",
            &self.kafka_security_protocol,
            &["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"],
        )?;
        let mut properties = vec![("security.protocol", protocol.clone())];
        if protocol.starts_with("sasl_") {
            properties.extend(self.sasl()?);
        }
        if let Some(path) = &self.kafka_ca_file {
            properties.push(("ssl.ca.location", path.display().to_string()));
        }
        Ok(properties)
    }

    fn sasl(&self) -> Result<[(&'static str, String); 3], SettingError> {
        let mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
        let mechanism = given(self.kafka_sasl_mechanism.as_deref())
            .ok_or_else(|| missing("KAFKA_SASL_MECHANISM", &mechanisms.join(" or ")))?;
        let mechanism = one_of("KAFKA_SASL_MECHANISM", mechanism, &mechanisms)?;
        let user = given(self.kafka_sasl_username.as_deref()).ok_or_else(|| missing("KAFKA_SASL_USERNAME", "who signs in"))?;
        let value = given(self.kafka_sasl_password.as_deref()).map(str::to_owned);
        let file = self.kafka_sasl_password_file.as_deref();
        let password = value_or_file("KAFKA_SASL_PASSWORD", value, file)?
            .ok_or_else(|| missing("KAFKA_SASL_PASSWORD", "the password, or KAFKA_SASL_PASSWORD_FILE a file of it"))?;
        Ok([("sasl.mechanism", mechanism), ("sasl.username", user.to_owned()), ("sasl.password", password)])
    }
}

#[cfg(feature = "kafka")]
fn kafka(
    brokers: &str,
    client_id: &str,
    properties: Vec<(&'static str, String)>,
    replication: Option<i32>,
) -> Result<Arc<dyn Broker>, NoBroker> {
    use messaging::kafka::{KafkaBroker, KafkaOptions};
    let mut options = KafkaOptions::new(brokers);
    client_id.clone_into(&mut options.client_id);
    options.replication = replication;
    for (name, value) in properties {
        options = options.with_property(name, value);
    }
    Ok(Arc::new(KafkaBroker::new(options)?))
}

#[cfg(not(feature = "kafka"))]
fn kafka(_: &str, _: &str, _: Vec<(&'static str, String)>, _: Option<i32>) -> Result<Arc<dyn Broker>, NoBroker> {
    Err(NoBroker::NotInThisBuild)
}

fn number(name: &'static str, text: &str, max: i32) -> Result<i32, SettingError> {
    let allowed = || format!("a number from 1 to {max}");
    text.parse().ok().filter(|number| (1..=max).contains(number)).ok_or_else(|| SettingError::invalid(name, text, allowed()))
}

fn one_of(name: &'static str, text: &str, allowed: &[&str]) -> Result<String, SettingError> {
    if allowed.contains(&text) { Ok(text.to_owned()) } else { Err(SettingError::invalid(name, text, allowed.join(", "))) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Everything {
        #[command(flatten)]
        broker: BrokerArgs,
    }

    fn parse(args: &[&str]) -> BrokerArgs {
        Everything::try_parse_from(["test"].iter().chain(args)).unwrap().broker
    }

    #[test]
    fn nothing_and_an_empty_variable_are_the_same() {
        for args in [&[][..], &["--kafka-brokers", ""]] {
            assert!(matches!(parse(args).kafka_brokers(), Err(SettingError::Missing { name: "KAFKA_BROKERS", .. })));
            assert_eq!(parse(args).topic_prefix().unwrap(), "");
            assert_eq!(parse(args).partitions().unwrap(), DEFAULT_PARTITIONS);
        }
    }

    #[test]
    fn every_wrong_value_is_noticed_before_anything_is_started() {
        let check = |args: &[&str]| parse(&[&["--kafka-brokers", "a:9092, b:9093"], args].concat()).check();
        check(&[]).unwrap();
        for text in ["a", "a:", ":9092", "a:9092,", "a:99999", "http://a:9092"] {
            assert!(parse(&["--kafka-brokers", text]).check().is_err(), "{text}");
        }
        for args in [
            ["--topic-prefix", "staging/"],
            ["--kafka-partitions", "0"],
            ["--kafka-partitions", "many"],
            ["--kafka-replication", "101"],
            ["--kafka-security-protocol", "tls"],
            ["--kafka-security-protocol", "sasl_plaintext"],
        ] {
            assert!(check(&args).is_err(), "{args:?}");
        }
        let sasl = ["--kafka-security-protocol", "sasl_ssl", "--kafka-sasl-mechanism", "PLAIN", "--kafka-sasl-username", "ada"];
        assert!(matches!(check(&sasl), Err(SettingError::Missing { name: "KAFKA_SASL_PASSWORD", .. })));
        check(&[&sasl[..], &["--kafka-sasl-password", "hunter2"]].concat()).unwrap();
    }

    #[test]
    fn a_password_is_not_shown() {
        assert!(!format!("{:?}", parse(&["--kafka-sasl-password", "hunter2"])).contains("hunter2"));
    }
}
