//! What a row does with its objects, whether it is built in or defined by a user.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::{Version, rules, schema, validate};
use crate::api::status::Cause;
use crate::control::apiserver::registry::{Resource, strategies, typed};
use crate::control::apiserver::validation::metadata;
use crate::control::apiserver::{encode, table};

impl Resource {
    /// What its definition says, for a custom row.
    pub fn custom(&self) -> Option<Arc<Version>> {
        self.custom.as_ref().map(super::Slot::get)
    }

    /// Reads an object as the row's kind, without what the kind does not know.
    pub fn read(&self, object: &Value) -> Result<Value, String> {
        let Some(custom) = self.custom() else { return (self.decode)(object) };
        let mut read = object.clone();
        read["metadata"] = typed::<ObjectMeta>(&object["metadata"])?;
        schema::prune(&custom.schema, &mut read);
        Ok(read)
    }

    pub fn fill_defaults(&self, object: &mut Value) {
        match self.custom() {
            Some(custom) => schema::default(&custom.schema, object),
            None => (self.strategy.default)(object),
        }
    }

    pub fn problems(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let Some(custom) = self.custom() else { return (self.strategy.validate)(object, old) };
        let mut causes = metadata::any(object, old);
        causes.extend(validate::check(&custom.schema, object));
        if causes.is_empty() && custom.rules {
            causes.extend(rules::check(&custom.schema, object, old));
        }
        causes
    }

    pub fn prepare_new(&self, object: &mut Value) {
        let Some(custom) = self.custom() else { return (self.strategy.prepare_create)(object) };
        if custom.status
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
        object["metadata"]["generation"] = json!(1);
    }

    pub fn prepare_change(&self, object: &mut Value, old: &Value) {
        let Some(custom) = self.custom() else { return (self.strategy.prepare_update)(object, old) };
        if custom.status
            && let Some(fields) = object.as_object_mut()
        {
            match old.get("status") {
                Some(status) => drop(fields.insert("status".into(), status.clone())),
                None => drop(fields.remove("status")),
            }
        }
        let rest = |object: &Value| {
            let mut rest = object.as_object().cloned().unwrap_or_default();
            rest.retain(|name, _| !matches!(name.as_str(), "metadata" | "apiVersion" | "kind"));
            rest
        };
        if rest(object) != rest(old) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
            object["metadata"]["generation"] = json!(generation + 1);
        }
    }

    /// A selectable field's value; none means that selecting by it is not supported.
    pub fn selected(&self, object: &Value, path: &str) -> Option<String> {
        let Some(custom) = self.custom() else { return (self.strategy.fields)(object, path) };
        match custom.selectable.iter().any(|own| own == path) {
            true => {
                let pointer = super::pointer(path);
                Some(match object.pointer(&pointer) {
                    None | Some(Value::Null) => String::new(),
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                })
            }
            false => strategies::metadata_field(object, path),
        }
    }

    /// The definitions of its table's columns.
    pub fn columns(&self) -> Vec<Value> {
        match self.custom() {
            Some(custom) => super::columns::definitions(&custom.columns),
            None => self.strategy.columns.iter().map(table::definition).collect(),
        }
    }

    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match self.custom() {
            Some(custom) => super::columns::cells(&custom.columns, object, now),
            None => (self.strategy.row)(object, now),
        }
    }

    /// Takes nulls out of what is stored; in a custom object outside of `metadata` they may mean something.
    pub fn tidy(&self, object: &mut Value) {
        match self.custom {
            Some(_) => encode::prune(&mut object["metadata"]),
            None => encode::prune(object),
        }
    }
}
