//! What the clients were told against what the databases hold.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    path::Path,
};

use database::{ConnectOptions, Database, DatabaseError};
use order_service::order::{self, Order, OrderStatus};
use payment_service::audit::{AuditReport, audit};
use schema::{OrderId, PaymentOutcome};
use sea_orm::{DbErr, EntityTrait as _};

use super::load::Accepted;
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
    let orders = order::entity::Entity::find().all(orders_db.reader()).await?;
    let decisions = payment_service::payment::entity::Entity::find().all(payments_db.reader()).await?;
    let decisions: HashMap<OrderId, PaymentOutcome> =
        decisions.into_iter().map(|payment| (payment.order_id, payment.outcome)).collect();
    let report = audit(payments_db.reader()).await?;
    orders_db.close().await;
    payments_db.close().await;
    Ok(verdict(&accepted, kills, &orders, &decisions, &report))
}

fn verdict(
    accepted: &Accepted,
    kills: usize,
    orders: &[Order],
    decisions: &HashMap<OrderId, PaymentOutcome>,
    report: &AuditReport,
) -> Verdict {
    let stored: HashMap<String, &Order> = orders.iter().map(|order| (order.id.to_string(), order)).collect();
    let told: HashSet<&String> = accepted.values().collect();
    let found = told.iter().filter(|id| stored.contains_key(id.as_str())).count();
    let count = |status| orders.iter().filter(|order| order.status == status).count();
    let mut per_key: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for order in orders {
        let key = order.idempotency_key.as_deref().unwrap_or_default();
        *per_key.entry((order.user_id.as_str(), key)).or_default() += 1;
    }
    // Two calls that were told the same order, two orders of one call, and orders that nobody was told of.
    let doubled = (accepted.len() - told.len())
        + per_key.values().map(|count| count - 1).sum::<usize>()
        + orders.len().saturating_sub(accepted.len());
    Verdict {
        kills,
        accepted: accepted.len(),
        found,
        paid: count(OrderStatus::Paid),
        rejected: count(OrderStatus::Rejected),
        lost: told.len() - found,
        doubled,
        unsettled: count(OrderStatus::Pending),
        differences: differences(orders, decisions, report),
    }
}

/// The audit of Payments covers balances, entries and debits; here both services are compared.
fn differences(orders: &[Order], decisions: &HashMap<OrderId, PaymentOutcome>, report: &AuditReport) -> Vec<String> {
    let agree = |order: &&Order| match (order.status, decisions.get(&order.id)) {
        (OrderStatus::Paid, Some(PaymentOutcome::Paid))
        | (OrderStatus::Rejected, Some(PaymentOutcome::Rejected))
        | (OrderStatus::Pending, _) => true,
        (OrderStatus::Paid | OrderStatus::Rejected, _) => false,
    };
    let disagreements = orders.iter().filter(|order| !agree(order));
    let disagreements = disagreements.map(|order| format!("{}: {}, but Payments decided otherwise", order.id, order.status));
    let strangers = decisions.len().saturating_sub(orders.len());
    let strangers = (strangers > 0).then(|| format!("{strangers} payments of orders that do not exist"));
    report.differences.iter().map(ToString::to_string).chain(disagreements).chain(strangers).collect()
}
