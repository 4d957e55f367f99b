//! The plan of an export: what, where to, from which base, checked before anything is
//! touched; and the order that the archive gets, made while members are held.

use std::path::PathBuf;

use uuid::Uuid;

use super::{ExportBase, ExportRequest, Exports};
use crate::engine::Inner;
use crate::gate::Pass;
use crate::layers::chain;
use crate::model::{
    Changes, Definition, ExportId, FinishedExport, LayerId, MachineId, MemoryState, Power,
    ReferencePoint, ReferencePointId, Snapshot, SnapshotId, SnapshotKind,
};
use crate::ports::{ArchiveError, Content, Described, Instant, Order, OrderDisk, OrderMember};
use crate::records::{Exporting, PointChanges, changes_key};
use crate::recovery::files;
use crate::tracking::{Since, content_since};
use crate::{Engine, EngineError};

/// A checked request.
pub(super) struct Plan {
    pub(super) id: ExportId,
    pub(super) request: ExportRequest,
    pub(super) source: Source,
    /// The members and disks that are exported.
    pub(super) chosen: Vec<Member>,
    pub(super) base: Option<Base>,
    /// Keeps everyone else away from collection and members, until all is open.
    pub(super) members: Option<Pass>,
    /// Keeps what is exported.
    pub(super) own: Pass,
}

/// What is exported.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) instant: Instant,
    pub(super) members: Vec<Member>,
    exports: Vec<FinishedExport>,
    keeps_data: bool,
}

/// One member of it.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) machine: MachineId,
    name: String,
    power: Power,
    definition: Definition,
    machine_type: Option<String>,
    memory: Option<MemoryState>,
    disks: Vec<Disk>,
    left_out: Vec<String>,
}

#[derive(Clone)]
struct Disk {
    name: String,
    layer: LayerId,
    /// Of a reference point; of a snapshot its layer's size is asked.
    virtual_size: Option<u64>,
    lost: Option<String>,
}

/// The base of a difference.
pub(super) struct Base {
    /// The snapshot or reference point.
    pub(super) instant: Uuid,
    point: Option<ReferencePointId>,
    members: Vec<Member>,
    directory: PathBuf,
    described: Described,
}

impl From<&Snapshot> for Source {
    fn from(snapshot: &Snapshot) -> Self {
        let members = snapshot.members.iter().map(|member| Member {
            machine: member.machine,
            name: member.machine_name.clone(),
            power: member.power,
            definition: member.definition.clone(),
            machine_type: member.machine_type.clone(),
            memory: member.memory.clone(),
            disks: member
                .disks
                .iter()
                .map(|disk| Disk {
                    name: disk.disk.clone(),
                    layer: disk.layer,
                    virtual_size: None,
                    lost: disk.lost.clone(),
                })
                .collect(),
            left_out: member.left_out.clone(),
        });
        Self {
            members: members.collect(),
            instant: Instant {
                id: snapshot.id.0,
                name: snapshot.name.clone(),
                collection: snapshot.collection,
                collection_name: snapshot.collection_name.clone(),
                kind: snapshot.kind,
                consistency: snapshot.consistency,
                created_at: snapshot.created_at,
                cut: snapshot.cut.clone(),
                notes: snapshot.notes.clone(),
            },
            exports: snapshot.exports.clone(),
            keeps_data: true,
        }
    }
}

impl From<&ReferencePoint> for Source {
    fn from(point: &ReferencePoint) -> Self {
        let members = point.members.iter().map(|member| Member {
            machine: member.machine,
            name: member.machine_name.clone(),
            power: member.power,
            definition: member.definition.clone(),
            machine_type: member.machine_type.clone(),
            memory: None,
            disks: member
                .disks
                .iter()
                .map(|disk| Disk {
                    name: disk.disk.clone(),
                    layer: disk.layer,
                    virtual_size: Some(disk.virtual_size),
                    lost: disk.lost.clone(),
                })
                .collect(),
            left_out: member.left_out.clone(),
        });
        Self {
            members: members.collect(),
            instant: Instant {
                id: point.id.0,
                name: point.name.clone(),
                collection: point.collection,
                collection_name: point.collection_name.clone(),
                kind: SnapshotKind::Recovery,
                consistency: point.consistency,
                created_at: point.created_at,
                cut: point.cut.clone(),
                notes: point.notes.clone(),
            },
            exports: point.exports.clone(),
            keeps_data: point.keeps_data,
        }
    }
}

