//! The life of one socket: wait for `connection_init`, acknowledge, serve operations, close with a reason.

use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use async_graphql::{Executor, Response};
use futures_util::StreamExt;
use http::HeaderMap;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::close::Close;
use super::operations::{Operations, Output, once};
use super::protocol::{ClientMessage, ServerMessage};
use super::socket::{CLOSE_TIMEOUT, Socket, SocketEvent, Transport};
use crate::auth::Authenticated;
use crate::error::{ErrorCode, error_response, fill_codes, is_request_error};
use crate::http::{execute, outcome, timed_out};
use crate::operation::OperationKind;
use crate::request::{BadParameters, Parameters};
use crate::router::Endpoint;

/// Why the loop ends.
enum End {
    /// We say why.
    Close(Close),
    /// The peer has gone, or has not answered a ping: nobody would hear a reason.
    Gone { reason: &'static str },
}

impl From<Close> for End {
    fn from(close: Close) -> Self {
        Self::Close(close)
    }
}

/// Serves a socket until it ends.
pub(crate) async fn run<E: Executor>(endpoint: Arc<Endpoint<E>>, stream: Transport, upgrade_headers: HeaderMap, offered: bool) {
    let _open = OpenSocket::new();
    let options = &endpoint.options;
    let mut socket = Socket::new(stream, options.max_queued_messages, options.max_queued_bytes);
    let end = if offered {
        // Boxed, so that the task does not keep the loop's state while it only waits for the peer to hang up.
        let connection = Connection::new(Arc::clone(&endpoint), upgrade_headers);
        Box::pin(connection.serve(&mut socket)).await
    } else {
        End::Close(Close::ProtocolNotOffered)
    };
    let label = match end {
        End::Close(close) => {
            tracing::debug!(code = close.code(), ?close, "closing a socket");
            let label = close.code().to_string();
            // Whoever reads slowly gets as long again to read the reason.
            let patience = if close == Close::SlowReader { options.send_timeout } else { CLOSE_TIMEOUT };
            socket.close(close.frame(), patience).await;
            label
        }
        End::Gone { reason } => {
            tracing::debug!(reason, "a socket is gone");
            socket.hang_up().await;
            reason.to_owned()
        }
    };
    metrics::counter!("graphql_websocket_closed_total", "reason" => label).increment(1);
}

/// Counts a socket in the metrics for as long as it is open.
struct OpenSocket(());

impl OpenSocket {
    fn new() -> Self {
        metrics::gauge!("graphql_websocket_connections").increment(1);
        Self(())
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        metrics::gauge!("graphql_websocket_connections").decrement(1);
    }
}

struct Connection<E> {
    endpoint: Arc<Endpoint<E>>,
    /// Needed until the caller is known.
    upgrade_headers: Option<HeaderMap>,
    caller: Option<Authenticated>,
    operations: Operations,
    init_deadline: Option<Instant>,
    expires_at: Option<Instant>,
    next_ping: Instant,
    pong_deadline: Option<Instant>,
}

impl<E: Executor> Connection<E> {
    fn new(endpoint: Arc<Endpoint<E>>, upgrade_headers: HeaderMap) -> Self {
        let now = Instant::now();
        Self {
            init_deadline: Some(now + endpoint.options.init_timeout),
            next_ping: now + endpoint.options.ping_interval,
            endpoint,
            upgrade_headers: Some(upgrade_headers),
            caller: None,
            operations: Operations::default(),
            expires_at: None,
            pong_deadline: None,
        }
    }

