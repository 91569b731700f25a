//! What other people's software says about the transport: the official HTTP audits and the usual WebSocket client.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use graphql_transport::TransportOptions;
use serde_json::json;
use support::Server;
use support::node::{Script, script, succeeds};

#[tokio::test]
async fn all_official_http_audits_pass() {
    let Some(mut command) = script("audits.mjs") else { return };
    let server = Server::start(TransportOptions::default()).await;
    command.arg(server.url());
    let text = succeeds(command).await;
    assert!(text.contains("61 of 61 audits passed"), "{text}");
}

fn subscribe(server: &Server, tokens: &str, query: &str) -> Option<Script> {
    let mut command = script("subscribe.mjs")?;
    command.arg(format!("ws://{}/graphql", server.address)).arg(tokens).arg(query);
    Some(Script::start(command))
}

#[tokio::test]
async fn a_real_client_receives_and_completes() {
    let server = Server::start(TransportOptions::default()).await;
    let Some(mut client) = subscribe(&server, "ada", "subscription { count(to: 2) }") else { return };
    assert_eq!(client.line().await, json!({ "connected": true }));
    assert_eq!(client.line().await, json!({ "next": { "data": { "count": 1 } } }));
    assert_eq!(client.line().await, json!({ "next": { "data": { "count": 2 } } }));
    assert_eq!(client.line().await, json!({ "complete": true }));
}

#[tokio::test]
async fn a_real_client_sees_a_refusal_as_an_error_of_its_operation() {
    let server = Server::start(TransportOptions::default()).await;
    let Some(mut client) = subscribe(&server, "ada", "subscription { nothing }") else { return };
    assert_eq!(client.line().await, json!({ "connected": true }));
    let line = client.line().await;
    assert_eq!(line["error"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED", "{line}");
}

#[tokio::test]
async fn a_real_client_comes_back_after_a_restart() {
    let first = Server::start(TransportOptions::default()).await;
    let address = first.address;
    let Some(mut client) = subscribe(&first, "ada", "subscription { hanging }") else { return };
    assert_eq!(client.line().await, json!({ "connected": true }));
    assert_eq!(client.line().await, json!({ "next": { "data": { "hanging": 1 } } }));
    first.options.drain.cancel();
    assert_eq!(client.line().await["closed"], 1012);
    first.stop().await;
    let second = Server::start_at(address, TransportOptions::default()).await;
    loop {
        let line = client.line().await;
        if line["connected"] == true {
            break;
        }
        assert!(line.get("closed").is_some(), "still trying: {line}");
    }
    assert_eq!(client.line().await, json!({ "next": { "data": { "hanging": 1 } } }));
    drop(second);
}

#[tokio::test]
async fn a_real_client_comes_back_with_a_fresh_token_after_4403() {
    let server = Server::start(TransportOptions::default()).await;
    let Some(mut client) = subscribe(&server, "bad,expires:1500,ada", "subscription { hanging }") else { return };
    assert_eq!(client.line().await["closed"], 4403);
    assert_eq!(client.line().await, json!({ "connected": true }));
    assert_eq!(client.line().await, json!({ "next": { "data": { "hanging": 1 } } }));
    assert_eq!(client.line().await["closed"], 4403, "the token has expired");
    assert_eq!(client.line().await, json!({ "connected": true }));
    assert_eq!(client.line().await, json!({ "next": { "data": { "hanging": 1 } } }));
}
