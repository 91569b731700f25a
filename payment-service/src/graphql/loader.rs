//! Batched reads. They know no viewer: whoever calls them checks the owner ([`super::viewer`]), which the functions here do.

use std::{collections::HashMap, hash::Hash};

use async_graphql::{
    Context,
    dataloader::{self, DataLoader},
};
use database::Database;
use schema::{AccountId, LedgerEntryId, OrderId, UserId, graphql::GraphqlError};

use super::{failure::read_failure, viewer::Viewer};
use crate::{
    account::{Account, accounts_batch, accounts_of_users_batch},
    ledger::{Line, lines_batch},
    payment::{Payment, payments_batch},
};

/// Keys per statement; more waiting keys make another statement.
pub(super) const MAX_KEYS: usize = 500;

/// The account of a user, if there is one and the viewer may see it.
pub(super) async fn account_of(ctx: &Context<'_>, owner: &UserId) -> Result<Option<Account>, GraphqlError> {
    if Viewer::of(ctx)?.may_see(owner) { load(ctx, owner.clone()).await } else { Ok(None) }
}

/// An account, if it exists and the viewer may see it.
pub(super) async fn account(ctx: &Context<'_>, id: AccountId) -> Result<Option<Account>, GraphqlError> {
    let viewer = Viewer::of(ctx)?;
    Ok(load(ctx, id).await?.filter(|account: &Account| viewer.may_see(&account.user_id)))
}

/// A ledger entry, if it exists and the viewer may see it.
pub(super) async fn line(ctx: &Context<'_>, id: LedgerEntryId) -> Result<Option<Line>, GraphqlError> {
    let viewer = Viewer::of(ctx)?;
    Ok(load(ctx, id).await?.filter(|line: &Line| viewer.may_see(&line.user_id)))
}

/// The payment of an order, if it is decided and the viewer may see it.
pub(super) async fn payment_of(ctx: &Context<'_>, order: OrderId) -> Result<Option<Payment>, GraphqlError> {
    let viewer = Viewer::of(ctx)?;
    Ok(load(ctx, order).await?.filter(|payment: &Payment| viewer.may_see(&payment.user_id)))
}

async fn load<K, V>(ctx: &Context<'_>, key: K) -> Result<Option<V>, GraphqlError>
where
    K: Send + Sync + Hash + Eq + Clone + 'static,
    Loader: dataloader::Loader<K, Value = V, Error = GraphqlError>,
{
    // The schema is never executed without its data; see `super::schema`.
    let loader = ctx.data_opt::<DataLoader<Loader>>().ok_or_else(GraphqlError::internal)?;
    loader.load_one(key).await
}

/// Reads by key from one database.
pub(super) struct Loader {
    database: Database,
}

impl Loader {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

fn by_key<K: Hash + Eq, V>(rows: Vec<V>, key: impl Fn(&V) -> K) -> HashMap<K, V> {
    rows.into_iter().map(|row| (key(&row), row)).collect()
}

impl dataloader::Loader<UserId> for Loader {
    type Value = Account;
    type Error = GraphqlError;

    async fn load(&self, users: &[UserId]) -> Result<HashMap<UserId, Account>, GraphqlError> {
        let rows = accounts_of_users_batch(self.database.reader(), users).await;
        let rows = rows.map_err(|error| read_failure("accounts of users", &error))?;
        Ok(by_key(rows, |account| account.user_id.clone()))
    }
}

impl dataloader::Loader<AccountId> for Loader {
    type Value = Account;
    type Error = GraphqlError;

    async fn load(&self, ids: &[AccountId]) -> Result<HashMap<AccountId, Account>, GraphqlError> {
        let rows = accounts_batch(self.database.reader(), ids).await;
        let rows = rows.map_err(|error| read_failure("accounts", &error))?;
        Ok(by_key(rows, |account| account.id))
    }
}

impl dataloader::Loader<LedgerEntryId> for Loader {
    type Value = Line;
    type Error = GraphqlError;

    async fn load(&self, ids: &[LedgerEntryId]) -> Result<HashMap<LedgerEntryId, Line>, GraphqlError> {
        let rows = lines_batch(self.database.reader(), ids).await;
        let rows = rows.map_err(|error| read_failure("ledger entries", &error))?;
        Ok(by_key(rows, |line| line.entry.id))
    }
}

impl dataloader::Loader<OrderId> for Loader {
    type Value = Payment;
    type Error = GraphqlError;

    async fn load(&self, orders: &[OrderId]) -> Result<HashMap<OrderId, Payment>, GraphqlError> {
        let rows = payments_batch(self.database.reader(), orders).await;
        let rows = rows.map_err(|error| read_failure("payments", &error))?;
        Ok(by_key(rows, |payment| payment.order_id))
    }
}
