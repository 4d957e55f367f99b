//! The plan: a request for a snapshot with every member, disk and setting checked,
//! before anything is touched.

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::join_all;

use crate::engine::Inner;
use crate::gate::Pass;
use crate::model::{
    Collection, Consistency, ImageFormat, Layer, LayerId, Machine, Power, SavedState, Snapshot,
    SnapshotId, SnapshotKind,
};
use crate::ports::{LayerFile, LiveMachine, Swap};
use crate::records::snapshot_key;
use crate::{CreateSnapshot, EngineError, ErrorKind};

/// A checked request.
pub(crate) struct Plan {
    pub(crate) id: SnapshotId,
    pub(crate) name: String,
    pub(crate) collection: Collection,
    pub(crate) kind: SnapshotKind,
    pub(crate) consistency: Consistency,
    pub(crate) members: Vec<Member>,
    /// Keeps everyone else away from collection and members.
    pub(crate) pass: Pass,
}

/// A member that takes part.
pub(crate) struct Member {
    pub(super) machine: Machine,
    pub(super) power: Power,
    pub(super) live: Option<Arc<dyn LiveMachine>>,
    pub(super) disks: Vec<MemberDisk>,
    pub(super) left_out: Vec<String>,
    /// The file that receives its memory.
    pub(super) memory: Option<PathBuf>,
    /// Its memory, if it is saved already.
    pub(super) saved: Option<SavedState>,
}

pub(super) struct MemberDisk {
    pub(super) old: Layer,
    pub(super) overlay: Layer,
    pub(super) virtual_size: Option<u64>,
}

impl Member {
    pub(super) fn swaps(&self) -> Vec<Swap> {
        self.disks
            .iter()
            .map(|disk| Swap {
                disk: disk.overlay.disk.clone(),
                overlay: disk.overlay.file(),
            })
            .collect()
    }

    /// The live side of a member that ran before the cut.
    pub(super) fn running(&self) -> Option<&Arc<dyn LiveMachine>> {
        self.live.as_ref().filter(|_| self.power == Power::Running)
    }

    pub(super) fn error(&self, error: impl Into<EngineError>) -> EngineError {
        error.into().of(format!("member {}", self.machine.name))
    }
}

impl Layer {
    /// The layer's file.
    pub fn file(&self) -> LayerFile {
        LayerFile {
            id: self.id,
            path: self.path.clone(),
            format: self.format,
        }
    }
}

/// Checks a request; touches nothing.
pub(crate) async fn plan(inner: &Inner, request: CreateSnapshot) -> Result<Plan, EngineError> {
    if request.kind == SnapshotKind::Standard
        && request.consistency == Some(Consistency::Application)
    {
        return Err(EngineError::invalid(
            "application consistency is for recovery snapshots: a standard snapshot holds the \
             guests' memory, in which the file systems would stay frozen",
        ));
    }
    let consistency = request.consistency.unwrap_or(Consistency::Crash);
    let collection = inner.collection_or_machine(request.collection).await?;
    let machines = inner.machines_of(&collection).await?;
    if machines.is_empty() {
        return Err(EngineError::state(format!(
            "collection {} has no members; add some first",
            collection.name
        )));
    }
    let id = request.id.unwrap_or_else(SnapshotId::new);
    if inner
        .records
        .get::<Snapshot>(&snapshot_key(id))
        .await?
        .is_some()
    {
        return Err(EngineError::invalid(format!(
            "a snapshot collection {id} exists already; leave the reference out or name an \
             unused identifier"
        )));
    }
    let name = match request.name.as_ref().filter(|name| !name.trim().is_empty()) {
        Some(name) => name.clone(),
        None => format!("{} - ({})", collection.name, inner.timestamp()),
    };
    let pass = inner
        .enter("a snapshot is being taken", &collection, &machines)
        .await?;
    // Records may have changed before the pass was got.
    let collection = inner.collection_or_machine(collection.id).await?;
    let held: Vec<_> = machines.iter().map(|machine| machine.id).collect();
    let machines = inner.machines_of(&collection).await?;
    if !machines.iter().map(|machine| machine.id).eq(held) {
        return Err(EngineError::state(format!(
            "the members of collection {} were changed just now; try again",
            collection.name
        )));
    }
    let members = join_all(machines.into_iter().map(|machine| {
        let name = machine.name.clone();
        let plan = Member::plan(inner, machine, id, consistency, &request);
        async move {
            plan.await
                .map_err(|error| error.of(format!("member {name}")))
        }
    }))
    .await
    .into_iter()
    .collect::<Result<Vec<_>, _>>()?;
    Ok(Plan {
        id,
        name,
        collection,
        kind: request.kind,
        consistency,
        members,
        pass,
    })
}

