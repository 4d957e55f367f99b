//! Where a namespace's objects are: which server or space an operation belongs to,
//! and the objects that stored associations lead to, wherever those are.

use std::collections::HashSet;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use isochron_cim::{
    CimError, CimServer, Instance, InstanceStream, ObjectPath, RequestContext, Status,
};

use crate::indications::Indications;
use crate::manager::INTEROP;
use crate::namespaces::Namespaces;
use crate::space::Space;

/// Where an operation belongs.
pub(crate) enum Place {
    /// A namespace of clients.
    Client(Arc<Space>),
    /// `interop`: the provider's, with our instances beside its.
    Interop,
    /// A namespace of the provider's.
    Provider,
}

/// A namespace as it is compared: with slashes, none at its ends.
pub(crate) fn normal(namespace: &str) -> String {
    namespace.replace('\\', "/").trim_matches('/').to_owned()
}

/// All places.
#[derive(Clone)]
pub(crate) struct Places {
    pub(crate) provider: Arc<dyn CimServer>,
    /// What is stored in `interop`, under the provider's classes.
    pub(crate) interop: Arc<Space>,
    /// The clients' namespaces.
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) indications: Arc<Indications>,
}

impl Places {
    /// Where an operation in this namespace belongs.
    pub(crate) fn place(&self, namespace: &str) -> Place {
        let name = normal(namespace);
        if INTEROP.iter().any(|i| i.eq_ignore_ascii_case(&name)) {
            return Place::Interop;
        }
        match self.namespaces.find(&name) {
            Some(space) => Place::Client(space),
            None => Place::Provider,
        }
    }

    /// One instance.
    pub(crate) async fn get_instance(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
    ) -> Result<Instance, CimError> {
        let stored = match self.place(&cx.namespace) {
            Place::Provider => None,
            Place::Interop => self.interop.find(&self.indications.canonical(path))?,
            Place::Client(space) => Some(space.find(path)?.ok_or_else(|| missing(path))?),
        };
        match stored {
            Some(instance) => Ok(Arc::unwrap_or_clone(instance)),
            None => self.provider.get_instance(cx, path).await,
        }
    }

    /// The objects of these paths, each once and as they are taken, without those
    /// that are not there.
    pub(crate) fn fetch(&self, cx: &RequestContext, paths: Vec<ObjectPath>) -> InstanceStream {
        let mut seen = HashSet::new();
        let mut paths = paths;
        paths.retain(|path| seen.insert(path.clone()));
        let (places, cx) = (self.clone(), cx.clone());
        let found = stream::iter(paths).filter_map(move |path| {
            let (places, mut cx) = (places.clone(), cx.clone());
            async move {
                if let Some(namespace) = &path.namespace {
                    cx.namespace.clone_from(namespace);
                }
                match places.get_instance(&cx, &path).await {
                    Err(error) if is_missing(&error) => None,
                    found => Some(found),
                }
            }
        });
        found.boxed()
    }
}

pub(crate) fn missing(path: &ObjectPath) -> CimError {
    CimError::not_found(format!("there is no {}", path.relative()))
}

/// Whether an error says that the object asked for is not there.
fn is_missing(error: &CimError) -> bool {
    matches!(
        error.status,
        Status::NotFound
            | Status::InvalidClass
            | Status::InvalidNamespace
            | Status::InvalidParameter
    )
}
