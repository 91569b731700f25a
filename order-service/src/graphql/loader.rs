//! One statement for all rows of a kind that a request asks for.

use std::{collections::HashMap, sync::Arc};

use async_graphql::{
    Context,
    dataloader::{DataLoader, Loader},
};
use database::Database;
use schema::{
    OrderId,
    graphql::{GraphqlError, loading},
};
use sea_orm::DbErr;

use crate::order::{
    Order, OrderEvent,
    find::{self, Owner},
};

/// Ids per statement: the largest page.
const MAX_BATCH: usize = 100;

/// The loaders of one request: they see what its viewer may see, and live no longer.
pub struct Loaders {
    orders: DataLoader<Orders>,
    histories: DataLoader<Histories>,
}

impl Loaders {
    pub(super) fn new(database: Database, owner: Option<Owner>) -> Self {
        let orders = Orders { database: database.clone(), owner };
        Self { orders: loading::loader(orders, MAX_BATCH), histories: loading::loader(Histories { database }, MAX_BATCH) }
    }
}

/// An order that the viewer may see.
pub(super) async fn order(ctx: &Context<'_>, id: OrderId) -> Result<Option<Order>, GraphqlError> {
    loaders(ctx)?.orders.load_one(id).await.map_err(|error| failure(&error))
}

/// The events of an order that the viewer was shown.
pub(super) async fn history(ctx: &Context<'_>, id: OrderId) -> Result<Vec<OrderEvent>, GraphqlError> {
    let history = loaders(ctx)?.histories.load_one(id).await;
    history.map(Option::unwrap_or_default).map_err(|error| failure(&error))
}

fn loaders<'a>(ctx: &Context<'a>) -> Result<&'a Loaders, GraphqlError> {
    ctx.data_opt::<Loaders>().ok_or_else(GraphqlError::unauthenticated)
}

/// What a client is told of a database's failure; the log has the rest.
pub(super) fn failure(error: &DbErr) -> GraphqlError {
    if database::is_transient(error) {
        tracing::warn!(%error, "database is away");
        GraphqlError::unavailable()
    } else {
        tracing::error!(%error, "database refused a read");
        GraphqlError::internal()
    }
}

struct Orders {
    database: Database,
    owner: Option<Owner>,
}

impl Loader<OrderId> for Orders {
    type Value = Order;
    type Error = Arc<DbErr>;

    async fn load(&self, ids: &[OrderId]) -> Result<HashMap<OrderId, Order>, Arc<DbErr>> {
        let Some(owner) = &self.owner else { return Ok(HashMap::new()) };
        find::by_ids(self.database.reader(), owner, ids).await.map_err(Arc::new)
    }
}

struct Histories {
    database: Database,
}

impl Loader<OrderId> for Histories {
    type Value = Vec<OrderEvent>;
    type Error = Arc<DbErr>;

    async fn load(&self, ids: &[OrderId]) -> Result<HashMap<OrderId, Vec<OrderEvent>>, Arc<DbErr>> {
        find::histories(self.database.reader(), ids).await.map_err(Arc::new)
    }
}
