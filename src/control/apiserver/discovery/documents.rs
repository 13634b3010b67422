//! The discovery documents, made from the table of resources.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::control::apiserver::aggregate::{self, priority};
use crate::control::apiserver::registry::{self, Resource, Subresource};

/// The named groups, in order, each with its versions.
pub fn groups() -> Vec<(String, Vec<String>)> {
    let mut groups: BTreeMap<String, (i64, Vec<String>)> = BTreeMap::new();
    let mut add = |group: &str, version: &str, rank: i64| {
        let (own, versions) = groups.entry(group.to_owned()).or_default();
        *own = rank.max(*own);
        if !versions.iter().any(|one| one == version) {
            versions.push(version.to_owned());
        }
    };
    for row in registry::every().into_iter().filter(|row| !row.group.is_empty()) {
        add(row.group, row.version, priority::of(row.group, row.version).0);
    }
    for remote in aggregate::remotes() {
        add(&remote.group, &remote.version, remote.priority);
    }
    let mut sorted: Vec<(i64, String, Vec<String>)> =
        groups.into_iter().map(|(group, (rank, versions))| (rank, group, versions)).collect();
    sorted.sort_by_key(|(rank, group, _)| (Reverse(*rank), group.clone()));
    let newest_first = |mut versions: Vec<String>| {
        versions.sort_by_key(|version| Reverse(age(version)));
        versions
    };
    sorted.into_iter().map(|(_, group, versions)| (group, newest_first(versions))).collect()
}

/// What makes one version come before another (`version.CompareKubeAwareVersionStrings`): released ones first,
/// then beta, then alpha, each by its numbers; any other word comes last.
fn age(version: &str) -> (u8, u64, u64) {
    let numbers = |text: &str| text.parse::<u64>().ok();
    let read = || {
        let rest = version.strip_prefix('v')?;
        for (word, rank) in [("beta", 2), ("alpha", 1)] {
            if let Some((major, minor)) = rest.split_once(word) {
                return Some((rank, numbers(major)?, if minor.is_empty() { 0 } else { numbers(minor)? }));
            }
        }
        Some((3, numbers(rest)?, 0))
    };
    read().unwrap_or_default()
}

fn rows(group: &str, version: &str) -> Vec<&'static Resource> {
    registry::every().into_iter().filter(|row| row.group == group && row.version == version).collect()
}

/// `GET /api`.
pub fn core_versions(server: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}],
    })
}

