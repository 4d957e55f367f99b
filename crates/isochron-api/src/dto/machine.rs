//! Machines on the wire, as they are now.

use std::path::PathBuf;

use isochron_engine::{MachineView, model};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Definition, ImageFormat, same_variants};

/// A machine, in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineSummary {
    /// Its identifier, also the guest's SMBIOS UUID.
    pub id: Uuid,
    /// Its name, unique among machines.
    pub name: String,
    /// Who starts its process.
    pub origin: Origin,
    /// What it does; null when that cannot be told.
    pub power: Option<Power>,
    /// Why `power` cannot be told.
    pub problem: Option<String>,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// How many disks it has.
    pub disks: usize,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    /// Its identifier, also the guest's SMBIOS UUID.
    pub id: Uuid,
    /// Its name, unique among machines.
    pub name: String,
    /// Who starts its process.
    pub origin: Origin,
    /// Where an attached machine is reached: its QMP socket.
    #[schema(value_type = Option<String>)]
    pub qmp: Option<PathBuf>,
    /// Its guest agent's socket.
    #[schema(value_type = Option<String>)]
    pub guest_agent: Option<PathBuf>,
    /// What it does.
    pub power: Power,
    /// Its process, where it is known.
    pub process_id: Option<u32>,
    /// Its disks, each with the chain of its layers.
    pub disks: Vec<Disk>,
    /// What it is made of.
    pub definition: Definition,
    /// The snapshot that it was last returned to or that was last taken of it.
    pub current: Option<Uuid>,
    /// The snapshot that was last applied to it.
    pub last_applied: Option<Uuid>,
    /// Free text of its owner.
    pub notes: String,
    /// When it was defined.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// Who starts a machine's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// We do, from its definition.
    Launched,
    /// Its owner did.
    Attached,
}

/// Whether a machine executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Its processors run.
    Running,
    /// It has a process and memory, but its processors stand.
    Paused,
    /// It has no process.
    Off,
    /// It has no process; its memory is in a file, from which it goes on.
    Saved,
}

/// A disk as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Disk {
    /// Its name.
    pub name: String,
    /// The file that the guest writes to: what an attached machine has to be
    /// started from by its owner. Null where the chain is not known.
    #[schema(value_type = Option<String>)]
    pub active: Option<PathBuf>,
    /// Its layers, the active one first.
    pub chain: Vec<Layer>,
    /// Why it cannot be snapshotted, if it cannot.
    pub excluded: Option<String>,
}

/// One image file of a disk's chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Layer {
    /// Its identifier.
    pub id: Uuid,
    /// The file.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
}

/// A machine to be made known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NewMachine {
    /// One that the daemon will start.
    Define(Definition),
    /// One that the daemon will start from the memory of another, or of itself before.
    DefineSaved(DefineSaved),
    /// One that its owner has started.
    Attach(Attach),
}

/// A machine that is saved: started, it goes on from its memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DefineSaved {
    /// What it is made of, as when its memory was saved, with the disks of that
    /// instant.
    pub definition: Definition,
    /// The file of its memory, as an export has it. It is the daemon's from now on,
    /// which deletes it when the machine has gone on or is turned off.
    #[schema(value_type = String)]
    pub memory: PathBuf,
}

/// A running QEMU to be attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// The machine's name.
    pub name: String,
    /// Its QMP socket.
    #[schema(value_type = String)]
    pub qmp: PathBuf,
    /// Its guest agent's socket.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub guest_agent: Option<PathBuf>,
}

/// A change of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineChange {
    /// A new name.
    #[serde(default)]
    pub name: Option<String>,
    /// What its owner notes about it, instead of what was noted before.
    #[serde(default)]
    pub notes: Option<String>,
}

same_variants!(
    Power = model::Power {
        Running,
        Paused,
        Off,
        Saved
    }
);

impl From<&model::Origin> for Origin {
    fn from(origin: &model::Origin) -> Self {
        match origin {
            model::Origin::Launched => Self::Launched,
            model::Origin::Attached { .. } => Self::Attached,
        }
    }
}

impl MachineSummary {
    /// A machine, with what was found out about its power.
    pub fn new(
        machine: model::Machine,
        power: Result<model::Power, isochron_engine::EngineError>,
    ) -> Self {
        let (power, problem) = match power {
            Ok(power) => (Some(power.into()), None),
            Err(error) => (None, Some(error.message)),
        };
        Self {
            id: machine.id.0,
            origin: (&machine.origin).into(),
            power,
            problem,
            memory_mib: machine.definition.memory_mib,
            cpus: machine.definition.cpus,
            disks: machine.disks.len(),
            name: machine.name,
        }
    }
}

impl From<MachineView> for Machine {
    fn from(view: MachineView) -> Self {
        let machine = view.machine;
        let origin = (&machine.origin).into();
        let (qmp, guest_agent) = match machine.origin {
            model::Origin::Launched => (None, None),
            model::Origin::Attached { qmp, guest_agent } => (Some(qmp), guest_agent),
        };
        Self {
            id: machine.id.0,
            name: machine.name,
            origin,
            qmp,
            guest_agent,
            power: view.power.into(),
            process_id: view.process_id,
            disks: view
                .disks
                .into_iter()
                .map(|disk| Disk {
                    name: disk.name,
                    active: disk.chain.first().map(|layer| layer.path.clone()),
                    chain: disk
                        .chain
                        .into_iter()
                        .map(|layer| Layer {
                            id: layer.id.0,
                            path: layer.path,
                            format: layer.format.into(),
                        })
                        .collect(),
                    excluded: disk.excluded,
                })
                .collect(),
            definition: machine.definition.into(),
            current: machine.current.map(|id| id.0),
            last_applied: machine.last_applied.map(|id| id.0),
            notes: machine.notes,
            created_at: machine.created_at,
        }
    }
}
