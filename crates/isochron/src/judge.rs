//! Judging snapshots from outside: what the stamps of a cut amount to, and what
//! the ring's oracle says of the frozen layers.
//!
//! One snapshot of a whole collection and several snapshots of one member each
//! are judged by the same two functions, or the comparison would be none.

use anyhow::{Context, Result};
use isochron_api::dto::{ImageFormat, Snapshot};
use isochron_engine::model::CutReport;
use isochron_lab::disk::Format;
use isochron_lab::oracle::{self, Image, Verdict};
use isochron_lab::ring::Ring;

use crate::stage::blocking;

/// When one member stood still, by QEMU's own stamps: microseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Stand {
    /// Its STOP.
    pub stopped_us: u64,
    /// Its RESUME.
    pub resumed_us: u64,
}

/// What the stamps of a group of members amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Each member's pause.
    pub pauses_us: Vec<u64>,
    /// Last stop minus first stop.
    pub skew_us: u64,
    /// First resume minus last stop: for so long all stood still at once.
    /// Negative: there was no such moment.
    pub window_us: i64,
    /// Last resume minus first stop: for so long the group did not work.
    pub group_us: u64,
}

impl Figures {
    /// Of members that all stood still once; `None` if there are none.
    pub fn of(stands: &[Stand]) -> Option<Self> {
        let stops = || stands.iter().map(|stand| stand.stopped_us);
        let resumes = || stands.iter().map(|stand| stand.resumed_us);
        let (first_stop, last_stop) = (stops().min()?, stops().max()?);
        let (first_resume, last_resume) = (resumes().min()?, resumes().max()?);
        Some(Self {
            pauses_us: stands
                .iter()
                .map(|stand| stand.resumed_us.saturating_sub(stand.stopped_us))
                .collect(),
            skew_us: last_stop - first_stop,
            window_us: first_resume.cast_signed() - last_stop.cast_signed(),
            group_us: last_resume.saturating_sub(first_stop),
        })
    }

    /// Whether there was a moment at which all stood still.
    pub fn has_instant(&self) -> bool {
        self.window_us >= 0
    }
}

/// When the members of cut reports stood still; every one of them must have.
pub fn stands(cuts: &[CutReport]) -> Result<Vec<Stand>> {
    let members = cuts.iter().flat_map(|cut| &cut.members);
    members
        .map(|member| stand(&member.name, member.stopped_at_us, member.resumed_at_us))
        .collect()
}

/// The same, of snapshots as the JSON API shows them.
pub fn stands_of(snapshots: &[Snapshot]) -> Result<Vec<Stand>> {
    let members = snapshots.iter().flat_map(|snapshot| &snapshot.cut.members);
    members
        .map(|member| stand(&member.vm, member.stopped_at_us, member.resumed_at_us))
        .collect()
}

fn stand(name: &str, stopped_us: Option<u64>, resumed_us: Option<u64>) -> Result<Stand> {
    let missing = |what: &str| format!("the cut report has no {what} of {name}, which ran");
    Ok(Stand {
        stopped_us: stopped_us.with_context(|| missing("STOP"))?,
        resumed_us: resumed_us.with_context(|| missing("RESUME"))?,
    })
}

/// What the oracle says of the layers that snapshots froze, each member being in
/// one of them. They are read with `qemu-img`: the daemon has no part in it but to
/// have named the files.
pub async fn oracle(ring: &Ring, snapshots: &[Snapshot]) -> Result<Verdict> {
    let images = frozen(ring, snapshots)?;
    blocking(move || oracle::judge(&images)).await
}

/// The frozen layers in the order of the ring's members and of their disks.
fn frozen(ring: &Ring, snapshots: &[Snapshot]) -> Result<Vec<Vec<Image>>> {
    let layer = |vm: &str, disk: &str| {
        snapshots
            .iter()
            .flat_map(|snapshot| &snapshot.members)
            .filter(|member| member.vm == vm)
            .flat_map(|member| &member.disks)
            .find(|layer| layer.disk == disk)
            .map(|layer| {
                let format = match layer.format {
                    ImageFormat::Qcow2 => Format::Qcow2,
                    ImageFormat::Raw => Format::Raw,
                };
                Image::new(&layer.layer, format)
            })
            .with_context(|| format!("the snapshot lacks the disk {disk} of {vm}"))
    };
    let members = ring.members.iter().map(|member| &member.definition);
    members
        .map(|vm| {
            vm.disks
                .iter()
                .map(|disk| layer(&vm.name, &disk.name))
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(stands: &[(u64, u64)]) -> Option<Figures> {
        let stands: Vec<Stand> = stands
            .iter()
            .map(|&(stopped_us, resumed_us)| Stand {
                stopped_us,
                resumed_us,
            })
            .collect();
        Figures::of(&stands)
    }

    #[test]
    fn a_barrier_has_a_common_window_and_a_loop_has_none() {
        let barrier = figures(&[(1000, 1500), (1100, 1450), (1050, 1600)]).unwrap();
        assert_eq!(barrier.pauses_us, [500, 350, 550]);
        assert_eq!(
            (barrier.skew_us, barrier.window_us, barrier.group_us),
            (100, 350, 600)
        );
        assert!(barrier.has_instant());
        let in_turn = figures(&[(1000, 1005), (2000, 2005), (3000, 3005)]).unwrap();
        assert_eq!(
            (in_turn.skew_us, in_turn.window_us, in_turn.group_us),
            (2000, -1995, 2005)
        );
        assert!(!in_turn.has_instant());
        assert_eq!(figures(&[]), None);
    }
}
