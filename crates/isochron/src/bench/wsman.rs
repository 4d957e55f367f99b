//! `isochron bench wsman`: how many requests of WS-Management a server answers over
//! connections that are kept, each asking for the next when it has its answer.
//!
//! A server whose replies leave in two segments answers 22 a second: its second one waits
//! for an acknowledgement that the client delays. Ten times that is the goal. Identify,
//! which reads no CIM, is the floor. Every answer is read to its end, must be one without
//! a fault, and must relate to its question.

use anyhow::{Result, bail, ensure};
use clap::Args;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;

use super::asking::{Ask, Asking, Connection, Target};
use super::cim::report::{Goal, Report};
use crate::exit::Failure;
use crate::stage::{self, Stage};

pub const EXAMPLES: &str = "\
Examples:
  isochron bench wsman
  isochron bench wsman --connections 1,8 --seconds 10
  isochron bench wsman --url http://127.0.0.1:5985/wsman --user ada   # asks ISOCHRON_PASSWORD

Without --url it starts a daemon of its own.";

/// What all else is compared with.
const FLOOR: &str = "Identify";
/// What the goal is about.
const GET: &str = "Get, service";
/// What an existing server answers in a second over one connection, and how many
/// times as much is the goal.
const OTHER_PER_SECOND: f64 = 22.0;
const TIMES: f64 = 10.0;

/// What to measure.
#[derive(Args, Debug)]
pub struct WsmanOptions {
    #[command(flatten)]
    asking: Asking,
}

/// Measures and prints.
pub fn run(options: &WsmanOptions, json: bool) -> Result<(), Failure> {
    let report = stage::perform(measure(options))?;
    report.print(json)
}

async fn measure(options: &WsmanOptions) -> Result<Report> {
    if let Some(target) = options.asking.target()? {
        return ask(options, &target).await;
    }
    let stage = Stage::open(options.asking.dir.as_deref()).await?;
    let report = ask(options, &stage.wsman.parse()?).await;
    stage.close().await?;
    report
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
}

impl Ask for Request {
    async fn ask(&self, connection: &mut Connection, number: usize) -> Result<()> {
        let id = number.to_string();
        let text = self.text.replace("{id}", &id);
        let request = http::Request::builder()
            .method(http::Method::POST)
            .header(CONTENT_TYPE, "application/soap+xml;charset=UTF-8");
        let answer = connection.send(request, text.into()).await?;
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
            GET,
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
    let rates = options.asking.rates(target, &operations).await?;
    Ok(Report {
        floor: FLOOR,
        goal: Goal::of(&rates, GET, TIMES, OTHER_PER_SECOND),
        listings: Vec::new(),
        rates,
    })
}
