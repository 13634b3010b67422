//! DELETE: at once, after a pod's grace, or when the last finalizer is gone (`rest.BeforeDelete`).

use axum::response::Response;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions as Sent;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admit::Write;
use super::meta;
use super::options;
use super::select::Selection;
use crate::api::status::{Result, Status};
use crate::control::apiserver::admission::Operation;
use crate::control::apiserver::call::Call;
use crate::control::apiserver::registry::Resource;
use crate::control::apiserver::{custom, encode, lists, respond, versions};
use crate::control::store::{Change, Entry, Expect, StoreError};

const ATTEMPTS: usize = 16;
/// What upstream gives a pod that does not say.
const DEFAULT_GRACE: i64 = 30;
const STILL_CONTENT: &str = "The system is ensuring all content is removed from this namespace.  Upon completion, this namespace will automatically be purged by the system.";

/// `metav1.DeleteOptions`, from the body or the query.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    pub grace: Option<i64>,
    pub uid: Option<String>,
    pub version: Option<String>,
    /// The finalizer that `propagationPolicy` asks for.
    pub propagation: Option<Propagation>,
    pub dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// What a deletion came to.
pub enum Outcome {
    /// It is gone.
    Gone(Entry),
    /// It is marked, and goes when its grace or its finalizers are over.
    Marked(Entry),
    Dry(Value),
}

pub async fn answer(call: &Call, row: &'static Resource) -> Result<Response> {
    let options = DeleteOptions::read(call)?;
    match remove(call, row, &call.asked().name, &options).await? {
        Outcome::Marked(entry) => super::entry(call, row, StatusCode::OK, &entry).await,
        Outcome::Gone(entry) if row.returns_deleted => super::entry(call, row, StatusCode::OK, &entry).await,
        Outcome::Gone(entry) => Ok(gone(row, &encode::object(&entry)?)),
        Outcome::Dry(object) if row.returns_deleted => super::unstored(call, row, StatusCode::OK, &object),
        Outcome::Dry(object) => Ok(gone(row, &object)),
    }
}

/// The Status that says what went.
fn gone(row: &Resource, object: &Value) -> Response {
    let mut details = json!({
        "name": object["metadata"]["name"], "kind": row.plural, "uid": object["metadata"]["uid"],
    });
    if !row.group.is_empty() {
        details["group"] = json!(row.group);
    }
    respond::success(StatusCode::OK, Some(details))
}

