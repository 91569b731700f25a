//! What the tests of frontends are made of.

pub mod node;
pub mod orders;
pub mod server;

use std::time::Duration;

/// How long anything may take before a test gives up; far more than it takes even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
