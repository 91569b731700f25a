//! The contract between the two services and their clients: ids, money, events and the GraphQL types that both subgraphs share.
//!
//! Nothing here knows a database connection, a broker or a server. Whatever is written down here is visible outside: the SDL under
//! `graphql/` and the JSON Schemas under `events/` are generated from it, and tests keep both up to date.

mod currency;
mod currency_codes;
mod decimal;
mod event;
pub mod graphql;
mod id;
mod money;
mod rejection;
mod timestamp;

pub use currency::{CurrencyCode, UnknownCurrency};
pub use decimal::{DecimalSyntaxError, DecimalText};
pub use event::{
    EventSource, MalformedPayload, PaymentOutcome, PaymentResult, PaymentTask, TOPIC_PAYMENT_RESULTS, TOPIC_PAYMENT_TASKS,
    asyncapi_yaml, event_schemas,
};
pub use id::{AccountId, EventId, LedgerEntryId, OrderId, PaymentId, UnknownId, UserId};
pub use money::{MAX_AMOUNT_MINOR, MAX_BALANCE_MINOR, Money, MoneyError};
pub use rejection::{RejectionReason, UnknownRejectionReason};
pub use timestamp::Timestamp;
