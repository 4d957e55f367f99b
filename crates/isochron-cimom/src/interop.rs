//! What clients create, modify and delete in `interop`: by class, each with its own
//! rules. What no rule knows is left to the provider.

use isochron_cim::{CimError, Instance, Name, ObjectPath, RequestContext};

use crate::manager::ObjectManager;
use crate::namespaces;

/// Whose rules hold for a class of `interop`.
enum Rules {
    Namespaces,
    Indications,
    Provider,
}

impl ObjectManager {
    fn rules(&self, class: &Name) -> Rules {
        let schema = self.interop.schema();
        if schema.is_a(class, &namespaces::CLASS) {
            return Rules::Namespaces;
        }
        if self.indications.writes(class) {
            return Rules::Indications;
        }
        Rules::Provider
    }

    pub(crate) async fn create_in_interop(
        &self,
        cx: &RequestContext,
        instance: Instance,
    ) -> Result<ObjectPath, CimError> {
        match self.rules(&instance.class) {
            Rules::Namespaces => self.create_namespace(cx, instance).await,
            Rules::Indications => self.indications.create(cx, instance).await,
            Rules::Provider => self.provider.create_instance(cx, instance).await,
        }
    }

    pub(crate) async fn modify_in_interop(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
        changes: Instance,
    ) -> Result<(), CimError> {
        match self.rules(&path.class) {
            Rules::Indications => self.indications.modify(cx, path, changes).await,
            // A namespace has nothing that can be changed.
            Rules::Namespaces | Rules::Provider => {
                self.provider.modify_instance(cx, path, changes).await
            }
        }
    }

    pub(crate) async fn delete_in_interop(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
    ) -> Result<(), CimError> {
        match self.rules(&path.class) {
            Rules::Namespaces => self.delete_namespace(cx, path).await,
            Rules::Indications => self.indications.delete(cx, path).await,
            Rules::Provider => self.provider.delete_instance(cx, path).await,
        }
    }
}
