//! What is served: the engine's records, each as the CIM object that it appears
//! as, with its class and its path. One record may be two objects (a machine is a
//! computer system and has settings).

use std::sync::Arc;

use isochron_cim::ObjectPath;
use isochron_engine::model::{
    Collection, CollectionId, CollectionKind, Job, JobId, JobKind, Machine, MachineId, MemberPoint,
    MemberSnapshot, ReferencePoint, ReferencePointId, Snapshot, SnapshotId,
};

use crate::host::{Fact, Facts};
use crate::resources::Resource;

/// The classes served, in the spelling of the schema.
pub(crate) mod class {
    pub(crate) const COMPUTER_SYSTEM: &str = "Msvm_ComputerSystem";
    pub(crate) const SETTINGS: &str = "Msvm_VirtualSystemSettingData";
    pub(crate) const SYSTEM_COLLECTION: &str = "Msvm_VirtualSystemCollection";
    pub(crate) const MANAGEMENT_COLLECTION: &str = "Msvm_ManagementCollection";
    pub(crate) const SNAPSHOT_COLLECTION: &str = "Msvm_SnapshotCollection";
    pub(crate) const POINT_COLLECTION: &str = "Msvm_ReferencePointCollection";
    pub(crate) const POINT: &str = "Msvm_VirtualSystemReferencePoint";
    pub(crate) const POINT_EXPORT_JOB: &str = "Msvm_CollectionReferencePointExportJob";
    pub(crate) const JOB: &str = "Msvm_ConcreteJob";
    pub(crate) const SNAPSHOT_SERVICE: &str = "Msvm_CollectionSnapshotService";
    pub(crate) const MANAGEMENT_SERVICE: &str = "Msvm_CollectionManagementService";
    pub(crate) const REFERENCE_POINT_SERVICE: &str = "Msvm_CollectionReferencePointService";
    pub(crate) const MACHINE_SNAPSHOT_SERVICE: &str = "Msvm_VirtualSystemSnapshotService";
    pub(crate) const MACHINE_SERVICE: &str = "Msvm_VirtualSystemManagementService";
    pub(crate) const MACHINE_REFERENCE_POINT_SERVICE: &str =
        "Msvm_VirtualSystemReferencePointService";
    pub(crate) const MACHINE_CAPABILITIES: &str = "Msvm_VirtualSystemManagementCapabilities";
    pub(crate) const SNAPSHOT_CAPABILITIES: &str = "Msvm_VirtualSystemSnapshotServiceCapabilities";
    pub(crate) const SUMMARY: &str = "Msvm_SummaryInformation";
    pub(crate) const ERROR: &str = "Msvm_Error";
    pub(crate) const OBJECT_MANAGER: &str = "CIM_ObjectManager";
    pub(crate) const NAMESPACE: &str = "CIM_Namespace";
    pub(crate) const CIMXML: &str = "CIM_CIMXMLCommunicationMechanism";
    pub(crate) const PROFILE: &str = "CIM_RegisteredProfile";
    pub(crate) const RESOURCE: &str = "Msvm_ResourceAllocationSettingData";
    pub(crate) const PROCESSORS: &str = "Msvm_ProcessorSettingData";
    pub(crate) const MEMORY: &str = "Msvm_MemorySettingData";
    pub(crate) const STORAGE: &str = "Msvm_StorageAllocationSettingData";
    pub(crate) const HOST_SYSTEM: &str = "Win32_ComputerSystem";
    pub(crate) const HOST_PRODUCT: &str = "Win32_ComputerSystemProduct";
    pub(crate) const OPERATING_SYSTEM: &str = "Win32_OperatingSystem";
    pub(crate) const HOST_PROCESSOR: &str = "Win32_Processor";
}

/// The value of the key Name of our services and of the object manager.
pub(crate) const SERVICE_NAME: &str = "isochron";
/// What stands before the identifier in the InstanceID of settings.
const SETTINGS_PREFIX: &str = "Microsoft:";
/// The InstanceID of the one profile that is registered.
pub(crate) const PROFILE_ID: &str = "Isochron:ProfileRegistration:1.0.0";

/// A service. Each has one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Takes, applies and destroys snapshots.
    Snapshots,
    /// Defines collections.
    Management,
    /// Remembers instants.
    ReferencePoints,
    /// Takes, applies and destroys snapshots of single machines.
    MachineSnapshots,
    /// Names machines and their snapshots.
    Machines,
    /// Remembers instants of single machines.
    MachineReferencePoints,
}

impl Service {
    pub(crate) const ALL: [Self; 6] = [
        Self::Snapshots,
        Self::Management,
        Self::ReferencePoints,
        Self::MachineSnapshots,
        Self::Machines,
        Self::MachineReferencePoints,
    ];

