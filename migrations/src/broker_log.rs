//! The embedded broker's durable log: a SQLite file of its own.
//!
//! `log_records` is append-only and has no holes in `(topic, partition, offset)`. It stays a table with row ids: records
//! are larger than what pays off without them, and appending at the end of one tree is the cheapest write there is.

use sea_orm_migration::prelude::*;

/// Brings the embedded broker's log up to date.
pub struct BrokerLogMigrator;

#[async_trait::async_trait]
impl MigratorTrait for BrokerLogMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(CreateLog)]
    }
}

struct CreateLog;

impl MigrationName for CreateLog {
    fn name(&self) -> &'static str {
        "m0001_create_log"
    }
}

const TABLES: [&str; 3] = [
    r#"CREATE TABLE log_topics (
        topic TEXT NOT NULL PRIMARY KEY,
        partitions INTEGER NOT NULL CHECK (partitions > 0)
    ) STRICT"#,
    r#"CREATE TABLE log_records (
        topic TEXT NOT NULL REFERENCES log_topics (topic),
        partition INTEGER NOT NULL,
        "offset" INTEGER NOT NULL CHECK ("offset" >= 0),
        message_key TEXT NOT NULL,
        headers TEXT NOT NULL,
        payload BLOB NOT NULL,
        appended_at_ms INTEGER NOT NULL,
        PRIMARY KEY (topic, partition, "offset")
    ) STRICT"#,
    r#"CREATE TABLE log_offsets (
        group_name TEXT NOT NULL,
        topic TEXT NOT NULL REFERENCES log_topics (topic),
        partition INTEGER NOT NULL,
        next_offset INTEGER NOT NULL CHECK (next_offset >= 0),
        PRIMARY KEY (group_name, topic, partition)
    ) STRICT"#,
];

#[async_trait::async_trait]
impl MigrationTrait for CreateLog {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES {
            manager.get_connection().execute_unprepared(table).await?;
        }
        Ok(())
    }
}
