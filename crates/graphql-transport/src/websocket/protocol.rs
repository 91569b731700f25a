//! The messages of `graphql-transport-ws`.

use async_graphql::{Response, ServerError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Errors, Wire};
use crate::request::Parameters;

/// The sub-protocol's name at the handshake.
pub(crate) const PROTOCOL: &str = "graphql-transport-ws";

/// An id is a client's counter or UUID; it is sent back with every message, and kept while the operation runs.
const MAX_ID_BYTES: usize = 256;

/// What a client may say.
#[derive(Debug)]
pub(crate) enum ClientMessage {
    ConnectionInit { payload: serde_json::Value },
    Subscribe { id: String, parameters: Box<Parameters> },
    Complete { id: String },
    Ping { payload: Option<Box<RawValue>> },
    Pong,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default, borrow)]
    payload: Option<&'a RawValue>,
}

impl ClientMessage {
    /// Reads one text message.
    ///
    /// # Errors
    /// A text for the close reason.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| format!("Invalid message: {error}"))?;
        let payload = envelope.payload;
        match &*envelope.kind {
            "connection_init" => {
                let payload = match payload {
                    None => serde_json::Value::Null,
                    Some(raw) => serde_json::from_str(raw.get()).map_err(|error| format!("Invalid payload: {error}"))?,
                };
                if !payload.is_null() && !payload.is_object() {
                    return Err("Invalid payload: not an object".to_owned());
                }
                Ok(Self::ConnectionInit { payload })
            }
            "subscribe" => {
                let raw = payload.ok_or("Invalid message: `payload` is missing")?;
                if !raw.get().starts_with('{') {
                    return Err("Invalid payload: not an object".to_owned());
                }
                let parameters = serde_json::from_str(raw.get()).map_err(|error| format!("Invalid payload: {error}"))?;
                Ok(Self::Subscribe { id: valid_id(envelope.id)?, parameters: Box::new(parameters) })
            }
            "complete" => Ok(Self::Complete { id: valid_id(envelope.id)? }),
            "ping" => Ok(Self::Ping { payload: payload.map(ToOwned::to_owned) }),
            "pong" => Ok(Self::Pong),
            _ => Err("Invalid message: unknown `type`".to_owned()),
        }
    }
}

fn valid_id(id: Option<String>) -> Result<String, String> {
    let id = id.ok_or("Invalid message: `id` is missing")?;
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return Err(format!("Invalid message: `id` must have 1 to {MAX_ID_BYTES} bytes"));
    }
    Ok(id)
}

/// What the server says.
pub(crate) enum ServerMessage<'a> {
    ConnectionAck,
    Next { id: &'a str, response: &'a Response },
    Error { id: &'a str, errors: &'a [ServerError] },
    Complete { id: &'a str },
    Pong { payload: Option<&'a RawValue> },
}

#[derive(Serialize)]
struct Outgoing<'a, P: Serialize> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<P>,
}

impl ServerMessage<'_> {
    /// The message as text.
    pub(crate) fn to_text(&self) -> Result<String, serde_json::Error> {
        match self {
            Self::ConnectionAck => write::<()>(None, "connection_ack", None),
            Self::Next { id, response } => write(Some(id), "next", Some(Wire(response))),
            Self::Error { id, errors } => write(Some(id), "error", Some(Errors(errors))),
            Self::Complete { id } => write::<()>(Some(id), "complete", None),
            Self::Pong { payload } => write(None, "pong", *payload),
        }
    }
}

fn write<P: Serialize>(id: Option<&str>, kind: &'static str, payload: Option<P>) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Outgoing { id, kind, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_message_of_a_client_is_refused() {
        for text in [
            "",
            "nonsense",
            "null",
            "[]",
            "{}",
            r#"{"type":"next","id":"1"}"#,
            r#"{"type":"connection_ack"}"#,
            r#"{"type":"connection_init","payload":"token"}"#,
            r#"{"type":"subscribe","id":"1"}"#,
            r#"{"type":"subscribe","payload":{"query":"{a}"}}"#,
            r#"{"type":"subscribe","id":1,"payload":{"query":"{a}"}}"#,
            r#"{"type":"subscribe","id":"","payload":{"query":"{a}"}}"#,
            r#"{"type":"subscribe","id":"1","payload":[{"query":"{a}"}]}"#,
            r#"{"type":"subscribe","id":"1","payload":{"query":"{a}","variables":[]}}"#,
            r#"{"type":"complete"}"#,
        ] {
            assert!(ClientMessage::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn members_that_a_later_client_adds_are_ignored() {
        let text = r#"{"payload":{"query":"{a}","variables":null,"new":1},"id":"1","type":"subscribe","new":[1]}"#;
        assert!(matches!(ClientMessage::parse(text), Ok(ClientMessage::Subscribe { id, .. }) if id == "1"));
    }

    #[test]
    fn a_ping_is_answered_with_its_own_payload() {
        let Ok(ClientMessage::Ping { payload }) = ClientMessage::parse(r#"{"type":"ping","payload":{"z":1,"a":2}}"#) else {
            panic!("a ping");
        };
        let pong = ServerMessage::Pong { payload: payload.as_deref() }.to_text().unwrap();
        assert_eq!(pong, r#"{"type":"pong","payload":{"z":1,"a":2}}"#);
    }
}
