//! POST: a new object (`rest.BeforeCreate`, then the store's compare-and-swap on absence).

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::admit::Write;
use super::body;
use super::meta;
use super::options::WriteOptions;
use crate::api::status::{Result, Status, qualified};
use crate::control::apiserver::admission::Operation;
use crate::control::apiserver::call::Call;
use crate::control::apiserver::registry::Resource;
use crate::control::apiserver::{addresses, apply, encode, respond, subresources, versions};
use crate::control::store::{Change, Expect, StoreError};

/// How often a generated name that is taken is drawn again, as upstream.
const NAME_ATTEMPTS: usize = 8;

pub async fn answer(call: &Call, row: &'static Resource) -> Result<Response> {
    if !row.stored() {
        return subresources::answer_only(call, row).await;
    }
    let options = WriteOptions::read(&call.query)?;
    let decoded = body::read(call, row, options.fields)?;
    let response = store_new(call, row, decoded.object, options, None).await?;
    Ok(respond::warn(response, &decoded.warnings))
}

/// Takes a decoded object through admission, validation and into the store; `managed` says whose its fields are
/// when they are not simply the caller's.
pub async fn store_new(
    call: &Call,
    row: &'static Resource,
    mut object: Value,
    options: WriteOptions,
    managed: Option<Value>,
) -> Result<Response> {
    if row.custom().is_some_and(|custom| custom.terminating) {
        let what = qualified(row.group, row.plural);
        let why = format!("create is not supported on resources of kind {what:?}");
        return Err(Status::new(405, "MethodNotAllowed", why));
    }
    meta::place(row, &mut object, &call.asked().namespace)?;
    let generated = meta::text(&object, "name").is_empty();
    meta::fill_new(row, &mut object)?;
    let managed = managed.unwrap_or_else(|| {
        let mut as_sent = object.clone();
        row.prepare_new(&mut as_sent);
        apply::created(call, row, &as_sent)
    });
    meta::set(&mut object, "managedFields", managed);
    let write = Write { call, row, operation: Operation::Create, old: None, dry_run: options.dry_run };
    let mut object = write.mutate(object).await?;
    row.prepare_new(&mut object);
    attribute_to(call, row, &mut object);
    // Held until the write is over.
    let _held = addresses::allocate(&call.api, row, &mut object, None)?;
    row.tidy(&mut object);
    let name = meta::text(&object, "name").to_owned();
    let causes = row.problems(&object, None);
    if !causes.is_empty() {
        return Err(Status::invalid(row.group, row.kind, &name, &causes));
    }
    write.validate(&object).await?;
    if options.dry_run {
        let key = row.key(&call.asked().namespace, &name);
        return match call.api.store.get(&row.bucket, &key) {
            Some(_) => Err(Status::already_exists(row.group, row.plural, &name)),
            None => super::unstored(call, row, StatusCode::CREATED, &object),
        };
    }
    commit(call, row, object, generated).await
}

/// Writes it; a generated name that is taken is drawn again.
async fn commit(call: &Call, row: &'static Resource, mut object: Value, generated: bool) -> Result<Response> {
    let mut attempts = if generated { NAME_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let name = meta::text(&object, "name").to_owned();
        let key = row.key(meta::text(&object, "namespace"), &name);
        let change = Change::Put(encode::draft(&versions::stored(&call.api, row, &object).await?));
        match call.api.store.write(&row.bucket, &key, Some(Expect::Absent), change).await {
            Ok(entry) => return super::entry(call, row, StatusCode::CREATED, &entry).await,
            Err(StoreError::Exists) if attempts > 0 => meta::generate_name(&mut object),
            Err(error) => return Err(super::write_failed(error, row.group, row.plural, &name)),
        }
    }
}

/// A certificate request carries who made it, whatever the client wrote there.
fn attribute_to(call: &Call, row: &Resource, object: &mut Value) {
    if (row.group, row.plural) != ("certificates.k8s.io", "certificatesigningrequests") {
        return;
    }
    let Some(spec) = object["spec"].as_object_mut() else { return };
    for field in ["username", "uid", "groups", "extra"] {
        spec.remove(field);
    }
    let user = &call.user;
    spec.insert("username".into(), user.name.clone().into());
    spec.insert("groups".into(), user.groups.clone().into());
    if !user.uid.is_empty() {
        spec.insert("uid".into(), user.uid.clone().into());
    }
    if !user.extra.is_empty() {
        let extra = user.extra.iter().map(|(key, values)| (key.clone(), Value::from(values.clone())));
        spec.insert("extra".into(), Value::Object(extra.collect()));
    }
}
