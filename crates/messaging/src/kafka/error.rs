//! What went wrong, sorted into what trying again may cure and what it does not.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::broker::{BrokerError, max_record_bytes};

/// For calls that have no topic.
pub(super) fn broker_error(error: KafkaError) -> BrokerError {
    let refused = error.rdkafka_error_code().is_some_and(is_refusal)
        || matches!(error, KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Nul(_));
    if refused { BrokerError::rejected(error) } else { BrokerError::unavailable(error) }
}

/// For one record, or one topic.
pub(super) fn topic_error(code: Code, topic: &str, size_bytes: usize) -> BrokerError {
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            BrokerError::UnknownTopic { topic: topic.to_owned() }
        }
        Code::MessageSizeTooLarge => {
            BrokerError::RecordTooLarge { topic: topic.to_owned(), size_bytes, max_bytes: max_record_bytes(topic) }
        }
        code if is_refusal(code) => BrokerError::rejected(code),
        code => BrokerError::unavailable(code),
    }
}

/// Whether somebody has to change something first. Everything else passes: connections, elections, overload.
pub(super) fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::ClusterAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::InconsistentGroupProtocol
            | Code::InvalidArgument
            | Code::InvalidConfig
            | Code::InvalidGroupId
            | Code::InvalidPartitions
            | Code::InvalidRecord
            | Code::InvalidRequest
            | Code::InvalidTimestamp
            | Code::InvalidTopic
            | Code::PolicyViolation
            | Code::SaslAuthenticationFailed
            | Code::SecurityDisabled
            | Code::TopicAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::UnsupportedForMessageFormat
            | Code::UnsupportedSASLMechanism
            | Code::UnsupportedVersion
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_told_from_what_does_not() {
        for code in [Code::BrokerTransportFailure, Code::MessageTimedOut, Code::NotEnoughReplicas, Code::QueueFull, Code::Fatal] {
            assert!(topic_error(code, "t", 1).is_transient(), "{code}");
        }
        assert!(!topic_error(Code::TopicAuthorizationFailed, "t", 1).is_transient());
        assert!(matches!(topic_error(Code::UnknownTopic, "t", 1), BrokerError::UnknownTopic { topic } if topic == "t"));
        assert!(matches!(topic_error(Code::MessageSizeTooLarge, "t", 7), BrokerError::RecordTooLarge { size_bytes: 7, .. }));
        assert!(broker_error(KafkaError::MetadataFetch(Code::OperationTimedOut)).is_transient());
        assert!(!broker_error(KafkaError::ClientCreation("no".to_owned())).is_transient());
    }
}
