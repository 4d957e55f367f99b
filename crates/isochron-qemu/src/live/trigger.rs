//! A monitor of its own for the window's one long command.
//!
//! QEMU reads a monitor byte by byte (some 4 µs each), which takes it longer than the
//! exchange of layers itself. All but the end of that command is sent here while the
//! guest still runs; in the window only the end is.
//!
//! What comes on two monitors has no order. So nothing is asked of layers before a
//! command that was fired and not answered is known to have ended.

use std::sync::Mutex;
use std::time::Duration;

use qapi::{Command, qmp};

use super::locked;
use crate::error::QmpError;
use crate::qmp::{Connection, Loaded, Status};

pub(crate) struct Trigger {
    qmp: Connection,
    state: Mutex<State>,
}

enum State {
    Idle,
    Loaded(Loaded),
    /// It has not been answered, and may yet be carried out.
    Fired,
}

impl Trigger {
    pub(crate) fn new(qmp: Connection) -> Self {
        Self {
            qmp,
            state: Mutex::new(State::Idle),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.qmp.is_closed()
    }

    /// Sends all but the end of a command, instead of one that was sent before.
    pub(super) fn load(&self, command: &impl Command) -> Result<(), QmpError> {
        self.unload();
        let loaded = self.qmp.load(command)?;
        *locked(&self.state) = State::Loaded(loaded);
        Ok(())
    }

    /// Takes back what was loaded and not fired.
    pub(super) fn unload(&self) {
        let mut state = locked(&self.state);
        if let State::Loaded(_) = *state {
            self.qmp.unload();
            *state = State::Idle;
        }
    }

    /// Has the command carried out, if it is what was loaded.
    pub(super) async fn fire<C: Command>(
        &self,
        command: &C,
        limit: Duration,
    ) -> Option<Result<C::Ok, QmpError>> {
        let pending = {
            let mut state = locked(&self.state);
            match std::mem::replace(&mut *state, State::Fired) {
                State::Loaded(loaded) if loaded.is(command) => self.qmp.fire::<C>(&loaded),
                other => {
                    *state = other;
                    return None;
                }
            }
        };
        let answer = pending.answer(limit).await;
        match answer {
            // What we gave up tells nothing; a new connection to QEMU does.
            Err(QmpError::Timeout { .. } | QmpError::Broken(_)) => (),
            _ => *locked(&self.state) = State::Idle,
        }
        Some(answer)
    }

    /// Waits until nothing that was fired can still happen.
    pub(super) async fn settle(&self) -> Result<(), QmpError> {
        if matches!(*locked(&self.state), State::Fired) {
            // Answered in order.
            self.qmp.ask::<Status>(&qmp::query_status {}).await?;
            *locked(&self.state) = State::Idle;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixListener;
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(20);

    /// What a real QEMU does not tell: which bytes it had when.
    #[tokio::test]
    async fn all_but_the_end_is_said_before_and_nothing_is_asked_until_it_is_answered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cut.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let greeting = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut qemu = BufReader::new(stream);
            let mut line = String::new();
            let hello = b"{\"QMP\":{\"version\":{},\"capabilities\":[]}}\n";
            qemu.write_all(hello).await.unwrap();
            qemu.read_line(&mut line).await.unwrap();
            let id = line.rsplit(':').next().unwrap().trim();
            let answer = format!("{{\"return\":{{}},\"id\":{id}\n");
            qemu.write_all(answer.as_bytes()).await.unwrap();
            qemu
        };
        let (qmp, mut qemu) = tokio::join!(Connection::negotiate(&path, "web", SHORT), greeting);
        let trigger = Trigger::new(qmp.unwrap());
        let mut bytes = [0; 1024];

        let command = qmp::stop {};
        trigger.load(&command).unwrap();
        let count = qemu.read(&mut bytes).await.unwrap();
        let said = String::from_utf8(bytes[..count].to_vec()).unwrap();
        let whole = format!("{said}}}");
        let whole: serde_json::Value = serde_json::from_str(&whole).unwrap();
        assert_eq!(whole["execute"], "stop");
        assert_eq!(whole.get("arguments"), None);
        assert!(trigger.fire(&qmp::cont {}, SHORT).await.is_none());
        let late = trigger.fire(&command, SHORT).await;
        assert!(matches!(late, Some(Err(QmpError::Timeout { .. }))));
        let count = qemu.read(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..count], b"}\n");

        // It is not answered, and neither is what is asked behind it.
        assert!(trigger.settle().await.is_err());
        let count = qemu.read(&mut bytes).await.unwrap();
        let asked = String::from_utf8(bytes[..count].to_vec()).unwrap();
        assert!(asked.contains("query-status"), "{asked}");
        let settled = trigger.settle();
        tokio::pin!(settled);
        assert!(timeout(SHORT / 5, &mut settled).await.is_err());
        let count = qemu.read(&mut bytes).await.unwrap();
        let asked = String::from_utf8(bytes[..count].to_vec()).unwrap();
        let id = asked.rsplit(':').next().unwrap().trim();
        let running = "{\"running\":true,\"status\":\"running\"}";
        let answer = format!("{{\"return\":{running},\"id\":{id}\n");
        qemu.write_all(answer.as_bytes()).await.unwrap();
        settled.await.unwrap();
        // Nothing is under way, so nothing is asked.
        timeout(SHORT, trigger.settle()).await.unwrap().unwrap();

        // Whether it is carried out is not known where it was us who gave the connection up.
        trigger.load(&command).unwrap();
        assert_ne!(qemu.read(&mut bytes).await.unwrap(), 0);
        // Longer than any line that is read.
        let endless = async {
            assert_ne!(qemu.read(&mut bytes).await.unwrap(), 0);
            while qemu.write_all(&[b'x'; 1024]).await.is_ok() {}
        };
        let broken = tokio::select! {
            broken = trigger.fire(&command, LONG) => broken,
            () = endless => None,
        };
        assert!(matches!(broken, Some(Err(QmpError::Broken(_)))));
        assert!(trigger.settle().await.is_err());
    }
}
