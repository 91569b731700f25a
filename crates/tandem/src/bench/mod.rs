//! `tandem bench`: what it costs, measured through the public API.

pub mod latency;

use crate::{
    client::ClientError,
    embedded::{KeyError, StartError},
    subscriber::SubscribeError,
};

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The server did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A folder for the data.
    #[error("cannot make a folder: {0}")]
    Folder(#[from] std::io::Error),
    /// Tokens.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A call without an answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A subscription that ended.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// An answer that is not the expected one: a figure with an error is no figure.
    #[error("unexpected answer: {0}")]
    Answer(String),
}
