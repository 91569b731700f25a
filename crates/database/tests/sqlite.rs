//! What only SQLite has: the file, its lock, its log and its own ideas about rollback.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use database::{ConnectOptions, Database, DatabaseError, DatabaseUrl, testing};
use sea_orm::sqlx::{Connection as _, Executor as _, SqliteConnection};
use sea_orm::{ConnectionTrait, Statement};
use support::{Migrator, PATIENCE, count, insert, insert_in_transaction};
use tokio::sync::watch;

fn path_of(db: &Database) -> PathBuf {
    match db.url() {
        DatabaseUrl::Sqlite(path) => path.clone(),
        url => panic!("{url} is no file"),
    }
}

async fn pragma(db: &Database, name: &'static str) -> i64 {
    db.transaction("pragma", move |tx| {
        Box::pin(async move {
            let statement = Statement::from_string(sea_orm::DbBackend::Sqlite, format!("PRAGMA {name}"));
            Ok::<_, DatabaseError>(tx.query_one_raw(statement).await?.unwrap().try_get_by_index(0)?)
        })
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_second_process_is_kept_away_until_the_first_closes() {
    let db = testing::sqlite::<Migrator>().await;
    let path = path_of(&db);
    // The lock belongs to the open file, so a second handle stands for a second process. Another
    // spelling of the path must not get around it.
    let folder = path.parent().unwrap();
    let detour = folder.join("..").join(folder.file_name().unwrap()).join("test.db");
    for path in [path.clone(), detour] {
        let error = Database::connect(&DatabaseUrl::Sqlite(path), &testing::options()).await.unwrap_err();
        assert!(matches!(error, DatabaseError::InUse { .. }), "{error}");
        assert!(!error.is_transient());
    }
    (*db).clone().close().await;
    let again = Database::connect(db.url(), &testing::options()).await.unwrap();
    assert_eq!(count(&again).await, 0);
}

#[tokio::test]
async fn a_missing_folder_is_created_and_an_impossible_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/c.db");
    let db = Database::connect(&DatabaseUrl::sqlite(&path), &testing::options()).await.unwrap();
    db.close().await;
    assert!(path.exists());

    let below_a_file = path.join("d/e.db");
    let error = Database::connect(&DatabaseUrl::sqlite(&below_a_file), &testing::options()).await.unwrap_err();
    assert!(matches!(error, DatabaseError::Unwritable { .. }), "{error}");
    assert!(error.to_string().contains("a/b/c.db/d"), "{error}");
}

#[tokio::test]
async fn commits_are_durable_and_foreign_keys_are_checked() {
    let db = testing::sqlite::<Migrator>().await;
    const FULL: i64 = 2;
    assert_eq!(pragma(&db, "synchronous").await, FULL);
    assert_eq!(pragma(&db, "foreign_keys").await, 1);
    assert!(path_of(&db).with_extension("db-wal").exists());
}

#[tokio::test]
async fn a_rollback_by_sqlite_itself_does_not_break_the_next_transaction() {
    let db = testing::sqlite::<Migrator>().await;
    insert_in_transaction(&db, 1).await.unwrap();
    db.transaction("rolled back", |tx| {
        Box::pin(async move {
            insert(tx, 2).await?;
            tx.execute_unprepared("INSERT OR ROLLBACK INTO entries (id, amount) VALUES (1, 1)").await?;
            Ok::<_, DatabaseError>(())
        })
    })
    .await
    .unwrap_err();
    // Atomic again, on a clean connection.
    db.transaction("fails", |tx| {
        Box::pin(async move {
            insert(tx, 3).await?;
            Ok::<_, DatabaseError>(insert(tx, 1).await?)
        })
    })
    .await
    .unwrap_err();
    insert_in_transaction(&db, 4).await.unwrap();
    assert_eq!(count(&db).await, 2);
}

#[tokio::test]
async fn a_full_disk_is_transient_and_heals() {
    let db = testing::sqlite::<Migrator>().await;
    let pages = pragma(&db, "page_count").await;
    let limit = async |pages: i64| {
        db.transaction("limit", move |tx| {
            Box::pin(async move {
                tx.execute_unprepared(&format!("PRAGMA max_page_count = {pages}")).await?;
                Ok::<_, DatabaseError>(())
            })
        })
        .await
        .unwrap();
    };
    limit(pages).await;
    let fill = || {
        db.transaction("fill", |tx| {
            Box::pin(async move {
                for id in 0..1_000 {
                    insert(tx, id).await?;
                }
                Ok::<_, DatabaseError>(())
            })
        })
    };
    let error = fill().await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("full"), "{error}");
    assert_eq!(count(&db).await, 0);
    limit(1_000_000).await;
    fill().await.unwrap();
    assert_eq!(count(&db).await, 1_000);
}

#[tokio::test]
async fn a_foreign_tool_that_holds_the_lock_is_a_transient_error() {
    let options = ConnectOptions { busy_timeout: Duration::from_millis(50), ..testing::options() };
    let db = testing::sqlite_with::<Migrator>(&options).await;
    let mut tool = SqliteConnection::connect(&format!("sqlite://{}", path_of(&db).display())).await.unwrap();
    tool.execute("BEGIN IMMEDIATE").await.unwrap();
    let error = insert_in_transaction(&db, 1).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    tool.execute("ROLLBACK").await.unwrap();
    insert_in_transaction(&db, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_bounded_under_steady_reads() {
    const LIMIT: u64 = 1024 * 1024;
    let options = ConnectOptions { wal_limit_bytes: LIMIT, ..testing::options() };
    let db = testing::sqlite_with::<Migrator>(&options).await;
    // Snapshots that overlap for ever: there is no moment without a reader.
    let (reading, mut readers_reading) = watch::channel(0);
    let reads: Vec<_> = (0..4)
        .map(|turn| {
            let reading = reading.clone();
            let url = format!("sqlite://{}", path_of(&db).display());
            tokio::spawn(async move {
                let mut connection = SqliteConnection::connect(&url).await.unwrap();
                tokio::time::sleep(Duration::from_millis(7) * turn).await;
                loop {
                    connection.execute("BEGIN; SELECT COUNT(*) FROM entries").await.unwrap();
                    reading.send_modify(|count| *count += 1);
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    connection.execute("COMMIT").await.unwrap();
                }
            })
        })
        .collect();
    let wal = path_of(&db).with_extension("db-wal");
    let size = || wal.metadata().unwrap().len();
    let write = async |batch: u32| {
        db.transaction("batch", move |tx| {
            Box::pin(async move {
                // Some 80 KiB of changed pages.
                tx.execute_unprepared(&format!(
                    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20)
                     INSERT INTO entries (id, amount) SELECT (i * 1000003 + {batch} * 7919) % 100000007, 1 FROM n"
                ))
                .await?;
                Ok::<_, DatabaseError>(())
            })
        })
        .await
        .unwrap();
    };
    readers_reading.wait_for(|count| *count > 8).await.unwrap();
    let mut batch = 0;
    let mut write_until = async |done: &dyn Fn() -> bool| {
        let writing = async {
            while !done() {
                batch += 1;
                write(batch).await;
            }
        };
        tokio::time::timeout(PATIENCE, writing).await.unwrap();
    };
    write_until(&|| size() > 2 * LIMIT).await;
    write_until(&|| size() <= LIMIT).await;
    reads.iter().for_each(tokio::task::JoinHandle::abort);
}
