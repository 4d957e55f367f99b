//! A CIM server whose clients' writes are told to the audit log: of classes, qualifier
//! types and instances. Methods are not, as what they change is the engine's, which
//! tells of it itself.

use std::fmt::Display;
use std::sync::Arc;

use async_trait::async_trait;
use isochron_cim::{
    AssociationFilter, ChangeStream, CimError, CimServer, Class, ClassQuery, EventStream,
    IndicationStream, Instance, InstanceStream, Invocation, Name, ObjectPath, Outcome,
    QualifierDecl, RequestContext, Status,
};

use crate::audit::{AuditLog, Wrong};
use crate::caller;

/// A CIM server whose writes are told to the audit log.
pub struct AuditedServer {
    server: Arc<dyn CimServer>,
    audit: Arc<AuditLog>,
}

impl AuditedServer {
    /// Tells `audit` of what clients write to `server`.
    pub fn new(server: Arc<dyn CimServer>, audit: Arc<AuditLog>) -> Self {
        Self { server, audit }
    }

    fn tell<T>(
        &self,
        cx: &RequestContext,
        operation: &str,
        object: impl Display,
        result: Result<T, CimError>,
    ) -> Result<T, CimError> {
        let wrong = result.as_ref().err().map(|error| Wrong {
            denied: error.status == Status::AccessDenied,
            message: &error.message,
        });
        let object = format!("{object} in {}", cx.namespace);
        self.audit
            .act(&caller(&cx.principal), operation, &object, wrong);
        result
    }
}

#[async_trait]
impl CimServer for AuditedServer {
    fn namespaces(&self) -> Vec<String> {
        self.server.namespaces()
    }

    fn host(&self) -> Option<String> {
        self.server.host()
    }

    async fn get_class(&self, cx: &RequestContext, class: &Name) -> Result<Class, CimError> {
        self.server.get_class(cx, class).await
    }

    async fn enumerate_classes(
        &self,
        cx: &RequestContext,
        query: &ClassQuery,
    ) -> Result<Vec<Class>, CimError> {
        self.server.enumerate_classes(cx, query).await
    }

    async fn get_qualifier(
        &self,
        cx: &RequestContext,
        name: &Name,
    ) -> Result<QualifierDecl, CimError> {
        self.server.get_qualifier(cx, name).await
    }

    async fn enumerate_qualifiers(
        &self,
        cx: &RequestContext,
    ) -> Result<Vec<QualifierDecl>, CimError> {
        self.server.enumerate_qualifiers(cx).await
    }

    async fn create_class(&self, cx: &RequestContext, class: Class) -> Result<(), CimError> {
        let name = class.name.clone();
        let result = self.server.create_class(cx, class).await;
        self.tell(cx, "create-class", name, result)
    }

    async fn modify_class(&self, cx: &RequestContext, class: Class) -> Result<(), CimError> {
        let name = class.name.clone();
        let result = self.server.modify_class(cx, class).await;
        self.tell(cx, "modify-class", name, result)
    }

    async fn delete_class(&self, cx: &RequestContext, class: &Name) -> Result<(), CimError> {
        let result = self.server.delete_class(cx, class).await;
        self.tell(cx, "delete-class", class, result)
    }

    async fn set_qualifier(
        &self,
        cx: &RequestContext,
        decl: QualifierDecl,
    ) -> Result<(), CimError> {
        let name = decl.name.clone();
        let result = self.server.set_qualifier(cx, decl).await;
        self.tell(cx, "set-qualifier", name, result)
    }

    async fn delete_qualifier(&self, cx: &RequestContext, name: &Name) -> Result<(), CimError> {
        let result = self.server.delete_qualifier(cx, name).await;
        self.tell(cx, "delete-qualifier", name, result)
    }

    fn changes(&self) -> ChangeStream {
        self.server.changes()
    }

    fn indications(&self) -> IndicationStream {
        self.server.indications()
    }

    async fn events(
        &self,
        cx: &RequestContext,
        language: &str,
        query: &str,
    ) -> Result<EventStream, CimError> {
        self.server.events(cx, language, query).await
    }

    async fn get_instance(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
    ) -> Result<Instance, CimError> {
        self.server.get_instance(cx, path).await
    }

    async fn enumerate_instances(
        &self,
        cx: &RequestContext,
        class: &Name,
    ) -> Result<InstanceStream, CimError> {
        self.server.enumerate_instances(cx, class).await
    }

    async fn associators(
        &self,
        cx: &RequestContext,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Result<InstanceStream, CimError> {
        self.server.associators(cx, source, filter).await
    }

    async fn references(
        &self,
        cx: &RequestContext,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Result<InstanceStream, CimError> {
        self.server.references(cx, source, filter).await
    }

    async fn create_instance(
        &self,
        cx: &RequestContext,
        instance: Instance,
    ) -> Result<ObjectPath, CimError> {
        let class = instance.class.clone();
        let result = self.server.create_instance(cx, instance).await;
        let object = match &result {
            Ok(path) => path.to_string(),
            Err(_) => format!("an instance of {class}"),
        };
        self.tell(cx, "create-instance", object, result)
    }

    async fn modify_instance(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
        changes: Instance,
    ) -> Result<(), CimError> {
        let result = self.server.modify_instance(cx, path, changes).await;
        self.tell(cx, "modify-instance", path, result)
    }

    async fn delete_instance(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
    ) -> Result<(), CimError> {
        let result = self.server.delete_instance(cx, path).await;
        self.tell(cx, "delete-instance", path, result)
    }

    async fn invoke_method(
        &self,
        cx: &RequestContext,
        call: Invocation,
    ) -> Result<Outcome, CimError> {
        self.server.invoke_method(cx, call).await
    }
}
