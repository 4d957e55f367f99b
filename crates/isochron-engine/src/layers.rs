//! The tree of layers of a machine's disks, and what nobody needs of it.
//!
//! A layer is needed as it is while a snapshot refers to it or the guest writes
//! to it. One that is not, and that nothing stands on, is deleted. One that is
//! not, and that one layer stands on, takes that layer's content up and its
//! place: two files become one. One on which several stand is kept until only
//! one does.
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

/// The next step; `None` when every layer is needed. `wanted` are the layers that
/// snapshots refer to and that guests write to.
pub(crate) fn next_step(layers: &[Layer], wanted: &HashSet<LayerId>) -> Option<Step> {
    let children = |id: LayerId| layers.iter().filter(move |layer| layer.parent == Some(id));
    for layer in layers.iter().filter(|layer| !wanted.contains(&layer.id)) {
        let mut above = children(layer.id);
        match (above.next(), above.next()) {
            // The first image is its owner's; it is never deleted.
            (None, _) if layer.parent.is_some() => return Some(Step::Delete(layer.clone())),
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
    loop {
        let machine = inner.machine(id).await?;
        let layers = inner.records.layers(id).await?;
        let wanted = wanted(inner, &machine).await?;
        let Some(step) = next_step(&layers, &wanted) else {
            break;
        };
        let told = |percent: u8| {
            // How many steps there will be is not known; each closes half the gap.
            let rest = 100.0 / f64::from(2_u32.saturating_pow(done));
            let at = 100.0 - rest + rest / 2.0 * f64::from(percent) / 100.0;
            progress(at as u8);
        };
        let live = inner.hypervisor.live(&machine).await?;
        let outcome = match &step {
            Step::Delete(layer) => delete(inner, layer).await,
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

async fn delete(inner: &Inner, layer: &Layer) -> Result<(), EngineError> {
    let mut transaction = inner.records.begin().await;
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
    record_merge(inner, top, base, true).await
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
        record_merge(inner, top, base, true).await
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
    discard: bool,
) -> Result<(), EngineError> {
    // Begun first: merges of other machines change the same snapshots.
    let mut transaction = inner.records.begin().await;
    let snapshots = inner.records.list::<Snapshot>().await?;
    let layers = inner.records.layers(top.machine).await?;
    for mut layer in layers
        .into_iter()
        .filter(|layer| layer.parent == Some(top.id))
    {
        layer.parent = Some(base.id);
        transaction.put(&layer)?;
    }
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
    if !inner.records.to_collect().await?.contains(&id) {
        return Ok(()); // no merge was under way
    }
    let machine = inner.machine(id).await?;
    let layers = inner.records.layers(id).await?;
    let wanted = wanted(inner, &machine).await?;
    let truth = live.disks().await?;
    for disk in &machine.disks {
        let Some(truth) = truth.iter().find(|truth| truth.name == disk.name) else {
            continue;
        };
        let chain = chain(&layers, disk.active);
        if let [top, base, ..] = chain.as_slice()
            && truth.path == base.path
            && !wanted.contains(&base.id)
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
            record_merge(inner, top, base, discard).await?;
        }
    }
    Ok(())
}

/// The layers that snapshots refer to and that the guest writes to.
async fn wanted(inner: &Inner, machine: &Machine) -> Result<HashSet<LayerId>, EngineError> {
    let mut wanted: HashSet<LayerId> = machine.disks.iter().map(|disk| disk.active).collect();
    for snapshot in inner.records.list::<Snapshot>().await? {
        for member in snapshot
            .members
            .iter()
            .filter(|member| member.machine == machine.id)
        {
            wanted.extend(member.disks.iter().map(|disk| disk.layer));
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::ImageFormat;

    fn layer(machine: MachineId, parent: Option<LayerId>) -> Layer {
        let id = LayerId::new();
        Layer {
            id,
            machine,
            disk: "data".to_owned(),
            path: format!("/{id}").into(),
            format: ImageFormat::Qcow2,
            parent,
        }
    }

    /// What each layer's file holds: per layer, its own blocks.
    type Files = BTreeMap<LayerId, BTreeMap<u8, u32>>;

    fn read(layers: &[Layer], files: &Files, top: LayerId) -> BTreeMap<u8, u32> {
        let mut content = BTreeMap::new();
        for layer in chain(layers, top).iter().rev() {
            content.extend(files[&layer.id].clone());
        }
        content
    }

    /// Random trees with random layers wanted: the steps end, every layer left is
    /// needed, and what each wanted layer reads as is the same after every step.
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
                            .map(|_| (random(5) as u8, random(1000)))
                            .collect(),
                    )
                })
                .collect();
            // Names that move with a merge, as snapshots' references do.
            let mut wanted: Vec<LayerId> = layers
                .iter()
                .filter(|_| random(3) == 0)
                .map(|l| l.id)
                .collect();
            wanted.push(layers[layers.len() - 1].id);
            let before: Vec<_> = wanted.iter().map(|id| read(&layers, &files, *id)).collect();
            let mut steps = 0;
            while let Some(step) = next_step(&layers, &wanted.iter().copied().collect()) {
                match step {
                    Step::Delete(gone) => {
                        assert!(gone.parent.is_some(), "the owner's image is never deleted");
                        layers.retain(|l| l.id != gone.id);
                    }
                    Step::Merge { top, base } => {
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
                        layers.retain(|l| l.id != top.id);
                    }
                }
                let now: Vec<_> = wanted.iter().map(|id| read(&layers, &files, *id)).collect();
                assert_eq!(now, before);
                steps += 1;
                assert!(steps < 20);
            }
            for l in &layers {
                let above = layers
                    .iter()
                    .filter(|other| other.parent == Some(l.id))
                    .count();
                assert!(wanted.contains(&l.id) || above > 1 || l.parent.is_none());
            }
        }
    }
}
