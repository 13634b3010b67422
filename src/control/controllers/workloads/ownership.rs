//! Who controls whom: adopting what fits a selector, releasing what no longer does.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::rc::Rc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::core::{Selector, SelectorExt};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::client::informer::{Informer, key_of};

/// The owner that controls an object, if any.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

pub fn is_controlled_by(meta: &ObjectMeta, uid: Option<&str>) -> bool {
    uid.is_some() && controller_of(meta).map(|owner| owner.uid.as_str()) == uid
}

/// The key of the object of this kind that controls another.
pub fn controller_key(meta: &ObjectMeta, kind: &str) -> Option<String> {
    let owner = controller_of(meta).filter(|owner| owner.kind == kind)?;
    Some(format!("{}/{}", meta.namespace.as_deref()?, owner.name))
}

/// The reference a controlled object carries.
pub fn reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A selector ready for matching; one that cannot be read, or selects everything, selects nothing.
pub fn selector(of: &LabelSelector) -> Option<Selector> {
    let selector = Selector::try_from(of.clone()).ok()?;
    (!selector.selects_all()).then_some(selector)
}

/// What to do with a candidate, by its owner and labels.
#[derive(Debug, PartialEq)]
enum Claim {
    Mine,
    Adopt,
    Release,
    Leave,
}

fn judge(candidate: &ObjectMeta, owner: &ObjectMeta, fits: bool) -> Claim {
    match controller_of(candidate) {
        Some(controller) if Some(&controller.uid) != owner.uid.as_ref() => Claim::Leave,
        Some(_) if fits => Claim::Mine,
        Some(_) if owner.deletion_timestamp.is_some() => Claim::Leave,
        Some(_) => Claim::Release,
        None if !fits || owner.deletion_timestamp.is_some() || candidate.deletion_timestamp.is_some() => {
            Claim::Leave
        }
        None => Claim::Adopt,
    }
}

/// The objects of `informer` that `owner` controls, after adopting orphans and releasing strangers.
pub async fn claim<O, K>(
    client: &Client,
    informer: &Informer<K>,
    owner: &O,
    selector: &LabelSelector,
) -> Result<Vec<Rc<K>>, kube::Error>
where
    O: Resource<DynamicType = ()>,
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
{
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let Some(selector) = self::selector(selector) else { return Ok(Vec::new()) };
    let (nothing, mut mine) = (BTreeMap::new(), Vec::new());
    for candidate in informer.in_namespace(namespace) {
        let meta = candidate.meta();
        let fits = selector.matches(meta.labels.as_ref().unwrap_or(&nothing));
        let references: Vec<OwnerReference> = match judge(meta, owner.meta(), fits) {
            Claim::Mine => {
                mine.push(candidate);
                continue;
            }
            Claim::Leave => continue,
            Claim::Adopt => {
                meta.owner_references.iter().flatten().cloned().chain([reference(owner)]).collect()
            }
            Claim::Release => {
                let other = |one: &&OwnerReference| Some(&one.uid) != owner.meta().uid.as_ref();
                meta.owner_references.iter().flatten().filter(other).cloned().collect()
            }
        };
        let adopted = references.iter().any(|one| Some(&one.uid) == owner.meta().uid.as_ref());
        let patch = json!({"metadata": {
            "uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": references,
        }});
        let name = meta.name.as_deref().unwrap_or_default();
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(changed) => informer.learn(changed),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => continue,
            Err(error) => return Err(error),
        }
        if adopted {
            mine.extend(informer.get(&key_of(&*candidate)));
        }
    }
    Ok(mine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(uid: &str, controller: Option<&str>, leaving: bool) -> ObjectMeta {
        let owners = controller.map(
            |uid| json!([{"apiVersion": "v1", "kind": "K", "name": "n", "uid": uid, "controller": true}]),
        );
        let leaving = leaving.then_some("2026-01-01T00:00:00Z");
        serde_json::from_value(json!({"uid": uid, "ownerReferences": owners, "deletionTimestamp": leaving}))
            .unwrap()
    }

    #[test]
    fn orphans_are_adopted_strangers_released_and_those_of_others_left() {
        let owner = meta("me", None, false);
        assert_eq!(judge(&meta("x", None, false), &owner, true), Claim::Adopt);
        assert_eq!(judge(&meta("x", None, false), &owner, false), Claim::Leave);
        assert_eq!(judge(&meta("x", Some("me"), false), &owner, true), Claim::Mine);
        assert_eq!(judge(&meta("x", Some("me"), false), &owner, false), Claim::Release);
        assert_eq!(judge(&meta("x", Some("other"), false), &owner, true), Claim::Leave);
    }

    #[test]
    fn one_who_leaves_adopts_nothing() {
        let owner = meta("me", None, true);
        assert_eq!(judge(&meta("x", None, false), &owner, true), Claim::Leave);
        assert_eq!(judge(&meta("x", Some("me"), false), &owner, true), Claim::Mine);
        assert_eq!(judge(&meta("x", None, true), &meta("me", None, false), true), Claim::Leave);
    }
}
