//! Server-side apply, and whose each field is (`endpoints/handlers/patch.go`'s applier, `managedfields`).
//!
//! Every write notes down what it changed in `metadata.managedFields`; an apply says what its manager wants,
//! is refused where another manager wants otherwise, and takes out what its manager gave up.
//! Left out on purpose: kinds whose fields change places between versions (there are none here), and apply to
//! `/scale`.

use std::sync::{Arc, Mutex};

use axum::response::Response;
use http::header;
use serde_json::{Value, json};

use super::call::Call;
use super::handlers::options::WriteOptions;
use super::handlers::update::{self, Edit, may_create};
use super::handlers::{body, create, duplicates, meta};
use super::openapi::schemas;
use super::registry::Resource;
use super::respond;
use super::subresources::status::{Check, Keep};
use crate::api::fields::managers::{Conflict, Managers, Operation, Who, conflict_text};
use crate::api::fields::shape::Shape;
use crate::api::fields::walk;
use crate::api::status::{Cause, Result, Status};
use crate::control::apiserver::handlers::options::FieldValidation;

const MEDIA: &str = "application/apply-patch+yaml";
/// `validation.FieldManagerMaxLength`.
const LONGEST_NAME: usize = 128;

/// Whether a patch is an apply.
pub fn is_asked(call: &Call) -> bool {
    let kind = call.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    call.info.verb == "patch" && kind.is_some_and(|kind| kind.split(';').next().unwrap_or("").trim() == MEDIA)
}

/// How objects of a row are merged: what its OpenAPI schema says.
pub fn shape(row: &Resource) -> Arc<Shape> {
    let make = || {
        let (definitions, names) = schemas::of(&[row]);
        let empty = serde_json::Map::new();
        let definitions = definitions.as_object().unwrap_or(&empty);
        Arc::new(Shape::read(&schemas::reference(&names[0].object), definitions))
    };
    match row.custom() {
        Some(custom) => custom.shape(make),
        None => row.shape.get_or_init(make).clone(),
    }
}

/// The caller's name among the managers: what it says, or the beginning of its user agent.
fn manager(call: &Call) -> String {
    if let Some(name) = call.query.text("fieldManager") {
        return name.to_owned();
    }
    let agent = call.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let name = agent.and_then(|agent| agent.split('/').next()).filter(|name| !name.is_empty());
    name.unwrap_or("unknown").chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect()
}

fn who(call: &Call, row: &Resource, operation: Operation) -> Who {
    Who {
        manager: manager(call),
        operation,
        api_version: row.api_version(),
        subresource: call.asked().subresource.clone(),
    }
}

/// The managers of a new object.
pub fn created(call: &Call, row: &Resource, object: &Value) -> Value {
    let mut managers = Managers::read(object).unwrap_or_default();
    let who = who(call, row, Operation::Update);
    managers.update(&shape(row), &json!({}), object, who, &meta::now());
    managers.write()
}

/// The managers of a changed object. A client may send the list as it wants it to be (as kubectl does to make an
/// updater an applier); an object that nobody manages stays so until somebody applies to it.
pub fn updated(call: &Call, row: &Resource, old: &Value, new: &Value) -> Value {
    let below = !call.asked().subresource.is_empty();
    let reset = !below && new["metadata"]["managedFields"] == json!([{}]);
    let sent = Managers::read(new).filter(|sent| !below && !sent.is_empty());
    let mut managers = sent.or_else(|| Managers::read(old)).unwrap_or_default();
    if reset || managers.is_empty() {
        return Value::Null;
    }
    managers.update(&shape(row), old, new, who(call, row, Operation::Update), &meta::now());
    managers.write()
}

/// PATCH with a whole configuration.
pub async fn answer(call: &Call, row: &'static Resource) -> Result<Response> {
    let applied = Applied::read(call, row)?;
    let key = row.key(&call.asked().namespace, &call.asked().name);
    let warnings = applied.warnings.clone();
    let response = match call.api.store.get(&row.bucket, &key) {
        Some(_) => update::change(call, row, &applied, applied.options).await?,
        None => create_applied(call, row, applied).await?,
    };
    Ok(respond::warn(response, &warnings))
}

/// The same for a subresource that takes only its part.
pub async fn below(call: &Call, row: &'static Resource, keep: Keep, check: Check) -> Result<Response> {
    let mut applied = Applied::read(call, row)?;
    applied.part = Some((keep, check));
    update::change(call, row, &applied, applied.options).await
}

async fn create_applied(call: &Call, row: &'static Resource, applied: Applied<'_>) -> Result<Response> {
    may_create(call).await?;
    if !meta::text(&applied.config, "uid").is_empty()
        || !meta::text(&applied.config, "resourceVersion").is_empty()
    {
        return Err(Status::not_found(row.group, row.plural, &call.asked().name));
    }
    let object = applied.merged(&json!({}))?;
    let managed = applied.managed();
    let decoded = body::decode(row, object, applied.options.fields)?;
    create::store_new(call, row, decoded.object, applied.options, managed).await
}

/// What somebody applied.
struct Applied<'a> {
    call: &'a Call,
    row: &'static Resource,
    config: Value,
    options: WriteOptions,
    force: bool,
    warnings: Vec<String>,
    /// What a subresource takes of it.
    part: Option<(Keep, Check)>,
    /// Whose the fields are after the last try.
    managed: Mutex<Option<Value>>,
}

