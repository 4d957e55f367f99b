//! CIM itself, as DMTF's DSP0004 defines it: types and values, classes and
//! instances, object paths, MOF, a class repository, and the operations that a
//! CIM server offers ([`CimServer`], after DSP0200's intrinsic methods).
//!
//! Pure: no I/O, no protocol, no knowledge of any particular schema. The
//! protocol rooms (CIM-XML, WS-Management) turn bytes into these types and call
//! a [`CimServer`]; the provider room implements one.

mod class;
mod datetime;
mod enumeration;
mod error;
mod instance;
pub mod mof;
mod name;
mod path;
pub mod query;
mod repository;
mod server;
mod value;

pub use class::{Class, Flavor, Method, Parameter, PropertyDecl, Qualifier, QualifierDecl, Scope};
pub use datetime::{DateTime, ParseDateTimeError};
pub use enumeration::{EnumerationLimits, Enumerations, Page};
pub use error::{CimError, Status};
pub use instance::{Instance, Property};
pub use name::Name;
pub use path::{ObjectPath, ParsePathError};
pub use repository::{AssociationEnd, Place, Repository, SchemaError};
pub use server::{
    AssociationFilter, Change, ChangeKind, ChangeStream, CimServer, ClassQuery, EventStream,
    Indication, IndicationStream, InstanceStream, Invocation, MethodTarget, Outcome, Principal,
    RequestContext, Role,
};
pub use value::{CimType, Embedded, TypedValue, Value, ValueError};
