//! Deciding a batch of payment tasks by the rules, in the caller's transaction.
//!
//! 1. Lock the accounts and read them, then read the recorded decisions. PostgreSQL answers a locked row as it is under its lock, however long that
//!    was waited for; the decisions are read by a later statement, since a statement's snapshot is older than the locks that it took.
//! 2. Plan in memory ([`super::plan`]).
//! 3. Write set-based and in one round trip: each account once, decisions (insert or nothing), the claims of the message ids in the inbox, one
//!    outbox row per order, the debits. An inbox hit is no reason to skip a task: it only tells a redelivery from a task that was sent again.
//!    What is skipped, and why, was settled by 2. Everything is written as it was planned, or nothing is: an order that was decided meanwhile (without
//!    an account there is no lock) ends all of it.
//!
//! On PostgreSQL a batch is tried without any of this first ([`super::at_once`]), and comes here with a repetition or a rejection. Accounts are locked in the order
//! of their users, there and here, so that two batches never wait for each other in a circle.
//!
//! An account that is created after it was looked for is not seen: the batch was first.
//!
//! The number of statements does not depend on the size of the batch, which the consumer loop bounds.

use std::collections::BTreeSet;

use bytes::Bytes;
use database::{
    OnConflict, Writes, Written,
    array::{Columns, columns_of, is_one_of},
};
use messaging::{CloudEvent, InboxTable, OutboxRow, OutboxTable, inbox, message::header, outbox};
use schema::{EventId, EventSource as _, OrderId, PaymentResult, PaymentTask, Timestamp};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityTrait as _, Statement};

use super::{
    AccountChange, Book, Payment, PaymentError,
    entity::{self, insert_payments_from, payments_batch},
    plan::{Plan, plan},
};
use crate::{
    account::{Account, Accounts},
    ledger::{LedgerEntry, debit_columns, insert_debits_from},
};

/// Where applied messages are remembered.
pub const INBOX: InboxTable = InboxTable("inbox_payments");
/// Where results wait to be published.
pub const OUTBOX: OutboxTable = OutboxTable("outbox_payments");

/// One received task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The message's id; the same when it is delivered or sent again.
    pub event_id: EventId,
    /// What is asked for.
    pub payment: PaymentTask,
    /// The trace that the task belongs to; the result continues it.
    pub traceparent: Option<Bytes>,
}

/// What a batch left behind, once it is committed.
#[derive(Debug, Default)]
pub struct Settled {
    /// The outbox rows to publish: one per order of the batch.
    pub results: Vec<OutboxRow>,
    /// How many orders were newly decided and paid.
    pub paid: usize,
    /// How many orders were newly decided and rejected.
    pub rejected: usize,
    /// How many tasks asked for orders that were decided already.
    pub repeated: usize,
    /// How many tasks had been applied before under the same message id.
    pub redelivered: usize,
}

/// Decides every task, or answers with an error after which the transaction must be rolled back.
///
/// # Errors
///
/// [`PaymentError::is_transient`] says whether the same batch may be applied later.
pub async fn decide_payments_batch(
    tx: &DatabaseTransaction,
    results_topic: &str,
    tasks: &[Task],
    now: Timestamp,
) -> Result<Settled, PaymentError> {
    if tasks.is_empty() {
        return Ok(Settled::default());
    }
    let mut book = Book::open(lock_accounts_batch(tx, tasks).await?);
    let recorded = recorded_batch(tx, tasks).await?;
    let decided = Decided::new(results_topic, tasks, &mut book, recorded, now)?;
    let written = decided.writes(results_topic, tasks, tx.get_database_backend()).run_in_tx(tx).await?;
    Ok(decided.into_settled(&written))
}

