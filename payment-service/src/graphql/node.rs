//! The interface `Node`.

use async_graphql::{ID, Interface};

use super::{account::Account, entry::LedgerEntry, order::Order, payment::Payment, user::User};

/// Opaque ids, unique across types.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID", desc = "Opaque id."))]
pub(super) enum Node {
    Account(Account),
    LedgerEntry(LedgerEntry),
    Order(Order),
    Payment(Payment),
    User(User),
}
