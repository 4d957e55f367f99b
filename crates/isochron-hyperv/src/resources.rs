//! What a virtual machine is made of, as the settings that Hyper-V has for each thing:
//! its processors, its memory, and its disks, each an image in a drive at a controller.
//!
//! Guests of QEMU have virtio disks without a controller. They are shown as they would be
//! in Hyper-V, at synthetic SCSI controllers, which are what guests there have instead.

use std::path::PathBuf;
use std::sync::Arc;

use isochron_cim::{CimError, ObjectPath};
use isochron_engine::model::{Machine, MachineId};

use crate::lookup::{Provider, found};
use crate::object::{Object, class, settings_id, settings_uuid};

/// How many drives are at one controller (Hyper-V's limit).
const DRIVES: usize = 64;

/// Something that a machine has. Drives and disks are told by their place among the
/// machine's disks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Resource {
    /// Its processors.
    Processors,
    /// Its memory.
    Memory,
    /// A controller of disks.
    Controller(usize),
    /// A drive.
    Drive(usize),
    /// The disk in a drive.
    Disk {
        /// Which drive.
        drive: usize,
        /// The image that the machine writes to.
        image: PathBuf,
    },
}

impl Resource {
    /// Its class.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Processors => class::PROCESSORS,
            Self::Memory => class::MEMORY,
            Self::Controller(_) | Self::Drive(_) => class::RESOURCE,
            Self::Disk { .. } => class::STORAGE,
        }
    }

    /// Its path, without namespace. The InstanceID begins with that of the machine's
    /// settings, as Hyper-V's do.
    pub(crate) fn path(&self, machine: MachineId) -> ObjectPath {
        let at = |drive: &usize| format!(r"scsi\{}\{}", drive / DRIVES, drive % DRIVES);
        let rest = match self {
            Self::Processors => "processor".to_owned(),
            Self::Memory => "memory".to_owned(),
            Self::Controller(index) => format!(r"scsi\{index}"),
            Self::Drive(drive) => format!(r"{}\D", at(drive)),
            Self::Disk { drive, .. } => format!(r"{}\L", at(drive)),
        };
        let id = format!(r"{}\{rest}", settings_id(machine));
        ObjectPath::class(self.class()).with_key("InstanceID", id)
    }

    /// What it is at or in.
    pub(crate) fn parent(&self) -> Option<Self> {
        match self {
            Self::Processors | Self::Memory | Self::Controller(_) => None,
            Self::Drive(drive) => Some(Self::Controller(drive / DRIVES)),
            Self::Disk { drive, .. } => Some(Self::Drive(*drive)),
        }
    }

    /// Where it is on its parent.
    pub(crate) fn address(&self) -> Option<usize> {
        match self {
            Self::Processors | Self::Memory | Self::Controller(_) => None,
            Self::Drive(drive) => Some(drive % DRIVES),
            Self::Disk { .. } => Some(0),
        }
    }
}

/// The machine whose resource has this InstanceID.
pub(crate) fn owner(instance_id: &str) -> Option<uuid::Uuid> {
    let (settings, _) = instance_id.split_once('\\')?;
    settings_uuid(settings)
}

impl Provider {
    /// What a machine is made of. There is a controller even where nothing is at it.
    pub(crate) async fn resources(&self, machine: &Arc<Machine>) -> Result<Vec<Object>, CimError> {
        // It may be gone since.
        let Some(disks) = found(self.engine.disks(machine.id).await)? else {
            return Ok(Vec::new());
        };
        let controllers = disks.len().div_ceil(DRIVES).max(1);
        let mut resources = vec![Resource::Processors, Resource::Memory];
        resources.extend((0..controllers).map(Resource::Controller));
        for (drive, disk) in disks.iter().enumerate() {
            resources.push(Resource::Drive(drive));
            let image = disk.chain.first().map(|layer| layer.path.clone());
            resources.extend(image.map(|image| Resource::Disk { drive, image }));
        }
        let of_machine = |resource| Object::Resource(machine.clone(), resource);
        Ok(resources.into_iter().map(of_machine).collect())
    }
}
