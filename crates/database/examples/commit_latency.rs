//! How long one durable write transaction of three statements takes, on each database at hand:
//!
//! ```sh
//! TANDEM_TEST_POSTGRES_URL=$(scripts/test-postgres url) \
//!   cargo run --release -p database --features testing --example commit_latency
//! ```
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement, not a library")]

use std::time::Instant;

use database::{Database, DatabaseError, testing};
use sea_orm::ConnectionTrait;
use sea_orm_migration::{MigrationTrait, MigratorTrait};
use uuid::Uuid;

struct NoMigrations;

impl MigratorTrait for NoMigrations {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Vec::new()
    }
}

const WARM_UP: usize = 200;
const TRANSACTIONS: usize = 2_000;
const READS: usize = 5_000;

#[tokio::main]
async fn main() {
    for db in testing::each_backend::<NoMigrations>().await {
        measure(&db).await;
    }
}

async fn measure(db: &Database) {
    db.transaction("create", |tx| {
        Box::pin(async move {
            tx.execute_unprepared("CREATE TABLE a (id VARCHAR(36) PRIMARY KEY, n BIGINT)").await?;
            tx.execute_unprepared("CREATE TABLE b (id VARCHAR(36) PRIMARY KEY, n BIGINT)").await?;
            tx.execute_unprepared("CREATE TABLE c (id BIGINT PRIMARY KEY, n BIGINT)").await?;
            tx.execute_unprepared("INSERT INTO c VALUES (1, 0)").await?;
            Ok::<_, DatabaseError>(())
        })
    })
    .await
    .unwrap();

    for _ in 0..WARM_UP {
        write(db).await;
    }
    let mut times = Vec::with_capacity(TRANSACTIONS);
    for _ in 0..TRANSACTIONS {
        let started = Instant::now();
        write(db).await;
        times.push(started.elapsed());
    }
    times.sort();

    let started = Instant::now();
    for _ in 0..READS {
        let statement = sea_orm::Statement::from_sql_and_values(db.backend(), "SELECT n FROM c WHERE id = $1", [1_i64.into()]);
        db.reader().query_one_raw(statement).await.unwrap();
    }
    println!(
        "{:?}: transaction of 3 statements p50 {} µs, p99 {} µs; read {} µs",
        db.backend(),
        times[TRANSACTIONS / 2].as_micros(),
        times[TRANSACTIONS * 99 / 100].as_micros(),
        started.elapsed().as_micros() / READS as u128,
    );
}

async fn write(db: &Database) {
    let backend = db.backend();
    db.transaction("measure", move |tx| {
        Box::pin(async move {
            for sql in ["INSERT INTO a (id, n) VALUES ($1, 1)", "INSERT INTO b (id, n) VALUES ($1, 1)"] {
                let id = Uuid::now_v7().to_string();
                tx.execute_raw(sea_orm::Statement::from_sql_and_values(backend, sql, [id.into()])).await?;
            }
            let sql = "UPDATE c SET n = n + $1 WHERE id = 1";
            tx.execute_raw(sea_orm::Statement::from_sql_and_values(backend, sql, [1_i64.into()])).await?;
            Ok::<_, DatabaseError>(())
        })
    })
    .await
    .unwrap();
}
