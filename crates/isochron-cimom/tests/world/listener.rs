//! A listener of indications on a real socket: answers as it is told to, and keeps
//! what it is sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use isochron_cim::{Instance, Value};
use isochron_cimom::{Listener, Listeners};
use isochron_cimxml::decode_embedded;
use isochron_net::outgoing::{Outgoing, SendError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Far beyond what anything here takes, on a busy host too.
const LIMIT: Duration = Duration::from_secs(60);

/// Reaches listeners by CIM-XML, as the daemon does.
pub struct CimXml;

struct Reached(isochron_cimxml::Listener);

impl Listeners for CimXml {
    fn at(&self, destination: &str) -> Result<Box<dyn Listener>, String> {
        let config = Outgoing {
            answer: Duration::from_secs(2),
            ..Outgoing::default()
        };
        let listener = isochron_cimxml::Listener::at(destination, config)?;
        Ok(Box::new(Reached(listener)))
    }
}

#[async_trait::async_trait]
impl Listener for Reached {
    async fn export(&mut self, indication: &Instance) -> Result<(), SendError> {
        self.0.export(indication).await
    }
}

/// How one message is answered.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Taken,
    /// With this CIM status.
    Status(u32),
    /// With this HTTP status.
    Http(u16),
    /// Never; the connection stays open.
    Never,
    /// By closing the connection.
    Close,
}

#[derive(Default)]
struct Told {
    /// What is to be answered next; `Taken` after that.
    answers: VecDeque<Answer>,
    /// What is answered when that is used up.
    always: Option<Answer>,
    taken: Vec<Instance>,
    /// Messages that arrived, whatever the answer.
    messages: usize,
}

/// The listener. It ends when it is dropped.
pub struct TestListener {
    pub url: String,
    port: u16,
    told: Arc<Mutex<Told>>,
    tasks: tokio::task::JoinSet<()>,
}

impl TestListener {
    pub async fn start() -> Self {
        Self::at(0).await
    }

    /// On this port; 0 for any.
    pub async fn at(port: u16) -> Self {
        let socket = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let told = Arc::new(Mutex::new(Told::default()));
        let mut tasks = tokio::task::JoinSet::new();
        let shared = told.clone();
        tasks.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                connections.spawn(serve(stream, shared.clone()));
            }
        });
        Self {
            url: format!("http://127.0.0.1:{port}"),
            port,
            told,
            tasks,
        }
    }

    /// Ends; its port, which nobody has then.
    pub async fn stop(mut self) -> u16 {
        self.tasks.shutdown().await;
        self.port
    }

    /// Answers the next messages like this.
    pub fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.told.lock().unwrap().answers.extend(answers);
    }

    /// Answers all messages like this, from now on.
    pub fn always(&self, answer: Answer) {
        self.told.lock().unwrap().always = Some(answer);
    }

    pub fn messages(&self) -> usize {
        self.told.lock().unwrap().messages
    }

    pub fn taken(&self) -> Vec<Instance> {
        self.told.lock().unwrap().taken.clone()
    }

    /// Waits until so many were taken; all of them.
    pub async fn wait(&self, count: usize) -> Vec<Instance> {
        self.until(&format!("{count} indications"), |told| {
            told.taken.len() >= count
        })
        .await;
        self.taken()
    }

    /// Waits until so many messages arrived.
    pub async fn wait_messages(&self, count: usize) {
        self.until(&format!("{count} messages"), |told| told.messages >= count)
            .await;
    }

    async fn until(&self, what: &str, there: impl Fn(&Told) -> bool) {
        let began = std::time::Instant::now();
        while !there(&self.told.lock().unwrap()) {
            assert!(began.elapsed() < LIMIT, "no {what}: {:?}", self.taken());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn serve(stream: TcpStream, told: Arc<Mutex<Told>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let header = line.trim_end().to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if header.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let body = String::from_utf8(body).unwrap();
        let answer = {
            let mut told = told.lock().unwrap();
            told.messages += 1;
            let answer = told.answers.pop_front().or(told.always);
            if let Answer::Taken = answer.unwrap_or(Answer::Taken) {
                told.taken.push(indication(&body));
            }
            answer.unwrap_or(Answer::Taken)
        };
        let (status, error) = match answer {
            Answer::Taken => (200, String::new()),
            Answer::Status(code) => (200, format!(r#"<ERROR CODE="{code}" DESCRIPTION="no"/>"#)),
            Answer::Http(status) => (status, String::new()),
            Answer::Never => std::future::pending().await,
            Answer::Close => return,
        };
        let id = between(&body, "<MESSAGE ID=\"", "\"");
        let text = format!(
            r#"<?xml version="1.0"?><CIM CIMVERSION="2.0" DTDVERSION="2.0"><MESSAGE ID="{id}"
            PROTOCOLVERSION="1.0"><SIMPLEEXPRSP><EXPMETHODRESPONSE NAME="ExportIndication">{error}
            </EXPMETHODRESPONSE></SIMPLEEXPRSP></MESSAGE></CIM>"#
        );
        let reply = format!(
            "HTTP/1.1 {status} x\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        if stream.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn indication(message: &str) -> Instance {
    let (from, to) = (
        message.find("<INSTANCE").unwrap(),
        message.rfind("</INSTANCE>").unwrap(),
    );
    let text = &message[from..to + "</INSTANCE>".len()];
    decode_embedded(text).unwrap().unwrap()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let from = text.find(before).unwrap() + before.len();
    &text[from..from + text[from..].find(after).unwrap()]
}

/// The place of an indication in its sequence.
pub fn sequence(indication: &Instance) -> (String, i128) {
    let context = indication.get("SequenceContext").and_then(Value::as_str);
    let number = indication.get("SequenceNumber").and_then(Value::as_integer);
    (context.unwrap().to_owned(), number.unwrap())
}
