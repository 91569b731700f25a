//! Keeps web pages away from a server on the reader's own machine.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

/// Refuses a request whose `Host` is not a loopback name: it was meant for another machine and led here by its DNS (DNS rebinding).
pub(super) async fn require_loopback_host(request: Request<Body>, next: Next) -> Response {
    if is_loopback(request.headers()) {
        return next.run(request).await;
    }
    let text = "this server answers to localhost only; start it with --host to serve others\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

fn is_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).and_then(|host| host.parse::<Authority>().ok());
    host.is_some_and(|host| matches!(host.host(), "localhost" | "127.0.0.1" | "[::1]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_pass() {
        let with = |host: &str| HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
        for host in ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000"] {
            assert!(is_loopback(&with(host)), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8000", "127.0.0.1.nip.io", "", "192.168.1.2"] {
            assert!(!is_loopback(&with(host)), "{host}");
        }
        assert!(!is_loopback(&HeaderMap::new()));
    }
}
