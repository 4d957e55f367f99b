//! The tree of layers of a machine's disks, and what nobody needs of it.
//!
//! A layer is needed as it is while a snapshot refers to it or the guest writes
//! to it. One that is not, and that nothing stands on, is deleted. One that is
//! not, and that one layer stands on, takes that layer's content up and its
//! place: two files become one. One on which several stand is kept until only
//! one does.
//!
//! A layer at which reference points are is not needed as it is: what is merged into
//! it is added to their blocks (see [`crate::tracking`]). But what a guest writes can
//! not be known before it is written, so the active layer stays on such a layer.
//!
//! Every step can be repeated, and after every step records and files agree, so
//! an interrupted collection goes on where it was. A merge writes into the lower
//! file only where the upper one covers it, and the upper file is deleted only
//! when nothing refers to it: at every moment each chain reads the same.

use std::collections::HashSet;
use std::sync::Arc;

use crate::cut::{dismiss, resume, stop};
use crate::engine::Inner;
use crate::model::{Layer, LayerId, Machine, MachineId, Power, Snapshot};
use crate::ports::{Guarded, LiveMachine};
use crate::records::{layer_key, machine_key};
use crate::tracking::{self, Learnt};
use crate::{EngineError, ErrorKind};

/// A step towards a tree without layers that nobody needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Nothing stands on it.
    Delete(Layer),
    /// `top` is the only layer that stands on `base`.
    Merge {
        /// What is merged.
        top: Layer,
        /// Into what.
        base: Layer,
    },
}

/// What layers are needed for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    /// Snapshots refer to them, reference points keep them as their data, or guests
    /// write to them.
    pub(crate) wanted: HashSet<LayerId>,
    /// Guests write to them.
    pub(crate) active: HashSet<LayerId>,
    /// Differences are told from them.
    pub(crate) followed: HashSet<LayerId>,
}

/// The next step; `None` when every layer is needed.
pub(crate) fn next_step(layers: &[Layer], needs: &Needs) -> Option<Step> {
    let children = |id: LayerId| layers.iter().filter(move |layer| layer.parent == Some(id));
    for layer in layers
        .iter()
        .filter(|layer| !needs.wanted.contains(&layer.id))
    {
        let mut above = children(layer.id);
        match (above.next(), above.next()) {
            // The first image is its owner's; it is never deleted.
            (None, _) if layer.parent.is_some() => return Some(Step::Delete(layer.clone())),
            (Some(top), None)
                if needs.active.contains(&top.id) && needs.followed.contains(&layer.id) => {}
            (Some(top), None) => {
                return Some(Step::Merge {
                    top: top.clone(),
                    base: layer.clone(),
                });
            }
            _ => {}
        }
    }
    None
}

/// A layer's chain, itself first.
pub(crate) fn chain(layers: &[Layer], top: LayerId) -> Vec<Layer> {
    let mut chain: Vec<Layer> = Vec::new();
    let mut next = Some(top);
    while let Some(layer) = layers.iter().find(|layer| Some(layer.id) == next) {
        next = layer.parent;
        chain.push(layer.clone());
        if chain.len() > layers.len() {
            break; // records that form a ring are wrong, but must not hang us
        }
    }
    chain
}

