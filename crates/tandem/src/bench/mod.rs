//! `tandem bench`: what it costs, measured through the public API, each figure beside a yardstick of the same run.

pub mod chart;
pub mod environment;
pub mod latency;
pub mod pgbench;
pub mod process;
pub mod progress;
pub mod report;

#[cfg(feature = "kafka")]
mod costs;
#[cfg(feature = "kafka")]
pub mod figures;
#[cfg(feature = "kafka")]
pub mod load;
#[cfg(feature = "kafka")]
mod run;
#[cfg(feature = "kafka")]
pub mod stage;
#[cfg(feature = "kafka")]
pub mod verify;

#[cfg(feature = "kafka")]
pub use run::{Bench, BenchOptions, FIGURES, run};

use crate::{
    client::ClientError,
    embedded::{KeyError, StartError},
    prove::ServerError,
    subscriber::SubscribeError,
};

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The server did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A file, a process or a socket.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The process of the whole in one.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Tokens.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A call without an answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A subscription that ended.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// The generator's connection.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// A task that panicked.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
    /// A database that is asked for what is stored.
    #[error(transparent)]
    Database(#[from] sea_orm::DbErr),
    /// What is read or written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// An answer that is not the expected one: a figure with an error is no figure.
    #[error("unexpected answer: {0}")]
    Answer(String),
    /// What clients were told is not what is stored: a figure with a difference is no figure.
    #[error(
        "of {accepted} accepted orders {doubled} are doubled and {lost} lost, and {unasked} are stored that nobody asked for"
    )]
    Difference {
        /// Answers that said that an order was accepted.
        accepted: usize,
        /// Of those, with the id of another.
        doubled: usize,
        /// Of those, not stored.
        lost: usize,
        /// Stored, without an answer.
        unasked: usize,
    },
    /// A server, a replica or a tool that does something else than it should.
    #[error("{0}")]
    Unexpected(String),
}

impl BenchError {
    /// What is told of a server, a replica or a tool, by its own error.
    #[cfg(feature = "kafka")]
    fn unexpected(error: impl std::fmt::Display) -> Self {
        Self::Unexpected(error.to_string())
    }
}
