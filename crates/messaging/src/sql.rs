//! What the statements of this crate have in common.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Value};

/// On Postgres, lets the current transaction commit without waiting for the disk. For removing rows, which costs
/// nothing when a crash loses them: a row is published once more, or pruned later.
pub(crate) async fn commit_without_sync<C: ConnectionTrait>(tx: &C) -> Result<(), DbErr> {
    if tx.get_database_backend() == DbBackend::Postgres {
        tx.execute_unprepared("SET LOCAL synchronous_commit = off").await?;
    }
    Ok(())
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A count as a parameter.
pub(crate) fn bigint(count: usize) -> Value {
    i64::try_from(count).unwrap_or(i64::MAX).into()
}