impl Engine {
    /// Checks a request; touches nothing.
    pub(super) async fn plan_export(
        &self,
        mut request: ExportRequest,
    ) -> Result<Plan, EngineError> {
        let inner = &self.inner;
        if request.merge && request.base.is_none() {
            return Err(EngineError::invalid(
                "merging needs a base with which the changes are merged",
            ));
        }
        if request.base.is_some() && !request.copy_storage {
            return Err(EngineError::invalid(
                "a difference is one of disks, which are to be left out; name no base, or copy \
                 the disks",
            ));
        }
        if request.limit == Some(0) {
            return Err(EngineError::invalid(
                "at 0 bytes a second nothing is copied",
            ));
        }
        if !request.directory.is_absolute() {
            return Err(EngineError::invalid(format!(
                "the path {} is not absolute",
                request.directory.display()
            )));
        }
        request.directory = self.confine(&request.directory).await?;
        let (own, members) = hold(inner, request.what).await?;
        // It may have changed before it was held.
        let source = source(inner, request.what).await?;
        if !source.keeps_data {
            return Err(EngineError::state(format!(
                "the data of reference point {} was removed; it can be the base of a difference, \
                 but not exported itself",
                source.instant.name
            )));
        }
        let under_way = inner.records.list::<Exporting>().await?;
        if under_way
            .iter()
            .any(|other| other.directory == request.directory)
        {
            return Err(EngineError::state(format!(
                "another export to {} is under way",
                request.directory.display()
            )));
        }
        let chosen = chosen(&source.members, &request)?;
        let base = match request.base.take() {
            Some(base) => Some(self.base(base, &source).await?),
            None => None,
        };
        Ok(Plan {
            id: ExportId::new(),
            request,
            source,
            chosen,
            base,
            members: Some(members),
            own,
        })
    }

    /// Finds the base and a finished export of it that can be read.
    async fn base(&self, base: ExportBase, source: &Source) -> Result<Base, EngineError> {
        let inner = &self.inner;
        let (exports, described) = match base {
            ExportBase::Snapshot(id) => (Exports::Snapshot(id), None),
            ExportBase::Point(id) => (Exports::Point(id), None),
            ExportBase::Directory(path) => {
                let path = self.confine(&path).await?;
                let described = inner.archive.describe(&path).await?;
                (owner(inner, &described).await?, Some((path, described)))
            }
        };
        let found = self::source(inner, exports).await?;
        if found.instant.id == source.instant.id {
            return Err(EngineError::invalid(
                "nothing differs from itself; name another base",
            ));
        }
        if found.instant.collection != source.instant.collection {
            return Err(EngineError::invalid(format!(
                "the base {} is of another collection, {}",
                found.instant.name, found.instant.collection_name
            )));
        }
        let described = match described {
            Some(described) => Some(described),
            None => readable(inner, &found.exports).await?,
        };
        let Some((directory, described)) = described else {
            return Err(EngineError::state(format!(
                "no export of the base {} can be read{}; export it first, or name the directory \
                 to which its export was moved",
                found.instant.name,
                match found.exports.first() {
                    Some(newest) => format!(" (the newest was {})", newest.directory.display()),
                    None => String::new(),
                }
            )));
        };
        Ok(Base {
            instant: found.instant.id,
            point: match exports {
                Exports::Snapshot(_) => None,
                Exports::Point(id) => Some(id),
            },
            members: found.members,
            directory,
            described,
        })
    }
}

/// Holds what is exported, and its members.
async fn hold(inner: &Inner, what: Exports) -> Result<(Pass, Pass), EngineError> {
    let doing = "it is being exported";
    Ok(match what {
        Exports::Snapshot(id) => {
            let snapshot = inner.snapshot(id).await?;
            (
                inner.hold_snapshot(doing, &snapshot)?,
                inner.enter_snapshot(doing, &snapshot)?,
            )
        }
        Exports::Point(id) => {
            let point = inner.point(id).await?;
            (
                inner.hold_point(doing, &point)?,
                inner.enter_point(doing, &point)?,
            )
        }
    })
}

async fn source(inner: &Inner, what: Exports) -> Result<Source, EngineError> {
    Ok(match what {
        Exports::Snapshot(id) => Source::from(&inner.snapshot(id).await?),
        Exports::Point(id) => Source::from(&inner.point(id).await?),
    })
}

