//! Putting money into an account.
//!
//! The account's row is locked first, which orders top-ups and payments of one account one after the other. A repeated key is looked for
//! before anything is checked, so a repetition gets its entry even when the same request would be refused by now.

use database::Database;
use schema::{LedgerEntryId, MAX_BALANCE_MINOR, Money, Timestamp, UserId, graphql::IdempotencyKey};
use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, EntityTrait as _, IntoActiveModel as _, QueryFilter as _, QuerySelect as _,
    sea_query::Expr,
};

use super::{Account, AccountError, Accounts, Refusal, entity};
use crate::{
    idempotency::{KeyedRequest, Repetition},
    ledger::{self, LedgerEntries, LedgerEntry, LedgerEntryKind},
};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct TopUp {
    /// Whose account.
    pub user: UserId,
    /// How much; positive.
    pub amount: Money,
    /// Makes a repetition recognizable.
    pub key: Option<IdempotencyKey>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToppedUp {
    /// The account and its new entry.
    Applied(Account, LedgerEntry),
    /// The same request had been carried out before: the account as it is now, and the entry of that time.
    AlreadyApplied(Account, LedgerEntry),
}

impl ToppedUp {
    /// The account and the entry, however they came about.
    pub fn into_parts(self) -> (Account, LedgerEntry) {
        match self {
            Self::Applied(account, entry) | Self::AlreadyApplied(account, entry) => (account, entry),
        }
    }
}

/// Adds the amount to the user's account.
///
/// # Errors
///
/// A [`Refusal`] (no account, other currency, balance too large, key reused), or the database's.
pub async fn top_up_account(db: &Database, request: TopUp) -> Result<ToppedUp, AccountError> {
    db.transaction("top up account", move |tx| Box::pin(top_up_account_in_tx(tx, request))).await
}

async fn top_up_account_in_tx(tx: &DatabaseTransaction, request: TopUp) -> Result<ToppedUp, AccountError> {
    let TopUp { user, amount, key } = request;
    let keyed = key.map(|key| KeyedRequest::new(&key, "topUpAccount", &[&amount.minor.to_string(), amount.currency.code()]));

    // SQLite has one writer and no row locks; sea-query leaves the clause out there.
    let account = Accounts::find().filter(entity::Column::UserId.eq(user)).lock_exclusive().one(tx).await?;
    let account = account.ok_or(Refusal::NotFound)?;

    if let Some(keyed) = &keyed
        && let Some(entry) = ledger::entry_under_key(tx, account.id, keyed.key()).await?
    {
        return match keyed.compare(entry.idempotency_key.as_deref(), entry.idempotency_hash.as_deref()) {
            Repetition::Same => Ok(ToppedUp::AlreadyApplied(account, entry)),
            Repetition::KeyReused | Repetition::Unrelated => Err(Refusal::KeyReused.into()),
        };
    }

    let (account, entry) = credit(account, amount, keyed)?;
    LedgerEntries::insert(entry.clone().into_active_model()).exec_without_returning(tx).await?;
    Accounts::update_many()
        .col_expr(entity::Column::BalanceMinor, Expr::value(account.balance_minor))
        .col_expr(entity::Column::EntryCount, Expr::value(account.entry_count))
        .filter(entity::Column::Id.eq(account.id))
        .exec(tx)
        .await?;
    Ok(ToppedUp::Applied(account, entry))
}

/// The account after the top-up and its new entry. Pure but for the entry's id and time.
fn credit(account: Account, amount: Money, keyed: Option<KeyedRequest>) -> Result<(Account, LedgerEntry), Refusal> {
    if amount.currency != account.currency {
        return Err(Refusal::CurrencyMismatch { account: account.currency });
    }
    let balance_minor = account
        .balance_minor
        .checked_add(amount.minor)
        .filter(|balance| *balance <= MAX_BALANCE_MINOR)
        .ok_or(Refusal::BalanceTooLarge { currency: account.currency })?;
    let account = Account { balance_minor, entry_count: account.entry_count + 1, ..account };
    let entry = LedgerEntry {
        id: LedgerEntryId::generate(),
        account_id: account.id,
        number: account.entry_count,
        kind: LedgerEntryKind::TopUp,
        amount_minor: amount.minor,
        balance_after_minor: balance_minor,
        order_id: None,
        created_at_ms: Timestamp::now(),
        idempotency_key: keyed.as_ref().map(|keyed| keyed.key().to_owned()),
        idempotency_hash: keyed.map(|keyed| keyed.hash().to_vec()),
    };
    Ok((account, entry))
}
