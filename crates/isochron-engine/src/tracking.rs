//! What changed on a disk between two instants, and what reference points and
//! snapshots must learn when layers vanish, so that it can be told.
//!
//! A frozen layer's own allocation says what was written above the one beneath it. So
//! two layers of one tree differ at most in what is allocated on the way from each to
//! the layer on which both stand. A reference point remembers a layer, and besides
//! the blocks in which the instant may differ from what that layer's chain reads as:
//!
//! ```text
//!   top is merged into base   points at base: their blocks and those of top
//!                             points at top: are at base, with their blocks
//!   a layer is deleted        points at it: are at the one beneath, with their
//!                             blocks and those of the layer
//! ```
//!
//! The active layer is not merged into one at which points are: what the guest writes
//! to it is what changed since.
//!
//! Files that somebody else changed or replaced say nothing. Each frozen layer's file
//! is known by its identity, which our own merges renew; where it is another, the
//! points and snapshots above it are lost for differences, and say why.

use std::collections::{HashMap, HashSet};

use crate::EngineError;
use crate::engine::Inner;
use crate::layers::chain;
use crate::model::{Changes, Layer, LayerId, MachineId, ReferencePoint, Snapshot};
use crate::ports::{Content, HypervisorError};
use crate::records::{PointChanges, Transaction, changes_key, point_key};
use crate::relations::Of;

/// These layers, each with the identity of its file as it is now.
pub(crate) async fn identified(
    inner: &Inner,
    mut layers: Vec<Layer>,
) -> Result<Vec<Layer>, EngineError> {
    for layer in &mut layers {
        layer.identity = inner.hypervisor.identity(&layer.path).await?;
    }
    Ok(layers)
}

/// Why a layer's file is not what it was, if it is not.
async fn foreign(inner: &Inner, layer: &Layer) -> Result<Option<String>, EngineError> {
    let Some(known) = &layer.identity else {
        return Ok(None);
    };
    let what = match inner.hypervisor.identity(&layer.path).await? {
        None => "is missing",
        Some(now) if (now.inode, now.born) != (known.inode, known.born) => {
            "was replaced by somebody else"
        }
        Some(now) if now != *known => "was changed by somebody else",
        Some(_) => return Ok(None),
    };
    Ok(Some(format!("the file {} {what}", layer.path.display())))
}

/// What a layer's file covers; the inner error where it does not say that.
async fn covers(
    inner: &Inner,
    layer: &Layer,
    base: &Layer,
) -> Result<Result<Changes, String>, EngineError> {
    match inner
        .hypervisor
        .allocated(&layer.file(), &base.file())
        .await
    {
        Ok(changes) => Ok(Ok(changes)),
        Err(HypervisorError::Invalid(reason)) => Ok(Err(reason)),
        Err(error) => Err(error.into()),
    }
}

/// A disk at an instant from which differences are told.
#[derive(Clone, Debug)]
pub(crate) struct Since {
    pub(crate) layer: LayerId,
    /// Blocks that differ besides.
    pub(crate) changes: Changes,
    pub(crate) virtual_size: u64,
    pub(crate) lost: Option<String>,
}

/// What of a disk, frozen in `target`, has to be read to know it beside `base`.
pub(crate) async fn content_since(
    inner: &Inner,
    layers: &[Layer],
    base: &Since,
    target: LayerId,
    virtual_size: u64,
) -> Result<Content, EngineError> {
    let whole = |reason: String| {
        Ok(Content::Full {
            reason: Some(reason),
        })
    };
    if let Some(reason) = &base.lost {
        return whole(reason.clone());
    }
    if base.virtual_size != virtual_size {
        return whole(format!(
            "its size was {} bytes at the base and is {virtual_size} now",
            base.virtual_size
        ));
    }
    let (from, to) = (chain(layers, base.layer), chain(layers, target));
    let common = from
        .iter()
        .find(|layer| to.iter().any(|other| other.id == layer.id));
    let Some(common) = common.map(|layer| layer.id) else {
        return whole("the disk was replaced by another".to_owned());
    };
    let mut seen = HashSet::new();
    for layer in from.iter().chain(&to) {
        if seen.insert(layer.id)
            && let Some(reason) = foreign(inner, layer).await?
        {
            return whole(reason);
        }
    }
    let mut changes = base.changes.clone();
    for way in [&from, &to] {
        for pair in way.windows(2).take_while(|pair| pair[0].id != common) {
            match covers(inner, &pair[0], &pair[1]).await? {
                Ok(covered) => changes |= &covered,
                Err(reason) => return whole(reason),
            }
        }
    }
    Ok(Content::Since(changes))
}

