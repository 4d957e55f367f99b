//! Operations on one property: DSP0200's GetProperty and SetProperty. They are
//! deprecated; the instance's own operations do the same.

use isochron_cim::{
    CimError, CimType, Instance, Name, Property, PropertyDecl, Status, TypedValue, Value,
};

use super::{Answer, Item, Operation};
use crate::decode::Argument;

pub(super) async fn get_property(op: &Operation) -> Result<Answer, CimError> {
    let path = op.path("InstanceName")?;
    let name = op.required_name("PropertyName")?;
    let mut instance = op.server.get_instance(&op.cx, &path).await?;
    let value = match instance.properties.swap_remove(&name) {
        Some(property) => property.value,
        None => {
            declared(op, &path.class, &name).await?;
            return Ok(Answer::Items(Vec::new()));
        }
    };
    // Null is no element at all.
    let items = value.value.is_some().then_some(Item::Value(value));
    Ok(Answer::Items(items.into_iter().collect()))
}

pub(super) async fn set_property(op: &Operation) -> Result<Answer, CimError> {
    let path = op.path("InstanceName")?;
    let name = op.required_name("PropertyName")?;
    let declared = declared(op, &path.class, &name).await?;
    let value = op.argument("NewValue").map(|given| typed(&declared, given));
    let value = TypedValue {
        value: value.transpose()?,
        ..declared.value
    };
    let mut changes = Instance::new(path.class.clone());
    let property = Property {
        value,
        embedded: None,
        class_origin: None,
    };
    changes.properties.insert(name, property);
    op.server.modify_instance(&op.cx, &path, changes).await?;
    Ok(Answer::Nothing)
}

async fn declared(op: &Operation, class: &Name, name: &Name) -> Result<PropertyDecl, CimError> {
    let mut class = op.server.get_class(&op.cx, class).await?;
    class.properties.swap_remove(name).ok_or_else(|| {
        CimError::new(
            Status::NoSuchProperty,
            format!("{} has no property {name}", class.name),
        )
    })
}

/// A value as the property is declared; the operation sends it without its type.
fn typed(declared: &PropertyDecl, given: &Argument) -> Result<Value, CimError> {
    let wrong = |what: String| CimError::new(Status::TypeMismatch, what);
    let ty = &declared.value.ty;
    let parsed = |text: &String| ty.parse(text).map_err(|error| wrong(error.to_string()));
    match (given, declared.value.is_array) {
        (Argument::Text(text), false) => parsed(text),
        (Argument::Texts(texts), true) => {
            let items = texts
                .iter()
                .map(|text| text.as_ref().map(parsed).transpose());
            Ok(Value::Array(items.collect::<Result<_, _>>()?))
        }
        (Argument::Path(path), false) if matches!(ty, CimType::Reference(_)) => {
            Ok(path.clone().into())
        }
        _ => Err(wrong("NewValue is not what the property holds".into())),
    }
}