    async fn serve(mut self, socket: &mut Socket) -> End {
        let mut drain = pin!(self.endpoint.options.drain.clone().cancelled_owned());
        let mut timer = pin!(sleep_until(self.next_deadline(socket)));
        loop {
            let deadline = self.next_deadline(socket);
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            let has_room = socket.has_room();
            let step = tokio::select! {
                () = &mut drain => Err(Close::Draining.into()),
                () = &mut timer => self.on_time(socket),
                event = socket.next() => self.on_event(socket, event).await,
                output = self.operations.next(), if has_room => {
                    self.on_output(socket, output);
                    Ok(())
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// The earliest moment at which something has to happen by itself.
    fn next_deadline(&self, socket: &Socket) -> Instant {
        let options = &self.endpoint.options;
        let stalled = socket.blocked_since().map(|since| since + options.send_timeout);
        // While writing is blocked nothing is read either: a pong would not be seen, and the stall decides instead.
        let alive = stalled.or(Some(self.pong_deadline.unwrap_or(self.next_ping)));
        [self.init_deadline, self.expires_at, alive].into_iter().flatten().min().unwrap_or(self.next_ping)
    }

    fn on_time(&mut self, socket: &mut Socket) -> Result<(), End> {
        let now = Instant::now();
        let due = |moment: Option<Instant>| moment.is_some_and(|moment| moment <= now);
        let options = &self.endpoint.options;
        if due(self.init_deadline) {
            return Err(Close::InitTimeout.into());
        }
        if due(self.expires_at) {
            return Err(Close::Forbidden("Forbidden: the token has expired".into()).into());
        }
        if let Some(since) = socket.blocked_since() {
            return if since + options.send_timeout <= now { Err(Close::SlowReader.into()) } else { Ok(()) };
        }
        if due(self.pong_deadline) {
            return Err(End::Gone { reason: "pong_timeout" });
        }
        if self.pong_deadline.is_none() && self.next_ping <= now {
            socket.push_ping();
            self.pong_deadline = Some(now + options.pong_timeout);
        }
        Ok(())
    }

    async fn on_event(&mut self, socket: &mut Socket, event: SocketEvent) -> Result<(), End> {
        match event {
            SocketEvent::FlowChanged => return Ok(()),
            SocketEvent::Gone => return Err(End::Gone { reason: "peer" }),
            SocketEvent::Invalid(reason) => return Err(Close::BadMessage(reason.into()).into()),
            SocketEvent::Binary => return Err(Close::BadMessage("Invalid message: not text".into()).into()),
            SocketEvent::Alive => self.heard(),
            SocketEvent::Text(text) => {
                self.heard();
                let message = ClientMessage::parse(&text).map_err(|reason| Close::BadMessage(reason.into()))?;
                self.on_message(socket, message).await?;
            }
        }
        Ok(())
    }

    /// Anything that arrives shows that the peer lives.
    fn heard(&mut self) {
        self.pong_deadline = None;
        self.next_ping = Instant::now() + self.endpoint.options.ping_interval;
    }

    async fn on_message(&mut self, socket: &mut Socket, message: ClientMessage) -> Result<(), End> {
        match message {
            ClientMessage::ConnectionInit { payload } => self.init(socket, &payload).await,
            ClientMessage::Ping { payload } => {
                send(socket, &ServerMessage::Pong { payload: payload.as_deref() });
                Ok(())
            }
            ClientMessage::Pong => Ok(()),
            ClientMessage::Complete { id } => {
                self.operations.stop(&id);
                Ok(())
            }
            ClientMessage::Subscribe { id, parameters } => self.subscribe(socket, &id, *parameters),
        }
    }

    async fn init(&mut self, socket: &mut Socket, payload: &serde_json::Value) -> Result<(), End> {
        let (Some(headers), Some(deadline)) = (self.upgrade_headers.take(), self.init_deadline.take()) else {
            return Err(Close::SecondInit.into());
        };
        let checking = self.endpoint.authenticator.authenticate_socket(&headers, payload);
        let caller = timeout_at(deadline, checking)
            .await
            .map_err(|_| Close::Unavailable("The token could not be checked in time".to_owned()))?
            .map_err(Close::from)?;
        // A token that has ended in the meantime is due at once.
        self.expires_at = caller
            .expires_at
            .and_then(|moment| Instant::now().checked_add(moment.duration_since(SystemTime::now()).unwrap_or_default()));
        self.caller = Some(caller);
        send(socket, &ServerMessage::ConnectionAck);
        Ok(())
    }

    fn subscribe(&mut self, socket: &mut Socket, id: &str, parameters: Parameters) -> Result<(), End> {
        let Some(caller) = &self.caller else {
            return Err(Close::NotAcknowledged.into());
        };
        if self.operations.contains(id) {
            return Err(Close::DuplicateId(id.to_owned()).into());
        }
        let options = &self.endpoint.options;
        let prepared = match parameters.prepare() {
            Ok(prepared) => prepared,
            Err(bad @ BadParameters::MissingQuery) => return Err(Close::BadMessage(bad.to_string().into()).into()),
            Err(bad) => {
                let code = if matches!(bad, BadParameters::PersistedQuery) {
                    ErrorCode::PersistedQueryNotFound
                } else {
                    ErrorCode::LimitExceeded
                };
                refuse(socket, id, &error_response(code, bad.to_string()));
                return Ok(());
            }
        };
        if self.operations.len() >= options.max_subscriptions_per_socket {
            let message = format!("at most {} operations at the same time on one socket", options.max_subscriptions_per_socket);
            refuse(socket, id, &error_response(ErrorCode::LimitExceeded, message));
            return Ok(());
        }
        let kind = prepared.kind;
        let request = (caller.attach)(prepared.request);
        let responses = if kind == OperationKind::Subscription {
            let document = request.query.clone();
            let responses = self.endpoint.executor.execute_stream(request, None);
            responses
                .map(move |mut response| {
                    fill_codes(&mut response, &document);
                    response
                })
                .boxed()
        } else {
            let endpoint = Arc::clone(&self.endpoint);
            once(async move {
                let limit = endpoint.options.request_timeout;
                let response = tokio::time::timeout(limit, execute(&endpoint, kind, request, "websocket")).await;
                response.unwrap_or_else(|_| timed_out())
            })
        };
        self.operations.start(id, kind, responses);
        Ok(())
    }

    fn on_output(&mut self, socket: &mut Socket, output: Output) {
        match output {
            Output::Next { id, kind, response, first } => {
                if first {
                    count(kind, &response);
                }
                if first && is_request_error(&response) {
                    // It never began, so it ends with the `error` message alone.
                    self.operations.stop(&id);
                    send(socket, &ServerMessage::Error { id: &id, errors: &response.errors });
                } else {
                    send(socket, &ServerMessage::Next { id: &id, response: &response });
                }
            }
            Output::End { id } => send(socket, &ServerMessage::Complete { id: &id }),
        }
    }
}

fn refuse(socket: &mut Socket, id: &str, response: &Response) {
    send(socket, &ServerMessage::Error { id, errors: &response.errors });
}

fn count(kind: OperationKind, response: &Response) {
    let outcome = outcome(response);
    metrics::counter!("graphql_requests_total", "transport" => "websocket", "operation" => kind.as_str(), "outcome" => outcome)
        .increment(1);
}

fn send(socket: &mut Socket, message: &ServerMessage<'_>) {
    match message.to_text() {
        Ok(text) => socket.push(text),
        // Our own types serialize; a scalar that does not is a bug, and the client's operation then gets no answer.
        Err(error) => tracing::error!(%error, "a message could not be serialized"),
    }
}
