//! Figure 3: debits on one hot account, from tasks that wait in Kafka to the committed ledger, against `pgbench` debiting one row.
//!
//! 1. Payments Service's consumer is held while the tasks are published, as Order Service publishes them.
//! 2. The consumer goes on, and the time runs until the last tasks of all partitions are decided.
//! 3. Decisions, debits and balances are compared with the tasks.
//!
//! Order Service stays paused: results of orders that it does not have would be dead letters.

use std::time::Duration;

use messaging::{
    Broker as _, Record, TopicSpec,
    kafka::{KafkaBroker, KafkaOptions},
};
use order_service::order::{Order, OrderStatus, create::payment_task};
use schema::{CurrencyCode, EventId, OrderId, TOPIC_PAYMENT_TASKS, UserId};
use tokio::time::{Instant, sleep_until};

use crate::bench::{
    Bench, BenchError,
    load::open_accounts,
    pgbench::Rate,
    progress::Progress,
    report::{Bar, Figure, Yardstick},
    stage::{self, Stage, create_database, execute, user_name},
};

/// What every account starts with, and the same in cents: more than all tasks of one take.
const DEPOSIT: &str = "1000000.00";
const DEPOSIT_MINOR: i64 = 100_000_000;
/// Records per publish call: far below what the producer queues, far above what a call costs.
const PUBLISH_RECORDS: usize = 2_000;
/// When the last so many tasks are decided, so is everything: they are of so many users that every partition has some of them, and a
/// partition is worked off in order. Looking at these alone costs next to nothing while the time runs.
const LAST_TASKS: usize = 200;
/// How exactly the end is seen.
const POLL: Duration = Duration::from_millis(50);
/// All tasks are decided after this time or there is no figure.
const DECIDED_WITHIN: Duration = Duration::from_secs(300);

/// Everything that a debit has to leave behind, in one statement and one transaction, which holds the row's lock as shortly as possible.
/// On tables without any constraint but their primary keys, because that is the minimal SQL of the work.
const DEBIT_SQL: &str = "
WITH claimed AS (
    INSERT INTO inbox (message_id, received_at) VALUES (gen_random_uuid(), now()) ON CONFLICT DO NOTHING RETURNING message_id
), debited AS (
    UPDATE accounts SET balance_minor = balance_minor - 1, entry_count = entry_count + 1 FROM claimed WHERE id = 1
    RETURNING user_id, balance_minor, entry_count
), entry AS (
    INSERT INTO ledger_entries (id, account_id, number, kind, amount_minor, balance_after_minor, order_id, created_at)
    SELECT gen_random_uuid(), 1, entry_count, 'DEBIT', -1, balance_minor, gen_random_uuid(), now() FROM debited RETURNING id, order_id
), payment AS (
    INSERT INTO payments (order_id, user_id, amount_minor, currency, outcome, entry_id, decided_at)
    SELECT order_id, 'bench-user-0', 1, 'EUR', 'PAID', id, now() FROM entry RETURNING order_id
)
INSERT INTO outbox (id, topic, message_key, payload, created_at)
SELECT gen_random_uuid(), 'payment_results', 'bench-user-0',
       '{\"orderId\":\"' || order_id || '\",\"userId\":\"bench-user-0\",\"amountMinor\":1,\"currency\":\"EUR\",\"outcome\":\"PAID\"}', now() FROM payment;
";

const TABLES: &str = "
CREATE TABLE accounts (id bigint PRIMARY KEY, user_id text NOT NULL, balance_minor bigint NOT NULL, entry_count bigint NOT NULL);
INSERT INTO accounts VALUES (1, 'bench-user-0', 1000000000, 0);
CREATE TABLE inbox (message_id uuid PRIMARY KEY, received_at timestamptz NOT NULL);
CREATE TABLE ledger_entries (id uuid PRIMARY KEY, account_id bigint NOT NULL, number bigint NOT NULL, kind text NOT NULL, amount_minor bigint NOT NULL,
    balance_after_minor bigint NOT NULL, order_id uuid NOT NULL, created_at timestamptz NOT NULL);
CREATE TABLE payments (order_id uuid PRIMARY KEY, user_id text NOT NULL, amount_minor bigint NOT NULL, currency text NOT NULL, outcome text NOT NULL,
    entry_id uuid NOT NULL, decided_at timestamptz NOT NULL);
CREATE TABLE outbox (id uuid PRIMARY KEY, topic text NOT NULL, message_key text NOT NULL, payload text NOT NULL, created_at timestamptz NOT NULL,
    processed_at timestamptz);
