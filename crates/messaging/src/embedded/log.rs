//! What the writer and the consumers share: the heads of the partitions in memory, and the log's SQL.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use database::{Database, DatabaseError};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, QueryResult, Statement, Value};
use tokio::sync::{Notify, watch};

use super::Seek;
use crate::broker::{BrokerError, TopicPartition, TopicSpec};
use crate::message::{Delivery, Headers};
use crate::sql::bigint;

/// A topic and, per partition, the offset that the next record gets. Only the writer moves it, after its commit.
pub(super) struct Topic {
    pub(super) name: String,
    heads: Vec<AtomicI64>,
}

impl Topic {
    fn new(name: String, heads: Vec<i64>) -> Self {
        Self { name, heads: heads.into_iter().map(AtomicI64::new).collect() }
    }

    pub(super) fn partitions(&self) -> i32 {
        i32::try_from(self.heads.len()).unwrap_or(i32::MAX)
    }

    pub(super) fn head(&self, partition: i32) -> i64 {
        self.slot(partition).map_or(0, |head| head.load(Ordering::Acquire))
    }

    pub(super) fn set_head(&self, partition: i32, next_offset: i64) {
        if let Some(head) = self.slot(partition) {
            head.store(next_offset, Ordering::Release);
        }
    }

    fn slot(&self, partition: i32) -> Option<&AtomicI64> {
        self.heads.get(usize::try_from(partition).ok()?)
    }
}

/// A record that was checked and has its partition.
pub(super) struct Prepared {
    pub(super) topic: Arc<Topic>,
    pub(super) partition: i32,
    pub(super) key: String,
    pub(super) headers: String,
    pub(super) payload: Bytes,
}

/// Stored offsets by group and partition; at most one entry for each that exists.
pub(super) type Offsets = HashMap<(String, TopicPartition), i64>;

#[derive(Default)]
struct State {
    topics: HashMap<String, Arc<Topic>>,
    /// Groups that have a consumer.
    groups: HashSet<String>,
    /// Stored by consumers and not yet written.
    offsets: Offsets,
    /// Where running consumers are to move, by group; taken by them. What they store meanwhile does not count.
    seeks: HashMap<String, HashMap<TopicPartition, i64>>,
}

pub(super) struct Log {
    pub(super) db: Database,
    state: Mutex<State>,
    /// Bumped after each commit, each seek and the end: look again.
    pub(super) changed: watch::Sender<u64>,
    /// Offsets were stored: write them soon.
    pub(super) offsets_stored: Notify,
    assignments: AtomicU64,
}

impl Log {
    pub(super) async fn open(db: Database) -> Result<Self, BrokerError> {
        let mut topics = HashMap::new();
        let sql = "SELECT topic, partitions FROM log_topics";
        for row in query(&db, sql, []).await? {
            let name: String = get(&row, 0)?;
            let mut heads = Vec::new();
            for partition in 0..get::<i32>(&row, 1)? {
                heads.push(head(&db, &name, partition).await?);
            }
            topics.insert(name.clone(), Arc::new(Topic::new(name, heads)));
        }
        Ok(Self {
            db,
            state: Mutex::new(State { topics, ..State::default() }),
            changed: watch::Sender::new(0),
            offsets_stored: Notify::new(),
            assignments: AtomicU64::new(0),
        })
    }

