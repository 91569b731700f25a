//! A fresh, isolated database per test, on both backends (feature `testing`).
//!
//! ```ignore
//! database::testing::on_both!(Migrator;
//!     /// What the danger is.
//!     async fn a_second_debit_of_one_order_is_refused(db: &TestDatabase) {
//!         db.transaction(…).await.unwrap();
//!     }
//! );
//! ```
//!
//! gives the tests `a_second_debit_of_one_order_is_refused::sqlite` and `…::postgres`. The second
//! runs when `TANDEM_TEST_POSTGRES_URL` names a server and a user who may create databases
//! (`scripts/test-postgres start` prints one); without it, it says so and passes, unless
//! `TANDEM_TEST_REQUIRE_SERVERS=1`.

mod server;

use std::ops::Deref;

use sea_orm_migration::MigratorTrait;
use tempfile::TempDir;

use crate::database::Database;
use crate::options::ConnectOptions;
use crate::url::{DatabaseUrl, PostgresUrl};

pub use crate::on_both;

/// Names the PostgreSQL server for tests.
pub const POSTGRES_URL: &str = "TANDEM_TEST_POSTGRES_URL";

/// When `1`, a missing server fails the tests instead of skipping them.
pub const REQUIRE_SERVERS: &str = "TANDEM_TEST_REQUIRE_SERVERS";

/// Connections per pool and test: enough for what one test does at once, few enough for many tests
/// side by side on one server.
const CONNECTIONS: u32 = 8;

/// A migrated database of one test. Removed when dropped, whatever clones are left.
pub struct TestDatabase {
    database: Database,
    storage: Storage,
}

enum Storage {
    /// The folder of the SQLite file; removes itself.
    Folder {
        _folder: TempDir,
    },
    Postgres {
        server: PostgresUrl,
        name: String,
    },
}

impl Deref for TestDatabase {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Storage::Postgres { server, name } = &self.storage {
            server::drop_database(server, name);
        }
    }
}

/// The options of a test's database: the defaults, with smaller pools.
pub fn options() -> ConnectOptions {
    ConnectOptions { write_connections: CONNECTIONS, read_connections: CONNECTIONS, ..ConnectOptions::new("tandem-test") }
}

/// A SQLite file in a folder of its own, opened as in production.
///
/// # Panics
///
/// When it cannot be created or migrated.
pub async fn sqlite<M: MigratorTrait>() -> TestDatabase {
    sqlite_with::<M>(&options()).await
}

/// [`sqlite`] with other options.
///
/// # Panics
///
/// When it cannot be created or migrated.
pub async fn sqlite_with<M: MigratorTrait>(options: &ConnectOptions) -> TestDatabase {
    let folder = or_panic(tempfile::tempdir(), "creating a temporary folder");
    let url = DatabaseUrl::sqlite(folder.path().join("test.db"));
    let database = or_panic(Database::connect(&url, options).await, "opening SQLite");
    or_panic(database.migrate::<M>().await, "migrating SQLite");
    TestDatabase { database, storage: Storage::Folder { _folder: folder } }
}

/// A PostgreSQL database of its own, copied from a migrated template. `None`, with a line on
/// stderr, when no server is named.
///
/// # Panics
///
/// When it cannot be created, or when no server is named although servers are required.
pub async fn postgres<M: MigratorTrait>() -> Option<TestDatabase> {
    postgres_with::<M>(&options()).await
}

/// [`postgres`] with other options.
///
/// # Panics
///
/// As [`postgres`].
pub async fn postgres_with<M: MigratorTrait>(options: &ConnectOptions) -> Option<TestDatabase> {
    let server = server_url()?;
    let name = server::create_from_template::<M>(&server).await;
    let url = DatabaseUrl::Postgres(server.with_database(&name));
    let database = or_panic(Database::connect(&url, options).await, "connecting to the test's database");
    Some(TestDatabase { database, storage: Storage::Postgres { server, name } })
}

/// The database of every backend at hand, SQLite first.
///
/// # Panics
///
/// As [`sqlite`] and [`postgres`].
pub async fn each_backend<M: MigratorTrait>() -> Vec<TestDatabase> {
    let mut databases = vec![sqlite::<M>().await];
    databases.extend(postgres::<M>().await);
    databases
}

#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
#[expect(clippy::panic, reason = "only compiled for tests")]
fn server_url() -> Option<PostgresUrl> {
    let text = match std::env::var(POSTGRES_URL) {
        Ok(text) if !text.is_empty() => text,
        _ => {
            let required = std::env::var(REQUIRE_SERVERS).is_ok_and(|value| value == "1");
            assert!(!required, "{REQUIRE_SERVERS}=1, but {POSTGRES_URL} is not set");
            eprintln!("SKIPPED on PostgreSQL: {POSTGRES_URL} is not set (scripts/test-postgres start)");
            return None;
        }
    };
    match or_panic(text.parse(), POSTGRES_URL) {
        DatabaseUrl::Postgres(url) => Some(url),
        DatabaseUrl::Sqlite(_) => panic!("{POSTGRES_URL} is no PostgreSQL URL"),
    }
}

#[expect(clippy::panic, reason = "only compiled for tests")]
fn or_panic<T, E: std::fmt::Display>(result: Result<T, E>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Writes each test once and runs it on SQLite and on PostgreSQL; see [`testing`](self).
#[macro_export]
macro_rules! on_both {
    ($migrator:ty; $($(#[$meta:meta])* async fn $name:ident($db:ident: &TestDatabase) $body:block)+) => {
        $(
            $(#[$meta])*
            #[allow(unused_imports, clippy::unwrap_used, clippy::expect_used, reason = "a test")]
            mod $name {
                use super::*;

                async fn body($db: &$crate::testing::TestDatabase) $body

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn sqlite() {
                    let db = $crate::testing::sqlite::<$migrator>().await;
                    body(&db).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn postgres() {
                    if let Some(db) = $crate::testing::postgres::<$migrator>().await {
                        body(&db).await;
                    }
                }
            }
        )+
    };
}
