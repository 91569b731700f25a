//! Creating an account.
//!
//! Insert or nothing, guarded by the unique user id. Whoever loses a race, or comes again, sees in a second statement what is there, and
//! the stored key and hash tell a repetition from a second request.

use database::Database;
use schema::{AccountId, CurrencyCode, Timestamp, UserId, graphql::IdempotencyKey};
use sea_orm::{ColumnTrait as _, EntityTrait as _, IntoActiveModel as _, QueryFilter as _, TryInsertResult};

use super::{
    Account, AccountError, Accounts, Refusal,
    entity::{self, Column},
};
use crate::idempotency::{KeyedRequest, Repetition};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct CreateAccount {
    /// Whose account.
    pub user: UserId,
    /// In which currency, for ever.
    pub currency: CurrencyCode,
    /// Makes a repetition recognizable.
    pub key: Option<IdempotencyKey>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// The account was created.
    Applied(Account),
    /// The same request had created it before; this is the account as it is now.
    AlreadyApplied(Account),
}

impl Created {
    /// The account, however it came about.
    pub fn into_account(self) -> Account {
        match self {
            Self::Applied(account) | Self::AlreadyApplied(account) => account,
        }
    }
}

/// Creates the user's account with a balance of zero.
///
/// # Errors
///
/// [`Refusal::AlreadyExists`] or [`Refusal::KeyReused`] when there is an account that this request did not create; otherwise the database's.
pub async fn create_account(db: &Database, request: CreateAccount) -> Result<Created, AccountError> {
    let keyed = request.key.as_ref().map(|key| KeyedRequest::new(key, "createAccount", &[request.currency.code()]));
    let account = Account {
        id: AccountId::generate(),
        user_id: request.user,
        currency: request.currency,
        balance_minor: 0,
        entry_count: 0,
        created_at_ms: Timestamp::now(),
        idempotency_key: keyed.as_ref().map(|keyed| keyed.key().to_owned()),
        idempotency_hash: keyed.as_ref().map(|keyed| keyed.hash().to_vec()),
    };
    db.transaction("create account", move |tx| {
        Box::pin(async move {
            let insert = Accounts::insert(account.clone().into_active_model()).on_conflict_do_nothing_on([Column::UserId]);
            if let TryInsertResult::Inserted(1) = insert.exec_without_returning(tx).await? {
                return Ok(Created::Applied(account));
            }
            let existing = Accounts::find()
                .filter(entity::Column::UserId.eq(account.user_id.clone()))
                .one(tx)
                .await?
                .ok_or_else(|| sea_orm::DbErr::RecordNotFound("the account that was in the way of an insert".to_owned()))?;
            match keyed.map(|keyed| keyed.compare(existing.idempotency_key.as_deref(), existing.idempotency_hash.as_deref())) {
                Some(Repetition::Same) => Ok(Created::AlreadyApplied(existing)),
                Some(Repetition::KeyReused) => Err(Refusal::KeyReused.into()),
                Some(Repetition::Unrelated) | None => Err(Refusal::AlreadyExists.into()),
            }
        })
    })
    .await
}
