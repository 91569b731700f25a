//! What the statements of this crate have in common.

use std::time::Duration;

use sea_orm::{DbBackend, Value};

/// A condition for the `WHERE` of a `DELETE` that is always met. On Postgres it also lets the transaction commit without waiting for the disk, which costs
/// nothing when a crash loses it: a row is published once more, or pruned later.
pub(crate) fn without_sync(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => "(SELECT set_config('synchronous_commit', 'off', true)) = 'off'",
        _ => "true",
    }
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A count as a parameter.
pub(crate) fn bigint(count: usize) -> Value {
    i64::try_from(count).unwrap_or(i64::MAX).into()
}