/// Deletes everything a selection matches, one by one; answers with the list.
pub async fn collection(call: &Call, row: &'static Resource) -> Result<Response> {
    let options = DeleteOptions::read(call)?;
    let selection = Selection::read(call, row)?;
    let found = super::list::now(call, row, &selection).await?;
    let mut removed = Vec::with_capacity(found.entries.len());
    for entry in &found.entries {
        let (namespace, name) = entry.key.rsplit_once('/').unwrap_or(("", &entry.key));
        let mut one = call.without_body();
        if let Some(asked) = one.info.resource.as_mut() {
            (asked.namespace, asked.name) = (namespace.to_owned(), name.to_owned());
        }
        match remove(&one, row, name, &options).await {
            Ok(Outcome::Gone(entry) | Outcome::Marked(entry)) => removed.push(entry),
            Ok(Outcome::Dry(_)) => removed.push(entry.clone()),
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    let removed = super::list::presented(call, row, removed).await?;
    let list = lists::Encoded::new(&removed, call.api.store.revision());
    Ok(lists::send(&list, row, false))
}

/// Deletes one object as far as it can be deleted now.
pub async fn remove(
    call: &Call,
    row: &'static Resource,
    name: &str,
    options: &DeleteOptions,
) -> Result<Outcome> {
    let mut attempts = ATTEMPTS;
    loop {
        attempts -= 1;
        let entry = super::get::find(call, row).await?;
        let old = encode::object(&entry)?;
        options.check(row, &old, name)?;
        let operation = Operation::Delete;
        let write = Write { call, row, operation, old: Some(&old), dry_run: options.dry_run };
        write.admit(None).await?;
        let (object, goes) = match plan(row, &old, options)? {
            Step::Keep => return Ok(Outcome::Marked(entry)),
            Step::Mark(object) => (object, false),
            Step::Go => (old, true),
        };
        if options.dry_run {
            return Ok(Outcome::Dry(object));
        }
        let draft = encode::draft(&versions::stored(&call.api, row, &object).await?);
        let change = if goes { Change::Delete(draft) } else { Change::Put(draft) };
        let written =
            call.api.store.write(&row.bucket, &entry.key, Some(Expect::Revision(entry.mod_revision)), change);
        match written.await {
            Ok(entry) if goes => return Ok(Outcome::Gone(entry)),
            Ok(entry) => return Ok(Outcome::Marked(entry)),
            Err(StoreError::Modified { .. }) if attempts > 0 => {}
            Err(error) => return Err(super::write_failed(error, row.group, row.plural, name)),
        }
    }
}

/// What a deletion does to an object now.
#[derive(Debug, PartialEq)]
enum Step {
    Go,
    Mark(Value),
    /// It is on its way already and this request changes nothing.
    Keep,
}

/// Decides what is next for an object somebody wants to be gone.
fn plan(row: &Resource, old: &Value, options: &DeleteOptions) -> Result<Step> {
    let mut object = old.clone();
    if let Some(propagation) = options.propagation {
        propagation.mark(&mut object);
    }
    if row.group == custom::GROUP && row.plural == custom::PLURAL && !meta::deleting(old) {
        custom::definition::mark_deleted(&mut object);
    }
    let held = meta::any(&object, "finalizers");
    if row.kind == "Namespace" && row.group.is_empty() {
        return namespace(object, old, held);
    }
    let grace = if row.kind == "Pod" && row.group.is_empty() { pod_grace(old, options.grace) } else { 0 };
    if grace == 0 && !held {
        return Ok(Step::Go);
    }
    if meta::deleting(old) {
        let left = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        if grace >= left && object == *old {
            return Ok(Step::Keep);
        }
        if grace >= left {
            return Ok(Step::Mark(object));
        }
    } else if object["metadata"]["generation"].as_i64().is_some_and(|generation| generation > 0) {
        let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
        meta::set(&mut object, "generation", json!(generation + 1));
    }
    let at = Timestamp::now().checked_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX);
    meta::set(&mut object, "deletionTimestamp", json!(meta::time(at)));
    meta::set(&mut object, "deletionGracePeriodSeconds", json!(grace));
    Ok(Step::Mark(object))
}

/// A namespace is Terminating until the namespace controller has emptied it and taken its finalizer off.
fn namespace(mut object: Value, old: &Value, held: bool) -> Result<Step> {
    let content = object["spec"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
    if !content && !held {
        return Ok(Step::Go);
    }
    if meta::deleting(old) {
        let name = meta::text(old, "name");
        return Err(Status::conflict("", "namespaces", name, STILL_CONTENT));
    }
    meta::set(&mut object, "deletionTimestamp", json!(meta::now()));
    meta::set(&mut object, "deletionGracePeriodSeconds", json!(0));
    object["status"]["phase"] = json!("Terminating");
    Ok(Step::Mark(object))
}

/// The seconds a pod still gets: none if no kubelet has it or it has ended.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let own = || pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(DEFAULT_GRACE);
    let grace = asked.unwrap_or_else(own);
    let unscheduled = pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    match unscheduled || ended {
        true => 0,
        // A negative grace means at least one second upstream.
        false if grace < 0 => 1,
        false => grace,
    }
}

impl Propagation {
    /// Sets the finalizer that the garbage collector takes off again.
    fn mark(self, object: &mut Value) {
        let mut finalizers: Vec<Value> =
            object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != "orphan" && finalizer != "foregroundDeletion");
        match self {
            Self::Orphan => finalizers.push(json!("orphan")),
            Self::Foreground => finalizers.push(json!("foregroundDeletion")),
            Self::Background => {}
        }
        let list = if finalizers.is_empty() { Value::Null } else { Value::Array(finalizers) };
        meta::set(object, "finalizers", list);
    }
}

