//! One kept HTTP connection: as light as a client can be, because the generator shares the machine with what it measures.

use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::bench::BenchError;

/// An open connection to one server.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn open(address: SocketAddr) -> Result<Self, BenchError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends with the connection; what ends it is seen by the request that is under way.
        tokio::spawn(connection);
        let host = HeaderValue::try_from(address.to_string()).map_err(BenchError::unexpected)?;
        Ok(Self { sender, host })
    }

    /// Posts a GraphQL request and reads the whole answer.
    ///
    /// # Errors
    /// When there is no answer, or it is not a success.
    pub async fn post(&mut self, authorization: &HeaderValue, body: Vec<u8>) -> Result<Bytes, BenchError> {
        let request = Request::post("/graphql")
            .header(HOST, &self.host)
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(BenchError::unexpected)?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status == StatusCode::OK {
            return Ok(body);
        }
        Err(BenchError::Answer(format!("HTTP {status}: {}", String::from_utf8_lossy(&body))))
    }
}
