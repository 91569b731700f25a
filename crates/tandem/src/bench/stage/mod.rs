//! A cluster for one figure: fresh databases and topics on the run's servers, and one replica of each service.

pub mod replica;
pub mod seed;
pub mod servers;

use std::{net::SocketAddr, process::Stdio};

use runtime::auth::{Secret, TokenSigner};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, Statement};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use self::servers::Servers;
use super::{BenchError, load::Target, report::LOGS, verify::Earlier};

/// Signs the tokens of a cluster that only this machine can reach.
const SECRET: &str = "only-for-the-benchmark-on-this-machine";

/// Databases, topics and services of one figure.
pub struct Stage {
    /// Order Service.
    pub orders: Replica,
    /// Payments Service.
    pub payments: Replica,
    /// Order Service's database.
    pub orders_db: DatabaseConnection,
    /// Payments Service's database.
    pub payments_db: DatabaseConnection,
    servers: Servers,
    name: String,
    /// In front of its topics.
    pub topic_prefix: String,
    /// What was stored before the load that is verified.
    pub earlier: Earlier,
}

/// A running process of one service.
pub struct Replica {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its plain subgraph.
    pub subgraph: SocketAddr,
    /// Its process.
    pub pid: u32,
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Stage {
    /// Starts both services on fresh databases and topics called after `name`.
    ///
    /// # Errors
    /// When a database cannot be made or a service does not start.
    pub async fn start(servers: &Servers, name: &str) -> Result<Self, BenchError> {
        let (orders_url, payments_url) = Self::create_databases(servers, name).await?;
        Self::start_on(servers, name, &orders_url, &payments_url).await
    }

    /// Makes both databases, empty, and answers their URLs.
    ///
    /// # Errors
    /// What the server says.
    pub async fn create_databases(servers: &Servers, name: &str) -> Result<(String, String), BenchError> {
        let (orders, payments) = (Self::orders_database(name), Self::payments_database(name));
        create_database(servers, &orders).await?;
        create_database(servers, &payments).await?;
        Ok((servers.database(&orders), servers.database(&payments)))
    }

    /// What Order Service's database of this stage is called.
    pub fn orders_database(name: &str) -> String {
        format!("bench_{name}_orders")
    }

    /// What Payments Service's database of this stage is called.
    pub fn payments_database(name: &str) -> String {
        format!("bench_{name}_payments")
    }

    /// Starts both services on these databases and fresh topics called after `name`.
    ///
    /// # Errors
    /// When a service does not start.
    pub async fn start_on(servers: &Servers, name: &str, orders_db: &str, payments_db: &str) -> Result<Self, BenchError> {
        // Topics of an earlier run on the same Kafka are another's.
        let topic_prefix = format!("bench-{name}-{}.", std::process::id());
        let settings = [("KAFKA_BROKERS", servers.kafka.as_str()), ("TOPIC_PREFIX", &topic_prefix), ("JWT_SECRET", SECRET)];
        let payments = Replica::start("payments", settings.into_iter().chain([("DATABASE_URL", payments_db)])).await?;
        let payments_url = format!("http://{}/graphql", payments.address);
        let own = [("DATABASE_URL", orders_db), ("PAYMENTS_URL", payments_url.as_str())];
        let orders = Replica::start("orders", settings.into_iter().chain(own)).await?;
        let orders_db = sea_orm::Database::connect(orders_db).await?;
        let payments_db = sea_orm::Database::connect(payments_db).await?;
        let earlier = Earlier::all(&orders_db).await?;
        let (servers, name) = (servers.clone(), name.to_owned());
        Ok(Self { orders, payments, orders_db, payments_db, servers, name, topic_prefix, earlier })
    }

    /// Where load goes, signed in as `users` different users.
    ///
    /// # Errors
    /// When a token cannot be signed.
    pub fn target(&self, users: usize) -> Result<Target, BenchError> {
        Target::new(self.orders.address, &TokenSigner::new(&Secret::new(SECRET).map_err(BenchError::unexpected)?), users)
    }

    /// Events of orders that are committed; one row is read.
    ///
    /// # Errors
    /// What the database says.
    pub async fn events(&self) -> Result<i64, BenchError> {
        number(&self.orders_db, "SELECT next - 1 FROM event_cursor").await
    }

    /// Stops both services, Order Service first, and deletes their databases: a whole run stores several million orders, and disks are not endless.
    ///
    /// # Errors
    /// When one of them fails on the way.
    pub async fn stop(self) -> Result<(), BenchError> {
        self.orders.stop().await?;
        self.payments.stop().await?;
        self.orders_db.close().await?;
        self.payments_db.close().await?;
        drop_database(&self.servers, &Self::orders_database(&self.name)).await?;
        drop_database(&self.servers, &Self::payments_database(&self.name)).await
    }
}

fn log(service: &str) -> Result<std::fs::File, BenchError> {
    let folder = std::path::Path::new(LOGS);
    std::fs::create_dir_all(folder)?;
    Ok(std::fs::OpenOptions::new().create(true).append(true).open(folder.join(format!("{service}.log")))?)
}

/// What the user with this number is called.
pub fn user_name(user: usize) -> String {
    format!("bench-user-{user}")
}

impl Replica {
    async fn start<'a>(service: &str, settings: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, BenchError> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench-replica", service])
            .env_remove("JWT_SECRET")
            .envs(settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // As verbose as without further settings, but not to the person who waits for figures.
            .stderr(log(service)?)
            .kill_on_drop(true)
            .spawn()?;
        let ended = || BenchError::Unexpected(format!("{service} ended before it was ready"));
        let (Some(commands), Some(answers), Some(pid)) = (child.stdin.take(), child.stdout.take(), child.id()) else {
            return Err(ended());
        };
        let mut answers = BufReader::new(answers).lines();
        let line = answers.next_line().await?.ok_or_else(ended)?;
        let addresses: Vec<SocketAddr> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        match addresses[..] {
            [address, subgraph] => Ok(Self { address, subgraph, pid, child, commands, answers }),
            _ => Err(BenchError::Unexpected(format!("{service} said {line:?}"))),
        }
    }

