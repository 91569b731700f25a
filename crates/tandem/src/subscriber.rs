//! A small client of `graphql-transport-ws`, for everything here that plays a subscriber.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{self, Message, client::IntoClientRequest as _, http::HeaderValue, protocol::WebSocketConfig},
};

/// Of the read and of the write buffer: messages are far smaller, and with the default a process could not play ten thousand subscribers.
const BUFFER_BYTES: usize = 4 * 1024;

/// Why there is no next event.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// The socket.
    #[error(transparent)]
    Socket(#[from] tungstenite::Error),
    /// The server sent something else than the protocol has here, an `error` message for example.
    #[error("unexpected message: {0}")]
    Unexpected(String),
    /// The server closed the socket.
    #[error("the server closed the socket: {0}")]
    Closed(String),
}

/// One subscription on a socket of its own.
pub struct Subscriber {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Subscriber {
    /// Connects to the server at `base` (`http://…`), signs in and subscribes. Events that happen after this has returned are seen, once the
    /// server has read the `subscribe` message: [`Subscriber::next`] of a query with a first event tells when.
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub async fn start(base: &str, token: &str, query: &str, variables: Value) -> Result<Self, SubscribeError> {
        let mut request = format!("{}/graphql", base.replacen("http", "ws", 1)).into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("graphql-transport-ws"));
        let config = WebSocketConfig::default().read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES);
        // Small messages go at once: who waits for them measures time.
        let (socket, _) = connect_async_with_config(request, Some(config), true).await?;
        let mut subscriber = Self { socket };
        let authorization = format!("Bearer {token}");
        subscriber.send(&json!({ "type": "connection_init", "payload": { "Authorization": authorization } })).await?;
        let ack = subscriber.receive().await?;
        if ack["type"] != "connection_ack" {
            return Err(SubscribeError::Unexpected(ack.to_string()));
        }
        let payload = json!({ "query": query, "variables": variables });
        subscriber.send(&json!({ "id": "1", "type": "subscribe", "payload": payload })).await?;
        Ok(subscriber)
    }

    /// The data of the next event; `None` when the subscription is complete.
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub async fn next(&mut self) -> Result<Option<Value>, SubscribeError> {
        let mut message = self.receive().await?;
        match message["type"].as_str() {
            Some("next") if message["payload"].get("errors").is_none() => Ok(Some(message["payload"]["data"].take())),
            Some("complete") => Ok(None),
            _ => Err(SubscribeError::Unexpected(message.to_string())),
        }
    }

    async fn send(&mut self, message: &Value) -> Result<(), SubscribeError> {
        Ok(self.socket.send(Message::text(message.to_string())).await?)
    }

    /// The next message that is not a ping; pings are answered.
    async fn receive(&mut self) -> Result<Value, SubscribeError> {
        while let Some(message) = self.socket.next().await {
            match message? {
                Message::Text(text) => {
                    let message: Value =
                        serde_json::from_str(&text).map_err(|_| SubscribeError::Unexpected(text.as_str().to_owned()))?;
                    if message["type"] != "ping" {
                        return Ok(message);
                    }
                    self.send(&json!({ "type": "pong" })).await?;
                }
                Message::Close(frame) => {
                    let reason = frame.map_or_else(|| "no reason".to_owned(), |frame| frame.to_string());
                    return Err(SubscribeError::Closed(reason));
                }
                _ => {}
            }
        }
        Err(SubscribeError::Closed("without a close frame".to_owned()))
    }
}
