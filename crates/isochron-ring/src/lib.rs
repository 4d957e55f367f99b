//! What the guest program of the ring writes, shared with whoever reads it back.
//!
//! The program itself is the binary of this crate (`isochron-ring`); its
//! protocol is described there. The oracle in `isochron-lab` reads the same
//! records from disk images, so their layout lives here once.

pub mod record;
