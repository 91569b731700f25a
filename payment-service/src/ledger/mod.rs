//! The ledger: one immutable entry for everything that changed a balance, numbered per account without holes.

pub mod entity;
mod page;

pub use entity::{
    Entity as LedgerEntries, LedgerEntryKind, Line, Model as LedgerEntry, debit_columns, entry_under_key, insert_debits_from,
    lines_batch,
};
pub use page::{decode_entry_cursor, entries_of_account, entry_cursor};
