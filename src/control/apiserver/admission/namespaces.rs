//! NamespaceExists refuses what is in no namespace there is; NamespaceAutoProvision makes it instead.

use serde_json::{Value, json};

use super::{Attributes, Context, Operation};
use crate::api::status::{Result, Status};
use crate::control::apiserver::handlers::meta;
use crate::control::apiserver::{encode, lookup, registry};
use crate::control::store::{Change, Expect, StoreError};

fn concerns(write: &Attributes) -> bool {
    let exempt = write.resource == "namespaces" || write.resource.ends_with("accessreviews");
    !write.namespace.is_empty() && !exempt && write.operation != Operation::Delete
}

pub(super) fn exists(context: &Context, write: &Attributes) -> Result<()> {
    let there = || lookup::object(&context.store, "", "namespaces", "", &write.namespace).is_some();
    match !concerns(write) || there() {
        true => Ok(()),
        false => Err(Status::not_found("", "namespaces", &write.namespace)),
    }
}

pub(super) async fn provision(context: &Context, write: &Attributes) -> Result<()> {
    if !concerns(write)
        || write.operation != Operation::Create
        || write.dry_run
        || exists(context, write).is_ok()
    {
        return Ok(());
    }
    let Some(row) = registry::by_name("", "namespaces") else { return Ok(()) };
    let mut object: Value = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": write.namespace, "labels": {"kubernetes.io/metadata.name": write.namespace}},
    });
    (row.strategy.default)(&mut object);
    (row.strategy.prepare_create)(&mut object);
    meta::fill_new(row, &mut object)?;
    let change = Change::Put(encode::draft(&object));
    match context.store.write(&row.bucket, &write.namespace, Some(Expect::Absent), change).await {
        Ok(_) | Err(StoreError::Exists) => Ok(()),
        Err(error) => Err(Status::internal(error)),
    }
}
