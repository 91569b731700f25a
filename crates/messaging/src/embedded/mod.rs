//! A durable broker in one process: an append-only log in a SQLite file of its own.
//!
//! What holds:
//!
//! * A publish is acknowledged after the commit that made it durable. Publishes that wait at the same time share one
//!   commit, so that the disk, not the number of callers, sets the pace.
//! * Offsets per partition have no holes and are assigned in the order of commits, by the one writer.
//! * A consumer starts at its group's stored offset, at the earliest record where there is none. Stored offsets ride
//!   along with the next commit, so a crash delivers the last few milliseconds again.
//! * Consumers are woken in process after a commit. They register for the wake-up before they look.
//! * Keys go to partitions as in Kafka's Java client.
//!
//! Deliberately absent: more than one consumer per group, rebalancing, other processes. It is the default for one
//! process, not a second Kafka.

mod consumer;
mod log;
mod partitioner;
mod retention;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use database::Database;
use tokio::sync::{mpsc, oneshot};

use crate::broker::{Broker, BrokerError, Consumer, TopicSpec, max_record_bytes};
use crate::message::Record;
use consumer::EmbeddedConsumer;
use log::{Log, Prepared};
use writer::{Command, Writer};

/// How the embedded broker behaves.
#[derive(Clone, Debug, Default)]
pub struct EmbeddedOptions {
    /// Records older than this that every group of their topic is done with are removed, in bounded batches, except
    /// the last one of a partition. `None`, the default, keeps everything.
    pub retention: Option<Duration>,
}

/// Commands that may wait for the writer. Each carries at most [`MAX_COMMAND_RECORDS`]; whoever publishes beyond that
/// waits, which is what limits memory.
const WRITER_QUEUE: usize = 256;

/// A larger publish call is cut into several commands, so that one caller cannot make a commit arbitrarily large.
const MAX_COMMAND_RECORDS: usize = 500;

/// The broker. Cheap to clone; all clones are the same broker.
#[derive(Clone)]
pub struct EmbeddedBroker {
    log: Arc<Log>,
    commands: mpsc::Sender<Command>,
}

/// Where to move a group to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// Everything is delivered again.
    Start,
    /// Nothing that is there now is delivered (again).
    End,
}

impl EmbeddedBroker {
    /// Opens the log in `db`, which has been migrated with the log's migrations and is used by nothing else.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn open(db: Database, options: EmbeddedOptions) -> Result<Self, BrokerError> {
        let log = Arc::new(Log::open(db).await?);
        let (commands, queue) = mpsc::channel(WRITER_QUEUE);
        tokio::spawn(Writer::new(Arc::clone(&log), queue, options.retention).run());
        Ok(Self { log, commands })
    }

    /// Writes what was handed over, stored offsets included, and closes for good. The database stays open; it is the
    /// caller's.
    ///
    /// # Errors
    /// If the last offsets could not be written: those deliveries come again.
    pub async fn close(&self) -> Result<(), BrokerError> {
        let result = self.ask(|done| Command::Close { done }).await;
        match result {
            Err(BrokerError::Closed) => Ok(()),
            result => result,
        }
    }

    /// Moves a group within a topic, for an operator or a test, whether or not its consumer is running.
    ///
    /// # Errors
    /// If the topic does not exist or the offsets cannot be written.
    pub async fn seek_group(&self, group: &str, topic: &str, to: Seek) -> Result<(), BrokerError> {
        self.log.seek(group, topic, to)?;
        self.ask(|done| Command::Flush { done }).await
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<Result<(), BrokerError>>) -> Command) -> Result<(), BrokerError> {
        ask(&self.commands, command).await
    }

    /// Checks a record and finds its partition.
    fn prepare(&self, record: &Record) -> Result<Prepared, BrokerError> {
        let (size_bytes, max_bytes) = (record.size_bytes(), max_record_bytes(&record.topic));
        if size_bytes > max_bytes {
            return Err(BrokerError::RecordTooLarge { topic: record.topic.clone(), size_bytes, max_bytes });
        }
        let topic = self.log.topic(&record.topic)?;
        let headers = serde_json::to_string(&record.headers).map_err(BrokerError::rejected)?;
        Ok(Prepared {
            partition: partitioner::partition_of(record.key.as_bytes(), topic.partitions()),
            topic,
            key: record.key.clone(),
            headers,
            payload: record.payload.clone(),
        })
    }
}

/// Sends a command to the writer and waits for its answer.
async fn ask<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<Result<T, BrokerError>>) -> Command,
) -> Result<T, BrokerError> {
    let (done, answer) = oneshot::channel();
    commands.send(command(done)).await.map_err(|_| BrokerError::Closed)?;
    answer.await.unwrap_or(Err(BrokerError::Closed))
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BrokerError> {
        let missing: Vec<_> = topics.iter().filter(|spec| self.log.topic(&spec.name).is_err()).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.ask(|done| Command::CreateTopics { topics: missing, done }).await
    }

    async fn publish(&self, records: &[Record]) -> Vec<Result<(), BrokerError>> {
        // What cannot be written is answered here; the rest keeps its place in the answer.
        let mut answers: Vec<Result<(), BrokerError>> = Vec::with_capacity(records.len());
        let mut prepared = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            match self.prepare(record) {
                Ok(record) => {
                    prepared.push((index, record));
                    answers.push(Err(BrokerError::Closed));
                }
                Err(error) => answers.push(Err(error)),
            }
        }
        let mut waiting = Vec::new();
        while !prepared.is_empty() {
            let rest = prepared.split_off(prepared.len().min(MAX_COMMAND_RECORDS));
            let (indices, records): (Vec<_>, Vec<_>) = std::mem::replace(&mut prepared, rest).into_iter().unzip();
            let (done, answer) = oneshot::channel();
            if self.commands.send(Command::Append { records, done }).await.is_err() {
                break;
            }
            waiting.push((indices, answer));
        }
        for (indices, answer) in waiting {
            let result = answer.await.unwrap_or(Err(BrokerError::Closed));
            for index in indices {
                answers[index].clone_from(&result);
            }
        }
        answers
    }

    async fn consumer(&self, group: &str, topics: &[String]) -> Result<Box<dyn Consumer>, BrokerError> {
        let membership = self.log.join(group)?;
        // What the group's last consumer stored may still wait to be written.
        self.ask(|done| Command::Flush { done }).await?;
        let consumer = EmbeddedConsumer::start(membership, self.commands.clone(), topics).await?;
        Ok(Box::new(consumer))
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        if self.commands.is_closed() {
            return Err(BrokerError::Closed);
        }
        self.log.ping().await
    }
}
