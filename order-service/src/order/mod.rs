//! Orders: what they are, how they are created, how a payment result changes them, how they are found.
//!
//! | file | role |
//! |---|---|
//! | `status` | every legal transition, in one table |
//! | `entity`, `event` | the two tables |
//! | `create`, `intake` | one transaction for the orders of many callers |
//! | `settle` | payment results, applied once |
//! | `resend` | tasks of orders that stay PENDING are sent again |
//! | `find` | reads; each takes the owner |

pub mod create;
pub mod entity;
pub mod event;
pub mod find;
pub mod intake;
pub mod number;
pub mod resend;
pub mod settle;
pub mod status;

pub use create::{CreateOutcome, NewOrder};
pub use entity::{FIRST_VERSION, Order};
pub use event::{EventAndOrder, OrderEvent, Position};
pub use status::OrderStatus;
