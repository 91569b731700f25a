//! Entities by their keys. There is no query field: clients ask Order Service, and the gateway comes here by key.
//!
//! A key that is malformed, unknown or somebody else's gives null, all looking the same.

use async_graphql::{Context, ID, Object};
use schema::{PaymentId, UserId, graphql::GraphqlError};

use super::{account::Account, entry::LedgerEntry, loader, order::Order, payment::Payment, user::User};

/// The root of the subgraph's queries.
#[derive(Debug, Default, Clone, Copy)]
pub struct Query;

#[Object]
impl Query {
    #[graphql(entity)]
    async fn find_user_by_id(&self, id: ID) -> Option<User> {
        UserId::from_public(&id).ok().map(User)
    }

    #[graphql(entity)]
    async fn find_order_by_id(&self, id: ID) -> Option<Order> {
        id.parse().ok().map(Order)
    }

    #[graphql(entity)]
    async fn find_account_by_id(&self, ctx: &Context<'_>, id: ID) -> Option<Result<Account, GraphqlError>> {
        loader::account(ctx, id.parse().ok()?).await.map(|found| found.map(Account)).transpose()
    }

    #[graphql(entity)]
    async fn find_ledger_entry_by_id(&self, ctx: &Context<'_>, id: ID) -> Option<Result<LedgerEntry, GraphqlError>> {
        loader::line(ctx, id.parse().ok()?).await.map(|found| found.map(LedgerEntry)).transpose()
    }

    #[graphql(entity)]
    async fn find_payment_by_id(&self, ctx: &Context<'_>, id: ID) -> Option<Result<Payment, GraphqlError>> {
        let id: PaymentId = id.parse().ok()?;
        loader::payment_of(ctx, id.into()).await.map(|found| found.map(Payment)).transpose()
    }
}
