//! Methods: the action is the class's URI and the method's name (DSP0227 §11, DSP0230 §10.3).

use indexmap::IndexMap;
use isochron_cim::{Class, Invocation, Method, MethodTarget, Name, TypedValue, Value};

use super::{Answer, Operation, not_there};
use crate::resource::{Resource, ResourceKind};
use crate::soap::{Fault, Kind, Node};
use crate::values::Decoder;

impl Operation {
    pub(super) async fn invoke(&self) -> Result<Answer, Fault> {
        let header = &self.request.header;
        let action = header.action.as_str();
        let Some((uri, method)) = action.rsplit_once('/') else {
            return Err(not_there(action));
        };
        let resource = self.resource()?;
        if resource.kind != ResourceKind::Instances || !same_class(&resource, uri) {
            return Err(not_there(action));
        }
        let cx = self.context(&resource)?;
        let decoder = self.decoder(&cx);
        let class = decoder.class(resource.class()?).await?;
        let name = Name::from(method);
        let Some((name, declared)) = class.methods.get_key_value(&name) else {
            return Err(not_there(action));
        };
        let is_static = declared.qualifiers.get(&Name::fixed("Static"));
        let is_static = is_static
            .and_then(|qualifier| qualifier.value.value.as_ref())
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let target = match is_static {
            true => MethodTarget::Class(class.name.clone()),
            false => MethodTarget::Instance(self.target(&cx, &class).await?),
        };
        let call = Invocation {
            target,
            method: name.clone(),
            parameters: parameters(&decoder, declared, self.input(name)?).await?,
        };
        let outcome = self.server.invoke_method(&cx, call).await?;
        let return_name = Name::fixed("ReturnValue");
        let mut values: Vec<(&Name, &TypedValue)> = outcome.parameters.iter().collect();
        values.push((&return_name, &outcome.return_value));
        let mut body = String::new();
        let of_class = spelled(&resource, &class);
        let encoder = self.encoder(&resource);
        encoder.output(&mut body, of_class, name.as_str(), &values);
        Ok(Answer::new(format!("{action}Response"), body))
    }

    /// The element with the parameters. Its name is the method's with `_INPUT`; a method
    /// without parameters may come without it.
    fn input(&self, method: &Name) -> Result<&[Node], Fault> {
        match &*self.request.body {
            [] => Ok(&[]),
            [node] if method.is(node.name.strip_suffix("_INPUT").unwrap_or(&node.name)) => {
                Ok(&node.children)
            }
            _ => Err(Fault::schema(format!("the body holds no {method}_INPUT"))),
        }
    }
}

/// The class's name as the resource's URI spells it: replies are in its namespace.
fn spelled<'a>(resource: &'a Resource, class: &'a Class) -> &'a str {
    let asked = resource.class.as_ref().unwrap_or(&class.name);
    asked.as_str()
}

/// Whether the action's URI is the resource's; some spell it in the other family, so the
/// class alone is compared.
fn same_class(resource: &Resource, uri: &str) -> bool {
    let class = uri.rsplit(['/', '\\']).next().unwrap_or_default();
    resource.class.as_ref().is_some_and(|name| name.is(class))
}

async fn parameters(
    decoder: &Decoder<'_>,
    method: &Method,
    nodes: &[Node],
) -> Result<IndexMap<Name, TypedValue>, Fault> {
    let mut given: IndexMap<Name, Vec<&Node>> = IndexMap::new();
    for node in nodes {
        let name = Name::from(node.name.as_str());
        given.entry(name).or_default().push(node);
    }
    let mut parameters = IndexMap::new();
    for (name, nodes) in &given {
        let Some((name, declared)) = method.parameters.get_key_value(name) else {
            let reason = format!("the method has no parameter {name}");
            return Err(Fault::new(Kind::INVALID_PARAMETER, reason).detailed("InvalidName"));
        };
        let value = decoder
            .value(&declared.ty, declared.is_array, nodes)
            .await?;
        parameters.insert(name.clone(), value);
    }
    Ok(parameters)
}
