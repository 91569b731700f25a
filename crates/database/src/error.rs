//! Errors, and the one question that callers ask about them: can trying again help?

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx::Error as SqlxError;
use sea_orm::sqlx::error::{DatabaseError as DriverError, ErrorKind};
use sea_orm::sqlx::postgres::PgDatabaseError;
use sea_orm::{DbErr, RuntimeErr};

/// What can go wrong with a database. Cheap to clone, so that one failed transaction can answer
/// every caller whose work it carried.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The database file, its folder or its lock file cannot be created or written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: Arc<std::io::Error>,
    },
    /// Another process has this SQLite file open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The server could not be reached or refused the connection.
    #[error("cannot connect to {url}: {source}")]
    Connect {
        /// Where to, without the password.
        url: String,
        /// What the driver says.
        source: DbErr,
    },
    /// The bound on this side was reached; the work was rolled back.
    #[error("{what} took longer than {} ms", after.as_millis())]
    TimedOut {
        /// The transaction or statement.
        what: &'static str,
        /// The bound.
        after: Duration,
    },
    /// The connection was lost, or the time was up, between sending COMMIT (or a statement that is a
    /// transaction of its own) and its answer. The work is applied as a whole or not at all, but
    /// nobody here knows which.
    #[error("the outcome of transaction {transaction:?} is unknown: {reason}")]
    OutcomeUnknown {
        /// The transaction's name.
        transaction: &'static str,
        /// What happened.
        reason: String,
    },
    /// The work answered `Ok` although one of its statements had failed, after which PostgreSQL
    /// would have turned COMMIT into a silent ROLLBACK. Nothing was applied.
    #[error("transaction {transaction:?} hid the error of a statement: {source}")]
    HiddenFailure {
        /// The transaction's name.
        transaction: &'static str,
        /// What the server says about the aborted transaction.
        source: DbErr,
    },
    /// The work panicked; it was rolled back.
    #[error("transaction {transaction:?} panicked: {message}")]
    Panicked {
        /// The transaction's name.
        transaction: &'static str,
        /// The panic's message.
        message: String,
    },
    /// The runtime shut down while the transaction ran; it was rolled back.
    #[error("transaction {transaction:?} was cancelled by the shutdown")]
    Cancelled {
        /// The transaction's name.
        transaction: &'static str,
    },
    /// Everything the driver reports.
    #[error(transparent)]
    Db(#[from] DbErr),
}

impl DatabaseError {
    /// Whether the same work may succeed later without anybody changing anything: the server is
    /// away or overloaded, a lock or a deadlock was in the way, the disk is full for the moment.
    ///
    /// [`DatabaseError::OutcomeUnknown`] is transient too: only work that is safe to repeat may be
    /// repeated after it (see [`DatabaseError::is_outcome_unknown`]).
    pub fn is_transient(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::OutcomeUnknown { .. } | Self::Cancelled { .. } => true,
            Self::Unwritable { .. } | Self::InUse { .. } | Self::HiddenFailure { .. } | Self::Panicked { .. } => false,
            Self::Connect { source, .. } | Self::Db(source) => is_transient(source),
        }
    }

    /// Whether writes of their own did not find the rows that they were made for, because those had changed since they were read, or were never so.
    /// Nothing of them was applied. A unique index may say so before the numbers of rows are compared: in which order a statement's parts run is
    /// not promised.
    pub fn is_overtaken(&self) -> bool {
        matches!(self, Self::Db(error) if is_overtaken(error) || is_unique_violation(error))
    }

    /// Whether the transaction may have been applied although this error came back.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. })
    }
}

/// Whether an error of the driver is transient (see [`DatabaseError::is_transient`]).
pub fn is_transient(error: &DbErr) -> bool {
    if is_connection_lost(error) || is_overtaken(error) {
        return true;
    }
    match error {
        // A closed pool included: it is closed only by a shutdown, and work in hand is then to be
        // done again by the next process rather than given up as faulty.
        DbErr::ConnectionAcquire(_) => true,
        _ => match driver_error(error) {
            Some(error) => is_transient_code(error),
            None => false,
        },
    }
}

/// Whether the connection is gone or useless, in contrast to a statement that failed on a good one.
pub(crate) fn is_connection_lost(error: &DbErr) -> bool {
    match sqlx_error(error) {
        Some(
            SqlxError::Io(_)
            | SqlxError::Tls(_)
            | SqlxError::WorkerCrashed
            | SqlxError::BeginFailed
            | SqlxError::PoolTimedOut
            | SqlxError::PoolClosed,
        ) => true,
        Some(SqlxError::Database(error)) => {
            error.try_downcast_ref::<PgDatabaseError>().is_some()
                && error.code().is_some_and(|code| {
                    // 57P01–57P05: the server ends the session; 08: connection exceptions.
                    code.starts_with("57P") || code.starts_with("08") || code == "25P03"
                })
        }
        _ => false,
    }
}

const OVERTAKEN: &str = "somebody else has changed what these writes were made from";

/// What [`Writes`](crate::Writes) answer when one of them has not as many rows as it must.
pub(crate) fn overtaken() -> DbErr {
    DbErr::Custom(OVERTAKEN.to_owned())
}

