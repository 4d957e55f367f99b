//! Identifiers. All are random UUIDs; each kind is a type of its own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

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
                Self(Uuid::new_v4())
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
