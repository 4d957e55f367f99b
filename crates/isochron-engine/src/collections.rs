//! Collections: named sets of machines, and of collections.

use std::collections::HashSet;

use crate::access::Operation;
use crate::engine::Inner;
use crate::model::{Collection, CollectionId, CollectionKind, Machine, MachineId};
use crate::records::{collection_key, collection_name_key, machine_key};
use crate::{Engine, EngineError, ErrorKind};

/// Checks a name: not empty, at most 200 characters, no control characters.
pub(crate) fn check_name(name: &str) -> Result<(), EngineError> {
    if name.trim().is_empty() {
        return Err(EngineError::invalid("the name is empty"));
    }
    if name.chars().count() > 200 || name.chars().any(char::is_control) {
        return Err(EngineError::invalid(
            "a name has at most 200 characters, and no control characters",
        ));
    }
    Ok(())
}

impl Engine {
    /// Creates an empty collection.
    ///
    /// # Errors
    /// `InvalidParameter` name; `Exists` name or identifier in use.
    pub async fn create_collection(
        &self,
        name: &str,
        id: Option<CollectionId>,
        kind: CollectionKind,
    ) -> Result<Collection, EngineError> {
        let target = format!("collection {name}");
        let define = self.define_collection(name, id, kind);
        self.perform(Operation::CreateCollection, target, define)
            .await
    }

    async fn define_collection(
        &self,
        name: &str,
        id: Option<CollectionId>,
        kind: CollectionKind,
    ) -> Result<Collection, EngineError> {
        check_name(name)?;
        let collection = Collection {
            id: id.unwrap_or_else(CollectionId::new),
            name: name.to_owned(),
            kind,
            machines: Vec::new(),
            collections: Vec::new(),
            current: None,
            created_at: self.inner.clock.now(),
        };
        let mut transaction = self.inner.records.begin().await;
        // A machine is a collection of one, of the same identifier.
        let machine = machine_key(MachineId(collection.id.0));
        if transaction.exists(&collection_key(collection.id)).await?
            || transaction.exists(&machine).await?
        {
            return Err(exists(format!(
                "the identifier {} is in use already",
                collection.id
            )));
        }
        if transaction.exists(&collection_name_key(name)).await? {
            return Err(exists(format!("a collection named {name} exists already")));
        }
        transaction.put(&collection)?;
        transaction.put_index(collection_name_key(name), &collection.id)?;
        transaction.commit().await?;
        Ok(collection)
    }

