//! Payments: exactly one decision per order, for ever.
//!
//! - [`decide()`]: the rules, pure.
//! - [`plan`]: what a whole batch of tasks does, computed from what was read; pure but for new ids.
//! - [`ready_payments_batch`]: reads and plans, and [`ReadyPayments::write_batch`] writes if nobody was faster; [`decide_payments_batch`]: locks, reads,
//!   plans and writes in the caller's transaction.

mod book;
mod decide;
pub mod entity;
mod error;
pub mod plan;
mod settle;

pub use book::{AccountChange, Book};
pub use decide::{Decision, Standing, decide};
pub use entity::{Entity as Payments, Model as Payment, payments_batch};
pub use error::PaymentError;
pub use settle::{INBOX, OUTBOX, ReadyPayments, Settled, Task, decide_payments_batch, ready_payments_batch};
