//! The bounds of a connection, each with the reason for its default.

use std::time::Duration;

/// Bounds on everything that could otherwise wait for ever. The defaults suit a service that
/// answers people; start from [`ConnectOptions::new`] and change single fields.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// How the connections are called in `pg_stat_activity`.
    pub application_name: String,
    /// PostgreSQL: connections for writing transactions. Default 16: commits overlap in the
    /// server's group commit, and hot paths batch, so more would only queue inside the server.
    /// SQLite has exactly one writer.
    pub write_connections: u32,
    /// Connections for reads. Default 16 on PostgreSQL; SQLite uses at most
    /// [`ConnectOptions::SQLITE_READERS_MAX`], each being a thread.
    pub read_connections: u32,
    /// The longest wait for a free connection, and for a new one to be opened. Default 10 s: an
    /// overloaded service should say so while its caller is still listening.
    pub acquire_timeout: Duration,
    /// PostgreSQL: the longest statement. Default 10 s; statements of the hot paths take
    /// milliseconds.
    pub statement_timeout: Duration,
    /// PostgreSQL: the longest wait for a row or table lock. Default 5 s, below
    /// `statement_timeout` so that the error names the lock.
    pub lock_timeout: Duration,
    /// PostgreSQL: how long a transaction may stay open without a statement before the server
    /// ends it. Default 10 s: a paused process must not hold the locks of hot rows.
    pub idle_in_transaction_timeout: Duration,
    /// The longest transaction as a whole, measured on this side and including the wait for a
    /// connection. Default 30 s: also ends what hangs on a cut network.
    pub transaction_timeout: Duration,
    /// SQLite: the longest wait for the file's lock. Default 5 s. Only a foreign tool on the same
    /// file (`sqlite3`, a backup) can hold it.
    pub busy_timeout: Duration,
    /// SQLite: the size of the write-ahead log from which it is emptied by force, because steady
    /// readers kept it from being reused. Default 64 MiB.
    pub wal_limit_bytes: u64,
}

impl ConnectOptions {
    /// The most reader connections of a SQLite file. Reads are short and cached pages are shared
    /// with the kernel; each connection is a thread with a page cache of its own.
    pub const SQLITE_READERS_MAX: u32 = 4;

    /// Added to `statement_timeout` for the same bound on the client's side, so that the server's
    /// clearer error comes first whenever the server can still be heard.
    pub const CLIENT_GRACE: Duration = Duration::from_secs(2);

    /// The defaults, under the given application name.
    pub fn new(application_name: impl Into<String>) -> Self {
        Self {
            application_name: application_name.into(),
            write_connections: 16,
            read_connections: 16,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(5),
            idle_in_transaction_timeout: Duration::from_secs(10),
            transaction_timeout: Duration::from_secs(30),
            busy_timeout: Duration::from_secs(5),
            wal_limit_bytes: 64 * 1024 * 1024,
        }
    }

    /// The bound on one read, as this side measures it: the wait for a connection, the statement,
    /// and a little grace.
    pub(crate) fn read_timeout(&self) -> Duration {
        self.acquire_timeout + self.statement_timeout + Self::CLIENT_GRACE
    }
}
