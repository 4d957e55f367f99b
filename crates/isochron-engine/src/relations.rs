//! What refers to what, kept in memory beside the records: which collections a
//! machine is in, which snapshots it has, what grew from what. A question about one
//! object never reads the records of all.
//!
//! It is read from the store once, at the start. From then on each committed
//! transaction changes it, before anybody is told of the commit and before the next
//! transaction begins, so whoever has seen a change finds it here.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use crate::events::{Change, Event};
use crate::model::{
    Collection, CollectionId, MachineId, MemberPointId, MemberSnapshotId, ReferencePoint,
    ReferencePointId, Snapshot, SnapshotId,
};

/// A question that is answered by identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Of {
    /// The collections with this machine.
    CollectionsWith(MachineId),
    /// The collections with this collection.
    CollectionsAbove(CollectionId),
    /// A collection's snapshots.
    SnapshotsOfCollection(CollectionId),
    /// The snapshots of which this machine is a member.
    SnapshotsOfMachine(MachineId),
    /// The snapshot of which this is a member's.
    SnapshotWith(MemberSnapshotId),
    /// The snapshots in which a member grew from this.
    SnapshotsGrownFrom(MemberSnapshotId),
    /// A collection's reference points.
    PointsOfCollection(CollectionId),
    /// The reference points of which this machine is a member.
    PointsOfMachine(MachineId),
    /// The reference point of which this is a member's part.
    PointWith(MemberPointId),
}

/// The answers.
#[derive(Debug, Default)]
pub(crate) struct Relations(Mutex<HashMap<Of, BTreeSet<Uuid>>>);

impl Relations {
    /// Those of what the store holds.
    pub(crate) fn new(
        collections: &[Collection],
        snapshots: &[Snapshot],
        points: &[ReferencePoint],
    ) -> Self {
        let relations = Self::default();
        relations.exchange(
            &[],
            &collections
                .iter()
                .flat_map(of_collection)
                .collect::<Vec<_>>(),
        );
        relations.exchange(
            &[],
            &snapshots.iter().flat_map(of_snapshot).collect::<Vec<_>>(),
        );
        relations.exchange(&[], &points.iter().flat_map(of_point).collect::<Vec<_>>());
        relations
    }

    /// The identifiers, in their order.
    pub(crate) fn get(&self, of: Of) -> Vec<Uuid> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(&of).into_iter().flatten().copied().collect()
    }

    /// Takes a change of a record up.
    pub(crate) fn follow(&self, event: &Event) {
        match event {
            Event::Collection(change) => self.change(change, of_collection),
            Event::Snapshot(change) => self.change(change, of_snapshot),
            Event::ReferencePoint(change) => self.change(change, of_point),
            Event::Machine(_) | Event::Job(_) | Event::Power { .. } => {}
        }
    }

    fn change<T>(&self, change: &Change<T>, of: fn(&T) -> Vec<(Of, Uuid)>) {
        match change {
            Change::Created(now) => self.exchange(&[], &of(now)),
            Change::Changed { before, now } => self.exchange(&of(before), &of(now)),
            Change::Gone(before) => self.exchange(&of(before), &[]),
        }
    }

    fn exchange(&self, old: &[(Of, Uuid)], new: &[(Of, Uuid)]) {
        // A panic cannot leave it half done: nothing in here panics.
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (of, id) in old {
            if let Some(ids) = answers.get_mut(of) {
                ids.remove(id);
                if ids.is_empty() {
                    answers.remove(of);
                }
            }
        }
        for (of, id) in new {
            answers.entry(*of).or_default().insert(*id);
        }
    }
}

fn of_collection(collection: &Collection) -> Vec<(Of, Uuid)> {
    let machines = collection.machines.iter().copied().map(Of::CollectionsWith);
    let below = collection.collections.iter().copied();
    machines
        .chain(below.map(Of::CollectionsAbove))
        .map(|of| (of, collection.id.0))
        .collect()
}

