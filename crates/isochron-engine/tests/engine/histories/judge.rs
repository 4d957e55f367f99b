//! What must hold after each round of a history, and in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use isochron_engine::model::{
    Consistency, Job, JobKind, JobState, MachineId, Power, ReferencePointId, Snapshot, SnapshotId,
    SnapshotKind,
};
use isochron_engine::ports::Content as Read;
use isochron_engine::{EngineError, PowerChange};

use super::stage::{Act, Round, Stage, directory};
use crate::scene::{Content, content, content_of_export, content_of_point, disagreements, request};

macro_rules! ensure {
    ($holds:expr, $($sentence:tt)*) => {
        if !$holds {
            return Err(format!($($sentence)*));
        }
    };
}

/// Per machine that was returned, what the snapshots held that it may stand on.
type Applied = BTreeMap<MachineId, Vec<Content>>;

fn say(error: EngineError) -> String {
    error.to_string()
}

/// Asks until nothing in the background holds what is asked for: a merge of layers,
/// or taking back.
async fn patiently<T>(ask: impl AsyncFn() -> Result<T, EngineError>) -> Result<T, EngineError> {
    let mut answer = ask().await;
    for _ in 0..120 {
        if answer.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        answer = ask().await;
    }
    answer
}

impl Stage {
    /// Judges the world after a round.
    pub async fn judge(&mut self, round: &Round) -> Result<(), String> {
        self.at_rest().await?;
        let snapshots = self.engine.snapshots(None).await.map_err(say)?;
        let applied = self.applied(round).await?;
        self.stood_too_long(round)?;
        self.power_is_right(round, &snapshots, !applied.is_empty())
            .await?;
        self.nothing_lost(&applied).await?;
        for snapshot in &snapshots {
            // A merge in the background may have moved its layers meanwhile.
            let snapshot = &self.engine.snapshot(snapshot.id).await.map_err(say)?;
            let holds = content(&self.world, snapshot)?;
            if let Some(held) = self.held.get(&snapshot.id) {
                ensure!(
                    holds == *held,
                    "a snapshot held {held:?} and holds {holds:?}"
                );
                continue;
            }
            let window = snapshot.cut.common_window_us;
            ensure!(
                window.is_none_or(|window| window >= 0),
                "the window is {window:?}"
            );
            if applied.is_empty() {
                self.is_one_instant(&snapshot.name, &holds, round)?;
            }
            self.held.insert(snapshot.id, holds);
        }
        self.points(round, applied.is_empty()).await?;
        let there: BTreeSet<_> = snapshots.iter().map(|snapshot| snapshot.id).collect();
        for gone in self.held.keys().copied().collect::<Vec<_>>() {
            if !there.contains(&gone) {
                let asked = |act: &Act| match act {
                    Act::Destroy(id) => *id == gone,
                    Act::Convert(id, point) => *id == gone && self.points.contains_key(point),
                    _ => false,
                };
                ensure!(round.acts.iter().any(asked), "snapshot {gone} is gone");
                let held = self.held.remove(&gone).unwrap_or_default();
                self.gone.insert(gone.0, held);
            }
        }
        self.exports_are_true(round)
    }

    /// Reference points hold what was there at their instants, as long as they keep it.
    async fn points(&mut self, round: &Round, judge_instant: bool) -> Result<(), String> {
        let points = self.engine.reference_points(None).await.map_err(say)?;
        for point in &points {
            let converted = round.acts.iter().find_map(|act| match act {
                Act::Convert(snapshot, id) if *id == point.id => self.held.get(snapshot),
                _ => None,
            });
            if let Some(converted) = converted {
                ensure!(!point.keeps_data, "a converted snapshot keeps its data");
                self.points.insert(point.id, converted.clone());
            }
            let known = self.points.get(&point.id);
            if !point.keeps_data {
                ensure!(known.is_some(), "point {} came from nowhere", point.id);
                continue;
            }
            let holds = content_of_point(&self.world, point)?;
            if let Some(held) = known {
                ensure!(holds == *held, "a point held {held:?} and holds {holds:?}");
                continue;
            }
            let window = point.cut.common_window_us;
            ensure!(
                window.is_none_or(|window| window >= 0),
                "the window is {window:?}"
            );
            if judge_instant {
                self.is_one_instant(&point.name, &holds, round)?;
            }
            self.points.insert(point.id, holds);
        }
        for gone in self.points.keys().copied().collect::<Vec<_>>() {
            if !points.iter().any(|point| point.id == gone) {
                let asked = |act: &Act| matches!(act, Act::DestroyPoint(id) if *id == gone);
                ensure!(round.acts.iter().any(asked), "point {gone} is gone");
                let held = self.points.remove(&gone).unwrap_or_default();
                self.gone.insert(gone.0, held);
            }
        }
        Ok(())
    }

