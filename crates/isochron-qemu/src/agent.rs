//! The guest agent (QGA), a guest's bytes on a serial line.
//!
//! Nobody knows what is still under way on it: an answer to somebody who gave up,
//! half a line. So every exchange begins with `0xFF`, which resets the agent's
//! reader, and `guest-sync-delimited`, whose answer follows a `0xFF` of its own
//! and carries our number; whatever came before it is thrown away.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use isochron_engine::ports::HypervisorError;
use qapi::{Command, qga};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// What separates exchanges.
const DELIMITER: u8 = 0xff;
/// The most that is read in one exchange.
const MAX_ANSWER: usize = 1 << 20;

/// A guest's agent behind its socket.
pub(crate) struct Agent {
    path: PathBuf,
    /// Made when first needed. Held for a whole exchange: the line is one.
    stream: Mutex<Option<UnixStream>>,
}

impl Agent {
    /// The agent behind this socket; nothing is connected yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            stream: Mutex::new(None),
        }
    }

    /// A duplicate of the connected socket.
    pub(crate) async fn socket(&self) -> Result<std::os::fd::OwnedFd, HypervisorError> {
        let mut stream = self.stream.lock().await;
        let stream = self.connected(&mut stream).await?;
        std::os::fd::AsFd::as_fd(&*stream)
            .try_clone_to_owned()
            .map_err(|error| HypervisorError::Failed(format!("the guest agent's socket: {error}")))
    }

    async fn connected<'a>(
        &self,
        stream: &'a mut Option<UnixStream>,
    ) -> Result<&'a mut UnixStream, HypervisorError> {
        let connected = match stream.take() {
            Some(connected) => connected,
            None => UnixStream::connect(&self.path).await.map_err(|error| {
                HypervisorError::Failed(format!(
                    "the guest agent's socket {} cannot be reached: {error}",
                    self.path.display()
                ))
            })?,
        };
        Ok(stream.insert(connected))
    }

    /// Whether it answers within the limit.
    pub(crate) async fn answers(&self, limit: Duration) -> bool {
        self.exchange(limit, "answer", async |stream| {
            synchronize(stream, b"").await.map(drop)
        })
        .await
        .is_ok()
    }

    /// Freezes the guest's file systems; how many. On error a thaw was sent: the
    /// agent carries it out after the freeze, however long that takes.
    pub(crate) async fn freeze(&self, limit: Duration) -> Result<u32, HypervisorError> {
        // Not sent before the agent answered: a freeze that waits in the line
        // would hit the guest whenever its agent comes to life.
        let mut sent = false;
        let frozen = self
            .exchange(limit, "freeze its file systems", async |stream| {
                let rest = synchronize(stream, b"").await?;
                sent = true;
                stream
                    .write_all(&line(&qga::guest_fsfreeze_freeze {})?)
                    .await?;
                count(&answer(stream, rest).await?)
            })
            .await;
        if frozen.is_err() && sent {
            // The first error is the one to report.
            let _ = self.thaw(limit.min(Duration::from_secs(5))).await;
        }
        frozen
    }

    /// Thaws the guest's file systems; how many.
    pub(crate) async fn thaw(&self, limit: Duration) -> Result<u32, HypervisorError> {
        self.exchange(limit, "thaw its file systems", thaw).await
    }

    async fn exchange<T>(
        &self,
        limit: Duration,
        what: &str,
        work: impl AsyncFnOnce(&mut UnixStream) -> io::Result<T>,
    ) -> Result<T, HypervisorError> {
        let bounded = timeout(limit, async {
            let mut stream = self.stream.lock().await;
            let done = work(self.connected(&mut stream).await?).await;
            if done
                .as_ref()
                .is_err_and(|error| error.kind() != io::ErrorKind::Other)
            {
                *stream = None; // the socket failed, not the agent
            }
            done.map_err(|error| {
                HypervisorError::Failed(format!("the guest agent did not {what}: {error}"))
            })
        });
        bounded.await.unwrap_or_else(|_| {
            Err(HypervisorError::Timeout(format!(
                "the guest agent did not {what} within {} ms",
                limit.as_millis()
            )))
        })
    }
}

/// Thaws through a connected socket; how many. The thaw is in the line even if
/// no answer to anything ever comes.
pub(crate) async fn thaw(stream: &mut UnixStream) -> io::Result<u32> {
    let command = line(&qga::guest_fsfreeze_thaw {})?;
    let rest = synchronize(stream, &command).await?;
    count(&answer(stream, rest).await?)
}

fn line(command: &impl Command) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&qapi::Execute::<_, u64>::new(command, None))?;
    line.push(b'\n');
    Ok(line)
}

