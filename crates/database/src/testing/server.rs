//! Databases of tests on a PostgreSQL server: one migrated template per test program and migrator,
//! and a copy of it for each test.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sea_orm::sqlx::postgres::PgConnection;
use sea_orm::sqlx::{AssertSqlSafe, Connection as _, Error as SqlxError, Executor as _, query_scalar};
use sea_orm_migration::MigratorTrait;
use tokio::sync::Mutex;

use super::{options, or_panic};
use crate::database::Database;
use crate::postgres::connect_once;
use crate::url::{DatabaseUrl, PostgresUrl};

const TEST_PREFIX: &str = "tandem_test_";
const TEMPLATE_PREFIX: &str = "tandem_template_";

/// Held in the server's own database while a template is made, by one process at a time.
const TEMPLATE_LOCK: i64 = 0x0074_656d_706c_6174;

/// A test's database that is older belongs to a run that was killed. No test runs for so long.
const LEFTOVER_AGE: Duration = Duration::from_secs(60 * 60);

/// Leftovers removed per start of a test program: each costs tens of milliseconds.
const LEFTOVERS_MAX: usize = 50;

/// Templates kept on the server: those of the test programs built last. Each is some 8 MB.
const TEMPLATES_KEPT: usize = 16;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The templates that this process has made or seen.
static KNOWN_TEMPLATES: Mutex<Option<HashSet<String>>> = Mutex::const_new(None);

/// Creates a database for one test and answers its name.
pub(super) async fn create_from_template<M: MigratorTrait>(server: &PostgresUrl) -> String {
    let template = template_name::<M>();
    {
        let mut known = KNOWN_TEMPLATES.lock().await;
        if !known.as_ref().is_some_and(|known| known.contains(&template)) {
            or_panic(make_template::<M>(server, &template, known.is_none()).await, "making the template database");
            known.get_or_insert_default().insert(template.clone());
        }
    }
    let name = test_name();
    let mut admin = or_panic(connect(server).await, "connecting to the test server");
    let created = run(&mut admin, format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
    or_panic(created, "creating the test's database");
    // An error while leaving means nothing.
    let _ = admin.close().await;
    name
}

/// Drops the database of a test, also when the test panicked and connections are still open. Runs
/// on a thread of its own, because the caller is a destructor inside of an async runtime.
pub(super) fn drop_database(server: &PostgresUrl, name: &str) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(async {
                // What cannot be dropped is a leftover for a later run.
                if let Ok(mut admin) = connect(server).await {
                    let _ = run(&mut admin, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
                }
            });
        });
    });
}

async fn make_template<M: MigratorTrait>(
    server: &PostgresUrl,
    template: &str,
    first_in_process: bool,
) -> Result<(), crate::DatabaseError> {
    let failed = |error| crate::postgres::connect_error(server.to_string(), error);
    let mut admin = connect(server).await?;
    sea_orm::sqlx::query("SELECT pg_advisory_lock($1)").bind(TEMPLATE_LOCK).execute(&mut admin).await.map_err(failed)?;
    if first_in_process {
        remove_leftovers(&mut admin).await.map_err(failed)?;
    }
    let exists: bool = query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(template)
        .fetch_one(&mut admin)
        .await
        .map_err(failed)?;
    if !exists {
        // Under another name until it is complete: this process may be killed in between.
        let unfinished = format!("{template}_new");
        run(&mut admin, format!("DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)")).await.map_err(failed)?;
        run(&mut admin, format!("CREATE DATABASE {unfinished}")).await.map_err(failed)?;
        let url = DatabaseUrl::Postgres(server.with_database(&unfinished));
        let database = Database::connect(&url, &options()).await?;
        database.migrate::<M>().await?;
        database.close().await;
        run(&mut admin, format!("ALTER DATABASE {unfinished} RENAME TO {template}")).await.map_err(failed)?;
    }
    // Ends the session, and with it the lock.
    let _ = admin.close().await;
    Ok(())
}

/// Removes what killed runs left behind, and the templates of old builds. Databases in use stay.
async fn remove_leftovers(admin: &mut PgConnection) -> Result<(), SqlxError> {
    let names: Vec<String> = query_scalar("SELECT datname FROM pg_database WHERE datname LIKE 'tandem\\_te%' ORDER BY oid DESC")
        .fetch_all(&mut *admin)
        .await?;
    let oldest_ms = now_ms().saturating_sub(LEFTOVER_AGE.as_millis());
    let tests = names.iter().filter(|name| created_ms(name).is_some_and(|created| created < oldest_ms));
    let templates = names.iter().filter(|name| name.starts_with(TEMPLATE_PREFIX)).skip(TEMPLATES_KEPT);
    for name in tests.chain(templates).take(LEFTOVERS_MAX) {
        let _ = run(admin, format!("DROP DATABASE IF EXISTS {name}")).await;
    }
    Ok(())
}

async fn connect(server: &PostgresUrl) -> Result<PgConnection, crate::DatabaseError> {
    connect_once(server, server.options(), CONNECT_TIMEOUT).await
}

/// For statements whose names are made here.
async fn run(admin: &mut PgConnection, sql: String) -> Result<(), SqlxError> {
    admin.execute(AssertSqlSafe(sql)).await.map(|_| ())
}

/// The template's name follows from the migrations and from the program's build, so that an edited
/// migration never meets the template of its former text.
fn template_name<M: MigratorTrait>() -> String {
    let mut hasher = DefaultHasher::new();
    for migration in M::migrations() {
        migration.name().hash(&mut hasher);
    }
    if let Ok(program) = std::env::current_exe() {
        program.hash(&mut hasher);
        if let Ok(metadata) = program.metadata() {
            metadata.len().hash(&mut hasher);
            metadata.modified().ok().hash(&mut hasher);
        }
    }
    format!("{TEMPLATE_PREFIX}{:016x}", hasher.finish())
}

/// `tandem_test_<created, ms>_<process>_<counter>`
fn test_name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{TEST_PREFIX}{}_{}_{counter}", now_ms(), std::process::id())
}

fn created_ms(name: &str) -> Option<u128> {
    name.strip_prefix(TEST_PREFIX)?.split('_').next()?.parse().ok()
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}
