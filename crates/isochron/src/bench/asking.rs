//! What the benchmarks of servers have in common: which server is asked by whom,
//! connections that are kept, and how fast they are answered.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use http::Response;
use http::header::{AUTHORIZATION, HOST};
use http::uri::{Scheme, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use isochron_net::basic_authorization;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::cim::report::Rate;

/// Who is asked, and for how long.
#[derive(Args, Debug)]
pub struct Asking {
    /// Numbers of connections at once
    #[arg(long, value_name = "COUNT,...", value_delimiter = ',', default_values_t = [1, 8],
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub connections: Vec<u16>,
    /// For how long each operation is asked for
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// A server that runs, instead of one of our own
    #[arg(long, value_name = "http://HOST:PORT/PATH")]
    url: Option<Target>,
    /// Who asks that server; the password is taken from ISOCHRON_PASSWORD
    #[arg(long, requires = "url")]
    user: Option<String>,
    /// Where to make the temporary directory [default: TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

impl Asking {
    /// The server that runs, if one is asked.
    pub fn target(&self) -> Result<Option<Target>> {
        let mut target = self.url.clone();
        if let (Some(target), Some(user)) = (&mut target, &self.user) {
            let password = std::env::var("ISOCHRON_PASSWORD")
                .context("--user needs the password in ISOCHRON_PASSWORD")?;
            target.authorization = Some(basic_authorization(user, &password));
        }
        Ok(target)
    }

    /// How fast requests are answered, with each number of connections.
    pub async fn rates<A: Ask>(
        &self,
        target: &Target,
        operations: &[(&'static str, A)],
    ) -> Result<Vec<Rate>> {
        let mut rates = Vec::new();
        for &connections in &self.connections {
            for (operation, requests) in operations {
                eprintln!("bench: {operation}, {connections} connections");
                let time = Duration::from_secs(self.seconds);
                rates.push(rate(target, operation, requests, connections, time).await?);
            }
        }
        Ok(rates)
    }
}

/// A server, and who asks it.
#[derive(Clone, Debug)]
pub struct Target {
    authority: String,
    path: String,
    authorization: Option<String>,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> Result<Self> {
        let uri: Uri = url.parse()?;
        let is_http = uri.scheme() == Some(&Scheme::HTTP);
        let authority = uri.authority().filter(|a| is_http && a.port().is_some());
        let authority = authority.context(
            "the address of a server is http://HOST:PORT, with a path where it needs one",
        )?;
        Ok(Self {
            authority: authority.to_string(),
            path: uri.path().to_owned(),
            authorization: None,
        })
    }
}

impl Target {
    /// The same, at this path where its address has none.
    pub fn or_at(mut self, path: &str) -> Self {
        if self.path == "/" {
            path.clone_into(&mut self.path);
        }
        self
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(&self.authority)
            .await
            .with_context(|| format!("no server answers on {}", self.authority))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with its sender.
        tokio::spawn(connection);
        Ok(Connection {
            target: self.clone(),
            sender,
        })
    }
}

/// One kept connection, one request at a time.
pub struct Connection {
    target: Target,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Sends a request to the server's path; the beginning of its answer.
    pub async fn send(
        &mut self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let mut request = request
            .uri(&self.target.path)
            .header(HOST, &self.target.authority);
        if let Some(authorization) = &self.target.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        self.sender.ready().await?;
        let answer = self.sender.send_request(request.body(Full::new(body))?);
        Ok(answer.await?)
    }
}

/// What is asked again and again.
pub trait Ask: Clone + Send + 'static {
    /// Asks for the `number`th time; the answer has to be right.
    fn ask(
        &self,
        connection: &mut Connection,
        number: usize,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// Connections that ask the same for some time.
async fn rate<A: Ask>(
    target: &Target,
    operation: &'static str,
    requests: &A,
    connections: u16,
    time: Duration,
) -> Result<Rate> {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(target.connect().await?);
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in open {
        let requests = requests.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while latencies.is_empty() || began.elapsed() < time {
                let asked = Instant::now();
                requests.ask(&mut connection, latencies.len()).await?;
                latencies.push(asked.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(task) = tasks.join_next().await {
        latencies.extend(task??);
    }
    let rate = Rate::of(operation, connections, latencies, began.elapsed());
    rate.context("nothing was answered")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_address_with_a_port() {
        for right in [
            "http://127.0.0.1:5988/",
            "http://host:1",
            "http://[::1]:1/wsman",
        ] {
            assert!(right.parse::<Target>().is_ok(), "{right}");
        }
        for wrong in [
            "127.0.0.1:5988",
            "http://host",
            "http://host:x",
            "https://host:1",
        ] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
