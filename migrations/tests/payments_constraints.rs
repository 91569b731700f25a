//! Each constraint of Payments Service's tables refuses what it is there for, on both databases.
//!
//! Every case is a valid row with one change, and names the constraint that has to be in the way; the unchanged row goes in.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use database::{Database, DatabaseError, testing::on_both};
use migrations::PaymentsMigrator;
use sea_orm::{ConnectionTrait as _, DbBackend, DbErr};

/// A row that the table takes: columns and values. `#n` is the uuid that ends in n, `#bytes` some bytes.
type Row = &'static [(&'static str, &'static str)];

/// What a case does to a row.
type Change<'a> = &'a [(&'a str, &'a str)];

/// A constraint, the row that would be taken, and the change that must not be.
type Case<'a> = (Guard, Row, Change<'a>);

const ACCOUNT: Row = &[
    ("id", "#1"),
    ("user_id", "'ada'"),
    ("currency", "'EUR'"),
    ("balance_minor", "0"),
    ("entry_count", "0"),
    ("created_at_ms", "1"),
    ("idempotency_key", "'k'"),
    ("idempotency_hash", "#bytes"),
];

const TOP_UP: Row = &[
    ("id", "#2"),
    ("account_id", "#1"),
    ("number", "1"),
    ("kind", "'TOP_UP'"),
    ("amount_minor", "500"),
    ("balance_after_minor", "500"),
    ("order_id", "NULL"),
    ("created_at_ms", "1"),
    ("idempotency_key", "'k'"),
    ("idempotency_hash", "#bytes"),
];

const DEBIT: Row = &[
    ("id", "#3"),
    ("account_id", "#1"),
    ("number", "2"),
    ("kind", "'DEBIT'"),
    ("amount_minor", "-200"),
    ("balance_after_minor", "300"),
    ("order_id", "#5"),
    ("created_at_ms", "2"),
    ("idempotency_key", "NULL"),
    ("idempotency_hash", "NULL"),
];

const PAID: Row = &[
    ("order_id", "#5"),
    ("user_id", "'ada'"),
    ("amount_minor", "200"),
    ("currency", "'EUR'"),
    ("outcome", "'PAID'"),
    ("rejection_reason", "NULL"),
    ("entry_id", "#3"),
    ("result_event_id", "#6"),
    ("decided_at_ms", "2"),
];

const REJECTED: Row = &[
    ("order_id", "#7"),
    ("user_id", "'ada'"),
    ("amount_minor", "1000000000000000"),
    ("currency", "'EUR'"),
    ("outcome", "'REJECTED'"),
    ("rejection_reason", "'INSUFFICIENT_FUNDS'"),
    ("entry_id", "NULL"),
    ("result_event_id", "#8"),
    ("decided_at_ms", "2"),
];

const OUTBOX: Row = &[
    ("id", "#1"),
    ("event_id", "#2"),
    ("topic", "'t'"),
    ("message_key", "'k'"),
    ("headers", "'{}'"),
    ("payload", "'{}'"),
    ("created_at_ms", "1"),
    ("next_attempt_at_ms", "2"),
];

const INBOX: Row = &[("message_id", "#1"), ("received_at_ms", "1")];

fn insert(table: &str, row: Row, changes: &[(&str, &str)]) -> String {
    let value = |(column, value): &(&str, &'static str)| {
        let change = changes.iter().find(|(changed, _)| changed == column);
        change.map_or((*value).to_owned(), |(_, value)| (*value).to_owned())
    };
    assert!(changes.iter().all(|(changed, _)| row.iter().any(|(column, _)| column == changed)), "{changes:?}");
    let columns: Vec<&str> = row.iter().map(|(column, _)| *column).collect();
    let values: Vec<String> = row.iter().map(value).collect();
    format!("INSERT INTO {table} ({}) VALUES ({})", columns.join(", "), values.join(", "))
}

