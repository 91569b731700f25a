//! GraphQL over HTTP, as a client sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use axum::body::Body;
use graphql_transport::TransportOptions;
use http::header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use support::{PATIENCE, Probe, Server, app, reaches};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.text).expect(&self.text);
        body["errors"][0]["extensions"]["code"].as_str().expect(&self.text).to_owned()
    }
}

async fn send(app: &axum::Router, request: http::request::Builder, body: impl Into<Body>) -> Answer {
    let response = app.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

fn post() -> http::request::Builder {
    Request::post("/graphql").header(CONTENT_TYPE, "application/json")
}

fn query(text: &str) -> String {
    serde_json::json!({ "query": text }).to_string()
}

const STRICT: &str = "application/graphql-response+json";

#[tokio::test]
async fn fields_keep_the_order_of_the_query() {
    let (app, _) = app(TransportOptions::default());
    let answer = send(&app, post(), query("{ zebra apple }")).await;
    assert_eq!(answer.text, r#"{"data":{"zebra":1,"apple":2}}"#);
    assert_eq!(answer.headers[CONTENT_TYPE], "application/json; charset=utf-8");
}

#[tokio::test]
async fn the_status_follows_the_accepted_format() {
    let (app, _) = app(TransportOptions::default());
    for (document, code, strict_status) in [
        ("{", "GRAPHQL_PARSE_FAILED", StatusCode::BAD_REQUEST),
        ("{ unknown }", "GRAPHQL_VALIDATION_FAILED", StatusCode::BAD_REQUEST),
        ("{ panicking }", "INTERNAL_SERVER_ERROR", StatusCode::INTERNAL_SERVER_ERROR),
        ("subscription { count(to: 1) }", "BAD_USER_INPUT", StatusCode::BAD_REQUEST),
        // Execution began: 200, whatever became of it.
        ("{ hello failing }", "INTERNAL_SERVER_ERROR", StatusCode::OK),
        ("{ failingRequired }", "INTERNAL_SERVER_ERROR", StatusCode::OK),
    ] {
        let strict = send(&app, post().header(ACCEPT, STRICT), query(document)).await;
        assert_eq!((strict.status, strict.code().as_str()), (strict_status, code), "{document}: {}", strict.text);
        let has_data = serde_json::from_str::<serde_json::Value>(&strict.text).unwrap().get("data").is_some();
        assert_eq!(has_data, strict_status == StatusCode::OK, "{document}: {}", strict.text);

        let lenient = send(&app, post().header(ACCEPT, "application/json, multipart/mixed"), query(document)).await;
        assert_eq!((lenient.status, lenient.code().as_str()), (StatusCode::OK, code), "{document}");
    }
}

#[tokio::test]
async fn a_partial_result_keeps_its_data() {
    let (app, _) = app(TransportOptions::default());
    let answer = send(&app, post().header(ACCEPT, STRICT), query("{ hello failing }")).await;
    assert!(answer.text.contains(r#""data":{"hello":"world","failing":null}"#), "{}", answer.text);
}

#[tokio::test]
async fn get_executes_queries_and_never_a_mutation() {
    let (app, probe) = app(TransportOptions::default());
    let get = |query: &str| Request::get(format!("/graphql?{query}"));
    let answer =
        send(&app, get("query=query($t:String!)%7Becho(text:$t)%7D&variables=%7B%22t%22:%22a+b%22%7D&extensions="), "").await;
    assert_eq!(answer.text, r#"{"data":{"echo":"a b"}}"#);

    for target in [
        "query=mutation%7Bwrite(millis:0)%7D",
        "query=query+A%7Bhello%7D+mutation+B%7Bwrite(millis:0)%7D&operationName=B",
        "query=query+A%7Bhello%7D+mutation+B%7Bwrite(millis:0)%7D",
        "query=%23comment%0Amutation%7Bwrite(millis:0)%7D",
    ] {
        let answer = send(&app, get(target), "").await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{target}: {}", answer.text);
        assert_eq!(answer.headers[ALLOW], "POST");
    }
    assert_eq!(*probe.started.borrow(), 0);

    for target in
        ["", "query=%7Bhello%7D&variables=%5B%5D", "query=%7Bhello%7D&variables=1", "query=%7Bhello%7D&query=%7Bapple%7D"]
    {
        let answer = send(&app, get(target), "").await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_REQUEST, "BAD_USER_INPUT"), "{target}");
    }
}

#[tokio::test]
async fn a_body_that_a_form_on_another_site_could_send_is_not_read() {
    let (app, probe) = app(TransportOptions::default());
    let body = query("mutation { write(millis: 0) }");
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json; charset=latin1"]
    {
        let request = Request::post("/graphql").header(CONTENT_TYPE, content_type);
        let answer = send(&app, request, body.clone()).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "BAD_USER_INPUT"));
    }
    assert_eq!(send(&app, Request::post("/graphql"), body.clone()).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let compressed = post().header("content-encoding", "gzip");
    assert_eq!(send(&app, compressed, body).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(*probe.started.borrow(), 0);
}

#[tokio::test]
async fn parameters_of_the_wrong_type_are_refused_and_not_ignored() {
    let (app, _) = app(TransportOptions::default());
    for body in [
        "",
        "nonsense",
        "null",
        "1",
        "\"x\"",
        "{}",
        r#"{"query":null}"#,
        r#"{"query":1}"#,
        r#"{"query":{}}"#,
        r#"{"query":["{hello}"]}"#,
        r#"{"query":"{hello}","variables":"x"}"#,
        r#"{"query":"{hello}","variables":[]}"#,
        r#"{"query":"{hello}","operationName":1}"#,
        r#"{"query":"{hello}","extensions":[]}"#,
        r#"[{"query":"{hello}"}]"#,
        " []",
    ] {
        let answer = send(&app, post(), body).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::BAD_REQUEST, "BAD_USER_INPUT"),
            "{body}: {}",
            answer.text
        );
    }
    let batch = send(&app, post(), r#"[{"query":"{hello}"}]"#).await;
    assert!(batch.text.contains("batch"), "{}", batch.text);
    let nulls = r#"{"query":"{hello}","variables":null,"operationName":null,"extensions":null,"unknown":1}"#;
    assert_eq!(send(&app, post(), nulls).await.text, r#"{"data":{"hello":"world"}}"#);
}

#[tokio::test]
async fn a_client_with_persisted_queries_is_told_to_send_the_document() {
    let (app, _) = app(TransportOptions::default());
    let body = r#"{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"abc"}}}"#;
    let answer = send(&app, post(), body).await;
    assert_eq!(answer.code(), "PERSISTED_QUERY_NOT_FOUND");
    assert!(answer.text.contains(r#""message":"PersistedQueryNotFound""#), "{}", answer.text);
}

#[tokio::test]
async fn other_methods_and_formats_are_refused_with_a_graphql_body() {
    let (app, _) = app(TransportOptions::default());
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let answer = send(&app, Request::builder().method(&method).uri("/graphql"), "").await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!((answer.headers[ALLOW].to_str().unwrap(), answer.code().as_str()), ("GET, POST", "BAD_USER_INPUT"));
    }
    let answer = send(&app, post().header(ACCEPT, "text/html"), query("{ hello }")).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_ACCEPTABLE, "BAD_USER_INPUT"));
}

#[tokio::test]
async fn a_bad_token_is_told_from_no_token() {
    let (app, _) = app(TransportOptions::default());
    let body = query("{ user }");
    assert_eq!(send(&app, post(), body.clone()).await.text, r#"{"data":{"user":null}}"#);
    assert_eq!(send(&app, post().header(AUTHORIZATION, "Bearer ada"), body.clone()).await.text, r#"{"data":{"user":"ada"}}"#);

    let bad = send(&app, post().header(AUTHORIZATION, "Bearer bad"), body.clone()).await;
    assert_eq!((bad.status, bad.code().as_str()), (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"));
    assert_eq!(bad.headers[WWW_AUTHENTICATE], "Bearer error=\"invalid_token\"");
    let forbidden = send(&app, post().header(AUTHORIZATION, "Bearer forbidden"), body.clone()).await;
    assert_eq!((forbidden.status, forbidden.code().as_str()), (StatusCode::FORBIDDEN, "FORBIDDEN"));
    let unavailable = send(&app, post().header(AUTHORIZATION, "Bearer unavailable"), body).await;
    assert_eq!((unavailable.status, unavailable.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE"));
}

#[tokio::test]
async fn a_large_body_is_refused_whether_announced_or_not() {
    let options = TransportOptions { max_body_bytes: 1000, ..TransportOptions::default() };
    let (app, _) = app(options);
    let exact = {
        let empty = serde_json::json!({ "query": "{ hello }", "pad": "" }).to_string().len();
        serde_json::json!({ "query": "{ hello }", "pad": "x".repeat(1000 - empty) }).to_string()
    };
    assert_eq!(exact.len(), 1000);
    assert_eq!(send(&app, post(), exact.clone()).await.status, StatusCode::OK);
    for body in [format!("{exact} "), "x".repeat(3000), "x".repeat(100_000)] {
        let streamed = futures_util::stream::iter(
            body.clone().into_bytes().chunks(100).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>(),
        );
        for answer in [send(&app, post(), body).await, send(&app, post(), Body::from_stream(streamed)).await] {
            assert_eq!((answer.status, answer.code().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "LIMIT_EXCEEDED"));
        }
    }
}

#[tokio::test]
async fn a_document_that_would_exhaust_the_stack_is_refused() {
    let (app, _) = app(TransportOptions::default());
    let answer = send(&app, post().header(ACCEPT, STRICT), query(&"{a".repeat(100_000))).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_REQUEST, "LIMIT_EXCEEDED"));
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_stopped_and_a_mutation_is_not() {
    let options = TransportOptions { request_timeout: Duration::from_millis(100), ..TransportOptions::default() };
    let (app, probe) = app(options);
    let answer = send(&app, post().header(ACCEPT, STRICT), query("{ hanging }")).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::GATEWAY_TIMEOUT, "TIMEOUT"));
    reaches(&probe.dropped, 1).await;

    let answer = send(&app, post(), query("mutation { write(millis: 1500) }")).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::OK, "TIMEOUT"));
    assert_eq!(*probe.finished.borrow(), 0);
    reaches(&probe.finished, 1).await;
}

async fn abandon(server: &Server, probe: &Probe, document: &str) {
    let body = query(document);
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /graphql HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    reaches(&probe.started, 1).await;
    probe.started.send_replace(0);
}

#[tokio::test]
async fn a_mutation_outlives_its_client_and_a_query_does_not() {
    let server = Server::start(TransportOptions::default()).await;
    abandon(&server, &server.probe, "mutation { write(millis: 200) }").await;
    reaches(&server.probe.finished, 1).await;
    abandon(&server, &server.probe, "{ hanging }").await;
    reaches(&server.probe.dropped, 1).await;
}

#[tokio::test]
async fn a_client_that_is_still_sending_sees_the_413() {
    let server = Server::start(TransportOptions::default()).await;
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    let size = 2 * 1024 * 1024;
    let head =
        format!("POST /graphql HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&vec![b'x'; size]).await.unwrap();
    let mut start = [0_u8; 12];
    tokio::time::timeout(PATIENCE, connection.read_exact(&mut start)).await.unwrap().unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
}
