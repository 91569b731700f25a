//! One member of a group.
//!
//! Each partition has a queue of its own, filled by librdkafka in the background up to a bound, so a partition that is
//! held stops nothing else and is simply not read. What was handed back waits in front of its queue.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::BytesMut;
use futures_util::{FutureExt as _, StreamExt as _};
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::consumer::{CommitMode, Consumer as _, MessageStream, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use super::drop_aside;
use super::error::{broker_error, is_refusal};
use super::lag::LagProbe;
use super::membership::{Change, Membership, list};
use crate::broker::{Batch, BrokerError, Consumer, TopicPartition};
use crate::message::{Delivery, header};

type Client = StreamConsumer<Membership>;

/// Payload bytes after which a batch takes no further record: large records must not add up to more memory than a
/// process has.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Events of the group and errors that are dealt with before the partitions have their turn again.
const MAX_EVENTS_IN_A_ROW: usize = 100;

/// For committing the last offsets and saying good-bye. Longer than the session timeout, after which the group has
/// noticed anyway.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long of it a rebalance may hold up that commit, and how often it is tried.
const COMMIT_PATIENCE: Duration = Duration::from_secs(3);
const COMMIT_RETRY: Duration = Duration::from_millis(50);

/// Default of librdkafka's `max.poll.interval.ms`.
const MAX_POLL: Duration = Duration::from_secs(300);

/// Unique in this process, so that a batch is never taken for one of another consumer.
static ASSIGNMENTS: AtomicU64 = AtomicU64::new(1);

pub(super) struct KafkaConsumer {
    /// `None` only while being dropped.
    client: Option<Arc<Client>>,
    partitions: Vec<Partition>,
    /// Where the next look begins, so that partitions take turns.
    turn: usize,
    /// When the group was last served. Whoever does not do that for `max_poll` is thrown out, and not always told
    /// before it is served again.
    polled: Instant,
    max_poll: Duration,
    lag: LagProbe,
}

struct Partition {
    queue: StreamPartitionQueue<Membership>,
    state: State,
}

struct State {
    source: TopicPartition,
    assignment: u64,
    held: bool,
    /// Handed back, or received outside the queue: older than what is in it.
    waiting: VecDeque<Delivery>,
    /// Came behind deliveries that had to be handed out first.
    failure: Option<BrokerError>,
}

enum Next {
    Batch(Batch),
    Rebalance,
}

impl KafkaConsumer {
    pub(super) fn join(config: &ClientConfig, topics: &[String], lag: LagProbe) -> Result<Self, BrokerError> {
        let client: Client = config.create_with_context(Membership::default()).map_err(broker_error)?;
        let names: Vec<_> = topics.iter().map(String::as_str).collect();
        client.subscribe(&names).map_err(broker_error)?;
        let max_poll =
            config.get("max.poll.interval.ms").and_then(|text| text.parse().ok()).map_or(MAX_POLL, Duration::from_millis);
        Ok(Self { client: Some(Arc::new(client)), partitions: Vec::new(), turn: 0, polled: Instant::now(), max_poll, lag })
    }

    fn client(&self) -> Result<&Arc<Client>, BrokerError> {
        self.client.as_ref().ok_or(BrokerError::Closed)
    }

    /// Until there is a batch or the partitions change. Nothing is awaited after something was taken, so a caller that
    /// stops waiting loses nothing.
    async fn next(&mut self, max: usize) -> Result<Next, BrokerError> {
        let client = self.client.as_ref().ok_or(BrokerError::Closed)?;
        let membership = client.context();
        let mut events = client.stream();
        let (turn, polled) = (&mut self.turn, &mut self.polled);
        let mut lanes: Vec<_> = self
            .partitions
            .iter_mut()
            .map(|partition| Lane { stream: partition.queue.stream(), state: &mut partition.state })
            .collect();
        poll_fn(move |context| {
            *polled = Instant::now();
            poll_events(&mut events, &mut lanes, context)?;
            if membership.has_changes() {
                return Poll::Ready(Ok(Next::Rebalance));
            }
            let count = lanes.len();
            for index in (0..count).map(|step| (*turn + step) % count) {
                if let Some(batch) = lanes[index].poll_batch(max.max(1), context)? {
                    *turn = index + 1;
                    return Poll::Ready(Ok(Next::Batch(batch)));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// A batch that is handed out, for the lag.
    fn seen(&self, batch: Batch) -> Batch {
        self.lag.positions.seen(&batch.source, batch.deliveries[0].offset);
        batch
    }

    fn follow_rebalance(&mut self) -> Result<(), BrokerError> {
        let client = Arc::clone(self.client()?);
        for change in client.context().take_changes() {
            match change {
                Change::Revoked(gone) => {
                    self.partitions.retain(|partition| !gone.contains(&partition.state.source));
                    gone.iter().for_each(|partition| self.lag.forget(partition));
                }
                Change::Assigned(new) => self.take_over(&client, new)?,
            }
        }
        Ok(())
    }

    fn take_over(&mut self, client: &Arc<Client>, new: Vec<TopicPartition>) -> Result<(), BrokerError> {
        tracing::info!(partitions = %list(&new), "partitions assigned");
        let mut assigned = TopicPartitionList::with_capacity(new.len());
        for source in new {
            // An old queue's end would silence a new one of the same partition.
            self.partitions.retain(|partition| partition.state.source != source);
            let queue = client
                .split_partition_queue(&source.topic, source.partition)
                .ok_or_else(|| BrokerError::rejected(format!("{source} has no queue")))?;
            assigned.add_partition(&source.topic, source.partition);
            let assignment = ASSIGNMENTS.fetch_add(1, Ordering::Relaxed);
            let state = State { source, assignment, held: false, waiting: VecDeque::new(), failure: None };
            self.partitions.push(Partition { queue, state });
        }
        client.incremental_assign(&assigned).map_err(broker_error)
    }

    /// The batch's partition, if it is still the one of its assignment.
    fn assigned(&mut self, batch: &Batch) -> Option<&mut State> {
        self.partitions
            .iter_mut()
            .map(|partition| &mut partition.state)
            .find(|state| state.source == batch.source && state.assignment == batch.assignment)
    }

    fn take_client(&mut self) -> Option<Arc<Client>> {
        let client = self.client.take()?;
        client.context().leave();
        self.partitions.clear();
        Some(client)
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn next_batch(&mut self, max: usize) -> Result<Batch, BrokerError> {
        loop {
            match self.next(max).await? {
                Next::Batch(batch) => return Ok(self.seen(batch)),
                Next::Rebalance => self.follow_rebalance()?,
            }
        }
    }

    async fn ready_batch(&mut self, max: usize) -> Result<Option<Batch>, BrokerError> {
        match self.next(max).now_or_never().transpose()? {
            Some(Next::Batch(batch)) => Ok(Some(self.seen(batch))),
            // The next wait follows it: it is not lost by not being followed here.
            Some(Next::Rebalance) | None => Ok(None),
        }
    }

    async fn store(&mut self, batch: &Batch, done: usize) -> Result<(), BrokerError> {
        let lost = || BrokerError::PartitionLost(batch.source.clone());
        self.assigned(batch).ok_or_else(lost)?;
        let client = self.client()?;
        // Thrown out of the group, and not yet told so by a poll.
        if client.assignment_lost() || self.polled.elapsed() >= self.max_poll {
            return Err(lost());
        }
        let Some(last) = done.checked_sub(1).and_then(|last| batch.deliveries.get(last)) else { return Ok(()) };
        let mut offsets = TopicPartitionList::with_capacity(1);
        offsets
            .add_partition_offset(&batch.source.topic, batch.source.partition, Offset::Offset(last.offset + 1))
            .map_err(broker_error)?;
        client.store_offsets(&offsets).map_err(|error| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::State | RDKafkaErrorCode::UnknownPartition) => lost(),
            _ => broker_error(error),
        })?;
        self.lag.positions.done(&batch.source, last.offset + 1);
        Ok(())
    }

    async fn hold(&mut self, batch: &Batch, from: usize) -> Result<(), BrokerError> {
        if let Some(state) = self.assigned(batch) {
            state.held = true;
            for delivery in batch.deliveries.iter().skip(from).rev() {
                state.waiting.push_front(delivery.clone());
            }
        }
        Ok(())
    }

    async fn resume(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        if let Some(held) = self.partitions.iter_mut().find(|known| known.state.source == *partition) {
            held.state.held = false;
        }
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<(), BrokerError> {
        let client = self.take_client().ok_or(BrokerError::Closed)?;
        let (done, answer) = tokio::sync::oneshot::channel();
        let leaving = std::thread::Builder::new().name("kafka-close".to_owned()).spawn(move || {
            let committed = commit(&client);
            drop(client);
            let _ = done.send(committed);
        });
        leaving.map_err(BrokerError::unavailable)?;
        match tokio::time::timeout(CLOSE_TIMEOUT, answer).await {
            Ok(Ok(committed)) => committed,
            Ok(Err(gone)) => Err(BrokerError::unavailable(gone)),
            // It goes on in the background for as long as the process lives.
            Err(_) => Err(BrokerError::unavailable(format!("the group did not answer within {CLOSE_TIMEOUT:?}"))),
        }
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        if let Some(client) = self.take_client() {
            drop_aside(client);
        }
    }
}

/// Blocks. In the middle of a rebalance nothing can be committed for a moment, and whoever leaves then should not have
/// its work done again.
fn commit(client: &Client) -> Result<(), BrokerError> {
    let deadline = Instant::now() + COMMIT_PATIENCE;
    loop {
        let Err(error) = client.commit_consumer_state(CommitMode::Sync) else { return Ok(()) };
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::NoOffset) => return Ok(()),
            Some(RDKafkaErrorCode::IllegalGeneration | RDKafkaErrorCode::RebalanceInProgress) if Instant::now() < deadline => {
                std::thread::sleep(COMMIT_RETRY);
            }
            _ => return Err(broker_error(error)),
        }
    }
}

struct Lane<'a> {
    stream: MessageStream<'a, Membership>,
    state: &'a mut State,
}

impl Lane<'_> {
    fn poll_batch(&mut self, max: usize, context: &mut Context<'_>) -> Result<Option<Batch>, BrokerError> {
        if self.state.held {
            return Ok(None);
        }
        let mut deliveries = Vec::new();
        let mut bytes = 0;
        while deliveries.len() < max && bytes < MAX_BATCH_BYTES {
            let Some(delivery) = self.poll_delivery(context) else { break };
            bytes += delivery.payload.len();
            deliveries.push(delivery);
        }
        if deliveries.is_empty() {
            return self.state.failure.take().map_or(Ok(None), Err);
        }
        let (source, assignment) = (self.state.source.clone(), self.state.assignment);
        Ok(Some(Batch { source, deliveries, assignment, end_offset: None }))
    }

    fn poll_delivery(&mut self, context: &mut Context<'_>) -> Option<Delivery> {
        if let Some(delivery) = self.state.waiting.pop_front() {
            return Some(delivery);
        }
        while self.state.failure.is_none() {
            match self.stream.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(message))) => return Some(delivery(&message)),
                Poll::Ready(Some(Err(error))) => self.state.failure = check(error).err(),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        None
    }
}

/// Serves the group: rebalances (collected by [`Membership`]), errors, and records that got past their queue.
fn poll_events(
    events: &mut MessageStream<'_, Membership>,
    lanes: &mut [Lane<'_>],
    context: &mut Context<'_>,
) -> Result<(), BrokerError> {
    for _ in 0..MAX_EVENTS_IN_A_ROW {
        match events.poll_next_unpin(context) {
            Poll::Ready(Some(Ok(message))) => {
                let delivery = delivery(&message);
                let of = |state: &State| state.source.partition == delivery.partition && state.source.topic == delivery.topic;
                if let Some(lane) = lanes.iter_mut().find(|lane| of(lane.state)) {
                    lane.state.waiting.push_back(delivery);
                }
            }
            Poll::Ready(Some(Err(error))) => check(error)?,
            Poll::Ready(None) => return Err(BrokerError::Closed),
            Poll::Pending => return Ok(()),
        }
    }
    // There may be more.
    context.waker().wake_by_ref();
    Ok(())
}

/// Passing faults are librdkafka's to ride out. An error means that a new consumer is needed, or somebody's help.
fn check(error: KafkaError) -> Result<(), BrokerError> {
    match (&error, error.rdkafka_error_code()) {
        (KafkaError::MessageConsumptionFatal(_), _) => Err(BrokerError::unavailable(error)),
        // Whoever joins again creates it again.
        (_, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {
            Err(BrokerError::unavailable(error))
        }
        (_, Some(code)) if is_refusal(code) => Err(BrokerError::rejected(error)),
        _ => {
            tracing::debug!(%error, "consuming goes on");
            Ok(())
        }
    }
}

/// All bytes are copied out of librdkafka in one piece: from a backlog a consumer takes tens of thousands of messages per second, and a piece of memory
/// for each short value would be most of that work.
fn delivery(message: &BorrowedMessage<'_>) -> Delivery {
    let headers = headers(message);
    let (key, payload) = (message.key(), message.payload().unwrap_or_default());
    let value_bytes: usize = headers.iter().map(|header| header.value.unwrap_or_default().len()).sum();
    let mut copy = BytesMut::with_capacity(key.map_or(0, <[u8]>::len) + value_bytes + payload.len());
    let mut copied = |bytes: &[u8]| {
        copy.extend_from_slice(bytes);
        copy.split().freeze()
    };
    Delivery {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        key: key.map(&mut copied),
        headers: headers.iter().map(|header| (header_name(header.key), copied(header.value.unwrap_or_default()))).collect(),
        // A tombstone is a message without a payload; whether that means anything is the handler's business.
        payload: copied(payload),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
    }
}

/// Names that nearly every message has are not allocated again for each.
fn header_name(name: &str) -> Cow<'static, str> {
    let known = header::ALL.into_iter().find(|known| *known == name);
    known.map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed)
}

/// Headers whose names are not UTF-8 are left out: rdkafka panics on them, and one odd message must not end a consumer.
fn headers<'a>(message: &'a BorrowedMessage<'_>) -> Vec<Header<'a, &'a [u8]>> {
    let Some(headers) = message.headers() else { return Vec::new() };
    let read = |index| catch_unwind(AssertUnwindSafe(|| headers.try_get(index))).ok().flatten();
    (0..headers.count()).filter_map(read).collect()
}
