//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: others' servers that change or judge a write
//! (`apiserver/pkg/admission/plugin/webhook`).
//!
//! A webhook named as a service is dialled by the cluster's road, at one of the service's endpoints; one named by
//! URL by the control plane's. Left out on purpose: `matchPolicy: Equivalent` (a kind has one group here), and the
//! name of an authorizer in match conditions.

pub mod ask;
pub mod matching;

use serde_json::{Value, json};

use super::{Attributes, Context, Operation, list};
use crate::api::patch;
use crate::api::status::{Result, Status};
use crate::control::apiserver::registry;
use ask::Answer;

const GROUP: &str = "admissionregistration.k8s.io";

/// The webhooks of all configurations of a kind that want to see a write, in the order they are asked.
fn wanted(context: &Context, plural: &str, write: &Attributes) -> Vec<Value> {
    // Nobody may lock everybody out of the list of webhooks.
    if write.group == GROUP {
        return Vec::new();
    }
    let Some(row) = registry::by_name(GROUP, plural) else { return Vec::new() };
    let Ok(page) = context.store.list(&row.bucket, "", None, None, None) else { return Vec::new() };
    let mut hooks = Vec::new();
    for entry in &page.entries {
        let Ok(configuration) = serde_json::from_slice::<Value>(&entry.value) else { continue };
        let own = list(&configuration["webhooks"]).iter();
        hooks.extend(own.filter(|hook| matching::concerns(context, hook, write)).cloned());
    }
    hooks
}

/// Asks a webhook, if its conditions hold; none if it is not to be heard.
async fn asked(context: &Context, hook: &Value, write: &Attributes, uid: &str) -> Result<Option<Answer>> {
    let request = ask::request(write, uid);
    let failed = |why: String, code: u16| match hook["failurePolicy"].as_str() {
        Some("Ignore") => {
            tracing::warn!(webhook = name(hook), why, "Failed calling webhook, failing open");
            Ok(None)
        }
        _ if code == 403 => Err(write.forbidden(why)),
        _ => Err(Status::internal(why)),
    };
    match matching::conditions(hook, write, &request) {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(why) => return failed(why, 403),
    }
    let harmless = matches!(hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun"));
    if write.dry_run && !harmless {
        let why = format!("admission webhook {:?} does not support dry run", name(hook));
        return Err(Status::bad_request(why));
    }
    match ask::ask(context, hook, &request, uid).await {
        Ok(answer) => Ok(Some(answer)),
        Err(why) => failed(format!("failed calling webhook {:?}: {why}", name(hook)), 500),
    }
}

fn name(hook: &Value) -> &str {
    hook["name"].as_str().unwrap_or_default()
}

/// Passes on what a webhook had to say beside its verdict, and then the verdict.
fn heard(hook: &Value, answer: &Answer, write: &mut Attributes) -> Result<()> {
    for (key, value) in &answer.annotations {
        write.annotate(&format!("{}/{key}", name(hook)), value);
    }
    write.warnings.extend(answer.warnings.iter().cloned());
    match answer.allowed {
        true => Ok(()),
        false => Err(answer.refusal(name(hook))),
    }
}

/// The webhooks that may change the object, one after the other; one that asks for it is heard again when
/// another changed the object after it.
pub(super) async fn mutate(context: &Context, write: &mut Attributes) -> Result<()> {
    let hooks = wanted(context, "mutatingwebhookconfigurations", write);
    let mut left = Vec::with_capacity(hooks.len());
    for hook in &hooks {
        change(context, hook, write).await?;
        left.push(write.object.clone());
    }
    for (hook, then) in hooks.iter().zip(&left) {
        if hook["reinvocationPolicy"] == "IfNeeded" && *then != write.object {
            change(context, hook, write).await?;
        }
    }
    Ok(())
}

async fn change(context: &Context, hook: &Value, write: &mut Attributes) -> Result<()> {
    let uid = uuid::Uuid::new_v4().to_string();
    let Some(answer) = asked(context, hook, write, &uid).await? else { return Ok(()) };
    heard(hook, &answer, write)?;
    let (Some(document), Some(object)) = (&answer.patch, &write.object) else { return Ok(()) };
    if write.operation == Operation::Delete {
        return Ok(());
    }
    let mut object = patch::json(object.clone(), document)?;
    // A patch may leave out what has a default.
    if write.subresource.is_empty()
        && let Some(row) = registry::find(&write.group, &write.version, &write.resource)
    {
        object = row.read(&object).map_err(Status::internal)?;
        row.fill_defaults(&mut object);
    }
    write.object = Some(object);
    Ok(())
}

/// The webhooks that only judge, all at once; the first refusal counts.
pub(super) async fn validate(context: &Context, write: &mut Attributes) -> Result<()> {
    let hooks = wanted(context, "validatingwebhookconfigurations", write);
    if hooks.is_empty() {
        return Ok(());
    }
    let uids: Vec<String> = hooks.iter().map(|_| uuid::Uuid::new_v4().to_string()).collect();
    let questions = hooks.iter().zip(&uids).map(|(hook, uid)| asked(context, hook, write, uid));
    let answers = futures_util::future::join_all(questions).await;
    for (hook, answer) in hooks.iter().zip(answers) {
        if let Some(answer) = answer? {
            heard(hook, &answer, write)?;
        }
    }
    Ok(())
}

/// What match conditions and policies are told of a write.
pub(super) fn variables(write: &Attributes, request: &Value) -> [(&'static str, Value); 3] {
    let or_null = |object: &Option<Value>| object.clone().unwrap_or(json!(null));
    [("object", or_null(&write.object)), ("oldObject", or_null(&write.old)), ("request", request.clone())]
}

#[cfg(test)]
mod tests;
