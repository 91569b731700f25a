//! The one writer of the log: collects what waits, assigns offsets, commits, answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use database::DatabaseError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::log::{Log, Offsets, Placed, Prepared, insert_records_batch, insert_topics, storage, write_offsets_batch};
use super::retention;
use crate::broker::{BrokerError, TopicSpec};

type Answer = oneshot::Sender<Result<(), BrokerError>>;

pub(super) enum Command {
    Append {
        records: Vec<Prepared>,
        done: Answer,
    },
    CreateTopics {
        topics: Vec<TopicSpec>,
        done: Answer,
    },
    /// Write everything that was handed over before, stored offsets included.
    Flush {
        done: Answer,
    },
    /// The same, and then nothing more.
    Close {
        done: Answer,
    },
}

/// Records after which a commit collects no more commands: some ten milliseconds of work.
const MAX_COMMIT_RECORDS: usize = 2_000;

/// The same for bytes: large records must not add up to more memory than a process has.
const MAX_COMMIT_BYTES: usize = 16 * 1024 * 1024;

/// How long stored offsets wait for an append to ride along with. A crash in between delivers again what is harmless to
/// deliver again, and a commit of their own would cost every batch a disk flush.
const OFFSETS_WAIT: Duration = Duration::from_millis(20);

/// How often old records are looked for, if there is a retention.
const PRUNE_EVERY: Duration = Duration::from_secs(10);

/// How soon again when one round was not enough. In between publishers have their turn.
const PRUNE_EVERY_BUSY: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    log: Arc<Log>,
    queue: mpsc::Receiver<Command>,
    retention: Option<Duration>,
    /// When stored offsets are written at the latest.
    offsets_due: Option<Instant>,
    prune_at: Instant,
    /// The heads may differ from the file.
    heads_in_doubt: bool,
}

/// What one transaction is to do.
#[derive(Default)]
struct Work {
    appends: Vec<(Vec<Prepared>, Answer)>,
    records: usize,
    bytes: usize,
    flushes: Vec<Answer>,
    close: bool,
}

impl Writer {
    pub(super) fn new(log: Arc<Log>, queue: mpsc::Receiver<Command>, retention: Option<Duration>) -> Self {
        let prune_at = Instant::now() + PRUNE_EVERY;
        Self { log, queue, retention, offsets_due: None, prune_at, heads_in_doubt: false }
    }

    /// Until it is closed, or every handle is gone.
    pub(super) async fn run(mut self) {
        let log = Arc::clone(&self.log);
        loop {
            let offsets_due = self.offsets_due;
            let first = tokio::select! {
                // Pruning first, or a broker that is always busy would never do it; it bounds itself.
                biased;
                () = tokio::time::sleep_until(self.prune_at), if self.retention.is_some() => {
                    self.prune().await;
                    continue;
                }
                command = self.queue.recv() => command,
                () = sleep_until(offsets_due), if offsets_due.is_some() => {
                    self.commit(Work::default()).await;
                    continue;
                }
                () = log.offsets_stored.notified(), if offsets_due.is_none() => {
                    self.offsets_due = Some(Instant::now() + OFFSETS_WAIT);
                    continue;
                }
            };
            let Some(first) = first else { break };
            if self.work_on(first).await {
                break;
            }
        }
        self.queue.close();
        // What was sent before the channel closed is still written, and what cannot be is answered by being dropped.
        while let Some(command) = self.queue.recv().await {
            self.work_on(command).await;
        }
        self.commit(Work::default()).await;
        drop(self);
        log.wake_consumers();
    }

