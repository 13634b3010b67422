//! PUT, and the way every change of an existing object takes: read, change, check, compare-and-swap.

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::admit::Write;
use super::body;
use super::meta;
use super::options::WriteOptions;
use crate::api::status::{Cause, Result, Status};
use crate::control::apiserver::admission::Operation;
use crate::control::apiserver::authz::{self, Decision};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::registry::Resource;
use crate::control::apiserver::request::RequestInfo;
use crate::control::apiserver::{addresses, apply, encode, respond, versions};
use crate::control::store::{Change, Entry, Expect, StoreError};

/// How often a change that did not insist on a version is tried again when another writer was faster.
const ATTEMPTS: usize = 16;

/// One kind of change to an existing object.
pub trait Edit: Send + Sync {
    /// The object as the client wants it, from the object as it is. It carries a resourceVersion when
    /// the client insists on one.
    fn apply(&self, old: &Value) -> Result<Value>;

    /// What is kept of the old object and counted in the new one: the strategy's, or a subresource's.
    fn prepare(&self, row: &Resource, object: &mut Value, old: &Value) -> Result<()> {
        row.prepare_change(object, old);
        Ok(())
    }

    /// Whose the fields are after the change, when it is more than the caller's having changed some.
    fn managed(&self) -> Option<Value> {
        None
    }

    /// What is wrong with the change: the strategy's rules, or a subresource's.
    fn check(&self, row: &Resource, object: &Value, old: &Value) -> Vec<Cause> {
        row.problems(object, Some(old))
    }
}

/// A whole object sent by the client.
struct Replacement(Value);

impl Edit for Replacement {
    fn apply(&self, _: &Value) -> Result<Value> {
        Ok(self.0.clone())
    }
}

pub async fn answer(call: &Call, row: &'static Resource) -> Result<Response> {
    let options = WriteOptions::read(&call.query)?;
    let decoded = body::read(call, row, options.fields)?;
    let object = named(call, row, decoded.object)?;
    let key = row.key(&call.asked().namespace, &call.asked().name);
    let response = match call.api.store.get(&row.bucket, &key) {
        None if row.create_on_update => {
            may_create(call).await?;
            let mut object = object;
            meta::set(&mut object, "resourceVersion", Value::Null);
            super::create::store_new(call, row, object, options, None).await?
        }
        _ => change(call, row, &Replacement(object), options).await?,
    };
    Ok(respond::warn(response, &decoded.warnings))
}

/// A PUT that creates needs the right to create (`withAuthorization` of the update handler).
pub async fn may_create(call: &Call) -> Result<()> {
    let info = RequestInfo { verb: "create".into(), ..call.info.clone() };
    match call.api.door(call.listener).authorizer.authorize(&call.user, &info).await {
        Decision::Allow { .. } => Ok(()),
        Decision::Deny { reason } | Decision::NoOpinion { reason } => {
            Err(authz::forbidden(&call.user, &info, &reason))
        }
        Decision::Failed { error, .. } => Err(Status::internal(error)),
    }
}

/// Checks that a body is about the object the path names.
pub fn named(call: &Call, row: &Resource, mut object: Value) -> Result<Value> {
    let asked = call.asked();
    meta::place(row, &mut object, &asked.namespace)?;
    match meta::text(&object, "name") {
        "" => Err(Status::bad_request("name must be provided")),
        name if name == asked.name => Ok(object),
        name => Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            asked.name
        ))),
    }
}

/// Applies an edit to the object the call names and answers with the result.
pub async fn change(
    call: &Call,
    row: &'static Resource,
    edit: &dyn Edit,
    options: WriteOptions,
) -> Result<Response> {
    match try_change(call, row, edit, options).await? {
        Outcome::Stored(entry) => super::entry(call, row, StatusCode::OK, &entry).await,
        Outcome::Dry(object) => super::unstored(call, row, StatusCode::OK, &object),
    }
}

