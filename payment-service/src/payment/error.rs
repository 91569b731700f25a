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
    /// An order stands twice in the batch, or an account is missing, holds another currency, or less than is asked for.
    #[error("not all of it can be paid at once")]
    NotPayableAtOnce,
}

impl PaymentError {
    /// Whether the same batch may be applied later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Payload(_) => false,
            Self::NotPayableAtOnce => true,
            Self::Database(error) => error.is_transient(),
        }
    }

    /// Whether it takes a look at recorded decisions and accounts, under locks: one of the orders is decided already, or would be rejected,
    /// or an account was changed meanwhile. Nothing was applied.
    pub fn needs_locks(&self) -> bool {
        match self {
            Self::Payload(_) => false,
            Self::NotPayableAtOnce => true,
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
