//! A bounded pool of connections, and with it those that a worker keeps.

use sea_orm::sqlx::PgPool;
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, QueryResult, Statement, TransactionOptions,
    TransactionTrait as _,
};

use crate::kept::KeptConnections;
use crate::postgres::Suspicion;

/// Cheap to clone; all clones are the same connections.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) connection: DatabaseConnection,
    /// Of `connection`, for a worker on PostgreSQL.
    kept: Option<KeptConnections>,
}

/// One for writing transactions and one for reads, so that neither can starve the other.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    pub(crate) writer: Pool,
    pub(crate) reader: Pool,
}

impl Pool {
    /// Connections that come back after each statement.
    pub(crate) fn shared(connection: impl Into<DatabaseConnection>) -> Self {
        Self { connection: connection.into(), kept: None }
    }

    /// Connections that a worker keeps from one statement to the next.
    pub(crate) fn kept(pool: PgPool, suspicion: &Suspicion) -> Self {
        Self { kept: Some(KeptConnections::of(pool.clone(), suspicion)), connection: pool.into() }
    }

    /// As sea-orm's method of that name.
    pub(crate) async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match &self.kept {
            Some(kept) => kept.query_all_raw(statement).await,
            None => self.connection.query_all_raw(statement).await,
        }
    }

    pub(crate) async fn begin(&self, options: TransactionOptions) -> Result<DatabaseTransaction, DbErr> {
        // Of the few places of a worker one may be lost to a ping.
        if let Some(kept) = &self.kept {
            kept.give_back();
        }
        self.connection.begin_with_options(options).await
    }

    /// How many connections are open, and how many of them are idle.
    pub(crate) fn size(&self) -> (u32, usize) {
        let (open, idle) = match self.connection.get_database_backend() {
            DbBackend::Postgres => {
                let pool = self.connection.get_postgres_connection_pool();
                (pool.size(), pool.num_idle())
            }
            _ => {
                let pool = self.connection.get_sqlite_connection_pool();
                (pool.size(), pool.num_idle())
            }
        };
        (open, idle + self.kept.as_ref().map_or(0, KeptConnections::resting))
    }

    pub(crate) async fn close(&self) {
        if let Some(kept) = &self.kept {
            kept.close();
        }
        // Closing only fails for connections that are gone already.
        let _ = self.connection.close_by_ref().await;
    }
}
