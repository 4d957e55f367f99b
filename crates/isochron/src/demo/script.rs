//! The CIM client: `demo.py`, run with a Python that has pywbem. The script is
//! part of this program and is written to the stage, where a user finds it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use isochron_engine::model::CutReport;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::view::say;
use crate::stage::Stage;

const SCRIPT: &str = include_str!("../../demo/demo.py");

/// How long one run of it may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A Python that can `import pywbem`: the one that is named, else the environment
/// that `make venv` prepared, beside this executable's directory or in the source
/// tree.
pub fn python(named: Option<&Path>) -> Result<PathBuf> {
    let python = match (named, beside()) {
        (Some(path), _) => path.to_owned(),
        (None, Some(path)) => path,
        (None, None) => isochron_lab::clients::python()?,
    };
    let tried = std::process::Command::new(&python)
        .args(["-c", "import pywbem"])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} cannot be run: run `make venv`", python.display()))?;
    if !tried.status.success() {
        bail!(
            "{} has no pywbem: run `make venv` in the source tree, or name another with --python",
            python.display()
        );
    }
    Ok(python)
}

/// `venv/bin/python` in a directory above this executable: `target/release/isochron`
/// has it in `target/`.
fn beside() -> Option<PathBuf> {
    let executable = std::env::current_exe().ok()?;
    // Not canonical: an environment knows itself by the name that it is called by.
    executable
        .ancestors()
        .map(|directory| directory.join("venv/bin/python"))
        .find(|python| python.is_file())
}

/// What the script read of a snapshot.
#[derive(Debug, Deserialize)]
pub struct Report {
    /// The snapshot's identifier.
    pub id: String,
    /// The evidence for its instant.
    pub cut: CutReport,
}

/// The script, and whom it talks to.
#[derive(Clone, Debug)]
pub struct Script {
    python: PathBuf,
    file: PathBuf,
    report: PathBuf,
    url: String,
    quiet: bool,
}

impl Script {
    /// Writes the script to the stage.
    pub fn new(python: PathBuf, stage: &Stage) -> Result<Self> {
        let file = stage.path().join("demo.py");
        std::fs::write(&file, SCRIPT)?;
        let report = stage.path().join("report.json");
        Ok(Self {
            python,
            file,
            report,
            url: stage.cimxml.clone(),
            quiet: false,
        })
    }

    /// The same, but what it says is shown only if it fails.
    pub fn quiet(&self) -> Self {
        Self {
            quiet: true,
            ..self.clone()
        }
    }

    /// How to call it, as far as the verb.
    pub fn command(&self) -> String {
        format!(
            "{} {} {}",
            self.python.display(),
            self.file.display(),
            self.url
        )
    }

    /// Defines a collection of machines.
    pub async fn define(&self, collection: &str, machines: &[&str]) -> Result<()> {
        let mut arguments = vec!["define", collection];
        arguments.extend(machines);
        self.run(&arguments).await
    }

    /// Snapshots collections, one after the other. `{collection}` in the name is
    /// replaced.
    pub async fn snapshot(
        &self,
        kind: &str,
        name: &str,
        collections: &[String],
    ) -> Result<Vec<Report>> {
        let report = self
            .report
            .to_str()
            .context("the directory's name is not UTF-8")?;
        let mut arguments = vec![
            "snapshot", "--type", kind, "--name", name, "--report", report, "--",
        ];
        arguments.extend(collections.iter().map(String::as_str));
        self.run(&arguments).await?;
        let text = std::fs::read_to_string(&self.report)?;
        serde_json::from_str(&text).context("the cut report that came over CIM-XML")
    }

    /// Applies a snapshot.
    pub async fn apply(&self, snapshot: &str) -> Result<()> {
        self.run(&["apply", snapshot]).await
    }

    async fn run(&self, arguments: &[&str]) -> Result<()> {
        tokio::time::timeout(LIMIT, self.talk(arguments))
            .await
            .with_context(|| format!("demo.py has not ended after {} s", LIMIT.as_secs()))?
    }

    async fn talk(&self, arguments: &[&str]) -> Result<()> {
        let mut child = Command::new(&self.python)
            .arg("-u")
            .arg(&self.file)
            .arg(&self.url)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // An interrupt from the terminal is for this process to act on.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be run", self.python.display()))?;
        // Both were asked for.
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            bail!("demo.py has no output");
        };
        let mut said = Vec::new();
        let hear = async {
            let mut lines = BufReader::new(stdout).lines();
            while let Some(line) = lines.next_line().await? {
                if self.quiet {
                    said.push(line);
                } else {
                    say(format_args!("   | {line}"))?;
                }
            }
            anyhow::Ok(())
        };
        let complaints = async {
            let mut lines = BufReader::new(stderr).lines();
            let mut complaints = Vec::new();
            while let Some(line) = lines.next_line().await? {
                complaints.push(line);
            }
            anyhow::Ok(complaints)
        };
        let ((), complaints) = tokio::try_join!(hear, complaints)?;
        let status = child.wait().await?;
        if !status.success() {
            said.extend(complaints);
            bail!("{}", said.join("\n"));
        }
        Ok(())
    }
}
