//! Why a change of an account did not happen.

use database::DatabaseError;
use schema::{CurrencyCode, MAX_BALANCE_MINOR, Money};
use sea_orm::DbErr;

/// A change of an account was refused or failed. Nothing was changed, except perhaps after an unknown outcome of the commit
/// ([`DatabaseError::OutcomeUnknown`]).
#[derive(Debug, Clone, thiserror::Error)]
pub enum AccountError {
    /// The caller could foresee it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<DbErr> for AccountError {
    fn from(error: DbErr) -> Self {
        Self::Database(error.into())
    }
}

/// What the rules of accounts do not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One account per user.
    #[error("there is an account already")]
    AlreadyExists,
    /// There is none to change.
    #[error("there is no account yet: create one first")]
    NotFound,
    /// The account holds another currency.
    #[error("the account is held in {account}")]
    CurrencyMismatch {
        /// What the account holds.
        account: CurrencyCode,
    },
    /// The balance would pass [`MAX_BALANCE_MINOR`].
    #[error("the balance must not become greater than {}", Money { minor: MAX_BALANCE_MINOR, currency: *currency })]
    BalanceTooLarge {
        /// What the account holds.
        currency: CurrencyCode,
    },
    /// The idempotency key stands for something else.
    #[error("this idempotency key was used before with other arguments")]
    KeyReused,
}