impl Inner {
    /// The reference points of which a machine is a member.
    pub(crate) async fn points_on(
        &self,
        machine: MachineId,
    ) -> Result<Vec<ReferencePoint>, EngineError> {
        self.points_that(Of::PointsOfMachine(machine)).await
    }

    /// The layers of a machine at which reference points are.
    pub(crate) async fn layers_of_points(
        &self,
        machine: MachineId,
    ) -> Result<HashSet<LayerId>, EngineError> {
        let points = self.points_on(machine).await?;
        let members = points.iter().flat_map(|point| &point.members);
        let disks = members
            .filter(|member| member.machine == machine)
            .flat_map(|member| &member.disks);
        Ok(disks.map(|disk| disk.layer).collect())
    }
}

/// What those that stay must learn of a layer that vanishes.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    /// What it covers; the inner error where that cannot be told. Absent where no
    /// point needs it.
    covered: Option<Result<Changes, String>>,
}

/// Before `top` is merged into `base`: records that the files of `base`, and of what
/// stands on `top`, change by our hand from now on.
pub(crate) async fn before_merge(
    inner: &Inner,
    layers: &[Layer],
    top: &Layer,
    base: &Layer,
) -> Result<(), EngineError> {
    let mut reasons = HashMap::new();
    for layer in [top, base] {
        if let Some(reason) = foreign(inner, layer).await? {
            tracing::warn!(%reason, "no difference can be told from what is above it");
            reasons.insert(layer.id, reason);
        }
    }
    // Again after an interruption, what changes now is not taken for a stranger's work.
    let ours = layers.iter().filter(|layer| {
        layer.identity.is_some() && (layer.id == base.id || layer.parent == Some(top.id))
    });
    let ours: Vec<_> = ours.cloned().collect();
    if !ours.is_empty() || !reasons.is_empty() {
        let mut transaction = inner.records.begin().await;
        lose(inner, &mut transaction, layers, top.machine, &reasons).await?;
        for layer in ours {
            transaction.put(&Layer {
                identity: None,
                ..layer
            })?;
        }
        transaction.commit().await?;
    }
    Ok(())
}

/// Asks what must be known when `top` was merged into `base`. Not before: a merge that
/// was interrupted may keep the file of `top` from being read, and the merge that is
/// repeated clears that away. It does not change that file.
pub(crate) async fn of_merge(
    inner: &Inner,
    top: &Layer,
    base: &Layer,
) -> Result<Learnt, EngineError> {
    learn(inner, top, base, base.id).await
}

/// Asks what must be known before `layer`, on which nothing stands, is deleted.
pub(crate) async fn before_deletion(
    inner: &Inner,
    layer: &Layer,
    beneath: &Layer,
) -> Result<Learnt, EngineError> {
    learn(inner, layer, beneath, layer.id).await
}

/// Asks what `layer` covers if there are points at `widened`.
async fn learn(
    inner: &Inner,
    layer: &Layer,
    beneath: &Layer,
    widened: LayerId,
) -> Result<Learnt, EngineError> {
    let needed = inner.layers_of_points(layer.machine).await?;
    let needed = needed.contains(&widened);
    Ok(Learnt {
        covered: match needed {
            true => Some(covers(inner, layer, beneath).await?),
            false => None,
        },
    })
}