/// Locks the accounts of the tasks' users, in the order of the users as bytes, and answers them as they are then. SQLite needs no row locks: a transaction
/// is the only writer.
async fn lock_accounts_batch(tx: &DatabaseTransaction, tasks: &[Task]) -> Result<Vec<Account>, DbErr> {
    let backend = tx.get_database_backend();
    let lock = if backend == DbBackend::Postgres { r#"ORDER BY a.user_id COLLATE "C" FOR UPDATE OF a"# } else { "" };
    let users: BTreeSet<&str> = tasks.iter().map(|task| task.payment.user_id.as_str()).collect();
    let users: Vec<&str> = users.into_iter().collect();
    let statement = Columns::new(backend, &users).text("user_id", |user| *user).statement(|rows| {
        let columns = columns_of::<Accounts>("a");
        let of_users = is_one_of(backend, "a.user_id", &format!("SELECT r.user_id FROM {rows} AS r"));
        format!("SELECT {columns} FROM accounts AS a WHERE {of_users} {lock}")
    });
    Accounts::find().from_raw_sql(statement).all(tx).await
}

/// The decisions of those orders that have one.
async fn recorded_batch(db: &impl ConnectionTrait, tasks: &[Task]) -> Result<Vec<Payment>, DbErr> {
    let orders: BTreeSet<OrderId> = tasks.iter().map(|task| task.payment.order_id).collect();
    payments_batch(db, &orders.into_iter().collect::<Vec<_>>()).await
}

/// A batch that is decided, and not written yet.
struct Decided {
    plan: Plan,
    /// One per order of the batch, as in the plan.
    results: Vec<OutboxRow>,
}

impl Decided {
    fn new(
        results_topic: &str,
        tasks: &[Task],
        book: &mut Book,
        recorded: Vec<Payment>,
        now: Timestamp,
    ) -> Result<Self, PaymentError> {
        let plan = plan(tasks.iter().map(|task| &task.payment), book, recorded, now);
        warn_of_conflicts(&plan, tasks);
        let row = |(index, payment): &(usize, Payment)| result_row(results_topic, payment, tasks.get(*index));
        let results = plan.results.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { plan, results })
    }

    fn writes(&self, results_topic: &str, tasks: &[Task], backend: DbBackend) -> Writes {
        let effects = effects(tasks, &self.plan, &self.results);
        let rows = Columns::new(backend, &effects)
            .uuid("message_id", |effect| effect.task.event_id.0)
            .uuid("order_id", |effect| effect.task.payment.order_id.0);
        let rows = entity::columns(rows, |effect| effect.decided);
        let rows = debit_columns(rows, |effect| effect.debit);
        let rows = outbox::columns(rows, |effect| effect.result);

        let sql = |sql: String| Statement::from_string(backend, sql);
        let mut writes = Writes::over("tasks", rows);
        // Their locks come first, as in the transaction.
        writes.add_exactly(self.plan.accounts.len(), update_accounts(backend, &self.plan.accounts));
        writes.add_exactly(self.plan.decided.len(), sql(insert_payments_from("tasks")));
        writes.add_sql(inbox::claim_from(backend, INBOX, "tasks", OnConflict::DoNothing));
        writes.add_exactly(self.results.len(), outbox::insert_from(backend, OUTBOX, "tasks", results_topic));
        writes.add_exactly(self.plan.debits.len(), sql(insert_debits_from("tasks")));
        writes
    }

    fn rejected(&self) -> usize {
        self.plan.decided.len() - self.plan.debits.len()
    }

    fn into_settled(self, written: &Written) -> Settled {
        // A claim that was not written was made before, or stands twice in this batch. Everything else has the counts that it must have.
        let claims = if let [_, _, claims, ..] = *written.counts { usize::try_from(claims).unwrap_or(usize::MAX) } else { 0 };
        Settled {
            paid: self.plan.debits.len(),
            rejected: self.rejected(),
            results: self.results,
            repeated: self.plan.repeated.len(),
            redelivered: (self.plan.decided.len() + self.plan.repeated.len()).saturating_sub(claims),
        }
    }
}

/// What a task leaves behind: a row of the table that all inserts select from.
struct Effect<'a> {
    task: &'a Task,
    /// When it was decided now.
    decided: Option<&'a Payment>,
    /// When it was paid now.
    debit: Option<&'a LedgerEntry>,
    /// When it is the first task of the batch for its order.
    result: Option<&'a OutboxRow>,
}

/// Decisions, debits and results stand in a plan in the order of their tasks.
fn effects<'a>(tasks: &'a [Task], plan: &'a Plan, results: &'a [OutboxRow]) -> Vec<Effect<'a>> {
    let mut told = plan.results.iter().zip(results).peekable();
    let mut decided = plan.decided.iter().peekable();
    let mut debits = plan.debits.iter().peekable();
    let effect = |(at, task)| {
        let result = told.next_if(|((index, _), _)| *index == at);
        let decided = result.and_then(|((_, payment), _)| decided.next_if(|decided| decided.order_id == payment.order_id));
        let debit = decided.and_then(|payment| debits.next_if(|debit| Some(debit.id) == payment.entry_id));
        Effect { task, decided, debit, result: result.map(|(_, row)| row) }
    };
    tasks.iter().enumerate().map(effect).collect()
}

/// Writes each account once, if it stands as it was read: no change leaves the number of entries as it is.
fn update_accounts(backend: DbBackend, changes: &[AccountChange]) -> Statement {
    let rows = Columns::new(backend, changes)
        .uuid("id", |change| change.id.0)
        .bigint("entry_count_before", |change| change.before.entry_count)
        .bigint("entry_count", |change| change.after.entry_count)
        .bigint("balance_minor", |change| change.after.balance_minor);
    rows.statement(|rows| {
        format!(
            "UPDATE accounts SET balance_minor = r.balance_minor, entry_count = r.entry_count FROM {rows} AS r
             WHERE accounts.id = r.id AND accounts.entry_count = r.entry_count_before"
        )
    })
}

pub(super) fn result_row(topic: &str, payment: &Payment, task: Option<&Task>) -> Result<OutboxRow, PaymentError> {
    let event = CloudEvent {
        id: payment.result_event_id.0,
        type_: PaymentResult::TYPE.into(),
        source: PaymentResult::SOURCE.into(),
        time_ms: payment.decided_at_ms.0,
    };
    let row = OutboxRow::new(topic, payment.user_id.as_str(), event, payment.result().to_json()?);
    Ok(match task.and_then(|task| task.traceparent.clone()) {
        Some(traceparent) => row.with_header(header::TRACEPARENT, traceparent),
        None => row,
    })
}

/// The recorded decision stands. Somebody sent two different tasks for one order, which a person should look at.
fn warn_of_conflicts(plan: &Plan, tasks: &[Task]) {
    for task in plan.conflicting.iter().filter_map(|index| tasks.get(*index)) {
        tracing::warn!(
            order_id = %task.payment.order_id,
            event_id = %task.event_id,
            amount = %task.payment.amount(),
            "a task asks for something else than what was decided for its order; the decision stands"
        );
    }
}
