//! `pods/binding`: the scheduler's word on where a pod runs (`BindingREST`).

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use crate::api::status::{Cause, Result, Status};
use crate::control::apiserver::admission::Operation;
use crate::control::apiserver::call::Call;
use crate::control::apiserver::handlers::admit::Write;
use crate::control::apiserver::handlers::options::WriteOptions;
use crate::control::apiserver::handlers::{self, body, meta};
use crate::control::apiserver::registry::{self, Resource};
use crate::control::apiserver::{encode, respond};
use crate::control::store::{Change, Expect, StoreError};

/// The older form: POST to `bindings`, the pod's name in the body.
pub async fn by_name_in_body(call: &Call) -> Result<Response> {
    let sent = body::parse(&call.headers, &call.body)?;
    let pods = registry::find("", "v1", "pods").ok_or_else(Status::no_such_path)?;
    answer(call, pods, meta::text(&sent, "name")).await
}

pub async fn answer(call: &Call, pods: &'static Resource, name: &str) -> Result<Response> {
    let options = WriteOptions::read(&call.query)?;
    let kind = registry::find("", "v1", "bindings").ok_or_else(Status::no_such_path)?;
    let binding = body::decode(kind, body::parse(&call.headers, &call.body)?, options.fields)?.object;
    check(&binding, name)?;
    let write = Write { call, row: pods, operation: Operation::Create, old: None, dry_run: options.dry_run };
    write.admit(Some(binding.clone())).await?;
    let key = pods.key(&call.asked().namespace, name);
    loop {
        let entry =
            call.api.store.get(&pods.bucket, &key).ok_or_else(|| Status::not_found("", "pods", name))?;
        let mut pod = encode::object(&entry)?;
        bind(&mut pod, &binding, name)?;
        if options.dry_run {
            break;
        }
        let change = Change::Put(encode::draft(&pod));
        match call
            .api
            .store
            .write(&pods.bucket, &key, Some(Expect::Revision(entry.mod_revision)), change)
            .await
        {
            Ok(_) => break,
            // Somebody else wrote the pod (its status, most likely); the binding still holds or not.
            Err(StoreError::Modified { .. }) => {}
            Err(error) => return Err(handlers::write_failed(error, "", "pods", name)),
        }
    }
    Ok(respond::success(StatusCode::CREATED, None))
}

fn check(binding: &Value, name: &str) -> Result<()> {
    let target = &binding["target"];
    let own = meta::text(binding, "name");
    if !own.is_empty() && own != name {
        return Err(Status::bad_request(format!(
            "name in URL does not match name in Binding object: {name} != {own}"
        )));
    }
    let mut causes = Vec::new();
    if !matches!(target["kind"].as_str(), None | Some("" | "Node")) {
        causes.push(Cause::unsupported("target.kind", &target["kind"], &["Node", "<empty>"]));
    }
    if target["name"].as_str().unwrap_or_default().is_empty() {
        causes.push(Cause::required("target.name", ""));
    }
    match causes.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid("", "Binding", name, &causes)),
    }
}

/// Sets the node, once.
fn bind(pod: &mut Value, binding: &Value, name: &str) -> Result<()> {
    let refuse = |why: String| Err(Status::conflict("", "pods/binding", name, &why));
    let uid = meta::text(binding, "uid");
    if !uid.is_empty() && uid != meta::text(pod, "uid") {
        let own = meta::text(pod, "uid");
        return refuse(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {own}"));
    }
    if meta::deleting(pod) {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        return refuse(format!("pod {name} is already assigned to node {node:?}"));
    }
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    for (key, value) in binding["metadata"]["annotations"].as_object().into_iter().flatten() {
        pod["metadata"]["annotations"][key] = value.clone();
    }
    scheduled(pod);
    Ok(())
}

fn scheduled(pod: &mut Value) {
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": meta::now(),
    });
    let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    conditions.push(condition);
    pod["status"]["conditions"] = conditions.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "node-1"}});
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {}});
        bind(&mut pod, &binding, "a").unwrap();
        assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
        let again = bind(&mut pod, &binding, "a").unwrap_err();
        assert_eq!(
            again.message,
            "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"node-1\""
        );
    }
}
