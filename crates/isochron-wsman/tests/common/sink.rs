//! A receiver of events on a real socket: keeps what it is sent and answers as it is
//! told to.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use isochron_net::{Listener, Patience, serve};
use isochron_wsman::soap::{Charset, decoded};
use tokio::sync::{Notify, oneshot};

use super::eventing::between;

/// Far beyond what anything here takes, on a busy host too.
const LIMIT: Duration = Duration::from_secs(60);

/// How one message is answered.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// With an acknowledgement.
    Ack,
    /// With one of another message.
    OtherAck,
    /// With HTTP's 202 and nothing else.
    Accepted,
    /// With this HTTP status.
    Http(u16),
    /// With a fault: code and subcode.
    Fault(&'static str, &'static str),
    /// Never.
    Never,
}

/// A message that arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub headers: HeaderMap,
    pub envelope: String,
    pub charset: Charset,
}

impl Received {
    pub fn action(&self) -> &str {
        let action = between(&self.envelope, "<a:Action>", "<");
        action.rsplit('/').next().unwrap()
    }

    pub fn id(&self) -> &str {
        between(&self.envelope, "<a:MessageID>", "<")
    }

    /// The numbers of the events in it.
    pub fn numbers(&self) -> Vec<u32> {
        let parts = self.envelope.split("<p:Number>").skip(1);
        parts
            .map(|part| part.split('<').next().unwrap().parse().unwrap())
            .collect()
    }
}

struct Told {
    /// What is to be answered next.
    answers: VecDeque<Answer>,
    /// What is answered when that is used up.
    always: Answer,
    received: Vec<Received>,
}

/// The receiver.
pub struct Sink {
    pub url: String,
    told: Arc<Mutex<Told>>,
    arrived: Arc<Notify>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Sink {
    /// One that answers everything like this.
    pub async fn start(always: Answer) -> Self {
        let listener = Listener::bind("127.0.0.1:0", "sink").await.unwrap();
        let url = format!("http://{}/sink", listener.local_addr().unwrap());
        let told = Arc::new(Mutex::new(Told {
            answers: VecDeque::new(),
            always,
            received: Vec::new(),
        }));
        let arrived = Arc::new(Notify::new());
        let (stop, stopped) = oneshot::channel::<()>();
        let patience = Patience {
            headers: LIMIT,
            shutdown: Duration::ZERO,
        };
        let shared = (told.clone(), arrived.clone());
        let of_connection = move |_: &_, _: &_| {
            let shared = shared.clone();
            service_fn(move |request| {
                let (told, arrived) = shared.clone();
                async move { Ok::<_, Infallible>(answer(request, &told, &arrived).await) }
            })
        };
        let task = tokio::spawn(async move {
            serve(listener, patience, of_connection, async {
                let _ = stopped.await;
            })
            .await;
        });
        Self {
            url,
            told,
            arrived,
            stop,
            task,
        }
    }

    /// Answers the next messages like this.
    pub fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.told.lock().unwrap().answers.extend(answers);
    }

    pub fn received(&self) -> Vec<Received> {
        self.told.lock().unwrap().received.clone()
    }

    /// Waits until so many messages arrived; all that did.
    pub async fn wait(&self, count: usize) -> Vec<Received> {
        let there = async {
            loop {
                let arrived = self.arrived.notified();
                let received = self.received();
                if received.len() >= count {
                    return received;
                }
                arrived.await;
            }
        };
        let there = tokio::time::timeout(LIMIT, there).await;
        there.unwrap_or_else(|_| panic!("{count} do not arrive: {:?}", self.received()))
    }

    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }
}

async fn answer(
    request: Request<Incoming>,
    told: &Mutex<Told>,
    arrived: &Notify,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let said = parts.headers["content-type"].to_str().unwrap();
    let said = Charset::named(said.strip_prefix("application/soap+xml;charset=").unwrap());
    let (envelope, charset) = decoded(&body, said.unwrap()).unwrap();
    let received = Received {
        headers: parts.headers,
        envelope,
        charset,
    };
    let id = received.id().to_owned();
    let how = {
        let mut told = told.lock().unwrap();
        told.received.push(received);
        told.answers.pop_front().unwrap_or(told.always)
    };
    arrived.notify_waiters();
    let respond = |status: u16, body: String| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status.try_into().unwrap();
        response
    };
    match how {
        Answer::Ack => respond(200, acknowledgement(&id)),
        Answer::OtherAck => respond(200, acknowledgement("uuid:other")),
        Answer::Accepted => respond(202, String::new()),
        Answer::Http(status) => respond(status, "no".into()),
        Answer::Fault(code, subcode) => respond(500, fault(code, subcode)),
        Answer::Never => {
            std::future::pending::<()>().await;
            unreachable!()
        }
    }
}

fn envelope(header: &str, body: &str) -> String {
    format!(
        "<S:Envelope xmlns:S=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:A=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
         xmlns:W=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\">\
         <S:Header>{header}</S:Header><S:Body>{body}</S:Body></S:Envelope>"
    )
}

fn acknowledgement(id: &str) -> String {
    let action = "http://schemas.dmtf.org/wbem/wsman/1/wsman/Ack";
    let header = format!("<A:Action>{action}</A:Action><A:RelatesTo>{id}</A:RelatesTo>");
    envelope(&header, "")
}

fn fault(code: &str, subcode: &str) -> String {
    let body = format!(
        "<S:Fault><S:Code><S:Value>S:{code}</S:Value><S:Subcode><S:Value>W:{subcode}</S:Value>\
         </S:Subcode></S:Code><S:Reason><S:Text xml:lang=\"en\">no</S:Text></S:Reason></S:Fault>"
    );
    envelope("", &body)
}
