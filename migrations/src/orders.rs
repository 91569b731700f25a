//! Order Service's database.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;

use crate::{delivery::create_outbox, dialect::execute};

/// Creates and upgrades Order Service's tables.
#[derive(Debug)]
pub struct OrdersMigrator;

#[async_trait::async_trait]
impl MigratorTrait for OrdersMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(CreateOrders)]
    }
}

struct CreateOrders;

impl MigrationName for CreateOrders {
    fn name(&self) -> &'static str {
        "orders_0001_create"
    }
}

/// An order's creation time is the millisecond in its id, so that one index serves both the order of a list and its time bounds.
const ORDERS: &str = "
CREATE TABLE orders (
    id {uuid} NOT NULL PRIMARY KEY,
    number {bigint} NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    total_minor {bigint} NOT NULL CHECK (total_minor BETWEEN 1 AND 1000000000000000),
    currency TEXT NOT NULL,
    description TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('PENDING', 'PAID', 'REJECTED')),
    rejection_reason TEXT CHECK (rejection_reason IN ('ACCOUNT_NOT_FOUND', 'INSUFFICIENT_FUNDS', 'CURRENCY_MISMATCH')),
    version INTEGER NOT NULL CHECK (version >= 1),
    updated_at_ms {bigint} NOT NULL,
    task_event_id {uuid} NOT NULL,
    resend_at_ms {bigint},
    resends INTEGER NOT NULL DEFAULT 0,
    idempotency_key TEXT,
    idempotency_hash {bytes},
    CONSTRAINT orders_idempotency_key UNIQUE (user_id, idempotency_key),
    CONSTRAINT orders_idempotency_hash CHECK ((idempotency_key IS NULL) = (idempotency_hash IS NULL)),
    CONSTRAINT orders_rejected_with_reason CHECK ((status = 'REJECTED') = (rejection_reason IS NOT NULL)),
    CONSTRAINT orders_resent_while_pending CHECK ((status = 'PENDING') = (resend_at_ms IS NOT NULL))
) {strict};
CREATE INDEX orders_of_user ON orders (user_id, id);
CREATE INDEX orders_to_resend ON orders (resend_at_ms) WHERE resend_at_ms IS NOT NULL;
";

/// `source_event_id` is the inbox of payment results: the first event of an order has none, every later one comes from one message.
/// There is no foreign key to `orders`: both rows are written in one transaction, and the check would cost a lookup per row.
const ORDER_EVENTS: &str = "
CREATE TABLE order_events (
    position {bigint} NOT NULL PRIMARY KEY,
    order_id {uuid} NOT NULL,
    user_id TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    status TEXT NOT NULL CHECK (status IN ('PENDING', 'PAID', 'REJECTED')),
    rejection_reason TEXT CHECK (rejection_reason IN ('ACCOUNT_NOT_FOUND', 'INSUFFICIENT_FUNDS', 'CURRENCY_MISMATCH')),
    occurred_at_ms {bigint} NOT NULL,
    source_event_id {uuid},
    CONSTRAINT order_events_version UNIQUE (order_id, version),
    CONSTRAINT order_events_source UNIQUE (source_event_id),
    CONSTRAINT order_events_rejected_with_reason CHECK ((status = 'REJECTED') = (rejection_reason IS NOT NULL)),
    CONSTRAINT order_events_from_message CHECK ((version = 1) = (source_event_id IS NULL))
) {strict};
CREATE INDEX order_events_of_user ON order_events (user_id, position);
";

/// One row whose lock is held from the last statement of a transaction to its commit: so positions become visible in their order.
const EVENT_CURSOR: &str = "
CREATE TABLE event_cursor (
    singleton INTEGER NOT NULL PRIMARY KEY DEFAULT 1 CHECK (singleton = 1),
    next {bigint} NOT NULL CHECK (next >= oldest),
    oldest {bigint} NOT NULL CHECK (oldest >= 1)
) {strict};
INSERT INTO event_cursor (singleton, next, oldest) VALUES (1, 1, 1);
";

#[async_trait::async_trait]
impl MigrationTrait for CreateOrders {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for sql in [ORDERS, ORDER_EVENTS, EVENT_CURSOR] {
            execute(manager, sql).await?;
        }
        let number = if manager.get_database_backend() == DbBackend::Sqlite {
            "CREATE TABLE order_number (singleton INTEGER NOT NULL PRIMARY KEY CHECK (singleton = 1), next INTEGER NOT NULL) STRICT;
             INSERT INTO order_number (singleton, next) VALUES (1, 1);"
        } else {
            "CREATE SEQUENCE order_number;"
        };
        execute(manager, number).await?;
        create_outbox(manager, "outbox_orders").await
    }
}
