//! A subgraph behind HTTP, as it misbehaves in practice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_graphql::Request;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use gateway::{Caller, HttpSubgraphOptions, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Server, World, http, reviews_router};

async fn world_answering(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> World {
    let server = Server::start(Router::new().route("/graphql", post(move || std::future::ready(answer())))).await;
    let mut world = World::with_reviews(http(&server.url(), HttpSubgraphOptions::default()), Limits::default());
    world.server = Some(server);
    world
}

#[tokio::test]
async fn statuses_and_bodies_that_are_no_answer_get_the_right_code() {
    for (status, body, code) in [
        (StatusCode::INTERNAL_SERVER_ERROR, "oops", "SERVICE_UNAVAILABLE"),
        (StatusCode::SERVICE_UNAVAILABLE, r#"{"data":{"topReview":null}}"#, "SERVICE_UNAVAILABLE"),
        (StatusCode::GATEWAY_TIMEOUT, "", "TIMEOUT"),
        (StatusCode::UNAUTHORIZED, "", "UNAUTHENTICATED"),
        (StatusCode::FORBIDDEN, "", "FORBIDDEN"),
        (StatusCode::TOO_MANY_REQUESTS, "", "RATE_LIMITED"),
        (StatusCode::OK, "<html>", "SERVICE_UNAVAILABLE"),
        (StatusCode::OK, "[]", "SERVICE_UNAVAILABLE"),
        (StatusCode::OK, "{}", "SERVICE_UNAVAILABLE"),
        (StatusCode::FOUND, "", "SERVICE_UNAVAILABLE"),
        (
            StatusCode::BAD_REQUEST,
            r#"{"errors":[{"message":"bad","locations":null,"path":null,"extensions":{"code":"BAD_USER_INPUT"}}]}"#,
            "BAD_USER_INPUT",
        ),
        (StatusCode::OK, r#"{"data":null,"errors":[{"message":"bad"}]}"#, "INTERNAL_SERVER_ERROR"),
    ] {
        let world = world_answering(move || (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()).await;
        let answer = world.ask("{ nothing { id } topReview { id } }").await;
        assert_eq!(answer.data(), r#"{"nothing":null,"topReview":null}"#, "{status} {body}");
        assert_eq!(answer.codes(), [format!("{code} topReview")], "{status} {body}");
    }
}

#[tokio::test]
async fn a_subgraph_that_does_not_answer_is_not_waited_for_longer_than_allowed() {
    let server = Server::start(Router::new().route("/graphql", post(std::future::pending::<()>))).await;
    let options = HttpSubgraphOptions { timeout: Duration::from_millis(100), ..HttpSubgraphOptions::default() };
    let world = World::with_reviews(http(&server.url(), options), Limits::default());
    let answer = world.ask("{ book(id: \"b1\") { id rating } }").await;
    assert_eq!(answer.data(), r#"{"book":{"id":"b1","rating":null}}"#);
    assert_eq!(answer.codes(), ["TIMEOUT book.rating"]);
}

#[tokio::test]
async fn an_answer_that_never_ends_is_cut_off() {
    let endless = || {
        let chunk = Ok::<_, std::io::Error>("\"".repeat(1024));
        Response::new(Body::from_stream(futures_util::stream::repeat_with(move || {
            chunk.as_ref().map(Clone::clone).map_err(|_| std::io::Error::other(""))
        })))
    };
    let server = Server::start(Router::new().route("/graphql", post(move || std::future::ready(endless())))).await;
    let options = HttpSubgraphOptions { max_response_bytes: 64 * 1024, ..HttpSubgraphOptions::default() };
    let world = World::with_reviews(http(&server.url(), options), Limits::default());
    assert_eq!(world.ask("{ topReview { id } }").await.codes(), ["INTERNAL_SERVER_ERROR topReview"]);
}

#[tokio::test]
async fn the_callers_headers_go_to_the_subgraph_and_no_others_overrule_the_protocols() {
    let seen = Arc::new(std::sync::Mutex::new(HeaderMap::new()));
    let record = Arc::clone(&seen);
    let handler = move |headers: HeaderMap| {
        *record.lock().unwrap() = headers;
        std::future::ready(r#"{"data":{"topReview":null}}"#)
    };
    let server = Server::start(Router::new().route("/graphql", post(handler))).await;
    let world = World::with_reviews(http(&server.url(), HttpSubgraphOptions::default()), Limits::default());
    let mut caller = Caller::default();
    caller.headers.insert(header::AUTHORIZATION, "Bearer t".parse().unwrap());
    caller.headers.insert("traceparent", "00-1-2-01".parse().unwrap());
    caller.headers.insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
    caller.headers.insert(header::CONTENT_LENGTH, "1".parse().unwrap());
    caller.headers.insert(header::HOST, "elsewhere".parse().unwrap());
    caller.headers.insert(header::ACCEPT_ENCODING, "br".parse().unwrap());
    let answer = world.send(Request::new("{ topReview { id } }").data(caller)).await;
    assert_eq!(answer.ok(), r#"{"topReview":null}"#);
    let seen = seen.lock().unwrap();
    assert_eq!(seen[header::AUTHORIZATION], "Bearer t");
    assert_eq!(seen["traceparent"], "00-1-2-01");
    assert_eq!(seen[header::CONTENT_TYPE], "application/json");
    assert_ne!(seen[header::HOST], "elsewhere");
    assert!(!seen.contains_key(header::ACCEPT_ENCODING));
}

/// Reads one request of a keep-alive connection; `false` at its end.
async fn read_request(stream: &mut tokio::net::TcpStream) -> bool {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return false;
        }
        bytes.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length:").nth(1).and_then(|rest| rest.lines().next()?.trim().parse::<usize>().ok());
            if body.len() >= length.unwrap_or(0) {
                return true;
            }
        }
    }
}

#[tokio::test]
async fn a_mutation_whose_connection_breaks_after_it_was_sent_is_not_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/graphql", listener.local_addr().unwrap());
    let received = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&received);
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if read_request(&mut stream).await {
                count.fetch_add(1, Ordering::SeqCst);
            }
            // Closed without an answer.
        }
    });
    let world = World::with_reviews(http(&url, HttpSubgraphOptions::default()), Limits::default());
    let answer = world.ask("mutation { addReview(book: \"b1\") { id } }").await;
    assert_eq!(answer.codes(), ["SERVICE_UNAVAILABLE addReview"]);
    assert_eq!(received.load(Ordering::SeqCst), 1);
    let answer = world.ask("{ topReview { id } }").await;
    assert_eq!(answer.codes(), ["SERVICE_UNAVAILABLE topReview"]);
    assert_eq!(received.load(Ordering::SeqCst), 2, "a query that was sent is not sent again either");
    server.abort();
}

