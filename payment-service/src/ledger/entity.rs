//! The table `ledger_entries` and how it is read.

use std::{fmt, str::FromStr};

use database::array::{Columns, columns_of};
use schema::{AccountId, CurrencyCode, LedgerEntryId, Money, OrderId, Timestamp, UserId};
use sea_orm::{DeriveValueType, FromQueryResult, entity::prelude::*};

/// What changed a balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, async_graphql::Enum, DeriveValueType)]
#[sea_orm(value_type = "String")]
pub enum LedgerEntryKind {
    /// Money came in.
    TopUp,
    /// An order was paid.
    Debit,
}

impl LedgerEntryKind {
    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TopUp => "TOP_UP",
            Self::Debit => "DEBIT",
        }
    }
}

impl fmt::Display for LedgerEntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no [`LedgerEntryKind`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no kind of ledger entry")]
pub struct UnknownKind(String);

impl FromStr for LedgerEntryKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "TOP_UP" => Ok(Self::TopUp),
            "DEBIT" => Ok(Self::Debit),
            _ => Err(UnknownKind(text.chars().take(64).collect())),
        }
    }
}

/// One line of an account's ledger. Rows are permanent: the table refuses updates and deletes.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "ledger_entries")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: LedgerEntryId,
    /// Whose ledger it stands in.
    pub account_id: AccountId,
    /// 1, 2, 3, … per account without holes.
    pub number: i64,
    /// What changed the balance.
    pub kind: LedgerEntryKind,
    /// Positive for a top-up, negative for a debit; in the account's currency.
    pub amount_minor: i64,
    /// The account's balance with this entry.
    pub balance_after_minor: i64,
    /// The order that a debit paid; unique, so that no order is paid twice.
    pub order_id: Option<OrderId>,
    /// When it was made.
    pub created_at_ms: Timestamp,
    /// The key under which a top-up was asked for.
    pub idempotency_key: Option<String>,
    /// What was asked for under that key.
    pub idempotency_hash: Option<Vec<u8>>,
}

/// None: what belongs together is read by the queries that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// An entry with what its account says about it.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Line {
    /// The entry.
    #[sea_orm(nested)]
    pub entry: Model,
    /// The account's currency.
    pub currency: CurrencyCode,
    /// Whose account it is.
    pub user_id: UserId,
}

impl Line {
    /// The signed amount with its currency.
    pub fn amount(&self) -> Money {
        Money { minor: self.entry.amount_minor, currency: self.currency }
    }

    /// The balance with this entry.
    pub fn balance_after(&self) -> Money {
        Money { minor: self.entry.balance_after_minor, currency: self.currency }
    }
}

/// The entry that was made under a key in this account.
pub async fn entry_under_key(db: &impl ConnectionTrait, account: AccountId, key: &str) -> Result<Option<Model>, DbErr> {
    Entity::find().filter(Column::AccountId.eq(account)).filter(Column::IdempotencyKey.eq(key)).one(db).await
}

/// The entries with these ids, in no order; unknown ids are left out. The ids must be distinct.
pub async fn lines_batch(db: &impl ConnectionTrait, ids: &[LedgerEntryId]) -> Result<Vec<Line>, DbErr> {
    let rows = Columns::new(db.get_database_backend(), ids).uuid("id", |id| id.0);
    let statement = rows.statement(|rows| {
        format!(
            "SELECT {}, a.currency, a.user_id FROM {rows} AS r
             JOIN ledger_entries AS e ON e.id = r.id JOIN accounts AS a ON a.id = e.account_id",
            columns_of::<Entity>("e")
        )
    });
    Line::find_by_statement(statement).all(db).await
}

/// Adds the columns of a debit that are not those of its payment; NULL for rows without one.
pub fn debit_columns<'a, R>(rows: Columns<'a, R>, debit: impl Fn(&'a R) -> Option<&'a Model>) -> Columns<'a, R> {
    rows.opt_uuid("account_id", |row| debit(row).map(|debit| debit.account_id.0))
        .bigint("entry_number", |row| debit(row).map_or(0, |debit| debit.number))
        .bigint("balance_after_minor", |row| debit(row).map_or(0, |debit| debit.balance_after_minor))
}

/// Inserts the debits of the paid payments in the table `from`. Their accounts must be locked, by a read or by
/// their update in front of this, and their numbers the next ones.
pub fn insert_debits_from(from: &str) -> String {
    format!(
        "INSERT INTO ledger_entries (id, account_id, number, kind, amount_minor, balance_after_minor, order_id, created_at_ms)
         SELECT entry_id, account_id, entry_number, 'DEBIT', -amount_minor, balance_after_minor, order_id, decided_at_ms
         FROM {from} WHERE account_id IS NOT NULL ORDER BY ord"
    )
}