";

/// Measures.
///
/// # Errors
/// [`BenchError`].
pub async fn measure(bench: &mut Bench) -> Result<Vec<Figure>, BenchError> {
    let progress = Progress::new("3 hot account");
    let yardstick = yardstick(bench, &progress).await?;
    let per_second = debits_per_second(bench, "hot", 1, &progress).await?;
    bench.hot_debits_per_second = Some(per_second);
    progress.done();
    let yardstick = yardstick.map(|rate| Yardstick {
        name: format!("pgbench: one debit of one row per transaction, best at {} clients", rate.clients),
        value: rate.per_second,
    });
    Ok(vec![Figure::new(
        3,
        "debits on one hot account, task to ledger",
        per_second,
        "debits/s",
        yardstick,
        Bar::AtLeastTimes(10.0),
    )])
}

async fn yardstick(bench: &Bench, progress: &Progress) -> Result<Option<Rate>, BenchError> {
    let Some(pgbench) = &bench.pgbench else { return Ok(None) };
    create_database(&bench.servers, "bench_yardstick_hot").await?;
    let url = bench.servers.database("bench_yardstick_hot");
    execute(&url, TABLES).await?;
    let rate =
        pgbench.best(&url, "one debit of one row per transaction", DEBIT_SQL, bench.options.yardstick_seconds, progress).await?;
    let db = sea_orm::Database::connect(&url).await?;
    let missing = "SELECT (SELECT entry_count FROM accounts) - (SELECT count(*) FROM outbox)
                   + (SELECT count(*) FROM inbox) - (SELECT 1000000000 - balance_minor FROM accounts)";
    let missing = stage::number(&db, missing).await?;
    db.close().await?;
    // A yardstick that does not do the work would be too low a bar or too high a one.
    if missing == 0 { Ok(Some(rate)) } else { Err(BenchError::Unexpected(format!("pgbench left out {missing} debits"))) }
}

/// Tasks that are in Kafka already, decided and committed per second, spread evenly over so many accounts.
///
/// # Errors
/// [`BenchError`], also when what is stored is not what was asked for.
pub async fn debits_per_second(bench: &Bench, name: &str, accounts: usize, progress: &Progress) -> Result<f64, BenchError> {
    let (warm_up, measured) = if bench.options.quick { (2_000, 20_000) } else { (10_000, 200_000) };
    let mut stage = Stage::start(&bench.servers, name).await?;
    stage.orders.pause().await?;
    progress.step(format!("{accounts} accounts"), Duration::ZERO);
    open_accounts(&stage.target(accounts)?, DEPOSIT).await?;
    let tasks = Tasks::new(bench, &stage, accounts).await?;
    progress.step("warm-up", Duration::ZERO);
    tasks.decided(&mut stage, warm_up, progress).await?;
    let took = tasks.decided(&mut stage, measured, progress).await?;
    progress.step("comparing what is stored", Duration::ZERO);
    verify(&stage, accounts, warm_up + measured).await?;
    stage.stop().await?;
    Ok(measured as f64 / took.as_secs_f64())
}

/// Where tasks come from.
struct Tasks {
    broker: KafkaBroker,
    topic: String,
    users: Vec<UserId>,
}

impl Tasks {
    async fn new(bench: &Bench, stage: &Stage, accounts: usize) -> Result<Self, BenchError> {
        let broker = broker(bench)?;
        let topic = format!("{}{TOPIC_PAYMENT_TASKS}", stage.topic_prefix);
        broker.ensure_topics(&[TopicSpec::new(&topic)]).await.map_err(BenchError::unexpected)?;
        Ok(Self { broker, topic, users: (0..accounts).map(|user| UserId(user_name(user))).collect() })
    }

    /// Publishes so many tasks while their consumer is held, and answers how long it then takes until they are decided.
    async fn decided(&self, stage: &mut Stage, tasks: usize, progress: &Progress) -> Result<Duration, BenchError> {
        stage.payments.pause().await?;
        progress.step(format!("publishing {tasks} tasks"), Duration::ZERO);
        let orders = self.publish(tasks).await?;
        let last = &orders[orders.len().saturating_sub(LAST_TASKS)..];
        // By their ids: for a range of a table that nobody has analyzed yet PostgreSQL would read all of it, every time.
        let ids: Vec<String> = last.iter().map(|order| order.0.to_string()).collect();
        let decided = format!("SELECT count(*) FROM payments WHERE order_id = ANY('{{{}}}'::uuid[])", ids.join(","));
        progress.step(format!("deciding {tasks} tasks"), Duration::ZERO);
        let started = Instant::now();
        stage.payments.resume().await?;
        loop {
            if stage::number(&stage.payments_db, &decided).await? == last.len() as i64 {
                return Ok(started.elapsed());
            }
            if started.elapsed() > DECIDED_WITHIN {
                return Err(BenchError::Unexpected(format!(
                    "{tasks} tasks are not decided after {} s",
                    DECIDED_WITHIN.as_secs()
                )));
            }
            sleep_until(Instant::now() + POLL).await;
        }
    }

