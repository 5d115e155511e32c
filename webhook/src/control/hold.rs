//! A netmap never shrinks by accident.
//!
//! When a custom resource definition is deleted, the API server first deletes every object of its kind: seen through
//! a watch, that is no different from an admin who deletes them one by one. So before anything is published that
//! lacks a grant or recorder of the world before, the definitions are looked at; while one of them is missing, going,
//! or new and still empty (a definition that was just put back), the world before stays.
//! A list that fails changes no cache and therefore nothing here.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};
use thiserror::Error;

/// Definitions whose objects netmaps are made of.
pub const DEFINITIONS: [&str; 2] = ["grants.podwitness.dev", "recorders.podwitness.dev"];

/// Why nothing new is published.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Held {
    /// The definition is gone.
    #[error("{0} is not defined in this cluster; apply the definitions again")]
    Missing(&'static str),
    /// The definition is being deleted.
    #[error("{0} is being deleted")]
    Terminating(&'static str),
    /// The definition was put back, its objects were not yet.
    #[error("{0} was defined anew and has no objects yet")]
    Empty(&'static str),
    /// Nobody can say how the definition stands.
    #[error("cannot look at {0}: {1}")]
    Unknown(&'static str, String),
}

/// A definition as far as it matters here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Definition {
    /// Its uid, another one after it was deleted and put back.
    pub uid: String,
    /// Whether it is being deleted.
    pub terminating: bool,
}

/// Names of the objects of one kind.
pub type Names = BTreeSet<String>;

/// One kind as it was published last.
#[derive(Clone, Debug, Default)]
struct Kind {
    uid: Option<String>,
    names: Names,
}

/// Watches over what is published.
#[derive(Debug)]
pub struct Hold {
    definitions: Api<CustomResourceDefinition>,
    kinds: [Kind; 2],
}

impl Hold {
    /// Nothing published yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { definitions: Api::all(client), kinds: Default::default() }
    }

    /// Whether objects of these names (by kind, in the order of [`DEFINITIONS`]) may be published; remembers them if
    /// so.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&mut self, names: [Names; 2]) -> Result<(), Held> {
        let mut next = self.kinds.clone();
        for ((kind, names), definition) in next.iter_mut().zip(names).zip(DEFINITIONS) {
            if kind.needs_a_look(&names) {
                kind.judge(definition, self.look(definition).await?, &names)?;
            }
            kind.names = names;
        }
        self.kinds = next;
        Ok(())
    }

    async fn look(&self, name: &'static str) -> Result<Option<Definition>, Held> {
        let found = self.definitions.get_metadata_opt(name).await;
        let found = found.map_err(|error| Held::Unknown(name, error.to_string()))?;
        Ok(found.map(|object| Definition {
            uid: object.metadata.uid.unwrap_or_default(),
            terminating: object.metadata.deletion_timestamp.is_some(),
        }))
    }
}

impl Kind {
    fn needs_a_look(&self, names: &Names) -> bool {
        self.uid.is_none() || !self.names.is_subset(names)
    }

    fn judge(
        &mut self,
        name: &'static str,
        definition: Option<Definition>,
        names: &Names,
    ) -> Result<(), Held> {
        let Definition { uid, terminating } = definition.ok_or(Held::Missing(name))?;
        if terminating {
            return Err(Held::Terminating(name));
        }
        let anew = self.uid.as_ref().is_some_and(|known| *known != uid);
        if anew && names.is_empty() && !self.names.is_empty() {
            return Err(Held::Empty(name));
        }
        self.uid = Some(uid);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = DEFINITIONS[0];

    fn names(list: &[&str]) -> Names {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn definition(uid: &str, terminating: bool) -> Option<Definition> {
        Some(Definition { uid: uid.into(), terminating })
    }

    #[test]
    fn what_shrinks_is_looked_at_and_what_grows_is_not() {
        let kind = Kind { uid: Some("u1".into()), names: names(&["a", "b"]) };
        assert!(!kind.needs_a_look(&names(&["a", "b"])) && !kind.needs_a_look(&names(&["a", "b", "c"])));
        assert!(kind.needs_a_look(&names(&["a"])) && kind.needs_a_look(&names(&["a", "c"])));
        assert!(Kind::default().needs_a_look(&names(&[])));
    }

    #[test]
    fn objects_that_vanish_with_their_definition_are_held() {
        for (found, left, expected) in [
            (definition("u1", false), &["a"][..], Ok(())),
            (definition("u1", false), &[], Ok(())),
            (definition("u1", true), &["a"], Err(Held::Terminating(NAME))),
            (None, &[], Err(Held::Missing(NAME))),
            (definition("u2", false), &[], Err(Held::Empty(NAME))),
            (definition("u2", false), &["a"], Ok(())),
        ] {
            let mut kind = Kind { uid: Some("u1".into()), names: names(&["a", "b"]) };
            assert_eq!(kind.judge(NAME, found.clone(), &names(left)), expected, "{found:?} {left:?}");
        }
    }

    #[test]
    fn a_cluster_without_objects_is_believed_at_the_start() {
        let mut kind = Kind::default();
        assert_eq!(kind.judge(NAME, definition("u1", false), &names(&[])), Ok(()));
        assert_eq!(kind.judge(NAME, definition("u2", false), &names(&[])), Ok(()));
    }
}
