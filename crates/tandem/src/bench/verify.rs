//! What clients were told against what is stored: a figure with a difference is no figure.

use std::collections::HashSet;

use futures_util::TryStreamExt as _;
use schema::OrderId;
use sea_orm::{DatabaseConnection, Statement, StreamTrait as _};

use super::{
    BenchError,
    stage::{self, Stage},
};

/// Orders that were stored, and settled, before those that are verified: seeded, or of an earlier load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Earlier {
    /// How many.
    pub orders: i64,
    /// The highest of their numbers; every later order has a higher one.
    pub last_number: i64,
}

impl Earlier {
    /// All that are stored now.
    ///
    /// # Errors
    /// What the database says.
    pub async fn all(orders_db: &DatabaseConnection) -> Result<Self, BenchError> {
        let orders = stage::number(orders_db, "SELECT count(*) FROM orders").await?;
        let last_number = stage::number(orders_db, "SELECT coalesce(max(number), 0) FROM orders").await?;
        Ok(Self { orders, last_number })
    }
}

/// Every accepted order is stored, once, and no other.
///
/// # Errors
/// [`BenchError::Difference`] otherwise.
pub async fn accepted_are_stored(orders_db: &DatabaseConnection, accepted: &[OrderId]) -> Result<(), BenchError> {
    accepted_are_stored_besides(orders_db, accepted, Earlier::default()).await
}

/// [`accepted_are_stored`], where earlier ones are stored, too.
///
/// # Errors
/// [`BenchError::Difference`] otherwise.
pub async fn accepted_are_stored_besides(
    orders_db: &DatabaseConnection,
    accepted: &[OrderId],
    earlier: Earlier,
) -> Result<(), BenchError> {
    let sql = format!("SELECT id FROM orders WHERE number > {}", earlier.last_number);
    // One by one, because ten minutes of orders as rows are more memory than everything that is measured.
    let rows = orders_db.stream_raw(Statement::from_string(orders_db.get_database_backend(), sql)).await?;
    let stored: HashSet<OrderId> =
        rows.and_then(|row| std::future::ready(row.try_get_by_index::<OrderId>(0))).try_collect().await?;
    let told: HashSet<OrderId> = accepted.iter().copied().collect();
    if told.len() == accepted.len() && told == stored {
        return Ok(());
    }
    let (lost, unasked) = (told.difference(&stored).count(), stored.difference(&told).count());
    Err(BenchError::Difference { accepted: accepted.len(), doubled: accepted.len() - told.len(), lost, unasked })
}

/// [`accepted_are_stored`] of a stage, and every order is PAID with exactly one decision and one debit.
///
/// # Errors
/// [`BenchError::Difference`] otherwise.
pub async fn accepted_are_settled(stage: &Stage, accepted: &[OrderId]) -> Result<(), BenchError> {
    accepted_are_paid(&stage.orders_db, &stage.payments_db, accepted, stage.earlier).await
}

/// [`accepted_are_settled`] of any two databases.
///
/// # Errors
/// [`BenchError::Difference`] otherwise.
pub async fn accepted_are_paid(
    orders_db: &DatabaseConnection,
    payments_db: &DatabaseConnection,
    accepted: &[OrderId],
    earlier: Earlier,
) -> Result<(), BenchError> {
    accepted_are_stored_besides(orders_db, accepted, earlier).await?;
    let paid = stage::number(orders_db, "SELECT count(*) FROM orders WHERE status = 'PAID'").await?;
    let decided = stage::number(payments_db, "SELECT count(*) FROM payments WHERE outcome = 'PAID'").await?;
    let debited = stage::number(payments_db, "SELECT count(*) FROM ledger_entries WHERE kind = 'DEBIT'").await?;
    let expected = earlier.orders + i64::try_from(accepted.len()).unwrap_or(i64::MAX);
    if [paid, decided, debited] == [expected; 3] {
        return Ok(());
    }
    Err(BenchError::Unexpected(format!("{expected} orders are to be PAID, {paid} are, {decided} decided, {debited} debited")))
}
