//! The outbox: what is to be published, committed together with what it tells about.
//!
//! A row is here until the broker has acknowledged it, whose log then is its durable place. Its `next_attempt_at_ms` says when somebody
//! should (again) take care of it: the process that committed it does so at once, from memory (see [`crate::relay`]);
//! what it did not get done is claimed by a sweeper (see [`crate::sweeper`]). Progress is never a position in the
//! table: ids commit out of order, and a reader that remembers the highest one would skip rows.
//!
//! All statements are set-based with one array parameter per column; their text never varies with the number of rows.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use database::{
    Writes,
    array::{Columns, is_one_of, skip_locked},
};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement};
use uuid::Uuid;

use crate::message::{CloudEvent, Headers, Record};
use crate::sql::{bigint, millis, without_sync};

/// The name of an outbox table. It is written into SQL as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutboxTable(pub &'static str);

impl std::fmt::Display for OutboxTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// How long a new row is left to the process that committed it before sweepers may claim it: far longer than publishing
/// takes, short enough that a crash delays an event by no more than people call "a moment".
pub const FIRST_ATTEMPT_AFTER: Duration = Duration::from_secs(2);

/// One event to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// The row's own key, a UUIDv7.
    pub id: Uuid,
    /// The event's id: what receivers deduplicate by. Several rows may carry the same event.
    pub event_id: Uuid,
    /// Where to.
    pub topic: String,
    /// Which partition's order it belongs to.
    pub key: String,
    /// The event's attributes and whatever else travels, such as `traceparent`.
    pub headers: Headers,
    /// The event's data as JSON.
    pub payload: String,
}

impl OutboxRow {
    /// A row with a key of its own.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "an event is made for one row")]
    pub fn new(topic: impl Into<String>, key: impl Into<String>, event: CloudEvent, payload: String) -> Self {
        Self { id: Uuid::now_v7(), event_id: event.id, topic: topic.into(), key: key.into(), headers: event.headers(), payload }
    }

    /// Adds a header, for example `traceparent`.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) -> Self {
        self.headers.set(name, value);
        self
    }

    /// What is published.
    #[must_use]
    pub fn to_record(&self) -> Record {
        self.clone().into_record()
    }

    /// What is published, without copying it.
    #[must_use]
    pub fn into_record(self) -> Record {
        Record { topic: self.topic, key: self.key, headers: self.headers, payload: self.payload.into() }
    }
}

/// Inserts rows of one topic, due for sweepers after [`FIRST_ATTEMPT_AFTER`] by the database's clock. Hand the same rows to the
/// relay once the transaction is committed.
///
/// # Errors
/// What the database says; the transaction is then to be rolled back.
pub async fn insert_batch<C: ConnectionTrait>(tx: &C, table: OutboxTable, rows: &[OutboxRow]) -> Result<(), DbErr> {
    let Some(first) = rows.first() else { return Ok(()) };
    debug_assert!(rows.iter().all(|row| row.topic == first.topic), "rows of one call go to one topic");
    let backend = tx.get_database_backend();
    let table_of_rows = columns(Columns::new(backend, rows), Some);
    let mut writes = Writes::over("rows", table_of_rows);
    writes.add(insert_from(backend, table, "rows", &first.topic));
    writes.run_in_tx(tx).await?;
    Ok(())
}

/// Adds the columns that [`insert_from`] needs to rows that may come with an outbox row each.
pub fn columns<'a, R>(rows: Columns<'a, R>, outbox: impl Fn(&'a R) -> Option<&'a OutboxRow>) -> Columns<'a, R> {
    rows.opt_uuid("outbox_id", |row| outbox(row).map(|row| row.id))
        .opt_uuid("event_id", |row| outbox(row).map(|row| row.event_id))
        .opt_text("message_key", |row| outbox(row).map(|row| row.key.as_str()))
        .opt_text("headers", |row| outbox(row).map(|row| row.headers.to_json()))
        .opt_text("payload", |row| outbox(row).map(|row| row.payload.as_str()))
}

/// [`insert_batch`] as one of [`Writes`], of the rows in its table `from` (see [`columns`]), all to `topic`.
#[must_use]
pub fn insert_from(backend: DbBackend, table: OutboxTable, from: &str, topic: &str) -> Statement {
    let now = database::now_ms_sql(backend);
    let wait_ms = FIRST_ATTEMPT_AFTER.as_millis();
    let sql = format!(
        "INSERT INTO {table} (id, event_id, topic, message_key, headers, payload, created_at_ms, next_attempt_at_ms)
         SELECT outbox_id, event_id, $1, message_key, headers, payload, (SELECT {now}), (SELECT {now} + {wait_ms})
         FROM {from} WHERE outbox_id IS NOT NULL"
    );
    Statement::from_sql_and_values(backend, sql, [topic.into()])
}