    /// Holds what goes on behind the API, through the app's own handle; answers when nothing is under way any more.
    ///
    /// # Errors
    /// When the process is gone.
    pub async fn pause(&mut self) -> Result<(), BenchError> {
        self.command("pause").await
    }

    /// Goes on.
    ///
    /// # Errors
    /// When the process is gone.
    pub async fn resume(&mut self) -> Result<(), BenchError> {
        self.command("resume").await
    }

    async fn command(&mut self, command: &str) -> Result<(), BenchError> {
        self.commands.write_all(format!("{command}\n").as_bytes()).await?;
        match self.answers.next_line().await? {
            Some(answer) if answer == command => Ok(()),
            answer => Err(BenchError::Unexpected(format!("{command}: {answer:?}"))),
        }
    }

    async fn stop(mut self) -> Result<(), BenchError> {
        drop(self.commands);
        let status = self.child.wait().await?;
        if status.success() { Ok(()) } else { Err(BenchError::Unexpected(format!("a replica ended with {status}"))) }
    }
}

/// Makes an empty database.
///
/// # Errors
/// What the server says.
pub async fn create_database(servers: &Servers, name: &str) -> Result<(), BenchError> {
    drop_database(servers, name).await?;
    execute(&servers.postgres, &format!("CREATE DATABASE {name}")).await
}

/// Deletes a database, whoever uses it, if there is one.
///
/// # Errors
/// What the server says.
async fn drop_database(servers: &Servers, name: &str) -> Result<(), BenchError> {
    execute(&servers.postgres, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
}

/// Runs statements on a database.
///
/// # Errors
/// What it says.
pub async fn execute(url: &str, sql: &str) -> Result<(), BenchError> {
    let db = sea_orm::Database::connect(url).await?;
    db.execute_unprepared(sql).await?;
    db.close().await?;
    Ok(())
}

/// The single number that a query answers.
///
/// # Errors
/// What the database says.
pub async fn number(db: &DatabaseConnection, sql: &str) -> Result<i64, BenchError> {
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
    let row = row.ok_or_else(|| BenchError::Unexpected(format!("no row for {sql}")))?;
    Ok(row.try_get_by_index(0)?)
}
