//! `tandem prove`: kills itself under load again and again, and shows that nothing is lost or doubled.
//!
//! 1. A server process is started on an empty folder; users get accounts and too little money for all of their orders.
//! 2. Clients create orders, each under an idempotency key of its own. At random moments the process is killed with SIGKILL and started
//!    again on the same folder. A client without an answer repeats its call with the same key, as a real one would.
//! 3. Once every order is final the process is stopped, and what the clients were told is compared with what the databases hold.
//!
//! The load goes through the public API only; the databases are opened when nobody else has them open.

mod load;
pub(crate) mod server;
mod verdict;

use std::{path::PathBuf, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use self::{load::Load, server::Server};
pub use self::{
    load::{Accepted, order_key},
    server::ServerError,
    verdict::{Verdict, VerdictError, compare_databases},
};
use crate::client::ClientError;

/// What to do.
#[derive(Debug, Clone)]
pub struct ProveOptions {
    /// The `tandem` program to kill.
    pub program: PathBuf,
    /// An empty folder for its data.
    pub data_dir: PathBuf,
    /// Orders to create.
    pub orders: usize,
    /// Times to kill.
    pub kills: usize,
    /// Whether to show a progress bar.
    pub progress: bool,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The server did not start, or ended by itself.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The server gave an answer that no client can use.
    #[error("the server answered {0}")]
    Answer(String),
    /// The client could not be set up.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Orders stayed PENDING for longer than [`SETTLE_TIME`].
    #[error("{0} orders are still PENDING after {seconds} s", seconds = SETTLE_TIME.as_secs())]
    NotSettled(usize),
    /// The databases could not be read.
    #[error(transparent)]
    Verdict(#[from] VerdictError),
}

/// Time for the last orders to become final: twice the time after which a lost task is sent again, and some more.
pub const SETTLE_TIME: Duration = Duration::from_secs(150);

/// Runs the proof.
///
/// # Errors
/// [`ProveError`] when it could not be carried out. A verdict that is not clean is a result, not an error.
pub async fn prove(options: &ProveOptions) -> Result<Verdict, ProveError> {
    runtime::install_tls_provider();
    let bar = progress(options);
    let server = Server::start(options.program.clone(), options.data_dir.clone()).await?;
    let load = Load::prepare(&server, options.orders).await?;
    let accepted = load.run(&server, options.kills, &bar).await?;
    bar.set_message("waiting for the last payments");
    load.wait_until_settled(&server).await?;
    let kills = server.kills();
    server.stop().await?;
    bar.finish_and_clear();
    Ok(verdict::compare(&options.data_dir, accepted, kills).await?)
}

fn progress(options: &ProveOptions) -> ProgressBar {
    if !options.progress {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(options.orders as u64);
    let style = ProgressStyle::with_template("{bar:40.green} {pos}/{len} orders accepted  {msg}  {elapsed}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}
