//! The table `accounts` and how it is read.

use database::array::{Columns, columns_of};
use schema::{AccountId, CurrencyCode, Money, Timestamp, UserId};
use sea_orm::entity::prelude::*;

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "accounts")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: AccountId,
    /// Whose it is; unique.
    pub user_id: UserId,
    /// The only currency that it holds.
    pub currency: CurrencyCode,
    /// 0 to [`schema::MAX_BALANCE_MINOR`]; always the sum of the entries.
    pub balance_minor: i64,
    /// How many entries the ledger has, which is the number of the last one.
    pub entry_count: i64,
    /// When it was created.
    pub created_at_ms: Timestamp,
    /// The key under which it was created.
    pub idempotency_key: Option<String>,
    /// What was asked for under that key.
    pub idempotency_hash: Option<Vec<u8>>,
}

/// None: what belongs together is read by the queries that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// The balance with its currency.
    pub fn balance(&self) -> Money {
        Money { minor: self.balance_minor, currency: self.currency }
    }
}

/// The accounts with these ids, in no order; ids without an account are left out. The ids must be distinct.
pub async fn accounts_batch(db: &impl ConnectionTrait, ids: &[AccountId]) -> Result<Vec<Model>, DbErr> {
    let rows = Columns::new(db.get_database_backend(), ids).uuid("id", |id| id.0);
    let columns = columns_of::<Entity>("a");
    let statement = rows.statement(|rows| format!("SELECT {columns} FROM {rows} AS r JOIN accounts AS a ON a.id = r.id"));
    Entity::find().from_raw_sql(statement).all(db).await
}

/// The accounts of these users, in no order; users without one are left out. The users must be distinct.
pub async fn accounts_of_users_batch(db: &impl ConnectionTrait, users: &[UserId]) -> Result<Vec<Model>, DbErr> {
    let rows = Columns::new(db.get_database_backend(), users).text("user_id", UserId::as_str);
    let columns = columns_of::<Entity>("a");
    let statement =
        rows.statement(|rows| format!("SELECT {columns} FROM {rows} AS r JOIN accounts AS a ON a.user_id = r.user_id"));
    Entity::find().from_raw_sql(statement).all(db).await
}