    /// Its class.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Snapshots => class::SNAPSHOT_SERVICE,
            Self::Management => class::MANAGEMENT_SERVICE,
            Self::ReferencePoints => class::REFERENCE_POINT_SERVICE,
            Self::MachineSnapshots => class::MACHINE_SNAPSHOT_SERVICE,
            Self::Machines => class::MACHINE_SERVICE,
            Self::MachineReferencePoints => class::MACHINE_REFERENCE_POINT_SERVICE,
        }
    }

    /// The class of what is said about what it can do, if anything is.
    pub(crate) fn capabilities(self) -> Option<&'static str> {
        match self {
            Self::MachineSnapshots => Some(class::SNAPSHOT_CAPABILITIES),
            Self::Machines => Some(class::MACHINE_CAPABILITIES),
            _ => None,
        }
    }
}

/// One member's snapshot, in the snapshot of its collection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    /// The whole.
    pub(crate) snapshot: Arc<Snapshot>,
    /// Which of its members.
    index: usize,
}

impl Member {
    /// The members of a snapshot.
    pub(crate) fn all(snapshot: &Arc<Snapshot>) -> impl Iterator<Item = Self> {
        let snapshot = snapshot.clone();
        (0..snapshot.members.len()).map(move |index| Self {
            snapshot: snapshot.clone(),
            index,
        })
    }

    /// The first member of which that holds.
    pub(crate) fn find(
        snapshot: &Arc<Snapshot>,
        which: impl Fn(&MemberSnapshot) -> bool,
    ) -> Option<Self> {
        let index = snapshot.members.iter().position(which)?;
        Some(Self {
            snapshot: snapshot.clone(),
            index,
        })
    }

    /// Its record.
    pub(crate) fn record(&self) -> &MemberSnapshot {
        // The only constructors are above, and a snapshot behind an Arc never changes.
        &self.snapshot.members[self.index]
    }
}

impl Member {
    /// The only part of a single machine's snapshot.
    pub(crate) fn single(snapshot: &Arc<Snapshot>) -> Option<Self> {
        snapshot.of_machine()?;
        Self::all(snapshot).next()
    }
}

/// One member's part of a reference point of its collection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PointPart {
    /// The whole.
    pub(crate) point: Arc<ReferencePoint>,
    /// Which of its members.
    index: usize,
}

impl PointPart {
    /// The parts of a reference point.
    pub(crate) fn all(point: &Arc<ReferencePoint>) -> impl Iterator<Item = Self> {
        let point = point.clone();
        (0..point.members.len()).map(move |index| Self {
            point: point.clone(),
            index,
        })
    }

    /// The first part of which that holds.
    pub(crate) fn find(
        point: &Arc<ReferencePoint>,
        which: impl Fn(&MemberPoint) -> bool,
    ) -> Option<Self> {
        let index = point.members.iter().position(which)?;
        Some(Self {
            point: point.clone(),
            index,
        })
    }

    /// Its record.
    pub(crate) fn record(&self) -> &MemberPoint {
        // As of a Member.
        &self.point.members[self.index]
    }

    /// The only part of a single machine's reference point.
    pub(crate) fn single(point: &Arc<ReferencePoint>) -> Option<Self> {
        point.of_machine()?;
        Self::all(point).next()
    }
}

/// An object served.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Object {
    /// What this host is and has, in Windows' classes.
    Facts(Arc<Facts>, Fact),
    /// This host, as a computer system.
    Host,
    /// A virtual machine, as a computer system.
    Machine(Arc<Machine>),
    /// The settings in force of a virtual machine.
    MachineSettings(Arc<Machine>),
    /// The settings that a member's snapshot holds: in CIM, that is the snapshot.
    MemberSettings(Member),
    /// Something that a virtual machine has, in its settings in force.
    Resource(Arc<Machine>, Resource),
    /// A collection of machines or of collections.
    Collection(Arc<Collection>),
    /// A snapshot of a collection.
    SnapshotCollection(Arc<Snapshot>),
    /// A reference point of a collection.
    PointCollection(Arc<ReferencePoint>),
    /// A machine's part of a reference point.
    Point(PointPart),
    /// A job.
    Job(Arc<Job>),
    /// A service.
    Service(Service),
    /// What a service can do; of one that says so.
    Capabilities(Service),
    /// This server itself.
    Server,
    /// A namespace of this server.
    Namespace(&'static str),
    /// The way in which this server is spoken to.
    CimXml,
    /// The profile that is registered.
    Profile,
}