impl Member {
    async fn plan(
        inner: &Inner,
        machine: Machine,
        id: SnapshotId,
        consistency: Consistency,
        request: &CreateSnapshot,
    ) -> Result<Self, EngineError> {
        let live = inner.hypervisor.live(&machine).await?;
        let power = match &live {
            Some(live) => live.power().await?,
            None if machine.attached() => {
                return Err(EngineError::state(
                    "it is attached, and its management socket cannot be reached; start it, or \
                     take it out of the collection",
                ));
            }
            None => machine.power(None).await?,
        };
        if consistency == Consistency::Application {
            match (power, &live) {
                (Power::Running, Some(live)) if !live.agent_answers().await => {
                    return Err(EngineError::new(
                        ErrorKind::NotSupported,
                        "application consistency needs the guest's agent, which does not answer; \
                         start qemu-guest-agent in the guest, or ask for crash consistency",
                    ));
                }
                (Power::Paused | Power::Saved, _) => {
                    return Err(EngineError::state(format!(
                        "it is {power}, so its file systems cannot be frozen; let it run, or ask \
                         for crash consistency"
                    )));
                }
                _ => {}
            }
        }
        let layers = inner.records.layers(machine.id).await?;
        let truth = match &live {
            Some(live) => live.disks().await?,
            None => Vec::new(),
        };
        let mut disks = Vec::new();
        let mut left_out = Vec::new();
        for disk in &machine.disks {
            if disk.read_only {
                continue;
            }
            if let Some(reason) = &disk.excluded {
                if !request.ignore_excluded_disks {
                    return Err(EngineError::new(
                        ErrorKind::NotSupported,
                        format!(
                            "disk {} cannot be snapshotted: {reason}; set \
                             IgnoreNonSnapshottableDisks to leave it out",
                            disk.name
                        ),
                    ));
                }
                left_out.push(disk.name.clone());
                continue;
            }
            let old = layers
                .iter()
                .find(|layer| layer.id == disk.active)
                .ok_or_else(|| EngineError::failed(format!("disk {} has no layer", disk.name)))?;
            let mut virtual_size = None;
            if live.is_some() {
                let truth = truth
                    .iter()
                    .find(|truth| truth.name == disk.name)
                    .ok_or_else(|| {
                        EngineError::state(format!("it has no disk {} any more", disk.name))
                    })?;
                if truth.path != old.path {
                    return Err(EngineError::state(format!(
                        "its disk {} writes to {}, but its newest layer is {}; start it from \
                         that one",
                        disk.name,
                        truth.path.display(),
                        old.path.display()
                    )));
                }
                virtual_size = Some(truth.virtual_size);
            }
            disks.push(MemberDisk {
                old: old.clone(),
                overlay: overlay_on(old, &layers),
                virtual_size,
            });
        }
        let memory = (request.kind == SnapshotKind::Standard && live.is_some())
            .then(|| inner.memory_file(id, machine.id));
        let saved = (request.kind == SnapshotKind::Standard && live.is_none())
            .then(|| machine.saved.clone())
            .flatten();
        Ok(Self {
            machine,
            power,
            live,
            disks,
            left_out,
            memory,
            saved,
        })
    }
}

/// A new overlay on a layer: its file stands beside the disk's first image.
pub(crate) fn overlay_on(base: &Layer, layers: &[Layer]) -> Layer {
    let mut root = base;
    while let Some(parent) = layers.iter().find(|layer| Some(layer.id) == root.parent) {
        root = parent;
    }
    let id = LayerId::new();
    let stem = root.path.file_stem().unwrap_or_default().to_string_lossy();
    let path = root
        .path
        .with_file_name(format!("{stem}.{}.qcow2", id.0.simple()));
    Layer {
        id,
        path,
        format: ImageFormat::Qcow2,
        parent: Some(base.id),
        ..base.clone()
    }
}
