//! `/status`: what controllers and kubelets observed, written without touching what was asked for.

use std::sync::Mutex;

use axum::response::Response;
use serde_json::{Map, Value};

use crate::api::status::{Cause, Result};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::handlers::options::WriteOptions;
use crate::control::apiserver::handlers::patch::{self, Patch};
use crate::control::apiserver::handlers::update::{self, Edit};
use crate::control::apiserver::handlers::{body, meta};
use crate::control::apiserver::registry::Resource;
use crate::control::apiserver::{apply, respond};

pub async fn answer(call: &Call, row: &'static Resource) -> Result<Response> {
    write(call, row, keep_all_but_status).await
}

/// What a subresource lets through: the new object, the row and the object as it was.
pub type Keep = fn(&Resource, &mut Value, &Value);

/// A PUT or PATCH of the whole object of which a subresource takes only its part.
pub async fn write(call: &Call, row: &'static Resource, keep: Keep) -> Result<Response> {
    checked_write(call, row, keep, |row, object, old| row.problems(object, Some(old))).await
}

/// The rules of one subresource: the row, the new object and the object as it was.
pub type Check = fn(&Resource, &Value, &Value) -> Vec<Cause>;

/// The same with rules of the subresource's own.
pub async fn checked_write(
    call: &Call,
    row: &'static Resource,
    keep: Keep,
    check: Check,
) -> Result<Response> {
    if apply::is_asked(call) {
        return apply::below(call, row, keep, check).await;
    }
    let options = WriteOptions::read(&call.query)?;
    let source = match call.info.verb.as_str() {
        "patch" => Source::Patch(Patch::read(call)?),
        _ => {
            let decoded = body::decode(row, body::parse(&call.headers, &call.body)?, options.fields)?;
            Source::Object(update::named(call, row, decoded.object)?, decoded.warnings)
        }
    };
    let edit = Partial { call, row, source, options, keep, check, warnings: Mutex::default() };
    let response = update::change(call, row, &edit, options).await?;
    let warnings = edit.warnings.into_inner().unwrap_or_default();
    Ok(respond::warn(response, &warnings))
}

enum Source {
    Object(Value, Vec<String>),
    Patch(Patch),
}

struct Partial<'a> {
    call: &'a Call,
    row: &'static Resource,
    source: Source,
    options: WriteOptions,
    keep: Keep,
    check: Check,
    warnings: Mutex<Vec<String>>,
}

impl Edit for Partial<'_> {
    fn apply(&self, old: &Value) -> Result<Value> {
        let (object, warnings) = match &self.source {
            Source::Object(object, warnings) => (object.clone(), warnings.clone()),
            Source::Patch(document) => {
                let decoded = body::decode(
                    self.row,
                    document.apply(self.row.group, self.row.kind, old)?,
                    self.options.fields,
                )?;
                let object = update::named(self.call, self.row, decoded.object)?;
                (patch::insisting(document, object, old)?, decoded.warnings)
            }
        };
        if let Ok(mut said) = self.warnings.lock() {
            *said = warnings;
        }
        Ok(object)
    }

    fn prepare(&self, row: &Resource, object: &mut Value, old: &Value) -> Result<()> {
        (self.keep)(row, object, old);
        Ok(())
    }

    fn check(&self, row: &Resource, object: &Value, old: &Value) -> Vec<Cause> {
        (self.check)(row, object, old)
    }
}

/// Everything but status, and the metadata that may come with it, stays as it was.
fn keep_all_but_status(row: &Resource, object: &mut Value, old: &Value) {
    let status = object["status"].take();
    let metadata = object["metadata"].take();
    *object = old.clone();
    object["metadata"] = metadata;
    meta::set(object, "ownerReferences", old["metadata"]["ownerReferences"].clone());
    meta::set(object, "finalizers", old["metadata"]["finalizers"].clone());
    if !row.group.is_empty() {
        // Nodes, pods and namespaces let labels through with their status; the workloads do not.
        meta::set(object, "labels", old["metadata"]["labels"].clone());
    }
    if row.plural == "certificatesigningrequests" {
        return keep_verdicts(object, status, old);
    }
    put(object, "status", status);
}

/// A signer sets certificate and Failed; Approved and Denied are /approval's.
fn keep_verdicts(object: &mut Value, mut status: Value, old: &Value) {
    let verdict = |condition: &&Value| matches!(condition["type"].as_str(), Some("Approved" | "Denied"));
    let kept = old["status"]["conditions"].as_array().into_iter().flatten().filter(verdict);
    let new = status["conditions"].as_array().into_iter().flatten().filter(|one| !verdict(one));
    let conditions: Vec<Value> = kept.chain(new).cloned().collect();
    if !status.is_object() {
        status = Value::Object(Map::new());
    }
    put(&mut status, "conditions", if conditions.is_empty() { Value::Null } else { conditions.into() });
    put(object, "status", status);
}

/// Sets or, with null, removes a field.
pub fn put(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        match value {
            Value::Null => drop(fields.remove(field)),
            value => drop(fields.insert(field.to_owned(), value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::apiserver::registry;
    use serde_json::json;

    #[test]
    fn a_status_write_changes_nothing_else() {
        let row = registry::find("apps", "v1", "deployments").unwrap();
        let old = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}, "status": {"x": 1}});
        let mut new =
            json!({"metadata": {"labels": {"c": "d"}}, "spec": {"replicas": 9}, "status": {"x": 2}});
        keep_all_but_status(row, &mut new, &old);
        assert_eq!(
            new,
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}, "status": {"x": 2}})
        );
    }
}
