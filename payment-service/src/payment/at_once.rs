//! PostgreSQL: a batch of payment tasks in one statement, if every order is new and can be paid.
//!
//! That is what almost every batch is, and then nothing has to be read before: the statement itself looks whether each account holds what its tasks ask
//! for together, debits it, and takes the entries' numbers and balances from the rows that it has just updated, and so locked. A top-up before it is
//! before it, however long the batch was ready.
//!
//! Nothing is decided here but "paid". An account that is missing, holds another currency or too little: the statement writes nothing, and says
//! so. An order that was decided before, or an account that somebody else changes while the statement runs, ends it with an error.
//! [`super::decide_payments_batch`] is next then, which reads what is recorded under locks and decides each task by the rules.

use std::collections::{BTreeMap, HashSet};

use database::{Database, OnConflict, Writes, array::Columns};
use messaging::{OutboxRow, inbox, outbox};
use schema::{CurrencyCode, EventId, LedgerEntryId, PaymentOutcome, Timestamp, UserId};
use sea_orm::{DbBackend, Statement};

use super::{
    Payment, PaymentError,
    settle::{INBOX, OUTBOX, Settled, Task, result_row},
};

/// Tasks that are ready to be written in one statement.
pub struct ReadyPayments {
    writes: Writes,
    results: Vec<OutboxRow>,
}

/// A task, and what is written if all can be paid.
struct Debit<'a> {
    task: &'a Task,
    entry_id: LedgerEntryId,
    result: OutboxRow,
    /// Of later tasks of the batch on the same account.
    later: Together,
}

/// What some tasks on one account ask for together.
#[derive(Clone, Copy, Default)]
struct Together {
    entries: i64,
    minor: i64,
}

/// Whose money, and which; sorted as bytes, and so are the accounts' locks. An account has one currency, so where a user asks for two in one batch not
/// all can be paid.
type Purse<'a> = (&'a UserId, CurrencyCode);

/// Makes tasks ready, as if all of them could be paid; asks nobody.
///
/// # Errors
///
/// [`PaymentError::needs_locks`] asks for [`super::decide_payments_batch`].
pub fn ready_payments_batch(results_topic: &str, tasks: &[Task], now: Timestamp) -> Result<ReadyPayments, PaymentError> {
    let mut orders = HashSet::new();
    if !tasks.iter().all(|task| orders.insert(task.payment.order_id)) {
        return Err(PaymentError::NotPayableAtOnce);
    }
    let mut purses: BTreeMap<Purse<'_>, Together> = BTreeMap::new();
    let mut later = Vec::with_capacity(tasks.len());
    for task in tasks.iter().rev() {
        let asked = purses.entry((&task.payment.user_id, task.payment.currency)).or_default();
        later.push(*asked);
        asked.entries += 1;
        asked.minor = asked.minor.checked_add(task.payment.amount_minor).ok_or(PaymentError::NotPayableAtOnce)?;
    }
    // Forwards again: new ids grow, and so each is inserted at the end of its index.
    let debits = tasks.iter().zip(later.into_iter().rev());
    let debits = debits.map(|(task, later)| Debit::new(results_topic, task, later, now)).collect::<Result<Vec<_>, _>>()?;
    let writes = writes(results_topic, &debits, &purses.into_iter().collect::<Vec<_>>(), now);
    Ok(ReadyPayments { writes, results: debits.into_iter().map(|debit| debit.result).collect() })
}

impl ReadyPayments {
    /// Writes everything in one statement, if all orders are new and all accounts hold what is asked for.
    ///
    /// # Errors
    ///
    /// Unless the outcome is unknown nothing was applied. [`PaymentError::needs_locks`] asks for [`super::decide_payments_batch`].
    pub async fn write_batch(self, database: &Database) -> Result<Settled, PaymentError> {
        let written = self.writes.run(database, "decide payments").await?;
        if !written.holds {
            return Err(PaymentError::NotPayableAtOnce);
        }
        Ok(Settled { paid: self.results.len(), results: self.results, ..Settled::default() })
    }
}

impl<'a> Debit<'a> {
    fn new(results_topic: &str, task: &'a Task, later: Together, now: Timestamp) -> Result<Self, PaymentError> {
        let entry_id = LedgerEntryId::generate();
        let payment = Payment {
            order_id: task.payment.order_id,
            user_id: task.payment.user_id.clone(),
            amount_minor: task.payment.amount_minor,
            currency: task.payment.currency,
            outcome: PaymentOutcome::Paid,
            rejection_reason: None,
            entry_id: Some(entry_id),
            result_event_id: EventId::generate(),
            decided_at_ms: now,
        };
        Ok(Self { task, entry_id, result: result_row(results_topic, &payment, Some(task))?, later })
    }
}

