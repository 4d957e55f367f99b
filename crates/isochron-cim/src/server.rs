//! What a CIM server offers, whatever protocol its clients speak.
//!
//! The operations are DSP0200's intrinsic and extrinsic methods, cut to what a
//! provider alone can know. What follows from them (name-only variants, property
//! lists, pull operations, queries, filters) is done once, in the protocol
//! layer's common part, not in each provider.

use std::fmt;
use std::net::SocketAddr;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use indexmap::IndexMap;

use crate::{CimError, Class, Instance, Name, ObjectPath, QualifierDecl, Status, TypedValue};

/// Who asks, and through which namespace.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The target namespace, with slashes, as the client spelt it.
    pub namespace: String,
    /// The authenticated caller.
    pub principal: Principal,
}

/// The caller of an operation, as the listener that let them in knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The name; `None` where a listener lets in callers who do not say who they are.
    pub name: Option<String>,
    /// What they may do.
    pub role: Role,
    /// Through which protocol they came: `cim-xml`, `ws-management`, ...
    pub face: &'static str,
    /// From which address, where there is one.
    pub address: Option<SocketAddr>,
}

/// What a caller may do. Each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Look, and be told of changes.
    Reader,
    /// Work with what there is: snapshots, and the power of machines.
    Operator,
    /// Define what there is: machines, collections, namespaces, users.
    Administrator,
}

impl Principal {
    /// A user of this name.
    pub fn user(name: impl Into<String>, role: Role) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::anonymous(role)
        }
    }

    /// Somebody whose name is not known.
    pub fn anonymous(role: Role) -> Self {
        Self {
            name: None,
            role,
            face: "cim",
            address: None,
        }
    }

    /// The same caller, who came this way.
    #[must_use]
    pub fn through(self, face: &'static str, address: SocketAddr) -> Self {
        Self {
            face,
            address: Some(address),
            ..self
        }
    }

    /// `CIM_ERR_ACCESS_DENIED` unless the caller has at least this role.
    pub fn require(&self, role: Role) -> Result<(), CimError> {
        if self.role >= role {
            return Ok(());
        }
        let who = self.name.as_deref().unwrap_or("the caller");
        Err(CimError::new(
            Status::AccessDenied,
            format!(
                "{who} has the role {}; this takes the role {role}",
                self.role
            ),
        ))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        })
    }
}

/// Instances as they are found, so that an enumeration need not fit in memory.
/// Every instance carries its path, with the namespace.
pub type InstanceStream = BoxStream<'static, Result<Instance, CimError>>;

/// Something happened to an instance that a server serves: what indications tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The namespace in which it is seen. What is seen in several is told for each.
    pub namespace: String,
    /// What happened.
    pub kind: ChangeKind,
    /// The instance, with its path: as it is now, or, if it is gone, as it was last.
    pub instance: Instance,
    /// What it was before, where it was modified.
    pub previous: Option<Instance>,
}

/// What happened to an instance (CIM_InstCreation, CIM_InstModification,
/// CIM_InstDeletion; DSP1054).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// Its properties changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// Changes as they happen. A reader that is too slow loses some and is told so by
/// the server's log, never blocks what changes.
pub type ChangeStream = BoxStream<'static, Change>;

/// An indication that tells of no change of an instance: an alert, say.
#[derive(Clone, Debug, PartialEq)]
pub struct Indication {
    /// The namespace in which it happened.
    pub namespace: String,
    /// The indication, of a class below `CIM_Indication`.
    pub instance: Instance,
}

/// Indications as they happen; a reader is treated as one of a [`ChangeStream`] is.
pub type IndicationStream = BoxStream<'static, Indication>;

/// What a query selects of what happens, as it happens: events as those who asked for
/// them see them. A reader is treated as one of a [`ChangeStream`] is.
pub type EventStream = BoxStream<'static, Instance>;

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
///
/// Who wraps a server passes on every method, those with a default too.
#[async_trait]
pub trait CimServer: Send + Sync + 'static {
    /// The namespaces served.
    fn namespaces(&self) -> Vec<String>;

    /// The name of the host that is served, where it has one.
    fn host(&self) -> Option<String> {
        None
    }

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

    /// Adds a class (DSP0200, "CreateClass").
    async fn create_class(&self, _cx: &RequestContext, class: Class) -> Result<(), CimError> {
        Err(fixed_schema(&class.name))
    }

    /// Replaces a class (DSP0200, "ModifyClass").
    async fn modify_class(&self, _cx: &RequestContext, class: Class) -> Result<(), CimError> {
        Err(fixed_schema(&class.name))
    }

    /// Deletes a class (DSP0200, "DeleteClass").
    async fn delete_class(&self, _cx: &RequestContext, class: &Name) -> Result<(), CimError> {
        Err(fixed_schema(class))
    }

    /// Adds or replaces a qualifier type (DSP0200, "SetQualifier").
    async fn set_qualifier(
        &self,
        _cx: &RequestContext,
        decl: QualifierDecl,
    ) -> Result<(), CimError> {
        Err(fixed_schema(&decl.name))
    }

    /// Deletes a qualifier type (DSP0200, "DeleteQualifier").
    async fn delete_qualifier(&self, _cx: &RequestContext, name: &Name) -> Result<(), CimError> {
        Err(fixed_schema(name))
    }

    /// What changes from now on.
    fn changes(&self) -> ChangeStream {
        stream::pending().boxed()
    }

    /// What else happens from now on.
    fn indications(&self) -> IndicationStream {
        stream::pending().boxed()
    }

    /// What a query (`SELECT * FROM CIM_InstModification WHERE ...`, or one for Windows'
    /// events) selects of what happens in the namespace from now on.
    ///
    /// # Errors
    /// `QUERY_LANGUAGE_NOT_SUPPORTED`, `INVALID_QUERY`.
    async fn events(
        &self,
        _cx: &RequestContext,
        _language: &str,
        _query: &str,
    ) -> Result<EventStream, CimError> {
        Err(CimError::not_supported("this server tells of no events"))
    }

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

fn fixed_schema(name: &Name) -> CimError {
    CimError::not_supported(format!(
        "the schema of this namespace is fixed: {name} cannot be written"
    ))
}
