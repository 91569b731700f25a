//! One statement for all rows of a kind that a request asks for.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_graphql::{
    Context,
    dataloader::{DataLoader, Loader},
};
use database::Database;
use schema::{
    OrderId,
    graphql::{ErrorCode, GraphqlError, MAX_PAGE_SIZE, loading},
};
use sea_orm::DbErr;

use crate::order::{
    Order, OrderEvent,
    find::{self, Owner},
};

/// Ids per statement: the largest page.
const MAX_BATCH: usize = 100;

/// Orders that the lists of one request, or of one event of a subscription, may have in all: a page of pages. Lists in lists multiply.
const MAX_LISTED: usize = MAX_PAGE_SIZE + MAX_PAGE_SIZE * MAX_PAGE_SIZE;

/// The loaders of one request: they see what its viewer may see, and live no longer.
pub struct Loaders {
    orders: DataLoader<Orders>,
    histories: DataLoader<Histories>,
    budget: Budget,
}

/// How many orders may still be listed. Cheap to clone.
#[derive(Clone)]
pub(super) struct Budget(Arc<AtomicUsize>);

impl Budget {
    fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(MAX_LISTED)))
    }

    /// Takes a page's worth.
    pub(super) fn take(&self, orders: usize) -> Result<(), GraphqlError> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(orders));
        let message = || format!("lists of more than {MAX_LISTED} orders in one operation: ask for smaller pages");
        taken.map(drop).map_err(|_| GraphqlError::new(ErrorCode::LimitExceeded, message()))
    }

    /// For the next event.
    pub(super) fn renew(&self) {
        self.0.store(MAX_LISTED, Ordering::Relaxed);
    }
}

impl Loaders {
    pub(super) fn new(database: Database, owner: Option<Owner>) -> Self {
        let orders = Orders { database: database.clone(), owner };
        let histories = Histories { database };
        Self {
            orders: loading::loader(orders, MAX_BATCH),
            histories: loading::loader(histories, MAX_BATCH),
            budget: Budget::new(),
        }
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

/// What the request may still list.
pub(super) fn budget<'a>(ctx: &Context<'a>) -> Result<&'a Budget, GraphqlError> {
    Ok(&loaders(ctx)?.budget)
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