    /// Every export restores to what was there at its instant, its chain included.
    fn exports_are_true(&self, round: &Round) -> Result<(), String> {
        for (directory, export) in self.world.exports() {
            let disks = export.order.members.iter().flat_map(|m| &m.disks);
            for disk in disks {
                // Nobody takes or leaves disks here, nor changes files by hand.
                if let Read::Full { reason: Some(why) } = &disk.content {
                    let no_member = why.contains("takes no part");
                    ensure!(no_member, "{} was copied whole: {why}", disk.name);
                }
            }
            let id = export.order.instant.id;
            let held = self.held.get(&SnapshotId(id));
            let held = held.or_else(|| self.points.get(&ReferencePointId(id)));
            let Some(held) = held.or_else(|| self.gone.get(&id)) else {
                return Err(format!("an export of {id}, which nobody knows"));
            };
            let holds = content_of_export(&self.world, &directory)?;
            ensure!(
                holds == *held,
                "{} restores to {holds:?}, and there was {held:?}: {:?}",
                directory.display(),
                export.order
            );
        }
        for (act, end) in &round.ends {
            if let Act::Export(.., number) = act {
                let there = self.world.export(&directory(*number)).is_some();
                ensure!(
                    there == end.is_ok(),
                    "{act:?} ended {end:?}, there: {there}"
                );
            }
        }
        Ok(())
    }

