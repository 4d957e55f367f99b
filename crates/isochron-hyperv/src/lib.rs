//! The `Msvm_*` classes over the engine: a [`CimServer`](isochron_cim::CimServer)
//! that serves Hyper-V's collection classes in `root/HyperVCluster/v2` and
//! `root/virtualization/v2`, what discovery needs in `interop`, and this host in
//! Windows' classes in `root/cimv2`.
//!
//! Classes come from the MOF files in `mof/`, compiled in. What is served are
//! objects, the engine's records seen as CIM instances: `lookup` finds them,
//! `render` describes them, `associations` says how they hang together and
//! `traversal` walks there, `methods` acts on them, `changes` tells of them. Nothing
//! is kept here: the engine's records are the only truth, and of the host what the
//! kernel says when it is asked (`host`).
//!
//! No hypervisor and no protocol is named in this crate.

mod associations;
mod changes;
mod codes;
mod export_settings;
mod host;
mod lookup;
mod methods;
mod object;
mod render;
mod resources;
mod schema;
mod server;
mod settings;
mod traversal;

pub use codes::{ManagementReturn, ServiceReturn, StateChangeReturn};
pub use schema::mof;
pub use server::{Decode, HypervServer};
