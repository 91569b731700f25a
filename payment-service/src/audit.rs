//! Adds everything up: what the code promises and the constraints guard, checked from the outside.
//!
//! Every check is one statement, so it sees one state of the database and may run while payments are made. Checks read whole tables: they
//! are for operators, tests and `tandem prove`, not for requests.

use std::fmt;

use schema::{AccountId, LedgerEntryId, OrderId};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement};

/// Differences listed per check; enough to see what is wrong, few enough for a terminal.
pub const MAX_LISTED: usize = 50;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditReport {
    /// All accounts.
    pub accounts: u64,
    /// All ledger entries.
    pub entries: u64,
    /// Orders that were paid.
    pub paid: u64,
    /// Orders that were rejected.
    pub rejected: u64,
    /// What does not add up, at most [`MAX_LISTED`] of each kind. Empty when everything holds.
    pub differences: Vec<Difference>,
}

impl AuditReport {
    /// Whether everything adds up.
    pub fn is_clean(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Something that does not add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The balance is not the sum of the entries, not what the last entry says, or the numbers have a hole.
    Account {
        /// The account.
        id: AccountId,
        /// What its row says.
        balance_minor: i64,
        /// What the row says is the last number.
        entry_count: i64,
        /// What the entries add up to.
        sum_minor: i64,
        /// How many there are.
        counted: i64,
        /// The balance after the last of them.
        last_balance_minor: i64,
    },
    /// An entry whose balance is not the one before plus its amount, or without an account.
    Entry {
        /// The entry.
        id: LedgerEntryId,
    },
    /// A paid order without its debit, or with one of another amount, currency or owner.
    Payment {
        /// The order.
        order: OrderId,
    },
    /// A debit of an order that is not recorded as paid.
    Debit {
        /// The entry.
        id: LedgerEntryId,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account { id, balance_minor, entry_count, sum_minor, counted, last_balance_minor } => write!(
                f,
                "{id}: balance {balance_minor} after {entry_count} entries, but {counted} entries add up to {sum_minor} and the last one \
                 says {last_balance_minor}"
            ),
            Self::Entry { id } => write!(f, "{id}: does not follow from the entry before it"),
            Self::Payment { order } => write!(f, "{order}: paid without its debit"),
            Self::Debit { id } => write!(f, "{id}: debit of an order that is not paid"),
        }
    }
}

/// Numbers from 1 to n without a hole are n different numbers, which the unique key gives, between 1 and n.
const ACCOUNTS: &str = "
SELECT * FROM (
    SELECT a.id, a.balance_minor, a.entry_count,
        CAST(COALESCE(SUM(e.amount_minor), 0) AS BIGINT) AS sum_minor,
        COUNT(e.id) AS counted,
        COALESCE(MIN(e.number), 1) AS lowest,
        COALESCE(MAX(e.number), 0) AS highest,
        CAST(COALESCE(SUM(CASE WHEN e.number = a.entry_count THEN e.balance_after_minor END), 0) AS BIGINT) AS last_balance_minor
    FROM accounts AS a LEFT JOIN ledger_entries AS e ON e.account_id = a.id
    GROUP BY a.id, a.balance_minor, a.entry_count
) AS x
WHERE balance_minor <> sum_minor OR balance_minor <> last_balance_minor OR balance_minor < 0
    OR entry_count <> counted OR lowest <> 1 OR highest <> entry_count";

const ENTRIES: &str = "
SELECT x.id FROM (
    SELECT e.id, e.account_id, e.balance_after_minor,
        SUM(e.amount_minor) OVER (PARTITION BY e.account_id ORDER BY e.number) AS running
    FROM ledger_entries AS e
) AS x LEFT JOIN accounts AS a ON a.id = x.account_id
WHERE a.id IS NULL OR x.balance_after_minor <> x.running";

const PAYMENTS: &str = "
SELECT p.order_id AS id FROM payments AS p
LEFT JOIN ledger_entries AS e ON e.order_id = p.order_id
LEFT JOIN accounts AS a ON a.id = e.account_id
WHERE p.outcome = 'PAID' AND (
    e.id IS NULL OR a.id IS NULL OR e.id <> p.entry_id OR e.amount_minor <> -p.amount_minor
    OR a.user_id <> p.user_id OR a.currency <> p.currency)";

const DEBITS: &str = "
SELECT e.id FROM ledger_entries AS e
LEFT JOIN payments AS p ON p.order_id = e.order_id AND p.outcome = 'PAID'
WHERE e.kind = 'DEBIT' AND p.order_id IS NULL";

/// Checks every account, entry and payment. `db` is usually [`database::Database::reader`].
///
/// # Errors
///
/// What the database says.
pub async fn audit(db: &impl ConnectionTrait) -> Result<AuditReport, DbErr> {
    let mut differences = Vec::new();
    differences.extend(find(db, ACCOUNTS, account_difference).await?);
    differences.extend(find(db, ENTRIES, |row| Ok(Difference::Entry { id: row.try_get("", "id")? })).await?);
    differences.extend(find(db, PAYMENTS, |row| Ok(Difference::Payment { order: row.try_get("", "id")? })).await?);
    differences.extend(find(db, DEBITS, |row| Ok(Difference::Debit { id: row.try_get("", "id")? })).await?);
    Ok(AuditReport {
        accounts: count(db, "accounts").await?,
        entries: count(db, "ledger_entries").await?,
        paid: count(db, "payments WHERE outcome = 'PAID'").await?,
        rejected: count(db, "payments WHERE outcome = 'REJECTED'").await?,
        differences,
    })
}

fn account_difference(row: &QueryResult) -> Result<Difference, DbErr> {
    Ok(Difference::Account {
        id: row.try_get("", "id")?,
        balance_minor: row.try_get("", "balance_minor")?,
        entry_count: row.try_get("", "entry_count")?,
        sum_minor: row.try_get("", "sum_minor")?,
        counted: row.try_get("", "counted")?,
        last_balance_minor: row.try_get("", "last_balance_minor")?,
    })
}

async fn find(
    db: &impl ConnectionTrait,
    sql: &str,
    difference: impl Fn(&QueryResult) -> Result<Difference, DbErr>,
) -> Result<Vec<Difference>, DbErr> {
    let statement = Statement::from_string(db.get_database_backend(), format!("{sql} LIMIT {MAX_LISTED}"));
    db.query_all_raw(statement).await?.iter().map(difference).collect()
}

async fn count(db: &impl ConnectionTrait, rows: &str) -> Result<u64, DbErr> {
    let statement = Statement::from_string(db.get_database_backend(), format!("SELECT COUNT(*) AS counted FROM {rows}"));
    let row = db.query_one_raw(statement).await?.ok_or_else(|| DbErr::RecordNotFound("a count".to_owned()))?;
    let counted: i64 = row.try_get("", "counted")?;
    Ok(u64::try_from(counted).unwrap_or(0))
}
