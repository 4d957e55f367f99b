//! Operations on instances: DSP0200's GetInstance, EnumerateInstances,
//! EnumerateInstanceNames, CreateInstance, ModifyInstance and DeleteInstance.
//!
//! LocalOnly and IncludeQualifiers are deprecated for instances and are taken as
//! false whatever is sent: clients leave LocalOnly out, and the default that
//! DSP0200 has for it would hide inherited properties from them.

use futures::TryStreamExt;
use isochron_cim::{CimError, Instance, InstanceStream, Name, ObjectPath, Property, Status};

use super::{Answer, Operation};

/// What a client wants to see of an instance.
pub(super) struct InstanceView {
    /// The class that each property originates in.
    include_class_origin: bool,
    /// Only these properties. Names that the instance lacks are of no account.
    property_list: Option<Vec<Name>>,
}

impl InstanceView {
    pub fn asked_by(op: &Operation) -> Result<Self, CimError> {
        // Read for their form alone, see above.
        op.flag("LocalOnly", true)?;
        op.flag("IncludeQualifiers", false)?;
        Ok(Self {
            include_class_origin: op.flag("IncludeClassOrigin", false)?,
            property_list: op.property_list()?,
        })
    }

    pub fn of(&self, mut instance: Instance) -> Instance {
        if let Some(names) = &self.property_list {
            instance.properties.retain(|name, _| names.contains(name));
        }
        if !self.include_class_origin {
            for property in instance.properties.values_mut() {
                property.class_origin = None;
            }
        }
        instance
    }
}

pub(super) async fn get_instance(op: &Operation) -> Result<Answer, CimError> {
    let view = InstanceView::asked_by(op)?;
    let instance = op
        .server
        .get_instance(&op.cx, &op.path("InstanceName")?)
        .await?;
    Ok(Answer::Instances(vec![view.of(instance)]))
}

pub(super) async fn enumerate_instances(op: &Operation) -> Result<Answer, CimError> {
    let view = InstanceView::asked_by(op)?;
    let class = op.required_name("ClassName")?;
    // Shallow: the subclasses' instances too, with this class's properties only.
    let known = if op.flag("DeepInheritance", true)? {
        None
    } else {
        Some(op.server.get_class(&op.cx, &class).await?.properties)
    };
    let mut instances = collect(op.server.enumerate_instances(&op.cx, &class).await?).await?;
    for instance in &mut instances {
        if let Some(known) = &known {
            instance
                .properties
                .retain(|name, _| known.contains_key(name));
        }
        *instance = view.of(std::mem::take(instance));
    }
    Ok(Answer::NamedInstances(instances))
}

pub(super) async fn enumerate_instance_names(op: &Operation) -> Result<Answer, CimError> {
    let class = op.required_name("ClassName")?;
    let instances = op.server.enumerate_instances(&op.cx, &class).await?;
    Ok(Answer::InstanceNames(paths(instances).await?))
}

pub(super) async fn create_instance(op: &Operation) -> Result<Answer, CimError> {
    let mut instance = op.instance("NewInstance")?;
    instance.path = None;
    let path = op.server.create_instance(&op.cx, instance).await?;
    Ok(Answer::InstanceNames(vec![path]))
}

pub(super) async fn modify_instance(op: &Operation) -> Result<Answer, CimError> {
    let mut changes = op.instance("ModifiedInstance")?;
    op.flag("IncludeQualifiers", true)?;
    let Some(path) = changes.path.take() else {
        return Err(CimError::invalid_parameter(
            "ModifiedInstance needs the instance's name",
        ));
    };
    if path.class != changes.class {
        return Err(CimError::invalid_parameter(format!(
            "ModifiedInstance names a {} and describes a {}",
            path.class, changes.class
        )));
    }
    if let Some(names) = op.property_list()? {
        designate(op, &mut changes, names).await?;
    }
    op.server
        .modify_instance(&op.cx, &op.located(path), changes)
        .await?;
    Ok(Answer::Nothing)
}

/// Leaves the designated properties; one that is designated and not given takes
/// the default that its class declares, if any.
async fn designate(
    op: &Operation,
    changes: &mut Instance,
    names: Vec<Name>,
) -> Result<(), CimError> {
    changes.properties.retain(|name, _| names.contains(name));
    let class = op.server.get_class(&op.cx, &changes.class).await?;
    for name in names {
        let Some(declared) = class.properties.get(&name) else {
            return Err(CimError::new(
                Status::NoSuchProperty,
                format!("{} has no property {name}", class.name),
            ));
        };
        if declared.value.value.is_some() && !changes.properties.contains_key(&name) {
            let value = declared.value.clone();
            changes.properties.insert(
                name,
                Property {
                    value,
                    embedded: None,
                    class_origin: None,
                },
            );
        }
    }
    Ok(())
}

pub(super) async fn delete_instance(op: &Operation) -> Result<Answer, CimError> {
    op.server
        .delete_instance(&op.cx, &op.path("InstanceName")?)
        .await?;
    Ok(Answer::Nothing)
}

/// The instances of a stream, each of which must know its path.
pub(super) async fn collect(stream: InstanceStream) -> Result<Vec<Instance>, CimError> {
    let instances: Vec<_> = stream.try_collect().await?;
    match instances.iter().find(|instance| instance.path.is_none()) {
        Some(instance) => Err(pathless(instance)),
        None => Ok(instances),
    }
}

/// The paths of a stream's instances.
pub(super) async fn paths(stream: InstanceStream) -> Result<Vec<ObjectPath>, CimError> {
    let path = |mut instance: Instance| async move {
        instance.path.take().ok_or_else(|| pathless(&instance))
    };
    stream.and_then(path).try_collect().await
}

fn pathless(instance: &Instance) -> CimError {
    CimError::failed(format!(
        "a provider gave an instance of {} without path",
        instance.class
    ))
}
