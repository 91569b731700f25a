//! Why a batch of payment tasks was not applied. Nothing of it was.

use messaging::HandlerError;
use schema::MalformedPayload;
use sea_orm::DbErr;

/// Why a batch was rolled back.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    /// Another transaction decided some of these orders between our reading and our writing. The next try reads its decisions.
    #[error("{count} orders of the batch were decided by somebody else at the same time")]
    DecidedElsewhere {
        /// How many.
        count: u64,
    },
    /// An account was changed although this transaction had locked it. Second guard: it stops a lost update.
    #[error("{count} accounts of the batch changed under their lock")]
    AccountChanged {
        /// How many.
        count: u64,
    },
    /// A result could not be written as JSON.
    #[error(transparent)]
    Payload(#[from] MalformedPayload),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbErr),
}

impl PaymentError {
    /// Whether the same batch may be applied later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::DecidedElsewhere { .. } | Self::AccountChanged { .. } => true,
            Self::Payload(_) => false,
            Self::Database(error) => database::is_transient(error),
        }
    }
}

impl From<PaymentError> for HandlerError {
    fn from(error: PaymentError) -> Self {
        if error.is_transient() { Self::transient(error) } else { Self::permanent(error) }
    }
}
