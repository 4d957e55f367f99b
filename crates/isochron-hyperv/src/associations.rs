//! How objects hang together: a table of the association classes, each with its
//! two ends and what finds the objects at one end from an object at the other.
//!
//! Msvm_OwningJobElement has no row: a client that asks a job for its associators
//! without a filter takes the one that it finds for the result.

use futures::future::{BoxFuture, FutureExt};
use isochron_cim::{CimError, Instance, Name};
use isochron_engine::model::Affected;

use crate::host::{Fact, Facts};
use crate::lookup::{Provider, cim_error, found, shared};
use crate::object::{Member, Object, PointPart, Service, class};
use crate::render;
use crate::schema::Space;

/// Finds the objects at an end that are linked with an object at the other.
type Walk = for<'a> fn(&'a Provider, &'a Object) -> BoxFuture<'a, Result<Vec<Object>, CimError>>;

/// One end of an association.
pub(crate) struct End {
    /// The reference's name.
    pub(crate) role: &'static str,
    /// The classes served of which objects stand here.
    pub(crate) classes: &'static [&'static str],
    /// The objects here that are linked with one at the other end; none for an
    /// object that does not stand there.
    pub(crate) walk: Walk,
}

/// An association class. Enumerating it starts from all objects of the first end.
pub(crate) struct Association {
    /// Its name.
    pub(crate) class: &'static str,
    /// First and second end.
    pub(crate) ends: [End; 2],
    /// Sets what a link says beside its references.
    pub(crate) describe: fn(first: &Object, second: &Object, link: &mut Instance),
}

impl Association {
    /// Whether a namespace has the class and those at its ends.
    pub(crate) fn is_served(&self, space: &Space) -> bool {
        let ends = self.ends.iter().flat_map(|end| end.classes);
        std::iter::once(&self.class)
            .chain(ends)
            .all(|class| space.repository.get(&Name::fixed(class)).is_some())
    }
}

const COLLECTIONS: &[&str] = &[class::SYSTEM_COLLECTION, class::MANAGEMENT_COLLECTION];
const AFFECTED: &[&str] = &[
    class::SNAPSHOT_COLLECTION,
    class::SETTINGS,
    class::POINT_COLLECTION,
    class::POINT,
    class::COMPUTER_SYSTEM,
    class::SYSTEM_COLLECTION,
    class::MANAGEMENT_COLLECTION,
];
const JOBS: &[&str] = &[class::JOB, class::POINT_EXPORT_JOB];
const SERVICES: &[&str] = &[
    class::SNAPSHOT_SERVICE,
    class::MANAGEMENT_SERVICE,
    class::REFERENCE_POINT_SERVICE,
    class::MACHINE_SNAPSHOT_SERVICE,
    class::MACHINE_SERVICE,
    class::MACHINE_REFERENCE_POINT_SERVICE,
];
const CAPABILITIES: &[&str] = &[class::MACHINE_CAPABILITIES, class::SNAPSHOT_CAPABILITIES];
const MANAGED: &[&str] = &[
    class::COMPUTER_SYSTEM,
    class::SYSTEM_COLLECTION,
    class::MANAGEMENT_COLLECTION,
    class::SNAPSHOT_COLLECTION,
    class::SETTINGS,
    class::POINT_COLLECTION,
    class::POINT,
];

