//! What an idle socket costs. Alone in its binary, because it reads the memory of the whole process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod support;

use graphql_transport::TransportOptions;
use support::{PATIENCE, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Few enough for the usual limit of open files: both ends are in this process.
const SOCKETS: usize = 400;

/// A masked text frame with a mask of zeros.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Connected, acknowledged and subscribed, without a client library whose own memory would count.
async fn connect(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let handshake = "GET /graphql HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: graphql-transport-ws\r\nauthorization: Bearer ada\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    stream.write_all(&frame(r#"{"type":"connection_init"}"#)).await.unwrap();
    stream.write_all(&frame(r#"{"id":"a","type":"subscribe","payload":{"query":"subscription{hanging}"}}"#)).await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(br#"{"data":{"hanging":1}}}"#) {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut received)).await.expect("in time").unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&received));
    }
    stream
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn an_idle_socket_costs_little_memory() {
    let server = Server::start(TransportOptions::default()).await;
    let mut open = Vec::with_capacity(SOCKETS);
    // What the first ones touch is not the price of one.
    for _ in 0..50 {
        open.push(connect(&server).await);
    }
    let before = resident_bytes();
    for _ in open.len()..SOCKETS {
        open.push(connect(&server).await);
    }
    let each = resident_bytes().saturating_sub(before) / (SOCKETS - 50);
    eprintln!("{each} bytes per idle socket with one subscription");
    assert!(each < 48 * 1024, "{each} bytes per idle socket");
}
