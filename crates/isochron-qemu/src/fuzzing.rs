//! Doors for the fuzz targets, built only for them: what reads the bytes of a QEMU
//! and of a guest's agent.

use serde::de::DeserializeOwned;

use crate::agent::{count, returned, synchronized};
use crate::qmp::{
    BlockDevice, Capability, Job, Lines, Message, Migration, NamedNode, Parameters, Status, parse,
};

fn read<T: DeserializeOwned>(text: &str) {
    let _ = serde_json::from_str::<T>(text);
}

/// What comes on a QMP connection, in chunks of this size.
pub fn qmp(bytes: &[u8], chunk: usize) {
    let mut lines = Lines::default();
    for chunk in bytes.chunks(chunk.max(1)) {
        if lines.push(chunk).is_err() {
            return;
        }
        lines.drain(|line| {
            if let Message::Answer {
                outcome: Ok(answer),
                ..
            } = parse(line)
            {
                read::<Status>(answer.get());
                read::<Migration>(answer.get());
                read::<Vec<Capability>>(answer.get());
                read::<Parameters>(answer.get());
                read::<Vec<Job>>(answer.get());
                read::<Vec<BlockDevice>>(answer.get());
                read::<Vec<NamedNode>>(answer.get());
            }
        });
    }
}

/// What comes on a guest agent's line while number 1 is awaited, and then an answer.
/// Whatever the guest sends, the answer that follows is found.
pub fn agent(bytes: &[u8], chunk: usize) {
    const OURS: &[u8] = b"\n\xff{\"return\": 1}\n{\"return\": 5}\n";
    let sent = [bytes, OURS].concat();
    let mut kept = Vec::new();
    for chunk in sent.chunks(chunk.max(1)) {
        kept.extend_from_slice(chunk);
        if let Some(rest) = synchronized(&mut kept, 1) {
            for line in rest.split(|b| *b == b'\n') {
                let _ = returned(line).and_then(|answer| count(&answer));
            }
            return;
        }
    }
    panic!("our answer was not found");
}
