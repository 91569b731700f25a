//! The bounds of the transport, each with its reason.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::origin::OriginPattern;

/// How the transport behaves. The defaults suit a public endpoint.
#[derive(Debug, Clone)]
pub struct TransportOptions {
    /// Largest HTTP body, in bytes; more is 413. Default 1 MiB: documents and variables are far smaller.
    pub max_body_bytes: usize,
    /// Longest wait for one query or mutation, reading the body included; then code `TIMEOUT`. A mutation goes on. Default 30 s:
    /// longer than any database timeout behind it, shorter than a proxy's patience.
    pub request_timeout: Duration,
    /// Web pages that may open a socket; `None` does not ask. Default `None`.
    pub allowed_origins: Option<Vec<OriginPattern>>,

    /// Largest WebSocket message, in bytes; more is close 4400. Default 1 MiB, as for HTTP.
    pub max_message_bytes: usize,
    /// Operations of any kind at the same time on one socket; more is an `error` with `LIMIT_EXCEEDED`. Default 100: a page with
    /// a live list and details has a handful.
    pub max_subscriptions_per_socket: usize,
    /// Open sockets; more is 503 at the upgrade. Default 20,000, some hundred MB of idle sockets at most.
    pub max_sockets: usize,
    /// Time to send `connection_init`, and then to check its token; close 4408. Default 10 s, for slow mobile networks.
    pub init_timeout: Duration,
    /// Pause between two pings of the server. Default 20 s: below the idle limits of common proxies (60 s and less).
    pub ping_interval: Duration,
    /// Time for anything to arrive after a ping; then the peer is gone and the connection is dropped. Default 10 s.
    pub pong_timeout: Duration,
    /// Outgoing messages that may wait on one socket before its sources are slowed down. Default 64, a burst's worth.
    pub max_queued_messages: usize,
    /// The same in bytes. Default 256 KiB, so that a few thousand slow readers do not exhaust the memory. One message that is
    /// larger still passes, alone.
    pub max_queued_bytes: usize,
    /// How long a reader may take nothing at all while messages wait; then close 1013. Default 15 s: a phone that changes
    /// networks is back by then.
    pub send_timeout: Duration,
    /// Read and write buffer of one socket, in bytes each. Default 1 KiB: most messages of clients fit,
    /// larger ones are read in parts, and it is what an idle socket costs.
    pub socket_buffer_bytes: usize,

    /// Cancelled when the server goes away: every socket is closed with 1012, and new ones are refused with 503.
    pub drain: CancellationToken,
    /// Where sockets and mutations run, so that whoever stops the process can wait for them.
    pub tasks: TaskTracker,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            max_body_bytes: 1024 * 1024,
            request_timeout: Duration::from_secs(30),
            allowed_origins: None,
            max_message_bytes: 1024 * 1024,
            max_subscriptions_per_socket: 100,
            max_sockets: 20_000,
            init_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(20),
            pong_timeout: Duration::from_secs(10),
            max_queued_messages: 64,
            max_queued_bytes: 256 * 1024,
            send_timeout: Duration::from_secs(15),
            socket_buffer_bytes: 1024,
            drain: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }
}
