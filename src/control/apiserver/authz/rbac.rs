//! Role-based access control (`plugin/pkg/auth/authorizer/rbac`).
//!
//! The index of who is bound to what is derived from the store and follows it: before an answer it is
//! compared with the store's revision, so a new binding counts from the very next request on.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::registry;
use super::super::request::RequestInfo;
use super::super::user::UserInfo;
use super::{Decision, Rule};
use crate::control::store::{Revision, Store};

const GROUP: &str = "rbac.authorization.k8s.io";
/// Roles, cluster roles and the bindings of both.
const KINDS: [&str; 4] = ["roles", "clusterroles", "rolebindings", "clusterrolebindings"];
const ACCOUNT: &str = "system:serviceaccount:";

/// The RBAC authorizer.
pub(super) struct Rbac {
    store: Store,
    buckets: [String; 4],
    index: RwLock<Arc<Index>>,
}

/// Somebody a binding can name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// A binding seen from one of its subjects.
struct Grant {
    reason: Arc<str>,
    /// The role's rules, or why there are none.
    rules: Result<Arc<Vec<Rule>>, String>,
}

/// Who is bound to what at one moment.
#[derive(Default)]
struct Index {
    revisions: [Revision; 4],
    objects: Objects,
    cluster: HashMap<Subject, Vec<Grant>>,
    namespaced: HashMap<String, HashMap<Subject, Vec<Grant>>>,
}

type Kept<T> = HashMap<Arc<str>, (Revision, Arc<T>)>;

/// The objects, read once each.
#[derive(Default, Clone)]
struct Objects {
    roles: Kept<RoleObject>,
    cluster_roles: Kept<RoleObject>,
    bindings: Kept<BindingObject>,
    cluster_bindings: Kept<BindingObject>,
}

#[derive(Deserialize)]
struct RoleObject {
    #[serde(default, deserialize_with = "null_is_empty")]
    rules: Arc<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BindingObject {
    #[serde(default)]
    subjects: Vec<SubjectRef>,
    role_ref: RoleRef,
}

#[derive(Deserialize)]
struct SubjectRef {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct RoleRef {
    kind: String,
    name: String,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Arc<Vec<Rule>>, D::Error> {
    Ok(Arc::new(Option::<Vec<Rule>>::deserialize(from)?.unwrap_or_default()))
}

impl Rbac {
    pub(super) fn new(store: Store) -> Self {
        let bucket =
            |plural| registry::by_name(GROUP, plural).expect("the table has RBAC's rows").bucket.clone();
        Self { store, buckets: KINDS.map(bucket), index: RwLock::default() }
    }

    pub(super) fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Decision {
        let namespace = info.resource.as_ref().map_or("", |resource| resource.namespace.as_str());
        let index = self.index();
        let mut errors = Vec::new();
        for grant in index.grants(user, namespace) {
            match &grant.rules {
                Ok(rules) if rules.iter().any(|rule| rule.allows(info)) => {
                    return Decision::Allow { reason: Arc::clone(&grant.reason) };
                }
                Ok(_) => {}
                Err(error) if errors.contains(error) => {}
                Err(error) => errors.push(error.clone()),
            }
        }
        Decision::NoOpinion { reason: aggregate(&errors) }
    }

    /// Every rule that applies to a user in a namespace, and the roles that could not be found.
    pub(super) fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<Arc<Vec<Rule>>>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for grant in self.index().grants(user, namespace) {
            match &grant.rules {
                Ok(found) => rules.push(Arc::clone(found)),
                Err(error) => errors.push(error.clone()),
            }
        }
        (rules, errors)
    }

    /// The index as of now.
    fn index(&self) -> Arc<Index> {
        let current = || {
            let revision = |bucket: &String| self.store.bucket_revision(bucket);
            [0, 1, 2, 3].map(|at: usize| revision(&self.buckets[at]))
        };
        let known = Arc::clone(&self.index.read().expect("nothing panics while holding the lock"));
        if known.revisions == current() {
            return known;
        }
        let mut slot = self.index.write().expect("nothing panics while holding the lock");
        let revisions = current();
        if slot.revisions != revisions {
            *slot = Arc::new(self.derive(revisions, &slot.objects));
        }
        Arc::clone(&slot)
    }

