//! `graphql-transport-ws`, as a client sees it: each close code, and what must not get lost.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use graphql_transport::TransportOptions;
use http::header::{AUTHORIZATION, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use serde_json::{Value, json};
use support::{PATIENCE, Server, reaches};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn try_connect(server: &Server, headers: &[(http::HeaderName, &str)]) -> Result<Self, Error> {
        let mut request = format!("ws://{}/graphql", server.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        connect_async(request).await.map(|(stream, _)| Self(stream))
    }

    async fn connect(server: &Server) -> Self {
        Self::try_connect(server, &[(SEC_WEBSOCKET_PROTOCOL, "graphql-transport-ws")]).await.unwrap()
    }

    /// Connected and acknowledged.
    async fn ready(server: &Server) -> Self {
        let mut client = Self::connect(server).await;
        client.init("ada").await;
        client
    }

    async fn init(&mut self, token: &str) {
        self.send(json!({ "type": "connection_init", "payload": { "Authorization": format!("Bearer {token}") } })).await;
        assert_eq!(self.receive().await, json!({ "type": "connection_ack" }));
    }

    async fn send(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn subscribe(&mut self, id: &str, query: &str) {
        self.send(json!({ "id": id, "type": "subscribe", "payload": { "query": query } })).await;
    }

    async fn next(&mut self) -> Message {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("in time").expect("a message").unwrap();
            if !message.is_ping() {
                return message;
            }
        }
    }

    async fn receive(&mut self) -> Value {
        match self.next().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Skips messages until the server closes.
    async fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.next().await {
                return frame.expect("a code").code.into();
            }
        }
    }
}

fn quick(change: impl FnOnce(&mut TransportOptions)) -> TransportOptions {
    let mut options = TransportOptions::default();
    change(&mut options);
    options
}

#[tokio::test]
async fn a_subscription_gets_every_event_and_then_completes() {
    let server = Server::start(TransportOptions::default()).await;
    let mut client = Client::ready(&server).await;
    client.subscribe("a", "subscription { count(to: 3) }").await;
    for number in 1..=3 {
        assert_eq!(client.receive().await, json!({ "id": "a", "type": "next", "payload": { "data": { "count": number } } }));
    }
    assert_eq!(client.receive().await, json!({ "id": "a", "type": "complete" }));
    // The id is free again.
    client.subscribe("a", "{ user }").await;
    assert_eq!(client.receive().await, json!({ "id": "a", "type": "next", "payload": { "data": { "user": "ada" } } }));
    assert_eq!(client.receive().await, json!({ "id": "a", "type": "complete" }));
}

#[tokio::test]
async fn a_mutation_that_nobody_waits_for_keeps_its_place() {
    let server = Server::start(quick(|options| options.max_subscriptions_per_socket = 2)).await;
    let mut client = Client::ready(&server).await;
    for id in ["a", "b"] {
        client.subscribe(id, "mutation { write(millis: 300) }").await;
        client.send(json!({ "id": id, "type": "complete" })).await;
    }
    client.subscribe("a", "{ hello }").await;
    let refused = client.receive().await;
    assert_eq!((&refused["id"], &refused["type"]), (&json!("a"), &json!("error")), "{refused}");
    assert_eq!(refused["payload"][0]["extensions"]["code"], "LIMIT_EXCEEDED");
    // Once they have ended, of which nothing is told, there is room again.
    loop {
        client.subscribe("c", "{ hello }").await;
        let answer = client.receive().await;
        assert_eq!(answer["id"], "c", "{answer}");
        if answer["type"] == "next" {
            break;
        }
    }
}

#[tokio::test]
async fn an_empty_operation_name_is_none() {
    let server = Server::start(TransportOptions::default()).await;
    let mut client = Client::ready(&server).await;
    let payload = json!({ "query": "subscription { count(to: 1) }", "operationName": "" });
    client.send(json!({ "id": "a", "type": "subscribe", "payload": payload })).await;
    assert_eq!(client.receive().await, json!({ "id": "a", "type": "next", "payload": { "data": { "count": 1 } } }));
}