    /// Waits until records, files and processes agree.
    async fn at_rest(&self) -> Result<(), String> {
        let mut found = Vec::new();
        for second in 0..900 {
            found = match disagreements(&self.world, &self.engine).await {
                Ok(found) => found,
                Err(error) => vec![error.to_string()],
            };
            let jobs = self.engine.jobs().await.map_err(say)?;
            if jobs.iter().any(|job| !job.ended()) {
                found.push("a job has not ended".to_owned());
            }
            if found.is_empty() {
                return Ok(());
            }
            if second % 100 == 50 {
                self.world.release();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err(format!("no rest: {found:?}"))
    }

    /// The machines that were returned to a snapshot in this round, and what the
    /// snapshots held.
    async fn applied(&mut self, round: &Round) -> Result<Applied, String> {
        let mut applied = Applied::new();
        let jobs = self.engine.jobs().await.map_err(say)?;
        let new = jobs.iter().filter(|job| !self.jobs.contains(&job.id));
        let done =
            |job: &&Job| job.kind == JobKind::ApplySnapshot && job.state == JobState::Completed;
        for job in new.filter(done) {
            for (machine, held) in job
                .snapshot
                .and_then(|id| self.held.get(&id))
                .into_iter()
                .flatten()
            {
                let meant = |act: &Act| match act {
                    Act::Apply(id) => Some(*id) == job.snapshot,
                    Act::ApplyTo(id, only) => Some(*id) == job.snapshot && only == machine,
                    _ => false,
                };
                // One that was refused is not the one that was done.
                let refused = |act: &&Act| {
                    let ends = round.ends.iter().filter(|(of, _)| of == *act);
                    let acts = round.acts.iter().filter(|of| of == act);
                    ends.filter(|(_, end)| end.is_err()).count() == acts.count()
                };
                if round.acts.iter().any(|act| meant(act) && !refused(&act)) {
                    applied.entry(*machine).or_default().push(held.clone());
                }
            }
        }
        self.jobs.extend(jobs.iter().map(|job| job.id));
        Ok(applied)
    }

    fn stood_too_long(&self, round: &Round) -> Result<(), String> {
        let stands = round.acts.iter().any(|act| {
            matches!(
                act,
                Act::Apply(_)
                    | Act::ApplyTo(..)
                    | Act::Turn(_, PowerChange::Pause | PowerChange::Save | PowerChange::Run)
            )
        });
        for (machine, stood) in &round.stood {
            ensure!(
                stands
                    || round.power_before[machine] == Power::Paused
                    || *stood <= Duration::from_secs(21),
                "{machine} stood for {stood:?}"
            );
        }
        Ok(())
    }

    /// What a machine does, when no merge in the background has stopped it for a moment.
    pub(super) async fn power_at_rest(&self, id: MachineId) -> Result<Power, String> {
        let mut is = self.engine.power(id).await.map_err(say)?;
        for _ in 0..20 {
            if is != Power::Paused {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            is = self.engine.power(id).await.map_err(say)?;
        }
        Ok(is)
    }

    async fn power_is_right(
        &self,
        round: &Round,
        snapshots: &[Snapshot],
        applied: bool,
    ) -> Result<(), String> {
        for (id, _) in &self.machines {
            let is = self.power_at_rest(*id).await?;
            let before = round.power_before[id];
            let turned: Vec<_> = round
                .acts
                .iter()
                .filter_map(|act| match act {
                    Act::Turn(machine, change) if machine == id => Some(*change),
                    _ => None,
                })
                .collect();
            let returns = applied
                || round.acts.iter().any(|act| match act {
                    Act::Apply(_) => true,
                    Act::ApplyTo(_, machine) => machine == id,
                    _ => false,
                });
            if turned.is_empty() && !returns {
                let ended = (round.power_lost || round.ended.contains(id)) && is == Power::Off;
                ensure!(is == before || ended, "{id} was {before} and is {is}");
            }
            if is == Power::Paused && before != Power::Paused {
                let paused = turned.contains(&PowerChange::Pause)
                    || returns
                        && snapshots.iter().any(|snapshot| {
                            let members = &snapshot.members;
                            members
                                .iter()
                                .any(|m| m.machine == *id && m.power == Power::Paused)
                        });
                ensure!(
                    paused,
                    "{id} stands, and nobody asked for it: it was {before}"
                );
            }
        }
        Ok(())
    }

    /// Disks hold all that was acknowledged; where a machine was returned, all since.
    async fn nothing_lost(&self, applied: &Applied) -> Result<(), String> {
        for (id, _) in &self.machines {
            let holds = self.holds(*id).await?;
            let written = self.guests.written(*id);
            let Some(held) = applied.get(id) else {
                let expected: Content = written.iter().copied().collect();
                ensure!(holds == expected, "{id} holds {holds:?} of {expected:?}");
                continue;
            };
            let since = |held: &Content| holds.difference(held).copied().collect::<Vec<u64>>();
            let right = |held: &&Content| held.is_subset(&holds) && written.ends_with(&since(held));
            ensure!(
                held.iter().any(|held| right(&held)),
                "{id} was returned to {held:?} and holds {holds:?} of {written:?}"
            );
            self.guests.returned(*id, holds.iter().copied().collect());
        }
        Ok(())
    }

    fn is_one_instant(
        &self,
        name: &str,
        holds: &BTreeMap<MachineId, Content>,
        round: &Round,
    ) -> Result<(), String> {
        for (machine, holds) in holds {
            let written = self.guests.written(*machine);
            let until = written
                .iter()
                .take(holds.len())
                .copied()
                .collect::<Content>();
            ensure!(*holds == until, "a snapshot holds {holds:?} of {written:?}");
            ensure!(
                holds.len() >= round.written_before[machine],
                "a snapshot lacks what was written before it"
            );
        }
        for (first, causes) in holds {
            for (_, effects) in holds.iter().filter(|(second, _)| *second != first) {
                let without = self.guests.without_cause(effects, *first, causes);
                ensure!(
                    without.is_none(),
                    "{name}: an effect without its cause: {without:?}"
                );
            }
        }
        Ok(())
    }

    /// What a machine's disks hold.
    async fn holds(&self, id: MachineId) -> Result<Content, String> {
        let view = self.engine.machine_view(id).await.map_err(say)?;
        let mut holds = Content::new();
        for disk in &view.disks {
            let read = match view.power {
                Power::Off | Power::Saved => self.world.read_view(&disk.chain[0].path),
                _ => self.world.guest_view(id, &disk.name),
            };
            holds.extend(read.map_err(|error| error.to_string())?.into_keys());
        }
        Ok(holds)
    }

    /// The next operations work: all machines run, a snapshot of all is taken and
    /// holds what they hold; with the last snapshot everything of ours is gone.
    pub async fn clear(&mut self) -> Result<(), String> {
        let mut held = BTreeMap::new();
        for (id, _) in self.machines.clone() {
            let change = PowerChange::Run;
            let run = async || self.engine.change_power(id, change, None).await;
            let started = patiently(run).await;
            let started = started.map_err(|error| format!("it does not run: {error}"))?;
            let job = self.engine.wait_job(started).await.map_err(say)?;
            ensure!(job.state == JobState::Completed, "it does not run: {job:?}");
            held.insert(id, self.holds(id).await?);
        }
        let of_all = request(self.targets[0], SnapshotKind::Recovery, Consistency::Crash);
        let create = async || self.engine.create_snapshot(of_all.clone()).await;
        let started = patiently(create).await;
        let started = started.map_err(|error| format!("the next one: {error}"))?;
        let job = self.engine.wait_job(started.job).await.map_err(say)?;
        ensure!(job.state == JobState::Completed, "the next one: {job:?}");
        let taken = self.engine.snapshot(started.snapshot).await.map_err(say)?;
        let holds = content(&self.world, &taken)?;
        ensure!(holds == held, "the next one holds {holds:?} of {held:?}");
        for snapshot in self.engine.snapshots(None).await.map_err(say)? {
            let destroy = async || self.engine.destroy_snapshot(snapshot.id, None).await;
            let started = patiently(destroy).await;
            let started = started.map_err(|error| format!("destroying: {error}"))?;
            let job = self.engine.wait_job(started.job).await.map_err(say)?;
            ensure!(job.state == JobState::Completed, "destroying: {job:?}");
        }
        for point in self.engine.reference_points(None).await.map_err(say)? {
            let destroy = async || self.engine.destroy_reference_point(point.id, None).await;
            let started = patiently(destroy).await;
            let started = started.map_err(|error| format!("destroying: {error}"))?;
            let job = self.engine.wait_job(started.job).await.map_err(say)?;
            ensure!(job.state == JobState::Completed, "destroying: {job:?}");
        }
        self.at_rest().await?;
        for (id, _) in &self.machines {
            let holds = self.holds(*id).await?;
            ensure!(
                holds == held[id],
                "in the end it holds {holds:?} of {:?}",
                held[id]
            );
        }
        let (now, bare) = (self.world.survey(), &self.bare);
        ensure!(
            now.files == bare.files,
            "there were {:?} and are {:?}",
            bare.files,
            now.files
        );
        Ok(())
    }
}
