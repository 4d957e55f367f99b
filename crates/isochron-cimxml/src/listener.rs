//! The client's side of CIM-XML that a server needs: sending indications to
//! listeners (DSP0200, "Export messages").
//!
//! A destination is a URL of `http` or `https`, and only loopback addresses are
//! reached unless that is allowed: whoever may subscribe must not be able to make
//! this server talk to hosts that it can reach and they cannot. Names are resolved
//! and judged at every connection. A connection is kept as long as the listener
//! keeps it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use isochron_cim::Instance;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::decode::{Limits, export_response};
use crate::encode::export_indication;

/// The ports of CIM-XML (DSP0200 §7).
const HTTP_PORT: u16 = 5988;
/// The largest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// How listeners are reached.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Whether listeners on other hosts are reached.
    pub allow_remote: bool,
    /// How long a connection may take.
    pub connect: Duration,
    /// How long an answer may take.
    pub answer: Duration,
    /// The largest message that is sent, in bytes.
    pub message_max: usize,
}

impl Default for ListenerConfig {
    /// Loopback only, 5 s, 15 s, 4 MiB.
    fn default() -> Self {
        Self {
            allow_remote: false,
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(15),
            message_max: 4 << 20,
        }
    }
}

/// Why an indication was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// Nobody answered, or not now: it may be sent again.
    #[error("{0}")]
    Unreachable(String),
    /// This indication is not wanted, and will not be.
    #[error("{0}")]
    Refused(String),
}

/// A listener's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerAddress {
    host: String,
    port: u16,
    path: String,
}

impl ListenerAddress {
    /// Reads a destination's URL: `http://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(url: &str, config: &ListenerConfig) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("the destination {url:?} {why}"));
        let Ok(uri) = url.trim().parse::<Uri>() else {
            return wrong("is no URL");
        };
        let Some((scheme, authority)) = uri.scheme_str().zip(uri.authority()) else {
            return wrong("is no URL with a scheme and a host, such as http://127.0.0.1:5000");
        };
        if authority.as_str().contains('@') {
            return wrong("holds a user's name, which is not sent");
        }
        let rest = authority.as_str().strip_prefix(authority.host());
        let port = match (rest.unwrap_or_default(), uri.port_u16()) {
            ("" | ":", None) => HTTP_PORT,
            (_, Some(port)) if port > 0 => port,
            _ => return wrong("has no port that can be"),
        };
        match scheme {
            "http" => {}
            "https" => return wrong("is https, which is not served yet"),
            _ => return wrong("is not http"),
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return wrong("has no host");
        }
        let address = Self {
            host,
            port,
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
        };
        if !config.allow_remote && !address.names_loopback() {
            return wrong(
                "is on another host; this server's configuration allows only loopback addresses \
                 (indications.allow_remote)",
            );
        }
        Ok(address)
    }

    /// Whether the host is a loopback address or the name for it.
    fn names_loopback(&self) -> bool {
        match self.host.parse::<std::net::IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }

    async fn resolve(&self, allow_remote: bool) -> Result<Vec<SocketAddr>, ExportError> {
        let unreachable =
            |why: &dyn fmt::Display| ExportError::Unreachable(format!("{}: {why}", self.host));
        let found = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|error| unreachable(&error))?;
        let allowed: Vec<_> = found
            .filter(|found| allow_remote || found.ip().to_canonical().is_loopback())
            .collect();
        if allowed.is_empty() {
            return Err(unreachable(&"it has no address that may be reached"));
        }
        Ok(allowed)
    }
}

impl fmt::Display for ListenerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, path } = self;
        match host.contains(':') {
            true => write!(f, "http://[{host}]:{port}{path}"),
            false => write!(f, "http://{host}:{port}{path}"),
        }
    }
}

type Connection = SendRequest<Full<Bytes>>;

/// A listener, to which indications are sent one after the other.
#[derive(Debug)]
pub struct Listener {
    address: ListenerAddress,
    config: ListenerConfig,
    connection: Option<Connection>,
    sent: u64,
}

impl Listener {
    /// A listener at an address; nothing is connected yet.
    pub fn new(address: ListenerAddress, config: ListenerConfig) -> Self {
        Self {
            address,
            config,
            connection: None,
            sent: 0,
        }
    }

    /// Sends an indication and waits until the listener has taken it.
    ///
    /// # Errors
    /// It may not have arrived, or the listener does not want it. After
    /// [`Unreachable`](ExportError::Unreachable) it may have arrived nevertheless.
    pub async fn export(&mut self, indication: &Instance) -> Result<(), ExportError> {
        self.sent += 1;
        let id = self.sent.to_string();
        let message = Bytes::from(export_indication(&id, indication));
        if message.len() > self.config.message_max {
            return Err(ExportError::Refused(format!(
                "it has {} bytes, more than the {} that are sent",
                message.len(),
                self.config.message_max
            )));
        }
        // A connection that was kept may have been closed by the other side
        // meanwhile: that says nothing about the listener.
        if let Some(kept) = self.connection.take()
            && !kept.is_closed()
            && let Ok(answer) = self.exchange(kept, message.clone()).await
        {
            return judge(answer, &id);
        }
        let fresh = self.connect().await?;
        let answer = self.exchange(fresh, message).await?;
        judge(answer, &id)
    }

