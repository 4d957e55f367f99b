//! Starting a QEMU and the files that lead to it afterwards.
//!
//! QEMU detaches itself (`-daemonize`) when its devices and disks are open, so
//! that its errors until then are known and it is in a session of its own: no
//! signal to the daemon's terminal or group reaches it. Each machine has a
//! directory; whoever comes later finds the machine by it:
//!
//! ```text
//!   RUN_DIR/MACHINE-ID/pid            its process
//!                      qmp.sock       its monitor, ours
//!                      cut.sock       a second one of ours, for the window
//!                      observe.sock   a monitor for anyone
//!                      qga.sock       its guest agent's line
//!                      log            what QEMU complained of
//!                      saved.json     which saved memory it still equals
//! ```

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use isochron_engine::model::{Accelerator, MachineId};
use isochron_engine::ports::{HypervisorError, Start};
use tokio::process::Command;

use crate::args;
use crate::config::QemuConfig;
use crate::error::file_error;
use crate::process::{self, QemuProcess};

/// How long QEMU may take until it detaches itself: it may have to reserve and
/// touch much memory.
const START: Duration = Duration::from_secs(60);
/// What fits into a socket's address (`sun_path` less its end).
const SOCKET_PATH: usize = 107;
/// The most of a log that is told in an error.
const LOG_TEXT: usize = 4 << 10;

/// A machine's directory.
#[derive(Clone, Debug)]
pub(crate) struct RunFiles(PathBuf);

impl RunFiles {
    pub(crate) fn new(config: &QemuConfig, machine: MachineId) -> Self {
        Self(config.run_dir.join(machine.to_string()))
    }

    pub(crate) fn pid(&self) -> PathBuf {
        self.0.join("pid")
    }
    pub(crate) fn qmp(&self) -> PathBuf {
        self.0.join("qmp.sock")
    }
    pub(crate) fn cut(&self) -> PathBuf {
        self.0.join("cut.sock")
    }
    pub(crate) fn observe(&self) -> PathBuf {
        self.0.join("observe.sock")
    }
    pub(crate) fn agent(&self) -> PathBuf {
        self.0.join("qga.sock")
    }
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("log")
    }
    pub(crate) fn saved(&self) -> PathBuf {
        self.0.join("saved.json")
    }

    /// Creates the directory, for its owner alone: a monitor is full control.
    pub(crate) async fn create(&self) -> Result<(), HypervisorError> {
        let longest = self.observe();
        let length = longest.as_os_str().len();
        if length > SOCKET_PATH {
            return Err(HypervisorError::Invalid(format!(
                "the run directory's path is too long: {} has {length} bytes and a socket's path \
                 may have {SOCKET_PATH}",
                longest.display()
            )));
        }
        let create = async {
            tokio::fs::create_dir_all(&self.0).await?;
            tokio::fs::set_permissions(&self.0, PermissionsExt::from_mode(0o700)).await
        };
        create
            .await
            .map_err(|error| file_error("creating", &self.0, &error))
    }

    /// Removes all that a process left. Never called while one runs.
    pub(crate) async fn remove(&self) -> Result<(), HypervisorError> {
        match tokio::fs::remove_dir_all(&self.0).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file_error("removing", &self.0, &error))
            }
            _ => Ok(()),
        }
    }

    /// The end of what QEMU wrote to its log.
    pub(crate) async fn log_text(&self) -> String {
        let text = tokio::fs::read(self.log()).await.unwrap_or_default();
        let start = text.len().saturating_sub(LOG_TEXT);
        String::from_utf8_lossy(&text[start..]).trim().to_owned()
    }
}

/// Starts a QEMU whose processors stand. On error no process is left.
pub(crate) async fn launch(
    config: &QemuConfig,
    start: &Start<'_>,
    files: &RunFiles,
    accelerator: Accelerator,
) -> Result<QemuProcess, HypervisorError> {
    let arguments = args::arguments(start, files, accelerator).await?;
    files.remove().await?;
    files.create().await?;
    let ended = process::run(Command::new(&config.qemu_binary).args(arguments), START).await;
    let process = QemuProcess::find(&files.pid(), start.id).await;
    let why = match (ended, process) {
        (Ok(ended), Some(process)) if ended.success => return Ok(process),
        (ended, process) => {
            if let Some(process) = process {
                process.kill().await?;
            }
            match ended {
                Ok(ended) => [ended.complaint, files.log_text().await]
                    .join("\n")
                    .trim()
                    .to_owned(),
                Err(error) => error.to_string(),
            }
        }
    };
    files.remove().await?;
    let why = if why.is_empty() {
        "it ended without a word".to_owned()
    } else {
        why
    };
    Err(HypervisorError::Failed(format!(
        "QEMU did not start: {why}"
    )))
}
