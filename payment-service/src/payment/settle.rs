//! Deciding a batch of payment tasks inside the transaction of the caller, who commits and then stores the offset.
//!
//! 1. Lock and read the accounts, in the order of their ids, so that two batches never wait for each other in a circle. PostgreSQL answers
//!    a locked row as it is under its lock, however long that was waited for.
//! 2. Read the recorded decisions: in a later statement, since a statement's snapshot is older than the locks that it took.
//! 3. Plan in memory ([`super::plan`]).
//! 4. Write set-based and in one round trip: decisions (insert or nothing), each account once, the debits, the claims of the message ids in
//!    the inbox, one outbox row per order. An inbox hit is no reason to skip a task: it only tells a redelivery from a task that was sent
//!    again. What is skipped, and why, was settled by 2.
//!
//! An account that is created after 1 is not locked and not seen: the batch was first.
//!
//! The number of statements does not depend on the size of the batch, which the consumer loop bounds.

use std::collections::BTreeSet;

use bytes::Bytes;
use database::{
    Writes,
    array::{Columns, columns_of, is_one_of},
};
use messaging::{CloudEvent, InboxTable, OutboxRow, OutboxTable, inbox, message::header, outbox};
use schema::{EventId, EventSource as _, OrderId, PaymentResult, PaymentTask, Timestamp, UserId};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, DbBackend, DbErr, EntityTrait as _, Statement};

use super::{
    Payment, PaymentError,
    entity::{self, insert_payments_from, payments_batch},
    plan::{AccountChange, Plan, plan},
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
    let users: Vec<UserId> =
        tasks.iter().map(|task| &task.payment.user_id).collect::<BTreeSet<_>>().into_iter().cloned().collect();
    let orders: Vec<OrderId> = tasks.iter().map(|task| task.payment.order_id).collect::<BTreeSet<_>>().into_iter().collect();
    let accounts = lock_accounts_batch(tx, &users).await?;
    let recorded = payments_batch(tx, &orders).await?;

    let plan = plan(tasks.iter().map(|task| &task.payment), accounts, recorded, now);
    warn_of_conflicts(&plan, tasks);
    let results = plan
        .results
        .iter()
        .map(|(index, payment)| result_row(results_topic, payment, tasks.get(*index)))
        .collect::<Result<Vec<_>, _>>()?;
    let redelivered = write_batch(tx, results_topic, tasks, &plan, &results).await?;

    Ok(Settled {
        results,
        paid: plan.debits.len(),
        rejected: plan.decided.len() - plan.debits.len(),
        repeated: plan.repeated.len(),
        redelivered,
    })
}

/// Locks the accounts of these users, in the order of the accounts' ids, and answers them as they are then. SQLite needs no row locks: a
/// transaction is the only writer.
async fn lock_accounts_batch(tx: &DatabaseTransaction, users: &[UserId]) -> Result<Vec<Account>, DbErr> {
    let backend = tx.get_database_backend();
    let lock = if backend == DbBackend::Postgres { "FOR UPDATE OF a" } else { "" };
    let rows = Columns::new(backend, users).text("user_id", UserId::as_str);
    let statement = rows.statement(|rows| {
        let users = is_one_of(backend, "a.user_id", &format!("SELECT r.user_id FROM {rows} AS r"));
        format!("SELECT {} FROM accounts AS a WHERE {users} ORDER BY a.id {lock}", columns_of::<Accounts>("a"))
    });
    Accounts::find().from_raw_sql(statement).all(tx).await
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

/// Answers how many of the tasks were applied before under the same message id, or stand twice in this batch.
async fn write_batch(
    tx: &DatabaseTransaction,
    results_topic: &str,
    tasks: &[Task],
    plan: &Plan,
    results: &[OutboxRow],
) -> Result<usize, PaymentError> {
    let effects = effects(tasks, plan, results);
    let rows = Columns::new(tx.get_database_backend(), &effects)
        .uuid("message_id", |effect| effect.task.event_id.0)
        .uuid("order_id", |effect| effect.task.payment.order_id.0);
    let rows = entity::columns(rows, |effect| effect.decided);
    let rows = debit_columns(rows, |effect| effect.debit);
    let rows = outbox::columns(rows, |effect| effect.result);

    let mut writes = Writes::over("tasks", rows);
    writes.add_sql(insert_payments_from("tasks"));
    writes.add(update_accounts(writes.backend(), &plan.accounts));
    writes.add_sql(inbox::claim_from(writes.backend(), INBOX, "tasks"));
    writes.add(outbox::insert_from(writes.backend(), OUTBOX, "tasks", results_topic));
    writes.add_sql(insert_debits_from("tasks"));
    let written = writes.run_in_tx(tx).await?.counts;
    let &[payments, accounts, claims, told, debits] = written.as_slice() else {
        return Err(DbErr::Custom(format!("{} of 5 writes were run", written.len())).into());
    };
    if (told, debits) != (count(results), count(&plan.debits)) {
        return Err(DbErr::Custom("a result or a debit of the plan was not written".to_owned()).into());
    }
    if payments < count(&plan.decided) {
        return Err(PaymentError::DecidedElsewhere { count: count(&plan.decided) - payments });
    }
    if accounts < count(&plan.accounts) {
        return Err(PaymentError::AccountChanged { count: count(&plan.accounts) - accounts });
    }
    Ok(tasks.len().saturating_sub(usize::try_from(claims).unwrap_or(usize::MAX)))
}

fn count<T>(rows: &[T]) -> u64 {
    u64::try_from(rows.len()).unwrap_or(u64::MAX)
}

/// Writes each account once, if it still stands as it was read.
fn update_accounts(backend: DbBackend, changes: &[AccountChange]) -> Statement {
    let rows = Columns::new(backend, changes)
        .uuid("id", |change| change.id.0)
        .bigint("entry_count_before", |change| change.entry_count_before)
        .bigint("entry_count", |change| change.after.entry_count)
        .bigint("balance_minor", |change| change.after.balance_minor);
    rows.statement(|rows| {
        format!(
            "UPDATE accounts SET balance_minor = r.balance_minor, entry_count = r.entry_count FROM {rows} AS r
             WHERE accounts.id = r.id AND accounts.entry_count = r.entry_count_before"
        )
    })
}

fn result_row(topic: &str, payment: &Payment, task: Option<&Task>) -> Result<OutboxRow, PaymentError> {
    let event = CloudEvent {
        id: payment.result_event_id.0,
        type_: PaymentResult::TYPE.to_owned(),
        source: PaymentResult::SOURCE.to_owned(),
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