impl DeleteOptions {
    pub fn read(call: &Call) -> Result<Self> {
        let body = match call.body.is_empty() {
            true => Value::Null,
            false => super::body::parse(&call.headers, &call.body)?,
        };
        let cannot = |why: &dyn std::fmt::Display| {
            Status::bad_request(format!("couldn't get version/kind; json parse error: {why}"))
        };
        if !body.is_null() {
            let object = body.is_object().then_some(&body).ok_or_else(|| cannot(&"no object"))?;
            Sent::deserialize(object).map_err(|error| cannot(&error))?;
        }
        if !body.is_null() && !matches!(body["kind"].as_str(), None | Some("DeleteOptions" | "")) {
            return Err(Status::bad_request(format!(
                "decoded object cannot be converted to DeleteOptions: {}",
                body["kind"]
            )));
        }
        let mut options = Self::of(&body)?;
        if body.is_null() {
            let query = &call.query;
            options.grace = query.text("gracePeriodSeconds").map(whole_number).transpose()?;
            options.propagation = query.text("propagationPolicy").map(propagation).transpose()?;
            if query.text("orphanDependents").is_some() {
                options.propagation = Some(if query.flag("orphanDependents") {
                    Propagation::Orphan
                } else {
                    Propagation::Background
                });
            }
        }
        options.dry_run |= options::dry_run(call.query.all("dryRun"))?;
        Ok(options)
    }

    /// From an object of that kind; null is no options.
    pub fn of(body: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let orphan = body["orphanDependents"].as_bool();
        Ok(Self {
            grace: body["gracePeriodSeconds"].as_i64(),
            uid: text(&body["preconditions"]["uid"]),
            version: text(&body["preconditions"]["resourceVersion"]),
            propagation: match (body["propagationPolicy"].as_str(), orphan) {
                (Some(policy), _) => Some(propagation(policy)?),
                (None, Some(true)) => Some(Propagation::Orphan),
                (None, Some(false)) => Some(Propagation::Background),
                (None, None) => None,
            },
            dry_run: options::dry_run(
                body["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str),
            )?,
        })
    }

    /// Refuses when the object is not the one the client means.
    fn check(&self, row: &Resource, old: &Value, name: &str) -> Result<()> {
        let fields = [("UID", &self.uid, "uid"), ("ResourceVersion", &self.version, "resourceVersion")];
        for (label, wanted, field) in fields {
            let own = meta::text(old, field);
            if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != own) {
                let why = format!(
                    "Precondition failed: {label} in precondition: {wanted}, {label} in object meta: {own}"
                );
                return Err(Status::conflict(row.group, row.plural, name, &why));
            }
        }
        Ok(())
    }
}

fn propagation(policy: &str) -> Result<Propagation> {
    match policy {
        "Orphan" => Ok(Propagation::Orphan),
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        other => Err(Status::new(
            422,
            "Invalid",
            format!(
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            ),
        )),
    }
}

fn whole_number(text: &str) -> Result<i64> {
    text.parse()
        .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::apiserver::registry;

    fn pods() -> &'static Resource {
        registry::find("", "v1", "pods").unwrap()
    }

    #[test]
    fn a_running_pod_gets_its_grace_and_a_pending_one_none() {
        let mut pod =
            json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}});
        let Step::Mark(marked) = plan(pods(), &pod, &DeleteOptions::default()).unwrap() else { panic!() };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 5);
        assert_eq!(plan(pods(), &marked, &DeleteOptions::default()).unwrap(), Step::Keep);
        let force = DeleteOptions { grace: Some(0), ..Default::default() };
        assert_eq!(plan(pods(), &marked, &force).unwrap(), Step::Go);
        pod["spec"]["nodeName"] = Value::Null;
        assert_eq!(plan(pods(), &pod, &DeleteOptions::default()).unwrap(), Step::Go);
    }

    #[test]
    fn finalizers_and_propagation_hold_an_object_back() {
        let row = registry::find("apps", "v1", "deployments").unwrap();
        let old = json!({"metadata": {"name": "a", "generation": 1}});
        assert_eq!(plan(row, &old, &DeleteOptions::default()).unwrap(), Step::Go);
        let foreground = DeleteOptions { propagation: Some(Propagation::Foreground), ..Default::default() };
        let Step::Mark(marked) = plan(row, &old, &foreground).unwrap() else { panic!() };
        assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
        assert_eq!(marked["metadata"]["generation"], 2);
    }

    #[test]
    fn a_namespace_waits_for_its_content() {
        let row = registry::find("", "v1", "namespaces").unwrap();
        let old = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}});
        let Step::Mark(marked) = plan(row, &old, &DeleteOptions::default()).unwrap() else { panic!() };
        assert_eq!(marked["status"]["phase"], "Terminating");
        assert_eq!(plan(row, &marked, &DeleteOptions::default()).unwrap_err().code, 409);
    }
}