/// Synchronizes, with `behind` sent right behind; what was read past the answer.
async fn synchronize(stream: &mut UnixStream, behind: &[u8]) -> io::Result<Vec<u8>> {
    let id = fresh_number();
    let mut sent = vec![DELIMITER];
    sent.extend(line(&qga::guest_sync_delimited { id })?);
    sent.extend_from_slice(behind);
    stream.write_all(&sent).await?;
    let mut bytes = Vec::new();
    loop {
        if let Some(rest) = synchronized(&mut bytes, id) {
            return Ok(rest);
        }
        read_more(stream, &mut bytes).await?;
    }
}

/// Takes whole lines until one that follows a delimiter is the answer with our
/// number; what comes after it.
pub(crate) fn synchronized(bytes: &mut Vec<u8>, id: i64) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Synchronized {
        r#return: i64,
    }
    let mut start = 0;
    while let Some(length) = bytes[start..].iter().position(|b| *b == b'\n') {
        let line = &bytes[start..start + length];
        start += length + 1;
        // No text has this byte, so the last one begins the answer.
        let Some(delimiter) = line.iter().rposition(|b| *b == DELIMITER) else {
            continue;
        };
        let ours = serde_json::from_slice::<Synchronized>(&line[delimiter + 1..])
            .is_ok_and(|answer| answer.r#return == id);
        if ours {
            return Some(bytes.split_off(start));
        }
    }
    bytes.drain(..start);
    None
}

/// The agent's next line: what it returned.
async fn answer(stream: &mut UnixStream, mut bytes: Vec<u8>) -> io::Result<Box<RawValue>> {
    loop {
        if let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            return returned(&bytes[..end]);
        }
        read_more(stream, &mut bytes).await?;
    }
}

/// What an answer's line says that a command returned.
pub(crate) fn returned(line: &[u8]) -> io::Result<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Answer {
        r#return: Option<Box<RawValue>>,
        error: Option<Refusal>,
    }
    #[derive(Deserialize)]
    struct Refusal {
        desc: String,
    }
    let not_understood = || io::Error::other("its answer is not understood");
    let answer: Answer = serde_json::from_slice(line).map_err(|_| not_understood())?;
    match answer.error {
        Some(refusal) => Err(io::Error::other(refusal.desc)),
        None => answer.r#return.ok_or_else(not_understood),
    }
}

pub(crate) fn count(answer: &RawValue) -> io::Result<u32> {
    serde_json::from_str(answer.get()).map_err(|_| io::Error::other("its answer is no count"))
}

async fn read_more(stream: &UnixStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 4096];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                bytes.extend_from_slice(&chunk[..count]);
                if bytes.len() > MAX_ANSWER {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "it talks too much",
                    ));
                }
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
            Err(error) => return Err(error),
        }
    }
}

/// A number that no exchange before used, of ours or of a process before us; the
/// agent keeps 53 bits exactly.
fn fresh_number() -> i64 {
    static NEXT: AtomicI64 = AtomicI64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros());
    NEXT.fetch_max(i64::try_from(now).unwrap_or(0), Ordering::Relaxed);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(bytes: &[u8]) -> (Option<Vec<u8>>, Vec<u8>) {
        let mut bytes = bytes.to_vec();
        let rest = synchronized(&mut bytes, 7);
        (rest, bytes)
    }

    #[test]
    fn what_came_before_our_number_is_thrown_away() {
        let rest = |bytes: &[u8]| after(bytes).0;
        assert_eq!(rest(b"\xff{\"return\": 7}\nnext"), Some(b"next".to_vec()));
        assert_eq!(
            rest(b"{\"return\": 7}\n\xff{\"return\": 6}\n\xfftorn\xff{\"return\": 7}\n"),
            Some(Vec::new())
        );
        // Without a delimiter it is somebody else's, and half a line is none yet.
        assert_eq!(rest(b"{\"return\": 7}\n"), None);
        assert_eq!(
            after(b"x\n\xff{\"return\": 7"),
            (None, b"\xff{\"return\": 7".to_vec())
        );
    }

    /// The time that this takes rises with the bytes, not with their square.
    #[test]
    fn a_guest_that_sends_delimiters_only_is_read_once() {
        let mut bytes = vec![DELIMITER; MAX_ANSWER - 1];
        bytes.push(b'\n');
        assert_eq!(after(&bytes), (None, Vec::new()));
        assert_eq!(after(&b"\xff\n".repeat(MAX_ANSWER / 2)), (None, Vec::new()));
    }

    #[test]
    fn an_answer_is_a_value_or_a_refusal() {
        let count_of = |line: &[u8]| returned(line).and_then(|answer| count(&answer));
        assert_eq!(count_of(b"{\"return\": 3}").ok(), Some(3));
        for (line, error) in [
            (&b"{\"return\": -3}"[..], "no count"),
            (
                b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no way\"}}",
                "no way",
            ),
            (b"{}", "not understood"),
            (b"\xff", "not understood"),
        ] {
            let told = count_of(line).unwrap_err().to_string();
            assert!(told.contains(error), "{told}");
        }
    }
}