/// `GET /apis`.
pub fn group_list() -> Value {
    let groups: Vec<Value> = groups().iter().map(|(group, versions)| bare_group(group, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/GROUP`.
pub fn group(name: &str) -> Option<Value> {
    let groups = groups();
    let (group, versions) = groups.iter().find(|(group, _)| group == name)?;
    let mut body = bare_group(group, versions);
    body["kind"] = json!("APIGroup");
    body["apiVersion"] = json!("v1");
    Some(body)
}

fn bare_group(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions[0]})
}

/// `GET /api/v1` and `GET /apis/GROUP/VERSION`.
pub fn resource_list(group: &str, version: &str) -> Option<Value> {
    let rows = rows(group, version);
    let first = rows.first()?;
    let mut resources = Vec::new();
    for row in &rows {
        resources.push(resource(row));
        resources.extend(row.subresources.iter().map(|subresource| below(row, subresource)));
    }
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let mut body =
        json!({"kind": "APIResourceList", "groupVersion": first.api_version(), "resources": resources});
    if !group.is_empty() {
        body["apiVersion"] = json!("v1");
    }
    Some(body)
}

fn resource(row: &Resource) -> Value {
    let mut body = json!({
        "name": row.plural, "singularName": row.singular, "namespaced": row.namespaced,
        "kind": row.kind, "verbs": row.verbs,
    });
    if !row.short_names.is_empty() {
        body["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        body["categories"] = json!(row.categories);
    }
    if row.stored() {
        body["storageVersionHash"] = json!(storage_hash(row));
    }
    body
}

/// Tells clients that the stored form of a kind changed.
fn storage_hash(row: &Resource) -> String {
    let (group, version) = row.form.map_or((row.group, row.version), |form| (form.group, form.version));
    let name = format!("{group}/{version}/{}", row.kind);
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    STANDARD.encode(&digest.as_ref()[..8])
}

fn below(row: &Resource, subresource: &Subresource) -> Value {
    let kind = if subresource.kind.is_empty() { row.kind } else { subresource.kind };
    let mut body = json!({
        "name": format!("{}/{}", row.plural, subresource.name), "singularName": "", "namespaced": row.namespaced,
        "kind": kind, "verbs": subresource.verbs,
    });
    if !subresource.version.is_empty() {
        body["group"] = json!(subresource.group);
        body["version"] = json!(subresource.version);
    }
    body
}

/// Aggregated discovery of the core group (`/api`) or of all named groups (`/apis`).
pub fn aggregated(core: bool) -> Value {
    let groups = if core { vec![(String::new(), vec!["v1".to_owned()])] } else { groups() };
    let items: Vec<Value> = groups
        .iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions.iter().map(|version| one_version(group, version)).collect();
            let mut metadata = Map::new();
            if !group.is_empty() {
                metadata.insert("name".into(), json!(group));
            }
            metadata.insert("creationTimestamp".into(), Value::Null);
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

/// One version of a group; of another server's, what it last said.
fn one_version(group: &str, version: &str) -> Value {
    let mut remotes = aggregate::remotes().into_iter();
    if let Some(remote) = remotes.find(|remote| remote.group == group && remote.version == version) {
        let freshness = if remote.available { "Current" } else { "Stale" };
        let resources = aggregate::discovered(&remote);
        return json!({"version": version, "resources": resources, "freshness": freshness});
    }
    let resources: Vec<Value> = rows(group, version).iter().map(|row| discovered(row)).collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn discovered(row: &Resource) -> Value {
    let mut body = json!({
        "resource": row.plural,
        "responseKind": {"group": row.group, "version": row.version, "kind": row.kind},
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular, "verbs": row.verbs,
    });
    if !row.short_names.is_empty() {
        body["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        body["categories"] = json!(row.categories);
    }
    let subresources: Vec<Value> = row
        .subresources
        .iter()
        .map(|subresource| {
            let kind = if subresource.kind.is_empty() { row.kind } else { subresource.kind };
            let (group, version) = match subresource.version {
                "" => (row.group, row.version),
                version => (subresource.group, version),
            };
            json!({
                "subresource": subresource.name, "verbs": subresource.verbs,
                "responseKind": {"group": group, "version": version, "kind": kind},
            })
        })
        .collect();
    if !subresources.is_empty() {
        body["subresources"] = json!(subresources);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_documents_name_every_resource() {
        let core = resource_list("", "v1").unwrap();
        let names: Vec<&str> =
            core["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
        assert!(names.contains(&"pods") && names.contains(&"pods/status") && names.contains(&"pods/log"));
        assert!(names.is_sorted());
        assert!(resource_list("apps", "v2").is_none());
        assert_eq!(group("apps").unwrap()["preferredVersion"]["groupVersion"], "apps/v1");
        assert_eq!(group_list()["groups"][0]["name"], "apiregistration.k8s.io");
        assert_eq!(group_list()["groups"][1]["name"], "apps");
    }

    #[test]
    fn pods_have_upstreams_storage_version_hash() {
        let core = resource_list("", "v1").unwrap();
        let pods =
            core["resources"].as_array().unwrap().iter().find(|r| r["name"] == "pods").unwrap().clone();
        assert_eq!(pods["storageVersionHash"], "xPOwRZ+Yhw8=");
        assert_eq!(pods["shortNames"], json!(["po"]));
    }

    #[test]
    fn aggregated_discovery_gives_each_subresource_its_kind() {
        let apis = aggregated(false);
        let apps = &apis["items"][1]["versions"][0]["resources"];
        let deployments = apps.as_array().unwrap().iter().find(|r| r["resource"] == "deployments").unwrap();
        let scale = deployments["subresources"]
            .as_array()
            .unwrap()
            .iter()
            .find(|s| s["subresource"] == "scale")
            .unwrap();
        assert_eq!(scale["responseKind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
        assert_eq!(aggregated(true)["items"][0]["versions"][0]["version"], "v1");
    }
}
