//! Operations on instances: DSP0200's GetInstance, EnumerateInstances,
//! EnumerateInstanceNames, CreateInstance, ModifyInstance and DeleteInstance.
//!
//! LocalOnly and IncludeQualifiers are deprecated for instances and are taken as
//! false whatever is sent: clients leave LocalOnly out, and the default that
//! DSP0200 has for it would hide inherited properties from them.

use futures::stream::{StreamExt, TryStreamExt};
use isochron_cim::query::Condition;
use isochron_cim::{CimError, Instance, InstanceStream, Name, Property, Status};

use super::{Answer, Item, Operation};

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

    /// The instances of a stream as they are wanted.
    pub fn on(self, found: InstanceStream) -> InstanceStream {
        found.map_ok(move |instance| self.of(instance)).boxed()
    }
}

pub(super) async fn get_instance(op: &Operation) -> Result<Answer, CimError> {
    let view = InstanceView::asked_by(op)?;
    let instance = op
        .server
        .get_instance(&op.cx, &op.path("InstanceName")?)
        .await?;
    Ok(Answer::one(Item::Instance(view.of(instance))))
}

pub(super) async fn enumerate_instances(op: &Operation) -> Result<Answer, CimError> {
    let view = InstanceView::asked_by(op)?;
    let found = of_class(op, None).await?;
    Ok(Answer::instances(view.on(found), Item::NamedInstance))
}

pub(super) async fn enumerate_instance_names(op: &Operation) -> Result<Answer, CimError> {
    let found = of_class(op, None).await?;
    Ok(Answer::paths(found, Item::InstanceName))
}

/// The instances of the class ClassName that fulfil the condition. With
/// DeepInheritance false, of the subclasses' instances only what the class has.
pub(super) async fn of_class(
    op: &Operation,
    condition: Option<Condition>,
) -> Result<InstanceStream, CimError> {
    let class = op.required_name("ClassName")?;
    let deep = op.flag("DeepInheritance", true)?;
    // Before the class is asked for: one that is not there has another error then.
    let found = op.server.enumerate_instances(&op.cx, &class).await?;
    let found = op.filtered(found, condition).await?;
    let known = match deep {
        true => None,
        false => Some(op.server.get_class(&op.cx, &class).await?.properties),
    };
    let Some(known) = known else {
        return Ok(with_paths(found));
    };
    let shallow = move |mut instance: Instance| {
        let properties = &mut instance.properties;
        properties.retain(|name, _| known.contains_key(name));
        instance
    };
    Ok(with_paths(found.map_ok(shallow).boxed()))
}

pub(super) async fn create_instance(op: &Operation) -> Result<Answer, CimError> {
    let mut instance = op.instance("NewInstance")?;
    instance.path = None;
    let path = op.server.create_instance(&op.cx, instance).await?;
    Ok(Answer::one(Item::InstanceName(path)))
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

/// The stream, which ends with an error where an instance does not know its path.
pub(super) fn with_paths(found: InstanceStream) -> InstanceStream {
    let checked = |instance: Instance| {
        std::future::ready(match &instance.path {
            Some(_) => Ok(instance),
            None => Err(CimError::failed(format!(
                "a provider gave an instance of {} without path",
                instance.class
            ))),
        })
    };
    found.and_then(checked).boxed()
}
