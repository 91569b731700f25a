//! What the clients were told against what the databases hold.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    path::Path,
};

use database::{ConnectOptions, Database, DatabaseError};
use order_service::order::{self, Order, OrderStatus};
use payment_service::{
    audit::{AuditReport, audit},
    payment::{Payment, Payments},
};
use schema::OrderId;
use sea_orm::{DbErr, EntityTrait as _};

use super::load::{Accepted, order_key};
use crate::embedded::{orders_database, payments_database};

/// Differences shown; the counts are complete.
const MAX_SHOWN: usize = 20;

/// Why the databases could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    /// A database could not be opened.
    #[error(transparent)]
    Open(#[from] DatabaseError),
    /// A database could not be read.
    #[error(transparent)]
    Read(#[from] DbErr),
}

/// What a skeptic wants to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Times that the process was killed.
    pub kills: usize,
    /// Orders that a client was told are accepted.
    pub accepted: usize,
    /// Of those, found in the database.
    pub found: usize,
    /// Stored as paid.
    pub paid: usize,
    /// Stored as rejected.
    pub rejected: usize,
    /// Accepted, but not stored.
    pub lost: usize,
    /// Stored more than once per call, or paid by more than one debit, or debited without being accepted.
    pub doubled: usize,
    /// Stored, but not final.
    pub unsettled: usize,
    /// What else does not add up: the two services disagree, or a balance is not top-ups minus paid orders.
    pub differences: Vec<String>,
}

impl Verdict {
    /// Whether nothing is lost, doubled, unsettled or off by a cent.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.unsettled == 0 && self.differences.is_empty() && self.found == self.accepted
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = |good: bool| if good { "✓" } else { "✗" };
        writeln!(f, "  orders accepted   {:>6}   (the process was killed {} times meanwhile)", self.accepted, self.kills)?;
        writeln!(f, "  orders found      {:>6}   {}", self.found, mark(self.found == self.accepted))?;
        writeln!(f, "  paid              {:>6}", self.paid)?;
        writeln!(f, "  rejected          {:>6}", self.rejected)?;
        writeln!(f, "  undecided         {:>6}   {}", self.unsettled, mark(self.unsettled == 0))?;
        writeln!(f, "  lost              {:>6}   {}", self.lost, mark(self.lost == 0))?;
        writeln!(f, "  doubled           {:>6}   {}", self.doubled, mark(self.doubled == 0))?;
        let exact = self.differences.is_empty();
        writeln!(f, "  balances           {}   {}", if exact { "exact" } else { "  off" }, mark(exact))?;
        self.differences.iter().take(MAX_SHOWN).try_for_each(|difference| writeln!(f, "    {difference}"))
    }
}

/// Opens both databases of a stopped process and compares.
pub(super) async fn compare(data_dir: &Path, accepted: Accepted, kills: usize) -> Result<Verdict, VerdictError> {
    let options = ConnectOptions::new("tandem-prove");
    let orders_db = Database::connect(&orders_database(data_dir), &options).await?;
    let payments_db = Database::connect(&payments_database(data_dir), &options).await?;
    let verdict = compare_databases(&orders_db, &payments_db, &accepted, kills).await?;
    orders_db.close().await;
    payments_db.close().await;
    Ok(verdict)
}

/// Compares what the clients were told with what both services have stored. Nothing may be under way.
///
/// # Errors
/// When a database cannot be read.
pub async fn compare_databases(
    orders: &Database,
    payments: &Database,
    accepted: &Accepted,
    kills: usize,
) -> Result<Verdict, DbErr> {
    let stored = order::entity::Entity::find().all(orders.reader()).await?;
    let decided = Payments::find().all(payments.reader()).await?;
    let report = audit(payments.reader()).await?;
    Ok(verdict(accepted, kills, &stored, &decided, &report))
}

fn verdict(accepted: &Accepted, kills: usize, orders: &[Order], payments: &[Payment], report: &AuditReport) -> Verdict {
    let stored: HashMap<String, &Order> = orders.iter().map(|order| (order.id.to_string(), order)).collect();
    let told: HashSet<&String> = accepted.values().collect();
    let found = told.iter().filter(|id| stored.contains_key(id.as_str())).count();
    let count = |status| orders.iter().filter(|order| order.status == status).count();
    let mut per_key: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for order in orders {
        let key = order.idempotency_key.as_deref().unwrap_or_default();
        *per_key.entry((order.user_id.as_str(), key)).or_default() += 1;
    }
    let untold = orders.iter().filter(|order| !told.contains(&order.id.to_string())).count();
    // Two orders of one call are also an order that nobody was told of: it is counted once.
    let repeated = per_key.values().map(|count| count - 1).sum::<usize>();
    let doubled = (accepted.len() - told.len()) + repeated.max(untold);
    let mixed_up = accepted.iter().filter_map(|(call, id)| mixed_up(*call, stored.get(id)?));
    let differences = mixed_up.chain(differences(orders, payments, report)).collect();
    Verdict {
        kills,
        accepted: accepted.len(),
        found,
        paid: count(OrderStatus::Paid),
        rejected: count(OrderStatus::Rejected),
        lost: told.len() - found,
        doubled,
        unsettled: count(OrderStatus::Pending),
        differences,
    }
}

