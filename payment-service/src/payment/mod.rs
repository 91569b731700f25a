//! Payments: exactly one decision per order, for ever.
//!
//! - [`decide()`]: the rules, pure.
//! - [`plan`]: what a whole batch of tasks does, computed from what was read; pure but for new ids.
//! - [`decide_payments_batch`]: locks, reads, plans and writes in the caller's transaction.
//! - [`ready_payments_batch`]: for [`ReadyPayments::write_batch`], which writes in one statement if every order is new and can be paid.

mod at_once;
mod book;
mod decide;
pub mod entity;
mod error;
pub mod plan;
mod settle;

pub use at_once::{ReadyPayments, ready_payments_batch};
pub use book::{AccountChange, Book};
pub use decide::{Decision, Standing, decide};
pub use entity::{Entity as Payments, Model as Payment, payments_batch};
pub use error::PaymentError;
pub use settle::{INBOX, OUTBOX, Settled, Task, decide_payments_batch};
