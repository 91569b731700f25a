//! Order Service's database.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;

use crate::{
    delivery::{KeepOnlyWhatWaits, create_outbox, index_only_what_waits},
    dialect::execute,
};

/// Creates and upgrades Order Service's tables.
#[derive(Debug)]
pub struct OrdersMigrator;

#[async_trait::async_trait]
impl MigratorTrait for OrdersMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(CreateOrders), Box::new(SettleInPlace), Box::new(TraceEvents), Box::new(OUTBOX), Box::new(TakePositions)]
    }
}

const OUTBOX: KeepOnlyWhatWaits =
    KeepOnlyWhatWaits { name: "orders_0004_outbox_of_what_waits", table: "outbox_orders", events: true };

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

struct SettleInPlace;

impl MigrationName for SettleInPlace {
    fn name(&self) -> &'static str {
        "orders_0002_settle_in_place"
    }
}

/// When PENDING orders are sent again. A table of its own, so that settling an order changes no column of `orders` that is indexed.
const PENDING_ORDERS: &str = "
CREATE TABLE pending_orders (
    order_id {uuid} NOT NULL PRIMARY KEY,
    resend_at_ms {bigint} NOT NULL,
    resends INTEGER NOT NULL DEFAULT 0
) {strict};
CREATE INDEX pending_orders_due ON pending_orders (resend_at_ms);
INSERT INTO pending_orders (order_id, resend_at_ms, resends)
SELECT id, resend_at_ms, resends FROM orders WHERE status = 'PENDING';
";

/// PostgreSQL then writes the settled version of a row beside the old one and touches no index (HOT), if the page has room: that is what
/// the fill factor leaves. An event without a source needs no entry in the index of sources.
const IN_PLACE_ON_POSTGRES: &str = "
DROP INDEX orders_to_resend;
ALTER TABLE orders DROP COLUMN resend_at_ms, DROP COLUMN resends;
ALTER TABLE orders SET (fillfactor = 50);
ALTER TABLE order_events DROP CONSTRAINT order_events_source;
CREATE UNIQUE INDEX order_events_source ON order_events (source_event_id) WHERE source_event_id IS NOT NULL;
";

/// SQLite cannot drop a column that a constraint names: the table is made again.
const IN_PLACE_ON_SQLITE: &str = "
CREATE TABLE orders_0002 (
    id BLOB NOT NULL PRIMARY KEY,
    number INTEGER NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    total_minor INTEGER NOT NULL CHECK (total_minor BETWEEN 1 AND 1000000000000000),
    currency TEXT NOT NULL,
    description TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('PENDING', 'PAID', 'REJECTED')),
    rejection_reason TEXT CHECK (rejection_reason IN ('ACCOUNT_NOT_FOUND', 'INSUFFICIENT_FUNDS', 'CURRENCY_MISMATCH')),
    version INTEGER NOT NULL CHECK (version >= 1),
    updated_at_ms INTEGER NOT NULL,
    task_event_id BLOB NOT NULL,
    idempotency_key TEXT,
    idempotency_hash BLOB,
    CONSTRAINT orders_idempotency_key UNIQUE (user_id, idempotency_key),
    CONSTRAINT orders_idempotency_hash CHECK ((idempotency_key IS NULL) = (idempotency_hash IS NULL)),
    CONSTRAINT orders_rejected_with_reason CHECK ((status = 'REJECTED') = (rejection_reason IS NOT NULL))
) STRICT;
INSERT INTO orders_0002
SELECT id, number, user_id, total_minor, currency, description, status, rejection_reason, version, updated_at_ms, task_event_id,
       idempotency_key, idempotency_hash
FROM orders;
DROP TABLE orders;
ALTER TABLE orders_0002 RENAME TO orders;
CREATE INDEX orders_of_user ON orders (user_id, id);
";

#[async_trait::async_trait]
impl MigrationTrait for SettleInPlace {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, PENDING_ORDERS).await?;
        let sqlite = manager.get_database_backend() == DbBackend::Sqlite;
        execute(manager, if sqlite { IN_PLACE_ON_SQLITE } else { IN_PLACE_ON_POSTGRES }).await?;
        index_only_what_waits(manager, "outbox_orders").await
    }
}

/// An event carries the trace of the order that it tells of, so that telling it is seen in that trace on every replica.
struct TraceEvents;

impl MigrationName for TraceEvents {
    fn name(&self) -> &'static str {
        "orders_0003_trace_events"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for TraceEvents {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "ALTER TABLE order_events ADD COLUMN traceparent TEXT;").await
    }
}

/// PostgreSQL: a statement that has waited for a row which somebody else has changed meanwhile makes a copy of all its parts, to look at the row again. What
/// takes positions waits often, and beside it a transaction's last statement has a dozen parts: so it is a function, with a statement of its own.
struct TakePositions;

impl MigrationName for TakePositions {
    fn name(&self) -> &'static str {
        "orders_0005_take_positions"
    }
}

/// NULL without the counter's row.
const TAKE_POSITIONS: &str = "
CREATE FUNCTION take_event_positions(count bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE after_them bigint;
BEGIN
    UPDATE event_cursor SET next = next + count RETURNING next INTO after_them;
    RETURN after_them;
END $$;
";

#[async_trait::async_trait]
impl MigrationTrait for TakePositions {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() == DbBackend::Postgres {
            execute(manager, TAKE_POSITIONS).await?;
        }
        Ok(())
    }
}