/// A call that was told the order of another call.
fn mixed_up(call: usize, order: &Order) -> Option<String> {
    let own = order.idempotency_key.as_ref() == Some(&order_key(call));
    (!own).then(|| format!("{}: told to call {call}, but it is the order of another call", order.id))
}

/// The audit of Payments covers balances, entries and debits; here both services are compared, and the entries with the load: one top-up
/// per account.
fn differences(orders: &[Order], payments: &[Payment], report: &AuditReport) -> Vec<String> {
    let decisions: HashMap<OrderId, &Payment> = payments.iter().map(|payment| (payment.order_id, payment)).collect();
    let known: HashSet<OrderId> = orders.iter().map(|order| order.id).collect();
    let disagreements = orders.iter().filter_map(|order| disagreement(order, decisions.get(&order.id).copied()));
    let strangers = payments.iter().filter(|payment| !known.contains(&payment.order_id));
    let strangers = strangers.map(|payment| format!("{}: a payment of an order that does not exist", payment.order_id));
    let entries = (report.entries != report.accounts + report.paid).then(|| {
        let AuditReport { entries, accounts, paid, .. } = report;
        format!("{entries} entries, but {accounts} accounts were topped up once each and {paid} orders paid")
    });
    report.differences.iter().map(ToString::to_string).chain(disagreements).chain(strangers).chain(entries).collect()
}

/// What the two services do not say alike of one order. An undecided order is counted as such.
fn disagreement(order: &Order, payment: Option<&Payment>) -> Option<String> {
    if order.status == OrderStatus::Pending {
        return None;
    }
    let Some(payment) = payment else {
        return Some(format!("{}: {}, but Payments has decided nothing", order.id, order.status));
    };
    let same_decision =
        order.status.as_str() == payment.outcome.to_string() && order.rejection_reason == payment.rejection_reason;
    if !same_decision {
        return Some(format!("{}: {}, but Payments decided otherwise", order.id, order.status));
    }
    let same_order = order.user_id == payment.user_id && order.total() == payment.amount();
    (!same_order).then(|| format!("{}: Payments decided about another amount or user ({})", order.id, payment.amount()))
}

#[cfg(test)]
mod tests {
    use payment_service::audit::Difference;
    use schema::{CurrencyCode, EventId, LedgerEntryId, PaymentOutcome, RejectionReason, Timestamp, UserId};

    use super::*;

    /// What a proof finds: what the clients were told, and what both services stored.
    struct Found {
        accepted: Accepted,
        orders: Vec<Order>,
        payments: Vec<Payment>,
        report: AuditReport,
    }

    impl Found {
        /// Three orders of one user: two paid, one rejected, and everything adds up.
        fn clean() -> Self {
            let orders: Vec<Order> =
                (0..3).map(|call| order(call, if call < 2 { OrderStatus::Paid } else { OrderStatus::Rejected })).collect();
            Self {
                accepted: orders.iter().enumerate().map(|(call, order)| (call, order.id.to_string())).collect(),
                payments: orders.iter().map(payment).collect(),
                report: AuditReport { accounts: 1, entries: 3, paid: 2, rejected: 1, differences: Vec::new() },
                orders,
            }
        }

        fn verdict(&self) -> Verdict {
            verdict(&self.accepted, 7, &self.orders, &self.payments, &self.report)
        }

        /// The verdict, which must not be clean, and must show it.
        fn guilty(&self) -> Verdict {
            let verdict = self.verdict();
            assert!(!verdict.is_clean(), "\n{verdict}");
            assert!(verdict.to_string().contains('✗'), "\n{verdict}");
            verdict
        }
    }

