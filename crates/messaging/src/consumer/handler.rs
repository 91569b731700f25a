//! What a service implements to consume.

use std::any::Any;
use std::error::Error;

use async_trait::async_trait;
use database::{Database, DatabaseError};
use futures_util::future::BoxFuture;
use sea_orm::{DatabaseTransaction, DbErr};

use crate::message::{Delivery, MalformedEvent};

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Applies deliveries.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// What deliveries ask for. Dropped once that is committed, or given up; kept meanwhile, also while the part before it is applied.
    type Read: Send + Sync + 'static;

    /// What a committed part leaves to be done: rows for the relay, hints for feeds.
    type Committed: Send + 'static;

    /// Reads deliveries, without waiting for anything. `deliveries` is never empty; it may hold what several partitions had ready, each in its order.
    ///
    /// # Errors
    /// [`HandlerError::Permanent`] if one of the deliveries means nothing here: the loop finds out which.
    fn read(&self, deliveries: &[Delivery]) -> Result<Self::Read, HandlerError>;

    /// Applies everything or nothing: an `Err` rolls the whole transaction back. May be called again with the same deliveries, alone or in other
    /// company; claims them in an inbox or has another guard.
    ///
    /// # Errors
    /// [`HandlerError::Transient`] to be called again later, [`HandlerError::Permanent`] if one of the deliveries can
    /// never be applied: the loop finds out which.
    async fn apply_in_tx(&self, tx: &DatabaseTransaction, read: &Self::Read) -> Result<Self::Committed, HandlerError>;

    /// Makes the same ready to be done in one statement, without a transaction around it, where that leads to the same end. Waits for nothing, and asks nobody:
    /// the part before it is perhaps being applied. `None` when there is no such way here, or not this time: [`Handler::apply_in_tx`] is next then.
    ///
    /// # Errors
    /// As for [`Handler::apply_in_tx`].
    fn make_ready<'a>(
        &'a self,
        database: &'a Database,
        read: &Self::Read,
    ) -> Result<Option<Ready<'a, Self::Committed>>, HandlerError> {
        let _ = (database, read);
        Ok(None)
    }

    /// After the commit and before the offset is stored. Should only hand things on: it delays what comes next. A panic
    /// in it is logged and changes nothing, since the part is committed.
    async fn committed(&self, outcome: Self::Committed);
}

/// Applies a part, and commits it, in one statement; or applies nothing: `None` when something is not as it was taken for, and
/// [`Handler::apply_in_tx`] is next.
pub type Ready<'a, Committed> = BoxFuture<'a, Result<Option<Committed>, HandlerError>>;

/// Why deliveries were not applied.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// May succeed later: connection, lock, serialization, resources.
    #[error("{0}")]
    Transient(#[source] BoxError),
    /// Will fail again.
    #[error("{0}")]
    Permanent(#[source] BoxError),
}

impl HandlerError {
    /// [`HandlerError::Transient`] from any error or text.
    pub fn transient(cause: impl Into<BoxError>) -> Self {
        Self::Transient(cause.into())
    }

    /// [`HandlerError::Permanent`] from any error or text.
    pub fn permanent(cause: impl Into<BoxError>) -> Self {
        Self::Permanent(cause.into())
    }

    /// From what a panic carried.
    pub(super) fn panicked(payload: &(dyn Any + Send)) -> Self {
        Self::permanent(format!("the handler panicked: {}", panic_message(payload)))
    }
}

/// The text of a panic, where it has one.
pub(super) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

impl From<DbErr> for HandlerError {
    fn from(error: DbErr) -> Self {
        if database::is_transient(&error) { Self::transient(error) } else { Self::permanent(error) }
    }
}

impl From<DatabaseError> for HandlerError {
    fn from(error: DatabaseError) -> Self {
        if error.is_transient() { Self::transient(error) } else { Self::permanent(error) }
    }
}

impl From<MalformedEvent> for HandlerError {
    fn from(error: MalformedEvent) -> Self {
        Self::permanent(error)
    }
}
