//! Payments Service's database.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;

use crate::{
    delivery::{KeepOnlyWhatWaits, create_inbox, create_outbox, index_only_what_waits},
    dialect::{execute, make_immutable},
};

/// Creates and upgrades Payments Service's tables.
#[derive(Debug)]
pub struct PaymentsMigrator;

#[async_trait::async_trait]
impl MigratorTrait for PaymentsMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(CreatePayments), Box::new(DebitInPlace), Box::new(OUTBOX), Box::new(FewerIndexes)]
    }
}

const OUTBOX: KeepOnlyWhatWaits =
    KeepOnlyWhatWaits { name: "payments_0003_outbox_of_what_waits", table: "outbox_payments", events: false };

struct CreatePayments;

impl MigrationName for CreatePayments {
    fn name(&self) -> &'static str {
        "payments_0001_create"
    }
}

/// `entry_count` is the number of the account's last ledger entry: the next one is one more, under the row's lock.
/// The upper bound of a balance is 2^53 - 1, the largest integer that every JSON reader gets exactly.
const ACCOUNTS: &str = "
CREATE TABLE accounts (
    id {uuid} NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    currency TEXT NOT NULL,
    balance_minor {bigint} NOT NULL,
    entry_count {bigint} NOT NULL CHECK (entry_count >= 0),
    created_at_ms {bigint} NOT NULL,
    idempotency_key TEXT,
    idempotency_hash {bytes},
    CONSTRAINT accounts_one_per_user UNIQUE (user_id),
    CONSTRAINT accounts_balance CHECK (balance_minor BETWEEN 0 AND 9007199254740991),
    CONSTRAINT accounts_idempotency_hash CHECK ((idempotency_key IS NULL) = (idempotency_hash IS NULL))
) {strict};
";

/// A debit belongs to exactly one order, and an order to at most one debit.
const LEDGER_ENTRIES: &str = "
CREATE TABLE ledger_entries (
    id {uuid} NOT NULL PRIMARY KEY,
    account_id {uuid} NOT NULL,
    number {bigint} NOT NULL CHECK (number >= 1),
    kind TEXT NOT NULL,
    amount_minor {bigint} NOT NULL,
    balance_after_minor {bigint} NOT NULL CHECK (balance_after_minor >= 0),
    order_id {uuid},
    created_at_ms {bigint} NOT NULL,
    idempotency_key TEXT,
    idempotency_hash {bytes},
    CONSTRAINT ledger_entries_number UNIQUE (account_id, number),
    CONSTRAINT ledger_entries_one_debit_per_order UNIQUE (order_id),
    CONSTRAINT ledger_entries_idempotency_key UNIQUE (account_id, idempotency_key),
    CONSTRAINT ledger_entries_idempotency_hash CHECK ((idempotency_key IS NULL) = (idempotency_hash IS NULL)),
    CONSTRAINT ledger_entries_kind CHECK (
        (kind = 'TOP_UP' AND amount_minor > 0 AND order_id IS NULL)
        OR (kind = 'DEBIT' AND amount_minor < 0 AND order_id IS NOT NULL AND idempotency_key IS NULL)
    )
) {strict};
";

/// The decision of each order, for ever. `result_event_id` is the id under which it is told, every time.
const PAYMENTS: &str = "
CREATE TABLE payments (
    order_id {uuid} NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    amount_minor {bigint} NOT NULL CHECK (amount_minor BETWEEN 1 AND 1000000000000000),
    currency TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('PAID', 'REJECTED')),
    rejection_reason TEXT CHECK (rejection_reason IN ('ACCOUNT_NOT_FOUND', 'INSUFFICIENT_FUNDS', 'CURRENCY_MISMATCH')),
    entry_id {uuid},
    result_event_id {uuid} NOT NULL,
    decided_at_ms {bigint} NOT NULL,
    CONSTRAINT payments_entry UNIQUE (entry_id),
    CONSTRAINT payments_result_event UNIQUE (result_event_id),
    CONSTRAINT payments_paid_with_entry CHECK ((outcome = 'PAID') = (entry_id IS NOT NULL)),
    CONSTRAINT payments_rejected_with_reason CHECK ((outcome = 'REJECTED') = (rejection_reason IS NOT NULL))
) {strict};
";

