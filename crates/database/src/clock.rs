//! The database's clock. Several replicas compare instants with each other, so the one clock they
//! share decides, not each machine's own.

use sea_orm::DbBackend;

/// The database's clock in milliseconds since the Unix epoch, as an SQL expression.
///
/// It is constant within one statement and stable for the planner, so an index on the column it is
/// compared with is used.
///
/// ```
/// let now = database::now_ms_sql(sea_orm::DbBackend::Sqlite);
/// let sql = format!("SELECT id FROM outbox WHERE next_attempt_at_ms <= {now}");
/// # assert!(sql.contains("unixepoch"));
/// ```
pub fn now_ms_sql(backend: DbBackend) -> &'static str {
    match backend {
        // Not `clock_timestamp()`: it is volatile, which rules out index scans.
        DbBackend::Postgres => "(FLOOR(EXTRACT(EPOCH FROM statement_timestamp()) * 1000)::bigint)",
        // `unixepoch` answers with a float of whole milliseconds; rounding removes the error of
        // the multiplication.
        _ => "(CAST(ROUND(unixepoch('now', 'subsec') * 1000) AS INTEGER))",
    }
}