const fn end(role: &'static str, classes: &'static [&'static str], walk: Walk) -> End {
    End {
        role,
        classes,
        walk,
    }
}

const RESOURCES: &[&str] = &[
    class::RESOURCE,
    class::PROCESSORS,
    class::MEMORY,
    class::STORAGE,
];

/// An association that says nothing beside its references.
const fn link(class: &'static str, first: End, second: End) -> Association {
    Association {
        class,
        ends: [first, second],
        describe: |_, _, _| {},
    }
}

/// All associations, in all namespaces.
pub(crate) static ASSOCIATIONS: &[Association] = &[
    link(
        "Msvm_CollectedVirtualSystems",
        end("Collection", &[class::SYSTEM_COLLECTION], |p, o| {
            p.collections_with(o).boxed()
        }),
        end("Member", &[class::COMPUTER_SYSTEM], |p, o| {
            p.machines_in(o).boxed()
        }),
    ),
    link(
        "Msvm_CollectedCollections",
        end("Collection", &[class::MANAGEMENT_COLLECTION], |p, o| {
            p.collections_above(o).boxed()
        }),
        end("Member", COLLECTIONS, |p, o| p.collections_in(o).boxed()),
    ),
    link(
        "Msvm_CollectedSnapshots",
        end("Collection", &[class::SNAPSHOT_COLLECTION], |_, o| {
            ready(whole_of(o))
        }),
        end("Member", &[class::SETTINGS], |_, o| ready(members_of(o))),
    ),
    link(
        "Msvm_SnapshotOfVirtualSystemCollection",
        end("Antecedent", COLLECTIONS, |p, o| {
            p.collection_of_snapshot(o).boxed()
        }),
        end("Dependent", &[class::SNAPSHOT_COLLECTION], |p, o| {
            p.snapshots_of_collection(o).boxed()
        }),
    ),
    link(
        "Msvm_SnapshotOfVirtualSystem",
        end("Antecedent", &[class::COMPUTER_SYSTEM], |p, o| {
            p.machine_of_snapshot(o).boxed()
        }),
        end("Dependent", &[class::SETTINGS], |p, o| {
            p.snapshots_of_machine(o).boxed()
        }),
    ),
    link(
        "Msvm_CollectedReferencePoints",
        end("Collection", &[class::POINT_COLLECTION], |_, o| {
            ready(whole_of_point(o))
        }),
        end("Member", &[class::POINT], |_, o| ready(parts_of_point(o))),
    ),
    link(
        "Msvm_ReferencePointOfVirtualSystemCollection",
        end("Antecedent", COLLECTIONS, |p, o| {
            p.collection_of_point(o).boxed()
        }),
        end("Dependent", &[class::POINT_COLLECTION], |p, o| {
            p.points_of_collection(o).boxed()
        }),
    ),
    link(
        "Msvm_ReferencePointOfVirtualSystem",
        end("Antecedent", &[class::COMPUTER_SYSTEM], |p, o| {
            p.machine_of_point(o).boxed()
        }),
        end("Dependent", &[class::POINT], |p, o| {
            p.points_of_machine(o).boxed()
        }),
    ),
    link(
        "Msvm_LastAppliedSnapshot",
        end("Dependent", &[class::COMPUTER_SYSTEM], |p, o| {
            p.machine_standing_on(o, Stand::Applied).boxed()
        }),
        end("Antecedent", &[class::SETTINGS], |p, o| {
            p.snapshot_stood_on(o, Stand::Applied).boxed()
        }),
    ),
    link(
        "Msvm_MostCurrentSnapshotInBranch",
        end("Antecedent", &[class::COMPUTER_SYSTEM], |p, o| {
            p.machine_standing_on(o, Stand::Current).boxed()
        }),
        end("Dependent", &[class::SETTINGS], |p, o| {
            p.snapshot_stood_on(o, Stand::Current).boxed()
        }),
    ),
    link(
        "Msvm_SettingsDefineState",
        end("ManagedElement", &[class::COMPUTER_SYSTEM], |_, o| {
            ready(machine_of_settings(o))
        }),
        end("SettingData", &[class::SETTINGS], |_, o| {
            ready(settings_of_machine(o))
        }),
    ),
    link(
        "Msvm_VirtualSystemSettingDataComponent",
        end("GroupComponent", &[class::SETTINGS], |_, o| {
            ready(settings_of_resource(o))
        }),
        end("PartComponent", RESOURCES, |p, o| {
            p.resources_of_settings(o).boxed()
        }),
    ),
    Association {
        describe: |_, _, link| {
            // 2: a snapshot's settings are neither in force nor default nor next.
            link.set("IsCurrent", 2_u16)
                .set("IsDefault", 2_u16)
                .set("IsNext", 2_u16);
        },
        ..link(
            "Msvm_ElementSettingData",
            end("ManagedElement", &[class::COMPUTER_SYSTEM], |p, o| {
                p.machine_of_snapshot(o).boxed()
            }),
            end("SettingData", &[class::SETTINGS], |p, o| {
                p.snapshots_of_machine(o).boxed()
            }),
        )
    },
    Association {
        describe: describe_effects,
        ..link(
            "Msvm_AffectedJobElement",
            end("AffectingElement", JOBS, |p, o| p.jobs_affecting(o).boxed()),
            end("AffectedElement", AFFECTED, |p, o| p.affected_by(o).boxed()),
        )
    },
    link(
        "Msvm_ParentChildSettingData",
        end("Antecedent", &[class::SETTINGS], |p, o| {
            p.parent_of_settings(o).boxed()
        }),
        end("Dependent", &[class::SETTINGS], |p, o| {
            p.children_of_settings(o).boxed()
        }),
    ),
    Association {
        describe: |_, _, link| {
            // 3: it is what the service can do now.
            link.set("Characteristics", vec![3_u16]);
        },
        ..link(
            "Msvm_ElementCapabilities",
            end("ManagedElement", SERVICES, |_, o| {
                ready(service_capable_of(o))
            }),
            end("Capabilities", CAPABILITIES, |_, o| {
                ready(capabilities_of(o))
            }),
        )
    },
    Association {
        describe: |_, _, link| {
            // 5: manages.
            link.set("ElementEffects", vec![5_u16]);
        },
        ..link(
            "Msvm_ServiceAffectsElement",
            end("AffectedElement", MANAGED, |p, o| p.managed_by(o).boxed()),
            end("AffectingElement", SERVICES, |_, o| ready(managers_of(o))),
        )
    },
    link(
        "Msvm_HostedService",
        end("Antecedent", &[class::COMPUTER_SYSTEM], |_, o| {
            ready(linked(matches!(o, Object::Service(_)), [Object::Host]))
        }),
        end("Dependent", SERVICES, |_, o| {
            ready(linked(
                *o == Object::Host,
                Service::ALL.map(Object::Service),
            ))
        }),
    ),
    link(
        "Msvm_HostedDependency",
        end("Antecedent", &[class::COMPUTER_SYSTEM], |_, o| {
            ready(linked(matches!(o, Object::Machine(_)), [Object::Host]))
        }),
        end("Dependent", &[class::COMPUTER_SYSTEM], |p, o| {
            p.machines_hosted(o).boxed()
        }),
    ),
    link(
        "CIM_NamespaceInManager",
        end("Antecedent", &[class::OBJECT_MANAGER], |_, o| {
            ready(linked(matches!(o, Object::Namespace(_)), [Object::Server]))
        }),
        end("Dependent", &[class::NAMESPACE], |p, o| {
            let all = p.schema.names().map(Object::Namespace);
            ready(linked(*o == Object::Server, all))
        }),
    ),
    link(
        "CIM_CommMechanismForManager",
        end("Antecedent", &[class::OBJECT_MANAGER], |_, o| {
            ready(linked(*o == Object::CimXml, [Object::Server]))
        }),
        end("Dependent", &[class::CIMXML], |_, o| {
            ready(linked(*o == Object::Server, [Object::CimXml]))
        }),
    ),
    link(
        "CIM_ElementConformsToProfile",
        end("ConformantStandard", &[class::PROFILE], |_, o| {
            ready(linked(*o == Object::Server, [Object::Profile]))
        }),
        end("ManagedElement", &[class::OBJECT_MANAGER], |_, o| {
            ready(linked(*o == Object::Profile, [Object::Server]))
        }),
    ),
    link(
        "Win32_ComputerSystemProcessor",
        end("GroupComponent", &[class::HOST_SYSTEM], |_, o| {
            ready(system_of_processor(o))
        }),
        end("PartComponent", &[class::HOST_PROCESSOR], |_, o| {
            ready(processors_of_system(o))
        }),
    ),
];

/// Which snapshot of those that a machine stands on.
#[derive(Clone, Copy)]
enum Stand {
    /// The one last applied.
    Applied,
    /// The one that the next will grow from.
    Current,
}

fn ready<'a>(objects: Vec<Object>) -> BoxFuture<'a, Result<Vec<Object>, CimError>> {
    futures::future::ready(Ok(objects)).boxed()
}

fn linked(are: bool, objects: impl IntoIterator<Item = Object>) -> Vec<Object> {
    if are {
        objects.into_iter().collect()
    } else {
        Vec::new()
    }
}

fn whole_of(object: &Object) -> Vec<Object> {
    match object {
        Object::MemberSettings(member) if member.snapshot.of_machine().is_none() => {
            vec![Object::SnapshotCollection(member.snapshot.clone())]
        }
        _ => Vec::new(),
    }
}

fn members_of(object: &Object) -> Vec<Object> {
    match object {
        Object::SnapshotCollection(s) => Member::all(s).map(Object::MemberSettings).collect(),
        _ => Vec::new(),
    }
}

fn whole_of_point(object: &Object) -> Vec<Object> {
    match object {
        Object::Point(part) if part.point.of_machine().is_none() => {
            vec![Object::PointCollection(part.point.clone())]
        }
        _ => Vec::new(),
    }
}

fn parts_of_point(object: &Object) -> Vec<Object> {
    match object {
        Object::PointCollection(point) => PointPart::all(point).map(Object::Point).collect(),
        _ => Vec::new(),
    }
}

fn machine_of_settings(object: &Object) -> Vec<Object> {
    match object {
        Object::MachineSettings(machine) => vec![Object::Machine(machine.clone())],
        _ => Vec::new(),
    }
}

fn settings_of_resource(object: &Object) -> Vec<Object> {
    match object {
        Object::Resource(machine, _) => vec![Object::MachineSettings(machine.clone())],
        _ => Vec::new(),
    }
}

fn system_of_processor(object: &Object) -> Vec<Object> {
    match object {
        Object::Facts(facts, Fact::Processor(_)) => {
            vec![Object::Facts(facts.clone(), Fact::System)]
        }
        _ => Vec::new(),
    }
}

fn processors_of_system(object: &Object) -> Vec<Object> {
    match object {
        Object::Facts(facts, Fact::System) => Facts::all(facts)
            .filter(|fact| fact.class() == class::HOST_PROCESSOR)
            .collect(),
        _ => Vec::new(),
    }
}

fn settings_of_machine(object: &Object) -> Vec<Object> {
    match object {
        Object::Machine(machine) => vec![Object::MachineSettings(machine.clone())],
        _ => Vec::new(),
    }
}

fn capabilities_of(object: &Object) -> Vec<Object> {
    match object {
        Object::Service(service) if service.capabilities().is_some() => {
            vec![Object::Capabilities(*service)]
        }
        _ => Vec::new(),
    }
}

fn service_capable_of(object: &Object) -> Vec<Object> {
    match object {
        Object::Capabilities(service) => vec![Object::Service(*service)],
        _ => Vec::new(),
    }
}

/// Which services manage an object: one names it and changes it, another snapshots it
/// or is where its snapshots come from (DSP1042, "CIM_ServiceAffectsElement").
fn managers_of(object: &Object) -> Vec<Object> {
    let services: &[Service] = match object {
        Object::Machine(_) => &[
            Service::Machines,
            Service::MachineSnapshots,
            Service::MachineReferencePoints,
        ],
        Object::Collection(_) => &[
            Service::Management,
            Service::Snapshots,
            Service::ReferencePoints,
        ],
        Object::PointCollection(_) => &[Service::ReferencePoints],
        Object::Point(part) if part.point.of_machine().is_some() => {
            &[Service::MachineReferencePoints]
        }
        Object::SnapshotCollection(_) => &[Service::Snapshots],
        Object::MemberSettings(member) if member.snapshot.of_machine().is_some() => {
            &[Service::MachineSnapshots]
        }
        _ => &[],
    };
    services.iter().copied().map(Object::Service).collect()
}

fn describe_effects(job: &Object, _: &Object, link: &mut Instance) {
    let Object::Job(job) = job else { return };
    let (effect, words) = render::effects(job.kind);
    link.set("ElementEffects", vec![effect])
        .set("OtherElementEffectsDescriptions", vec![words]);
}

/// The walks that ask the engine.
impl Provider {
    async fn collections_with(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let Object::Machine(machine) = object else {
            return Ok(Vec::new());
        };
        let with = shared(self.engine.collections_with(machine.id).await)?;
        Ok(with.into_iter().map(Object::Collection).collect())
    }

    async fn machines_in(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let Object::Collection(collection) = object else {
            return Ok(Vec::new());
        };
        let mut objects = Vec::new();
        for id in &collection.machines {
            objects.extend(found(self.engine.machine(*id).await)?.map(Object::Machine));
        }
        Ok(objects)
    }

    async fn collections_above(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let Object::Collection(member) = object else {
            return Ok(Vec::new());
        };
        let above = shared(self.engine.collections_above(member.id).await)?;
        Ok(above.into_iter().map(Object::Collection).collect())
    }

    async fn collections_in(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let Object::Collection(collection) = object else {
            return Ok(Vec::new());
        };
        let mut objects = Vec::new();
        for id in &collection.collections {
            objects.extend(found(self.engine.collection(*id).await)?.map(Object::Collection));
        }
        Ok(objects)
    }

    async fn collection_of_snapshot(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let Object::SnapshotCollection(snapshot) = object else {
            return Ok(Vec::new());
        };
        let collection = found(self.engine.collection(snapshot.collection).await)?;
        Ok(collection.map(Object::Collection).into_iter().collect())
    }

    async fn snapshots_of_collection(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let Object::Collection(collection) = object else {
            return Ok(Vec::new());
        };
        let snapshots = self
            .engine
            .snapshots(Some(collection.id))
            .await
            .map_err(cim_error)?;
        Ok(snapshots
            .into_iter()
            .map(|s| Object::SnapshotCollection(s.into()))
            .collect())
    }

    async fn collection_of_point(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let Object::PointCollection(point) = object else {
            return Ok(Vec::new());
        };
        let collection = found(self.engine.collection(point.collection).await)?;
        Ok(collection.map(Object::Collection).into_iter().collect())
    }

    async fn points_of_collection(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let Object::Collection(collection) = object else {
            return Ok(Vec::new());
        };
        let points = shared(self.engine.reference_points(Some(collection.id)).await)?;
        Ok(points.into_iter().map(Object::PointCollection).collect())
    }

    async fn machine_of_point(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let Object::Point(part) = object else {
            return Ok(Vec::new());
        };
        let machine = found(self.engine.machine(part.record().machine).await)?;
        Ok(machine.map(Object::Machine).into_iter().collect())
    }

    async fn points_of_machine(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let Object::Machine(machine) = object else {
            return Ok(Vec::new());
        };
        let points = shared(self.engine.reference_points_of_machine(machine.id).await)?;
        let parts = points
            .iter()
            .filter_map(|point| PointPart::find(point, |part| part.machine == machine.id));
        Ok(parts.map(Object::Point).collect())
    }

    async fn machine_of_snapshot(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let Object::MemberSettings(member) = object else {
            return Ok(Vec::new());
        };
        let machine = found(self.engine.machine(member.record().machine).await)?;
        Ok(machine.map(Object::Machine).into_iter().collect())
    }

    async fn snapshots_of_machine(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let Object::Machine(machine) = object else {
            return Ok(Vec::new());
        };
        let snapshots = shared(self.engine.snapshots_of_machine(machine.id).await)?;
        let of_machine = snapshots
            .iter()
            .filter_map(|s| Member::find(s, |m| m.machine == machine.id));
        Ok(of_machine.map(Object::MemberSettings).collect())
    }

    async fn machine_standing_on(
        &self,
        object: &Object,
        stand: Stand,
    ) -> Result<Vec<Object>, CimError> {
        let Object::MemberSettings(member) = object else {
            return Ok(Vec::new());
        };
        let machine = found(self.engine.machine(member.record().machine).await)?;
        let stands = machine.filter(|m| {
            let on = match stand {
                Stand::Applied => m.last_applied,
                Stand::Current => m.current,
            };
            on == Some(member.snapshot.id)
        });
        Ok(stands.map(Object::Machine).into_iter().collect())
    }

    async fn snapshot_stood_on(
        &self,
        object: &Object,
        stand: Stand,
    ) -> Result<Vec<Object>, CimError> {
        let Object::Machine(machine) = object else {
            return Ok(Vec::new());
        };
        let on = match stand {
            Stand::Applied => machine.last_applied,
            Stand::Current => machine.current,
        };
        let member = self.member_of(machine, on).await?;
        Ok(member.map(Object::MemberSettings).into_iter().collect())
    }

    async fn jobs_affecting(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let affected = match object {
            Object::SnapshotCollection(snapshot) => Affected::Snapshot(snapshot.id),
            Object::Collection(collection) => Affected::Collection(collection.id),
            Object::Machine(machine) => Affected::Machine(machine.id),
            Object::MemberSettings(member) if member.snapshot.of_machine().is_some() => {
                Affected::Snapshot(member.snapshot.id)
            }
            Object::PointCollection(point) => Affected::ReferencePoint(point.id),
            Object::Point(part) if part.point.of_machine().is_some() => {
                Affected::ReferencePoint(part.point.id)
            }
            _ => return Ok(Vec::new()),
        };
        let jobs = self.engine.jobs_affecting(affected).into_iter();
        Ok(jobs.map(|job| Object::Job(job.into())).collect())
    }

    /// What a job affects, once it is there: a snapshot that is being taken is not.
    async fn affected_by(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let Object::Job(job) = object else {
            return Ok(Vec::new());
        };
        let element = match job.affected {
            Some(Affected::Snapshot(id)) => {
                self.snapshot(id)
                    .await?
                    .map(|snapshot| match Member::single(&snapshot) {
                        Some(single) => Object::MemberSettings(single),
                        None => Object::SnapshotCollection(snapshot),
                    })
            }
            Some(Affected::Machine(id)) => {
                found(self.engine.machine(id).await)?.map(Object::Machine)
            }
            Some(Affected::Collection(id)) => {
                found(self.engine.collection(id).await)?.map(Object::Collection)
            }
            Some(Affected::ReferencePoint(id)) => {
                self.point(id)
                    .await?
                    .map(|point| match PointPart::single(&point) {
                        Some(single) => Object::Point(single),
                        None => Object::PointCollection(point),
                    })
            }
            None => None,
        };
        Ok(element.into_iter().collect())
    }

    /// The snapshot that settings grew from.
    async fn parent_of_settings(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let parent = match object {
            Object::MachineSettings(machine) => self.current(machine).await?,
            Object::MemberSettings(member) => match member.record().parent {
                Some(parent) => self.member(parent).await?,
                None => None,
            },
            _ => None,
        };
        Ok(parent.map(Object::MemberSettings).into_iter().collect())
    }

    /// The snapshots and the settings in force that grew from a snapshot.
    async fn children_of_settings(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let Object::MemberSettings(parent) = object else {
            return Ok(Vec::new());
        };
        let id = parent.record().id;
        let snapshots = shared(self.engine.snapshots_grown_from(id).await)?;
        let mut children: Vec<_> = snapshots
            .iter()
            .filter_map(|s| Member::find(s, |m| m.parent == Some(id)))
            .map(Object::MemberSettings)
            .collect();
        let machine = found(self.engine.machine(parent.record().machine).await)?;
        let stands = machine.filter(|machine| machine.current == Some(parent.snapshot.id));
        children.extend(stands.map(Object::MachineSettings));
        Ok(children)
    }

    /// What a service manages.
    async fn managed_by(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        let classes: &[&str] = match object {
            Object::Service(Service::Machines) => &[class::COMPUTER_SYSTEM],
            Object::Service(Service::MachineSnapshots) => {
                &[class::COMPUTER_SYSTEM, class::SETTINGS]
            }
            Object::Service(Service::Management) => COLLECTIONS,
            Object::Service(Service::Snapshots) => &[
                class::SYSTEM_COLLECTION,
                class::MANAGEMENT_COLLECTION,
                class::SNAPSHOT_COLLECTION,
            ],
            Object::Service(Service::ReferencePoints) => &[
                class::SYSTEM_COLLECTION,
                class::MANAGEMENT_COLLECTION,
                class::POINT_COLLECTION,
            ],
            Object::Service(Service::MachineReferencePoints) => {
                &[class::COMPUTER_SYSTEM, class::POINT]
            }
            _ => &[],
        };
        let mut managed = Vec::new();
        for class in classes {
            let all = self.all(class).await?.into_iter();
            managed.extend(all.filter(|found| managers_of(found).contains(object)));
        }
        Ok(managed)
    }

    async fn resources_of_settings(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        match object {
            Object::MachineSettings(machine) => self.resources(machine).await,
            _ => Ok(Vec::new()),
        }
    }

    async fn machines_hosted(&self, object: &Object) -> Result<Vec<Object>, CimError> {
        if *object != Object::Host {
            return Ok(Vec::new());
        }
        Ok(self
            .machines()
            .await?
            .into_iter()
            .map(Object::Machine)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use isochron_cim::CimType;

    use super::*;
    use crate::schema::Schema;

    /// A row that names a class, a role or an end that the schema has not would
    /// never be walked, silently.
    #[test]
    fn every_row_is_what_the_schema_says() {
        let schema = Schema::compile(true).unwrap();
        for association in ASSOCIATIONS {
            let mut spaces = schema
                .names()
                .filter_map(|name| schema.find(name))
                .filter(|space| association.is_served(space));
            let space = spaces.next().expect(association.class);
            let class = space
                .repository
                .get(&Name::fixed(association.class))
                .unwrap();
            assert!(class.is_association());
            for end in &association.ends {
                let reference = class
                    .properties
                    .get(&Name::fixed(end.role))
                    .expect(end.role);
                let CimType::Reference(Some(target)) = &reference.value.ty else {
                    panic!("{}.{} is no reference", class.name, end.role);
                };
                for name in end.classes {
                    let found = space.repository.get(&Name::fixed(name)).expect(name);
                    assert_eq!(found.name.as_str(), *name);
                    assert!(space.repository.is_a(&Name::fixed(name), target), "{name}");
                }
            }
            for key in class.keys() {
                assert!(association.ends.iter().any(|end| key.is(end.role)), "{key}");
            }
        }
    }
}
