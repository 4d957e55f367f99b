//! A CIM object manager: puts beside what a provider serves what clients make.
//!
//! [`ObjectManager`] is itself a [`CimServer`](isochron_cim::CimServer). It wraps
//! the provider's, whose namespaces and classes stay as they are, and adds
//!
//! - namespaces that clients create through `CIM_Namespace` in `interop`, in which
//!   they write classes, qualifier types and instances (`namespaces`);
//! - stored instances of classes of `interop` itself: those of `CIM_Namespace`
//!   that clients made, and whatever else clients may create there;
//! - indications: filters, destinations and subscriptions are such instances, and
//!   what changes in any namespace is told to those who subscribed (`indications`).
//!
//! The first two are a [`Space`](space): classes, and instances that are kept as they were
//! given. What is kept survives a restart, in [`Records`]. No protocol, no engine
//! and no class of a particular product is known here.

mod indications;
mod instances;
mod interop;
mod limits;
mod manager;
mod namespaces;
mod places;
mod record;
mod records;
mod schema;
mod space;
mod test_provider;

pub use indications::{Delivery, IndicationOptions, Listener, Listeners};
pub use limits::Limits;
pub use manager::{ObjectManager, OpenError};
pub use records::{MemoryRecords, Record, RecordWrite, Records, RecordsError};
