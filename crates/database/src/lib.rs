//! One service's database: SQLite (a file) or PostgreSQL behind the same few functions.
//!
//! What holds, on both:
//!
//! - [`Database::transaction`] commits everything or nothing, and runs on a task of its own: a
//!   caller that goes away cannot cancel it half way.
//! - A write is durable once `transaction` has answered `Ok` (SQLite: WAL with `synchronous=FULL`;
//!   PostgreSQL: as the server is configured, with a warning at start when that is not durable).
//! - [`Database::reader`] sees every transaction that was answered before the read started, and
//!   cannot write.
//! - Nothing waits for ever: connections, statements, locks, idle transactions and whole
//!   transactions have bounds ([`ConnectOptions`]), on the server and on the client.
//! - Every error says whether trying again can help ([`DatabaseError::is_transient`]).
//!
//! SQLite has one writer connection per file, `BEGIN IMMEDIATE`, a pool of readers, and a lock file
//! that keeps a second process away. PostgreSQL has two bounded pools, one for writing
//! transactions and one for reads, so that neither can starve the other.

pub mod array;
mod clock;
mod database;
mod error;
mod kept;
mod migrate;
mod options;
mod pool;
mod postgres;
mod reader;
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;
mod transaction;
mod url;
mod writes;

pub use clock::now_ms_sql;
pub use database::{Database, connect_with_backoff};
pub use error::{DatabaseError, constraint_name, is_check_violation, is_overtaken, is_transient, is_unique_violation};
pub use futures_util::future::BoxFuture;
pub use options::ConnectOptions;
pub use reader::Reader;
pub use url::{DatabaseUrl, InvalidDatabaseUrl, PostgresUrl};
pub use writes::{OnConflict, Writes, Written};
