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
    /// It has not been answered.
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
        if !matches!(answer, Err(QmpError::Timeout { .. })) {
            *locked(&self.state) = State::Idle;
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
