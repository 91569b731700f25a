//! Publishing: one idempotent producer, one bounded queue, one answer per record.
//!
//! Calls take turns at handing their records over, in the order in which they were first polled, so that records of one
//! key keep that order even when the queue is full. Waiting for the answers is then done side by side.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message as _};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use super::error::{broker_error, topic_error};
use super::{KafkaOptionsError, log};
use crate::broker::{BrokerError, max_record_bytes};
use crate::message::Record;

/// Bytes of records that may wait for their acknowledgement. A second of a fast broker; beyond it whoever publishes
/// waits.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// What a record takes in librdkafka besides its own bytes, roughly: many small records must not take more memory than
/// few large ones.
const RECORD_MEMORY_BYTES: usize = 512;

pub(super) type Producer = BaseProducer<Answering>;

/// Reports end a wait at once. So this is only how long a producer outlives its last user.
const POLL: Duration = Duration::from_secs(2);

pub(super) struct Publisher {
    config: ClientConfig,
    delivery_timeout: Duration,
    producer: Mutex<Arc<Producer>>,
    turn: tokio::sync::Mutex<()>,
    room: Arc<Semaphore>,
}

impl Publisher {
    /// # Errors
    /// If the settings cannot work.
    pub(super) fn start(config: ClientConfig, delivery_timeout: Duration) -> Result<Self, KafkaOptionsError> {
        let room = Arc::new(Semaphore::new(QUEUE_BYTES));
        let producer = create(&config, &room).map_err(|error| KafkaOptionsError::invalid(&error))?;
        let producer = Mutex::new(producer);
        Ok(Self { config, delivery_timeout, producer, turn: tokio::sync::Mutex::new(()), room })
    }

    /// The producer; a new one if the old one gave up. librdkafka gives up for good when it can no longer tell what the
    /// broker has of it. What the old one had is answered with errors, and published again by its owners.
    ///
    /// # Errors
    /// If there is no making a new one now.
    pub(super) fn producer(&self) -> Result<Arc<Producer>, BrokerError> {
        let mut current = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((error, reason)) = current.client().fatal_error() else { return Ok(Arc::clone(&current)) };
        tracing::warn!(%error, reason, "the Kafka producer gave up; starting a new one");
        let fresh = create(&self.config, &self.room).map_err(broker_error)?;
        *current = Arc::clone(&fresh);
        Ok(fresh)
    }

    pub(super) async fn publish(&self, records: &[Record]) -> Vec<Result<(), BrokerError>> {
        if records.is_empty() {
            return Vec::new();
        }
        let call = Arc::new(Call::of(records.len()));
        let turn = self.turn.lock().await;
        let producer = match self.producer() {
            Ok(producer) => producer,
            Err(error) => return records.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut full = None;
        for (index, record) in records.iter().enumerate() {
            let admitted = match &full {
                None => self.admit(record).await,
                Some(error) => Err(BrokerError::clone(error)),
            };
            match admitted {
                Ok(permit) => hand_over(&producer, record, permit, &call, index),
                Err(error) => {
                    // Once is enough: the next record would wait as long again.
                    full = full.or_else(|| error.is_transient().then(|| error.clone()));
                    call.answer(index, Err(error));
                }
            }
        }
        drop(turn);
        // The producer lives until the last answer, even if the broker is dropped meanwhile.
        let answers = call.answered().await;
        drop(producer);
        answers
    }

    /// Waits for room in the queue.
    async fn admit(&self, record: &Record) -> Result<SemaphorePermit<'_>, BrokerError> {
        let (size_bytes, max_bytes) = (record.size_bytes(), max_record_bytes(&record.topic));
        if size_bytes > max_bytes {
            return Err(BrokerError::RecordTooLarge { topic: record.topic.clone(), size_bytes, max_bytes });
        }
        let cost = u32::try_from(size_bytes + RECORD_MEMORY_BYTES).unwrap_or(u32::MAX);
        match tokio::time::timeout(self.delivery_timeout, self.room.acquire_many(cost)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(closed)) => Err(BrokerError::unavailable(closed)),
            Err(_) => Err(BrokerError::unavailable(format!(
                "{QUEUE_BYTES} bytes of records have been waiting for Kafka for {:?}",
                self.delivery_timeout
            ))),
        }
    }
}

