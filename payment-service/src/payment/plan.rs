//! What a batch of tasks does, computed from the accounts and decisions that were read.
//!
//! Tasks are decided in arrival order, and each sees the balance that the ones before it left. An order that has a decision, recorded
//! before or made earlier in this batch, gets no second one: its recorded result is told again, once per batch.

use std::collections::{HashMap, HashSet};

use schema::{EventId, LedgerEntryId, OrderId, PaymentOutcome, PaymentTask, RejectionReason, Timestamp};

use super::{AccountChange, Book, Decision, Payment, decide};
use crate::ledger::{LedgerEntry, LedgerEntryKind};

/// Everything that has to be written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// New decisions, in arrival order.
    pub decided: Vec<Payment>,
    /// One debit for each paid order among them, in arrival order.
    pub debits: Vec<LedgerEntry>,
    /// Each debited account once, sorted by id.
    pub accounts: Vec<AccountChange>,
    /// What is to be told: one decision per order of the batch, new or recorded, with the index of the task that asked first.
    pub results: Vec<(usize, Payment)>,
    /// Indices of tasks whose order had a decision already.
    pub repeated: Vec<usize>,
    /// Indices of repeated tasks that ask for something else than what was decided.
    pub conflicting: Vec<usize>,
}

/// Plans a batch. `book` has those accounts of the tasks' users that exist, and is left as the batch leaves them; `recorded` are the decisions of the
/// tasks' orders, read after the accounts were locked. Without a look at them (none in `recorded`) a plan is only good for writes that fail where an order is decided already.
pub fn plan<'a>(
    tasks: impl IntoIterator<Item = &'a PaymentTask>,
    book: &mut Book,
    recorded: Vec<Payment>,
    now: Timestamp,
) -> Plan {
    let mut decisions: HashMap<OrderId, Payment> = recorded.into_iter().map(|payment| (payment.order_id, payment)).collect();
    let mut told: HashSet<OrderId> = HashSet::new();
    let mut plan = Plan::default();

    for (index, task) in tasks.into_iter().enumerate() {
        let payment = match decisions.get(&task.order_id) {
            Some(payment) => {
                plan.repeated.push(index);
                if !payment.answers(task) {
                    plan.conflicting.push(index);
                }
                payment.clone()
            }
            None => {
                let payment = plan.decide_one(task, book.get_mut(&task.user_id), now);
                decisions.insert(task.order_id, payment.clone());
                payment
            }
        };
        if told.insert(task.order_id) {
            plan.results.push((index, payment));
        }
    }

    plan.accounts = book.changes();
    plan
}

impl Plan {
    fn decide_one(&mut self, task: &PaymentTask, account: Option<&mut AccountChange>, now: Timestamp) -> Payment {
        let mut payment = Payment {
            order_id: task.order_id,
            user_id: task.user_id.clone(),
            amount_minor: task.amount_minor,
            currency: task.currency,
            outcome: PaymentOutcome::Rejected,
            rejection_reason: None,
            entry_id: None,
            result_event_id: EventId::generate(),
            decided_at_ms: now,
        };
        match (decide(account.as_ref().map(|account| account.after), task.amount()), account) {
            (Decision::Paid(after), Some(account)) => {
                account.after = after;
                let debit = debit(account, task, now);
                payment.outcome = PaymentOutcome::Paid;
                payment.entry_id = Some(debit.id);
                self.debits.push(debit);
            }
            (Decision::Rejected(reason), _) => payment.rejection_reason = Some(reason),
            // Never decided so; written out because it is what must happen.
            (Decision::Paid(_), None) => payment.rejection_reason = Some(RejectionReason::AccountNotFound),
        }
        self.decided.push(payment.clone());
        payment
    }
}

