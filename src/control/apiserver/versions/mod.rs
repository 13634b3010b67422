//! Kinds that are kept in one version and served in more: every object read or written goes through here.
//!
//! Built-in kinds are converted by code (`pkg/apis/*/v*/conversion.go`), users' own by their version's name alone or
//! by a webhook (`apiextensions-apiserver/pkg/apiserver/conversion`).

pub mod autoscaler;
pub mod event;
mod webhook;

use serde_json::{Value, json};

use super::custom::schema;
use super::registry::Resource;
use super::server::Api;
use crate::api::status::Result;

/// How a built-in version reads what is kept in another, and the way back.
pub struct Form {
    /// What is kept.
    pub group: &'static str,
    pub version: &'static str,
    /// From what is kept.
    pub presented: fn(Value) -> Value,
    /// To what is kept.
    pub stored: fn(Value) -> Value,
}

impl Resource {
    /// Whether what is stored may be of another version than this row's.
    pub fn converts(&self) -> bool {
        self.form.is_some() || self.custom().is_some_and(|custom| custom.converts)
    }
}

/// Stored objects as the row has them.
///
/// # Errors
/// 500 when a webhook does not convert them.
pub async fn presented(api: &Api, row: &Resource, objects: Vec<Value>) -> Result<Vec<Value>> {
    if let Some(form) = row.form {
        return Ok(objects.into_iter().map(form.presented).collect());
    }
    let Some(custom) = row.custom().filter(|custom| custom.converts) else { return Ok(objects) };
    let wanted = custom.api_version();
    let mut objects = match &custom.webhook {
        Some(hook) => webhook::converted(api, hook, objects, &wanted).await?,
        None => objects,
    };
    for object in &mut objects {
        object["apiVersion"] = json!(wanted);
        // What the version it was stored with knows and this one does not stays unseen.
        schema::prune(&custom.schema, object);
        schema::default(&custom.schema, object);
    }
    Ok(objects)
}

/// One stored object as the row has it.
///
/// # Errors
/// As for many.
pub async fn shown(api: &Api, row: &Resource, object: Value) -> Result<Value> {
    Ok(presented(api, row, vec![object]).await?.pop().unwrap_or_default())
}

/// An object of the row as it is stored.
///
/// # Errors
/// 500 when a webhook does not convert it.
pub async fn stored(api: &Api, row: &Resource, object: &Value) -> Result<Value> {
    if let Some(form) = row.form {
        return Ok((form.stored)(object.clone()));
    }
    let mut object = object.clone();
    if let Some(custom) = row.custom().filter(|custom| custom.converts) {
        if let Some(hook) = &custom.webhook {
            object =
                webhook::converted(api, hook, vec![object], &custom.stored).await?.pop().unwrap_or_default();
        }
        object["apiVersion"] = json!(custom.stored);
    }
    Ok(object)
}
