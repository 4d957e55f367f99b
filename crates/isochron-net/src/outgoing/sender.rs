//! Sends messages to a destination, one after the other. A connection is kept as long
//! as the destination keeps it.

use std::fmt;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Destination, Outgoing, SendError};

/// The largest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 << 10;

type Connection = SendRequest<Full<Bytes>>;

/// Sends messages to a destination, one after the other.
#[derive(Debug)]
pub struct Sender {
    destination: Destination,
    config: Outgoing,
    connection: Option<Connection>,
}

impl Sender {
    /// One for a destination; nothing is connected yet.
    pub fn new(destination: Destination, config: Outgoing) -> Self {
        Self {
            destination,
            config,
            connection: None,
        }
    }

    /// Where it sends to.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Posts a message; the answer's status and body.
    ///
    /// # Errors
    /// There is no answer, or the message is larger than is sent. Without an answer it
    /// may have arrived nevertheless.
    pub async fn post(
        &mut self,
        headers: HeaderMap,
        message: Bytes,
    ) -> Result<(StatusCode, Bytes), SendError> {
        if message.len() > self.config.message_max {
            return Err(SendError::Refused(format!(
                "it has {} bytes, more than the {} that are sent",
                message.len(),
                self.config.message_max
            )));
        }
        // A connection that was kept may have been closed by the other side
        // meanwhile: that says nothing about the destination.
        if let Some(kept) = self.connection.take()
            && !kept.is_closed()
            && let Ok(answer) = self.exchange(kept, headers.clone(), message.clone()).await
        {
            return Ok(answer);
        }
        let fresh = self.connect().await?;
        self.exchange(fresh, headers, message).await
    }

    async fn connect(&self) -> Result<Connection, SendError> {
        let addresses = self.destination.resolve(self.config.allow_remote).await?;
        let connect = async {
            let stream = TcpStream::connect(addresses.as_slice()).await?;
            stream.set_nodelay(true)?;
            std::io::Result::Ok(stream)
        };
        let stream = match timeout(self.config.connect, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(&error)),
            Err(_) => return Err(self.unreachable(&"no connection in time")),
        };
        let (connection, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(&error))?;
        // Ends when either side closes; its errors reach whoever waits for an answer.
        tokio::spawn(async move {
            let _ = driver.await;
        });
        Ok(connection)
    }

    /// Sends a message over a connection, which is kept if the destination keeps it.
    async fn exchange(
        &mut self,
        mut connection: Connection,
        headers: HeaderMap,
        message: Bytes,
    ) -> Result<(StatusCode, Bytes), SendError> {
        let mut request = Request::post(self.destination.path.as_str())
            .header(HOST, self.destination.authority())
            .body(Full::new(message))
            .map_err(|error| SendError::Refused(error.to_string()))?;
        request.headers_mut().extend(headers);
        let exchange = async {
            connection.ready().await?;
            let response = connection.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX);
            let body = body.collect().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((status, body.to_bytes()))
        };
        let answer = match timeout(self.config.answer, exchange).await {
            Ok(answer) => answer.map_err(|error| self.unreachable(&error))?,
            Err(_) => return Err(self.unreachable(&"no answer in time")),
        };
        self.connection = Some(connection);
        Ok(answer)
    }

    fn unreachable(&self, why: &dyn fmt::Display) -> SendError {
        SendError::Unreachable(format!("{}: {why}", self.destination))
    }
}
