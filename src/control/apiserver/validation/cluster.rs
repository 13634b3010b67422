//! Namespaces, Nodes, Events, Leases, CertificateSigningRequests, PriorityClasses.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{duplicate, each, immutable, invalid_all, join, metadata, one_of, required, text};
use crate::api::names;
use crate::api::status::Cause;

pub fn namespace(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    metadata::check(object, old, names::dns1123_label)
}

pub fn node(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    let mut seen = Vec::new();
    for (path, taint) in each(spec, "taints", "spec") {
        let reasons = names::qualified_name(text(taint, "key"));
        causes.extend(invalid_all(&join(&path, "key"), &taint["key"], reasons));
        let reasons = names::label_value(text(taint, "value"));
        causes.extend(invalid_all(&join(&path, "value"), &taint["value"], reasons));
        if required(&mut causes, taint, "effect", &path) {
            one_of(&mut causes, taint, "effect", &path, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
        let identity = (text(taint, "key"), text(taint, "effect"));
        if seen.contains(&identity) {
            causes.push(duplicate(path, taint));
        }
        seen.push(identity);
    }
    let Some(old) = old else { return causes };
    let before = &old["spec"];
    if !text(before, "podCIDR").is_empty() && spec["podCIDR"] != before["podCIDR"] {
        let why = "node updates may not change podCIDR except from \"\" to valid";
        causes.push(Cause::forbidden("spec.podCIDRs", why));
    }
    if !text(before, "providerID").is_empty() && spec["providerID"] != before["providerID"] {
        let why = "node updates may not change providerID except from \"\" to valid";
        causes.push(Cause::forbidden("spec.providerID", why));
    }
    causes
}

pub fn event(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let (about, own) = (text(&object["involvedObject"], "namespace"), text(&object["metadata"], "namespace"));
    // Events about cluster-scoped objects live in default.
    if about != own && !(about.is_empty() && matches!(own, "default" | "kube-system")) {
        let field = "involvedObject.namespace";
        causes.push(Cause::invalid(field, &json!(about), "does not match event.namespace"));
    }
    causes
}

pub fn lease(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|seconds| seconds <= 0) {
        let field = "spec.leaseDurationSeconds";
        causes.push(Cause::invalid(field, &spec["leaseDurationSeconds"], "must be greater than 0"));
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|count| count < 0) {
        let field = "spec.leaseTransitions";
        causes.push(Cause::invalid(field, &spec["leaseTransitions"], "must be greater than or equal to 0"));
    }
    causes
}

pub fn signing_request(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::path_segment);
    if let Some(old) = old {
        immutable(&mut causes, object, old, "spec", "");
        verdicts(&mut causes, object, old);
        return causes;
    }
    let spec = &object["spec"];
    let pem = STANDARD.decode(text(spec, "request")).unwrap_or_default();
    if !pem.windows(30).any(|window| window == b"-----BEGIN CERTIFICATE REQUEST") {
        let why = "PEM block type must be CERTIFICATE REQUEST";
        causes.push(Cause::invalid("spec.request", &spec["request"], why));
    }
    if spec["usages"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required("spec.usages", ""));
    }
    let signer = text(spec, "signerName");
    if required(&mut causes, spec, "signerName", "spec") {
        match signer.split_once('/') {
            Some((domain, rest)) if !rest.is_empty() && !rest.contains('/') => {
                causes.extend(invalid_all(
                    "spec.signerName",
                    &spec["signerName"],
                    names::dns1123_subdomain(domain),
                ));
            }
            _ => {
                let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
                causes.push(Cause::invalid("spec.signerName", &spec["signerName"], why));
            }
        }
    }
    if signer == "kubernetes.io/legacy-unknown" {
        let why = "the legacy signerName is not allowed via this API version";
        causes.push(Cause::invalid("spec.signerName", &spec["signerName"], why));
    }
    if spec["expirationSeconds"].as_i64().is_some_and(|seconds| seconds < 600) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        causes.push(Cause::invalid("spec.expirationSeconds", &spec["expirationSeconds"], why));
    }
    causes
}

/// A verdict is True, of one kind, and stays; so does a certificate once it is issued.
fn verdicts(causes: &mut Vec<Cause>, object: &Value, old: &Value) {
    let of = |request: &Value, kind: &str| {
        let all = request["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|condition| condition["type"] == kind)
    };
    for (path, condition) in each(&object["status"], "conditions", "status") {
        let (kind, status) = (text(condition, "type"), &condition["status"]);
        if matches!(kind, "Approved" | "Denied" | "Failed") && *status != "True" {
            causes.push(Cause::unsupported(join(&path, "status"), status, &["True"]));
        }
    }
    if of(object, "Approved").is_some() && of(object, "Denied").is_some() {
        let why = "Approved and Denied conditions are mutually exclusive";
        causes.push(Cause::invalid("status.conditions", &object["status"]["conditions"], why));
    }
    for kind in ["Approved", "Denied", "Failed"] {
        if of(old, kind).is_some() && of(object, kind).is_none() {
            let why = format!("updates may not remove a condition of type {kind:?}");
            causes.push(Cause::forbidden("status.conditions", &why));
        }
    }
    let certificate =
        |request: &Value| request["status"]["certificate"].as_str().unwrap_or_default().to_owned();
    if !certificate(old).is_empty() && certificate(old) != certificate(object) {
        causes.push(Cause::forbidden(
            "status.certificate",
            "updates may not modify existing certificate content",
        ));
    }
}

pub fn priority_class(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    one_of(&mut causes, object, "preemptionPolicy", "", &["Never", "PreemptLowerPriority"]);
    if let Some(old) = old {
        for field in ["value", "preemptionPolicy"] {
            if object[field] != old[field] {
                causes.push(Cause::forbidden(field, "may not be changed in an update."));
            }
        }
    }
    causes
}
