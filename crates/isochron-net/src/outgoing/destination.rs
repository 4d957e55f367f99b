//! Where messages go: a URL that a client named, of `http`. Only loopback addresses are
//! reached unless that is allowed: whoever may name one must not be able to make this
//! server talk to hosts that it can reach and they cannot. Names are resolved and judged
//! at every connection.

use std::fmt;
use std::net::SocketAddr;

use http::Uri;

use super::{Outgoing, SendError};

/// An address that messages are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
}

impl Destination {
    /// Reads a URL: `http://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(url: &str, default_port: u16, config: &Outgoing) -> Result<Self, String> {
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
            ("" | ":", None) => default_port,
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
        if !config.allow_remote && !address.is_loopback() {
            return wrong(
                "is on another host; this server's configuration allows only loopback addresses \
                 (indications.allow_remote)",
            );
        }
        Ok(address)
    }

    /// Whether the host is a loopback address or the name for it.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<std::net::IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Whether the other is of the same server, as far as names tell.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.authority() == other.authority()
    }

    /// Its addresses that may be reached.
    pub(super) async fn resolve(&self, allow_remote: bool) -> Result<Vec<SocketAddr>, SendError> {
        let unreachable =
            |why: &dyn fmt::Display| SendError::Unreachable(format!("{}: {why}", self.host));
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

    /// Host and port, as a Host header has them.
    pub(super) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_or_refused() {
        let local = Outgoing::default();
        let remote = Outgoing {
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
            ("https://127.0.0.1", None, false),
            ("ftp://127.0.0.1", None, false),
            ("/cimom", None, false),
            ("127.0.0.1:5000", None, false),
            ("", None, false),
        ] {
            let read = |config| Destination::parse(url, 5988, config).map(|a| a.to_string());
            assert_eq!(read(&remote).ok().as_deref(), shown, "{url}");
            assert_eq!(read(&local).is_ok(), loopback, "{url}");
        }
    }
}
