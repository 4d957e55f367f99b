//! Extrinsic methods: those that classes declare (DSP0200, "Extrinsic methods").

use indexmap::IndexMap;
use isochron_cim::{
    CimError, CimServer, Invocation, MethodTarget, Name, ObjectPath, Outcome, Principal,
    RequestContext, Status, TypedValue,
};

use super::Operations;

impl Operations {
    /// Calls a method on `target`: an instance, or without keys a class.
    ///
    /// Parameters without a name take the names of the method's in-parameters, by
    /// their place among the parameters sent.
    ///
    /// # Errors
    /// The CIM status of the failure. A method that ran and says by its return
    /// value that it failed is no error.
    pub async fn invoke(
        &self,
        principal: Principal,
        target: ObjectPath,
        method: &str,
        parameters: Result<Vec<(Name, TypedValue)>, CimError>,
    ) -> Result<Outcome, CimError> {
        let namespace = target.namespace.clone().unwrap_or_default();
        self.check_namespace(&namespace)?;
        let cx = RequestContext {
            namespace,
            principal,
        };
        let method = Name::from(method);
        let parameters = named(&*self.server, &cx, &target.class, &method, parameters?).await?;
        let target = if target.keys.is_empty() {
            MethodTarget::Class(target.class)
        } else {
            MethodTarget::Instance(target)
        };
        let call = Invocation {
            target,
            method,
            parameters,
        };
        self.server.invoke_method(&cx, call).await
    }
}

async fn named(
    server: &dyn CimServer,
    cx: &RequestContext,
    class: &Name,
    method: &Name,
    sent: Vec<(Name, TypedValue)>,
) -> Result<IndexMap<Name, TypedValue>, CimError> {
    if sent.iter().all(|(name, _)| !name.is("")) {
        return Ok(sent.into_iter().collect());
    }
    let declared = server.get_class(cx, class).await?;
    let Some(declared) = declared.methods.get(method) else {
        return Err(CimError::new(
            Status::MethodNotFound,
            format!("{class} has no method {method}"),
        ));
    };
    let places: Vec<&Name> = declared
        .parameters
        .iter()
        .filter(|(_, p)| p.is_in())
        .map(|(name, _)| name)
        .collect();
    let mut parameters = IndexMap::new();
    for (place, (mut name, value)) in sent.into_iter().enumerate() {
        if name.is("") {
            let Some(declared) = places.get(place) else {
                return Err(CimError::invalid_parameter(format!(
                    "{method} takes {} parameters, and more were sent",
                    places.len()
                )));
            };
            name = (*declared).clone();
        }
        if parameters.insert(name.clone(), value).is_some() {
            return Err(CimError::invalid_parameter(format!(
                "the parameter {name} is given twice"
            )));
        }
    }
    Ok(parameters)
}
