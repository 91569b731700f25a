//! The socket with its bounded queue of outgoing messages.
//!
//! One `poll` drives both directions: it writes what is queued, and reads only while the queue has room. A full queue therefore
//! holds back the client's own messages too, and TCP tells it so.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, SinkExt, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

use super::metered::Metered;

/// How long a close frame may take to leave, and the peer then to hang up.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes thrown away per read while the peer hangs up.
const DISCARD_BUFFER_BYTES: usize = 1024;

pub(crate) type Transport = WebSocketStream<Metered>;

/// What happened on the socket.
#[derive(Debug)]
pub(crate) enum SocketEvent {
    Text(Utf8Bytes),
    Binary,
    /// A ping or a pong: the peer lives.
    Alive,
    /// The queue has room again, or the connection has stopped taking anything: ask both again.
    FlowChanged,
    /// A frame that breaks a rule: too large, not UTF-8, not masked.
    Invalid(String),
    /// The peer has closed, or the connection is lost.
    Gone,
}

pub(crate) struct Socket {
    stream: Transport,
    queue: VecDeque<Message>,
    queued_bytes: usize,
    max_messages: usize,
    max_bytes: usize,
    unflushed: bool,
    /// The library has queued a pong in a buffer of its own, which has no bound: nothing is read until it has left.
    pong_waits: bool,
    /// Since when the connection takes nothing although something waits, and how many bytes it had taken then.
    blocked: Option<(Instant, u64)>,
}

impl Socket {
    pub(crate) fn new(stream: Transport, max_messages: usize, max_bytes: usize) -> Self {
        Self {
            stream,
            queue: VecDeque::new(),
            queued_bytes: 0,
            max_messages,
            max_bytes,
            unflushed: false,
            pong_waits: false,
            blocked: None,
        }
    }

    /// Whether another message may be produced. One that is too large for the queue passes when it is alone.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < self.max_messages && self.queued_bytes < self.max_bytes
    }

    /// Since when the connection takes not a byte although something waits.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.blocked.map(|(since, _)| since)
    }

    /// Queues a text message; whoever produces asks [`Self::has_room`] first.
    pub(crate) fn push(&mut self, text: String) {
        self.queued_bytes += text.len();
        self.queue.push_back(Message::text(text));
    }

    /// Queues a ping; the peer's WebSocket library answers it by itself.
    pub(crate) fn push_ping(&mut self) {
        self.queue.push_back(Message::Ping(Bytes::new()));
    }

    /// The next event. Cancel safe: what is queued stays queued.
    pub(crate) async fn next(&mut self) -> SocketEvent {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<SocketEvent> {
        let was_full = !self.has_room();
        let was_blocked = self.blocked.is_some();
        if self.write(cx).is_err() {
            return Poll::Ready(SocketEvent::Gone);
        }
        if (was_full && self.has_room()) || (!was_blocked && self.blocked.is_some()) {
            return Poll::Ready(SocketEvent::FlowChanged);
        }
        if !self.has_room() || self.pong_waits {
            return Poll::Pending;
        }
        let event = match Pin::new(&mut self.stream).poll_next(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(message))) => match message {
                Message::Text(text) => SocketEvent::Text(text),
                Message::Binary(_) => SocketEvent::Binary,
                Message::Ping(_) => {
                    self.unflushed = true;
                    self.pong_waits = true;
                    SocketEvent::Alive
                }
                Message::Pong(_) | Message::Frame(_) => SocketEvent::Alive,
                Message::Close(_) => SocketEvent::Gone,
            },
            Poll::Ready(Some(Err(error))) => match error {
                Error::Capacity(reason) => SocketEvent::Invalid(reason.to_string()),
                Error::Utf8(reason) => SocketEvent::Invalid(format!("not UTF-8: {reason}")),
                Error::Protocol(reason) if !is_disconnect(&reason) => SocketEvent::Invalid(reason.to_string()),
                _ => SocketEvent::Gone,
            },
            Poll::Ready(None) => SocketEvent::Gone,
        };
        Poll::Ready(event)
    }

    /// Writes as much as the connection takes.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        while !self.queue.is_empty() {
            match Pin::new(&mut self.stream).poll_ready(cx)? {
                Poll::Pending => return self.blocked(),
                Poll::Ready(()) => {}
            }
            self.blocked = None;
            if let Some(message) = self.queue.pop_front() {
                if let Message::Text(text) = &message {
                    self.queued_bytes -= text.len();
                }
                Pin::new(&mut self.stream).start_send(message)?;
                self.unflushed = true;
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx)? {
                Poll::Pending => return self.blocked(),
                Poll::Ready(()) => {
                    self.unflushed = false;
                    self.pong_waits = false;
                }
            }
        }
        self.blocked = None;
        // A burst should not be what an idle socket costs from then on.
        if self.queue.capacity() > self.max_messages.min(IDLE_QUEUE_CAPACITY) {
            self.queue.shrink_to(0);
        }
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "the tail of `write`")]
    fn blocked(&mut self) -> Result<(), Error> {
        let taken = self.stream.get_ref().written_bytes();
        if self.blocked.is_none_or(|(_, before)| before < taken) {
            self.blocked = Some((Instant::now(), taken));
        }
        Ok(())
    }

    /// Says why, and hangs up in the order that lets the peer read it: close frame, end of our side, wait for the peer's. What
    /// is queued is dropped. The frame may take `patience` to leave, and the peer then [`CLOSE_TIMEOUT`] to hang up.
    pub(crate) async fn close(mut self, frame: CloseFrame, patience: Duration) {
        let sent = tokio::time::timeout(patience, self.stream.send(Message::Close(Some(frame)))).await;
        if matches!(sent, Ok(Ok(()))) {
            self.hang_up().await;
        }
    }

    /// Ends our side and waits for the peer to end its own: closing with unread bytes would reset the connection, and the peer
    /// might lose the close frame.
    pub(crate) async fn hang_up(mut self) {
        let wait = async {
            // The peer's close frame may still have to be answered.
            let _ = self.stream.flush().await;
            let connection = self.stream.get_mut();
            if connection.shutdown().await.is_ok() {
                let mut discarded = [0_u8; DISCARD_BUFFER_BYTES];
                while connection.read(&mut discarded).await.is_ok_and(|read| read > 0) {}
            }
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, wait).await;
    }
}

/// Queue capacity that is kept between bursts.
const IDLE_QUEUE_CAPACITY: usize = 4;

fn is_disconnect(error: &tokio_tungstenite::tungstenite::error::ProtocolError) -> bool {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    matches!(
        error,
        ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing | ProtocolError::ReceivedAfterClosing
    )
}