/// Fills in uuids and bytes as the database writes them.
fn literals(backend: DbBackend, sql: &str) -> String {
    let sqlite = backend == DbBackend::Sqlite;
    let bytes = if sqlite { "X'01'" } else { "'\\x01'" };
    (1..=9).fold(sql.replace("#bytes", bytes), |sql, n| {
        let uuid = format!("0000000000000000000000000000000{n}");
        let literal = if sqlite { format!("X'{uuid}'") } else { format!("'{uuid}'") };
        sql.replace(&format!("#{n}"), &literal)
    })
}

async fn run(db: &Database, statements: Vec<String>) -> Result<(), DbErr> {
    let backend = db.backend();
    let done: Result<(), DatabaseError> = db
        .transaction("test", move |tx| {
            Box::pin(async move {
                for sql in statements {
                    tx.execute_unprepared(&literals(backend, &sql)).await?;
                }
                Ok(())
            })
        })
        .await;
    match done {
        Ok(()) => Ok(()),
        Err(DatabaseError::Db(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

/// An account with a top-up, a debit and its payment, and a rejected payment.
async fn fill(db: &Database) {
    let rows = [
        insert("accounts", ACCOUNT, &[]),
        insert("ledger_entries", TOP_UP, &[]),
        insert("ledger_entries", DEBIT, &[]),
        insert("payments", PAID, &[]),
        insert("payments", REJECTED, &[]),
        insert("inbox_payments", INBOX, &[]),
        insert("outbox_payments", OUTBOX, &[]),
    ];
    run(db, rows.into()).await.unwrap();
}

/// What must be in the way: the constraint's name on Postgres, and what SQLite calls it.
struct Guard {
    postgres: &'static str,
    sqlite: &'static str,
}

/// A constraint with the same name on both.
const fn named(name: &'static str) -> Guard {
    Guard { postgres: name, sqlite: name }
}

async fn assert_refused(db: &Database, guard: &Guard, sql: String) {
    let error = run(db, vec![sql.clone()]).await.expect_err(&sql);
    let expected = if db.backend() == DbBackend::Sqlite { guard.sqlite } else { guard.postgres };
    assert_eq!(database::constraint_name(&error), Some(expected), "{sql}: {error}");
    assert!(!database::is_transient(&error), "a refused row is not worth another try: {error}");
}

on_both!(PaymentsMigrator;
    async fn an_account_that_breaks_a_rule_is_refused(db: &TestDatabase) {
        fill(db).await;
        let other: Change<'_> = &[("id", "#9"), ("user_id", "'bob'")];
        run(db, vec![insert("accounts", ACCOUNT, &[("id", "#4"), ("user_id", "'cleo'")])]).await.unwrap();
        let most = [("balance_minor", "9007199254740991"), ("id", "#5"), ("user_id", "'dora'")];
        run(db, vec![insert("accounts", ACCOUNT, &most)]).await.unwrap();

        let cases: &[(Guard, Change<'_>)] = &[
            (Guard { postgres: "accounts_pkey", sqlite: "accounts.id" }, &[("id", "#1")]),
            (Guard { postgres: "accounts_one_per_user", sqlite: "accounts.user_id" }, &[("user_id", "'ada'")]),
            (named("accounts_balance"), &[("balance_minor", "-1")]),
            (named("accounts_balance"), &[("balance_minor", "9007199254740992")]),
            (Guard { postgres: "accounts_entry_count_check", sqlite: "entry_count >= 0" }, &[("entry_count", "-1")]),
            (named("accounts_idempotency_hash"), &[("idempotency_key", "NULL")]),
            (named("accounts_idempotency_hash"), &[("idempotency_hash", "NULL")]),
        ];
        for (guard, change) in cases {
            let changes: Vec<_> = change.iter().chain(other).copied().collect();
            assert_refused(db, guard, insert("accounts", ACCOUNT, &changes)).await;
        }
    }

    async fn a_balance_cannot_be_taken_below_zero(db: &TestDatabase) {
        fill(db).await;
        for balance in ["balance_minor - 1", "9007199254740992"] {
            assert_refused(db, &named("accounts_balance"), format!("UPDATE accounts SET balance_minor = {balance}")).await;
        }
    }

    async fn a_ledger_entry_that_breaks_a_rule_is_refused(db: &TestDatabase) {
        fill(db).await;
        let kind = || named("ledger_entries_kind");
        let hash = || named("ledger_entries_idempotency_hash");
        let number = || Guard { postgres: "ledger_entries_number", sqlite: "ledger_entries.account_id, ledger_entries.number" };
        let new: Change<'_> = &[("id", "#9"), ("number", "3")];
        let cases: &[Case<'_>] = &[
            (Guard { postgres: "ledger_entries_pkey", sqlite: "ledger_entries.id" }, DEBIT, &[("id", "#2"), ("order_id", "#9")]),
            (number(), DEBIT, &[("number", "2"), ("order_id", "#9")]),
            (Guard { postgres: "ledger_entries_number_check", sqlite: "number >= 1" }, DEBIT, &[("number", "0"), ("order_id", "#9")]),
            (
                Guard { postgres: "ledger_entries_one_debit_per_order", sqlite: "ledger_entries.order_id" },
                DEBIT,
                &[("account_id", "#8")],
            ),
            (
                Guard {
                    postgres: "ledger_entries_idempotency_key",
                    sqlite: "ledger_entries.account_id, ledger_entries.idempotency_key",
                },
                TOP_UP,
                &[],
            ),
            (
                Guard { postgres: "ledger_entries_balance_after_minor_check", sqlite: "balance_after_minor >= 0" },
                DEBIT,
                &[("balance_after_minor", "-1"), ("order_id", "#9")],
            ),
            (hash(), TOP_UP, &[("idempotency_key", "NULL")]),
            (hash(), TOP_UP, &[("idempotency_key", "'other'"), ("idempotency_hash", "NULL")]),
            (kind(), TOP_UP, &[("idempotency_key", "'other'"), ("kind", "'GIFT'")]),
            (kind(), TOP_UP, &[("idempotency_key", "'other'"), ("amount_minor", "0")]),
            (kind(), TOP_UP, &[("idempotency_key", "'other'"), ("amount_minor", "-500")]),
            (kind(), TOP_UP, &[("idempotency_key", "'other'"), ("order_id", "#9")]),
            (kind(), DEBIT, &[("order_id", "#9"), ("amount_minor", "200")]),
            (kind(), DEBIT, &[("order_id", "#9"), ("amount_minor", "0")]),
            (kind(), DEBIT, &[("order_id", "NULL")]),
            (
                kind(),
                DEBIT,
                &[("order_id", "#9"), ("idempotency_key", "'other'"), ("idempotency_hash", "#bytes")],
            ),
        ];
        for (guard, row, change) in cases {
            let changes: Vec<_> = change.iter().chain(new).copied().collect();
            assert_refused(db, guard, insert("ledger_entries", row, &changes)).await;
        }
        // The same key in another account is another request.
        run(db, vec![insert("ledger_entries", TOP_UP, &[("id", "#9"), ("account_id", "#9")])]).await.unwrap();
    }

    async fn a_payment_that_breaks_a_rule_is_refused(db: &TestDatabase) {
        fill(db).await;
        let new: Change<'_> = &[("order_id", "#9"), ("result_event_id", "#9"), ("entry_id", "#9")];
        let new_rejected: Change<'_> = &[("order_id", "#9"), ("result_event_id", "#9")];
        run(db, vec![insert("payments", REJECTED, &[("order_id", "#4"), ("result_event_id", "#4"), ("amount_minor", "1")])])
            .await
            .unwrap();
        let amount =
            || Guard { postgres: "payments_amount_minor_check", sqlite: "amount_minor BETWEEN 1 AND 1000000000000000" };
        let outcome = || Guard { postgres: "payments_outcome_check", sqlite: "outcome IN ('PAID', 'REJECTED')" };
        let reason = || Guard {
            postgres: "payments_rejection_reason_check",
            sqlite: "rejection_reason IN ('ACCOUNT_NOT_FOUND', 'INSUFFICIENT_FUNDS', 'CURRENCY_MISMATCH')",
        };
        let cases: &[Case<'_>] = &[
            (Guard { postgres: "payments_pkey", sqlite: "payments.order_id" }, PAID, &[("order_id", "#5")]),
            (Guard { postgres: "payments_pkey", sqlite: "payments.order_id" }, REJECTED, &[("order_id", "#5")]),
            (amount(), PAID, &[("amount_minor", "0")]),
            (amount(), PAID, &[("amount_minor", "-1")]),
            (amount(), PAID, &[("amount_minor", "1000000000000001")]),
            (outcome(), REJECTED, &[("outcome", "'MAYBE'"), ("rejection_reason", "NULL")]),
            (reason(), REJECTED, &[("rejection_reason", "'BAD_MOOD'")]),
            (named("payments_paid_with_entry"), PAID, &[("entry_id", "NULL")]),
            (named("payments_paid_with_entry"), REJECTED, &[("entry_id", "#9")]),
            (named("payments_rejected_with_reason"), REJECTED, &[("rejection_reason", "NULL")]),
            (named("payments_rejected_with_reason"), PAID, &[("rejection_reason", "'ACCOUNT_NOT_FOUND'")]),
        ];
        for (guard, row, change) in cases {
            let new = if std::ptr::eq(*row, PAID) { new } else { new_rejected };
            let changes: Vec<_> = change.iter().chain(new).copied().collect();
            assert_refused(db, guard, insert("payments", row, &changes)).await;
        }
    }

    async fn what_happened_cannot_be_changed_or_removed(db: &TestDatabase) {
        fill(db).await;
        for sql in [
            "UPDATE ledger_entries SET amount_minor = amount_minor + 1 WHERE number = 1",
            "UPDATE ledger_entries SET created_at_ms = created_at_ms",
            "DELETE FROM ledger_entries WHERE number = 2",
            "UPDATE payments SET outcome = 'REJECTED', rejection_reason = 'INSUFFICIENT_FUNDS', entry_id = NULL",
            "UPDATE payments SET decided_at_ms = decided_at_ms",
            "DELETE FROM payments",
        ] {
            let error = run(db, vec![sql.to_owned()]).await.expect_err(sql);
            assert!(error.to_string().contains("are permanent"), "{sql}: {error}");
            assert!(!database::is_transient(&error), "{error}");
        }
    }

    async fn a_message_and_a_row_of_the_outbox_exist_once(db: &TestDatabase) {
        fill(db).await;
        let inbox = Guard { postgres: "inbox_payments_pkey", sqlite: "inbox_payments.message_id" };
        assert_refused(db, &inbox, insert("inbox_payments", INBOX, &[("received_at_ms", "9")])).await;
        let outbox = Guard { postgres: "outbox_payments_pkey", sqlite: "outbox_payments.id" };
        assert_refused(db, &outbox, insert("outbox_payments", OUTBOX, &[])).await;
        // The same event told twice is two rows.
        run(db, vec![insert("outbox_payments", OUTBOX, &[("id", "#9")])]).await.unwrap();
    }

    async fn no_column_takes_nothing_or_another_type_where_a_value_belongs(db: &TestDatabase) {
        fill(db).await;
        let nullable = ["idempotency_key", "idempotency_hash", "order_id of entry", "rejection_reason", "entry_id"];
        for (table, row) in [
            ("accounts", ACCOUNT),
            ("ledger_entries", TOP_UP),
            ("payments", REJECTED),
            ("inbox_payments", INBOX),
            ("outbox_payments", OUTBOX),
        ] {
            for (column, value) in row {
                let known = if table == "ledger_entries" && *column == "order_id" { "order_id of entry" } else { column };
                if !nullable.contains(&known) {
                    let sql = insert(table, row, &[(column, "NULL")]);
                    let error = run(db, vec![sql.clone()]).await.expect_err(&sql).to_string();
                    assert!(error.to_lowercase().contains("null") && error.contains(column), "{sql}: {error}");
                }
                if value.parse::<i64>().is_ok() {
                    let sql = insert(table, row, &[(column, "'many'")]);
                    assert!(run(db, vec![sql.clone()]).await.is_err(), "{sql}");
                }
            }
        }
    }
);
