//! The table of resources: what each is called, what can be done with it, and its strategy.
//!
//! One set of generic handlers serves every row; adding a resource is adding a row and a strategy
//! (`k8s.io/apiserver/pkg/registry/generic` and each kind's `strategy.go` upstream).

mod rows;
pub mod strategies;

pub use rows::typed;

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use serde_json::Value;

use super::custom;
use super::versions::Form;
use crate::api::fields::shape::Shape;
use crate::api::status::Cause;

/// One resource of one API version.
pub struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub list_kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// A PUT to a name that does not exist creates it (`AllowCreateOnUpdate`).
    pub create_on_update: bool,
    /// A delete answers with the object instead of a Status (`ReturnDeletedObject`).
    pub returns_deleted: bool,
    /// Reads an object as its kind and writes it again, without the fields the kind does not know.
    pub decode: fn(&Value) -> Result<Value, String>,
    pub strategy: &'static Strategy,
    /// Describes the kind in a set of OpenAPI definitions and answers a reference to it.
    pub schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
    /// Where the objects are in the store: `/registry/pods/`.
    pub bucket: String,
    /// How objects of it are merged, once somebody asked.
    pub shape: OnceLock<Arc<Shape>>,
    /// How what is stored in another version becomes this one.
    pub form: Option<&'static Form>,
    /// What a user's definition says of it; none for a built-in resource.
    pub custom: Option<custom::Slot>,
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The key of an object in this resource's bucket.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
    }

    /// Whether objects of it are kept; reviews are only answered.
    pub fn stored(&self) -> bool {
        self.verbs.contains(&"list")
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }
}

/// A second view of a resource, below its name.
pub struct Subresource {
    pub name: &'static str,
    /// The kind it reads and writes, for discovery.
    pub kind: &'static str,
    /// Its own group and version when they differ from the parent's (`autoscaling/v1` Scale).
    pub group: &'static str,
    pub version: &'static str,
    pub verbs: &'static [&'static str],
}

/// What is particular to one kind. Everything is a function of the object alone: no store, no clock
/// but the one passed in.
pub struct Strategy {
    /// Fills in the API's defaults, on create and update.
    pub default: fn(&mut Value),
    /// Field errors of a new object, or of a change when `old` is there. Includes `metadata`.
    pub validate: fn(&Value, Option<&Value>) -> Vec<Cause>,
    /// Clears what a client may not set on create (status) and sets `metadata.generation` where kinds have one.
    pub prepare_create: fn(&mut Value),
    /// Keeps what a client may not change by an ordinary update (status) and counts `metadata.generation`.
    pub prepare_update: fn(&mut Value, &Value),
    /// A selectable field's value by its path; `None` means that selecting by it is not supported.
    pub fields: fn(&Value, &str) -> Option<String>,
    pub columns: &'static [Column],
    /// The cells of one table row, in the order of `columns`.
    pub row: fn(&Value, Timestamp) -> Vec<Value>,
}

/// One column of a server-side table (`metav1.TableColumnDefinition`).
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `date`, …
    pub kind: &'static str,
    pub format: &'static str,
    pub description: &'static str,
    pub priority: i32,
}

/// Every built-in resource, in the order discovery lists them.
pub fn all() -> &'static [Resource] {
    static ROWS: OnceLock<Vec<Resource>> = OnceLock::new();
    ROWS.get_or_init(rows::table)
}

/// Every resource there is now, users' own last.
pub fn every() -> Vec<&'static Resource> {
    all().iter().chain(custom::rows()).collect()
}

/// Finds a resource by the names in a path.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    let built_in =
        all().iter().find(|row| row.plural == plural && row.group == group && row.version == version);
    built_in.or_else(|| custom::find(group, version, plural))
}

/// Finds a resource whatever its version.
pub fn by_name(group: &str, plural: &str) -> Option<&'static Resource> {
    all().iter().find(|row| row.plural == plural && row.group == group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_names_and_decodes_its_own_kind() {
        for row in all() {
            assert!(std::ptr::eq(find(row.group, row.version, row.plural).unwrap(), row), "{}", row.plural);
            let bare = serde_json::json!({"apiVersion": row.api_version(), "kind": row.kind, "metadata": {}});
            let wrong = serde_json::json!({"apiVersion": "v9", "kind": row.kind, "metadata": {}});
            let _ = (row.decode)(&bare);
            assert!((row.decode)(&wrong).is_err(), "{}", row.plural);
        }
    }
}