#[async_trait::async_trait]
impl MigrationTrait for CreatePayments {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for sql in [ACCOUNTS, LEDGER_ENTRIES, PAYMENTS] {
            execute(manager, sql).await?;
        }
        make_immutable(manager, "ledger_entries").await?;
        make_immutable(manager, "payments").await?;
        create_inbox(manager, "inbox_payments").await?;
        create_outbox(manager, "outbox_payments").await
    }
}

struct DebitInPlace;

impl MigrationName for DebitInPlace {
    fn name(&self) -> &'static str {
        "payments_0002_debit_in_place"
    }
}

/// A debit changes no indexed column of its account: with room in the page PostgreSQL writes the new version beside the old one (HOT). A debit
/// has no idempotency key and needs no entry in the index of keys.
const IN_PLACE_ON_POSTGRES: &str = "
ALTER TABLE accounts SET (fillfactor = 50);
ALTER TABLE ledger_entries DROP CONSTRAINT ledger_entries_idempotency_key;
CREATE UNIQUE INDEX ledger_entries_idempotency_key ON ledger_entries (account_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
";

#[async_trait::async_trait]
impl MigrationTrait for DebitInPlace {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() == DbBackend::Postgres {
            execute(manager, IN_PLACE_ON_POSTGRES).await?;
        }
        index_only_what_waits(manager, "outbox_payments").await
    }
}

/// Two indexes of `payments` that nobody looks up, and that guard no money: an order has one payment and one debit
/// (`ledger_entries_one_debit_per_order`). That each paid order names its own debit is what the audit checks. Each cost every payment an index
/// entry.
struct FewerIndexes;

impl MigrationName for FewerIndexes {
    fn name(&self) -> &'static str {
        "payments_0004_fewer_indexes"
    }
}

const FEWER_INDEXES_ON_POSTGRES: &str =
    "ALTER TABLE payments DROP CONSTRAINT payments_entry, DROP CONSTRAINT payments_result_event;";

/// SQLite cannot drop a constraint: the table is made again.
const FEWER_INDEXES_ON_SQLITE: &str = "
CREATE TABLE payments_0004 (
    order_id BLOB NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    amount_minor INTEGER NOT NULL CHECK (amount_minor BETWEEN 1 AND 1000000000000000),
    currency TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('PAID', 'REJECTED')),
    rejection_reason TEXT CHECK (rejection_reason IN ('ACCOUNT_NOT_FOUND', 'INSUFFICIENT_FUNDS', 'CURRENCY_MISMATCH')),
    entry_id BLOB,
    result_event_id BLOB NOT NULL,
    decided_at_ms INTEGER NOT NULL,
    CONSTRAINT payments_paid_with_entry CHECK ((outcome = 'PAID') = (entry_id IS NOT NULL)),
    CONSTRAINT payments_rejected_with_reason CHECK ((outcome = 'REJECTED') = (rejection_reason IS NOT NULL))
) STRICT;
INSERT INTO payments_0004
SELECT order_id, user_id, amount_minor, currency, outcome, rejection_reason, entry_id, result_event_id, decided_at_ms FROM payments;
DROP TABLE payments;
ALTER TABLE payments_0004 RENAME TO payments;
";

#[async_trait::async_trait]
impl MigrationTrait for FewerIndexes {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() == DbBackend::Postgres {
            return execute(manager, FEWER_INDEXES_ON_POSTGRES).await;
        }
        execute(manager, FEWER_INDEXES_ON_SQLITE).await?;
        make_immutable(manager, "payments").await
    }
}