/// The newest of these exports that can be read.
async fn readable(
    inner: &Inner,
    exports: &[FinishedExport],
) -> Result<Option<(PathBuf, Described)>, EngineError> {
    for export in exports {
        match inner.archive.describe(&export.directory).await {
            Ok(found) if found.id == export.id => {
                return Ok(Some((export.directory.clone(), found)));
            }
            // Another took its place, or it is gone or damaged: there may be an older one.
            Ok(_) | Err(ArchiveError::Invalid(_) | ArchiveError::Damaged(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// What a finished export is of, if that is there still.
async fn owner(inner: &Inner, described: &Described) -> Result<Exports, EngineError> {
    let of = |exports: &[FinishedExport]| exports.iter().any(|export| export.id == described.id);
    let snapshot = SnapshotId(described.instant);
    if inner.snapshot(snapshot).await.is_ok() {
        return Ok(Exports::Snapshot(snapshot));
    }
    let points: Vec<ReferencePoint> = inner.records.list().await?;
    let found = points
        .iter()
        .find(|point| point.id.0 == described.instant || of(&point.exports));
    found.map(|point| Exports::Point(point.id)).ok_or_else(|| {
        EngineError::state(
            "the base's export is of a snapshot or reference point that is gone, so what changed \
             since cannot be told; export in full",
        )
    })
}

/// The members and disks that the caller chose.
fn chosen(members: &[Member], request: &ExportRequest) -> Result<Vec<Member>, EngineError> {
    let Some(choice) = &request.disks else {
        return Ok(members.to_vec());
    };
    if choice.is_empty() {
        return Err(EngineError::invalid("no machine is chosen"));
    }
    let mut chosen: Vec<Member> = Vec::with_capacity(choice.len());
    for choice in choice {
        let member = members.iter().find(|m| m.machine == choice.machine);
        let mut member = member.cloned().ok_or_else(|| {
            EngineError::invalid(format!("machine {} takes no part", choice.machine))
        })?;
        if chosen.iter().any(|other| other.machine == member.machine) {
            return Err(EngineError::invalid(format!(
                "machine {} is chosen twice",
                choice.machine
            )));
        }
        let has = |name: &String| member.disks.iter().any(|disk| disk.name == *name);
        if let Some(missing) = choice.disks.iter().find(|name| !has(name)) {
            return Err(EngineError::invalid(format!(
                "machine {} has no disk {missing} there",
                choice.machine
            )));
        }
        if !choice.disks.is_empty() {
            member
                .disks
                .retain(|disk| choice.disks.contains(&disk.name));
        }
        chosen.push(member);
    }
    Ok(chosen)
}

impl Plan {
    /// What the archive is to write. The members are held.
    pub(super) async fn order(&self, inner: &Inner) -> Result<Order, EngineError> {
        let mut members = Vec::with_capacity(self.chosen.len());
        for member in &self.chosen {
            let layers = inner.records.layers(member.machine).await?;
            let describe = |error: EngineError| error.of(format!("member {}", member.name));
            let mut disks = Vec::with_capacity(member.disks.len());
            for disk in &member.disks {
                let chain = chain(&layers, disk.layer);
                let Some(top) = chain.first() else {
                    return Err(describe(EngineError::failed(format!(
                        "disk {} has lost its layer",
                        disk.name
                    ))));
                };
                let size = inner.hypervisor.virtual_size(&top.file()).await;
                let virtual_size = size.map_err(|error| describe(error.into()))?;
                let content = match &self.base {
                    None => Content::Full { reason: None },
                    Some(base) => base
                        .content(inner, &layers, member.machine, disk, virtual_size)
                        .await
                        .map_err(describe)?,
                };
                disks.push(OrderDisk {
                    name: disk.name.clone(),
                    chain: files(&chain),
                    virtual_size,
                    content,
                });
            }
            members.push(OrderMember {
                machine: member.machine,
                machine_name: member.name.clone(),
                power: member.power,
                definition: member.definition.clone(),
                machine_type: member.machine_type.clone(),
                memory: member.memory.clone(),
                disks,
                left_out: member.left_out.clone(),
            });
        }
        Ok(Order {
            id: self.id,
            directory: self.request.directory.clone(),
            instant: self.source.instant.clone(),
            members,
            base: self.base.as_ref().map(|base| base.directory.clone()),
            merge: self.request.merge,
            copy_storage: self.request.copy_storage,
            limit: self.request.limit,
        })
    }
}

impl Base {
    /// What has to be read of a disk to know it beside the base.
    async fn content(
        &self,
        inner: &Inner,
        layers: &[crate::model::Layer],
        machine: MachineId,
        disk: &Disk,
        virtual_size: u64,
    ) -> Result<Content, EngineError> {
        let whole = |reason: &str| {
            Ok(Content::Full {
                reason: Some(reason.to_owned()),
            })
        };
        if let Some(reason) = &disk.lost {
            return whole(reason);
        }
        let member = self.members.iter().find(|m| m.machine == machine);
        let Some(member) = member else {
            return whole("the machine takes no part in the base");
        };
        let Some(base) = member.disks.iter().find(|base| base.name == disk.name) else {
            return whole("the base does not have it");
        };
        let held = self.described.disks.iter();
        let mut held = held.filter(|(of, name, _)| *of == machine && *name == disk.name);
        let Some((_, _, held)) = held.next() else {
            return whole("the base's export does not have it");
        };
        if *held != virtual_size {
            return whole("its size is another than in the base's export");
        }
        let changes: Option<PointChanges> = match self.point {
            Some(point) => {
                let key = changes_key(point, machine, &disk.name);
                inner.records.get(&key).await?
            }
            None => None,
        };
        let since = Since {
            layer: base.layer,
            changes: changes.map_or_else(Changes::none, |record| record.changes),
            virtual_size: base.virtual_size.unwrap_or(*held),
            lost: base.lost.clone(),
        };
        content_since(inner, layers, &since, disk.layer, virtual_size).await
    }
}
