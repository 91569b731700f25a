//! Databases as they are after many orders: written in bulk, and as consistent as if each order had gone its way.
//!
//! All orders are paid, in turn by each user, from an account that was topped up once. Ids and positions ascend with time, as theirs do.
//! Outboxes and inbox are empty, because their rows are removed after a while.

use database::{ConnectOptions, Database, DatabaseUrl};
use migrations::{OrdersMigrator, PaymentsMigrator};
use schema::Timestamp;
use sea_orm::ConnectionTrait as _;

use super::{Stage, user_name};
use crate::bench::{BenchError, stage::servers::Servers};

/// Between two orders.
const STEP_MS: i64 = 20;
/// What each account was topped up with: more than is ever spent.
const TOP_UP_MINOR: i64 = 100_000_000;

/// So many orders, so many for each user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed {
    /// Users 0, 1, …; each has an account.
    pub users: i64,
    /// Of each of them.
    pub orders_per_user: i64,
}

impl Seed {
    /// How many there are.
    pub fn orders(self) -> i64 {
        self.users * self.orders_per_user
    }

    /// Starts a stage on databases that hold these orders.
    ///
    /// # Errors
    /// As [`Stage::start`].
    pub async fn start(self, servers: &Servers, name: &str) -> Result<Stage, BenchError> {
        let (orders_db, payments_db) = Stage::create_databases(servers, name).await?;
        let common = self.common(Timestamp::now().0);
        let database = connect(&orders_db).await?;
        database.migrate::<OrdersMigrator>().await.map_err(BenchError::unexpected)?;
        database.close().await;
        let database = connect(&payments_db).await?;
        database.migrate::<PaymentsMigrator>().await.map_err(BenchError::unexpected)?;
        database.close().await;
        fill(&orders_db, &common, &self.orders_sql()).await?;
        fill(&payments_db, &common, &self.payments_sql()).await?;
        Stage::start_on(servers, name, &orders_db, &payments_db).await
    }

    /// What both services know of each order, as a table; the same values on both sides, without either asking the other.
    fn common(self, now_ms: i64) -> String {
        let Self { users, .. } = self;
        let (orders, user) = (self.orders(), user_name(0));
        let user = user.trim_end_matches('0');
        let first_ms = now_ms - orders * STEP_MS;
        format!(
            "CREATE FUNCTION pg_temp.seed_id(kind text, number bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
                SELECT (lpad(to_hex({first_ms} + number * {STEP_MS}), 12, '0') || '7' || substr(md5(kind || number), 1, 3) || '8'
                    || substr(md5(kind || number), 4, 15))::uuid $$;
             CREATE TEMPORARY TABLE seed AS SELECT n AS number, pg_temp.seed_id('order', n) AS id, pg_temp.seed_id('result', n) AS result_id,
                (n - 1) % {users} AS user_number, '{user}' || (n - 1) % {users} AS user_id, (n - 1) / {users} AS nth_of_user,
                {first_ms} + n * {STEP_MS} AS at_ms FROM generate_series(1::bigint, {orders}) AS n;"
        )
    }

    /// Of Order Service: an order and its two events.
    fn orders_sql(self) -> String {
        let orders = self.orders();
        format!(
            "INSERT INTO orders (id, number, user_id, total_minor, currency, description, status, version, updated_at_ms, task_event_id,
                idempotency_key, idempotency_hash)
             SELECT id, number, user_id, 1, 'EUR', 'A pair of socks', 'PAID', 2, at_ms + 10, pg_temp.seed_id('task', number),
                'seed-' || number, decode(md5(number::text) || md5(number::text), 'hex') FROM seed ORDER BY number;
             INSERT INTO order_events (position, order_id, user_id, version, status, occurred_at_ms, source_event_id)
             SELECT 2 * number - 2 + version, id, user_id, version, CASE version WHEN 1 THEN 'PENDING' ELSE 'PAID' END,
                at_ms + 10 * (version - 1), CASE version WHEN 2 THEN result_id END
             FROM seed, generate_series(1, 2) AS version ORDER BY number, version;
             UPDATE event_cursor SET next = {orders} * 2 + 1;
             SELECT setval('order_number', {orders});"
        )
    }

    /// Of Payments Service: each user's account and top-up, and each order's debit and decision.
    fn payments_sql(self) -> String {
        let Self { users, orders_per_user, .. } = self;
        format!(
            "CREATE TEMPORARY TABLE seed_accounts AS SELECT user_number, user_id, pg_temp.seed_id('account', user_number) AS id,
                min(at_ms) AS at_ms FROM seed GROUP BY user_number, user_id;
             INSERT INTO accounts (id, user_id, currency, balance_minor, entry_count, created_at_ms)
             SELECT id, user_id, 'EUR', {TOP_UP_MINOR} - {orders_per_user}, {orders_per_user} + 1, at_ms FROM seed_accounts;
             INSERT INTO ledger_entries (id, account_id, number, kind, amount_minor, balance_after_minor, created_at_ms)
             SELECT pg_temp.seed_id('top-up', user_number), id, 1, 'TOP_UP', {TOP_UP_MINOR}, {TOP_UP_MINOR}, at_ms FROM seed_accounts;
             INSERT INTO ledger_entries (id, account_id, number, kind, amount_minor, balance_after_minor, order_id, created_at_ms)
             SELECT pg_temp.seed_id('entry', number), pg_temp.seed_id('account', user_number), nth_of_user + 2, 'DEBIT', -1,
                {TOP_UP_MINOR} - nth_of_user - 1, id, at_ms + 5 FROM seed ORDER BY number;
             INSERT INTO payments (order_id, user_id, amount_minor, currency, outcome, entry_id, result_event_id, decided_at_ms)
             SELECT id, user_id, 1, 'EUR', 'PAID', pg_temp.seed_id('entry', number), result_id, at_ms + 5 FROM seed ORDER BY number;
             DO $$ BEGIN ASSERT (SELECT count(*) FROM accounts) = {users}; END $$;"
        )
    }
}

/// As the services do.
async fn connect(url: &str) -> Result<Database, BenchError> {
    let url: DatabaseUrl = url.parse().map_err(BenchError::unexpected)?;
    Database::connect(&url, &ConnectOptions::new("tandem-bench")).await.map_err(BenchError::unexpected)
}

/// Writes in bulk; afterwards the database is as tidy as one that has had time.
async fn fill(url: &str, common: &str, sql: &str) -> Result<(), BenchError> {
    // One connection, which has the temporary table.
    let mut options = sea_orm::ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    let db = sea_orm::Database::connect(options).await?;
    db.execute_unprepared(&format!("{common} ANALYZE seed; {sql}")).await?;
    // Neither may be part of more than one statement. What was written is then on the disk, and the next checkpoint has nothing of it.
    db.execute_unprepared("VACUUM (ANALYZE)").await?;
    db.execute_unprepared("CHECKPOINT").await?;
    db.close().await?;
    Ok(())
}
