//! The inbox: which messages were applied, claimed in the transaction that applies them.
//!
//! Delivery is at least once, so a message may come again at any time: after a crash between commit and stored offset,
//! after a rebalance, because its sender sent it twice. A claim that is not new says so; what that means is the
//! handler's business (some answer again instead of doing nothing). Claims and changes commit or roll back together,
//! so a claim never outlives a failure.

use std::collections::HashSet;
use std::time::Duration;

use database::OnConflict;
use database::array::{Columns, is_one_of, skip_locked};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use uuid::Uuid;

use crate::sql::{bigint, millis, without_sync};

/// The name of an inbox table. It is written into SQL as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InboxTable(pub &'static str);

impl std::fmt::Display for InboxTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// Claims message ids and answers those that were not claimed before, each once however often it is among `ids`.
///
/// A transaction that claims the same id at the same time is waited for: if it commits, the id is not new here.
///
/// # Errors
/// What the database says; the transaction is then to be rolled back.
pub async fn claim_batch<C: ConnectionTrait>(tx: &C, table: InboxTable, ids: &[Uuid]) -> Result<HashSet<Uuid>, DbErr> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let backend = tx.get_database_backend();
    let statement = Columns::new(backend, ids)
        .uuid("message_id", |id| *id)
        .statement(|rows| claim_from(backend, table, &format!("{rows} AS r"), OnConflict::DoNothing) + " RETURNING message_id");
    tx.query_all_raw(statement).await?.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// [`claim_batch`] as one of [`database::Writes`], of the `message_id`s in its table `from`: writes a row for each id that was not claimed
/// before, and those that were are `on_conflict`.
#[must_use]
pub fn claim_from(backend: DbBackend, table: InboxTable, from: &str, on_conflict: OnConflict) -> String {
    let (now, on_conflict) = (database::now_ms_sql(backend), on_conflict.clause(""));
    // In one order everywhere: two consumers with overlapping batches wait for each other instead of deadlocking.
    format!(
        "INSERT INTO {table} (message_id, received_at_ms)
         SELECT message_id, (SELECT {now}) FROM {from} WHERE true ORDER BY message_id {on_conflict}"
    )
}

/// Removes up to `limit` claims older than `retention`, the oldest first, and answers how many; the transaction does not wait for the disk. Keep claims
/// for longer than a message can still be delivered again.
///
/// # Errors
/// What the database says.
pub async fn prune_claims_batch<C: ConnectionTrait>(
    tx: &C,
    table: InboxTable,
    retention: Duration,
    limit: usize,
) -> Result<u64, DbErr> {
    let backend = tx.get_database_backend();
    let now = database::now_ms_sql(backend);
    let skip = skip_locked(backend);
    let old = format!("SELECT message_id FROM {table} WHERE received_at_ms < {now} - $2 ORDER BY received_at_ms LIMIT $1 {skip}");
    let sql = format!("DELETE FROM {table} WHERE {} AND {}", is_one_of(backend, "message_id", &old), without_sync(backend));
    let values = [bigint(limit), millis(retention).into()];
    Ok(tx.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?.rows_affected())
}
