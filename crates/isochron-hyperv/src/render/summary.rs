//! Msvm_SummaryInformation: the most asked-for of a machine or a snapshot in one
//! instance, as Msvm_VirtualSystemManagementService.GetSummaryInformation tells it.

use isochron_cim::{CimError, DateTime, Instance, Value};
use isochron_engine::model::Power;

use super::machines::{enabled_state, sub_type};
use super::set_some;
use crate::lookup::{Provider, cim_error};
use crate::object::{Member, Object, class};
use crate::schema::Space;

/// RequestedInformation's numbers and the properties that they ask for; 5, 6 and 7
/// are the same image in three sizes.
const REQUESTED: &[(u64, &[&str])] = &[
    (1, &["ElementName"]),
    (2, &["CreationTime"]),
    (3, &["Notes"]),
    (4, &["NumberOfProcessors"]),
    (9, &["VirtualSwitchNames"]),
    (10, &["Version"]),
    (11, &["Shielded"]),
    (100, &["EnabledState"]),
    (103, &["MemoryUsage"]),
    (105, &["UpTime"]),
    (107, &["Snapshots"]),
    (108, &["AsynchronousTasks"]),
    (109, &["HealthState"]),
    (110, &["OperationalStatus"]),
    (111, &["StatusDescriptions"]),
    (114, &["ReplicationMode"]),
    (115, &["ReplicationState"]),
    (116, &["ReplicationHealth"]),
    (120, &["SwapFilesInUse"]),
];

/// Which properties are asked for.
pub(crate) struct Wanted(Option<Vec<u64>>);

impl Wanted {
    /// By the parameter's value: null asks for all.
    pub(crate) fn read(value: Option<&Value>) -> Self {
        let Some(Value::Array(items)) = value else {
            return Self(None);
        };
        Self(Some(
            items.iter().flatten().filter_map(Value::as_u64).collect(),
        ))
    }

    fn has(&self, property: &str) -> bool {
        let Some(numbers) = &self.0 else { return true };
        REQUESTED
            .iter()
            .any(|(number, names)| names.contains(&property) && numbers.contains(number))
    }
}

impl Provider {
    /// The summary of settings; of nothing where nothing was found: its Name is empty.
    pub(crate) async fn summary(
        &self,
        space: &Space,
        object: Option<&Object>,
        wanted: &Wanted,
    ) -> Result<Instance, CimError> {
        let mut summary = Instance::new(class::SUMMARY);
        match object {
            Some(Object::MachineSettings(machine)) => {
                summary.set("Name", machine.id.to_string());
                self.summarize_machine(space, machine, wanted, &mut summary)
                    .await?;
            }
            Some(Object::MemberSettings(member)) => {
                summary.set("Name", member.record().id.to_string());
                summarize_snapshot(member, &mut summary);
            }
            _ => {
                summary.set("Name", "");
            }
        }
        let unasked: Vec<_> = summary
            .properties
            .keys()
            .filter(|name| !name.is("Name") && !wanted.has(name.as_str()))
            .cloned()
            .collect();
        for name in unasked {
            summary.properties.shift_remove(&name);
        }
        if let Some(object) = object {
            let path = object.path(&self.host);
            set_some(&mut summary, "InstanceID", path.key_str("InstanceID"));
        }
        space.repository.complete(summary)
    }

    async fn summarize_machine(
        &self,
        space: &Space,
        machine: &std::sync::Arc<isochron_engine::model::Machine>,
        wanted: &Wanted,
        summary: &mut Instance,
    ) -> Result<(), CimError> {
        let shown = self
            .render(space, &Object::Machine(machine.clone()))
            .await?;
        for name in [
            "ElementName",
            "EnabledState",
            "HealthState",
            "OperationalStatus",
            "StatusDescriptions",
            "ReplicationMode",
            "ReplicationState",
            "ReplicationHealth",
        ] {
            set_some(summary, name, shown.get(name).cloned());
        }
        set_some(
            summary,
            "UpTime",
            shown.get("OnTimeInMilliseconds").cloned(),
        );
        summary
            .set("CreationTime", DateTime::from(machine.created_at))
            .set("Notes", machine.notes.as_str())
            .set("HostComputerSystemName", self.host.as_str())
            .set("Shielded", false)
            .set("SwapFilesInUse", false);
        let definition = &machine.definition;
        if !machine.attached() {
            set_some(
                summary,
                "NumberOfProcessors",
                u16::try_from(definition.cpus).ok(),
            );
            let on = matches!(
                shown.get("EnabledState").and_then(Value::as_u64),
                Some(2 | 32768)
            );
            summary.set("MemoryUsage", if on { definition.memory_mib } else { 0 });
        }
        set_some(
            summary,
            "VirtualSystemSubType",
            sub_type(definition, machine.attached()),
        );
        if wanted.has("Snapshots") {
            let snapshots = self.snapshots().await?;
            let of_machine = snapshots
                .iter()
                .filter_map(|s| Member::find(s, |m| m.machine == machine.id));
            let mut shown = Vec::new();
            for member in of_machine {
                let object = Object::MemberSettings(member);
                shown.push(Some(Value::from(self.render(space, &object).await?)));
            }
            summary.set("Snapshots", Value::Array(shown));
        }
        if wanted.has("AsynchronousTasks") {
            let mut shown = Vec::new();
            for job in self.jobs().await?.into_iter().filter(|job| !job.ended()) {
                let of_machine = match job.collection {
                    Some(id) if id == machine.id.into() => true,
                    Some(id) => self
                        .engine
                        .machines_of(id)
                        .await
                        .unwrap_or_default()
                        .iter()
                        .any(|member| member.id == machine.id),
                    None => false,
                };
                if of_machine {
                    let object = Object::Job(job);
                    shown.push(Some(Value::from(self.render(space, &object).await?)));
                }
            }
            summary.set("AsynchronousTasks", Value::Array(shown));
        }
        Ok(())
    }

    /// The settings of all machines.
    pub(crate) async fn all_settings(&self) -> Result<Vec<Object>, CimError> {
        let machines = self.engine.machines().await.map_err(cim_error)?;
        Ok(machines
            .into_iter()
            .map(|machine| Object::MachineSettings(machine.into()))
            .collect())
    }
}

fn summarize_snapshot(member: &Member, summary: &mut Instance) {
    let (snapshot, record) = (&member.snapshot, member.record());
    let power = match record.memory {
        Some(_) => Power::Saved,
        None => Power::Off,
    };
    summary
        .set("ElementName", snapshot.name.as_str())
        .set("CreationTime", DateTime::from(snapshot.created_at))
        .set("Notes", snapshot.notes.as_str())
        .set("EnabledState", enabled_state(power));
    if record.definition.memory_mib > 0 {
        let cpus = u16::try_from(record.definition.cpus).ok();
        set_some(summary, "NumberOfProcessors", cpus);
    }
}