impl<'a> Applied<'a> {
    fn read(call: &'a Call, row: &'static Resource) -> Result<Self> {
        let options = WriteOptions::read(&call.query)?;
        check_manager(call)?;
        let config = body::yaml(&call.body)?;
        let twice = match options.fields {
            FieldValidation::Ignore => Vec::new(),
            _ => duplicates::find_in_yaml(&call.body),
        };
        if options.fields == FieldValidation::Strict && !twice.is_empty() {
            let why = format!("error strict decoding YAML: {}", twice.join(", "));
            return Err(Status::bad_request(why));
        }
        let config = named(call, row, config)?;
        let force = call.query.flag("force");
        Ok(Self { call, row, config, options, force, warnings: twice, part: None, managed: Mutex::default() })
    }

    /// The live object with the configuration in it.
    fn merged(&self, live: &Value) -> Result<Value> {
        let shape = shape(self.row);
        let mut config = self.config.clone();
        let mistakes = walk::mistakes(shape.root(), &config);
        if !mistakes.is_empty() {
            return Err(self.cannot_type(&mistakes));
        }
        self.restrict(&mut config);
        let who = who(self.call, self.row, Operation::Apply);
        let mut managers = Managers::read(live).unwrap_or_default();
        let object = managers
            .apply(&shape, live, &config, who, self.force, &meta::now())
            .map_err(|conflicts| conflict(&conflicts))?;
        if let Ok(mut managed) = self.managed.lock() {
            *managed = Some(managers.write());
        }
        Ok(object)
    }

    /// Takes out what this endpoint would not let through anyway: then nobody owns it by this.
    fn restrict(&self, config: &mut Value) {
        let below = self.call.asked().subresource == "status";
        let Some(fields) = config.as_object_mut() else { return };
        if below {
            fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
            if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.retain(|name, _| {
                    matches!(name.as_str(), "name" | "namespace" | "resourceVersion" | "uid")
                });
            }
        } else if self.row.subresource("status").is_some() {
            fields.remove("status");
        }
    }

    fn cannot_type(&self, mistakes: &[String]) -> Status {
        let (namespace, name) = (meta::text(&self.config, "namespace"), &self.call.asked().name);
        let place = if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") };
        let why = match mistakes {
            [one] => one.clone(),
            many => format!(
                "errors:\n{}",
                many.iter().map(|one| format!("  {one}")).collect::<Vec<_>>().join("\n")
            ),
        };
        Status::new(
            500,
            "",
            format!(
                "failed to create typed patch object ({place}; {}, Kind={}): {why}",
                self.row.api_version(),
                self.row.kind
            ),
        )
    }
}

/// Checks what an applied configuration must say of itself, and where it belongs.
fn named(call: &Call, row: &Resource, mut config: Value) -> Result<Value> {
    if !config.is_object() {
        return Err(Status::bad_request(
            "error decoding YAML: json: cannot unmarshal into Go value of type map[string]interface {}",
        ));
    }
    let version = row.api_version();
    let text = |field: &str| config[field].as_str().unwrap_or_default().to_owned();
    let (sent_version, sent_kind) = (text("apiVersion"), text("kind"));
    if sent_kind.is_empty() || sent_version.is_empty() {
        let missing = if sent_kind.is_empty() { "Kind" } else { "apiVersion" };
        let why = format!("Object '{missing}' is missing in '{config}'");
        return Err(Status::bad_request(why));
    }
    if sent_version != version || sent_kind != row.kind {
        let why =
            format!("PATCH of {version}, Kind={} cannot apply {sent_version}, Kind={sent_kind}", row.kind);
        return Err(Status::bad_request(why));
    }
    if !config["metadata"].is_object() {
        config["metadata"] = json!({});
    }
    if config["metadata"].get("managedFields").is_some_and(|list| !list.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    if meta::text(&config, "name").is_empty() {
        meta::set(&mut config, "name", json!(call.asked().name));
    }
    update::named(call, row, config)
}

fn check_manager(call: &Call) -> Result<()> {
    let invalid = |cause: Cause| {
        Err(Status::new(422, "Invalid", format!("PatchOptions.meta.k8s.io \"\" is invalid: {cause}")))
    };
    match call.query.text("fieldManager") {
        None => invalid(Cause::required("fieldManager", "is required for apply patch")),
        Some(name) if name.len() > LONGEST_NAME => invalid(Cause {
            field: "fieldManager".into(),
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {LONGEST_NAME} bytes"),
        }),
        Some(_) => Ok(()),
    }
}

fn conflict(conflicts: &[Conflict]) -> Status {
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|one| {
            json!({"reason": "FieldManagerConflict", "message": format!("conflict with {}", one.manager), "field": one.path})
        })
        .collect();
    Status::new(409, "Conflict", conflict_text(conflicts)).with_details(json!({"causes": causes}))
}

impl Edit for Applied<'_> {
    fn apply(&self, old: &Value) -> Result<Value> {
        let merged = self.merged(old)?;
        let mut object = body::decode(self.row, merged, FieldValidation::Ignore)?.object;
        if meta::text(&self.config, "resourceVersion").is_empty() {
            meta::set(&mut object, "resourceVersion", Value::Null);
        }
        Ok(object)
    }

    fn prepare(&self, row: &Resource, object: &mut Value, old: &Value) -> Result<()> {
        match self.part {
            Some((keep, _)) => keep(row, object, old),
            None => row.prepare_change(object, old),
        }
        Ok(())
    }

    fn check(&self, row: &Resource, object: &Value, old: &Value) -> Vec<Cause> {
        match self.part {
            Some((_, check)) => check(row, object, old),
            None => row.problems(object, Some(old)),
        }
    }

    fn managed(&self) -> Option<Value> {
        self.managed.lock().ok().and_then(|managed| managed.clone())
    }
}