/// Marks all that stands on these layers.
async fn lose(
    inner: &Inner,
    transaction: &mut Transaction<'_>,
    layers: &[Layer],
    machine: MachineId,
    reasons: &HashMap<LayerId, String>,
) -> Result<(), EngineError> {
    if reasons.is_empty() {
        return Ok(());
    }
    let reason = |layer: LayerId| {
        let mut chain = chain(layers, layer).into_iter();
        chain.find_map(|layer| reasons.get(&layer.id).cloned())
    };
    for mut point in inner.points_on(machine).await? {
        let before = point.clone();
        let members = point.members.iter_mut().filter(|m| m.machine == machine);
        for disk in members.flat_map(|member| &mut member.disks) {
            disk.lost = disk.lost.take().or_else(|| reason(disk.layer));
        }
        if point != before {
            transaction.put(&point)?;
        }
    }
    for mut snapshot in inner.records.list::<Snapshot>().await? {
        let before = snapshot.clone();
        let members = snapshot.members.iter_mut().filter(|m| m.machine == machine);
        for disk in members.flat_map(|member| &mut member.disks) {
            disk.lost = disk.lost.take().or_else(|| reason(disk.layer));
        }
        if snapshot != before {
            transaction.put(&snapshot)?;
        }
    }
    Ok(())
}

/// `top`'s content is in `base` now: in the transaction that records it, points at
/// either follow.
pub(crate) async fn follow_merge(
    inner: &Inner,
    transaction: &mut Transaction<'_>,
    top: &Layer,
    base: &Layer,
    learnt: Learnt,
) -> Result<(), EngineError> {
    move_points(inner, transaction, top, base.id, base, learnt).await
}

/// `layer` is gone: in the transaction that records it, points at it are at the one
/// beneath.
pub(crate) async fn follow_deletion(
    inner: &Inner,
    transaction: &mut Transaction<'_>,
    layer: &Layer,
    beneath: &Layer,
    learnt: Learnt,
) -> Result<(), EngineError> {
    move_points(inner, transaction, layer, layer.id, beneath, learnt).await
}

/// Points at `gone` are at `stays`; those at `widened` take up what was learnt.
async fn move_points(
    inner: &Inner,
    transaction: &mut Transaction<'_>,
    gone: &Layer,
    widened: LayerId,
    stays: &Layer,
    learnt: Learnt,
) -> Result<(), EngineError> {
    for mut point in inner.points_on(gone.machine).await? {
        let before = point.clone();
        let id = point.id;
        let members = point
            .members
            .iter_mut()
            .filter(|m| m.machine == gone.machine);
        for disk in members.flat_map(|member| &mut member.disks) {
            if disk.layer == widened {
                match &learnt.covered {
                    Some(Ok(covered)) => {
                        let mut changes = transaction.changes(id, gone.machine, &disk.disk).await?;
                        changes |= covered;
                        transaction.put(&PointChanges {
                            point: id,
                            machine: gone.machine,
                            disk: disk.disk.clone(),
                            changes,
                        })?;
                    }
                    Some(Err(reason)) => disk.lost = Some(reason.clone()),
                    // It came here after we had asked, which the gate excludes.
                    None => disk.lost = Some("it was not followed".to_owned()),
                }
            }
            if disk.layer == gone.id {
                disk.layer = stays.id;
                disk.path.clone_from(&stays.path);
                disk.format = stays.format;
            }
        }
        if point != before {
            transaction.put(&point)?;
        }
    }
    Ok(())
}

/// Takes a reference point out of the records, with its blocks.
pub(crate) fn forget(
    transaction: &mut Transaction<'_>,
    point: &ReferencePoint,
) -> Result<(), EngineError> {
    for member in &point.members {
        for disk in &member.disks {
            transaction.delete(changes_key(point.id, member.machine, &disk.disk));
        }
        transaction.needs_collecting(member.machine)?;
    }
    transaction.delete(point_key(point.id));
    Ok(())
}
