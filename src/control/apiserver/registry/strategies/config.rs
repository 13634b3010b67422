//! ConfigMaps and Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::Strategy;
use super::edit::{default, map, remove, set};
use super::{PLAIN, selectable};
use crate::control::apiserver::table::plain as table;
use crate::control::apiserver::validation::config as validation;

pub static CONFIG_MAP: Strategy = Strategy {
    validate: validation::config_map,
    columns: table::CONFIG_MAP,
    row: table::config_map,
    ..PLAIN
};

pub static SECRET: Strategy = Strategy {
    default: |secret| {
        default(secret, "type", "Opaque");
        fold_string_data(secret);
    },
    validate: validation::secret,
    fields: |secret, path| selectable(secret, path, &["type"]),
    columns: table::SECRET,
    row: table::secret,
    ..PLAIN
};

/// `stringData` is write-only: it lands, encoded, in `data`.
fn fold_string_data(secret: &mut Value) {
    let Some(texts) = secret.get("stringData").and_then(Value::as_object).cloned() else { return };
    if let Some(data) = map(secret, "data") {
        for (key, text) in texts {
            set(data, &key, json!(STANDARD.encode(text.as_str().unwrap_or_default())));
        }
    }
    remove(secret, "stringData");
}
