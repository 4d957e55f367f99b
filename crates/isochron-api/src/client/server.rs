//! Where a daemon is: `unix:PATH`, `https://HOST:PORT` or `http://HOST:PORT`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::uri::Authority;

/// Where a daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// On a unix socket.
    Unix(PathBuf),
    /// On HTTP.
    Http(Authority),
    /// On HTTPS.
    Https(Authority),
}

/// A text that names no daemon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no server: unix:PATH, https://HOST:PORT or http://HOST:PORT")]
pub struct InvalidServer(String);

impl Server {
    /// The value of the `Host` header.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Unix(_) => "localhost",
            Self::Http(authority) | Self::Https(authority) => authority.as_str(),
        }
    }
}

impl FromStr for Server {
    type Err = InvalidServer;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidServer(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(invalid()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let (server, rest): (fn(Authority) -> Self, _) = match text.split_once("://") {
            Some(("http", rest)) => (Self::Http, rest),
            Some(("https", rest)) => (Self::Https, rest),
            _ => return Err(invalid()),
        };
        let authority: Authority = rest
            .strip_suffix('/')
            .unwrap_or(rest)
            .parse()
            .map_err(|_| invalid())?;
        match authority.port_u16().is_some() && !authority.as_str().contains('@') {
            true => Ok(server(authority)),
            false => Err(invalid()),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Http(authority) => write!(f, "http://{authority}"),
            Self::Https(authority) => write!(f, "https://{authority}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_read_and_written() {
        for text in [
            "unix:/run/a b.sock",
            "unix:relative.sock",
            "http://[::1]:80",
            "http://h:1",
            "https://h.example:5991",
        ] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), text);
        }
        assert_eq!(
            "http://h:1/".parse::<Server>().unwrap().to_string(),
            "http://h:1"
        );
        for text in [
            "",
            "unix:",
            "/run/a.sock",
            "http://h",
            "http://",
            "https://h",
            "ftp://h:1",
            "http://h:1/x",
            "http://u@h:1",
        ] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }
}