#[tokio::test]
async fn what_cannot_be_executed_is_an_error_and_nothing_else() {
    let server = Server::start(TransportOptions::default()).await;
    let mut client = Client::ready(&server).await;
    for (query, code) in [
        ("subscription { nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("{", "GRAPHQL_PARSE_FAILED"),
        (&"{a".repeat(10_000), "LIMIT_EXCEEDED"),
    ] {
        client.subscribe("a", query).await;
        let message = client.receive().await;
        assert_eq!((&message["type"], &message["id"]), (&json!("error"), &json!("a")), "{message}");
        assert_eq!(message["payload"][0]["extensions"]["code"], code, "{message}");
    }
    client.subscribe("a", "{ hello }").await;
    assert_eq!(client.receive().await["payload"], json!({ "data": { "hello": "world" } }));
}

#[tokio::test]
async fn a_source_that_fails_is_told_and_then_completed() {
    let server = Server::start(TransportOptions::default()).await;
    let mut client = Client::ready(&server).await;
    client.subscribe("a", "subscription { breaking }").await;
    assert_eq!(client.receive().await["payload"], json!({ "data": { "breaking": 1 } }));
    let failure = client.receive().await;
    assert_eq!((&failure["type"], &failure["payload"]["data"]), (&json!("next"), &Value::Null));
    assert_eq!(failure["payload"]["errors"][0]["extensions"]["code"], "INTERNAL_SERVER_ERROR");
    assert_eq!(client.receive().await, json!({ "id": "a", "type": "complete" }));

    client.subscribe("b", "subscription { panicking }").await;
    assert_eq!(client.receive().await["payload"], json!({ "data": { "panicking": 1 } }));
    assert_eq!(client.receive().await["payload"]["errors"][0]["extensions"]["code"], "INTERNAL_SERVER_ERROR");
    assert_eq!(client.receive().await, json!({ "id": "b", "type": "complete" }));

    client.subscribe("c", "subscription { refusing }").await;
    let refused = client.receive().await;
    assert_eq!(
        (&refused["type"], &refused["payload"]["errors"][0]["message"]),
        (&json!("next"), &json!("not yours")),
        "{refused}"
    );
    assert_eq!(client.receive().await, json!({ "id": "c", "type": "complete" }));
}

#[tokio::test]
async fn completing_a_subscription_drops_its_source_at_once() {
    let server = Server::start(TransportOptions::default()).await;
    let mut client = Client::ready(&server).await;
    for round in 1..=3 {
        client.subscribe("a", "subscription { hanging }").await;
        assert_eq!(client.receive().await["payload"], json!({ "data": { "hanging": 1 } }));
        client.send(json!({ "id": "a", "type": "complete" })).await;
        reaches(&server.probe.dropped, round).await;
    }
    client.subscribe("b", "subscription { hanging }").await;
    client.receive().await;
    drop(client);
    reaches(&server.probe.dropped, 4).await;
}

#[tokio::test]
async fn a_mutation_outlives_its_socket_and_a_query_does_not() {
    let server = Server::start(TransportOptions::default()).await;
    let mut client = Client::ready(&server).await;
    client.subscribe("a", "mutation { write(millis: 200) }").await;
    client.subscribe("b", "{ hanging }").await;
    reaches(&server.probe.started, 2).await;
    drop(client);
    reaches(&server.probe.dropped, 1).await;
    reaches(&server.probe.finished, 1).await;
}

#[tokio::test]
async fn a_ping_is_answered_even_before_the_acknowledgement() {
    let server = Server::start(TransportOptions::default()).await;
    let mut client = Client::connect(&server).await;
    client.send(json!({ "type": "ping" })).await;
    assert_eq!(client.receive().await, json!({ "type": "pong" }));
    client.send(json!({ "type": "ping", "payload": { "n": 1 } })).await;
    assert_eq!(client.receive().await, json!({ "type": "pong", "payload": { "n": 1 } }));
    client.send(json!({ "type": "pong" })).await;
    client.init("ada").await;
}

#[tokio::test]
async fn another_protocol_or_none_is_closed_with_4406() {
    let server = Server::start(TransportOptions::default()).await;
    for headers in [vec![], vec![(SEC_WEBSOCKET_PROTOCOL, "graphql-ws")], vec![(SEC_WEBSOCKET_PROTOCOL, "soap, wamp")]] {
        let mut client = Client::try_connect(&server, &headers).await.unwrap();
        assert_eq!(client.close_code().await, 4406);
    }
    let both = [(SEC_WEBSOCKET_PROTOCOL, "graphql-ws, graphql-transport-ws")];
    Client::try_connect(&server, &both).await.unwrap().init("ada").await;
}

#[tokio::test]
async fn a_silent_client_is_closed_with_4408() {
    let server = Server::start(quick(|options| options.init_timeout = Duration::from_millis(50))).await;
    assert_eq!(Client::connect(&server).await.close_code().await, 4408);
}

#[tokio::test]
async fn a_second_init_is_closed_with_4429() {
    let server = Server::start(TransportOptions::default()).await;
    let mut client = Client::ready(&server).await;
    client.send(json!({ "type": "connection_init" })).await;
    assert_eq!(client.close_code().await, 4429);
}

#[tokio::test]
async fn subscribing_before_the_acknowledgement_is_closed_with_4401() {
    let server = Server::start(TransportOptions::default()).await;
    let mut client = Client::connect(&server).await;
    client.subscribe("a", "{ hello }").await;
    assert_eq!(client.close_code().await, 4401);
}

#[tokio::test]
async fn what_is_no_message_is_closed_with_4400() {
    let server = Server::start(quick(|options| options.max_message_bytes = 64 * 1024)).await;
    let oversized = json!({ "id": "a", "type": "subscribe", "payload": { "query": "x".repeat(64 * 1024) } }).to_string();
    let huge = "x".repeat(8 * 1024 * 1024);
    for message in [
        Message::text("nonsense"),
        Message::text("{}"),
        Message::text(r#"{"type":"subscribe","id":"a","payload":{}}"#),
        Message::text(r#"{"type":"subscribe","id":"a","payload":{"query":1}}"#),
        Message::binary(r#"{"type":"ping"}"#),
        Message::text(oversized),
        Message::text(huge),
    ] {
        let mut client = Client::ready(&server).await;
        let length = message.len();
        // The server may close while a huge message is still being written.
        let _ = client.0.send(message).await;
        assert_eq!(client.close_code().await, 4400, "{length} bytes");
    }
}

#[tokio::test]
async fn an_id_that_is_in_use_is_closed_with_4409() {
    let server = Server::start(TransportOptions::default()).await;
    let mut client = Client::ready(&server).await;
    client.subscribe("a", "subscription { hanging }").await;
    client.subscribe("a", "{ hello }").await;
    assert_eq!(client.close_code().await, 4409);
    reaches(&server.probe.dropped, 1).await;
}

#[tokio::test]
async fn without_a_valid_token_it_is_closed_with_4403() {
    let server = Server::start(TransportOptions::default()).await;
    for payload in
        [Value::Null, json!({}), json!({ "Authorization": "Bearer bad" }), json!({ "Authorization": "Bearer forbidden" })]
    {
        let mut client = Client::connect(&server).await;
        client.send(json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(client.close_code().await, 4403, "{payload}");
    }
    let headers = [(SEC_WEBSOCKET_PROTOCOL, "graphql-transport-ws"), (AUTHORIZATION, "Bearer ada")];
    let mut client = Client::try_connect(&server, &headers).await.unwrap();
    client.send(json!({ "type": "connection_init" })).await;
    assert_eq!(client.receive().await, json!({ "type": "connection_ack" }));
}

#[tokio::test]
async fn a_token_that_expires_ends_the_socket_with_4403() {
    let server = Server::start(TransportOptions::default()).await;
    let mut client = Client::connect(&server).await;
    client.init("expires:1000").await;
    client.subscribe("a", "subscription { hanging }").await;
    assert_eq!(client.receive().await["type"], "next");
    assert_eq!(client.close_code().await, 4403);
    reaches(&server.probe.dropped, 1).await;
}

#[tokio::test]
async fn when_tokens_cannot_be_checked_the_client_is_told_to_come_back() {
    let server = Server::start(quick(|options| options.init_timeout = Duration::from_secs(1))).await;
    for token in ["unavailable", "hang"] {
        let mut client = Client::connect(&server).await;
        client.send(json!({ "type": "connection_init", "payload": { "Authorization": token } })).await;
        assert_eq!(client.close_code().await, 1013, "{token}");
    }
}

#[tokio::test]
async fn draining_closes_with_1012_without_completing_anything() {
    let server = Server::start(TransportOptions::default()).await;
    let mut client = Client::ready(&server).await;
    client.subscribe("a", "subscription { hanging }").await;
    assert_eq!(client.receive().await["type"], "next");
    server.options.drain.cancel();
    match client.next().await {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1012),
        other => panic!("{other:?}"),
    }
    server.options.tasks.close();
    tokio::time::timeout(PATIENCE, server.options.tasks.wait()).await.expect("no socket is left");
    let refused = Client::try_connect(&server, &[(SEC_WEBSOCKET_PROTOCOL, "graphql-transport-ws")]).await;
    assert!(matches!(refused, Err(Error::Http(response)) if response.status() == 503));
}

#[tokio::test]
async fn a_slow_reader_slows_its_source_and_misses_nothing() {
    let server = Server::start(TransportOptions::default()).await;
    let mut client = Client::ready(&server).await;
    let total = 4000;
    client.subscribe("a", &format!("subscription {{ flood(to: {total}) }}")).await;
    // Nothing is read until the source has stopped: it is ahead by no more than the buffers on the way hold.
    let mut produced = server.probe.produced.subscribe();
    loop {
        produced.borrow_and_update();
        if tokio::time::timeout(Duration::from_millis(300), produced.changed()).await.is_err() {
            break;
        }
    }
    assert!(*produced.borrow() < total, "the source was never held back");
    for number in 1..=total {
        let message = client.receive().await;
        let text = message["payload"]["data"]["flood"].as_str().unwrap();
        assert!(text.starts_with(&format!("{number} ")));
    }
    assert_eq!(client.receive().await["type"], "complete");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_closed_with_1013() {
    let server = Server::start(quick(|options| options.send_timeout = Duration::from_secs(2))).await;
    let mut client = Client::ready(&server).await;
    client.subscribe("a", "subscription { hanging }").await;
    client.subscribe("b", "subscription { flood(to: 1000000) }").await;
    // Its operations are dropped when the server gives up; only then does the client read again.
    reaches(&server.probe.dropped, 1).await;
    let mut expected = 1;
    loop {
        match client.next().await {
            Message::Text(text) if text.contains("flood") => {
                let message: Value = serde_json::from_str(&text).unwrap();
                let flood = message["payload"]["data"]["flood"].as_str().unwrap();
                assert!(flood.starts_with(&format!("{expected} ")), "a gap before the close");
                expected += 1;
            }
            Message::Text(_) => {}
            Message::Close(frame) => {
                assert_eq!(u16::from(frame.unwrap().code), 1013);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_large_answer_that_is_taken_piece_by_piece_arrives_whole() {
    let server = Server::start(quick(|options| options.send_timeout = Duration::from_secs(1))).await;
    let mut client = Client::ready(&server).await;
    // More than the buffers of the kernel hold, and at this pace three times as long as nothing may move.
    client.subscribe("a", "{ text(megabytes: 30) }").await;
    let MaybeTlsStream::Plain(connection) = client.0.get_mut() else { panic!("no TLS here") };
    let mut head = [0; 10];
    connection.read_exact(&mut head).await.unwrap();
    assert_eq!(head[..2], [0x81, 127], "a text whose length takes eight bytes (RFC 6455, 5.2)");
    let mut left = usize::try_from(u64::from_be_bytes(head[2..].try_into().unwrap())).unwrap();
    assert!(left > 30_000_000);
    let mut piece = vec![0; 1_000_000];
    while left > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let length = left.min(piece.len());
        left -= connection.read_exact(&mut piece[..length]).await.expect("the rest of the answer");
    }
    assert_eq!(client.receive().await, json!({ "id": "a", "type": "complete" }));
}

#[tokio::test]
async fn a_peer_that_does_not_answer_pings_is_dropped() {
    let server = Server::start(quick(|options| {
        options.ping_interval = Duration::from_millis(50);
        options.pong_timeout = Duration::from_secs(2);
    }))
    .await;
    let mut lively = Client::ready(&server).await;
    let mut dead = Client::ready(&server).await;
    dead.subscribe("a", "subscription { hanging }").await;
    // The lively one keeps reading, and so its library answers; the dead one reads nothing.
    tokio::select! {
        message = lively.next() => panic!("{message:?}"),
        () = reaches(&server.probe.dropped, 1) => {}
    }
    lively.subscribe("a", "{ hello }").await;
    assert_eq!(lively.receive().await["type"], "next", "a peer that answers must stay");
}

#[tokio::test]
async fn a_flood_of_pings_that_reads_no_pongs_is_held_back_and_closed() {
    // Far more than the buffers of both ends of a connection hold.
    const ENDLESS_BYTES: usize = 256 * 1024 * 1024;
    let server = Server::start(quick(|options| options.send_timeout = Duration::from_secs(1))).await;
    let mut stream = Client::ready(&server).await.0.into_inner();
    let mut ping = vec![0x89, 0x80 | 125, 0, 0, 0, 0];
    ping.extend([b'x'; 125]);
    let pings = ping.repeat(1000);
    let mut accepted = 0;
    while accepted < ENDLESS_BYTES {
        match tokio::time::timeout(PATIENCE, stream.write_all(&pings)).await.expect("closed in time") {
            Ok(()) => accepted += pings.len(),
            Err(_) => break,
        }
    }
    assert!(accepted < ENDLESS_BYTES, "the server kept on reading");
}

#[tokio::test]
async fn one_operation_too_many_fails_alone() {
    let server = Server::start(quick(|options| options.max_subscriptions_per_socket = 2)).await;
    let mut client = Client::ready(&server).await;
    for id in ["a", "b"] {
        client.subscribe(id, "subscription { hanging }").await;
        assert_eq!(client.receive().await["id"], id);
    }
    client.subscribe("c", "subscription { hanging }").await;
    let refused = client.receive().await;
    assert_eq!((&refused["type"], &refused["id"]), (&json!("error"), &json!("c")));
    assert_eq!(refused["payload"][0]["extensions"]["code"], "LIMIT_EXCEEDED");
    client.send(json!({ "id": "a", "type": "complete" })).await;
    client.subscribe("c", "{ hello }").await;
    assert_eq!(client.receive().await["id"], "c");
}

#[tokio::test]
async fn sockets_beyond_the_bound_are_refused_until_one_ends() {
    let server = Server::start(quick(|options| options.max_sockets = 1)).await;
    let headers = [(SEC_WEBSOCKET_PROTOCOL, "graphql-transport-ws")];
    let mut first = Client::ready(&server).await;
    let refused = Client::try_connect(&server, &headers).await;
    assert!(matches!(refused, Err(Error::Http(response)) if response.status() == 503));
    first.0.close(None).await.unwrap();
    server.options.tasks.close();
    tokio::time::timeout(PATIENCE, server.options.tasks.wait()).await.expect("the first one ends");
    Client::ready(&server).await;
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_open_a_socket() {
    let server =
        Server::start(quick(|options| options.allowed_origins = Some(vec!["http://localhost:*".parse().unwrap()]))).await;
    let own = format!("http://{}", server.address);
    for (origin, allowed) in
        [("http://localhost:5173", true), (own.as_str(), true), ("https://evil.example", false), ("null", false)]
    {
        let headers = [(SEC_WEBSOCKET_PROTOCOL, "graphql-transport-ws"), (ORIGIN, origin)];
        match Client::try_connect(&server, &headers).await {
            Ok(_) => assert!(allowed, "{origin}"),
            Err(Error::Http(response)) => assert!(!allowed && response.status() == 403, "{origin}"),
            Err(error) => panic!("{origin}: {error}"),
        }
    }
    Client::ready(&server).await;
}