    /// All collections, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn collections(&self) -> Result<Vec<Collection>, EngineError> {
        let mut collections: Vec<Collection> = self.inner.records.list().await?;
        collections.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(collections)
    }

    /// A collection.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn collection(&self, id: CollectionId) -> Result<Collection, EngineError> {
        self.inner.collection(id).await
    }

    /// A collection by name or identifier.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn find_collection(&self, text: &str) -> Result<Collection, EngineError> {
        let id = match self.inner.records.index(&collection_name_key(text)).await? {
            Some(id) => Some(id),
            None => text.parse().ok(),
        };
        match id {
            Some(id) => self.collection(id).await,
            None => Err(EngineError::not_found(format!(
                "there is no collection {text}"
            ))),
        }
    }

    /// Gives a collection another name.
    ///
    /// # Errors
    /// `NotFound`; `InvalidParameter` name; `Exists` name in use.
    pub async fn rename_collection(&self, id: CollectionId, name: &str) -> Result<(), EngineError> {
        let target = self.collection_target(id).await;
        let give = self.give_name(id, name);
        self.perform(Operation::RenameCollection, target, give)
            .await
    }

    async fn give_name(&self, id: CollectionId, name: &str) -> Result<(), EngineError> {
        check_name(name)?;
        let mut transaction = self.inner.records.begin().await;
        let mut collection: Collection = transaction
            .get(&collection_key(id))
            .await?
            .ok_or_else(|| EngineError::not_found(format!("there is no collection {id}")))?;
        if collection.name == name {
            return Ok(());
        }
        if transaction.exists(&collection_name_key(name)).await? {
            return Err(exists(format!("a collection named {name} exists already")));
        }
        transaction.delete(collection_name_key(&collection.name));
        transaction.put_index(collection_name_key(name), &id)?;
        name.clone_into(&mut collection.name);
        transaction.put(&collection)?;
        transaction.commit().await
    }

    /// Destroys a collection; its members stay.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` while it has snapshots or reference points, is in use,
    /// or is a member of a collection.
    pub async fn destroy_collection(&self, id: CollectionId) -> Result<(), EngineError> {
        let target = self.collection_target(id).await;
        let end = self.end_collection(id);
        self.perform(Operation::DestroyCollection, target, end)
            .await
    }

    async fn end_collection(&self, id: CollectionId) -> Result<(), EngineError> {
        let collection = self.collection(id).await?;
        let _pass = self
            .inner
            .enter("it is being destroyed", &collection, &[])
            .await?;
        // Begun first: another may make it a member.
        let mut transaction = self.inner.records.begin().await;
        let snapshots = self.snapshots(Some(id)).await?.len();
        if snapshots > 0 {
            return Err(EngineError::state(format!(
                "collection {} has {snapshots} snapshots; destroy them first",
                collection.name
            )));
        }
        let points = self.reference_points(Some(id)).await?.len();
        if points > 0 {
            return Err(EngineError::state(format!(
                "collection {} has {points} reference points; destroy them first",
                collection.name
            )));
        }
        if let Some(above) = self
            .collections()
            .await?
            .into_iter()
            .find(|above| above.collections.contains(&id))
        {
            return Err(EngineError::state(format!(
                "collection {} is a member of {}; remove it there first",
                collection.name, above.name
            )));
        }
        let collection: Collection = transaction.require(&collection_key(id)).await?;
        transaction.delete(collection_key(id));
        transaction.delete(collection_name_key(&collection.name));
        transaction.commit().await
    }

    /// Adds a machine. Adding a member again is no error and changes nothing.
    ///
    /// # Errors
    /// `NotFound`; `InvalidParameter` a collection of collections; `InvalidState`
    /// in use.
    pub async fn add_machine(
        &self,
        collection: CollectionId,
        machine: MachineId,
    ) -> Result<(), EngineError> {
        self.change(
            Operation::AddMember,
            collection,
            CollectionKind::Machines,
            |members| {
                if !members.machines.contains(&machine) {
                    members.machines.push(machine);
                }
                Ok(Some(machine_key(machine)))
            },
        )
        .await
    }

    /// Removes a machine. Snapshots that it took part in keep it.
    ///
    /// # Errors
    /// `NotFound` collection or member; `InvalidState` in use.
    pub async fn remove_machine(
        &self,
        collection: CollectionId,
        machine: MachineId,
    ) -> Result<(), EngineError> {
        self.change(
            Operation::RemoveMember,
            collection,
            CollectionKind::Machines,
            |members| {
                let before = members.machines.len();
                members.machines.retain(|member| *member != machine);
                if members.machines.len() == before {
                    return Err(EngineError::not_found(format!(
                        "machine {machine} is no member of collection {}",
                        members.name
                    )));
                }
                Ok(None)
            },
        )
        .await
    }

    /// Adds a collection to a collection of collections.
    ///
    /// # Errors
    /// `NotFound`; `InvalidParameter` a collection of machines, or one that would
    /// contain itself; `InvalidState` in use.
    pub async fn add_collection(
        &self,
        collection: CollectionId,
        member: CollectionId,
    ) -> Result<(), EngineError> {
        let below = self
            .inner
            .collections_below(&self.collection(member).await?)
            .await?;
        if below.iter().any(|below| below.id == collection) {
            return Err(EngineError::invalid(
                "a collection cannot be a member of itself, nor of one below it",
            ));
        }
        self.change(
            Operation::AddMember,
            collection,
            CollectionKind::Collections,
            |members| {
                if !members.collections.contains(&member) {
                    members.collections.push(member);
                }
                Ok(Some(collection_key(member)))
            },
        )
        .await
    }

    /// Removes a collection from a collection of collections.
    ///
    /// # Errors
    /// `NotFound` collection or member; `InvalidState` in use.
    pub async fn remove_collection(
        &self,
        collection: CollectionId,
        member: CollectionId,
    ) -> Result<(), EngineError> {
        self.change(
            Operation::RemoveMember,
            collection,
            CollectionKind::Collections,
            |members| {
                let before = members.collections.len();
                members.collections.retain(|present| *present != member);
                if members.collections.len() == before {
                    return Err(EngineError::not_found(format!(
                        "collection {member} is no member of collection {}",
                        members.name
                    )));
                }
                Ok(None)
            },
        )
        .await
    }

    /// Changes a collection's members; `change` may name a record that must exist.
    async fn change(
        &self,
        operation: Operation,
        id: CollectionId,
        kind: CollectionKind,
        change: impl FnOnce(&mut Collection) -> Result<Option<String>, EngineError>,
    ) -> Result<(), EngineError> {
        let target = self.collection_target(id).await;
        self.perform(operation, target, self.change_members(id, kind, change))
            .await
    }

    async fn change_members(
        &self,
        id: CollectionId,
        kind: CollectionKind,
        change: impl FnOnce(&mut Collection) -> Result<Option<String>, EngineError>,
    ) -> Result<(), EngineError> {
        let mut collection = self.collection(id).await?;
        let _pass = self
            .inner
            .enter("its members are being changed", &collection, &[])
            .await?;
        if collection.kind != kind {
            return Err(EngineError::invalid(match collection.kind {
                CollectionKind::Machines => {
                    format!(
                        "collection {} holds machines, not collections",
                        collection.name
                    )
                }
                CollectionKind::Collections => {
                    format!(
                        "collection {} holds collections, not machines",
                        collection.name
                    )
                }
            }));
        }
        let mut transaction = self.inner.records.begin().await;
        collection = transaction.require(&collection_key(id)).await?;
        if let Some(key) = change(&mut collection)?
            && !transaction.exists(&key).await?
        {
            return Err(EngineError::not_found(format!(
                "there is no {}",
                key.replace('/', " ")
            )));
        }
        transaction.put(&collection)?;
        transaction.commit().await
    }

    /// All machines below a collection, each once.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn machines_of(&self, id: CollectionId) -> Result<Vec<Machine>, EngineError> {
        let collection = self.collection(id).await?;
        self.inner.machines_of(&collection).await
    }
}

pub(crate) fn exists(message: String) -> EngineError {
    EngineError::new(ErrorKind::Exists, message)
}

impl Inner {
    /// A collection and all below it, each once.
    pub(crate) async fn collections_below(
        &self,
        collection: &Collection,
    ) -> Result<Vec<Collection>, EngineError> {
        let mut seen = HashSet::from([collection.id]);
        let mut all = vec![collection.clone()];
        let mut next = 0;
        while let Some(current) = all.get(next) {
            for id in current.collections.clone() {
                if seen.insert(id) {
                    all.push(self.collection(id).await?);
                }
            }
            next += 1;
        }
        Ok(all)
    }

    /// All machines below a collection, each once, in the order of membership.
    pub(crate) async fn machines_of(
        &self,
        collection: &Collection,
    ) -> Result<Vec<Machine>, EngineError> {
        let mut seen = HashSet::new();
        let mut machines = Vec::new();
        for collection in self.collections_below(collection).await? {
            for id in collection.machines {
                if seen.insert(id) {
                    machines.push(self.machine(id).await?);
                }
            }
        }
        Ok(machines)
    }
}
