//! Pods and the specs of pod templates.

use serde_json::{Value, json};

use super::container::{self, Around};
use super::metadata::{self, unique};
use super::{each, invalid_all, join, not_negative, one_of, required, text, volumes};
use crate::api::names;
use crate::api::status::Cause;

/// A pod, new or changed.
pub fn pod(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    if let Some(old) = old {
        if causes.is_empty() {
            causes.extend(update(object, old));
        }
        return causes;
    }
    spec(&mut causes, &object["spec"], "spec");
    if object["spec"]["ephemeralContainers"].as_array().is_some_and(|list| !list.is_empty()) {
        causes.push(Cause::forbidden("spec.ephemeralContainers", "cannot be set on create"));
    }
    causes
}

/// A pod's or a template's spec.
pub fn spec(causes: &mut Vec<Cause>, spec: &Value, path: &str) {
    let volumes = volumes::check(causes, spec, path);
    containers(causes, spec, path, &volumes);
    if text(spec, "restartPolicy").is_empty() {
        causes.push(Cause::required(join(path, "restartPolicy"), ""));
    }
    one_of(causes, spec, "restartPolicy", path, &["Always", "OnFailure", "Never"]);
    one_of(causes, spec, "dnsPolicy", path, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    super::dns::config(causes, spec, path);
    if spec["dnsPolicy"] == "None" && spec["dnsConfig"]["nameservers"].as_array().is_none_or(Vec::is_empty) {
        let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        causes.push(Cause::required(format!("{path}.dnsConfig.nameservers"), why));
    }
    not_negative(causes, spec, "terminationGracePeriodSeconds", path);
    let deadline = &spec["activeDeadlineSeconds"];
    if deadline.as_i64().is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds)) {
        let why = "must be between 1 and 2147483647, inclusive";
        causes.push(Cause::invalid(join(path, "activeDeadlineSeconds"), deadline, why));
    }
    metadata::labels(causes, &spec["nodeSelector"], &join(path, "nodeSelector"));
    for (field, rule) in [
        ("nodeName", names::dns1123_subdomain as metadata::NameRule),
        ("serviceAccountName", names::dns1123_subdomain),
        ("priorityClassName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
    ] {
        if !text(spec, field).is_empty() {
            causes.extend(invalid_all(&join(path, field), &spec[field], rule(text(spec, field))));
        }
    }
    for (path, toleration) in each(spec, "tolerations", path) {
        check_toleration(causes, toleration, &path);
    }
    let context = join(path, "securityContext");
    container::ids(causes, &spec["securityContext"], &context, &["runAsUser", "runAsGroup", "fsGroup"]);
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        causes.push(Cause::invalid(join(path, "shareProcessNamespace"), &json!(true), why));
    }
    host_aliases(causes, spec, path);
}

fn containers(causes: &mut Vec<Cause>, spec: &Value, path: &str, volumes: &[String]) {
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required(join(path, "containers"), ""));
    }
    let (mut seen, host_network) = (Vec::new(), spec["hostNetwork"] == true);
    for list in ["containers", "initContainers"] {
        for (path, one) in each(spec, list, path) {
            unique(causes, &mut seen, &one["name"], join(&path, "name"));
            let sidecar = one["restartPolicy"] == "Always";
            let around = Around { volumes, host_network, only_starts: list == "initContainers" && !sidecar };
            container::check(causes, one, &path, &around);
        }
    }
}

fn check_toleration(causes: &mut Vec<Cause>, toleration: &Value, path: &str) {
    let operator = text(toleration, "operator");
    if text(toleration, "key").is_empty() {
        if operator != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            causes.push(Cause::invalid(join(path, "operator"), &json!(operator), why));
        }
    } else {
        let reasons = names::qualified_name(text(toleration, "key"));
        causes.extend(invalid_all(&join(path, "key"), &toleration["key"], reasons));
    }
    if operator == "Exists" && !text(toleration, "value").is_empty() {
        let why = "value must be empty when `operator` is 'Exists'";
        causes.push(Cause::invalid(join(path, "operator"), &toleration["value"], why));
    }
    one_of(causes, toleration, "operator", path, &["Equal", "Exists"]);
    one_of(causes, toleration, "effect", path, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
    if !toleration["tolerationSeconds"].is_null() && toleration["effect"] != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        causes.push(Cause::invalid(join(path, "effect"), &json!(text(toleration, "effect")), why));
    }
}