    fn order(call: usize, status: OrderStatus) -> Order {
        Order {
            id: OrderId::generate(),
            number: 1,
            user_id: UserId("ada".to_owned()),
            total_minor: 100,
            currency: CurrencyCode::EUR,
            description: "a book".to_owned(),
            status,
            rejection_reason: (status == OrderStatus::Rejected).then_some(RejectionReason::InsufficientFunds),
            version: 2,
            updated_at_ms: Timestamp(0),
            task_event_id: EventId::generate(),
            idempotency_key: Some(order_key(call)),
            idempotency_hash: None,
        }
    }

    fn payment(order: &Order) -> Payment {
        let paid = order.status == OrderStatus::Paid;
        Payment {
            order_id: order.id,
            user_id: order.user_id.clone(),
            amount_minor: order.total_minor,
            currency: order.currency,
            outcome: if paid { PaymentOutcome::Paid } else { PaymentOutcome::Rejected },
            rejection_reason: order.rejection_reason,
            entry_id: paid.then(LedgerEntryId::generate),
            result_event_id: EventId::generate(),
            decided_at_ms: Timestamp(0),
        }
    }

    #[test]
    fn what_adds_up_is_clean() {
        let verdict = Found::clean().verdict();
        assert!(verdict.is_clean(), "\n{verdict}");
        assert_eq!((verdict.kills, verdict.accepted, verdict.found, verdict.paid, verdict.rejected), (7, 3, 3, 2, 1));
        assert!(!verdict.to_string().contains('✗'));
    }

    #[test]
    fn an_accepted_order_that_is_not_stored_is_lost() {
        let mut found = Found::clean();
        found.orders.remove(0);
        let verdict = found.guilty();
        assert_eq!((verdict.lost, verdict.found), (1, 2));
        assert!(verdict.differences.iter().any(|difference| difference.contains("does not exist")), "its payment is left");
    }

    #[test]
    fn a_lost_order_is_not_hidden_by_one_that_nobody_was_told_of() {
        let mut found = Found::clean();
        let stranger = order(9, OrderStatus::Paid);
        found.payments[0] = payment(&stranger);
        found.orders[0] = stranger;
        let verdict = found.guilty();
        assert_eq!((verdict.lost, verdict.doubled), (1, 1));
    }

    #[test]
    fn a_call_with_two_orders_is_doubled() {
        let mut found = Found::clean();
        let twin = order(0, OrderStatus::Rejected);
        found.payments.push(payment(&twin));
        found.orders.push(twin);
        assert_eq!(found.guilty().doubled, 1);
    }

    #[test]
    fn two_calls_with_one_order_are_doubled() {
        let mut found = Found::clean();
        let first = found.accepted[&0].clone();
        found.accepted.insert(3, first);
        assert_eq!(found.guilty().doubled, 1);
    }

    #[test]
    fn calls_that_were_told_each_other_s_orders_are_told() {
        let mut found = Found::clean();
        let (first, second) = (found.accepted[&0].clone(), found.accepted[&1].clone());
        found.accepted.extend([(0, second), (1, first)]);
        assert_eq!(found.guilty().differences.len(), 2);
    }

    #[test]
    fn an_order_without_an_end_is_unsettled() {
        let mut found = Found::clean();
        found.orders[0].status = OrderStatus::Pending;
        assert_eq!(found.guilty().unsettled, 1);
    }

    #[test]
    fn services_that_disagree_in_anything_are_told() {
        let disagreements: [fn(&mut Vec<Payment>); 6] = [
            |payments| payments[0].outcome = PaymentOutcome::Rejected,
            |payments| payments[2].rejection_reason = Some(RejectionReason::AccountNotFound),
            |payments| payments[0].amount_minor += 1,
            |payments| payments[0].currency = CurrencyCode::USD,
            |payments| payments[0].user_id = UserId("bob".to_owned()),
            |payments| drop(payments.remove(0)),
        ];
        for disagree in disagreements {
            let mut found = Found::clean();
            disagree(&mut found.payments);
            let verdict = found.guilty();
            assert_eq!(verdict.differences.len(), 1, "{:?}", verdict.differences);
            assert!(
                verdict.differences[0].contains(&found.orders[0].id.to_string())
                    || verdict.differences[0].contains(&found.orders[2].id.to_string())
            );
        }
    }

    #[test]
    fn money_that_does_not_add_up_is_told() {
        let mut found = Found::clean();
        found.report.differences.push(Difference::Payment { order: found.orders[0].id });
        assert_eq!(found.guilty().differences.len(), 1);
        // A top-up that was carried out twice adds up in the ledger, but not with what the clients asked for.
        let mut found = Found::clean();
        found.report.entries += 1;
        assert_eq!(found.guilty().differences.len(), 1);
    }
}
