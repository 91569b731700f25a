//! Payments Service: accounts, their ledger, and exactly one payment decision per order.
//!
//! What holds, whatever crashes, is redelivered, duplicated, reordered or late:
//!
//! - every order gets one decision, for ever, and at most one debit ([`payment`]);
//! - a balance is never below zero and always the sum of its ledger entries, which are numbered without holes ([`ledger`], [`audit`]);
//! - nobody sees or spends what is not theirs ([`graphql`]).
//!
//! Code map: one folder per noun ([`account`], [`ledger`], [`payment`]) with its use cases and its table; [`events`] turns messages into use
//! cases; [`graphql`] is the subgraph, which [`http`] serves; [`PaymentService`] puts it all together.

pub mod account;
mod app;
pub mod audit;
pub mod events;
pub mod graphql;
pub mod http;
pub mod idempotency;
pub mod ledger;
mod listener;
pub mod payment;

pub use app::{PaymentService, Settings, StartError, Topics, audit, migrate};
