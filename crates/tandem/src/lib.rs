//! Tandem in one process: both services over an embedded broker, and the tools that prove and measure it.

pub mod bench;
pub mod client;
pub mod embedded;
pub mod prove;
pub mod subscriber;
