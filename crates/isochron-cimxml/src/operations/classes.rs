//! Operations on classes and qualifier types: reading them (DSP0200's GetClass,
//! EnumerateClasses, EnumerateClassNames, GetQualifier, EnumerateQualifiers, with
//! its defaults for the flags) and writing them (CreateClass, ModifyClass,
//! DeleteClass, SetQualifier, DeleteQualifier).

use isochron_cim::{CimError, Class, ClassQuery, Name, PropertyDecl};

use super::{Answer, Item, Operation};

/// What a client wants to see of a class.
pub(super) struct ClassView {
    /// Nothing that the class only inherits.
    pub local_only: bool,
    /// Qualifiers, on everything.
    pub include_qualifiers: bool,
    /// The class that each element originates in.
    pub include_class_origin: bool,
    /// Only these properties; methods are not subject to it.
    pub property_list: Option<Vec<Name>>,
}

impl ClassView {
    /// The class with what is wanted of it. A class of origin that is not wanted
    /// becomes the empty name.
    pub fn of(&self, mut class: Class) -> Class {
        let keep = |inherited: bool| !(self.local_only && inherited);
        let listed = |name: &Name| match &self.property_list {
            Some(names) => names.contains(name),
            None => true,
        };
        class
            .properties
            .retain(|name, property| keep(property.propagated) && listed(name));
        class.methods.retain(|_, method| keep(method.propagated));
        let qualifiers = |qualifiers: &mut indexmap::IndexMap<Name, isochron_cim::Qualifier>| {
            qualifiers.retain(|_, q| self.include_qualifiers && keep(q.propagated));
        };
        qualifiers(&mut class.qualifiers);
        for PropertyDecl {
            qualifiers: on,
            class_origin,
            ..
        } in class.properties.values_mut()
        {
            qualifiers(on);
            if !self.include_class_origin {
                *class_origin = Name::default();
            }
        }
        for method in class.methods.values_mut() {
            qualifiers(&mut method.qualifiers);
            for parameter in method.parameters.values_mut() {
                qualifiers(&mut parameter.qualifiers);
            }
            if !self.include_class_origin {
                method.class_origin = Name::default();
            }
        }
        class
    }
}

fn view(op: &Operation) -> Result<ClassView, CimError> {
    Ok(ClassView {
        local_only: op.flag("LocalOnly", true)?,
        include_qualifiers: op.flag("IncludeQualifiers", true)?,
        include_class_origin: op.flag("IncludeClassOrigin", false)?,
        property_list: op.property_list()?,
    })
}

pub(super) async fn get_class(op: &Operation) -> Result<Answer, CimError> {
    let view = view(op)?;
    let class = op
        .server
        .get_class(&op.cx, &op.required_name("ClassName")?)
        .await?;
    Ok(Answer::one(Item::Class(view.of(class))))
}

pub(super) async fn enumerate_classes(op: &Operation) -> Result<Answer, CimError> {
    let view = view(op)?;
    let classes = list(op).await?.into_iter();
    Ok(Answer::all(
        classes.map(|class| view.of(class)),
        Item::Class,
    ))
}

pub(super) async fn enumerate_class_names(op: &Operation) -> Result<Answer, CimError> {
    let classes = list(op).await?.into_iter();
    Ok(Answer::all(
        classes.map(|class| class.name),
        Item::ClassName,
    ))
}

async fn list(op: &Operation) -> Result<Vec<Class>, CimError> {
    let query = ClassQuery {
        below: op.name("ClassName")?,
        deep: op.flag("DeepInheritance", false)?,
    };
    op.server.enumerate_classes(&op.cx, &query).await
}

pub(super) async fn get_qualifier(op: &Operation) -> Result<Answer, CimError> {
    let declared = op
        .server
        .get_qualifier(&op.cx, &op.required_name("QualifierName")?)
        .await?;
    Ok(Answer::one(Item::Qualifier(declared)))
}

pub(super) async fn enumerate_qualifiers(op: &Operation) -> Result<Answer, CimError> {
    let declared = op.server.enumerate_qualifiers(&op.cx).await?;
    Ok(Answer::all(declared, Item::Qualifier))
}

pub(super) async fn create_class(op: &Operation) -> Result<Answer, CimError> {
    let class = op.class("NewClass")?;
    op.server.create_class(&op.cx, class).await?;
    Ok(Answer::Nothing)
}

pub(super) async fn modify_class(op: &Operation) -> Result<Answer, CimError> {
    let class = op.class("ModifiedClass")?;
    op.server.modify_class(&op.cx, class).await?;
    Ok(Answer::Nothing)
}

pub(super) async fn delete_class(op: &Operation) -> Result<Answer, CimError> {
    let class = op.required_name("ClassName")?;
    op.server.delete_class(&op.cx, &class).await?;
    Ok(Answer::Nothing)
}

pub(super) async fn set_qualifier(op: &Operation) -> Result<Answer, CimError> {
    let declared = op.qualifier("QualifierDeclaration")?;
    op.server.set_qualifier(&op.cx, declared).await?;
    Ok(Answer::Nothing)
}

pub(super) async fn delete_qualifier(op: &Operation) -> Result<Answer, CimError> {
    let name = op.required_name("QualifierName")?;
    op.server.delete_qualifier(&op.cx, &name).await?;
    Ok(Answer::Nothing)
}
