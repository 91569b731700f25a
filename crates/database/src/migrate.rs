//! Migrations, when several replicas start at once: one applies them, the others wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sea_orm::sqlx::postgres::PgPoolOptions;
use sea_orm::sqlx::{Error as SqlxError, PgPool};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, SqliteTransactionMode, Statement, TransactionOptions};
use sea_orm_migration::MigratorTrait;

use crate::database::{Database, Store};
use crate::error::DatabaseError;
use crate::options::ConnectOptions;
use crate::postgres;
use crate::url::PostgresUrl;

/// The advisory lock, held by the session that migrates. One number per database is enough: locks
/// of this kind are local to a database. The value is arbitrary ("migrate" in ASCII).
const MIGRATION_LOCK: i64 = 0x006d_6967_7261_7465;

/// How often a waiting replica asks for the lock. It asks instead of blocking: a blocked session
/// holds a snapshot, for which `CREATE INDEX CONCURRENTLY` of the one that migrates would wait.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// How long a replica waits for another one's migrations. Index builds on large tables take
/// minutes; something that takes longer should be looked at by a person.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(30 * 60);

/// How long a migration waits for a table lock. Statements that queue behind it wait as well, so
/// it gives up before they do, and the service tries again when it is started again.
const DDL_LOCK_TIMEOUT: Duration = Duration::from_secs(5);

impl Database {
    /// Applies the migrations that are missing. Any number of replicas may do so at the same time.
    ///
    /// PostgreSQL: under a session advisory lock, on a connection without statement timeout; one
    /// transaction per migration. SQLite: all in one transaction (the lock file keeps others away).
    ///
    /// # Errors
    ///
    /// The first migration that fails; [`DatabaseError::TimedOut`] when another replica migrates for
    /// longer than half an hour.
    pub async fn migrate<M: MigratorTrait>(&self) -> Result<(), DatabaseError> {
        match &self.inner.store {
            Store::Sqlite { .. } => {
                let options = TransactionOptions {
                    sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                    ..TransactionOptions::default()
                };
                let tx = self.inner.writer.begin(options).await?;
                M::up(&tx, None).await?;
                tx.commit().await?;
                Ok(())
            }
            Store::Postgres { url } => migrate_postgres::<M>(url, &self.inner.options).await,
        }
    }
}

async fn migrate_postgres<M: MigratorTrait>(url: &PostgresUrl, options: &ConnectOptions) -> Result<(), DatabaseError> {
    let options = ConnectOptions {
        statement_timeout: Duration::ZERO, // none
        lock_timeout: DDL_LOCK_TIMEOUT,
        ..options.clone()
    };
    // One connection, which therefore holds the lock and migrates: when it is lost, so are both,
    // and no half-dead replica goes on migrating beside the next one.
    let connected = AtomicBool::new(false);
    let pool: PgPool = PgPoolOptions::new()
        .max_connections(1)
        // The pool would open another one, which does not hold the lock.
        .after_connect(move |_, _| {
            let again = connected.swap(true, Ordering::Relaxed);
            Box::pin(async move { if again { Err(SqlxError::PoolClosed) } else { Ok(()) } })
        })
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(options.acquire_timeout)
        .connect_lazy_with(postgres::session_options(url, &options));
    let connection = DatabaseConnection::from(pool);
    let result = async {
        wait_for_lock(&connection).await?;
        M::up(&connection, None).await?;
        Ok(())
    }
    .await;
    // Ends the session, and with it the lock.
    let _ = connection.close().await;
    result
}

async fn wait_for_lock(connection: &DatabaseConnection) -> Result<(), DatabaseError> {
    let started = tokio::time::Instant::now();
    let mut told = false;
    loop {
        let statement =
            Statement::from_sql_and_values(DbBackend::Postgres, "SELECT pg_try_advisory_lock($1)", [MIGRATION_LOCK.into()]);
        let row = connection.query_one_raw(statement).await?;
        if row.is_some_and(|row| row.try_get_by_index(0).unwrap_or(false)) {
            return Ok(());
        }
        if started.elapsed() > LOCK_WAIT_MAX {
            return Err(DatabaseError::TimedOut { what: "waiting for another replica's migrations", after: LOCK_WAIT_MAX });
        }
        if !told {
            tracing::info!("waiting for another replica to finish its migrations");
            told = true;
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}
