//! Why a batch of payment tasks was not applied. Nothing of it was.

use database::DatabaseError;
use messaging::HandlerError;
use schema::MalformedPayload;
use sea_orm::DbErr;

/// Why a batch was rolled back.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    /// A result could not be written as JSON.
    #[error(transparent)]
    Payload(#[from] MalformedPayload),
    /// The database failed, or something was not as it was read or taken for.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// An order would be rejected, for ever, by what was read without locks.
    #[error("a rejection needs the account's lock")]
    RejectedUnlocked,
}

impl PaymentError {
    /// Whether the same batch may be applied later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Payload(_) => false,
            Self::RejectedUnlocked => true,
            Self::Database(error) => error.is_transient(),
        }
    }

    /// Whether it takes locks, and a look at recorded decisions: one of the orders is decided already, one of the accounts has changed since it was
    /// read, or an order would be rejected. Nothing was applied.
    pub fn needs_locks(&self) -> bool {
        match self {
            Self::Payload(_) => false,
            Self::RejectedUnlocked => true,
            Self::Database(error) => error.is_overtaken(),
        }
    }
}

impl From<DbErr> for PaymentError {
    fn from(error: DbErr) -> Self {
        Self::Database(error.into())
    }
}

impl From<PaymentError> for HandlerError {
    fn from(error: PaymentError) -> Self {
        if error.is_transient() { Self::transient(error) } else { Self::permanent(error) }
    }
}
