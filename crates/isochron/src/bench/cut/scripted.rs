//! The same guests without us: how short one member's pause can be at all, and what
//! people's scripts reach. Over the members' second monitors; afterwards each is on
//! the layer that it was on before.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::monitor::Monitor;
use crate::judge::Stand;

/// A member as a script has it.
pub struct Member {
    pub name: String,
    /// Of the second monitor.
    pub socket: PathBuf,
    /// Whether the disk is opened past the host's cache.
    pub direct: bool,
}

/// How it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One member alone: its overlay opened and its image flushed beforehand, then
    /// stop, transaction, cont. Nothing is shorter that says them while it stands.
    Floor,
    /// All are stopped, then all are snapshotted, then all resumed, each one after
    /// the other, as a shell's loop does it.
    Loop,
    /// The same, each step on all members at once, by threads.
    Threads,
    /// All are stopped, their memory is saved at once, all are resumed.
    StoppedSave,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Loop => "loop",
            Self::Threads => "threads",
            Self::StoppedSave => "stopped-save",
        }
    }
}

/// What was done, and has to be undone.
pub struct Done {
    /// When members stood.
    pub stands: Vec<Stand>,
    way: Way,
    monitors: Vec<Monitor>,
    files: Vec<PathBuf>,
}

/// Members about to be done something to.
pub struct Script {
    way: Way,
    monitors: Vec<Monitor>,
    files: Vec<PathBuf>,
    /// The first disk's node, of each.
    nodes: Vec<String>,
}

impl Script {
    /// Connects, and prepares what the way prepares. Files go to `directory`.
    pub fn prepare(way: Way, members: &[Member], directory: &Path) -> Result<Self> {
        let mut monitors = members
            .iter()
            .map(|member| Monitor::open(&member.socket))
            .collect::<Result<Vec<_>>>()?;
        let ending = match way {
            Way::StoppedSave => "memory",
            _ => "script.qcow2",
        };
        let files: Vec<_> = members
            .iter()
            .map(|member| directory.join(format!("{}.{ending}", member.name)))
            .collect();
        if way == Way::Floor {
            ensure!(members.len() == 1, "the floor is one member's");
            open_overlay(&mut monitors[0], &members[0], &files[0])?;
        }
        let nodes = monitors.iter_mut().map(|m| Ok(m.disk()?.0));
        Ok(Self {
            nodes: nodes.collect::<Result<_>>()?,
            way,
            monitors,
            files,
        })
    }

    /// Does it.
    pub fn perform(mut self) -> Result<Done> {
        let work: Vec<_> = self.files.iter().zip(&self.nodes).collect();
        let monitors = &mut self.monitors;
        let stands = match self.way {
            Way::Floor => {
                let data = json!({"node": self.nodes[0], "overlay": "script"});
                let action = json!({"type": "blockdev-snapshot", "data": data});
                let actions = json!({"actions": [action]});
                monitors[0].stop()?;
                let swapped = monitors[0].run("transaction", actions);
                let stand = monitors[0].cont()?;
                swapped?;
                vec![stand]
            }
            Way::Loop => {
                for monitor in monitors.iter_mut() {
                    monitor.stop()?;
                }
                for (monitor, (file, node)) in monitors.iter_mut().zip(work) {
                    snapshot(monitor, file, node)?;
                }
                let resumed = monitors.iter_mut().map(Monitor::cont);
                resumed.collect::<Result<_>>()?
            }
            Way::Threads => at_once(monitors, &work, snapshot)?,
            Way::StoppedSave => at_once(monitors, &work, |m, file, _| save(m, file))?,
        };
        Ok(Done {
            stands,
            way: self.way,
            monitors: self.monitors,
            files: self.files,
        })
    }
}

impl Done {
    /// Merges what was snapshotted and deletes the files.
    pub fn undo(mut self) -> Result<()> {
        if self.way != Way::StoppedSave {
            self.monitors.iter_mut().try_for_each(Monitor::merge)?;
        }
        if self.way == Way::Floor {
            self.monitors[0].run("blockdev-del", json!({"node-name": "script"}))?;
        }
        for file in &self.files {
            std::fs::remove_file(file).with_context(|| format!("deleting {}", file.display()))?;
        }
        Ok(())
    }
}

/// A thread per member; all do each step together.
fn at_once(
    monitors: &mut [Monitor],
    files: &[(&PathBuf, &String)],
    work: impl Fn(&mut Monitor, &Path, &str) -> Result<()> + Sync,
) -> Result<Vec<Stand>> {
    let barrier = Barrier::new(monitors.len());
    let (barrier, work) = (&barrier, &work);
    std::thread::scope(|scope| {
        let threads: Vec<_> = monitors
            .iter_mut()
            .zip(files)
            .map(|(monitor, (file, node))| {
                scope.spawn(move || {
                    // Who fails must still come to the barriers.
                    barrier.wait();
                    let stopped = monitor.stop();
                    barrier.wait();
                    let worked = work(monitor, file, node);
                    barrier.wait();
                    let resumed = monitor.cont();
                    stopped?;
                    worked?;
                    resumed
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread failed")))
            })
            .collect()
    })
}

/// Everything before the stop: the overlay is open, nothing is left to be flushed.
fn open_overlay(monitor: &mut Monitor, member: &Member, overlay: &Path) -> Result<()> {
    let (_, image) = monitor.disk()?;
    let blocks = monitor.run("query-block", json!({}))?;
    let size = blocks
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|disk| disk["inserted"]["image"]["virtual-size"].as_u64())
        .context("the disk has no size")?;
    let created = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-u", "-F", "qcow2", "-b"])
        .args([Path::new(&image), overlay])
        .arg(size.to_string())
        .status()
        .context("qemu-img cannot be run")?;
    ensure!(created.success(), "qemu-img cannot create an overlay");
    File::open(overlay)?.sync_all()?;
    let cache = json!({"direct": member.direct, "no-flush": false});
    monitor.run(
        "blockdev-add",
        json!({
            "driver": "qcow2", "node-name": "script", "backing": null, "cache": cache,
            "file": {"driver": "file", "filename": overlay, "cache": cache},
        }),
    )?;
    File::open(&image)?.sync_data()?;
    // What was done until here has died down.
    std::thread::sleep(Duration::from_millis(100));
    Ok(())
}

fn snapshot(monitor: &mut Monitor, file: &Path, node: &str) -> Result<()> {
    let arguments = json!({
        "node-name": node, "snapshot-file": file, "snapshot-node-name": "script",
        "format": "qcow2",
    });
    monitor.run("blockdev-snapshot-sync", arguments).map(drop)
}

fn save(monitor: &mut Monitor, file: &Path) -> Result<()> {
    // As fast as it goes, as libvirt sets it for files.
    let limit = (i64::MAX >> 20) << 20;
    monitor.run("migrate-set-parameters", json!({"max-bandwidth": limit}))?;
    let uri = format!("exec:cat > '{}'", file.display());
    monitor.run("migrate", json!({"uri": uri}))?;
    loop {
        let migration = monitor.run("query-migrate", json!({}))?;
        match migration["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => anyhow::bail!("saving memory failed: {migration}"),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
