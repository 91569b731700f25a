//! What the whole system promises, each promise under the danger that threatens it, over real HTTP and real WebSockets.
//!
//! The tests of the target `cluster` run these bodies, too: on PostgreSQL and Kafka instead of SQLite files.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod batching;
mod delivery;
mod federation;
mod lists;
mod live;
mod money;
mod origins;
mod restart;
mod tokens;
