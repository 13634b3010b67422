//! The graph of owners: who depends on whom, and what that means for an object. Pure.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PropagationPolicy;
use kube::core::ApiResource;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// What the graph knows of one object.
#[derive(Debug, Clone)]
pub struct Object {
    pub resource: Rc<ApiResource>,
    pub namespace: Option<String>,
    pub name: String,
    pub owners: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub leaving: bool,
}

/// Objects by uid, and who depends on whom.
#[derive(Default)]
pub struct Graph {
    pub objects: HashMap<String, Object>,
    pub dependents: HashMap<String, HashSet<String>>,
    pub resources: Vec<Rc<ApiResource>>,
}

/// Whether an owner is of this kind. The version may differ from the one that is watched.
pub fn is_of(owner: &OwnerReference, kind: &ApiResource) -> bool {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    kind.kind == owner.kind && kind.group == group
}

impl Graph {
    pub fn insert(&mut self, uid: &str, object: Object) {
        self.remove(uid);
        for owner in &object.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.to_owned());
        }
        self.objects.insert(uid.to_owned(), object);
    }

    pub fn remove(&mut self, uid: &str) -> Option<Object> {
        let object = self.objects.remove(uid)?;
        for owner in &object.owners {
            if let Some(siblings) = self.dependents.get_mut(&owner.uid) {
                siblings.remove(uid);
                if siblings.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        Some(object)
    }

    pub fn dependents_of(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    pub fn resource(&self, owner: &OwnerReference) -> Option<Rc<ApiResource>> {
        self.resources.iter().find(|one| is_of(owner, one)).cloned()
    }

    /// What to do about an object.
    pub fn judge(&self, uid: &str) -> Verdict {
        let Some(object) = self.objects.get(uid) else { return Verdict::Nothing };
        if object.leaving {
            let dependents = self.dependents_of(uid);
            if object.finalizers.iter().any(|one| one == ORPHAN) {
                return Verdict::FreeDependents(dependents);
            }
            if object.finalizers.iter().any(|one| one == FOREGROUND) {
                let blocks = |dependent: &&String| {
                    let owners =
                        self.objects.get(*dependent).map(|one| one.owners.as_slice()).unwrap_or_default();
                    owners.iter().any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
                };
                let blocking: Vec<String> = dependents.iter().filter(blocks).cloned().collect();
                return match blocking.is_empty() {
                    true => Verdict::DropFinalizer(FOREGROUND),
                    false => Verdict::WaitFor(dependents),
                };
            }
            return Verdict::Nothing;
        }
        if object.owners.is_empty() {
            return Verdict::Nothing;
        }
        let gone: Vec<OwnerReference> =
            object.owners.iter().filter(|owner| !self.objects.contains_key(&owner.uid)).cloned().collect();
        let waiting = object.owners.iter().any(|owner| {
            let waits =
                |owner: &Object| owner.leaving && owner.finalizers.iter().any(|one| one == FOREGROUND);
            self.objects.get(&owner.uid).is_some_and(waits)
        });
        match (gone.len() == object.owners.len(), waiting) {
            (true, _) => Verdict::Verify(gone),
            (false, true) if gone.len() + 1 >= object.owners.len() => {
                Verdict::Delete(PropagationPolicy::Background)
            }
            _ => Verdict::Nothing,
        }
    }
}

#[derive(Debug, PartialEq)]
pub enum Verdict {
    Nothing,
    /// All owners seem gone: ask, then delete.
    Verify(Vec<OwnerReference>),
    Delete(PropagationPolicy),
    /// Dependents still block: they are deleted, then this comes again.
    WaitFor(Vec<String>),
    DropFinalizer(&'static str),
    FreeDependents(Vec<String>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(owners: &[&str], finalizers: &[&str], leaving: bool) -> Object {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: "Pod".into(),
            plural: "pods".into(),
        };
        let owner = |uid: &&str| OwnerReference {
            uid: (*uid).into(),
            block_owner_deletion: Some(true),
            ..OwnerReference::default()
        };
        Object {
            resource: Rc::new(resource),
            namespace: Some("default".into()),
            name: "x".into(),
            owners: owners.iter().map(owner).collect(),
            finalizers: finalizers.iter().map(|one| (*one).into()).collect(),
            leaving,
        }
    }

    #[test]
    fn an_object_goes_when_its_last_owner_has_gone() {
        let mut graph = Graph::default();
        graph.insert("a", object(&[], &[], false));
        graph.insert("x", object(&["a", "b"], &[], false));
        assert_eq!(graph.judge("x"), Verdict::Nothing);
        assert_eq!(graph.dependents_of("a"), ["x"]);
        graph.remove("a");
        assert!(matches!(graph.judge("x"), Verdict::Verify(owners) if owners.len() == 2));
        graph.remove("x");
        assert!(graph.dependents.is_empty());
    }

    #[test]
    fn in_the_foreground_dependents_go_first() {
        let mut graph = Graph::default();
        graph.insert("a", object(&[], &[FOREGROUND], true));
        graph.insert("x", object(&["a"], &[], false));
        assert_eq!(graph.judge("a"), Verdict::WaitFor(vec!["x".into()]));
        assert_eq!(graph.judge("x"), Verdict::Delete(PropagationPolicy::Background));
        graph.remove("x");
        assert_eq!(graph.judge("a"), Verdict::DropFinalizer(FOREGROUND));
    }

    #[test]
    fn orphans_are_freed_before_their_owner_goes() {
        let mut graph = Graph::default();
        graph.insert("a", object(&[], &[ORPHAN], true));
        graph.insert("x", object(&["a"], &[], false));
        assert_eq!(graph.judge("a"), Verdict::FreeDependents(vec!["x".into()]));
        assert_eq!(graph.judge("x"), Verdict::Nothing);
    }
}