    fn derive(&self, revisions: [Revision; 4], before: &Objects) -> Index {
        let [roles, cluster_roles, bindings, cluster_bindings] = &self.buckets;
        let objects = Objects {
            roles: self.read(roles, &before.roles),
            cluster_roles: self.read(cluster_roles, &before.cluster_roles),
            bindings: self.read(bindings, &before.bindings),
            cluster_bindings: self.read(cluster_bindings, &before.cluster_bindings),
        };
        let mut index = Index { revisions, ..Index::default() };
        for (name, (_, binding)) in &objects.cluster_bindings {
            let place = Place { kind: "ClusterRoleBinding", name: name.to_string(), namespace: "" };
            place.add(binding, &objects, &mut index.cluster);
        }
        for (key, (_, binding)) in &objects.bindings {
            let (namespace, name) = key.split_once('/').unwrap_or(("", key));
            let place = Place { kind: "RoleBinding", name: format!("{name}/{namespace}"), namespace };
            place.add(binding, &objects, index.namespaced.entry(namespace.to_owned()).or_default());
        }
        index.objects = objects;
        index
    }

    /// The bucket's objects; those that have not changed are taken from before.
    fn read<T: DeserializeOwned>(&self, bucket: &str, before: &Kept<T>) -> Kept<T> {
        let Ok(page) = self.store.list(bucket, "", None, None, None) else { return before.clone() };
        let mut kept = HashMap::with_capacity(page.entries.len());
        for entry in page.entries {
            let same = before.get(&entry.key).filter(|(revision, _)| *revision == entry.mod_revision);
            let object = match same {
                Some((_, object)) => Arc::clone(object),
                // What was stored was validated; what cannot be read grants nothing.
                None => match serde_json::from_slice(&entry.value) {
                    Ok(object) => Arc::new(object),
                    Err(_) => continue,
                },
            };
            kept.insert(entry.key, (entry.mod_revision, object));
        }
        kept
    }
}

/// Where a binding is.
struct Place<'a> {
    kind: &'static str,
    /// As the reason prints it.
    name: String,
    namespace: &'a str,
}

impl Place<'_> {
    fn add(&self, binding: &BindingObject, objects: &Objects, to: &mut HashMap<Subject, Vec<Grant>>) {
        let role = &binding.role_ref;
        let rules = match role.kind.as_str() {
            "ClusterRole" => objects.cluster_roles.get(role.name.as_str()),
            _ => objects.roles.get(format!("{}/{}", self.namespace, role.name).as_str()),
        };
        let rules = rules.map(|(_, object)| Arc::clone(&object.rules));
        let rules =
            rules.ok_or_else(|| format!("{}.{GROUP} {:?} not found", role.kind.to_lowercase(), role.name));
        for subject in &binding.subjects {
            let (key, shown) = self.subject(subject);
            let reason = format!(
                "RBAC: allowed by {} {:?} of {} {:?} to {shown}",
                self.kind, self.name, role.kind, role.name
            );
            to.entry(key).or_default().push(Grant { reason: reason.into(), rules: rules.clone() });
        }
    }

    fn subject(&self, subject: &SubjectRef) -> (Subject, String) {
        let name = &subject.name;
        match subject.kind.as_str() {
            "Group" => (Subject::Group(name.clone()), format!("Group {name:?}")),
            "ServiceAccount" => {
                let namespace =
                    if subject.namespace.is_empty() { self.namespace } else { subject.namespace.as_str() };
                let user = format!("{ACCOUNT}{namespace}:{name}");
                (Subject::User(user), format!("ServiceAccount {:?}", format!("{name}/{namespace}")))
            }
            _ => (Subject::User(name.clone()), format!("User {name:?}")),
        }
    }
}

impl Index {
    /// Every grant that counts for a user in a namespace: the cluster's first, then the namespace's.
    fn grants<'a>(&'a self, user: &'a UserInfo, namespace: &str) -> impl Iterator<Item = &'a Grant> {
        let here = self.namespaced.get(namespace).filter(|_| !namespace.is_empty());
        let scopes = std::iter::once(&self.cluster).chain(here);
        scopes.flat_map(move |scope| {
            let names = std::iter::once(Subject::User(user.name.clone()));
            let groups = user.groups.iter().map(|group| Subject::Group(group.clone()));
            names.chain(groups).filter_map(move |subject| scope.get(&subject)).flatten()
        })
    }
}

/// Errors as Go's `NewAggregate` prints them, behind RBAC's prefix.
fn aggregate(errors: &[String]) -> String {
    match errors {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    }
}