/// What became of a change.
pub enum Outcome {
    Stored(Entry),
    Dry(Value),
}

/// Applies an edit, again when another writer came between and the client did not insist on a version.
pub async fn try_change(
    call: &Call,
    row: &'static Resource,
    edit: &dyn Edit,
    options: WriteOptions,
) -> Result<Outcome> {
    let name = call.asked().name.as_str();
    let mut attempts = ATTEMPTS;
    loop {
        attempts -= 1;
        let entry = super::get::find(call, row).await?;
        let old = encode::object(&entry)?;
        let sent = edit.apply(&old)?;
        let insists = check_version(row, &sent, &old, name)?;
        // Addresses promised to this write are held until it is over.
        let (object, _held) = finish(call, row, edit, sent, &old, options).await?;
        if options.dry_run {
            return Ok(Outcome::Dry(object));
        }
        if object == old {
            return Ok(Outcome::Stored(entry));
        }
        let draft = encode::draft(&versions::stored(&call.api, row, &object).await?);
        let change = if released(&object, &old) { Change::Delete(draft) } else { Change::Put(draft) };
        let expect = Some(Expect::Revision(entry.mod_revision));
        match call.api.store.write(&row.bucket, &entry.key, expect, change).await {
            Ok(entry) => return Ok(Outcome::Stored(entry)),
            Err(StoreError::Modified { .. }) if !insists && attempts > 0 => {}
            Err(error) => return Err(super::write_failed(error, row.group, row.plural, name)),
        }
    }
}

/// Whether the client insists on a version; refuses one that is not the current.
fn check_version(row: &Resource, sent: &Value, old: &Value, name: &str) -> Result<bool> {
    let uid = meta::text(sent, "uid");
    let own = meta::text(old, "uid");
    if !uid.is_empty() && uid != own {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {own}");
        return Err(Status::conflict(row.group, row.plural, name, &why));
    }
    match meta::text(sent, "resourceVersion") {
        "" | "0" => Ok(false),
        version if version == meta::text(old, "resourceVersion") => Ok(true),
        version if version.parse::<u64>().is_err() => Err(Status::bad_request(format!(
            "metadata.resourceVersion: Invalid value: {version:?}: strconv.ParseUint: parsing {version:?}: invalid syntax"
        ))),
        _ => Err(Status::modified(row.group, row.plural, name)),
    }
}

/// From what the client wants to what is stored: admission, the system's fields, validation.
async fn finish(
    call: &Call,
    row: &'static Resource,
    edit: &dyn Edit,
    mut sent: Value,
    old: &Value,
    options: WriteOptions,
) -> Result<(Value, Option<addresses::Held>)> {
    meta::carry_over(&mut sent, old);
    let managed = match edit.managed() {
        Some(managed) => managed,
        None => {
            let mut as_sent = sent.clone();
            edit.prepare(row, &mut as_sent, old)?;
            apply::updated(call, row, old, &as_sent)
        }
    };
    meta::set(&mut sent, "managedFields", managed);
    let write = Write { call, row, operation: Operation::Update, old: Some(old), dry_run: options.dry_run };
    let mut object = write.mutate(sent).await?;
    meta::carry_over(&mut object, old);
    edit.prepare(row, &mut object, old)?;
    let held = addresses::allocate(&call.api, row, &mut object, Some(old))?;
    row.tidy(&mut object);
    let causes = edit.check(row, &object, old);
    if !causes.is_empty() {
        return Err(Status::invalid(row.group, row.kind, &call.asked().name, &causes));
    }
    write.validate(&object).await?;
    Ok((object, held))
}

/// Whether this change took away the last thing that held a deleted object back.
fn released(object: &Value, old: &Value) -> bool {
    let waiting = meta::deleting(old) && old["metadata"]["deletionGracePeriodSeconds"].as_i64() == Some(0);
    let content = object["kind"] == "Namespace"
        && object["spec"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
    waiting && !meta::any(object, "finalizers") && !content
}