    /// Never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake_consumers(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    pub(super) fn topic(&self, name: &str) -> Result<Arc<Topic>, BrokerError> {
        let topic = self.state().topics.get(name).cloned();
        topic.ok_or_else(|| BrokerError::UnknownTopic { topic: name.to_owned() })
    }

    pub(super) fn add_topics(&self, specs: &[TopicSpec]) {
        let mut state = self.state();
        for spec in specs {
            let heads = vec![0; usize::try_from(spec.partitions).unwrap_or(0)];
            let topic = || Arc::new(Topic::new(spec.name.clone(), heads));
            state.topics.entry(spec.name.clone()).or_insert_with(topic);
        }
    }

    /// After a commit whose outcome is unknown: what the file says.
    pub(super) async fn reload_heads(&self) -> Result<(), BrokerError> {
        let topics: Vec<_> = self.state().topics.values().cloned().collect();
        for topic in topics {
            for partition in 0..topic.partitions() {
                topic.set_head(partition, head(&self.db, &topic.name, partition).await?);
            }
        }
        Ok(())
    }

    pub(super) fn join(self: &Arc<Self>, group: &str) -> Result<Membership, BrokerError> {
        if !self.state().groups.insert(group.to_owned()) {
            return Err(BrokerError::GroupInUse { group: group.to_owned() });
        }
        Ok(Membership { log: Arc::clone(self), group: group.to_owned() })
    }

    pub(super) fn take_offsets(&self) -> Offsets {
        std::mem::take(&mut self.state().offsets)
    }

    /// After a failed write; newer ones win.
    pub(super) fn put_back_offsets(&self, offsets: Offsets) {
        let mut state = self.state();
        for (key, next_offset) in offsets {
            state.offsets.entry(key).or_insert(next_offset);
        }
    }

    pub(super) fn seek(&self, group: &str, topic: &str, to: Seek) -> Result<(), BrokerError> {
        let found = self.topic(topic)?;
        let place = |partition| {
            let next_offset = if to == Seek::Start { 0 } else { found.head(partition) };
            (TopicPartition { topic: topic.to_owned(), partition }, next_offset)
        };
        let places: Vec<_> = (0..found.partitions()).map(place).collect();
        let mut state = self.state();
        let stored = places.iter().map(|(partition, offset)| ((group.to_owned(), partition.clone()), *offset));
        state.offsets.extend(stored);
        if state.groups.contains(group) {
            state.seeks.entry(group.to_owned()).or_default().extend(places);
        }
        drop(state);
        self.wake_consumers();
        Ok(())
    }

    pub(super) async fn ping(&self) -> Result<(), BrokerError> {
        self.db.ping().await.map_err(storage)
    }

    /// The group's stored offset, or 0.
    pub(super) async fn stored_offset(&self, group: &str, partition: &TopicPartition) -> Result<i64, BrokerError> {
        let sql = "SELECT next_offset FROM log_offsets WHERE group_name = $1 AND topic = $2 AND partition = $3";
        let values = [group.into(), partition.topic.as_str().into(), partition.partition.into()];
        let rows = query(&self.db, sql, values).await?;
        rows.first().map_or(Ok(0), |row| get(row, 0))
    }

    /// Records of one partition from `from` on: at most `max` of them, and no more than `max_bytes` of payload beyond
    /// the first one. Records removed by retention are skipped.
    pub(super) async fn read_batch(
        &self,
        partition: &TopicPartition,
        from: i64,
        max: usize,
        max_bytes: usize,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let sql = r#"
            SELECT "offset", message_key, headers, payload, appended_at_ms FROM (
                SELECT *, SUM(LENGTH(payload)) OVER (ORDER BY "offset") - LENGTH(payload) AS bytes_before FROM (
                    SELECT "offset", message_key, headers, payload, appended_at_ms FROM log_records
                    WHERE topic = $1 AND partition = $2 AND "offset" >= $3 ORDER BY "offset" LIMIT $4
                )
            ) WHERE bytes_before <= $5 ORDER BY "offset""#;
        let values = [partition.topic.as_str().into(), partition.partition.into(), from.into(), bigint(max), bigint(max_bytes)];
        let rows = query(&self.db, sql, values).await?;
        rows.iter().map(|row| delivery(partition, row)).collect()
    }
}

fn delivery(source: &TopicPartition, row: &QueryResult) -> Result<Delivery, BrokerError> {
    let headers: String = get(row, 2)?;
    let headers: Headers = serde_json::from_str(&headers).map_err(BrokerError::rejected)?;
    Ok(Delivery {
        topic: source.topic.clone(),
        partition: source.partition,
        offset: get(row, 0)?,
        key: Some(get::<String>(row, 1)?.into()),
        headers,
        payload: get::<Vec<u8>>(row, 3)?.into(),
        timestamp_ms: get(row, 4)?,
    })
}

/// One consumer's membership of its group; the group is free again when it is dropped.
pub(super) struct Membership {
    pub(super) log: Arc<Log>,
    pub(super) group: String,
}

impl Membership {
    /// A number that no partition was assigned under before.
    pub(super) fn new_assignment(&self) -> u64 {
        self.log.assignments.fetch_add(1, Ordering::Relaxed)
    }