/// `tasks` are none if an account does not hold enough, and so is everything that is written.
fn writes(results_topic: &str, debits: &[Debit<'_>], purses: &[(Purse<'_>, Together)], now: Timestamp) -> Writes {
    let backend = DbBackend::Postgres;
    let tasks = Columns::new(backend, debits)
        .uuid("message_id", |debit| debit.task.event_id.0)
        .uuid("order_id", |debit| debit.task.payment.order_id.0)
        .text("user_id", |debit| debit.task.payment.user_id.as_str())
        .bigint("amount_minor", |debit| debit.task.payment.amount_minor)
        .text("currency", |debit| debit.task.payment.currency.code())
        .uuid("entry_id", |debit| debit.entry_id.0)
        .bigint("purse", |debit| purse_of(debit.task, purses))
        .bigint("entries_later", |debit| debit.later.entries)
        .bigint("minor_later", |debit| debit.later.minor);
    let wanted = Columns::new(backend, purses)
        .text("user_id", |((user, _), _)| user.as_str())
        .text("currency", |((_, currency), _)| currency.code())
        .bigint("entries", |(_, together)| together.entries)
        .bigint("minor", |(_, together)| together.minor);
    let sql = |sql: String| Statement::from_string(backend, sql);
    let decided = |sql| Statement::from_sql_and_values(backend, sql, [now.0.into()]);

    let mut writes = Writes::over("tasks", outbox::columns(tasks, |debit| Some(&debit.result)));
    writes.front("wanted", wanted.statement(|rows| format!("SELECT * FROM {rows} AS r")));
    writes.front("solvent", sql(SOLVENT.to_owned()));
    writes.only_if("payable", PAYABLE);
    // Their locks are what everything after them rests on.
    writes.name_exactly(purses.len(), "debited", sql(UPDATE_ACCOUNTS.to_owned()));
    writes.add_exactly(debits.len(), decided(INSERT_PAYMENTS));
    writes.add_exactly(debits.len(), sql(inbox::claim_from(backend, INBOX, "tasks", OnConflict::Fail)));
    writes.add_exactly(debits.len(), outbox::insert_from(backend, OUTBOX, "tasks", results_topic));
    writes.table("purses", PURSES);
    writes.add_exactly(debits.len(), decided(INSERT_DEBITS));
    writes
}

/// Its place among the purses, from 1.
fn purse_of(task: &Task, purses: &[(Purse<'_>, Together)]) -> i64 {
    let purse = (&task.payment.user_id, task.payment.currency);
    let before = purses.partition_point(|(other, _)| *other < purse);
    i64::try_from(before).unwrap_or(i64::MAX).saturating_add(1)
}

/// The accounts that can pay, as of the statement's snapshot, and where their rows are.
const SOLVENT: &str = "
SELECT a.ctid AS at, a.entry_count, w.ord, w.entries, w.minor
FROM wanted AS w JOIN accounts AS a ON a.user_id = w.user_id AND a.currency = w.currency AND a.balance_minor >= w.minor";

/// Otherwise nothing is written, which is no error in the server's log.
const PAYABLE: &str = "SELECT (SELECT COUNT(*) FROM solvent) = (SELECT COUNT(*) FROM wanted) AS holds";

/// Without looking the accounts up again. A row that somebody else changes meanwhile is left out, because it has more entries then: not every
/// release of PostgreSQL looks again whether it still stands there.
const UPDATE_ACCOUNTS: &str = "
UPDATE accounts SET balance_minor = accounts.balance_minor - s.minor, entry_count = accounts.entry_count + s.entries
FROM solvent AS s WHERE accounts.ctid = s.at AND accounts.entry_count = s.entry_count AND (SELECT holds FROM payable)
RETURNING s.ord, accounts.id, accounts.balance_minor, accounts.entry_count";

/// Arrays, so that a task finds its account by its place: a join would look at each account for each task.
const PURSES: &str = "
SELECT array_agg(id) AS ids, array_agg(balance_minor) AS balances, array_agg(entry_count) AS counts
FROM (SELECT * FROM debited ORDER BY ord) AS in_order";

/// The account is as all tasks have left it: less what came after a task, it is as that one left it.
const INSERT_DEBITS: &str = "
INSERT INTO ledger_entries (id, account_id, number, kind, amount_minor, balance_after_minor, order_id, created_at_ms)
SELECT entry_id, (SELECT ids FROM purses)[purse], (SELECT counts FROM purses)[purse] - entries_later, 'DEBIT', -amount_minor,
    (SELECT balances FROM purses)[purse] + minor_later, order_id, $1::bigint
FROM tasks ORDER BY ord";

/// In the order of the orders' ids, as under locks: two batches with the same orders wait for each other instead of being chosen as victims of a deadlock.
const INSERT_PAYMENTS: &str = "
INSERT INTO payments (order_id, user_id, amount_minor, currency, outcome, entry_id, result_event_id, decided_at_ms)
SELECT order_id, user_id, amount_minor, currency, 'PAID', entry_id, event_id, $1::bigint FROM tasks ORDER BY order_id";
