//! Migrations when several replicas start at once.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use std::time::Duration;

use database::{ConnectOptions, Database, DatabaseUrl, testing};
use sea_orm::DbErr;
use sea_orm_migration::prelude::*;
use support::count;

struct Empty;

impl MigratorTrait for Empty {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Vec::new()
    }
}

struct SlowMigrator;

impl MigratorTrait for SlowMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(Slow)]
    }
}

struct Slow;

impl MigrationName for Slow {
    fn name(&self) -> &str {
        "m1_slow"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Slow {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        // Not repeatable, and longer than a statement may take in normal work.
        connection.execute_unprepared("CREATE TABLE entries (id BIGINT PRIMARY KEY)").await?;
        connection.execute_unprepared("SELECT pg_sleep(1)").await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_at_once_migrate_once_and_none_is_killed_while_waiting() {
    let Some(db) = testing::postgres::<Empty>().await else { return };
    let options = ConnectOptions {
        statement_timeout: Duration::from_millis(200),
        lock_timeout: Duration::from_millis(100),
        ..testing::options()
    };
    let replicas = (0..4).map(|_| async {
        let replica = Database::connect(db.url(), &options).await.unwrap();
        replica.migrate::<SlowMigrator>().await
    });
    futures_util::future::try_join_all(replicas).await.unwrap();
    assert_eq!(count(&db).await, 0);
}

struct HalfMigrator;

impl MigratorTrait for HalfMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(Half)]
    }
}

struct Half;

impl MigrationName for Half {
    fn name(&self) -> &str {
        "m1_half"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Half {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        connection.execute_unprepared("CREATE TABLE entries (id BIGINT PRIMARY KEY)").await?;
        connection.execute_unprepared("CREATE TABLE entries (id BIGINT PRIMARY KEY)").await?;
        Ok(())
    }
}

#[tokio::test]
async fn a_migration_that_fails_half_way_leaves_nothing_behind() {
    for db in testing::each_backend::<Empty>().await {
        for _ in 0..2 {
            let error = db.migrate::<HalfMigrator>().await.unwrap_err();
            assert!(error.to_string().contains("already exists"), "{error}");
        }
        // Were the first table still there, this would fail.
        db.transaction("create", |tx| {
            Box::pin(async move {
                tx.execute_unprepared("CREATE TABLE entries (id BIGINT PRIMARY KEY)").await?;
                Ok::<_, database::DatabaseError>(())
            })
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::sqlite(folder.path().join("twice.db"));
    for _ in 0..2 {
        let db = Database::connect(&url, &testing::options()).await.unwrap();
        db.migrate::<support::Migrator>().await.unwrap();
        db.migrate::<support::Migrator>().await.unwrap();
        db.close().await;
    }
}