impl Object {
    /// Its class.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Facts(_, fact) => fact.class(),
            Self::Host | Self::Machine(_) => class::COMPUTER_SYSTEM,
            Self::Resource(_, resource) => resource.class(),
            Self::MachineSettings(_) | Self::MemberSettings(_) => class::SETTINGS,
            Self::Collection(collection) => match collection.kind {
                CollectionKind::Machines => class::SYSTEM_COLLECTION,
                CollectionKind::Collections => class::MANAGEMENT_COLLECTION,
            },
            Self::SnapshotCollection(_) => class::SNAPSHOT_COLLECTION,
            Self::PointCollection(_) => class::POINT_COLLECTION,
            Self::Point(_) => class::POINT,
            Self::Job(job) if exports_point(job) => class::POINT_EXPORT_JOB,
            Self::Job(_) => class::JOB,
            Self::Service(service) => service.class(),
            Self::Capabilities(service) => service.capabilities().unwrap_or_default(),
            Self::Server => class::OBJECT_MANAGER,
            Self::Namespace(_) => class::NAMESPACE,
            Self::CimXml => class::CIMXML,
            Self::Profile => class::PROFILE,
        }
    }

    /// Its path, without namespace. `host` is this host's name.
    pub(crate) fn path(&self, host: &str) -> ObjectPath {
        let class = self.class();
        let path = ObjectPath::class(class);
        let in_system = |path: ObjectPath| {
            path.with_key("SystemCreationClassName", class::COMPUTER_SYSTEM)
                .with_key("SystemName", host)
        };
        match self {
            Self::Facts(facts, fact) => fact.path(facts, host),
            Self::Resource(machine, resource) => resource.path(machine.id),
            Self::Host => path
                .with_key("CreationClassName", class)
                .with_key("Name", host),
            Self::Machine(machine) => path
                .with_key("CreationClassName", class)
                .with_key("Name", machine.id.to_string()),
            Self::MachineSettings(machine) => path.with_key("InstanceID", settings_id(machine.id)),
            Self::MemberSettings(member) => {
                path.with_key("InstanceID", settings_id(member.record().id))
            }
            Self::Collection(collection) => {
                path.with_key("CollectionID", collection.id.to_string())
            }
            Self::SnapshotCollection(snapshot) => snapshot_path(snapshot.id),
            Self::PointCollection(point) => point_collection_path(point.id, point.collection),
            Self::Point(part) => point_path(part.record().id, part.record().machine),
            Self::Job(job) if exports_point(job) => export_job_path(job.id),
            Self::Job(job) => job_path(job.id),
            Self::Service(_) | Self::Server | Self::CimXml => in_system(path)
                .with_key("CreationClassName", class)
                .with_key("Name", SERVICE_NAME),
            Self::Namespace(name) => in_system(path)
                .with_key("ObjectManagerCreationClassName", class::OBJECT_MANAGER)
                .with_key("ObjectManagerName", SERVICE_NAME)
                .with_key("CreationClassName", class)
                .with_key("Name", *name),
            Self::Capabilities(_) => path.with_key("InstanceID", format!("Isochron:{class}")),
            Self::Profile => path.with_key("InstanceID", PROFILE_ID),
        }
    }
}

/// The path of a snapshot collection, which need not be there yet.
pub(crate) fn snapshot_path(id: SnapshotId) -> ObjectPath {
    ObjectPath::class(class::SNAPSHOT_COLLECTION).with_key("CollectionID", id.to_string())
}

/// The path of the snapshot of a single machine, which need not be there yet: it
/// shares its identifier with the whole that it is the only part of.
pub(crate) fn single_path(id: SnapshotId) -> ObjectPath {
    ObjectPath::class(class::SETTINGS).with_key("InstanceID", settings_id(id))
}

/// The path of a reference point of a collection, which need not be there yet.
pub(crate) fn point_collection_path(id: ReferencePointId, collection: CollectionId) -> ObjectPath {
    ObjectPath::class(class::POINT_COLLECTION)
        .with_key("CollectionID", id.to_string())
        .with_key("VirtualSystemCollectionId", collection.to_string())
}

/// The path of a machine's reference point. That of a single machine shares its
/// identifier with the whole that it is the only part of, and need not be there yet.
pub(crate) fn point_path(id: impl std::fmt::Display, machine: MachineId) -> ObjectPath {
    ObjectPath::class(class::POINT)
        .with_key("InstanceID", settings_id(id))
        .with_key("VirtualSystemIdentifier", machine.to_string())
}

/// Whether a job is one of the class that tells of files: the export of a collection's
/// reference point, from the moment when it began.
fn exports_point(job: &Job) -> bool {
    let Some(export) = &job.export else {
        return false;
    };
    let single = match export.machines.as_slice() {
        [only] => job.collection == Some((*only).into()),
        _ => false,
    };
    job.kind == JobKind::ExportReferencePoint && !single
}

/// The path of a job that exports a collection's reference point.
pub(crate) fn export_job_path(id: JobId) -> ObjectPath {
    ObjectPath::class(class::POINT_EXPORT_JOB).with_key("InstanceID", id.to_string())
}

/// The path of any other job.
pub(crate) fn job_path(id: JobId) -> ObjectPath {
    ObjectPath::class(class::JOB).with_key("InstanceID", id.to_string())
}

/// The InstanceID of settings.
pub(crate) fn settings_id(id: impl std::fmt::Display) -> String {
    format!("{SETTINGS_PREFIX}{id}")
}

/// The identifier in an InstanceID of settings.
pub(crate) fn settings_uuid(instance_id: &str) -> Option<uuid::Uuid> {
    let (prefix, rest) = instance_id.split_at_checked(SETTINGS_PREFIX.len())?;
    prefix.eq_ignore_ascii_case(SETTINGS_PREFIX).then_some(())?;
    rest.parse().ok()
}
