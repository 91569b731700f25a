//! `Node`, and the types of Payments that an id may name: what they hold is asked of Payments.

use async_graphql::{Context, ID, Interface, Object};
use schema::{AccountId, LedgerEntryId, OrderId, PaymentId, UserId, graphql::GraphqlError};

use super::{loader, order::OrderObject, user::User, viewer::viewer};

/// Opaque ids, unique across types.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID", desc = "Opaque id."))]
pub enum Node {
    /// An order.
    Order(OrderObject),
    /// A user.
    User(User),
    /// An account.
    Account(Account),
    /// A line of an account's ledger.
    LedgerEntry(LedgerEntry),
    /// A payment decision.
    Payment(Payment),
}

macro_rules! stub {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(ID);

        $(#[$doc])*
        #[Object(unresolvable = "id")]
        impl $name {
            /// Opaque id.
            async fn id(&self) -> ID {
                self.0.clone()
            }
        }
    };
}

stub!(
    /// Money of one user in one currency, from which orders are paid.
    Account
);
stub!(
    /// One change of an account's balance. Immutable. The amount is signed: debits are negative.
    LedgerEntry
);
stub!(
    /// How the payment of one order was decided, once and for ever.
    Payment
);

/// What an id names. Its prefix says the type; for a type of Payments only Payments can say whether it exists.
pub(super) async fn find(ctx: &Context<'_>, id: &ID) -> Result<Option<Node>, GraphqlError> {
    let prefix = id.split('_').next().unwrap_or_default();
    Ok(match prefix {
        OrderId::PREFIX => match id.parse() {
            Ok(order) => loader::order(ctx, order).await?.map(|order| Node::Order(OrderObject(order))),
            Err(_) => None,
        },
        UserId::PREFIX => {
            UserId::from_public(id).ok().filter(|user| viewer(ctx).may_see(user)).map(|user| Node::User(User(user)))
        }
        AccountId::PREFIX if id.parse::<AccountId>().is_ok() => Some(Node::Account(Account(id.clone()))),
        LedgerEntryId::PREFIX if id.parse::<LedgerEntryId>().is_ok() => Some(Node::LedgerEntry(LedgerEntry(id.clone()))),
        PaymentId::PREFIX if id.parse::<PaymentId>().is_ok() => Some(Node::Payment(Payment(id.clone()))),
        _ => None,
    })
}