/// A producer, and a thread that takes its delivery reports until nobody else has it, and then destroys it.
///
/// In place of rdkafka's `ThreadedProducer`: librdkafka counts in milliseconds, so the last part of a millisecond of each poll is spent
/// spinning, and that one polls ten times a second, for ever.
fn create(config: &ClientConfig, room: &Arc<Semaphore>) -> Result<Arc<Producer>, KafkaError> {
    let producer: Producer = config.create_with_context(Answering { room: Arc::clone(room) })?;
    let producer = Arc::new(producer);
    let polled = Arc::clone(&producer);
    let poll = move || {
        while Arc::strong_count(&polled) > 1 {
            polled.poll(POLL);
        }
    };
    let thread = std::thread::Builder::new().name("kafka-producer".to_owned()).spawn(poll);
    thread.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
    Ok(producer)
}

fn hand_over(producer: &Producer, record: &Record, permit: SemaphorePermit<'_>, call: &Arc<Call>, index: usize) {
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for (key, value) in record.headers.iter() {
        headers = headers.insert(Header { key, value: Some(&value[..]) });
    }
    let handed = Box::new(Handed { call: Arc::clone(call), index, cost: permit.num_permits(), size_bytes: record.size_bytes() });
    let message = BaseRecord::with_opaque_to(&record.topic, handed)
        .key(record.key.as_bytes())
        .payload(&record.payload[..])
        .headers(headers);
    match producer.send(message) {
        // Given back by the delivery report.
        Ok(()) => permit.forget(),
        Err((error, message)) => message.delivery_opaque.answer(&error, &record.topic),
    }
}

/// One publish call.
struct Call {
    answers: Mutex<Vec<Result<(), BrokerError>>>,
    left: AtomicUsize,
    done: Notify,
}

impl Call {
    fn of(records: usize) -> Self {
        Self { answers: Mutex::new(vec![Ok(()); records]), left: AtomicUsize::new(records), done: Notify::new() }
    }

    /// Once per record.
    fn answer(&self, index: usize, answer: Result<(), BrokerError>) {
        if answer.is_err() {
            self.answers.lock().unwrap_or_else(PoisonError::into_inner)[index] = answer;
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    async fn answered(&self) -> Vec<Result<(), BrokerError>> {
        self.done.notified().await;
        std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What librdkafka carries along with a record.
pub(super) struct Handed {
    call: Arc<Call>,
    index: usize,
    cost: usize,
    size_bytes: usize,
}

impl Handed {
    fn answer(&self, error: &KafkaError, topic: &str) {
        let error = match error.rdkafka_error_code() {
            Some(code) => topic_error(code, topic, self.size_bytes),
            None => broker_error(error.clone()),
        };
        self.call.answer(self.index, Err(error));
    }
}

/// Takes the delivery reports.
pub(super) struct Answering {
    room: Arc<Semaphore>,
}

impl ProducerContext for Answering {
    type DeliveryOpaque = Box<Handed>;

    fn delivery(&self, result: &DeliveryResult<'_>, handed: Box<Handed>) {
        self.room.add_permits(handed.cost);
        match result {
            Ok(_) => handed.call.answer(handed.index, Ok(())),
            // The purge of a producer that is being dropped; nobody is waiting then.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight), _)) => {
                handed.call.answer(handed.index, Err(BrokerError::Closed));
            }
            Err((error, message)) => handed.answer(error, message.topic()),
        }
    }
}

impl ClientContext for Answering {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log::report(&error, reason);
    }
}