/// Makes every layer of the machine one that is needed. The caller holds the
/// machine. `progress` is told 0 to 100.
pub(crate) async fn collect(
    inner: &Inner,
    id: MachineId,
    progress: &(dyn Fn(u8) + Send + Sync),
) -> Result<(), EngineError> {
    let machine = inner.machine(id).await?;
    if let Some(live) = inner.hypervisor.live(&machine).await? {
        reconcile(inner, id, live.as_ref()).await?;
    }
    let mut done = 0_u32;
    let mut retries = 3;
    let mut remembered = false;
    loop {
        let machine = inner.machine(id).await?;
        let layers = inner.records.layers(id).await?;
        let needs = needs(inner, &machine).await?;
        let Some(step) = next_step(&layers, &needs) else {
            break;
        };
        if !remembered {
            // Whoever made the step possible may not have: a layer that was followed
            // can go when a cut has frozen what stands on it.
            let mut transaction = inner.records.begin().await;
            transaction.needs_collecting(id)?;
            transaction.commit().await?;
            remembered = true;
        }
        let told = |percent: u8| {
            // How many steps there will be is not known; each closes half the gap.
            let rest = 100.0 / f64::from(2_u32.saturating_pow(done));
            let at = 100.0 - rest + rest / 2.0 * f64::from(percent) / 100.0;
            progress(at as u8);
        };
        let live = inner.hypervisor.live(&machine).await?;
        let outcome = match &step {
            Step::Delete(layer) => delete(inner, &layers, layer).await,
            Step::Merge { top, base } => {
                merge(inner, &machine, live.as_ref(), &layers, top, base, &told).await
            }
        };
        match outcome {
            Ok(()) => done += 1,
            // The machine may have gone off or come up in the middle of a step.
            Err(error) if retries > 0 => {
                retries -= 1;
                let before = live.is_some();
                let now = inner.hypervisor.live(&machine).await?.is_some();
                if before == now {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    let mut transaction = inner.records.begin().await;
    transaction.collected(id);
    transaction.commit().await?;
    inner.empty_trash().await;
    Ok(())
}

async fn delete(inner: &Inner, layers: &[Layer], layer: &Layer) -> Result<(), EngineError> {
    let beneath = layers.iter().find(|other| Some(other.id) == layer.parent);
    let learnt = match beneath {
        Some(beneath) => Some((
            beneath,
            tracking::before_deletion(inner, layer, beneath).await?,
        )),
        None => None,
    };
    let mut transaction = inner.records.begin().await;
    if let Some((beneath, learnt)) = learnt {
        tracking::follow_deletion(inner, &mut transaction, layer, beneath, learnt).await?;
    }
    transaction.delete(layer_key(layer.machine, layer.id));
    transaction.discard_layer(layer)?;
    transaction.commit().await
}

async fn merge(
    inner: &Inner,
    machine: &Machine,
    live: Option<&Arc<dyn LiveMachine>>,
    layers: &[Layer],
    top: &Layer,
    base: &Layer,
    progress: &(dyn Fn(u8) + Send + Sync),
) -> Result<(), EngineError> {
    let describe = |error: EngineError| {
        error.of(format!(
            "machine {}: merging {} into {}",
            machine.name,
            top.path.display(),
            base.path.display()
        ))
    };
    tracking::before_merge(inner, layers, top, base)
        .await
        .map_err(describe)?;
    let active = machine
        .disks
        .iter()
        .find(|disk| disk.name == top.disk)
        .map(|disk| disk.active);
    let above = active.and_then(|active| {
        chain(layers, active)
            .into_iter()
            .find(|layer| layer.parent == Some(top.id))
    });
    match (live, above) {
        (Some(live), None) if active == Some(top.id) => {
            return merge_active(inner, machine, live, top, base, progress)
                .await
                .map_err(describe);
        }
        (Some(live), Some(above)) => {
            live.merge(
                &top.disk,
                &top.file(),
                &base.file(),
                &above.file(),
                progress,
            )
            .await
            .map_err(|error| describe(error.into()))?;
        }
        _ => {
            inner
                .hypervisor
                .merge_offline(&top.file(), &base.file())
                .await
                .map_err(|error| describe(error.into()))?;
        }
    }
    // Layers of other branches (and, offline, of this one) stand on the base now.
    for layer in layers.iter().filter(|layer| layer.parent == Some(top.id)) {
        let in_process = live.is_some()
            && active.is_some_and(|active| {
                chain(layers, active)
                    .iter()
                    .any(|in_chain| in_chain.id == layer.id)
            });
        if !in_process {
            inner.hypervisor.rebase(&layer.file(), &base.file()).await?;
        }
    }
    let learnt = tracking::of_merge(inner, top, base)
        .await
        .map_err(describe)?;
    record_merge(inner, top, base, learnt, true).await
}

/// Merges the layer that the guest writes to. The exchange needs the guest to
/// stand for a moment: so that no write can go to the base before the records say
/// that the base is the active layer, whatever dies in between.
async fn merge_active(
    inner: &Inner,
    machine: &Machine,
    live: &Arc<dyn LiveMachine>,
    top: &Layer,
    base: &Layer,
    progress: &(dyn Fn(u8) + Send + Sync),
) -> Result<(), EngineError> {
    let outcome = exchange_active(inner, machine, live, top, base, progress).await;
    if outcome.is_err() {
        // What fails here is done by the next try, which adopts a merge under way.
        if let Err(error) = live.cancel_merge_active(&top.disk).await {
            tracing::warn!(machine = %machine.name, %error, "a merge is not given up yet");
        }
        // Where the exchange had been made, the records follow it.
        if let Err(error) = reconcile(inner, machine.id, live.as_ref()).await {
            tracing::warn!(machine = %machine.name, %error, "its layers are not known yet");
        }
    }
    outcome
}

async fn exchange_active(
    inner: &Inner,
    machine: &Machine,
    live: &Arc<dyn LiveMachine>,
    top: &Layer,
    base: &Layer,
    progress: &(dyn Fn(u8) + Send + Sync),
) -> Result<(), EngineError> {
    let deadlines = inner.config.deadlines;
    live.begin_merge_active(&top.disk, &top.file(), &base.file(), progress)
        .await?;
    let running = live.power().await? == Power::Running;
    let guard = match running {
        true => {
            let member = Guarded {
                machine: machine.id,
                resume: true,
                thaw: false,
            };
            Some(inner.hypervisor.guard(&[member]).await?)
        }
        false => None,
    };
    let exchange = async {
        if let Some(guard) = &guard {
            guard.arm(deadlines.window).await?;
            stop(live.as_ref(), deadlines.stop).await?;
        }
        live.end_merge_active(&top.disk, &base.file()).await?;
        // There is no point at the base of such a merge that would have to learn of it.
        record_merge(inner, top, base, Learnt::default(), true).await
    };
    let outcome = match tokio::time::timeout(deadlines.window.mul_f32(0.75), exchange).await {
        Ok(outcome) => outcome,
        Err(_) => Err(EngineError::new(
            ErrorKind::Timeout,
            "the exchange of the active layer took too long",
        )),
    };
    if running {
        let resumed = resume(live.as_ref(), deadlines.stop).await;
        // Nothing is claimed about this window, so it does not matter who ended it.
        if let Err(error) = dismiss(guard, resumed.is_ok()).await {
            tracing::warn!(machine = %machine.name, %error, "the guard ends without an answer");
        }
        resumed?;
    }
    outcome
}

/// The base has the top's content and takes its place.
async fn record_merge(
    inner: &Inner,
    top: &Layer,
    base: &Layer,
    learnt: Learnt,
    discard: bool,
) -> Result<(), EngineError> {
    // The files that stay frozen are others by our work; that of a guest changes on.
    let machine = inner.machine(top.machine).await?;
    let active = |id: LayerId| machine.disks.iter().any(|disk| disk.active == id);
    let layers = inner.records.layers(top.machine).await?;
    let mut changed = Vec::new();
    for layer in layers.iter().filter(|layer| layer.parent == Some(top.id)) {
        changed.push(Layer {
            parent: Some(base.id),
            ..layer.clone()
        });
    }
    if let Some(base) = layers.iter().find(|layer| layer.id == base.id) {
        changed.push(base.clone());
    }
    for layer in &mut changed {
        layer.identity = match active(layer.id) || active(top.id) {
            true => None,
            false => inner.hypervisor.identity(&layer.path).await?,
        };
    }
    // Begun first: merges of other machines change the same snapshots.
    let mut transaction = inner.records.begin().await;
    let snapshots = inner.records.list::<Snapshot>().await?;
    for layer in &changed {
        transaction.put(layer)?;
    }
    tracking::follow_merge(inner, &mut transaction, top, base, learnt).await?;
    for mut snapshot in snapshots {
        let mut changed = false;
        let disks = snapshot
            .members
            .iter_mut()
            .flat_map(|member| &mut member.disks);
        for disk in disks.filter(|disk| disk.layer == top.id) {
            disk.layer = base.id;
            disk.path.clone_from(&base.path);
            disk.format = base.format;
            changed = true;
        }
        if changed {
            transaction.put(&snapshot)?;
        }
    }
    let mut machine: Machine = transaction.require(&machine_key(top.machine)).await?;
    if machine.disks.iter().any(|disk| disk.active == top.id) {
        machine.set_active(base);
        transaction.put(&machine)?;
    }
    transaction.delete(layer_key(top.machine, top.id));
    if discard {
        transaction.discard_layer(top)?;
    }
    transaction.commit().await
}

/// Makes the records follow a process that has merged its active layer without
/// our having been there to record it: we died between the two.
async fn reconcile(
    inner: &Inner,
    id: MachineId,
    live: &dyn LiveMachine,
) -> Result<(), EngineError> {
    if !inner.records.is_to_collect(id).await? {
        return Ok(()); // no merge was under way
    }
    let machine = inner.machine(id).await?;
    let layers = inner.records.layers(id).await?;
    let needs = needs(inner, &machine).await?;
    let truth = live.disks().await?;
    for disk in &machine.disks {
        let Some(truth) = truth.iter().find(|truth| truth.name == disk.name) else {
            continue;
        };
        let chain = chain(&layers, disk.active);
        if let [top, base, ..] = chain.as_slice()
            && truth.path == base.path
            && !needs.wanted.contains(&base.id)
            // Into such a one we do not merge what a guest writes.
            && !needs.followed.contains(&base.id)
        {
            // What is left of the merge goes first.
            live.cancel_merge_active(&disk.name).await?;
            // The owner of an attached machine may have started it from the wrong
            // file; then the top's file is all that holds its last writes.
            let discard = !machine.attached();
            if !discard {
                tracing::warn!(
                    machine = %machine.name, file = %top.path.display(),
                    "merged while nobody watched; the file is kept, delete it when the guest is well"
                );
            }
            record_merge(inner, top, base, Learnt::default(), discard).await?;
        }
    }
    Ok(())
}

/// What a machine's layers are needed for.
async fn needs(inner: &Inner, machine: &Machine) -> Result<Needs, EngineError> {
    let active: HashSet<LayerId> = machine.disks.iter().map(|disk| disk.active).collect();
    let mut wanted = active.clone();
    for snapshot in inner.records.list::<Snapshot>().await? {
        for member in snapshot
            .members
            .iter()
            .filter(|member| member.machine == machine.id)
        {
            wanted.extend(member.disks.iter().map(|disk| disk.layer));
        }
    }
    let mut followed = HashSet::new();
    for point in inner.points_on(machine.id).await? {
        let members = point.members.iter().filter(|m| m.machine == machine.id);
        let layers = members.flat_map(|member| member.disks.iter().map(|disk| disk.layer));
        followed.extend(layers.clone());
        if point.keeps_data {
            wanted.extend(layers);
        }
    }
    Ok(Needs {
        wanted,
        active,
        followed,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{Changes, ImageFormat};

    fn layer(machine: MachineId, parent: Option<LayerId>) -> Layer {
        let id = LayerId::new();
        Layer {
            id,
            machine,
            disk: "data".to_owned(),
            path: format!("/{id}").into(),
            format: ImageFormat::Qcow2,
            parent,
            identity: None,
        }
    }

    /// What each layer's file holds: per layer, its own blocks.
    type Files = BTreeMap<LayerId, BTreeMap<u64, u32>>;

    fn read(layers: &[Layer], files: &Files, top: LayerId) -> BTreeMap<u64, u32> {
        let mut content = BTreeMap::new();
        for layer in chain(layers, top).iter().rev() {
            content.extend(files[&layer.id].clone());
        }
        content
    }

    fn covered(files: &Files, layer: LayerId) -> Changes {
        let mut changes = Changes::none();
        for block in files[&layer].keys() {
            changes.touch(block * Changes::BLOCK..(block + 1) * Changes::BLOCK);
        }
        changes
    }

    /// A reference point: where it is, what it knows besides, and what was there at its
    /// instant.
    struct Point {
        layer: LayerId,
        changes: Changes,
        held: BTreeMap<u64, u32>,
    }

    /// As `tracking` has it: the blocks of the point, and those of each layer on the
    /// way from it and from the target to where both stand.
    fn since(layers: &[Layer], files: &Files, point: &Point, target: LayerId) -> Changes {
        let (from, to) = (chain(layers, point.layer), chain(layers, target));
        let mut changes = point.changes.clone();
        for (way, other) in [(&from, &to), (&to, &from)] {
            for layer in way.iter().filter(|l| !other.iter().any(|o| o.id == l.id)) {
                changes |= &covered(files, layer.id);
            }
        }
        changes
    }

    /// Random trees with random layers wanted and random points, whose guest goes on
    /// writing: the steps end, every layer left is needed, what each wanted layer reads
    /// as is the same after every step, and for every point and every wanted layer the
    /// blocks that differ are among those that are said to, and no others are said than
    /// have been written since the first of both.
    #[test]
    fn collecting_keeps_what_wanted_layers_read_as() {
        let mut seed = 0x9e37_79b9_u32;
        let mut random = move |below: u32| {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed % below
        };
        for _ in 0..500 {
            let machine = MachineId::new();
            let mut layers = vec![layer(machine, None)];
            for _ in 0..random(9) {
                let parent = layers[random(layers.len() as u32) as usize].id;
                layers.push(layer(machine, Some(parent)));
            }
            let mut files: Files = layers
                .iter()
                .map(|l| {
                    (
                        l.id,
                        (0..random(4))
                            .map(|_| (u64::from(random(9)), random(1000)))
                            .collect(),
                    )
                })
                .collect();
            let before_all = (layers.clone(), files.clone());
            // Names that move with a merge, as snapshots' references do.
            let mut wanted: Vec<LayerId> = layers
                .iter()
                .filter(|_| random(3) == 0)
                .map(|l| l.id)
                .collect();
            let mut active = layers[layers.len() - 1].id;
            wanted.push(active);
            // What was active once stands frozen below; points are only there.
            let mut points: Vec<Point> = layers
                .iter()
                .filter(|l| l.id != active && random(3) == 0)
                .map(|l| Point {
                    layer: l.id,
                    changes: Changes::none(),
                    held: read(&layers, &files, l.id),
                })
                .collect();
            let said_first: Vec<Vec<Changes>> = points
                .iter()
                .map(|p| {
                    wanted
                        .iter()
                        .map(|w| since(&layers, &files, p, *w))
                        .collect()
                })
                .collect();
            let before: Vec<_> = wanted.iter().map(|id| read(&layers, &files, *id)).collect();
            let mut written = Changes::none();
            let mut steps = 0;
            loop {
                let needs = Needs {
                    wanted: wanted.iter().copied().collect(),
                    active: HashSet::from([active]),
                    followed: points.iter().map(|point| point.layer).collect(),
                };
                let Some(step) = next_step(&layers, &needs) else {
                    break;
                };
                match step {
                    Step::Delete(gone) => {
                        let parent = gone.parent.expect("the owner's image is never deleted");
                        for point in points.iter_mut().filter(|p| p.layer == gone.id) {
                            point.changes |= &covered(&files, gone.id);
                            point.layer = parent;
                        }
                        layers.retain(|l| l.id != gone.id);
                    }
                    Step::Merge { top, base } => {
                        for point in &mut points {
                            if point.layer == base.id {
                                assert_ne!(top.id, active, "its writes would be lost");
                                point.changes |= &covered(&files, top.id);
                            } else if point.layer == top.id {
                                point.layer = base.id;
                            }
                        }
                        let blocks = files[&top.id].clone();
                        files.get_mut(&base.id).unwrap().extend(blocks);
                        for l in &mut layers {
                            if l.parent == Some(top.id) {
                                l.parent = Some(base.id);
                            }
                        }
                        wanted
                            .iter_mut()
                            .filter(|id| **id == top.id)
                            .for_each(|id| *id = base.id);
                        if active == top.id {
                            active = base.id;
                        }
                        layers.retain(|l| l.id != top.id);
                    }
                }
                let now: Vec<_> = wanted.iter().map(|id| read(&layers, &files, *id)).collect();
                let frozen = wanted.len() - 1;
                assert_eq!(now[..frozen], before[..frozen]);
                // The guest writes on.
                let block = u64::from(random(9));
                written.touch(block * Changes::BLOCK..(block + 1) * Changes::BLOCK);
                if !wanted[..frozen].contains(&active) {
                    files.get_mut(&active).unwrap().insert(block, 5000 + steps);
                }
                for (point, said_first) in points.iter().zip(&said_first) {
                    for (target, said_first) in wanted.iter().zip(said_first) {
                        let said = since(&layers, &files, point, *target);
                        let now = read(&layers, &files, *target);
                        for block in 0..9 {
                            let byte = block * Changes::BLOCK;
                            let (a, b) = (point.held.get(&block), now.get(&block));
                            assert!(a == b || said.contains(byte), "{block} differs unsaid");
                            // What layers that vanished said of other branches is more.
                            let all = before_all.1.values().any(|f| f.contains_key(&block));
                            assert!(
                                !said.contains(byte)
                                    || said_first.contains(byte)
                                    || written.contains(byte)
                                    || all,
                                "{block} is said to differ and was never written"
                            );
                        }
                    }
                }
                steps += 1;
                assert!(steps < 20);
            }
            for l in &layers {
                let above: Vec<_> = layers
                    .iter()
                    .filter(|other| other.parent == Some(l.id))
                    .collect();
                let followed = points.iter().any(|point| point.layer == l.id);
                assert!(
                    wanted.contains(&l.id)
                        || above.len() > 1
                        || l.parent.is_none()
                        || (followed && above.iter().all(|above| above.id == active))
                );
            }
        }
    }
}
