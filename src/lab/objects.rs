//! API objects of any kind, put and taken away as `kubectl apply` and `delete` would, patient with an API
//! server that has only just started.

use std::time::{Duration, Instant};

use anyhow::Context;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, Error};
use serde_json::{Map, Value};
use tracing::debug;

use crate::client::Backoff;

/// How long the API may refuse what it needs a moment for (its own namespaces and roles at first start).
const PATIENCE: Duration = Duration::from_secs(10);

/// Creates an object, or brings the one that is there to the same contents.
pub async fn put(client: &Client, manager: &str, object: &Value) -> anyhow::Result<()> {
    let (api, name, typed) = parts(client, object)?;
    let outcome = patiently(|| put_once(&api, manager, &name, &typed)).await;
    outcome.with_context(|| format!("put {} {name}", kind(object)))
}

/// Brings an object from what it was planned to be to another plan: what only the old one had goes, what
/// neither speaks of stays.
pub async fn change(client: &Client, manager: &str, before: &Value, after: &Value) -> anyhow::Result<()> {
    let (api, name, typed) = parts(client, after)?;
    let patch = Patch::Merge(merge_patch(before, after));
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    let outcome = patiently(|| async {
        match api.patch(&name, &params, &patch).await {
            // Somebody took it away: then it is made.
            Err(Error::Api(status)) if status.code == 404 => put_once(&api, manager, &name, &typed).await,
            outcome => outcome.map(drop),
        }
    });
    outcome.await.with_context(|| format!("change {} {name}", kind(after)))
}

/// Removes an object; one that is not there is as good.
pub async fn remove(client: &Client, object: &Value) -> anyhow::Result<()> {
    let (api, name, _) = parts(client, object)?;
    let outcome = patiently(|| async {
        match api.delete(&name, &DeleteParams::default()).await {
            Err(Error::Api(status)) if status.code == 404 => Ok(()),
            outcome => outcome.map(drop),
        }
    });
    outcome.await.with_context(|| format!("delete {} {name}", kind(object)))
}

/// Where the API has an object.
pub fn url(client: &Client, object: &Value) -> anyhow::Result<String> {
    let (api, name, _) = parts(client, object)?;
    Ok(format!("{}/{name}", api.resource_url()))
}

/// What is there under an object's name.
pub async fn live(client: &Client, object: &Value) -> anyhow::Result<Option<Value>> {
    let (api, name, _) = parts(client, object)?;
    let found =
        patiently(|| api.get_opt(&name)).await.with_context(|| format!("get {} {name}", kind(object)))?;
    Ok(found.map(serde_json::to_value).transpose()?)
}

/// Whether everything a plan says of an object is so; what the server and others add does not count.
pub fn agrees(planned: &Value, live: &Value) -> bool {
    match (planned, live) {
        (Value::Object(planned), Value::Object(live)) => {
            planned.iter().all(|(key, value)| live.get(key).is_some_and(|there| agrees(value, there)))
        }
        (Value::Array(planned), Value::Array(live)) => {
            planned.len() == live.len() && planned.iter().zip(live).all(|(one, other)| agrees(one, other))
        }
        (planned, live) => planned == live,
    }
}

/// Whether a workload has nothing that a plan does not give it: what the API server would make of the plan alone
/// is compared. Of other kinds [`agrees`] sees enough.
pub async fn is_all(client: &Client, planned: &Value, live: &Value) -> anyhow::Result<bool> {
    if planned["apiVersion"] != "apps/v1" {
        return Ok(true);
    }
    let alone = replace(client, "minilab", planned, live, true).await?;
    Ok(alone["spec"] == live["spec"])
}

/// Makes an object exactly what is planned, or says what it would be.
pub async fn replace(
    client: &Client,
    manager: &str,
    planned: &Value,
    live: &Value,
    dry_run: bool,
) -> anyhow::Result<Value> {
    let (api, name, mut typed) = parts(client, planned)?;
    typed.metadata.resource_version = live["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    let params = PostParams { dry_run, field_manager: Some(manager.to_owned()) };
    let made = api.replace(&name, &params, &typed).await;
    Ok(serde_json::to_value(made.with_context(|| format!("replace {} {name}", kind(planned)))?)?)
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

fn parts(client: &Client, object: &Value) -> anyhow::Result<(Api<DynamicObject>, String, DynamicObject)> {
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    let types = object.types.clone().context("an object without apiVersion and kind")?;
    let name = object.metadata.name.clone().context("an object without a name")?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(&types)?);
    let api = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    Ok((api, name, object))
}

/// Tries again while the API server may only need a moment.
async fn patiently<T, F: Future<Output = Result<T, Error>>>(attempt: impl Fn() -> F) -> Result<T, Error> {
    let (until, mut backoff) = (Instant::now() + PATIENCE, Backoff::new());
    loop {
        match attempt().await {
            Err(error) if passes(&error) && Instant::now() < until => {
                debug!(%error, "Not accepted yet");
                backoff.wait().await;
            }
            outcome => return outcome,
        }
    }
}

async fn put_once(
    api: &Api<DynamicObject>,
    manager: &str,
    name: &str,
    object: &DynamicObject,
) -> Result<(), Error> {
    let create = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
    match api.create(&create, object).await {
        Err(Error::Api(status)) if status.code == 409 => {
            let merge = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
            api.patch(name, &merge, &Patch::Merge(object)).await.map(drop)
        }
        outcome => outcome.map(drop),
    }
}

/// What an API server that has only just started may answer and will not answer for long.
fn passes(error: &Error) -> bool {
    match error {
        Error::Api(status) => matches!(status.code, 403 | 404 | 429 | 500..),
        _ => true,
    }
}

/// RFC 7386: what leads from one tree to the other. All of the new one is said, so that it mends what is
/// different from both.
fn merge_patch(before: &Value, after: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (before, after) else { return after.clone() };
    let mut patch: Map<String, Value> =
        old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in new {
        patch.insert(key.clone(), merge_patch(old.get(key).unwrap_or(&Value::Null), value));
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_takes_away_what_only_the_old_plan_had() {
        let (before, after) = (json!({"a": {"b": 1, "c": 2}, "l": [1]}), json!({"a": {"b": 3}, "l": [2]}));
        let patch = merge_patch(&before, &after);
        assert_eq!(patch, json!({"a": {"b": 3, "c": null}, "l": [2]}));
    }

    #[test]
    fn what_the_server_adds_is_no_disagreement() {
        let planned = json!({"rules": [{"verbs": ["get"]}]});
        assert!(agrees(&planned, &json!({"metadata": {"uid": "1"}, "rules": [{"verbs": ["get"]}]})));
        assert!(!agrees(&planned, &json!({"rules": [{"verbs": ["get"]}, {"verbs": ["list"]}]})));
    }
}
