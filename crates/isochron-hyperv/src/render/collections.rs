//! Collections of virtual machines, and of collections.

use isochron_cim::Instance;
use isochron_engine::model::{Collection, CollectionKind};

/// A collection.
pub(super) fn collection(collection: &Collection, instance: &mut Instance) {
    instance.set("ElementName", collection.name.as_str());
    match collection.kind {
        CollectionKind::Machines => instance
            .set("Caption", "Virtual System Collection")
            .set("Description", "A collection of virtual machines")
            // Nothing is replicated.
            .set("ReplicationMode", 0_u16)
            .set("ReplicationState", 0_u16)
            .set("FailedOverReplicationType", 0_u16),
        CollectionKind::Collections => instance
            .set("Caption", "Management Collection")
            .set("Description", "A collection of collections"),
    };
}
