//! The interface `Node`.

use async_graphql::{ID, Interface};

use super::{account::Account, entry::LedgerEntry, order::Order, payment::Payment, user::User};

/// Everything that has an id of its own.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID", desc = "Opaque, and unique across types."))]
pub(super) enum Node {
    Account(Account),
    LedgerEntry(LedgerEntry),
    Order(Order),
    Payment(Payment),
    User(User),
}
