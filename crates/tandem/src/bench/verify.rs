//! What clients were told against what is stored: a figure with a difference is no figure.

use std::collections::HashSet;

use schema::OrderId;
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, Statement};

use super::{
    BenchError,
    stage::{self, Stage},
};

/// Every accepted order is stored, once, and no other.
///
/// # Errors
/// [`BenchError::Difference`] otherwise.
pub async fn accepted_are_stored(orders_db: &DatabaseConnection, accepted: &[OrderId]) -> Result<(), BenchError> {
    let rows = orders_db.query_all_raw(Statement::from_string(DbBackend::Postgres, "SELECT id FROM orders")).await?;
    let stored = rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<HashSet<OrderId>, _>>()?;
    let told: HashSet<OrderId> = accepted.iter().copied().collect();
    if told.len() == accepted.len() && told == stored {
        return Ok(());
    }
    let (lost, unasked) = (told.difference(&stored).count(), stored.difference(&told).count());
    Err(BenchError::Difference { accepted: accepted.len(), doubled: accepted.len() - told.len(), lost, unasked })
}

/// [`accepted_are_stored`], and every order is PAID with exactly one decision and one debit.
///
/// # Errors
/// [`BenchError::Difference`] otherwise.
pub async fn accepted_are_settled(stage: &Stage, accepted: &[OrderId]) -> Result<(), BenchError> {
    accepted_are_stored(&stage.orders_db, accepted).await?;
    let paid = stage::number(&stage.orders_db, "SELECT count(*) FROM orders WHERE status = 'PAID'").await?;
    let decided = stage::number(&stage.payments_db, "SELECT count(*) FROM payments WHERE outcome = 'PAID'").await?;
    let debited = stage::number(&stage.payments_db, "SELECT count(*) FROM ledger_entries WHERE kind = 'DEBIT'").await?;
    let expected = i64::try_from(accepted.len()).unwrap_or(i64::MAX);
    if [paid, decided, debited] == [expected; 3] {
        return Ok(());
    }
    Err(BenchError::Unexpected(format!("{expected} orders were accepted, {paid} are PAID, {decided} decided, {debited} debited")))
}
