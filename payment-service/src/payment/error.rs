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
    /// The database failed, or somebody else was faster.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl PaymentError {
    /// Whether the same batch may be applied later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Payload(_) => false,
            Self::Database(error) => error.is_transient(),
        }
    }

    /// Whether, between our reading and our writing, somebody else decided one of the orders or changed one of the accounts.
    pub fn is_overtaken(&self) -> bool {
        // A debit's number, or its order, was there first.
        matches!(self, Self::Database(DatabaseError::Db(error)) if database::is_overtaken(error) || database::is_unique_violation(error))
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
