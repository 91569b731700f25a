//! `Account` and the connection of its entries.

use async_graphql::{Context, ID, Object, SimpleObject};
use database::Database;
use schema::graphql::{DateTime, GraphqlError, MoneyOutput, Page, PageInfo, PageRequest};

use super::{entry::LedgerEntry, failure::read_failure, user::User};
use crate::{
    account::Account as Row,
    ledger::{self, Line, decode_entry_cursor, entries_of_account, entry_cursor},
};

/// An account that the viewer may see.
pub(super) struct Account(pub(super) Row);

/// Money of one user in one currency, from which orders are paid.
#[Object]
impl Account {
    /// Opaque id.
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// Whose account it is.
    async fn owner(&self) -> User {
        User(self.0.user_id.clone())
    }

    /// What can be spent: the sum of all entries, never below zero.
    async fn balance(&self) -> MoneyOutput {
        self.0.balance().into()
    }

    /// Everything that changed the balance, newest first.
    async fn entries(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "So many from the start, at most 100. Neither `first` nor `last` means first 20.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "So many from the end, at most 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Result<LedgerEntryConnection, GraphqlError> {
        let window = PageRequest { first, after, last, before }.window(decode_entry_cursor)?;
        let database = ctx.data_opt::<Database>().ok_or_else(GraphqlError::internal)?;
        let page = entries_of_account(database.reader(), self.0.id, &window).await;
        let page = page.map_err(|error| read_failure("entries of an account", &error))?;
        Ok(LedgerEntryConnection::new(&self.0, page))
    }

    /// When the account was created.
    async fn created_at(&self) -> DateTime {
        self.0.created_at_ms.into()
    }
}

/// A page of an account's entries.
#[derive(SimpleObject)]
pub(super) struct LedgerEntryConnection {
    /// The entries of this page with their cursors.
    edges: Vec<LedgerEntryEdge>,
    /// The entries of this page.
    nodes: Vec<LedgerEntry>,
    /// Whether there is more.
    page_info: PageInfo,
}

/// An entry's place in the list.
#[derive(SimpleObject)]
pub(super) struct LedgerEntryEdge {
    /// Where the entry stands; for `after` and `before`.
    cursor: String,
    /// The entry.
    node: LedgerEntry,
}

impl LedgerEntryConnection {
    fn new(account: &Row, page: Page<ledger::LedgerEntry>) -> Self {
        let page_info = page.info(|entry| entry_cursor(entry.number));
        let nodes: Vec<LedgerEntry> = page
            .rows
            .into_iter()
            .map(|entry| LedgerEntry(Line { entry, currency: account.currency, user_id: account.user_id.clone() }))
            .collect();
        let edges = nodes.iter().map(|node| LedgerEntryEdge { cursor: entry_cursor(node.0.entry.number), node: node.clone() });
        Self { edges: edges.collect(), nodes, page_info }
    }
}
