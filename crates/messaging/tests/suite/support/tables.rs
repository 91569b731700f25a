use database::{Database, DatabaseError};
use messaging::outbox::insert_batch;
use messaging::{CloudEvent, InboxTable, OutboxRow, OutboxTable};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use sea_orm_migration::prelude::*;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub(crate) const OUTBOX: OutboxTable = OutboxTable("outbox_test");
pub(crate) const INBOX: InboxTable = InboxTable("inbox_test");

pub(crate) struct TestMigrator;

#[async_trait::async_trait]
impl MigratorTrait for TestMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(CreateTables)]
    }
}

struct CreateTables;

impl MigrationName for CreateTables {
    fn name(&self) -> &'static str {
        "m0001_create_tables_of_messaging_tests"
    }
}

/// `applied` has no key: it shows what was applied twice.
const TABLES: &str = "
    CREATE TABLE outbox_test (
        id {uuid} NOT NULL PRIMARY KEY, event_id {uuid} NOT NULL, topic TEXT NOT NULL, message_key TEXT NOT NULL,
        headers TEXT NOT NULL, payload TEXT NOT NULL, created_at_ms {bigint} NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0, next_attempt_at_ms {bigint} NOT NULL
    );
    CREATE INDEX outbox_test_due ON outbox_test (next_attempt_at_ms);
    CREATE TABLE inbox_test (message_id {uuid} NOT NULL PRIMARY KEY, received_at_ms {bigint} NOT NULL);
    CREATE INDEX inbox_test_received ON inbox_test (received_at_ms);
    CREATE TABLE applied (position {serial} PRIMARY KEY, source INTEGER NOT NULL, payload TEXT NOT NULL)";

#[async_trait::async_trait]
impl MigrationTrait for CreateTables {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let names = match manager.get_database_backend() {
            DbBackend::Postgres => ["uuid", "bigint", "bigserial"],
            _ => ["BLOB", "INTEGER", "INTEGER"],
        };
        let [uuid, bigint, serial] = names;
        let sql = TABLES.replace("{uuid}", uuid).replace("{bigint}", bigint).replace("{serial}", serial);
        manager.get_connection().execute_unprepared(&sql).await?;
        Ok(())
    }
}

pub(crate) fn row(payload: &str) -> OutboxRow {
    let event = CloudEvent { id: Uuid::now_v7(), type_: "test".into(), source: "/test".into(), time_ms: 0 };
    OutboxRow::new("topic", "key", event, payload.to_owned())
}

/// `count` rows with payloads `0`, `1`, …
pub(crate) fn rows(count: usize) -> Vec<OutboxRow> {
    (0..count).map(|n| row(&n.to_string())).collect()
}

/// Commits rows as a service does.
pub(crate) async fn insert(db: &Database, rows: &[OutboxRow]) {
    let rows = rows.to_vec();
    db.transaction("insert", move |tx| {
        Box::pin(async move { Ok::<_, database::DatabaseError>(insert_batch(tx, OUTBOX, &rows).await?) })
    })
    .await
    .unwrap();
}

pub(crate) async fn execute(db: &Database, sql: &str) {
    let sql = sql.to_owned();
    db.transaction("test", move |tx| {
        Box::pin(async move { Ok::<_, database::DatabaseError>(tx.execute_unprepared(&sql).await?) })
    })
    .await
    .unwrap();
}

/// Time passes: every row is due.
pub(crate) async fn make_due(db: &Database) {
    execute(db, "UPDATE outbox_test SET next_attempt_at_ms = 0").await;
}

pub(crate) async fn count(db: &Database, from: &str) -> i64 {
    let statement = Statement::from_string(db.backend(), format!("SELECT COUNT(*) FROM {from}"));
    db.reader().query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

/// Rows that are not known to be acknowledged.
pub(crate) async fn waiting(db: &Database) -> i64 {
    count(db, "outbox_test").await
}

/// Source partition and payload of what was applied, in the order of applying.
pub(crate) async fn applied(db: &Database) -> Vec<(i32, String)> {
    let statement = Statement::from_string(db.backend(), "SELECT source, payload FROM applied ORDER BY position");
    let rows = db.reader().query_all_raw(statement).await.unwrap();
    rows.iter().map(|row| (row.try_get_by_index(0).unwrap(), row.try_get_by_index(1).unwrap())).collect()
}

/// A row of the outbox that a transaction of somebody else has locked.
pub(crate) struct Held {
    release: oneshot::Sender<()>,
    transaction: JoinHandle<()>,
}

impl Held {
    /// Answers when the row is free.
    pub(crate) async fn release(self) {
        self.release.send(()).unwrap();
        self.transaction.await.unwrap();
    }
}

/// Locks the row with this payload (PostgreSQL).
pub(crate) async fn hold(db: &Database, payload: &'static str) -> Held {
    let (locked, is_locked) = oneshot::channel();
    let (release, released) = oneshot::channel::<()>();
    let db = db.clone();
    let transaction = tokio::spawn(async move {
        db.transaction("hold", move |tx| {
            Box::pin(async move {
                let sql = format!("SELECT id FROM outbox_test WHERE payload = '{payload}' FOR UPDATE");
                tx.execute_unprepared(&sql).await?;
                locked.send(()).unwrap();
                released.await.unwrap();
                Ok::<_, DatabaseError>(())
            })
        })
        .await
        .unwrap();
    });
    is_locked.await.unwrap();
    Held { release, transaction }
}