    /// The orders' ids, ascending, which is the order of the tasks.
    async fn publish(&self, tasks: usize) -> Result<Vec<OrderId>, BenchError> {
        let mut orders: Vec<OrderId> = (0..tasks).map(|_| OrderId::generate()).collect();
        orders.sort_unstable();
        let all: Vec<(OrderId, &UserId)> = orders.iter().copied().zip(self.users.iter().cycle()).collect();
        for some in all.chunks(PUBLISH_RECORDS) {
            let records =
                some.iter().map(|(order, user)| task_record(*order, user, &self.topic)).collect::<Result<Vec<_>, _>>()?;
            for acknowledged in self.broker.publish(&records).await {
                acknowledged.map_err(BenchError::unexpected)?;
            }
        }
        Ok(orders)
    }
}

/// A client of the run's Kafka, as the services have theirs.
///
/// # Errors
/// When it cannot be made.
pub fn broker(bench: &Bench) -> Result<KafkaBroker, BenchError> {
    let options = KafkaOptions { client_id: "bench".to_owned(), ..KafkaOptions::new(&bench.servers.kafka) };
    KafkaBroker::new(options).map_err(BenchError::unexpected)
}

/// The message that asks for the payment of one cent, made by what makes it in Order Service.
///
/// # Errors
/// None in practice: the task is plain data.
pub fn task_record(id: OrderId, user_id: &UserId, topic: &str) -> Result<Record, BenchError> {
    let order = Order {
        id,
        number: 1,
        user_id: user_id.clone(),
        total_minor: 1,
        currency: CurrencyCode::EUR,
        description: "A pair of socks".to_owned(),
        status: OrderStatus::Pending,
        rejection_reason: None,
        version: 1,
        updated_at_ms: id.created_at(),
        task_event_id: EventId::generate(),
        idempotency_key: None,
        idempotency_hash: None,
    };
    Ok(payment_task(&order, topic)?.into_record())
}

/// One decision and one debit per task, and balances that say the same.
async fn verify(stage: &Stage, accounts: usize, tasks: usize) -> Result<(), BenchError> {
    let db = &stage.payments_db;
    let decided = stage::number(db, "SELECT count(*) FROM payments").await?;
    let debited = stage::number(db, "SELECT count(*) FROM ledger_entries WHERE kind = 'DEBIT' AND amount_minor = -1").await?;
    let matching = "SELECT count(*) FROM payments AS p JOIN ledger_entries AS e ON e.id = p.entry_id AND e.order_id = p.order_id WHERE p.outcome = 'PAID'";
    let matching = stage::number(db, matching).await?;
    let (tasks, accounts) = (i64::try_from(tasks).unwrap_or(i64::MAX), i64::try_from(accounts).unwrap_or(i64::MAX));
    // Each has the same number of tasks, because they go round and their number is a multiple.
    let each = tasks / accounts;
    let exact =
        format!("SELECT count(*) FROM accounts WHERE entry_count = 1 + {each} AND balance_minor = {DEPOSIT_MINOR} - {each}");
    let exact = stage::number(db, &exact).await?;
    if [decided, debited, matching, exact] == [tasks, tasks, tasks, accounts] {
        return Ok(());
    }
    let text = format!(
        "{tasks} tasks: {decided} decisions, {debited} debits, {matching} of both; {exact} of {accounts} accounts are exact"
    );
    Err(BenchError::Unexpected(text))
}

#[cfg(test)]
mod tests {
    use messaging::message::header;
    use schema::{EventSource as _, PaymentTask};

    use super::*;

    #[test]
    fn a_task_is_what_payments_service_reads() {
        let (order, user) = (OrderId::generate(), UserId(user_name(7)));
        let record = task_record(order, &user, "tasks").unwrap();
        let task = PaymentTask::from_message(record.headers.get_str(header::TYPE), &record.payload).unwrap();
        assert_eq!((task.order_id, task.user_id, task.amount_minor), (order, user, 1));
        assert_eq!(record.key, user_name(7));
    }
}
