//! Get, Put, Create and Delete of instances (DSP0226 §7, DSP0227 §7).

use isochron_cim::{Instance, RequestContext};

use super::{Answer, Operation};
use crate::names::TRANSFER;
use crate::resource::Resource;
use crate::soap::{Fault, Kind, Node};

impl Operation {
    pub(super) async fn get(&self) -> Result<Answer, Fault> {
        let resource = self.resource()?;
        let cx = self.context(&resource)?;
        let class = self.decoder(&cx).class(resource.class()?).await?;
        let path = self.target(&cx, &class).await?;
        let instance = self.server.get_instance(&cx, &path).await?;
        let mut body = String::new();
        self.encoder(&resource).instance(&mut body, &instance);
        Ok(Answer::new(format!("{TRANSFER}/GetResponse"), body))
    }

    pub(super) async fn put(&self) -> Result<Answer, Fault> {
        let resource = self.resource()?;
        let cx = self.context(&resource)?;
        let class = self.decoder(&cx).class(resource.class()?).await?;
        let path = self.target(&cx, &class).await?;
        let mut changes = self.representation(&cx, &resource).await?;
        // Keys name the instance, and may be sent along as they are (DSP0226 §7.4).
        for (name, key) in &path.keys {
            let given = changes.properties.shift_remove(name);
            let given = given.and_then(|property| property.value.value);
            if given.is_some_and(|value| value != *key) {
                return Err(invalid(format!("the key {name} cannot be changed")));
            }
        }
        self.server.modify_instance(&cx, &path, changes).await?;
        let instance = self.server.get_instance(&cx, &path).await?;
        let mut body = String::new();
        self.encoder(&resource).instance(&mut body, &instance);
        Ok(Answer::new(format!("{TRANSFER}/PutResponse"), body))
    }

    pub(super) async fn create(&self) -> Result<Answer, Fault> {
        let resource = self.resource()?;
        let cx = self.context(&resource)?;
        let instance = self.representation(&cx, &resource).await?;
        let mut path = self.server.create_instance(&cx, instance).await?;
        path.namespace.get_or_insert_with(|| cx.namespace.clone());
        let mut body = String::new();
        let encoder = self.encoder(&resource);
        encoder.endpoint(&mut body, "x:ResourceCreated", &path);
        Ok(Answer::new(format!("{TRANSFER}/CreateResponse"), body))
    }

    pub(super) async fn delete(&self) -> Result<Answer, Fault> {
        let resource = self.resource()?;
        let cx = self.context(&resource)?;
        let class = self.decoder(&cx).class(resource.class()?).await?;
        // Nothing is deleted that was not named, also where there is only one.
        let selectors = &self.request.header.selectors;
        let path = self.decoder(&cx).path(&class, selectors).await?;
        self.server.delete_instance(&cx, &path).await?;
        Ok(Answer::new(
            format!("{TRANSFER}/DeleteResponse"),
            String::new(),
        ))
    }

    /// The instance in the body, which is one of the resource's class.
    async fn representation(
        &self,
        cx: &RequestContext,
        resource: &Resource,
    ) -> Result<Instance, Fault> {
        let decoder = self.decoder(cx);
        let class = decoder.class(resource.class()?).await?;
        let [node] = &*self.request.body else {
            return Err(Fault::schema("the body holds no single instance"));
        };
        if !class.name.is(&node.name) {
            let reason = format!("the body holds a {}, not a {}", node.name, class.name);
            return Err(invalid(reason));
        }
        self.check_namespace(resource, node)?;
        decoder.instance(&class, node, true).await
    }

    /// A representation is in the XML namespace of its class; some leave it out.
    fn check_namespace(&self, resource: &Resource, node: &Node) -> Result<(), Fault> {
        let expected = resource.naming.class_uri(&node.name);
        if node.namespace.is_empty() || node.namespace.eq_ignore_ascii_case(&expected) {
            return Ok(());
        }
        let reason = format!("{} is not in the namespace {expected}", node.name);
        Err(Fault::new(Kind::INVALID_REPRESENTATION, reason).detailed("InvalidNamespace"))
    }
}

fn invalid(reason: String) -> Fault {
    Fault::new(Kind::INVALID_REPRESENTATION, reason).detailed("InvalidValues")
}
