//! A pod as the standards look at it, and the words they use for one or several of its parts.

use serde_json::Value;

use crate::control::apiserver::lookup::text;

/// A pod or a pod template.
pub(super) struct Pod<'a> {
    pub(super) spec: &'a Value,
    pub(super) annotations: &'a Value,
}

/// A container's name and its fields.
pub(super) struct Container<'a> {
    pub(super) name: &'a str,
    pub(super) fields: &'a Value,
}

impl<'a> Pod<'a> {
    pub(super) fn of(pod: &'a Value) -> Self {
        Self { spec: &pod["spec"], annotations: &pod["metadata"]["annotations"] }
    }

    pub(super) fn security(&self, field: &str) -> &'a Value {
        &self.spec["securityContext"][field]
    }

    /// Every container: the first ones, the lasting ones, the late ones.
    pub(super) fn containers(&self) -> Vec<Container<'a>> {
        let kinds = ["initContainers", "containers", "ephemeralContainers"];
        let all = kinds.iter().flat_map(|kind| list(&self.spec[*kind]));
        all.map(|fields| Container { name: text(fields, "/name"), fields }).collect()
    }

    /// The names of the containers for which something holds.
    pub(super) fn those(&self, holds: impl Fn(&Container<'a>) -> bool) -> Vec<&'a str> {
        self.containers().iter().filter(|one| holds(one)).map(|one| one.name).collect()
    }

    pub(super) fn volumes(&self) -> &'a [Value] {
        list(&self.spec["volumes"])
    }

    /// Whether the pod's users are not the node's (`hostUsers: false`).
    pub(super) fn has_own_users(&self) -> bool {
        self.spec["hostUsers"] == false
    }

    /// Some rules make no sense on Windows.
    pub(super) fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }
}

impl<'a> Container<'a> {
    pub(super) fn security(&self, field: &str) -> &'a Value {
        &self.fields["securityContext"][field]
    }
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `"a", "b"`.
pub(super) fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    names.iter().map(|name| format!("{:?}", name.as_ref())).collect::<Vec<_>>().join(", ")
}

pub(super) fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`.
pub(super) fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// `pod`, `pod and container "a"`, `containers "a", "b"`.
pub(super) fn setters(pod: bool, names: &[&str]) -> String {
    let own = (!names.is_empty()).then(|| containers(names));
    pod.then(|| "pod".to_owned()).into_iter().chain(own).collect::<Vec<_>>().join(" and ")
}

/// Sorted, each once.
pub(super) fn distinct(values: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut values: Vec<String> = values.into_iter().collect();
    values.sort();
    values.dedup();
    values
}

/// Whether an update changes what the standards look at: images, the late containers, AppArmor's annotations.
pub(super) fn differs(new: &Value, old: &Value) -> bool {
    let images = |pod: &Value| -> Vec<String> {
        Pod::of(pod).containers().iter().map(|one| format!("{}={}", one.name, one.fields["image"])).collect()
    };
    let annotations = |pod: &Value| -> Vec<String> {
        let all = pod["metadata"]["annotations"].as_object();
        let guarded = |key: &&String| key.starts_with("container.apparmor.security.beta.kubernetes.io/");
        all.into_iter().flat_map(|map| map.keys()).filter(guarded).cloned().collect()
    };
    images(new) != images(old) || annotations(new) != annotations(old)
}