fn of_snapshot(snapshot: &Snapshot) -> Vec<(Of, Uuid)> {
    let members = snapshot.members.iter().flat_map(|member| {
        let own = [
            Of::SnapshotsOfMachine(member.machine),
            Of::SnapshotWith(member.id),
        ];
        own.into_iter()
            .chain(member.parent.map(Of::SnapshotsGrownFrom))
    });
    std::iter::once(Of::SnapshotsOfCollection(snapshot.collection))
        .chain(members)
        .map(|of| (of, snapshot.id.0))
        .collect()
}

fn of_point(point: &ReferencePoint) -> Vec<(Of, Uuid)> {
    let members = point.members.iter().flat_map(|member| {
        [
            Of::PointsOfMachine(member.machine),
            Of::PointWith(member.id),
        ]
    });
    std::iter::once(Of::PointsOfCollection(point.collection))
        .chain(members)
        .map(|of| (of, point.id.0))
        .collect()
}

impl crate::Engine {
    /// The collections that a machine is in, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn collections_with(
        &self,
        machine: MachineId,
    ) -> Result<Vec<Collection>, crate::EngineError> {
        self.collections_that(Of::CollectionsWith(machine)).await
    }

    /// The collections that a collection is in, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn collections_above(
        &self,
        collection: CollectionId,
    ) -> Result<Vec<Collection>, crate::EngineError> {
        self.collections_that(Of::CollectionsAbove(collection))
            .await
    }

    /// The snapshots of which a machine is a member, oldest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn snapshots_of_machine(
        &self,
        machine: MachineId,
    ) -> Result<Vec<Snapshot>, crate::EngineError> {
        self.snapshots_that(Of::SnapshotsOfMachine(machine)).await
    }

    /// The snapshot of which this is a member's, if there is one.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn snapshot_with(
        &self,
        member: MemberSnapshotId,
    ) -> Result<Option<Snapshot>, crate::EngineError> {
        Ok(self.snapshots_that(Of::SnapshotWith(member)).await?.pop())
    }

    /// The snapshots in which a member grew from this member's, oldest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn snapshots_grown_from(
        &self,
        member: MemberSnapshotId,
    ) -> Result<Vec<Snapshot>, crate::EngineError> {
        self.snapshots_that(Of::SnapshotsGrownFrom(member)).await
    }

    /// The reference points of which a machine is a member, oldest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn reference_points_of_machine(
        &self,
        machine: MachineId,
    ) -> Result<Vec<ReferencePoint>, crate::EngineError> {
        self.inner.points_that(Of::PointsOfMachine(machine)).await
    }

    /// The reference point of which this is a member's part, if there is one.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn reference_point_with(
        &self,
        member: MemberPointId,
    ) -> Result<Option<ReferencePoint>, crate::EngineError> {
        Ok(self.inner.points_that(Of::PointWith(member)).await?.pop())
    }

    pub(crate) async fn snapshots_that(&self, of: Of) -> Result<Vec<Snapshot>, crate::EngineError> {
        let records = &self.inner.records;
        let mut found = Vec::new();
        for id in records.relations().await.get(of) {
            // It may have gone meanwhile.
            let key = crate::records::snapshot_key(SnapshotId(id));
            found.extend(records.get::<Snapshot>(&key).await?);
        }
        found.sort_by_key(|snapshot| (snapshot.created_at, snapshot.id));
        Ok(found)
    }

    async fn collections_that(&self, of: Of) -> Result<Vec<Collection>, crate::EngineError> {
        let records = &self.inner.records;
        let mut found = Vec::new();
        for id in records.relations().await.get(of) {
            let key = crate::records::collection_key(CollectionId(id));
            found.extend(records.get::<Collection>(&key).await?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}

impl crate::engine::Inner {
    pub(crate) async fn points_that(
        &self,
        of: Of,
    ) -> Result<Vec<ReferencePoint>, crate::EngineError> {
        let mut found = Vec::new();
        for id in self.records.relations().await.get(of) {
            // It may have gone meanwhile.
            let key = crate::records::point_key(ReferencePointId(id));
            found.extend(self.records.get::<ReferencePoint>(&key).await?);
        }
        found.sort_by_key(|point| (point.created_at, point.id));
        Ok(found)
    }
}
