//! The same guests under libvirt, snapshotted by a script (`script.py`) in the best
//! way that it has. libvirt runs within the script's process, with all its files on
//! the stage: nothing of the host's libvirt is used, or touched.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use isochron_lab::definition::Definition;
use isochron_lab::ring::Ring;
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::monitor::Monitor;
use crate::judge::Stand;
use crate::stage::{ALIVE_LIMIT, Stage};

const SCRIPT: &str = include_str!("script.py");

/// The system's own: that is the one which has the system's libvirt.
const PYTHON: &str = "/usr/bin/python3";

/// Ends well where its Python is, and the driver that runs QEMU: two packages.
const INSTALLED: &str = "\
import glob, libvirt
assert glob.glob('/usr/lib*/libvirt/connection-driver/libvirt_driver_qemu.so') \\
    or glob.glob('/usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so')";

/// Guests that libvirt runs, until this is dropped or the stage is.
pub struct Libvirt {
    script: Child,
    /// Taken when the script is to end.
    commands: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
    /// What else it says.
    log: PathBuf,
    /// One more of each guest, for QEMU's stamps.
    monitors: Vec<Monitor>,
}

/// A guest, for the script.
#[derive(Serialize)]
struct Guest<'a> {
    #[serde(flatten)]
    definition: &'a Definition,
    /// Where its second monitor is to be.
    monitor: PathBuf,
    /// Where its second serial port is to be.
    pulse: PathBuf,
}

impl Libvirt {
    /// Whether it is installed.
    pub fn is_installed() -> bool {
        let tried = std::process::Command::new(PYTHON)
            .args(["-c", INSTALLED])
            .stdin(Stdio::null())
            .output();
        tried.is_ok_and(|output| output.status.success())
    }

    /// Starts a ring's guests; everything goes into `directory`.
    pub async fn start(stage: &Stage, ring: &Ring, directory: &Path) -> Result<Self> {
        let file = directory.join("script.py");
        std::fs::write(&file, SCRIPT)?;
        let log = directory.join("libvirt.log");
        let mut command = if rustix::process::geteuid().is_root() {
            // For root it insists on a user that its service package makes.
            let mut unshare = Command::new("unshare");
            unshare.args(["--user", "--map-user=1000", "--map-group=1000", PYTHON]);
            unshare
        } else {
            Command::new(PYTHON)
        };
        let mut script = command
            .arg(&file)
            .envs([stage.mark()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            // An interrupt from the terminal is for this process to act on.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{PYTHON} cannot be run"))?;
        let (mut commands, answers) = script
            .stdin
            .take()
            .zip(script.stdout.take())
            .context("the script has no input or output")?;
        let guests: Vec<_> = ring
            .members
            .iter()
            .zip(ring.pulses())
            .map(|(member, pulse)| {
                let monitor = directory.join(format!("{}.qmp", member.definition.name));
                Guest {
                    definition: &member.definition,
                    monitor,
                    pulse,
                }
            })
            .collect();
        let (name, value) = stage.mark();
        let task = json!({
            "root": directory.join("libvirt"), "environment": {name: value}, "guests": guests,
        });
        commands.write_all(format!("{task}\n").as_bytes()).await?;
        let mut libvirt = Self {
            script,
            commands: Some(commands),
            answers: BufReader::new(answers).lines(),
            log,
            monitors: Vec::new(),
        };
        libvirt.answer(ALIVE_LIMIT, "starting the guests").await?;
        for guest in &guests {
            libvirt.monitors.push(Monitor::open(&guest.monitor)?);
        }
        Ok(libvirt)
    }

    /// Creates overlays.
    pub async fn prepare(&mut self) -> Result<()> {
        self.run("prepare").await
    }

    /// Stops all guests, snapshots their disks and lets them run; when each stood.
    pub async fn cut(&mut self) -> Result<Vec<Stand>> {
        self.run("cut").await?;
        tokio::task::block_in_place(|| self.monitors.iter_mut().map(Monitor::stand).collect())
    }

    /// Merges what was snapshotted and deletes the overlays.
    pub async fn undo(&mut self) -> Result<()> {
        self.run("undo").await
    }

    /// Ends the guests.
    pub async fn end(mut self) -> Result<()> {
        self.commands = None;
        let ended = timeout(ALIVE_LIMIT, self.script.wait()).await;
        let status = ended.context("libvirt does not end its guests")??;
        if !status.success() {
            bail!("libvirt's script ended with {status}");
        }
        Ok(())
    }

    async fn run(&mut self, step: &str) -> Result<()> {
        let commands = self.commands.as_mut().context("the script has ended")?;
        commands.write_all(format!("{step}\n").as_bytes()).await?;
        self.answer(Duration::from_secs(60), step).await
    }

    async fn answer(&mut self, limit: Duration, step: &str) -> Result<()> {
        let answer = timeout(limit, self.answers.next_line())
            .await
            .with_context(|| format!("libvirt, {step}: no answer for {} s", limit.as_secs()))??;
        let Some(answer) = answer else {
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            bail!("libvirt, {step}: its script ended: {}", said.trim());
        };
        match serde_json::from_str(&answer)? {
            None => Ok(()),
            Some::<String>(error) => bail!("libvirt, {step}: {error}"),
        }
    }
}
