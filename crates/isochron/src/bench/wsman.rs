//! `isochron bench wsman`: how many requests of WS-Management a server answers over
//! connections that are kept, each asking for the next when it has its answer.
//!
//! A server whose replies leave in two segments answers some twenty a second: its second
//! one waits for an acknowledgement that the client delays. Identify, which reads no CIM,
//! is the floor. Every answer is read to its end, must be one without a fault, and must
//! relate to its question.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::cim::report::{FLOOR, Rate, Report};
use crate::exit::Failure;
use crate::stage::{self, Stage};

pub const EXAMPLES: &str = "\
Examples:
  isochron bench wsman
  isochron bench wsman --connections 1,8 --seconds 10
  isochron bench wsman --url http://127.0.0.1:5985/wsman --user ada   # asks ISOCHRON_PASSWORD

Without --url it starts a daemon of its own.";

/// What to measure.
#[derive(Args, Debug)]
pub struct WsmanOptions {
    /// Numbers of connections at once
    #[arg(long, value_name = "COUNT,...", value_delimiter = ',', default_values_t = [1, 8],
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: Vec<u16>,
    /// For how long each operation is asked for
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// A server that runs, instead of one of our own
    #[arg(long, value_name = "http://HOST:PORT/PATH")]
    url: Option<http::Uri>,
    /// Who asks that server; the password is taken from ISOCHRON_PASSWORD
    #[arg(long, requires = "url")]
    user: Option<String>,
    /// Where to make the temporary directory [default: TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR")]
    dir: Option<std::path::PathBuf>,
}

/// Measures and prints.
pub fn run(options: &WsmanOptions, json: bool) -> Result<(), Failure> {
    let report = stage::perform(measure(options))?;
    report.print(json)
}

async fn measure(options: &WsmanOptions) -> Result<Report> {
    if let Some(url) = &options.url {
        let authorization = match &options.user {
            Some(user) => {
                let password = std::env::var("ISOCHRON_PASSWORD")
                    .context("--user needs the password in ISOCHRON_PASSWORD")?;
                Some(format!(
                    "Basic {}",
                    STANDARD.encode(format!("{user}:{password}"))
                ))
            }
            None => None,
        };
        return ask(options, &Target::of(url, authorization)?).await;
    }
    let stage = Stage::open(options.dir.as_deref()).await?;
    let url = stage.wsman.parse()?;
    let report = ask(options, &Target::of(&url, None)?).await;
    stage.close().await?;
    report
}

/// A server, and who asks it.
#[derive(Clone)]
struct Target {
    authority: String,
    path: String,
    authorization: Option<String>,
}

impl Target {
    fn of(url: &http::Uri, authorization: Option<String>) -> Result<Self> {
        let authority = url
            .authority()
            .context("the address names no host and port")?;
        ensure!(
            url.scheme_str() == Some("http") && url.port().is_some(),
            "the address of a server is http://HOST:PORT/PATH"
        );
        Ok(Self {
            authority: authority.to_string(),
            path: url.path().to_owned(),
            authorization,
        })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.authority).await;
        let stream = stream.with_context(|| format!("no server answers on {}", self.authority))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with its sender.
        tokio::spawn(connection);
        Ok(sender)
    }
}

const SOAP: &str = "http://www.w3.org/2003/05/soap-envelope";
const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";
const WMI: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/HyperVCluster/v2";

/// A request: its text, with `{id}` for its number, and what its answer holds.
#[derive(Clone)]
struct Request {
    text: String,
    holds: &'static str,
}

impl Request {
    fn identify() -> Self {
        let uri = "http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd";
        Self {
            text: format!(
                "<s:Envelope xmlns:s=\"{SOAP}\" xmlns:i=\"{uri}\"><s:Header/><s:Body>\
                 <i:Identify/></s:Body></s:Envelope>"
            ),
            holds: "IdentifyResponse",
        }
    }

    fn of(action: &str, class: &str, body: &str, holds: &'static str) -> Self {
        let anonymous = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";
        Self {
            text: format!(
                "<s:Envelope xmlns:s=\"{SOAP}\" \
                 xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
                 xmlns:w=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\" \
                 xmlns:n=\"{ENUMERATION}\"><s:Header><a:To>http://localhost:5985/wsman</a:To>\
                 <w:ResourceURI s:mustUnderstand=\"true\">{WMI}/{class}</w:ResourceURI>\
                 <a:ReplyTo><a:Address>{anonymous}</a:Address></a:ReplyTo>\
                 <a:Action s:mustUnderstand=\"true\">{action}</a:Action>\
                 <w:MaxEnvelopeSize s:mustUnderstand=\"true\">512000</w:MaxEnvelopeSize>\
                 <a:MessageID>uuid:{{id}}</a:MessageID>\
                 <w:OperationTimeout>PT60.000S</w:OperationTimeout></s:Header>\
                 <s:Body>{body}</s:Body></s:Envelope>"
            ),
            holds,
        }
    }

    async fn ask(
        &self,
        target: &Target,
        sender: &mut SendRequest<Full<Bytes>>,
        id: usize,
    ) -> Result<()> {
        let id = id.to_string();
        let text = self.text.replace("{id}", &id);
        let mut request = http::Request::post(&target.path)
            .header(HOST, &target.authority)
            .header(CONTENT_TYPE, "application/soap+xml;charset=UTF-8");
        if let Some(authorization) = &target.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        sender.ready().await?;
        let answer = sender
            .send_request(request.body(Full::new(text.into()))?)
            .await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        let body = std::str::from_utf8(&body)?;
        if status != http::StatusCode::OK {
            bail!("the server answered {status}: {body}");
        }
        let relates = body.contains(&format!("uuid:{id}<")) || self.holds == "IdentifyResponse";
        ensure!(
            relates && body.contains(self.holds),
            "that is no answer: {body}"
        );
        Ok(())
    }
}

async fn ask(options: &WsmanOptions, target: &Target) -> Result<Report> {
    let all = "<n:Enumerate><w:OptimizeEnumeration/><w:MaxElements>100</w:MaxElements>\
        </n:Enumerate>";
    let operations = [
        (FLOOR, Request::identify()),
        (
            "Get, service",
            Request::of(
                &format!("{TRANSFER}/Get"),
                "Msvm_CollectionSnapshotService",
                "",
                "<p:Started>",
            ),
        ),
        (
            "Enumerate, systems",
            Request::of(
                &format!("{ENUMERATION}/Enumerate"),
                "Msvm_ComputerSystem",
                all,
                "EndOfSequence",
            ),
        ),
    ];
    let mut rates = Vec::new();
    for &connections in &options.connections {
        for (operation, request) in &operations {
            eprintln!("bench: {operation}, {connections} connections");
            let time = Duration::from_secs(options.seconds);
            rates.push(rate(target, operation, request, connections, time).await?);
        }
    }
    let listings = Vec::new();
    Ok(Report { rates, listings })
}

/// Connections that ask the same for some time.
async fn rate(
    target: &Target,
    operation: &'static str,
    request: &Request,
    connections: u16,
    time: Duration,
) -> Result<Rate> {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(target.connect().await?);
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut sender in open {
        let (request, target) = (request.clone(), target.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while began.elapsed() < time {
                let asked = Instant::now();
                request.ask(&target, &mut sender, latencies.len()).await?;
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
