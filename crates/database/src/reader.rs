//! Reads: pooled, bounded, and unable to write.

use std::time::Duration;

use sea_orm::sqlx::Error as SqlxError;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};

use crate::error::is_connection_lost;
use crate::pool::Pool;
use crate::postgres::Suspicion;

/// How often one read is tried when the connection it was given turns out to be dead: once more.
/// After the first loss idle connections are tested before they are handed out, so the second try
/// only fails when the server really is away.
const READ_ATTEMPTS: u32 = 2;

/// Pooled reads. Takes every sea-orm query that takes a connection. Each statement sees what was
/// committed before it started, is bounded on this side too, and cannot write: SQLite refuses it by
/// connection, PostgreSQL by `default_transaction_read_only`.
///
/// There is deliberately no way to begin a transaction: a snapshot must not stay open while
/// somebody waits for a client.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) pool: Pool,
    pub(crate) timeout: Duration,
    pub(crate) suspicion: Suspicion,
}

impl Reader {
    async fn bounded<T, F: Future<Output = Result<T, DbErr>>>(&self, run: impl Fn() -> F) -> Result<T, DbErr> {
        let attempts = async {
            let mut attempt = 1;
            loop {
                match run().await {
                    Err(error) if is_connection_lost(&error) => {
                        self.suspicion.raise();
                        if attempt == READ_ATTEMPTS {
                            return Err(error);
                        }
                        attempt += 1;
                    }
                    result => return result,
                }
            }
        };
        match tokio::time::timeout(self.timeout, attempts).await {
            Ok(result) => result,
            Err(_) => {
                self.suspicion.raise();
                Err(timed_out(self.timeout))
            }
        }
    }
}

fn timed_out(after: Duration) -> DbErr {
    let error = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {} ms", after.as_millis()));
    DbErr::Query(RuntimeErr::SqlxError(SqlxError::Io(error).into()))
}

#[sea_orm::prelude::async_trait::async_trait]
impl ConnectionTrait for Reader {
    fn get_database_backend(&self) -> DbBackend {
        self.pool.connection.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.bounded(|| self.pool.connection.execute_raw(statement.clone())).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.bounded(|| self.pool.connection.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.bounded(|| self.pool.connection.query_one_raw(statement.clone())).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.bounded(|| self.pool.query_all_raw(statement.clone())).await
    }
}
