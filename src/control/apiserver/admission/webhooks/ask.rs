//! The question to a webhook and its answer (`admission.k8s.io/v1` AdmissionReview).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::super::{Attributes, Context, Operation, list};
use crate::api::status::Status;
use crate::control::apiserver::callee;
use crate::control::apiserver::lookup::text;
use crate::control::apiserver::remote::RemoteError;

/// What a webhook may take at most, unless it says less.
const TIMEOUT: u64 = 10;
const VERSION: &str = "admission.k8s.io/v1";

/// What a webhook said.
#[derive(Debug, Default)]
pub struct Answer {
    pub allowed: bool,
    pub patch: Option<Vec<u8>>,
    pub warnings: Vec<String>,
    pub annotations: Vec<(String, String)>,
    status: Value,
}

impl Answer {
    /// The refusal as the client reads it.
    pub fn refusal(&self, webhook: &str) -> Status {
        let denied = format!("admission webhook {webhook:?} denied the request");
        let message = match (self.status["message"].as_str(), self.status["reason"].as_str()) {
            (Some(text), _) if !text.is_empty() => format!("{denied}: {text}"),
            (_, Some(reason)) if !reason.is_empty() => format!("{denied}: {reason}"),
            _ => format!("{denied} without explanation"),
        };
        let code = self.status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        let reason =
            ["Forbidden", "Invalid", "BadRequest", "Conflict", "NotFound", "Unauthorized", "AlreadyExists"]
                .into_iter()
                .find(|known| self.status["reason"] == *known)
                .unwrap_or_default();
        Status::new(code.filter(|code| (400..600).contains(code)).unwrap_or(400), reason, message)
    }
}

/// The review's request: who wants to write what.
pub fn request(write: &Attributes, uid: &str) -> Value {
    let kind = json!({"group": write.group, "version": write.version, "kind": write.kind});
    let resource = json!({"group": write.group, "version": write.version, "resource": write.resource});
    let (operation, options) = match write.operation {
        Operation::Create => ("CREATE", "CreateOptions"),
        Operation::Update => ("UPDATE", "UpdateOptions"),
        Operation::Delete => ("DELETE", "DeleteOptions"),
    };
    let mut user = json!({"username": write.user.name, "groups": write.user.groups});
    if !write.user.uid.is_empty() {
        user["uid"] = json!(write.user.uid);
    }
    if !write.user.extra.is_empty() {
        user["extra"] = json!(write.user.extra);
    }
    let mut request = json!({
        "uid": uid, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "name": write.name, "operation": operation, "userInfo": user, "object": write.object,
        "oldObject": write.old, "dryRun": write.dry_run,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": options},
    });
    if !write.namespace.is_empty() {
        request["namespace"] = json!(write.namespace);
    }
    if !write.subresource.is_empty() {
        request["subResource"] = json!(write.subresource);
        request["requestSubResource"] = json!(write.subresource);
    }
    request
}

/// Asks; every way to get no answer is a text.
pub async fn ask(context: &Context, hook: &Value, request: &Value, uid: &str) -> Result<Answer, String> {
    let seconds = hook["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT).clamp(1, 30);
    let remote = callee::remote(&context.store, &context.roads, &hook["clientConfig"], seconds)?;
    let review = json!({"kind": "AdmissionReview", "apiVersion": VERSION, "request": request});
    let answer = remote.post_once(&review).await.map_err(|error| match error {
        RemoteError::Answer { body, .. } => format!("failed to call webhook: {body}"),
        RemoteError::Json(_) => "failed to call webhook: the server's answer is not JSON".to_owned(),
        error => format!("failed to call webhook: {error}"),
    })?;
    read(&answer, uid)
}

/// Reads an answered review.
pub fn read(review: &Value, uid: &str) -> Result<Answer, String> {
    let kind = (text(review, "/apiVersion"), text(review, "/kind"));
    if kind != (VERSION, "AdmissionReview") {
        let (version, kind) = kind;
        return Err(format!(
            "received invalid webhook response: expected webhook response of {VERSION}, Kind=AdmissionReview, got {version}, Kind={kind}"
        ));
    }
    let response = &review["response"];
    if !response.is_object() {
        return Err("received invalid webhook response: webhook response was absent".into());
    }
    let own = text(response, "/uid");
    if own != uid {
        return Err(format!("received invalid webhook response: expected response.uid={uid:?}, got {own:?}"));
    }
    let patch = match response["patch"].as_str() {
        None => None,
        Some(_) if response["patchType"] != "JSONPatch" => {
            let own = response["patchType"].as_str().unwrap_or_default();
            return Err(format!(
                "received invalid webhook response: invalid webhook response.patchType of {own:?}, expected \"JSONPatch\""
            ));
        }
        Some(patch) => Some(
            BASE64_STANDARD
                .decode(patch)
                .map_err(|error| format!("received invalid webhook response: {error}"))?,
        ),
    };
    let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
    Ok(Answer {
        allowed: response["allowed"] == true,
        patch: patch.filter(|patch| !patch.is_empty()),
        warnings: list(&response["warnings"]).iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        annotations: annotations
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
        status: response["status"].clone(),
    })
}
