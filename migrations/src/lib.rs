//! The tables of the three databases: orders, payments and the embedded broker's log.
//!
//! The constraints here are the second guard behind every guarantee in the code; `tests/` proves each of them on both databases. Migrations
//! only go forward: expand first, contract in a later release, since old and new replicas run side by side during a rolling restart.
//!
//! One text serves both databases: `{uuid}`, `{bigint}`, `{bytes}` and `{strict}` stand for what they call differently ([`dialect`]).

mod broker_log;
mod delivery;
mod dialect;
mod orders;
mod payments;

pub use broker_log::BrokerLogMigrator;
pub use orders::OrdersMigrator;
pub use payments::PaymentsMigrator;
