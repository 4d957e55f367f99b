//! A plain QMP client, as a script has one: one command, one answer, and the stamps
//! of STOP and RESUME. It speaks on a machine's second monitor and knows nothing of
//! the daemon.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::judge::Stand;

/// Far beyond what any answer takes, on a busy host too.
const LIMIT: Duration = Duration::from_secs(60);

/// One connection.
pub struct Monitor {
    stream: BufReader<UnixStream>,
    /// The last STOP and RESUME, in microseconds since 1970.
    stopped_us: u64,
    resumed_us: u64,
    line: String,
}

impl Monitor {
    /// Connects and negotiates.
    pub fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("the monitor {}", socket.display()))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut monitor = Self {
            stream: BufReader::new(stream),
            stopped_us: 0,
            resumed_us: 0,
            line: String::new(),
        };
        monitor.run("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Sends a command and waits for what it returns.
    pub fn run(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = format!(
            "{}\n",
            json!({"execute": command, "arguments": arguments, "id": command})
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        loop {
            self.line.clear();
            if self.stream.read_line(&mut self.line)? == 0 {
                bail!("QEMU ended during {command}");
            }
            let mut reply: Value = serde_json::from_str(&self.line)?;
            if let Some(event) = reply["event"].as_str() {
                let stamp = &reply["timestamp"];
                let part = |name: &str| stamp[name].as_u64().unwrap_or(0);
                let stamp = part("seconds") * 1_000_000 + part("microseconds");
                match event {
                    "STOP" => self.stopped_us = stamp,
                    "RESUME" => self.resumed_us = stamp,
                    _ => {}
                }
            } else if reply["id"] == command {
                if let Some(error) = reply.get("error") {
                    bail!("{command}: {}", error["desc"]);
                }
                return Ok(reply["return"].take());
            }
        }
    }

    /// Stops the guest.
    pub fn stop(&mut self) -> Result<()> {
        self.run("stop", json!({})).map(drop)
    }

    /// Lets it run; returns for how long it stood.
    pub fn cont(&mut self) -> Result<Stand> {
        self.run("cont", json!({}))?;
        Ok(self.last())
    }

    /// For how long it stood last, whoever stopped it and let it run.
    pub fn stand(&mut self) -> Result<Stand> {
        self.run("query-status", json!({}))?;
        Ok(self.last())
    }

    fn last(&self) -> Stand {
        Stand {
            stopped_us: self.stopped_us,
            resumed_us: self.resumed_us,
        }
    }

    /// The node that the machine's first disk sits on, and its file.
    pub fn disk(&mut self) -> Result<(String, String)> {
        let blocks = self.run("query-block", json!({}))?;
        let disks = blocks.as_array().into_iter().flatten();
        let inserted = disks.map(|disk| &disk["inserted"]).find(|i| i.is_object());
        let inserted = inserted.context("the machine has no disk")?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        text(&inserted["node-name"])
            .zip(text(&inserted["image"]["filename"]))
            .context("the disk has no node")
    }

    /// Merges the active layer into the one beneath it and goes on there.
    pub fn merge(&mut self) -> Result<()> {
        let (node, _) = self.disk()?;
        self.run("block-commit", json!({"device": node, "job-id": "merge"}))?;
        let mut told = false;
        loop {
            let jobs = self.run("query-block-jobs", json!({}))?;
            let Some(job) = jobs.as_array().and_then(|jobs| jobs.first()) else {
                return Ok(());
            };
            if job["ready"] == true && !told {
                self.run("block-job-complete", json!({"device": "merge"}))?;
                told = true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
