//! Walks associations: from an object to those linked with it, over all links of a
//! class, and to one link by its path.
//!
//! A walk calls only the rows of the table whose class and whose far end fit what
//! is asked for; nothing is ever visited that the source is not linked with.

use std::collections::HashSet;

use isochron_cim::{AssociationFilter, CimError, Instance, Name, ObjectPath};

use crate::associations::{ASSOCIATIONS, Association};
use crate::lookup::Provider;
use crate::object::Object;
use crate::schema::Space;

/// Two objects and what links them, in the order of the association's ends.
#[derive(Clone)]
pub(crate) struct Link {
    association: &'static Association,
    objects: [Object; 2],
}

impl Provider {
    /// The links of an object that fit the filter, each with the index of the end
    /// at which the other object stands.
    pub(crate) async fn links(
        &self,
        space: &Space,
        source: &Object,
        filter: &AssociationFilter,
    ) -> Result<Vec<(Link, usize)>, CimError> {
        let schema = &space.repository;
        let is_role =
            |wanted: &Option<Name>, role: &str| wanted.as_ref().is_none_or(|w| w.is(role));
        let is_class = |wanted: &Option<Name>, class: &'static str| {
            wanted
                .as_ref()
                .is_none_or(|w| schema.is_a(&Name::fixed(class), w))
        };
        let mut links = Vec::new();
        for association in served(space) {
            if !is_class(&filter.association, association.class) {
                continue;
            }
            for far in [1, 0] {
                let (near_end, far_end) = (&association.ends[1 - far], &association.ends[far]);
                let fits = near_end.classes.contains(&source.class())
                    && is_role(&filter.role, near_end.role)
                    && is_role(&filter.result_role, far_end.role)
                    && far_end
                        .classes
                        .iter()
                        .any(|class| is_class(&filter.result_class, class));
                if !fits {
                    continue;
                }
                for object in (far_end.walk)(self, source).await? {
                    if is_class(&filter.result_class, object.class()) {
                        let mut objects = [source.clone(), object];
                        if far == 0 {
                            objects.reverse();
                        }
                        links.push((
                            Link {
                                association,
                                objects,
                            },
                            far,
                        ));
                    }
                }
            }
        }
        Ok(links)
    }

    /// The objects at the far ends of an object's links, each once.
    pub(crate) async fn neighbours(
        &self,
        space: &Space,
        source: &Object,
        filter: &AssociationFilter,
    ) -> Result<Vec<Object>, CimError> {
        let mut seen = HashSet::new();
        let links = self.links(space, source, filter).await?;
        let objects = links.into_iter().map(|(link, far)| {
            let [first, second] = link.objects;
            if far == 0 { first } else { second }
        });
        Ok(objects
            .filter(|object| seen.insert(object.path(&self.host)))
            .collect())
    }

    /// All links of an association class (not of its subclasses).
    pub(crate) async fn all_links(
        &self,
        space: &Space,
        class: &str,
    ) -> Result<Vec<Link>, CimError> {
        let mut links = Vec::new();
        for association in served(space).filter(|a| a.class == class) {
            for first_class in association.ends[0].classes {
                for first in self.all(first_class).await? {
                    for second in (association.ends[1].walk)(self, &first).await? {
                        links.push(Link {
                            association,
                            objects: [first.clone(), second],
                        });
                    }
                }
            }
        }
        Ok(links)
    }

    /// The link of this path, which has its class's keys.
    pub(crate) async fn find_link(
        &self,
        space: &Space,
        path: &ObjectPath,
    ) -> Result<Option<Link>, CimError> {
        let Some(association) = served(space).find(|a| path.class.is(a.class)) else {
            return Ok(None);
        };
        let mut objects = Vec::new();
        for end in &association.ends {
            let Some(reference) = path.key(end.role).and_then(|key| key.as_reference()) else {
                return Ok(None);
            };
            let Ok(reference) = self.complete(space, end.role, reference) else {
                return Ok(None);
            };
            objects.extend(self.find(space, &reference).await?);
        }
        let Ok([first, second]) = <[Object; 2]>::try_from(objects) else {
            return Ok(None);
        };
        let there = (association.ends[1].walk)(self, &first).await?;
        let far = second.path(&self.host);
        Ok(there
            .iter()
            .any(|object| object.path(&self.host) == far)
            .then_some(Link {
                association,
                objects: [first, second],
            }))
    }

    /// The link as an instance with its path, seen through a namespace.
    pub(crate) fn render_link(&self, space: &Space, link: &Link) -> Result<Instance, CimError> {
        let [first, second] = &link.objects;
        let mut instance = Instance::new(link.association.class);
        for (end, object) in link.association.ends.iter().zip(&link.objects) {
            instance.set(end.role, self.path(space, object));
        }
        (link.association.describe)(first, second, &mut instance);
        let mut instance = space.repository.complete(instance)?;
        let path = space.repository.path_of(&instance)?;
        instance.path = Some(path.in_namespace(space.name));
        Ok(instance)
    }
}

/// The associations that a namespace has, with what stands at their ends.
fn served(space: &Space) -> impl Iterator<Item = &'static Association> {
    ASSOCIATIONS
        .iter()
        .filter(|association| association.is_served(space))
}
