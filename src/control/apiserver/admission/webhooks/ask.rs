//! The question to a webhook and its answer (`admission.k8s.io/v1` AdmissionReview).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::super::{Attributes, Context, Operation, list};
use crate::api::status::Status;
use crate::control::apiserver::lookup::{self, text};
use crate::control::apiserver::remote::{Remote, RemoteError};
use crate::net::{Dial, Dialing, Egress, Verify};

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
    let remote = remote(context, hook)?;
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

/// Where a webhook is and how it is reached.
fn remote(context: &Context, hook: &Value) -> Result<Remote, String> {
    let seconds = hook["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT).clamp(1, 30);
    let config = &hook["clientConfig"];
    let bundle = config["caBundle"].as_str().unwrap_or_default();
    let bundle = BASE64_STANDARD
        .decode(bundle)
        .map_err(|error| format!("unable to load root certificates: {error}"))?;
    let verify = Verify::Bundle(bundle);
    let (url, road): (String, Arc<dyn Dial>) = match &config["service"] {
        service @ Value::Object(_) => {
            let (namespace, name) = (text(service, "/namespace"), text(service, "/name"));
            let port = service["port"].as_u64().unwrap_or(443);
            let path = text(service, "/path").trim_start_matches('/');
            let (host, own) = endpoint(context, namespace, name, port)?;
            let road = To { host, port: own, road: context.roads.to(Egress::Cluster) };
            (format!("https://{name}.{namespace}.svc:{port}/{path}?timeout={seconds}s"), Arc::new(road))
        }
        _ => {
            let url = text(config, "/url");
            let mark = if url.contains('?') { '&' } else { '?' };
            (format!("{url}{mark}timeout={seconds}s"), context.roads.to(Egress::ControlPlane))
        }
    };
    Remote::new(&url, &verify, None, Duration::from_secs(seconds), road).map_err(|error| match error {
        RemoteError::Tls { source, .. } => format!("unable to load root certificates: {source}"),
        error => error.to_string(),
    })
}

/// A road that leads to one place, whatever name it is called by.
struct To {
    host: String,
    port: u16,
    road: Arc<dyn Dial>,
}

impl Dial for To {
    fn dial<'a>(&'a self, _: &'a str, _: u16) -> Dialing<'a> {
        self.road.dial(&self.host, self.port)
    }
}

/// An endpoint of a service's port.
fn endpoint(context: &Context, namespace: &str, name: &str, port: u64) -> Result<(String, u16), String> {
    let object = |plural: &str| lookup::object(&context.store, "", plural, namespace, name);
    let service =
        object("services").ok_or_else(|| format!("failed to call webhook: service {name:?} not found"))?;
    let own = list(&service["spec"]["ports"]).iter().find(|own| own["port"].as_u64() == Some(port));
    let own = own.ok_or_else(|| {
        format!("failed to call webhook: no service port {port} found for service {name:?}")
    })?;
    let endpoints = object("endpoints").unwrap_or_default();
    for subset in list(&endpoints["subsets"]) {
        let found = list(&subset["ports"]).iter().find(|one| text(one, "/name") == text(own, "/name"));
        let number = found.and_then(|one| one["port"].as_u64()).and_then(|number| u16::try_from(number).ok());
        if let (Some(number), [first, ..]) = (number, list(&subset["addresses"])) {
            return Ok((text(first, "/ip").to_owned(), number));
        }
    }
    Err(format!("failed to call webhook: no endpoints available for service {name:?}"))
}