    async fn connect(&self) -> Result<Connection, ExportError> {
        let addresses = self.address.resolve(self.config.allow_remote).await?;
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

    /// Sends a message over a connection, which is kept if the listener keeps it.
    async fn exchange(
        &mut self,
        mut connection: Connection,
        message: Bytes,
    ) -> Result<(StatusCode, Bytes), ExportError> {
        let address = self.address.clone();
        let unreachable =
            |why: &dyn fmt::Display| ExportError::Unreachable(format!("{address}: {why}"));
        let host = match address.host.contains(':') {
            true => format!("[{}]:{}", address.host, address.port),
            false => format!("{}:{}", address.host, address.port),
        };
        let request = Request::post(address.path.as_str())
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/xml; charset=\"utf-8\"")
            .header("CIMExport", "MethodRequest")
            .header("CIMExportMethod", "ExportIndication")
            .body(Full::new(message))
            .map_err(|error| ExportError::Refused(error.to_string()))?;
        let exchange = async {
            connection
                .ready()
                .await
                .map_err(|error| unreachable(&error))?;
            let response = connection
                .send_request(request)
                .await
                .map_err(|error| unreachable(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX)
                .collect()
                .await
                .map_err(|error| unreachable(&error))?;
            Ok((status, body.to_bytes()))
        };
        let answer = match timeout(self.config.answer, exchange).await {
            Ok(answer) => answer?,
            Err(_) => return Err(unreachable(&"no answer in time")),
        };
        self.connection = Some(connection);
        Ok(answer)
    }

    fn unreachable(&self, why: &dyn fmt::Display) -> ExportError {
        ExportError::Unreachable(format!("{}: {why}", self.address))
    }
}

/// Whether the answer says that the indication was taken.
fn judge((status, body): (StatusCode, Bytes), id: &str) -> Result<(), ExportError> {
    if status != StatusCode::OK {
        let what = format!("the listener answered with HTTP {status}");
        return Err(match status.is_client_error() {
            true => ExportError::Refused(what),
            false => ExportError::Unreachable(what),
        });
    }
    let limits = Limits {
        bytes: ANSWER_MAX,
        ..Limits::default()
    };
    match export_response(&body, id, limits) {
        Ok(None) => Ok(()),
        Ok(Some(error)) => {
            let what = format!("the listener says {}: {}", error.code, error.description);
            // 1 (failed) is what a listener says that is full; 27 and 28: limits, shutting down.
            Err(match error.code.as_str() {
                "1" | "27" | "28" => ExportError::Unreachable(what),
                _ => ExportError::Refused(what),
            })
        }
        Err(error) => Err(ExportError::Unreachable(format!(
            "the listener's answer is none: {error}"
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_or_refused() {
        let local = ListenerConfig::default();
        let remote = ListenerConfig {
            allow_remote: true,
            ..local.clone()
        };
        for (url, shown, loopback) in [
            (
                "http://127.0.0.1:5000",
                Some("http://127.0.0.1:5000/"),
                true,
            ),
            (
                "HTTP://LocalHost:81/a/b?c",
                Some("http://LocalHost:81/a/b?c"),
                true,
            ),
            ("http://[::1]:1/x", Some("http://[::1]:1/x"), true),
            (
                "http://[::ffff:127.9.9.9]:1",
                Some("http://[::ffff:127.9.9.9]:1/"),
                true,
            ),
            ("http://127.1.2.3", Some("http://127.1.2.3:5988/"), true),
            ("http://10.0.0.1:5000", Some("http://10.0.0.1:5000/"), false),
            (
                "http://[::ffff:10.0.0.1]:1",
                Some("http://[::ffff:10.0.0.1]:1/"),
                false,
            ),
            (
                "http://listener.example",
                Some("http://listener.example:5988/"),
                false,
            ),
            (
                "http://localhost.example:1",
                Some("http://localhost.example:1/"),
                false,
            ),
            ("http://0.0.0.0:1", Some("http://0.0.0.0:1/"), false),
            ("http://u:p@127.0.0.1:1", None, false),
            ("http://127.0.0.1:0", None, false),
            ("http://127.0.0.1:99999", None, false),
            ("ftp://127.0.0.1", None, false),
            ("/cimom", None, false),
            ("127.0.0.1:5000", None, false),
            ("", None, false),
        ] {
            let read = |config| ListenerAddress::parse(url, config).map(|a| a.to_string());
            assert_eq!(read(&remote).ok().as_deref(), shown, "{url}");
            assert_eq!(read(&local).is_ok(), loopback, "{url}");
        }
    }
}
