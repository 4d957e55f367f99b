//! Identifiers. All are random UUIDs; each kind is a type of its own.
//!
//! Records are read in the order of their keys, which are identifiers: a simulation
//! that shall run the same way twice takes them from a seed.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Makes all identifiers that this thread gets from now on follow from a seed, so
/// that a simulation can be repeated exactly. `None` makes them random again.
pub fn seed_identifiers(seed: Option<u64>) {
    SEED.set(seed);
}

/// A new identifier (RFC 9562, version 4).
pub(crate) fn random() -> Uuid {
    let Some(seed) = SEED.get() else {
        return Uuid::new_v4();
    };
    SEED.set(Some(seed.wrapping_add(2)));
    let half = |n: u64| {
        // SplitMix64 (Steele, Lea, Flood 2014)
        let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let bytes =
        (u128::from(half(seed)) << 64 | u128::from(half(seed.wrapping_add(1)))).to_le_bytes();
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new random identifier.
            #[allow(clippy::new_without_default)] // two calls differ
            pub fn new() -> Self {
                Self(random())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id!(
    /// A virtual machine.
    MachineId
);
id!(
    /// A collection.
    CollectionId
);
impl From<MachineId> for CollectionId {
    /// The collection of one that a machine is: it has the machine's identifier.
    fn from(machine: MachineId) -> Self {
        Self(machine.0)
    }
}

id!(
    /// A snapshot collection.
    SnapshotId
);
id!(
    /// One member's snapshot in a snapshot collection.
    MemberSnapshotId
);
id!(
    /// A reference point of a collection.
    ReferencePointId
);
id!(
    /// One member's part of a reference point.
    MemberPointId
);
id!(
    /// An export.
    ExportId
);
id!(
    /// A layer of a disk.
    LayerId
);
id!(
    /// A job.
    JobId
);
