//! Replicas of both services on databases and topics of one test's own.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use database::{ConnectOptions, Database, DatabaseError, testing::TestDatabase};
use futures_util::future::join_all;
use runtime::auth::{Secret, TokenSigner};
use sea_orm::{ConnectionTrait as _, Statement};
use tandem::prove::{Accepted, Verdict, compare_databases};

use crate::{
    kafka::delete_topics,
    replica::Replica,
    servers::Servers,
    support::{system::SECRET, until_within},
};

/// Tokens outlive every test.
const TOKEN_TTL: Duration = Duration::from_secs(3600);

/// Where one test's data is.
pub struct Places {
    pub orders_url: String,
    pub payments_url: String,
    pub kafka: String,
    /// In front of topics and groups.
    pub prefix: String,
}

/// How many replicas of each service, and what they are told besides where everything is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub orders: usize,
    pub payments: usize,
    /// `DRAIN_NOTICE`.
    pub drain_notice: &'static str,
}

impl Shape {
    /// So many of each. Nobody balances load over them, so they need not wait for anybody when they stop.
    pub fn of(replicas: usize) -> Self {
        Self { orders: replicas, payments: replicas, drain_notice: "0s" }
    }
}

/// Replicas of both services. The order replica with a number asks the payment replica with the same number, if there is one.
pub struct Cluster {
    pub orders: Vec<Replica>,
    pub payments: Vec<Replica>,
    pub places: Places,
    signer: TokenSigner,
    databases: Vec<TestDatabase>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Replicas that still run would create the topics anew.
        self.orders.clear();
        self.payments.clear();
        // On servers of its own everything is removed with them.
        if !self.databases.is_empty() {
            delete_topics(&self.places.kafka, &self.places.prefix);
        }
    }
}

impl Cluster {
    /// Starts replicas on the shared servers and waits until they are ready. `None`, loudly, without servers.
    pub async fn start(test: &str, shape: Shape) -> Option<Self> {
        let servers = Servers::shared()?;
        let orders = database::testing::postgres::<migrations::OrdersMigrator>().await?;
        let payments = database::testing::postgres::<migrations::PaymentsMigrator>().await?;
        let places = Places {
            orders_url: with_database(&servers.postgres, &orders),
            payments_url: with_database(&servers.postgres, &payments),
            kafka: servers.kafka,
            prefix: unique_prefix(test),
        };
        let mut cluster = Self::new(test, shape, places);
        cluster.databases = vec![orders, payments];
        cluster.start_all();
        cluster.ready().await;
        Some(cluster)
    }

    /// Not started yet.
    pub fn new(test: &str, shape: Shape, places: Places) -> Self {
        let log = |service: &str, number: usize| logs().join(test).join(format!("{service}-{number}.log"));
        let settings = |database: &str| {
            vec![
                ("DATABASE_URL", database.to_owned()),
                ("KAFKA_BROKERS", places.kafka.clone()),
                ("TOPIC_PREFIX", places.prefix.clone()),
                ("JWT_SECRET", SECRET.to_owned()),
                ("DRAIN_NOTICE", shape.drain_notice.to_owned()),
            ]
        };
        let payment = |number| Replica::new("payment-service", &log("payment-service", number), settings(&places.payments_url));
        let payments: Vec<Replica> = (0..shape.payments).map(payment).collect();
        let order = |number: usize| {
            let mut settings = settings(&places.orders_url);
            let payments = &payments[number % payments.len()];
            settings.push(("PAYMENTS_URL", format!("{}/graphql", payments.base())));
            Replica::new("order-service", &log("order-service", number), settings)
        };
        let orders = (0..shape.orders).map(order).collect();
        let signer = TokenSigner::new(&Secret::new(SECRET).unwrap());
        runtime::install_tls_provider();
        Self { orders, payments, places, signer, databases: Vec::new() }
    }

    /// Starts every replica and returns at once.
    pub fn start_all(&mut self) {
        self.all().for_each(Replica::start);
    }

    /// Waits until every replica is ready.
    pub async fn ready(&mut self) {
        join_all(self.all().map(Replica::ready)).await;
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.payments.iter_mut().chain(self.orders.iter_mut())
    }

    /// Of every order replica.
    pub fn bases(&self) -> Vec<String> {
        self.orders.iter().map(Replica::base).collect()
    }

    pub fn token(&self, user: &str) -> String {
        self.signer.sign::<&str>(user, &[], TOKEN_TTL).unwrap()
    }

    /// A connection to Order Service's database.
    pub async fn orders_db(&self) -> Database {
        connect(&self.places.orders_url).await
    }

    /// A connection to Payments Service's database.
    pub async fn payments_db(&self) -> Database {
        connect(&self.places.payments_url).await
    }

    /// What the clients were told against what is stored.
    pub async fn verdict(&self, accepted: &Accepted, kills: usize) -> Verdict {
        let (orders, payments) = (self.orders_db().await, self.payments_db().await);
        let verdict = compare_databases(&orders, &payments, accepted, kills).await.unwrap();
        orders.close().await;
        payments.close().await;
        verdict
    }

    /// Waits until no order is PENDING; answers how long it took.
    pub async fn settled(&self, within: Duration) -> Duration {
        let orders = self.orders_db().await;
        let took =
            until_within(within, "every order is final", async || count(&orders, "orders WHERE status = 'PENDING'").await == 0)
                .await;
        orders.close().await;
        took
    }
}

async fn connect(url: &str) -> Database {
    let options = ConnectOptions { write_connections: 2, read_connections: 2, ..ConnectOptions::new("tandem-test") };
    Database::connect(&url.parse().unwrap(), &options).await.unwrap()
}

/// How many rows a table has, with an optional condition.
pub async fn count(db: &Database, rows: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) AS count FROM {rows}");
    let row = db.reader().query_one_raw(Statement::from_string(db.backend(), sql)).await.unwrap().unwrap();
    row.try_get("", "count").unwrap()
}

/// Changes a database behind its service's back; answers how many rows.
pub async fn change(db: &Database, sql: &'static str) -> u64 {
    let changed = db.transaction("test", move |tx| {
        Box::pin(async move {
            let statement = Statement::from_string(tx.get_database_backend(), sql);
            Ok::<_, DatabaseError>(tx.execute_raw(statement).await?.rows_affected())
        })
    });
    changed.await.unwrap()
}

/// The test database's own URL, with the password that its display leaves out.
pub fn with_database(server: &str, database: &TestDatabase) -> String {
    let shown = database.url().to_string();
    let name = shown.rsplit('/').next().unwrap();
    let (server, query) = server.split_once('?').map_or((server, String::new()), |(server, query)| (server, format!("?{query}")));
    let (server, _) = server.rsplit_once('/').unwrap();
    format!("{server}/{name}{query}")
}

/// Nobody else has topics or groups with this prefix.
pub fn unique_prefix(test: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    format!("{test}-{}-{now}-", std::process::id())
}

fn logs() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cluster")
}
