//! Binding a port, with an error that helps, and serving HTTP on it within bounds.
//!
//! Once the shutdown is announced, answers ask the client to close its connection. On the soft token the server stops accepting, answers the requests in hand, and closes idle
//! connections; on the hard token it drops what is left. Upgraded connections (WebSockets) end
//! themselves: their handlers watch the tokens.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use http::{HeaderValue, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::lifecycle::Shutdown;

/// After this error of `accept` (too many open files), connections have to end before another
/// attempt can succeed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a port could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error(
        "port {} on {} is taken; stop the program that has it, or choose another port, such as {}",
        address.port(), address.ip(), next_port(*address)
    )]
    Taken {
        /// What was asked for.
        address: SocketAddr,
    },
    /// Ports below 1024 are for privileged users.
    #[error("port {} on {} needs privileges; choose one above 1023, such as 8000", address.port(), address.ip())]
    Forbidden {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The address belongs to no interface.
    #[error("{} is no address of this machine; use 127.0.0.1 for this machine only, 0.0.0.0 for everyone", address.ip())]
    NotHere {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The text is no `host:port`, or the host has no address.
    #[error("{text:?} is no address to listen on; it must be host:port: {source}")]
    Unknown {
        /// What was asked for.
        text: String,
        /// What the system says.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// What was asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

fn next_port(address: SocketAddr) -> u16 {
    address.port().checked_add(1).unwrap_or(8000)
}

/// Binds `host:port`. Port 0 takes a free one.
///
/// # Errors
///
/// A [`BindError`] whose text says what to do.
pub async fn bind(address: &str) -> Result<TcpListener, BindError> {
    let unknown = |source| BindError::Unknown { text: address.to_owned(), source };
    let address = lookup_host(address)
        .await
        .map_err(unknown)?
        .next()
        .ok_or_else(|| unknown(io::Error::new(io::ErrorKind::NotFound, "the host has no address")))?;
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { address },
        io::ErrorKind::PermissionDenied => BindError::Forbidden { address },
        io::ErrorKind::AddrNotAvailable => BindError::NotHere { address },
        _ => BindError::Other { address, source },
    })
}

/// Bounds of a server.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// Connections at the same time; more wait in the system's queue. Default 10,000: each costs
    /// some 20 KiB and a file descriptor.
    pub max_connections: usize,
    /// How long a client may take to send the head of a request, and how long an idle connection
    /// is kept. Default 30 s.
    pub header_timeout: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self { max_connections: 10_000, header_timeout: Duration::from_secs(30) }
    }
}

/// Serves until the shutdown, with the default bounds. The client's address is in the request's
/// extensions as [`ConnectInfo<SocketAddr>`].
pub async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) {
    serve_with(listener, router, shutdown, ServeOptions::default()).await;
}

/// [`serve`] with other bounds.
pub async fn serve_with(listener: TcpListener, router: Router, shutdown: Shutdown, options: ServeOptions) {
    let places = Arc::new(Semaphore::new(options.max_connections));
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.soft().cancelled() => break,
            connection = accept(&listener, &places) => {
                let (stream, peer, place) = connection;
                let served = serve_connection(stream, peer, router.clone(), shutdown.clone(), options.header_timeout);
                let hard = shutdown.hard().clone();
                connections.spawn(async move {
                    let _place = place;
                    hard.run_until_cancelled(served).await;
                });
            }
        }
    }
    drop(listener);
    // Each connection ends by itself or with the hard token.
    connections.close();
    connections.wait().await;
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            // The semaphore is never closed.
            std::future::pending::<()>().await;
            continue;
        };
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => match error.kind() {
                // The client was gone before it was accepted.
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
                _ => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, router: Router, shutdown: Shutdown, header_timeout: Duration) {
    // Answers are written whole; waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let ending = shutdown.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let answering = router.clone().oneshot(request.map(axum::body::Body::new));
        let ending = ending.clone();
        async move {
            let mut response = answering.await?;
            // An upgrade has its own value there.
            if ending.is_announced() && !response.headers().contains_key(header::CONNECTION) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.soft().cancelled() => {
            // Answers the request in hand, if any, and closes.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The client's trouble is not ours to report louder.
        tracing::debug!(%error, %peer, "connection ended");
    }
}
