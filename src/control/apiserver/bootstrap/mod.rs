//! The roles and bindings an API server has from its first start (`rbac/bootstrappolicy`).
//!
//! At every start they are reconciled as upstream does: what is missing is added, what an administrator
//! added stays, and an object annotated `rbac.authorization.kubernetes.io/autoupdate: "false"` is left
//! alone. The rules are tables; the mechanism is here.

mod controllers;
pub mod flow;
mod namespaced;
mod roles;

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::authz::{Rule, cover};
use super::registry;
use crate::control::store::{Change, Draft, Expect, Store, StoreError};

const GROUP: &str = "rbac.authorization.k8s.io";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// A role as the tables write it. In `groups`, `core` is the group without a name.
struct Role {
    name: &'static str,
    rules: &'static [Line],
    /// `view`, `edit` or `admin`: which role takes these rules in.
    aggregate_to: &'static str,
    /// The label by which this role collects its rules from others.
    aggregates: &'static str,
}

/// One rule. Lists are separated by blanks.
enum Line {
    Resources { verbs: &'static str, groups: &'static str, resources: &'static str },
    Named { verbs: &'static str, groups: &'static str, resources: &'static str, names: &'static str },
    Paths { verbs: &'static str, paths: &'static str },
}

/// Who holds a cluster role: `group:NAME`, `user:NAME` or `account:NAMESPACE:NAME`, separated by blanks.
struct Binding {
    role: &'static str,
    subjects: &'static str,
}

const fn role(name: &'static str, rules: &'static [Line]) -> Role {
    Role { name, rules, aggregate_to: "", aggregates: "" }
}

const fn on(verbs: &'static str, groups: &'static str, resources: &'static str) -> Line {
    Line::Resources { verbs, groups, resources }
}

const fn named(
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
) -> Line {
    Line::Named { verbs, groups, resources, names }
}

const fn paths(verbs: &'static str, paths: &'static str) -> Line {
    Line::Paths { verbs, paths }
}

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const READ_WRITE: &str = "create delete deletecollection get list patch update watch";
const EVENTS: Line = on("create patch update", "core events.k8s.io", "events");

/// Puts everything missing into the store.
///
/// # Errors
/// The store's, if it does not take a write.
pub async fn reconcile(store: &Store) -> Result<(), StoreError> {
    let (wanted, classes) = (objects(), priority_classes());
    let roles = wanted.iter().map(|(plural, object)| ensure(store, GROUP, plural, object));
    let classes = classes.iter().map(|object| ensure(store, "scheduling.k8s.io", "priorityclasses", object));
    let flows = flow::objects();
    let flows = flows.iter().map(|(plural, object)| ensure(store, flow::GROUP, plural, object));
    let (outcomes, others, flows) = tokio::join!(join_all(roles), join_all(classes), join_all(flows));
    let outcomes = outcomes.into_iter().chain(others).chain(flows);
    outcomes.collect()
}

/// The rules of one of the cluster roles here, for the Node authorizer.
pub fn rules_of(name: &str) -> Vec<Rule> {
    let role = roles::ROLES.iter().find(|role| role.name == name);
    let rules = role.map(|role| rules_json(role.rules)).unwrap_or_default();
    rules.into_iter().filter_map(|rule| serde_json::from_value(rule).ok()).collect()
}

/// Every object with its resource.
fn objects() -> Vec<(&'static str, Value)> {
    let mut list = Vec::new();
    for role in roles::ROLES.iter().chain(controllers::ROLES) {
        list.push(("clusterroles", role.object()));
    }
    for binding in roles::BINDINGS {
        list.push(("clusterrolebindings", cluster_binding(binding.role, subjects(binding.subjects))));
    }
    for role in controllers::ROLES {
        let account = role.name.trim_start_matches(controllers::PREFIX);
        list.push((
            "clusterrolebindings",
            cluster_binding(role.name, subjects(&format!("account:kube-system:{account}"))),
        ));
    }
    list.extend(namespaced::objects());
    list
}

/// The two classes of pods that a cluster cannot do without (`pkg/registry/scheduling/rest`).
fn priority_classes() -> Vec<Value> {
    let class = |name: &str, value: i64, what: &str| {
        json!({
            "kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": name, "generation": 1},
            "value": value, "description": what, "preemptionPolicy": "PreemptLowerPriority",
        })
    };
    let critical = "Used for system critical pods that must";
    vec![
        class(
            "system-node-critical",
            2_000_001_000,
            &format!("{critical} not be moved from their current node."),
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            &format!("{critical} run in the cluster, but can be moved to another node if necessary."),
        ),
    ]
}

