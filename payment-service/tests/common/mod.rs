//! What the tests share: accounts, tasks and a look at the tables.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::time::{Duration, SystemTime};

use database::Database;
use messaging::CloudEvent;
use payment_service::{
    account::{Account, Accounts, CreateAccount, TopUp, create_account, top_up_account},
    audit::{AuditReport, audit},
    ledger::{LedgerEntries, LedgerEntry},
    payment::{PaymentError, Settled, Task, decide_payments_batch, ready_payments_batch},
};
use runtime::auth::Identity;
use schema::{CurrencyCode, EventId, EventSource as _, Money, OrderId, PaymentResult, PaymentTask, Timestamp, UserId};
use sea_orm::{ConnectionTrait, DbBackend, EntityTrait as _, QueryOrder as _, Statement};

pub const RESULTS: &str = "payment_results";

pub fn user(name: &str) -> UserId {
    UserId(name.to_owned())
}

pub fn eur(minor: i64) -> Money {
    Money { minor, currency: CurrencyCode::EUR }
}

/// A verified token.
pub fn identity(name: &str, scopes: &[&str]) -> Identity {
    Identity {
        subject: name.to_owned(),
        scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        expires_at: SystemTime::now() + Duration::from_secs(60),
    }
}

/// What the message of a task says about itself.
pub fn task_event(task: &Task) -> CloudEvent {
    CloudEvent {
        id: task.event_id.0,
        type_: PaymentTask::TYPE.into(),
        source: PaymentTask::SOURCE.into(),
        time_ms: Timestamp::now().0,
    }
}

/// A task of a new order.
pub fn task(name: &str, minor: i64) -> Task {
    Task {
        event_id: EventId::generate(),
        payment: PaymentTask {
            order_id: OrderId::generate(),
            user_id: user(name),
            amount_minor: minor,
            currency: CurrencyCode::EUR,
        },
        traceparent: None,
    }
}

/// An account in euros that holds this much.
pub async fn account_with(db: &Database, name: &str, minor: i64) -> Account {
    let request = CreateAccount { user: user(name), currency: CurrencyCode::EUR, key: None };
    let account = create_account(db, request).await.unwrap().into_account();
    if minor == 0 {
        return account;
    }
    top_up_account(db, TopUp { user: user(name), amount: eur(minor), key: None }).await.unwrap().into_parts().0
}

/// One committed batch, as the consumer does it.
pub async fn settle(db: &Database, tasks: &[Task]) -> Result<Settled, SettleError> {
    if db.backend() == DbBackend::Postgres {
        let at_once = async { ready_payments_batch(RESULTS, tasks, Timestamp::now())?.write_batch(db).await };
        match at_once.await {
            Err(error) if error.needs_locks() => {}
            settled => return Ok(settled?),
        }
    }
    settle_in_tx(db, tasks).await
}

/// One committed batch, as on SQLite, and on PostgreSQL after somebody else was faster.
pub async fn settle_in_tx(db: &Database, tasks: &[Task]) -> Result<Settled, SettleError> {
    let tasks = tasks.to_vec();
    db.transaction("test batch", move |tx| {
        Box::pin(async move { Ok(decide_payments_batch(tx, RESULTS, &tasks, Timestamp::now()).await?) })
    })
    .await
}

#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    #[error(transparent)]
    Payment(#[from] PaymentError),
    #[error(transparent)]
    Database(#[from] database::DatabaseError),
}

impl SettleError {
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Payment(error) => error.is_transient(),
            Self::Database(error) => error.is_transient(),
        }
    }
}

/// What the results say, in their order.
pub fn results(settled: &Settled) -> Vec<PaymentResult> {
    settled
        .results
        .iter()
        .map(|row| PaymentResult::from_message(Some(PaymentResult::TYPE), row.payload.as_bytes()).unwrap())
        .collect()
}

pub async fn account(db: &Database, name: &str) -> Account {
    let accounts = Accounts::find().all(db.reader()).await.unwrap();
    accounts.into_iter().find(|account| account.user_id == user(name)).unwrap()
}

/// All entries in the order of their numbers.
pub async fn entries(db: &Database) -> Vec<LedgerEntry> {
    use payment_service::ledger::entity::Column;
    LedgerEntries::find().order_by_asc(Column::AccountId).order_by_asc(Column::Number).all(db.reader()).await.unwrap()
}

pub async fn count(db: &Database, table: &str) -> i64 {
    let statement = Statement::from_string(db.backend(), format!("SELECT COUNT(*) AS counted FROM {table}"));
    db.reader().query_one_raw(statement).await.unwrap().unwrap().try_get("", "counted").unwrap()
}

pub async fn clean_audit(db: &Database) -> AuditReport {
    let report = audit(db.reader()).await.unwrap();
    assert!(report.is_clean(), "{:#?}", report.differences);
    report
}

/// The longest wait for a condition that is certain to come.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until the condition holds.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "still waiting: {what}");
}
