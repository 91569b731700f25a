//! The HTTP listener, which can be taken away and brought back at the same port.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use runtime::{
    lifecycle::Shutdown,
    serve::{BindError, bind, serve},
};
use tokio::sync::Mutex;

/// How long requests in hand may take after the listener was told to stop; then their connections are dropped. Half of the time that the
/// process has for its end: what comes after it, the batch in hand and the relay, needs the other half.
const DRAIN_GRACE: Duration = Duration::from_secs(3);

/// Serves a router at one address.
pub(crate) struct Listener {
    address: SocketAddr,
    router: Router,
    running: Mutex<Option<Running>>,
}

/// A server that ends with this value, so that whoever gives up a start leaves none behind.
struct Running(Shutdown);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.force("the listener was dropped");
    }
}

impl Listener {
    /// Binds `host:port` and serves. Port 0 becomes a free port, which is kept from then on.
    pub(crate) async fn start(address: &str, router: Router) -> Result<Self, BindError> {
        let (address, running) = listen(address, router.clone()).await?;
        Ok(Self { address, router, running: Mutex::new(Some(running)) })
    }

    /// Where it listens, or would if it were not stopped.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Goes on, but asks clients not to keep their connections.
    pub(crate) async fn announce_stop(&self) {
        if let Some(running) = &*self.running.lock().await {
            running.0.announce();
        }
    }

    /// Takes no more connections, closes idle ones and waits for requests in hand, at most [`DRAIN_GRACE`].
    pub(crate) async fn stop(&self) {
        if let Some(running) = self.running.lock().await.take() {
            running.0.begin("the listener is stopped");
            running.0.finished().await;
        }
    }

    /// Serves again at the same address. Nothing happens if it is not stopped.
    pub(crate) async fn resume(&self) -> Result<(), BindError> {
        let mut running = self.running.lock().await;
        if running.is_none() {
            *running = Some(listen(&self.address.to_string(), self.router.clone()).await?.1);
        }
        Ok(())
    }
}

async fn listen(address: &str, router: Router) -> Result<(SocketAddr, Running), BindError> {
    let socket = bind(address).await?;
    let address = socket.local_addr().map_err(|source| BindError::Unknown { text: address.to_owned(), source })?;
    let shutdown = Shutdown::new(DRAIN_GRACE);
    shutdown.spawn(serve(socket, router, shutdown.clone()));
    Ok((address, Running(shutdown)))
}