fn host_aliases(causes: &mut Vec<Cause>, spec: &Value, path: &str) {
    for (path, alias) in each(spec, "hostAliases", path) {
        if required(causes, alias, "ip", &path) && text(alias, "ip").parse::<std::net::IpAddr>().is_err() {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            causes.push(Cause::invalid(join(&path, "ip"), &alias["ip"], why));
        }
        for (path, name) in each(alias, "hostnames", &path) {
            let reasons = names::dns1123_subdomain(name.as_str().unwrap_or_default());
            causes.extend(invalid_all(&path, name, reasons));
        }
    }
}

const UPDATE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What of a running pod may change: images, a shorter deadline, more tolerations.
fn update(new: &Value, old: &Value) -> Vec<Cause> {
    let (new, old) = (&new["spec"], &old["spec"]);
    let mut causes = Vec::new();
    for list in ["containers", "initContainers"] {
        let count = |spec: &Value| spec[list].as_array().map_or(0, Vec::len);
        if count(new) != count(old) {
            let why = "pod updates may not add or remove containers";
            causes.push(Cause::forbidden(join("spec", list), why));
            return causes;
        }
        for (path, container) in each(new, list, "spec") {
            required(&mut causes, container, "image", &path);
        }
    }
    deadline(&mut causes, new, old);
    let kept = |toleration: &Value| {
        each(new, "tolerations", "").any(|(_, own)| {
            ["key", "operator", "value", "effect"].iter().all(|field| own[*field] == toleration[*field])
        })
    };
    if !each(old, "tolerations", "").all(|(_, toleration)| kept(toleration)) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        causes.push(Cause::forbidden("spec.tolerations", why));
    }
    let (fixed, before) = (without_changeable(new), without_changeable(old));
    if fixed != before {
        let mut difference = String::new();
        describe(&before, &fixed, "", &mut difference);
        causes.push(Cause::forbidden("spec", &format!("{UPDATE}\n{difference}")));
    }
    causes
}

fn deadline(causes: &mut Vec<Cause>, new: &Value, old: &Value) {
    let (after, before) = (new["activeDeadlineSeconds"].as_i64(), old["activeDeadlineSeconds"].as_i64());
    let field = "spec.activeDeadlineSeconds";
    match (after, before) {
        (Some(after), Some(before)) if after > before => {
            causes.push(Cause::invalid(field, &json!(after), "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            causes.push(Cause::invalid(
                field,
                &Value::Null,
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
}

fn without_changeable(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("activeDeadlineSeconds");
        fields.remove("tolerations");
        for list in ["containers", "initContainers"] {
            for container in fields.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                container.as_object_mut().map(|container| container.remove("image"));
            }
        }
    }
    spec
}

/// The fields that differ, a line each way.
pub(super) fn describe(old: &Value, new: &Value, path: &str, out: &mut String) {
    match (old, new) {
        (Value::Object(left), Value::Object(right)) => {
            let names = left.keys().chain(right.keys().filter(|name| !left.contains_key(*name)));
            names.for_each(|name| describe(&old[name], &new[name], &join(path, name), out));
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                describe(left, right, &format!("{path}[{index}]"), out);
            }
        }
        (left, right) if left != right => {
            if !left.is_null() {
                out.push_str(&format!("- \t{path}: {left}\n"));
            }
            if !right.is_null() {
                out.push_str(&format!("+ \t{path}: {right}\n"));
            }
        }
        _ => {}
    }
}
