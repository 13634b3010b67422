//! ServiceAccount: every pod runs as one, and gets its token, the cluster's CA and its namespace as files.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Attributes, Context, Operation, list};
use crate::api::status::Result;
use crate::control::apiserver::lookup;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// The magic life: the API server stretches tokens asked for with it to a year, unless told not to.
const EXPIRATION_SECONDS: u64 = 3607;
/// A pod may be faster than the controller that makes its namespace's default account.
const PATIENCE: Duration = Duration::from_millis(1500);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub(super) async fn admit(context: &Context, write: &mut Attributes) -> Result<()> {
    if !write.is("", "pods") || write.operation != Operation::Create {
        return Ok(());
    }
    let Some(mut pod) = write.object.take() else { return Ok(()) };
    let outcome = complete(context, write, &mut pod).await;
    write.object = Some(pod);
    outcome.map_err(|why| write.forbidden(why))
}

/// Fills in the pod; an error is the refusal's reason.
async fn complete(context: &Context, write: &Attributes, pod: &mut Value) -> std::result::Result<(), String> {
    if pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some() {
        return check_mirror(pod);
    }
    let name = match lookup::text(pod, "/spec/serviceAccountName") {
        "" => "default".to_owned(),
        name => name.to_owned(),
    };
    pod["spec"]["serviceAccountName"] = json!(name);
    // The field's old name, which clients still read.
    pod["spec"]["serviceAccount"] = json!(name);
    let account = find(context, &write.namespace, &name).await?;
    let automount = pod["spec"]["automountServiceAccountToken"]
        .as_bool()
        .or_else(|| account["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if automount {
        mount_token(&mut pod["spec"]);
    }
    if list(&pod["spec"]["imagePullSecrets"]).is_empty() && !list(&account["imagePullSecrets"]).is_empty() {
        pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    Ok(())
}

/// A mirror of a static pod is nobody.
fn check_mirror(pod: &Value) -> std::result::Result<(), String> {
    if !lookup::text(pod, "/spec/serviceAccountName").is_empty() {
        return Err("a mirror pod may not reference service accounts".into());
    }
    let token = |volume: &Value| {
        list(&volume["projected"]["sources"]).iter().any(|source| !source["serviceAccountToken"].is_null())
    };
    match list(&pod["spec"]["volumes"]).iter().any(token) {
        true => Err("a mirror pod may not use ServiceAccountToken volume projections".into()),
        false => Ok(()),
    }
}

async fn find(context: &Context, namespace: &str, name: &str) -> std::result::Result<Value, String> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(account) = lookup::object(&context.store, "", "serviceaccounts", namespace, name) {
            return Ok(account);
        }
        if name != "default" || tokio::time::Instant::now() >= deadline {
            let why = format!("serviceaccount {name:?} not found");
            return Err(format!("error looking up service account {namespace}/{name}: {why}"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Mounts the token where a container has nothing at that path yet.
fn mount_token(spec: &mut Value) {
    let existing = list(&spec["volumes"]).iter().map(|volume| lookup::text(volume, "/name"));
    let existing = existing.filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned).next();
    let name = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", suffix()));
    let mut mounted = false;
    for kind in ["initContainers", "containers"] {
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            if list(&container["volumeMounts"]).iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            push(container, "volumeMounts", json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            mounted = true;
        }
    }
    if mounted && existing.is_none() {
        push(spec, "volumes", volume(&name));
    }
}

fn volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": EXPIRATION_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{
                    "path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                }]}},
            ],
            "defaultMode": 420,
        },
    })
}

/// Appends to an array that may not exist yet.
pub(super) fn push(object: &mut Value, field: &str, item: Value) {
    match object[field].as_array_mut() {
        Some(list) => list.push(item),
        None => object[field] = json!([item]),
    }
}

/// Five characters as upstream's name generator draws them: no vowels, nothing that looks like another.
fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let random = uuid::Uuid::new_v4();
    random.as_bytes()[..5]
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
        .collect()
}
