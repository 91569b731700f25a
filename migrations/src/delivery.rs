//! Tables of the delivery guarantees, with the columns that the `messaging` crate reads and writes.

use sea_orm::DbErr;
use sea_orm_migration::prelude::*;

use crate::dialect::execute;

/// Messages to be published, written in the transaction of the change that they tell about.
pub(crate) async fn create_outbox(manager: &SchemaManager<'_>, table: &str) -> Result<(), DbErr> {
    let sql = format!(
        "CREATE TABLE {table} (
            id {{uuid}} NOT NULL PRIMARY KEY,
            event_id {{uuid}} NOT NULL,
            topic TEXT NOT NULL,
            message_key TEXT NOT NULL,
            headers TEXT NOT NULL,
            payload TEXT NOT NULL,
            created_at_ms {{bigint}} NOT NULL,
            attempts INTEGER NOT NULL DEFAULT 0,
            next_attempt_at_ms {{bigint}} NOT NULL,
            processed_at_ms {{bigint}}
        ) {{strict}};
        CREATE INDEX {table}_due ON {table} (next_attempt_at_ms) WHERE processed_at_ms IS NULL;
        CREATE INDEX {table}_processed ON {table} (processed_at_ms) WHERE processed_at_ms IS NOT NULL;
        CREATE INDEX {table}_event ON {table} (event_id);"
    );
    execute(manager, &sql).await
}

/// Ids of messages that were applied: the primary key stops the second application.
pub(crate) async fn create_inbox(manager: &SchemaManager<'_>, table: &str) -> Result<(), DbErr> {
    let sql = format!(
        "CREATE TABLE {table} (
            message_id {{uuid}} NOT NULL PRIMARY KEY,
            received_at_ms {{bigint}} NOT NULL
        ) {{strict}};
        CREATE INDEX {table}_received ON {table} (received_at_ms);"
    );
    execute(manager, &sql).await
}

/// Marking a row processed then writes no index but that of its primary key: the others hold only rows that wait. Processed rows are found
/// by their ids, which grow with time.
pub(crate) async fn index_only_what_waits(manager: &SchemaManager<'_>, table: &str) -> Result<(), DbErr> {
    let sql = format!(
        "DROP INDEX {table}_processed;
         DROP INDEX {table}_event;
         CREATE INDEX {table}_event ON {table} (event_id) WHERE processed_at_ms IS NULL;"
    );
    execute(manager, &sql).await
}

/// A row is in an outbox until it is acknowledged: then it is removed, which writes no second version of it and leaves nothing to be
/// removed later.
pub(crate) struct KeepOnlyWhatWaits {
    pub(crate) name: &'static str,
    pub(crate) table: &'static str,
    /// Keeps the index of events, by which Order Service finds tasks that still wait.
    pub(crate) events: bool,
}

impl MigrationName for KeepOnlyWhatWaits {
    fn name(&self) -> &'static str {
        self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for KeepOnlyWhatWaits {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = self.table;
        let events = if self.events { format!("CREATE INDEX {table}_event ON {table} (event_id);") } else { String::new() };
        let sql = format!(
            "DELETE FROM {table} WHERE processed_at_ms IS NOT NULL;
             DROP INDEX {table}_due;
             DROP INDEX {table}_event;
             ALTER TABLE {table} DROP COLUMN processed_at_ms;
             CREATE INDEX {table}_due ON {table} (next_attempt_at_ms);
             {events}"
        );
        execute(manager, &sql).await
    }
}