    /// Collects what waits behind `first`, bounded, and commits it together. Answers whether to close.
    async fn work_on(&mut self, first: Command) -> bool {
        let mut work = Work::default();
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Append { records, done } => {
                    work.records += records.len();
                    work.bytes += records.iter().map(|record| record.payload.len() + record.headers.len()).sum::<usize>();
                    work.appends.push((records, done));
                }
                Command::Flush { done } => work.flushes.push(done),
                Command::Close { done } => {
                    work.flushes.push(done);
                    work.close = true;
                    break;
                }
                Command::CreateTopics { topics, done } => {
                    let _ = done.send(self.create_topics(topics).await);
                }
            }
            let full = work.records >= MAX_COMMIT_RECORDS || work.bytes >= MAX_COMMIT_BYTES;
            next = if full { None } else { self.queue.try_recv().ok() };
        }
        let close = work.close;
        self.commit(work).await;
        close
    }

    /// One transaction for all of it. A failure is everybody's answer; offsets are kept for the next time.
    async fn commit(&mut self, work: Work) {
        self.offsets_due = None;
        let offsets = self.log.take_offsets();
        let (appends, answers): (Vec<_>, Vec<_>) = work.appends.into_iter().unzip();
        let result = if appends.is_empty() && offsets.is_empty() {
            Ok(())
        } else {
            self.write(appends.into_iter().flatten().collect(), Arc::new(offsets)).await
        };
        if let Err(error) = &result {
            tracing::warn!(%error, "the embedded broker could not write");
        }
        // A caller that went away does not need its answer.
        for answer in answers.into_iter().chain(work.flushes) {
            let _ = answer.send(result.clone());
        }
    }

    async fn write(&mut self, records: Vec<Prepared>, offsets: Arc<Offsets>) -> Result<(), BrokerError> {
        let outcome = match self.confirm_heads().await {
            Ok(()) => self.insert(records, Arc::clone(&offsets)).await,
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            self.log.put_back_offsets(Arc::unwrap_or_clone(offsets));
            self.offsets_due = Some(Instant::now() + OFFSETS_WAIT.max(crate::embedded::consumer::POLL));
        }
        outcome
    }

    async fn insert(&mut self, records: Vec<Prepared>, offsets: Arc<Offsets>) -> Result<(), BrokerError> {
        let count = records.len();
        let (placed, heads) = place(records);
        let inserting = self.log.db.transaction("append to log", move |tx| {
            Box::pin(async move {
                insert_records_batch(tx, &placed).await?;
                write_offsets_batch(tx, &offsets).await?;
                Ok::<_, DatabaseError>(placed)
            })
        });
        let placed = inserting.await.map_err(|error| {
            self.heads_in_doubt = true;
            storage(error)
        })?;
        for (index, next_offset) in heads {
            let record = &placed[index].record;
            record.topic.set_head(record.partition, next_offset);
        }
        if count > 0 {
            metrics::histogram!("messaging_log_commit_records").record(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
            self.log.wake_consumers();
        }
        Ok(())
    }

    /// After a failed write, whose outcome may be unknown: offsets must neither be given twice nor leave holes.
    async fn confirm_heads(&mut self) -> Result<(), BrokerError> {
        if self.heads_in_doubt {
            self.log.reload_heads().await?;
            self.heads_in_doubt = false;
            self.log.wake_consumers();
        }
        Ok(())
    }

    async fn create_topics(&self, topics: Vec<TopicSpec>) -> Result<(), BrokerError> {
        if let Some(topic) = topics.iter().find(|topic| topic.partitions < 1) {
            return Err(BrokerError::rejected(format!("topic `{}` without partitions", topic.name)));
        }
        let inserting = self.log.db.transaction("create topics", move |tx| {
            Box::pin(async move {
                insert_topics(tx, &topics).await?;
                Ok::<_, DatabaseError>(topics)
            })
        });
        let topics = inserting.await.map_err(storage)?;
        self.log.add_topics(&topics);
        Ok(())
    }

    async fn prune(&mut self) {
        self.prune_at = Instant::now() + PRUNE_EVERY;
        let Some(retention) = self.retention else { return };
        match retention::prune(&self.log, retention).await {
            Ok(true) => self.prune_at = Instant::now() + PRUNE_EVERY_BUSY,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "could not prune the log; later again"),
        }
    }
}

/// Gives each record the next offset of its partition. The second answer has, for each partition, the index of one of
/// its records and its new head.
fn place(records: Vec<Prepared>) -> (Vec<Placed>, Vec<(usize, i64)>) {
    let mut heads: HashMap<(*const u8, i32), (usize, i64)> = HashMap::new();
    let mut placed = Vec::with_capacity(records.len());
    for (index, record) in records.into_iter().enumerate() {
        // A topic exists once in memory, so its address is its identity.
        let key = (Arc::as_ptr(&record.topic).cast::<u8>(), record.partition);
        let (_, next_offset) = heads.entry(key).or_insert_with(|| (index, record.topic.head(record.partition)));
        let offset = *next_offset;
        *next_offset += 1;
        placed.push(Placed { record, offset });
    }
    (placed, heads.into_values().collect())
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