/// Whether [`Writes`](crate::Writes) were given up because somebody else has changed meanwhile what they were made from. Nothing of them was
/// applied, and they can be made anew.
pub fn is_overtaken(error: &DbErr) -> bool {
    matches!(error, DbErr::Custom(text) if text == OVERTAKEN)
}

/// Whether an INSERT or UPDATE met an existing row in a primary key or unique index.
pub fn is_unique_violation(error: &DbErr) -> bool {
    driver_error(error).is_some_and(|error| matches!(error.kind(), ErrorKind::UniqueViolation))
}

/// Whether a CHECK constraint refused a row.
pub fn is_check_violation(error: &DbErr) -> bool {
    driver_error(error).is_some_and(|error| matches!(error.kind(), ErrorKind::CheckViolation))
}

/// What names the violated constraint: on PostgreSQL its name; on SQLite the text after
/// "constraint failed: ", which is the constraint's name for a CHECK and the columns
/// (`table.column, …`) for a unique key. `None` for any other error.
pub fn constraint_name(error: &DbErr) -> Option<&str> {
    let error = driver_error(error)?;
    if let Some(name) = error.constraint() {
        return Some(name);
    }
    let (_, name) = error.message().split_once("constraint failed: ")?;
    Some(name)
}

fn sqlx_error(error: &DbErr) -> Option<&SqlxError> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(error),
        _ => None,
    }
}

pub(crate) fn driver_error(error: &DbErr) -> Option<&dyn DriverError> {
    match sqlx_error(error)? {
        SqlxError::Database(error) => Some(error.as_ref()),
        _ => None,
    }
}

fn is_transient_code(error: &dyn DriverError) -> bool {
    let Some(code) = error.code() else {
        return false;
    };
    if error.try_downcast_ref::<PgDatabaseError>().is_some() {
        return is_transient_sqlstate(&code);
    }
    code.parse().is_ok_and(is_transient_sqlite)
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn is_transient_sqlstate(code: &str) -> bool {
    match code {
        // serialization_failure, statement_completion_unknown, deadlock_detected
        "40001" | "40003" | "40P01" => true,
        // object_in_use, lock_not_available
        "55006" | "55P03" => true,
        // query_canceled, which is what statement_timeout raises
        "57014" => true,
        // read_only_sql_transaction: a primary that became a standby during a failover
        "25006" => true,
        // idle_in_transaction_session_timeout
        "25P03" => true,
        // system_error, io_error
        "58000" | "58030" => true,
        // connection exceptions; insufficient resources; the operator's intervention
        _ => code.starts_with("08") || code.starts_with("53") || code.starts_with("57P"),
    }
}

/// <https://www.sqlite.org/rescode.html>; the low byte is the primary code.
fn is_transient_sqlite(extended_code: i32) -> bool {
    const BUSY: i32 = 5;
    const LOCKED: i32 = 6;
    const NOMEM: i32 = 7;
    const INTERRUPT: i32 = 9;
    const IOERR: i32 = 10;
    const FULL: i32 = 13;
    const CANTOPEN: i32 = 14; // also "too many open files"
    const PROTOCOL: i32 = 15; // the WAL's locks were contended for too long
    matches!(extended_code & 0xff, BUSY | LOCKED | NOMEM | INTERRUPT | IOERR | FULL | CANTOPEN | PROTOCOL)
}

/// Whether a failed COMMIT, or a failed statement that is a transaction of its own, may nevertheless have been applied.
pub(crate) fn commit_outcome_is_unknown(error: &DbErr) -> bool {
    const SQLITE_IOERR: i32 = 10;
    if matches!(sqlx_error(error), Some(SqlxError::Encode(_))) {
        // Never sent.
        return false;
    }
    let Some(error) = driver_error(error) else {
        // No answer at all.
        return true;
    };
    let code = error.code().unwrap_or_default();
    if error.try_downcast_ref::<PgDatabaseError>().is_some() {
        // The session was ended by the operator, possibly after the commit record was written, or a
        // proxy has lost it; every other answer means that it was rolled back.
        return code.starts_with("57P") || code.starts_with("08") || code == "40003";
    }
    // A failed sync leaves the frames in the log, where a later recovery may find them.
    code.parse::<i32>().is_ok_and(|code| code & 0xff == SQLITE_IOERR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_data_is_not_taken_for_a_passing_one() {
        for code in ["23505", "23514", "22001", "42P01", "25P02", "XX000", "0A000"] {
            assert!(!is_transient_sqlstate(code), "{code}");
        }
        for code in [
            "40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "53100", "53200", "53300", "08006", "08P01", "25006",
            "25P03", "58030",
        ] {
            assert!(is_transient_sqlstate(code), "{code}");
        }
        // CONSTRAINT_UNIQUE, ERROR, READONLY, CORRUPT
        for code in [2067, 1, 8, 11] {
            assert!(!is_transient_sqlite(code), "{code}");
        }
        // BUSY_SNAPSHOT, LOCKED_SHAREDCACHE, IOERR_FSYNC, FULL
        for code in [517, 262, 1034, 13] {
            assert!(is_transient_sqlite(code), "{code}");
        }
    }
}
