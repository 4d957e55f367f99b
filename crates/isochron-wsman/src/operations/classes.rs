//! The declarations of classes, which CIM cmdlets ask for before they show anything
//! (MS-WSMV §3.1.4.1.38): CLASS elements of DSP0201.

use futures::stream::{self, StreamExt};
use isochron_cim::{CimError, Class, ClassQuery, Instance, InstanceStream, Name, Value};
use isochron_cimxml::encode;

use super::{Answer, Operation};
use crate::names::TRANSFER;
use crate::resource::Resource;
use crate::soap::{Fault, Kind};

/// The property in which an enumeration of classes carries one.
const CARRIED: &str = "Class";

impl Operation {
    pub(super) async fn get_class(&self) -> Result<Answer, Fault> {
        let resource = self.resource()?;
        let cx = self.context(&resource)?;
        let named = self.class_name(&resource).ok_or_else(|| {
            Fault::new(Kind::INVALID_SELECTORS, "the selector ClassName is missing")
                .detailed("InsufficientSelectors")
        })?;
        let class = self.decoder(&cx).class(&named).await?;
        let mut body = String::new();
        encode::class(&mut body, &self.seen(class));
        Ok(Answer::new(format!("{TRANSFER}/GetResponse"), body))
    }

    /// The class that is asked for: by the URI, or by a selector.
    fn class_name(&self, resource: &Resource) -> Option<Name> {
        let selected = self.request.header.selectors.text("ClassName");
        let selected = selected.map(str::trim).filter(|name| !name.is_empty());
        resource.class.clone().or(selected.map(Name::from))
    }

    /// The class as the options of the request ask for it.
    fn seen(&self, mut class: Class) -> Class {
        let mut options = self.request.header.options.iter();
        let without = options.any(|option| {
            option.name == "IncludeQualifiers" && option.value.trim().eq_ignore_ascii_case("false")
        });
        if without {
            class.qualifiers.clear();
            for property in class.properties.values_mut() {
                // What is a key, and what refers to what, is no decoration.
                property.qualifiers.retain(|name, _| name.is("Key"));
            }
            for method in class.methods.values_mut() {
                method.qualifiers.clear();
            }
        }
        class
    }

    /// The classes below the one that is asked for, or all, each carried by an instance.
    pub(super) async fn classes(&self, resource: &Resource) -> Result<InstanceStream, Fault> {
        let cx = self.context(resource)?;
        let query = ClassQuery {
            below: self.class_name(resource),
            deep: true,
        };
        let found = self.server.enumerate_classes(&cx, &query).await?;
        let carried: Vec<Result<Instance, CimError>> = found
            .into_iter()
            .map(|class| {
                let mut carrier = Instance::new(CARRIED);
                carrier.set(CARRIED, Value::Class(Box::new(self.seen(class))));
                Ok(carrier)
            })
            .collect();
        Ok(stream::iter(carried).boxed())
    }
}

/// Appends the class that an instance carries.
pub(super) fn carried(out: &mut String, carrier: &Instance) {
    if let Some(Value::Class(class)) = carrier.get(CARRIED) {
        encode::class(out, class);
    }
}