async fn ensure(store: &Store, group: &str, plural: &str, wanted: &Value) -> Result<(), StoreError> {
    let row = registry::by_name(group, plural).expect("the table has these rows");
    let meta = &wanted["metadata"];
    let key =
        row.key(meta["namespace"].as_str().unwrap_or_default(), meta["name"].as_str().unwrap_or_default());
    loop {
        let (object, expect) = match store.get(&row.bucket, &key) {
            None => (first(wanted), Expect::Absent),
            Some(entry) => {
                let Ok(current) = serde_json::from_slice::<Value>(&entry.value) else { return Ok(()) };
                let Some(merged) = extended(current, wanted) else { return Ok(()) };
                (merged, Expect::Revision(entry.mod_revision))
            }
        };
        match store.write(&row.bucket, &key, Some(expect), Change::Put(draft(object))).await {
            // Somebody was faster; look again.
            Err(StoreError::Exists | StoreError::Missing | StoreError::Modified { .. }) => {}
            other => return other.map(drop),
        }
    }
}

/// A new object.
fn first(wanted: &Value) -> Value {
    let mut object = wanted.clone();
    object["metadata"]["uid"] = json!(uuid::Uuid::new_v4().to_string());
    object["metadata"]["creationTimestamp"] =
        json!(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    object
}

/// The current object with what it lacks, or nothing if it lacks nothing.
fn extended(mut current: Value, wanted: &Value) -> Option<Value> {
    if current["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let mut changed = false;
    // An aggregating role's rules are not ours to count.
    let field = if wanted.get("roleRef").is_some() { "subjects" } else { "rules" };
    let missing: Vec<Value> = match (field, wanted[field].as_array()) {
        (_, None) => Vec::new(),
        ("rules", Some(rules)) => {
            let held = vec![Arc::new(serde_json::from_value(current["rules"].clone()).unwrap_or_default())];
            let lacks = |rule: &&Value| match serde_json::from_value::<Rule>((*rule).clone()) {
                Ok(rule) => !cover(&held, &[rule]),
                Err(_) => false,
            };
            rules.iter().filter(lacks).cloned().collect()
        }
        (_, Some(subjects)) => {
            let held = current["subjects"].as_array().cloned().unwrap_or_default();
            subjects.iter().filter(|subject| !held.contains(subject)).cloned().collect()
        }
    };
    if !missing.is_empty() {
        changed = true;
        if !current[field].is_array() {
            current[field] = json!([]);
        }
        current[field].as_array_mut()?.extend(missing);
    }
    for part in ["labels", "annotations"] {
        for (name, value) in wanted["metadata"][part].as_object().into_iter().flatten() {
            if current["metadata"][part].get(name).is_none() {
                current["metadata"][part][name] = value.clone();
                changed = true;
            }
        }
    }
    changed.then_some(current)
}

/// The bytes of an object with an empty place for its revision.
fn draft(mut object: Value) -> Draft {
    object["metadata"]["resourceVersion"] = json!("");
    let bytes = object.to_string().into_bytes();
    let mark = b"\"resourceVersion\":\"";
    // The mark cannot occur earlier: inside strings its quotes are escaped.
    let at = bytes.windows(mark.len()).position(|part| part == mark).unwrap_or_default();
    Draft { bytes, revision_at: at + mark.len() }
}

impl Role {
    fn object(&self) -> Value {
        let mut object = base("ClusterRole", self.name);
        if !self.aggregate_to.is_empty() {
            object["metadata"]["labels"][format!("{AGGREGATE}{}", self.aggregate_to)] = json!("true");
        }
        let mut rules = rules_json(self.rules);
        if !self.aggregates.is_empty() {
            let label = format!("{AGGREGATE}{}", self.aggregates);
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
            rules = roles::aggregated(self.aggregates).flat_map(|role| rules_json(role.rules)).collect();
        }
        object["rules"] = Value::Array(rules);
        object
    }
}

/// What all of them have.
fn base(kind: &str, name: &str) -> Value {
    json!({
        "kind": kind,
        "apiVersion": format!("{GROUP}/v1"),
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {AUTOUPDATE: "true"},
        },
    })
}

fn cluster_binding(role: &str, subjects: Vec<Value>) -> Value {
    let mut object = base("ClusterRoleBinding", role);
    if !subjects.is_empty() {
        object["subjects"] = Value::Array(subjects);
    }
    object["roleRef"] = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": role});
    object
}

fn subjects(list: &str) -> Vec<Value> {
    let one = |item: &str| {
        let (kind, name) = item.split_once(':').unwrap_or(("user", item));
        match kind {
            "account" => {
                let (namespace, name) = name.split_once(':').unwrap_or(("kube-system", name));
                json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
            }
            "group" => json!({"kind": "Group", "apiGroup": GROUP, "name": name}),
            _ => json!({"kind": "User", "apiGroup": GROUP, "name": name}),
        }
    };
    list.split_whitespace().map(one).collect()
}

fn rules_json(lines: &[Line]) -> Vec<Value> {
    let words = |list: &str| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let groups =
        |list: &str| words(list).into_iter().map(|group| if group == "core" { String::new() } else { group });
    let resources = |verbs: &str, group: &str, resources: &str| json!({"verbs": words(verbs), "apiGroups": groups(group).collect::<Vec<_>>(), "resources": words(resources)});
    let one = |line: &Line| match line {
        Line::Resources { verbs, groups, resources: what } => resources(verbs, groups, what),
        Line::Named { verbs, groups, resources: what, names } => {
            let mut rule = resources(verbs, groups, what);
            rule["resourceNames"] = json!(words(names));
            rule
        }
        Line::Paths { verbs, paths } => json!({"verbs": words(verbs), "nonResourceURLs": words(paths)}),
    };
    lines.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_first_start_makes_everything_and_a_second_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        reconcile(&store).await.unwrap();
        let revision = store.revision();
        assert!(revision > 80);
        reconcile(&store).await.unwrap();
        assert_eq!(store.revision(), revision);
    }

    #[tokio::test]
    async fn what_was_taken_away_returns_and_what_was_added_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        reconcile(&store).await.unwrap();
        let bucket = &registry::by_name(GROUP, "clusterroles").unwrap().bucket;
        let read = || {
            serde_json::from_slice::<Value>(&store.get(bucket, "system:basic-user").unwrap().value).unwrap()
        };
        let mut role = read();
        let extra = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        role["rules"] = json!([extra]);
        store.write(bucket, "system:basic-user", None, Change::Put(draft(role))).await.unwrap();
        reconcile(&store).await.unwrap();
        let rules = read()["rules"].as_array().unwrap().clone();
        assert_eq!((rules.len(), &rules[0]), (3, &extra));
        let mut own = read();
        own["rules"] = json!([]);
        own["metadata"]["annotations"][AUTOUPDATE] = json!("false");
        store.write(bucket, "system:basic-user", None, Change::Put(draft(own))).await.unwrap();
        reconcile(&store).await.unwrap();
        assert_eq!(read()["rules"], json!([]));
    }

    #[test]
    fn edit_holds_what_view_holds_and_admin_both() {
        let rules = |name: &str| {
            let role = roles::ROLES.iter().find(|role| role.name == name).unwrap().object();
            serde_json::from_value::<Vec<Rule>>(role["rules"].clone()).unwrap()
        };
        let (view, edit, admin) = (rules("view"), rules("edit"), rules("admin"));
        assert!(cover(&[Arc::new(edit.clone())], &view) && cover(&[Arc::new(admin)], &edit));
        let secrets = Rule::resources(&["get"], &[""], &["secrets"]);
        assert!(
            !cover(&[Arc::new(view)], std::slice::from_ref(&secrets)) && cover(&[Arc::new(edit)], &[secrets])
        );
    }

    #[test]
    fn every_binding_names_a_role_of_the_tables() {
        let all = objects();
        let exists = |kind: &str, name: &Value| {
            all.iter().any(|(_, o)| o["kind"] == kind && o["metadata"]["name"] == *name)
        };
        for (_, object) in &all {
            if let Some(role) = object.get("roleRef") {
                assert!(exists(role["kind"].as_str().unwrap(), &role["name"]), "{}", role["name"]);
            }
        }
    }
}