    /// Where to move, if that was asked for since the last call.
    pub(super) fn take_seeks(&self) -> HashMap<TopicPartition, i64> {
        self.log.state().seeks.remove(&self.group).unwrap_or_default()
    }

    /// Answers false, and stores nothing, for a partition that is to be moved.
    pub(super) fn store(&self, partition: &TopicPartition, next_offset: i64) -> bool {
        let mut state = self.log.state();
        if state.seeks.get(&self.group).is_some_and(|seeks| seeks.contains_key(partition)) {
            return false;
        }
        state.offsets.insert((self.group.clone(), partition.clone()), next_offset);
        drop(state);
        self.log.offsets_stored.notify_one();
        true
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.log.state();
        state.groups.remove(&self.group);
        state.seeks.remove(&self.group);
    }
}

/// The offset that the partition's next record gets.
async fn head(db: &Database, topic: &str, partition: i32) -> Result<i64, BrokerError> {
    let sql = r#"SELECT COALESCE(MAX("offset") + 1, 0) FROM log_records WHERE topic = $1 AND partition = $2"#;
    let rows = query(db, sql, [topic.into(), partition.into()]).await?;
    rows.first().map_or(Ok(0), |row| get(row, 0))
}

pub(super) async fn query<const N: usize>(db: &Database, sql: &str, values: [Value; N]) -> Result<Vec<QueryResult>, BrokerError> {
    let statement = Statement::from_sql_and_values(DbBackend::Sqlite, sql, values);
    db.reader().query_all_raw(statement).await.map_err(|error| storage(error.into()))
}

pub(super) fn get<T: sea_orm::TryGetable>(row: &QueryResult, index: usize) -> Result<T, BrokerError> {
    row.try_get_by_index(index).map_err(|error| storage(error.into()))
}

/// Whatever the file's trouble is, the broker is not available until it is over; nothing about a record causes it.
pub(super) fn storage(error: DatabaseError) -> BrokerError {
    BrokerError::unavailable(error)
}

/// A record with its place.
pub(super) struct Placed {
    pub(super) record: Prepared,
    pub(super) offset: i64,
}

/// Rows per statement, largest first: few texts to prepare, and few statements for many rows.
const ROWS_PER_INSERT: [usize; 3] = [64, 8, 1];

pub(super) async fn insert_records_batch(tx: &DatabaseTransaction, records: &[Placed]) -> Result<(), DbErr> {
    let mut rest = records;
    for rows in ROWS_PER_INSERT {
        while rest.len() >= rows {
            let (now, later) = rest.split_at(rows);
            tx.execute_raw(insert_records(now)).await?;
            rest = later;
        }
    }
    Ok(())
}

fn insert_records(records: &[Placed]) -> Statement {
    let now = database::now_ms_sql(DbBackend::Sqlite);
    let row = format!("(?, ?, ?, ?, ?, ?, {now})");
    let sql = format!(
        r#"INSERT INTO log_records (topic, partition, "offset", message_key, headers, payload, appended_at_ms) VALUES {}"#,
        vec![row.as_str(); records.len()].join(", ")
    );
    let values = records.iter().flat_map(|placed| {
        let record = &placed.record;
        [
            record.topic.name.as_str().into(),
            record.partition.into(),
            placed.offset.into(),
            record.key.as_str().into(),
            record.headers.as_str().into(),
            record.payload.to_vec().into(),
        ]
    });
    Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)
}

pub(super) async fn write_offsets_batch(tx: &DatabaseTransaction, offsets: &Offsets) -> Result<(), DbErr> {
    for ((group, partition), next_offset) in offsets {
        let sql = "INSERT INTO log_offsets (group_name, topic, partition, next_offset) VALUES ($1, $2, $3, $4)
                   ON CONFLICT (group_name, topic, partition) DO UPDATE SET next_offset = excluded.next_offset";
        let values = [group.as_str().into(), partition.topic.as_str().into(), partition.partition.into(), (*next_offset).into()];
        tx.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)).await?;
    }
    Ok(())
}

pub(super) async fn insert_topics(tx: &DatabaseTransaction, topics: &[TopicSpec]) -> Result<(), DbErr> {
    for topic in topics {
        let sql = "INSERT INTO log_topics (topic, partitions) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let values = [topic.name.as_str().into(), topic.partitions.into()];
        tx.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)).await?;
    }
    Ok(())
}
