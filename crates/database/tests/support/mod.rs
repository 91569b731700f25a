//! A tiny schema, and a network that can be cut.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "called by tests only")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use database::{Database, DatabaseError, DatabaseUrl};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use sea_orm_migration::prelude::*;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Everything in these tests is over long before; a test that hangs fails instead.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(Tables)]
    }
}

struct Tables;

impl MigrationName for Tables {
    fn name(&self) -> &str {
        "m1_tables"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Tables {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        for sql in [
            "CREATE TABLE entries (id BIGINT PRIMARY KEY, amount BIGINT NOT NULL CONSTRAINT amount_is_positive CHECK (amount > 0))",
            "CREATE TABLE notes (
                 id BIGINT PRIMARY KEY,
                 entry BIGINT NOT NULL REFERENCES entries (id) DEFERRABLE INITIALLY DEFERRED)",
        ] {
            connection.execute_unprepared(sql).await?;
        }
        Ok(())
    }
}

pub async fn insert(connection: &impl ConnectionTrait, id: i64) -> Result<(), DbErr> {
    let sql = "INSERT INTO entries (id, amount) VALUES ($1, 1)";
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, [id.into()]);
    connection.execute_raw(statement).await.map(|_| ())
}

pub async fn insert_in_transaction(db: &Database, id: i64) -> Result<(), DatabaseError> {
    db.transaction("insert", move |tx| Box::pin(async move { Ok(insert(tx, id).await?) })).await
}

pub async fn count(db: &Database) -> i64 {
    let statement = Statement::from_string(db.backend(), "SELECT COUNT(*) FROM entries");
    let row = db.reader().query_one_raw(statement).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}

/// Stands between a client and the server, and can go silent, in one direction or both, without closing anything: what a cut network looks like.
pub struct Network {
    pub address: SocketAddr,
    to_server: Arc<watch::Sender<bool>>,
    to_client: Arc<watch::Sender<bool>>,
    requests: Arc<AtomicUsize>,
}

impl Network {
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, server)
    }

    pub fn on(listener: TcpListener, server: SocketAddr) -> Self {
        let address = listener.local_addr().unwrap();
        let silent = || Arc::new(watch::Sender::new(false));
        let network = Self { address, to_server: silent(), to_client: silent(), requests: Arc::default() };
        let (silent_to_server, silent_to_client) = (network.to_server.clone(), network.to_client.clone());
        let requests = network.requests.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (silent_to_server, silent_to_client) = (silent_to_server.clone(), silent_to_client.clone());
                let requests = requests.clone();
                tokio::spawn(async move {
                    // A connection made while the network is cut waits as well.
                    silent_to_server.subscribe().wait_for(|silent| !silent).await.unwrap();
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::spawn(forward(from_client, to_server, silent_to_server.subscribe(), requests));
                    forward(from_server, to_client, silent_to_client.subscribe(), Arc::default()).await;
                });
            }
        });
        network
    }

    pub fn cut(&self) {
        self.cut_requests();
        self.to_client.send_replace(true);
    }

    /// What the server has been asked for is answered, and nothing else.
    pub fn cut_requests(&self) {
        self.to_server.send_replace(true);
    }

    /// How often the server was asked for something so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn heal(&self) {
        self.to_server.send_replace(false);
        self.to_client.send_replace(false);
    }
}

async fn forward(
    from: tokio::net::tcp::OwnedReadHalf,
    to: tokio::net::tcp::OwnedWriteHalf,
    mut silent: watch::Receiver<bool>,
    pieces: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 64 * 1024];
    // What was under way when the network was cut is lost for good: the connection stays silent.
    let was_cut = async {
        let _ = silent.wait_for(|silent| *silent).await;
    };
    let copy = async {
        loop {
            if from.readable().await.is_err() {
                return;
            }
            match from.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    pieces.fetch_add(1, Ordering::SeqCst);
                    if write_all(&to, &buffer[..count]).await.is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    tokio::select! {
        () = copy => {}
        () = was_cut => std::future::pending().await,
    }
}

async fn write_all(to: &tokio::net::tcp::OwnedWriteHalf, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Where the test's PostgreSQL database is, and the URL with another host and port in front.
pub fn address_of(db: &Database) -> SocketAddr {
    let shown = db.url().to_string();
    let (_, rest) = shown.split_once('@').unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

pub fn url_through(db: &Database, address: SocketAddr) -> DatabaseUrl {
    let shown = db.url().to_string();
    let name = shown.rsplit('/').next().unwrap();
    let server = std::env::var(database::testing::POSTGRES_URL).unwrap();
    let (user, _) = server.split_once('@').unwrap();
    format!("{user}@{address}/{name}?sslmode=disable").parse().unwrap()
}

/// Ends every other session of the test's database, as a restart of the server does.
pub async fn end_sessions(db: &Database) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    db.reader().query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap();
}