fn debit(account: &AccountChange, task: &PaymentTask, now: Timestamp) -> LedgerEntry {
    LedgerEntry {
        id: LedgerEntryId::generate(),
        account_id: account.id,
        number: account.after.entry_count,
        kind: LedgerEntryKind::Debit,
        amount_minor: -task.amount_minor,
        balance_after_minor: account.after.balance_minor,
        order_id: Some(task.order_id),
        created_at_ms: now,
        idempotency_key: None,
        idempotency_hash: None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schema::{AccountId, CurrencyCode, UserId};

    use super::*;
    use crate::account::Account;

    fn account(user: &str, balance_minor: i64) -> Account {
        Account {
            id: AccountId::generate(),
            user_id: UserId(user.to_owned()),
            currency: CurrencyCode::EUR,
            balance_minor,
            entry_count: 1,
            created_at_ms: Timestamp(0),
            idempotency_key: None,
            idempotency_hash: None,
        }
    }

    /// Few orders and users, so that repetitions, conflicts and shortages happen in every run.
    fn tasks() -> impl Strategy<Value = Vec<PaymentTask>> {
        let task =
            (0..12_u128, 0..3_u8, 1..60_i64, prop::bool::weighted(0.1)).prop_map(|(order, user, amount_minor, foreign)| {
                PaymentTask {
                    order_id: OrderId(uuid::Uuid::from_u128(order)),
                    user_id: UserId(format!("user-{user}")),
                    amount_minor,
                    currency: if foreign { CurrencyCode::USD } else { CurrencyCode::EUR },
                }
            });
        prop::collection::vec(task, 0..80)
    }

    proptest! {
        #[test]
        fn no_sequence_of_tasks_overdraws_or_loses_money(tasks in tasks(), cut in 0..80_usize) {
            // The third user has no account.
            let mut accounts = vec![account("user-0", 200), account("user-1", 90)];
            let start = accounts.clone();
            let mut recorded = Vec::new();
            let mut debits: Vec<LedgerEntry> = Vec::new();
            let cut = cut.min(tasks.len());
            for batch in [&tasks[..cut], &tasks[cut..]] {
                let plan = plan(batch, &mut Book::open(accounts.clone()), recorded.clone(), Timestamp(1));
                let mut orders: Vec<OrderId> = batch.iter().map(|task| task.order_id).collect();
                orders.sort_unstable();
                orders.dedup();
                let mut told: Vec<OrderId> = plan.results.iter().map(|(_, payment)| payment.order_id).collect();
                told.sort_unstable();
                prop_assert_eq!(told, orders, "each order is told once per batch");
                prop_assert_eq!(plan.repeated.len() + plan.decided.len(), batch.len());
                for change in &plan.accounts {
                    let account = accounts.iter_mut().find(|account| account.id == change.id).unwrap();
                    prop_assert_eq!((account.entry_count, account.balance_minor), (change.before.entry_count, change.before.balance_minor));
                    account.balance_minor = change.after.balance_minor;
                    account.entry_count = change.after.entry_count;
                }
                recorded.extend(plan.decided);
                debits.extend(plan.debits);
            }
            let mut orders: Vec<OrderId> = recorded.iter().map(|payment| payment.order_id).collect();
            orders.sort_unstable();
            let decided = orders.len();
            orders.dedup();
            prop_assert_eq!(orders.len(), decided, "one decision per order");
            for (account, start) in accounts.iter().zip(start) {
                let own: Vec<&LedgerEntry> = debits.iter().filter(|entry| entry.account_id == account.id).collect();
                let sum: i64 = own.iter().map(|entry| entry.amount_minor).sum();
                prop_assert_eq!(account.balance_minor, start.balance_minor + sum);
                prop_assert!(own.iter().all(|entry| entry.balance_after_minor >= 0));
                let numbers: Vec<i64> = own.iter().map(|entry| entry.number).collect();
                prop_assert_eq!(numbers, (2..=account.entry_count).collect::<Vec<_>>());
            }
            for payment in &recorded {
                let debit = debits.iter().find(|entry| Some(entry.id) == payment.entry_id);
                prop_assert_eq!(payment.outcome == PaymentOutcome::Paid, debit.is_some());
                prop_assert!(debit.is_none_or(|entry| entry.amount_minor == -payment.amount_minor));
            }
        }
    }
}
