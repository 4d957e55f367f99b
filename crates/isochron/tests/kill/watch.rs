//! A machine's second monitor: QEMU's own word on whether it runs, when it stood,
//! and which block nodes it has, without the daemon.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::common::LIMIT;

/// An event of QEMU's and what is done at it, once, by the first monitor that hears
/// of it.
pub type Hook = Arc<Mutex<Option<(&'static str, Box<dyn FnOnce() + Send>)>>>;

/// STOP or RESUME, with QEMU's stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Stop(u64),
    Resume(u64),
}

/// A connection to one QEMU. It lasts as long as that QEMU.
pub struct Watch {
    stream: UnixStream,
    answers: Receiver<Value>,
    events: Arc<Mutex<Vec<Event>>>,
    next: u64,
}

impl Watch {
    /// Connects.
    pub fn open(socket: &Path, hook: Hook) -> Self {
        let began = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(began.elapsed() < LIMIT, "{}: {error}", socket.display()),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let (sender, answers) = channel();
        let events = Arc::new(Mutex::new(Vec::new()));
        let (lines, told) = (
            BufReader::new(stream.try_clone().unwrap()).lines(),
            events.clone(),
        );
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let message: Value = serde_json::from_str(&line).unwrap();
                if let Some(name) = message["event"].as_str() {
                    let action = hook.lock().unwrap().take_if(|(wanted, _)| *wanted == name);
                    if let Some((_, action)) = action {
                        action();
                    }
                    told.lock().unwrap().extend(event(&message));
                } else if message.get("id").is_some() {
                    let _ = sender.send(message);
                }
            }
        });
        let mut watch = Self {
            stream,
            answers,
            events,
            next: 0,
        };
        watch.ask("qmp_capabilities", json!({}));
        watch
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Value {
        self.answer(command, arguments, LIMIT)
            .unwrap_or_else(|| panic!("{command}: QEMU does not answer"))
    }

    /// `None` if QEMU does not answer in time or is gone.
    fn answer(&mut self, command: &str, arguments: Value, limit: Duration) -> Option<Value> {
        self.next += 1;
        let line = json!({"execute": command, "arguments": arguments, "id": self.next});
        writeln!(self.stream, "{line}").ok()?;
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut message = self.answers.recv_timeout(left).ok()?;
            if message["id"] == self.next {
                return Some(message["return"].take());
            }
        }
    }

    /// Whether its processors run; `None` if it does not say so in time.
    pub fn runs(&mut self, limit: Duration) -> Option<bool> {
        let status = self.answer("query-status", json!({}), limit)?;
        status["running"].as_bool()
    }

    /// How far saving its memory is, in QEMU's word.
    pub fn migration(&mut self) -> String {
        let migration = self.ask("query-migrate", json!({}));
        migration["status"].as_str().unwrap_or("none").to_owned()
    }

    /// Driver and file of every block node, sorted.
    pub fn nodes(&mut self) -> Vec<(String, String)> {
        let nodes = self.ask("query-named-block-nodes", json!({"flat": true}));
        let text = |node: &Value, key: &str| node[key].as_str().unwrap_or_default().to_owned();
        let mut nodes: Vec<_> = nodes
            .as_array()
            .unwrap()
            .iter()
            .map(|node| (text(node, "drv"), text(node, "file")))
            .collect();
        nodes.sort();
        nodes
    }

    /// The longest time for which it stood since the last call, by QEMU's stamps;
    /// if it stands, until now.
    pub fn longest_stand(&self) -> Duration {
        let mut events = self.events.lock().unwrap();
        let (mut since, mut longest) = (None, 0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = Event::Resume(now.as_micros().try_into().unwrap());
        for event in events.iter().copied().chain([now]) {
            match event {
                Event::Stop(at) => since = since.or(Some(at)),
                Event::Resume(at) => {
                    let stood = since.take().map_or(0, |since| at.saturating_sub(since));
                    longest = longest.max(stood);
                }
            }
        }
        let last = events.last().copied();
        events.retain(|event| Some(*event) == last && matches!(event, Event::Stop(_)));
        Duration::from_micros(longest)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Ends the thread, and makes room for the next client.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

fn event(message: &Value) -> Option<Event> {
    let stamp = &message["timestamp"];
    let at = stamp["seconds"].as_u64()? * 1_000_000 + stamp["microseconds"].as_u64()?;
    match message["event"].as_str()? {
        "STOP" => Some(Event::Stop(at)),
        "RESUME" => Some(Event::Resume(at)),
        _ => None,
    }
}
