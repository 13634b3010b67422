//! What is particular to each kind: defaults, validation, selectable fields, table columns.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, Strategy};

/// The strategy of a resource.
pub fn of(_group: &str, _plural: &str) -> &'static Strategy {
    &PLAIN
}

/// For kinds that need nothing of their own.
pub static PLAIN: Strategy = Strategy {
    default: |_| {},
    validate: |_, _| Vec::new(),
    prepare_create: |_| {},
    prepare_update: |_, _| {},
    fields: metadata_field,
    columns: &[NAME],
    row: |object, _: Timestamp| vec![object["metadata"]["name"].clone()],
};

/// The column every table begins with.
pub const NAME: Column =
    Column { name: "Name", kind: "string", format: "name", description: "Name must be unique within a namespace.", priority: 0 };

/// The fields every kind can be selected by.
pub fn metadata_field(object: &Value, path: &str) -> Option<String> {
    match path {
        "metadata.name" | "metadata.namespace" => {
            Some(object["metadata"][&path["metadata.".len()..]].as_str().unwrap_or_default().to_owned())
        }
        _ => None,
    }
}
