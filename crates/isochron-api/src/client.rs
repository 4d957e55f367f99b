//! The client of the API, for the command line.
//!
//! One connection per request; every answer is bounded in size and time.

mod calls;
mod server;

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use isochron_net::{TlsClient, TlsStream, basic_authorization};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

pub use server::{InvalidServer, Server};

use crate::dto;

/// How long the daemon may take to accept a connection.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// How long it may take to answer, beyond what it was asked to wait.
const ANSWER_TIME: Duration = Duration::from_secs(120);

/// The largest answer, in bytes.
const ANSWER_LIMIT: usize = 256 << 20;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("no daemon answers on {server}: {reason}")]
    Unreachable {
        /// Where.
        server: Server,
        /// What the system says.
        reason: String,
    },
    /// It did not answer in time.
    #[error("the daemon on {server} did not answer within {} s", limit.as_secs())]
    Timeout {
        /// Where.
        server: Server,
        /// For how long it was waited.
        limit: Duration,
    },
    /// The connection broke, or the answer cannot be understood.
    #[error("the daemon on {server} answered badly: {reason}")]
    BadAnswer {
        /// Where.
        server: Server,
        /// In which way.
        reason: String,
    },
    /// This process may not use its socket.
    #[error(
        "you may not use {server}: it is open to root, to the daemon's own user, and to the \
         group of listen.socket_group"
    )]
    Denied {
        /// Where.
        server: Server,
    },
    /// It refused.
    #[error("{}", .0.message)]
    Refused(dto::Error),
}

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    server: Server,
    tls: Option<TlsClient>,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// A client; nothing is connected yet.
    pub fn new(server: Server) -> Self {
        Self {
            server,
            tls: None,
            authorization: None,
        }
    }

    /// The same client; by this it knows a server on HTTPS, which it does not without.
    #[must_use]
    pub fn with_tls(self, tls: TlsClient) -> Self {
        Self {
            tls: Some(tls),
            ..self
        }
    }

    /// The same client; it says that it is this user.
    #[must_use]
    pub fn with_user(self, name: &str, password: &str) -> Self {
        let header = HeaderValue::try_from(basic_authorization(name, password));
        let authorization = header.ok().map(|mut header| {
            header.set_sensitive(true);
            header
        });
        Self {
            authorization,
            ..self
        }
    }

    /// Where its daemon is.
    pub fn server(&self) -> &Server {
        &self.server
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T, ClientError> {
        self.call(Method::GET, path, Bytes::new(), wait).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.call(Method::POST, path, self.json(body)?, Duration::ZERO)
            .await
    }

    async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.call(Method::PATCH, path, self.json(body)?, Duration::ZERO)
            .await
    }

    async fn act<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        wait: Duration,
    ) -> Result<T, ClientError> {
        self.call(method, path, Bytes::new(), wait).await
    }

    fn json(&self, body: &impl Serialize) -> Result<Bytes, ClientError> {
        serde_json::to_vec(body)
            .map(Bytes::from)
            .map_err(|error| self.bad(format!("the request is no JSON: {error}")))
    }

    /// One request and its answer. `wait` is for how long the daemon was asked
    /// to wait before it answers.
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<T, ClientError> {
        let limit = ANSWER_TIME + wait;
        let exchange = async {
            let response = match &self.server {
                Server::Unix(socket) => {
                    let stream = self.connect(UnixStream::connect(socket)).await?;
                    self.send(stream, method, path, body).await?
                }
                Server::Http(authority) => {
                    let stream = self.connect(TcpStream::connect(authority.as_str())).await?;
                    self.send(stream, method, path, body).await?
                }
                Server::Https(authority) => {
                    let stream = self.connect(self.handshake(authority)).await?;
                    self.send(stream, method, path, body).await?
                }
            };
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT)
                .collect()
                .await
                .map_err(|error| self.bad(error.to_string()))?
                .to_bytes();
            self.understand(status, &body)
        };
        tokio::time::timeout(limit, exchange)
            .await
            .unwrap_or_else(|_| {
                Err(ClientError::Timeout {
                    server: self.server.clone(),
                    limit,
                })
            })
    }

    async fn handshake(&self, authority: &Authority) -> std::io::Result<TlsStream> {
        let stream = TcpStream::connect(authority.as_str()).await?;
        let tls = self.tls.as_ref();
        let tls = tls.ok_or_else(|| std::io::Error::other("there is nothing to know it by"))?;
        tls.connect(authority.host(), stream).await
    }

    async fn connect<S>(
        &self,
        connecting: impl Future<Output = std::io::Result<S>>,
    ) -> Result<S, ClientError> {
        let reason = match tokio::time::timeout(CONNECT_TIME, connecting).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(ClientError::Denied {
                    server: self.server.clone(),
                });
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no connection within {} s", CONNECT_TIME.as_secs()),
        };
        Err(ClientError::Unreachable {
            server: self.server.clone(),
            reason,
        })
    }

    async fn send<S>(
        &self,
        stream: S,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.bad(error.to_string()))?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", self.server.host());
        if !body.is_empty() {
            request = request.header("Content-Type", "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| self.bad(error.to_string()))?;
        sender
            .send_request(request)
            .await
            .map_err(|error| self.bad(error.to_string()))
    }

    fn understand<T: DeserializeOwned>(
        &self,
        status: StatusCode,
        body: &[u8],
    ) -> Result<T, ClientError> {
        if !status.is_success() {
            return Err(match serde_json::from_slice(body) {
                Ok(refusal) => ClientError::Refused(refusal),
                Err(_) => self.bad(format!("status {status}")),
            });
        }
        // What answers 204 is read as `()`.
        let body = if body.is_empty() { b"null" } else { body };
        serde_json::from_slice(body).map_err(|error| self.bad(error.to_string()))
    }

    fn bad(&self, reason: String) -> ClientError {
        ClientError::BadAnswer {
            server: self.server.clone(),
            reason,
        }
    }
}
