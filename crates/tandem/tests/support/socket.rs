//! A `graphql-transport-ws` client, written to the protocol.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use super::PATIENCE;

/// One socket.
pub struct Socket(WebSocketStream<TcpStream>);

/// What the server sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// A message of the protocol.
    Message(Value),
    /// The end, with its code.
    Close(u16),
}

impl Socket {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address, None, None).await.unwrap()
    }

    /// `receive_buffer` bounds what the system keeps for a reader that does not read.
    pub async fn try_connect(address: SocketAddr, origin: Option<&str>, receive_buffer: Option<u32>) -> Result<Self, Error> {
        let mut request = format!("ws://{address}/graphql").into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let stream = socket.connect(address).await?;
        Ok(Self(client_async(request, stream).await?.0))
    }

    pub async fn init(&mut self, token: &str) {
        self.send(json!({ "type": "connection_init", "payload": { "authorization": format!("Bearer {token}") } })).await;
        assert_eq!(self.next().await, Frame::Message(json!({ "type": "connection_ack" })));
    }

    pub async fn send(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    pub async fn subscribe(&mut self, id: &str, query: &str, variables: Value) {
        self.send(json!({ "id": id, "type": "subscribe", "payload": { "query": query, "variables": variables } })).await;
    }

    /// The next message, or the end.
    pub async fn next(&mut self) -> Frame {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.expect("a frame in time").expect("a frame").unwrap() {
                Message::Text(text) => return Frame::Message(serde_json::from_str(&text).unwrap()),
                Message::Close(frame) => {
                    // Answers, as clients do.
                    let _ = self.0.flush().await;
                    return Frame::Close(frame.expect("a code").code.into());
                }
                _ => {}
            }
        }
    }

    async fn message(&mut self) -> Value {
        match self.next().await {
            Frame::Message(message) => message,
            Frame::Close(code) => panic!("closed with {code}"),
        }
    }

    /// The payload of the next event, or `None` when the subscription is complete.
    pub async fn payload(&mut self, id: &str) -> Option<Value> {
        let mut message = self.message().await;
        assert_eq!(message["id"], id, "{message}");
        match message["type"].as_str() {
            Some("next") => Some(message["payload"].take()),
            Some("complete") => None,
            _ => panic!("{message}"),
        }
    }

    /// The next event of this subscription's only field.
    pub async fn event(&mut self, id: &str, field: &str) -> Option<Value> {
        let mut payload = self.payload(id).await?;
        assert_eq!(payload.get("errors"), None, "{payload}");
        Some(payload["data"][field].take())
    }

    /// The code of an error, whichever way it comes, and the end of the subscription.
    pub async fn refusal(&mut self, id: &str) -> String {
        let message = self.message().await;
        assert_eq!(message["id"], id, "{message}");
        let errors = match message["type"].as_str() {
            Some("error") => &message["payload"],
            Some("next") => &message["payload"]["errors"],
            _ => panic!("{message}"),
        };
        let code = errors[0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("{message}")).to_owned();
        if message["type"] == "next" {
            assert_eq!(self.message().await, json!({ "id": id, "type": "complete" }));
        }
        code
    }

    /// Skips messages until the server closes.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            if let Frame::Close(code) = self.next().await {
                return code;
            }
        }
    }
}
