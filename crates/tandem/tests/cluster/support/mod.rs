//! The words of the end-to-end tests, about a system that runs on PostgreSQL and Kafka.

#[path = "../../support/mod.rs"]
mod shared;

mod own_topics;
mod servers;

pub use shared::{PATIENCE, Socket, User, system, until, until_within, user};

/// On the shared servers.
pub type System = system::SystemOn<servers::OnServers>;
