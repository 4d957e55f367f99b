//! What a CIM server offers, whatever protocol its clients speak.
//!
//! The operations are DSP0200's intrinsic and extrinsic methods, cut to what a
//! provider alone can know. What follows from them (name-only variants, property
//! lists, pull operations, queries, filters) is done once, in the protocol
//! layer's common part, not in each provider.

use async_trait::async_trait;
use futures::stream::BoxStream;
use indexmap::IndexMap;

use crate::{CimError, Class, Instance, Name, ObjectPath, QualifierDecl, TypedValue};

/// Who asks, and through which namespace.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The target namespace, with slashes, as the client spelt it.
    pub namespace: String,
    /// The authenticated caller.
    pub principal: Principal,
}

/// The caller of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Nobody said who they are; a listener that allows it is on loopback.
    Anonymous,
    /// A user known by this name.
    User(String),
}

/// Instances as they are found, so that an enumeration need not fit in memory.
/// Every instance carries its path, with the namespace.
pub type InstanceStream = BoxStream<'static, Result<Instance, CimError>>;

/// Which classes to list.
#[derive(Clone, Debug, Default)]
pub struct ClassQuery {
    /// Below this class; at the top when `None`.
    pub below: Option<Name>,
    /// All levels below, or only the next.
    pub deep: bool,
}

/// Which way associations are walked (DSP0200 §5.4.2.9 to 5.4.2.12).
#[derive(Clone, Debug, Default)]
pub struct AssociationFilter {
    /// Only through this association class or its subclasses.
    pub association: Option<Name>,
    /// Only objects of this class or its subclasses (associators).
    pub result_class: Option<Name>,
    /// Only where the source object plays this role.
    pub role: Option<Name>,
    /// Only where the object found plays this role (associators).
    pub result_role: Option<Name>,
}

/// On what a method is called.
#[derive(Clone, Debug)]
pub enum MethodTarget {
    /// An instance.
    Instance(ObjectPath),
    /// A class: a static method.
    Class(Name),
}

/// A method call. Parameters are as the client sent them: untyped ones arrive as
/// strings, positional ones are already named by the protocol layer.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// On what.
    pub target: MethodTarget,
    /// Which method.
    pub method: Name,
    /// In-parameters by name.
    pub parameters: IndexMap<Name, TypedValue>,
}

/// A method's result.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The return value.
    pub return_value: TypedValue,
    /// Out-parameters in the order of their declaration.
    pub parameters: IndexMap<Name, TypedValue>,
}

/// A CIM server.
///
/// Errors are CIM status codes as DSP0200 lists them per operation; an operation
/// that a server does not have is `NOT_SUPPORTED` and nothing else.
#[async_trait]
pub trait CimServer: Send + Sync + 'static {
    /// The namespaces served.
    fn namespaces(&self) -> Vec<String>;

    /// The class with all its elements and qualifiers (DSP0200 §5.4.2.1).
    async fn get_class(&self, cx: &RequestContext, class: &Name) -> Result<Class, CimError>;

    /// The classes, in an order where a class follows its superclass
    /// (DSP0200 §5.4.2.5).
    async fn enumerate_classes(
        &self,
        cx: &RequestContext,
        query: &ClassQuery,
    ) -> Result<Vec<Class>, CimError>;

    /// A qualifier type (DSP0200 §5.4.2.22).
    async fn get_qualifier(
        &self,
        cx: &RequestContext,
        name: &Name,
    ) -> Result<QualifierDecl, CimError>;

    /// All qualifier types (DSP0200 §5.4.2.25).
    async fn enumerate_qualifiers(
        &self,
        cx: &RequestContext,
    ) -> Result<Vec<QualifierDecl>, CimError>;

    /// One instance with all its properties (DSP0200 §5.4.2.2).
    async fn get_instance(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
    ) -> Result<Instance, CimError>;

    /// The instances of a class and its subclasses (DSP0200 §5.4.2.7).
    async fn enumerate_instances(
        &self,
        cx: &RequestContext,
        class: &Name,
    ) -> Result<InstanceStream, CimError>;

    /// The objects associated with an instance (DSP0200 §5.4.2.9).
    async fn associators(
        &self,
        cx: &RequestContext,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Result<InstanceStream, CimError>;

    /// The associations that refer to an instance (DSP0200 §5.4.2.11).
    async fn references(
        &self,
        cx: &RequestContext,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Result<InstanceStream, CimError>;

    /// Creates an instance (DSP0200 §5.4.2.6).
    async fn create_instance(
        &self,
        _cx: &RequestContext,
        instance: Instance,
    ) -> Result<ObjectPath, CimError> {
        Err(CimError::not_supported(format!(
            "instances of {} are not created by clients",
            instance.class
        )))
    }

    /// Changes an instance's properties, those present in `changes` (DSP0200
    /// §5.4.2.8).
    async fn modify_instance(
        &self,
        _cx: &RequestContext,
        path: &ObjectPath,
        _changes: Instance,
    ) -> Result<(), CimError> {
        Err(CimError::not_supported(format!(
            "instances of {} are not modified by clients",
            path.class
        )))
    }

    /// Deletes an instance (DSP0200 §5.4.2.4).
    async fn delete_instance(
        &self,
        _cx: &RequestContext,
        path: &ObjectPath,
    ) -> Result<(), CimError> {
        Err(CimError::not_supported(format!(
            "instances of {} are not deleted by clients",
            path.class
        )))
    }

    /// Calls a method (DSP0200 §5.4.1).
    async fn invoke_method(
        &self,
        cx: &RequestContext,
        call: Invocation,
    ) -> Result<Outcome, CimError>;
}
