//! Kinds that users define: CustomResourceDefinitions (`k8s.io/apiextensions-apiserver`).
//!
//! A served version of a definition is a row of the table like any other; what the definition says of its
//! objects (schema, columns, subresources) hangs on that row and is exchanged when the definition changes.
//! Left out on purpose: the cost limits of validation rules.

pub mod columns;
pub mod controller;
mod converting;
pub mod definition;
mod dispatch;
pub mod publish;
pub mod rules;
pub mod schema;
pub mod served;
pub mod validate;

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use serde_json::Value;

use crate::api::fields::shape::Shape;

pub use served::{find, rows};

pub const GROUP: &str = "apiextensions.k8s.io";
pub const PLURAL: &str = "customresourcedefinitions";
/// Holds a definition back until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What a definition says of one of its versions.
#[derive(Debug)]
pub struct Version {
    pub group: String,
    pub name: String,
    pub kind: String,
    /// The OpenAPI schema, as written.
    pub schema: Value,
    pub columns: Vec<columns::Printed>,
    /// Whether `/status` is a subresource.
    pub status: bool,
    pub scale: Option<Scale>,
    /// Fields objects can be selected by beside their names.
    pub selectable: Vec<String>,
    /// The `apiVersion` objects are stored with.
    pub stored: String,
    /// Whether there may be objects stored with another.
    pub converts: bool,
    /// Who converts between versions; their names alone are changed otherwise.
    pub webhook: Option<Value>,
    /// Whether the definition is on its way out: nothing new is made.
    pub terminating: bool,
    /// What clients of a deprecated version are told.
    pub warning: Option<String>,
    pub rules: bool,
    shape: OnceLock<Arc<Shape>>,
}

/// Where the replicas of a scalable kind are, as JSON pointers.
#[derive(Debug, Clone)]
pub struct Scale {
    pub spec: String,
    pub status: String,
    pub selector: Option<String>,
}

/// The exchangeable half of a row.
#[derive(Debug)]
pub struct Slot(RwLock<Arc<Version>>);

impl Slot {
    fn new(version: Version) -> Self {
        Self(RwLock::new(Arc::new(version)))
    }

    pub fn get(&self) -> Arc<Version> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, version: Version) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(version);
    }
}

/// `.spec.replicas` as a JSON pointer.
fn pointer(path: &str) -> String {
    path.trim_start_matches('.').split('.').map(|part| format!("/{part}")).collect()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

impl Version {
    /// Reads one version of a definition.
    pub fn read(definition: &Value, version: &Value) -> Self {
        let spec = &definition["spec"];
        let (group, name, kind) = (text(spec, "group"), text(version, "name"), text(&spec["names"], "kind"));
        let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let stored = versions.iter().find(|one| one["storage"] == true).map_or(name, |one| text(one, "name"));
        let scale = version["subresources"].get("scale").map(|scale| Scale {
            spec: pointer(text(scale, "specReplicasPath")),
            status: pointer(text(scale, "statusReplicasPath")),
            selector: scale["labelSelectorPath"].as_str().map(pointer),
        });
        let fields = version["selectableFields"].as_array().into_iter().flatten();
        let schema = version["schema"]["openAPIV3Schema"].clone();
        Self {
            group: group.to_owned(),
            name: name.to_owned(),
            kind: kind.to_owned(),
            columns: columns::Printed::of(version),
            status: version["subresources"]["status"].is_object(),
            scale,
            selectable: fields
                .map(|field| text(field, "jsonPath").trim_start_matches('.').to_owned())
                .collect(),
            stored: format!("{group}/{stored}"),
            converts: versions.len() > 1
                || definition["status"]["storedVersions"].as_array().is_some_and(|list| list.len() > 1),
            webhook: (spec["conversion"]["strategy"] == "Webhook")
                .then(|| spec["conversion"]["webhook"].clone()),
            terminating: definition["metadata"]["deletionTimestamp"].is_string(),
            warning: (version["deprecated"] == true).then(|| {
                let own = version["deprecationWarning"].as_str().map(str::to_owned);
                own.unwrap_or_else(|| format!("{group}/{name} {kind} is deprecated"))
            }),
            rules: schema.to_string().contains("x-kubernetes-validations"),
            schema,
            shape: OnceLock::new(),
        }
    }

    pub fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// Its name among OpenAPI's definitions: `com.example.stable.v1.CronTab`.
    pub fn definition(&self) -> String {
        let parts: Vec<&str> = self.group.rsplit('.').collect();
        format!("{}.{}.{}", parts.join("."), self.name, self.kind)
    }

    /// How its objects are merged.
    pub fn shape(&self, make: impl FnOnce() -> Arc<Shape>) -> Arc<Shape> {
        self.shape.get_or_init(make).clone()
    }
}

#[cfg(test)]
mod tests;
