//! The file: Chrome's trace format (Google's "Trace Event Format", JSON object
//! form), which ui.perfetto.dev and chrome://tracing read.
//!
//! ```text
//! {"otherData":{"began_us":START},"traceEvents":[
//! {"ph":"M", ...}      names of processes and rows
//! {"ph":"X", ...}      something with a duration: "ts" and "dur" in microseconds
//! {"ph":"i", ...}      something without
//! ]}
//! ```
//!
//! The engine is process 1, each machine one of its own, its rows are threads.
//! `ts` counts from START, which is in microseconds since 1970. What is added goes
//! over the closing brackets, in one write with new ones.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use serde_json::{Value, json};

use super::{Kind, Record};

const END: &[u8] = b"\n]}\n";

/// A trace's file.
pub(super) struct Trace {
    file: File,
    /// Where the closing brackets begin.
    end: u64,
    empty: bool,
    processes: HashMap<Option<String>, u32>,
    /// Rows that have a name.
    named: HashSet<(u32, usize)>,
}

impl Trace {
    pub(super) fn begin(mut file: File, began_us: u64) -> io::Result<Self> {
        let head = format!("{{\"otherData\":{{\"began_us\":{began_us}}},\"traceEvents\":[\n");
        file.write_all(&[head.as_bytes(), END].concat())?;
        Ok(Self {
            file,
            end: u64::try_from(head.len()).unwrap_or(u64::MAX),
            empty: true,
            processes: HashMap::new(),
            named: HashSet::new(),
        })
    }

    /// Adds records; `dropped` more were not kept.
    pub(super) fn write(&mut self, records: &[Record], dropped: u64) -> io::Result<()> {
        let mut text = Vec::new();
        for record in records {
            self.add(record, &mut text);
        }
        if dropped > 0 {
            let what = format!("{dropped} records were too many and are missing here");
            let ts = records.last().map_or(0, |record| record.began);
            self.put(
                json!({"ph": "i", "s": "g", "pid": 1, "tid": 0, "name": what, "ts": micros(ts)}),
                &mut text,
            );
        }
        if text.is_empty() {
            return Ok(());
        }
        let added = u64::try_from(text.len()).unwrap_or(0);
        text.extend_from_slice(END);
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(&text)?;
        self.end += added;
        Ok(())
    }

    fn add(&mut self, record: &Record, text: &mut Vec<u8>) {
        let line = &record.line;
        let next = u32::try_from(self.processes.len()).unwrap_or(u32::MAX - 2) + 2;
        let process = match (&line.machine, self.processes.get(&line.machine)) {
            (_, Some(process)) => *process,
            (machine, None) => {
                // The engine first, whoever comes first.
                let (process, name) = match machine {
                    None => (1, "engine"),
                    Some(name) => (next, &**name),
                };
                self.processes.insert(machine.clone(), process);
                self.put(
                    json!({
                        "ph": "M", "pid": process, "name": "process_name",
                        "args": {"name": name},
                    }),
                    text,
                );
                process
            }
        };
        let (first, what) = match line.kind {
            Kind::Event => (0, "events"),
            Kind::Step => (100, "steps"),
            Kind::Command => (200, "QMP"),
        };
        let row = first + record.row;
        if self.named.insert((process, row)) {
            self.put(
                json!({
                    "ph": "M", "pid": process, "tid": row, "name": "thread_name",
                    "args": {"name": what},
                }),
                text,
            );
        }
        let mut event = json!({
            "pid": process, "tid": row, "name": record.name, "cat": what,
            "ts": micros(record.began),
        });
        match record.took {
            Some(took) => {
                event["ph"] = "X".into();
                event["dur"] = micros(took.cast_signed()).into();
            }
            None => {
                event["ph"] = "i".into();
                event["s"] = "p".into();
            }
        }
        self.put(event, text);
    }

    fn put(&mut self, event: Value, text: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.empty, false) {
            text.extend_from_slice(b",\n");
        }
        text.extend_from_slice(event.to_string().as_bytes());
    }
}

fn micros(nanos: i64) -> f64 {
    nanos as f64 / 1e3
}
