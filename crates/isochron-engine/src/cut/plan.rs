//! The plan: a request for a snapshot with every member, disk and setting checked,
//! before anything is touched.

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::join_all;

use crate::engine::Inner;
use crate::gate::Pass;
use crate::layers::chain;
use crate::model::{
    Collection, CollectionId, Consistency, ImageFormat, Layer, LayerId, Machine, Power,
    ReferencePoint, ReferencePointId, SavedState, Snapshot, SnapshotId, SnapshotKind,
};
use crate::ports::{LayerFile, LiveMachine, Swap};
use crate::records::{point_key, snapshot_key};
use crate::{CreateSnapshot, EngineError, ErrorKind};

/// What a cut makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Makes {
    /// A snapshot.
    Snapshot(SnapshotId),
    /// A reference point that keeps its data.
    Point(ReferencePointId),
}

/// A request for a cut.
pub(crate) struct Request {
    pub(crate) makes: Makes,
    pub(crate) collection: CollectionId,
    pub(crate) name: Option<String>,
    pub(crate) kind: SnapshotKind,
    pub(crate) consistency: Option<Consistency>,
    pub(crate) ignore_excluded_disks: bool,
}

impl From<CreateSnapshot> for Request {
    fn from(request: CreateSnapshot) -> Self {
        Self {
            makes: Makes::Snapshot(request.id.unwrap_or_else(SnapshotId::new)),
            collection: request.collection,
            name: request.name,
            kind: request.kind,
            consistency: request.consistency,
            ignore_excluded_disks: request.ignore_excluded_disks,
        }
    }
}

/// A checked request.
pub(crate) struct Plan {
    pub(crate) makes: Makes,
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
    /// What becomes active on each of them.
    pub(super) swaps: Vec<Swap>,
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
    /// The disk's first image.
    pub(super) root: LayerId,
    /// Of the layers that are frozen now, those whose files are not known yet.
    pub(super) unidentified: Vec<Layer>,
}

impl Member {
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
pub(crate) async fn plan(inner: &Inner, request: Request) -> Result<Plan, EngineError> {
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
    request.makes.unused(inner).await?;
    let name = match request.name.as_ref().filter(|name| !name.trim().is_empty()) {
        Some(name) => name.clone(),
        None => format!("{} - ({})", collection.name, inner.timestamp()),
    };
    let pass = inner
        .enter(request.makes.what(), &collection, &machines)
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
        let plan = Member::plan(inner, machine, consistency, &request);
        async move {
            plan.await
                .map_err(|error| error.of(format!("member {name}")))
        }
    }))
    .await
    .into_iter()
    .collect::<Result<Vec<_>, _>>()?;
    Ok(Plan {
        makes: request.makes,
        name,
        collection,
        kind: request.kind,
        consistency,
        members,
        pass,
    })
}

impl Makes {
    fn what(self) -> &'static str {
        match self {
            Self::Snapshot(_) => "a snapshot is being taken",
            Self::Point(_) => "a reference point is being created",
        }
    }

    /// `InvalidParameter` where there is one of this identifier.
    async fn unused(self, inner: &Inner) -> Result<(), EngineError> {
        let records = &inner.records;
        let taken = match self {
            Self::Snapshot(id) => {
                let found: Option<Snapshot> = records.get(&snapshot_key(id)).await?;
                found.map(|_| format!("a snapshot collection {id}"))
            }
            Self::Point(id) => {
                let found: Option<ReferencePoint> = records.get(&point_key(id)).await?;
                found.map(|_| format!("a reference point {id}"))
            }
        };
        match taken {
            Some(taken) => Err(EngineError::invalid(format!(
                "{taken} exists already; leave the reference out or name an unused identifier"
            ))),
            None => Ok(()),
        }
    }
}

impl Member {
    async fn plan(
        inner: &Inner,
        machine: Machine,
        consistency: Consistency,
        request: &Request,
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
            if virtual_size.is_none() && matches!(request.makes, Makes::Point(_)) {
                virtual_size = Some(inner.hypervisor.virtual_size(&old.file()).await?);
            }
            let chain = chain(&layers, old.id);
            disks.push(MemberDisk {
                old: old.clone(),
                overlay: overlay_on(old, &layers),
                virtual_size,
                root: chain.last().map_or(old.id, |root| root.id),
                unidentified: chain
                    .into_iter()
                    .filter(|layer| layer.identity.is_none())
                    .collect(),
            });
        }
        let memory = match request.makes {
            Makes::Snapshot(id) if request.kind == SnapshotKind::Standard && live.is_some() => {
                Some(inner.memory_file(id, machine.id))
            }
            _ => None,
        };
        let saved = (request.kind == SnapshotKind::Standard && live.is_none())
            .then(|| machine.saved.clone())
            .flatten();
        let swaps = disks.iter().map(|disk| Swap {
            disk: disk.overlay.disk.clone(),
            overlay: disk.overlay.file(),
        });
        Ok(Self {
            machine,
            power,
            live,
            swaps: swaps.collect(),
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
        identity: None,
        ..base.clone()
    }
}