/// What removes acknowledged rows; those that are gone already are no error. A transaction in which it runs does not wait for the disk.
#[must_use]
pub fn remove_batch(backend: DbBackend, table: OutboxTable, ids: &[Uuid]) -> Writes {
    let mut writes = Writes::new(backend);
    // PostgreSQL looks them up in the order of its index, so a relay and a sweeper removing the same rows wait for each other in one order.
    writes.add(Columns::new(backend, ids).uuid("id", |id| *id).statement(|rows| {
        let published = is_one_of(backend, "id", &format!("SELECT r.id FROM {rows} AS r"));
        format!("DELETE FROM {table} WHERE {published} AND {}", without_sync(backend))
    }));
    writes
}

/// When a claimed row is due again.
#[derive(Clone, Copy, Debug)]
pub struct RetrySchedule {
    /// After the first claim; it doubles with each further one.
    pub min: Duration,
    /// The longest interval.
    pub max: Duration,
}

/// Doublings beyond this exceed any sensible [`RetrySchedule::max`] and would overflow at last.
const MAX_DOUBLINGS: u32 = 20;

/// A claimed row.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub(crate) row: OutboxRow,
    /// This claim included.
    pub(crate) attempts: i32,
}

/// Claims up to `limit` due rows, those due longest first, by moving their next attempt forward. To be committed before
/// anything is published: the claim then holds without a lock, and a claimer that dies is replaced when the row is due
/// again. Rows that somebody else is claiming are skipped. The answer is in the order of the rows' ids.
///
/// # Errors
/// What the database says.
pub(crate) async fn claim_due_batch<C: ConnectionTrait>(
    tx: &C,
    table: OutboxTable,
    limit: usize,
    retry: RetrySchedule,
) -> Result<Vec<Claimed>, DbErr> {
    let backend = tx.get_database_backend();
    let now = database::now_ms_sql(backend);
    let (least, shifted) = match backend {
        DbBackend::Postgres => ("LEAST", format!("(CAST($2 AS bigint) << LEAST(o.attempts, {MAX_DOUBLINGS}))")),
        _ => ("MIN", format!("($2 << MIN(o.attempts, {MAX_DOUBLINGS}))")),
    };
    let set = format!("attempts = o.attempts + 1, next_attempt_at_ms = {now} + {least}($3, {shifted})");
    let skip = skip_locked(backend);
    let due = format!("SELECT id FROM {table} WHERE next_attempt_at_ms <= {now} ORDER BY next_attempt_at_ms LIMIT $1 {skip}");
    let sql = format!(
        "UPDATE {table} AS o SET {set} WHERE {}
         RETURNING id, event_id, topic, message_key, headers, payload, attempts",
        is_one_of(backend, "id", &due)
    );
    let values = [bigint(limit), millis(retry.min).into(), millis(retry.max).into()];
    let found = tx.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    let mut rows = Vec::with_capacity(found.len());
    for row in &found {
        rows.extend(claimed(table, row)?);
    }
    rows.sort_unstable_by_key(|claimed| claimed.row.id);
    Ok(rows)
}

/// A row whose headers cannot be read is left out: it must not keep all others from being swept.
fn claimed(table: OutboxTable, row: &QueryResult) -> Result<Option<Claimed>, DbErr> {
    let id: Uuid = row.try_get_by_index(0)?;
    let headers: String = row.try_get_by_index(4)?;
    let headers = match serde_json::from_str(&headers) {
        Ok(headers) => headers,
        Err(error) => {
            tracing::error!(%table, %id, %error, "outbox row with unreadable headers; it stays where it is");
            return Ok(None);
        }
    };
    Ok(Some(Claimed {
        row: OutboxRow {
            id,
            event_id: row.try_get_by_index(1)?,
            topic: row.try_get_by_index(2)?,
            key: row.try_get_by_index(3)?,
            headers,
            payload: row.try_get_by_index(5)?,
        },
        attempts: row.try_get_by_index(6)?,
    }))
}

/// What is due for a sweeper right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Rows, counted up to [`BACKLOG_COUNTED_ROWS`].
    pub rows: i64,
    /// How long ago the oldest of the counted ones was written, in milliseconds.
    pub oldest_age_ms: i64,
}

/// Counting goes no further, so that a long outage does not make the question expensive.
pub const BACKLOG_COUNTED_ROWS: usize = 10_000;

/// Counts the due rows: one short read through the index of what is due.
///
/// # Errors
/// What the database says.
pub async fn due_backlog<C: ConnectionTrait>(db: &C, table: OutboxTable) -> Result<Backlog, DbErr> {
    let backend = db.get_database_backend();
    let now = database::now_ms_sql(backend);
    let sql = format!(
        "SELECT COUNT(*), COALESCE({now} - MIN(created_at_ms), 0) FROM (
           SELECT created_at_ms FROM {table} WHERE next_attempt_at_ms <= {now}
           ORDER BY next_attempt_at_ms LIMIT $1
         ) AS due"
    );
    let statement = Statement::from_sql_and_values(backend, sql, [bigint(BACKLOG_COUNTED_ROWS)]);
    match db.query_one_raw(statement).await? {
        Some(row) => Ok(Backlog { rows: row.try_get_by_index(0)?, oldest_age_ms: row.try_get_by_index(1)? }),
        None => Ok(Backlog::default()),
    }
}