#[tokio::test]
async fn a_kept_connection_that_the_subgraph_closed_meanwhile_costs_nobody_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/graphql", listener.local_addr().unwrap());
    let (closed, mut is_closed) = tokio::sync::mpsc::unbounded_channel();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(read_request(&mut stream).await);
            let body = r#"{"data":{"topReview":null}}"#;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            // The connection was to be kept, and is closed. The client answers with its own end once it has seen that.
            stream.shutdown().await.unwrap();
            assert!(!read_request(&mut stream).await);
            closed.send(()).unwrap();
        }
    });
    let world = World::with_reviews(http(&url, HttpSubgraphOptions::default()), Limits::default());
    for _ in 0..5 {
        assert_eq!(world.ask("{ topReview { id } }").await.ok(), r#"{"topReview":null}"#);
        tokio::time::timeout(Duration::from_secs(10), is_closed.recv()).await.unwrap().unwrap();
    }
    server.abort();
}

#[tokio::test]
async fn a_subgraph_that_comes_back_is_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/graphql", listener.local_addr().unwrap());
    let world = World::with_reviews(http(&url, HttpSubgraphOptions::default()), Limits::default());
    let hang_up = async { drop(listener.accept().await.unwrap()) };
    let (answer, ()) = tokio::join!(world.ask("{ topReview { id } }"), hang_up);
    assert_eq!(answer.codes(), ["SERVICE_UNAVAILABLE topReview"]);
    let server = tokio::spawn(async move { axum::serve(listener, reviews_router()).await.unwrap() });
    assert_eq!(world.ask("{ topReview { id } }").await.ok(), r#"{"topReview":{"id":"r1"}}"#);
    server.abort();
}
