//! Containers: images, ports, environment, resources, probes, security.

use serde_json::{Value, json};

use super::metadata::unique;
use super::{
    each, invalid_all, join, not_found, not_negative, one_of, port_number, port_number_or_name, required,
    text,
};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::api::status::Cause;

/// What a container is checked against.
pub struct Around<'a> {
    pub volumes: &'a [String],
    pub host_network: bool,
    /// An init container that does not stay.
    pub only_starts: bool,
}

pub fn check(causes: &mut Vec<Cause>, container: &Value, path: &str, around: &Around) {
    if required(causes, container, "name", path) {
        let reasons = names::dns1123_label(text(container, "name"));
        causes.extend(invalid_all(&join(path, "name"), &container["name"], reasons));
    }
    let image = text(container, "image");
    if required(causes, container, "image", path) && image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        causes.push(Cause::invalid(join(path, "image"), &container["image"], why));
    }
    one_of(causes, container, "imagePullPolicy", path, &["Always", "IfNotPresent", "Never"]);
    one_of(causes, container, "terminationMessagePolicy", path, &["FallbackToLogsOnError", "File"]);
    ports(causes, container, path, around);
    environment(causes, container, path);
    mounts(causes, container, path, around.volumes);
    resources(causes, &container["resources"], &join(path, "resources"));
    if around.only_starts {
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container[field].is_object() {
                let why = "may not be set for init containers without restartPolicy=Always";
                causes.push(Cause::forbidden(join(path, field), why));
            }
        }
    }
    probes(causes, container, path);
    security(causes, &container["securityContext"], &join(path, "securityContext"));
}

fn ports(causes: &mut Vec<Cause>, container: &Value, path: &str, around: &Around) {
    let mut taken = Vec::new();
    for (path, port) in each(container, "ports", path) {
        if !text(port, "name").is_empty() {
            let (field, reasons) = (join(&path, "name"), names::port_name(text(port, "name")));
            if reasons.is_empty() {
                unique(causes, &mut taken, &port["name"], field);
            } else {
                causes.extend(invalid_all(&field, &port["name"], reasons));
            }
        }
        match port["containerPort"].as_i64() {
            None | Some(0) => causes.push(Cause::required(join(&path, "containerPort"), "")),
            Some(_) => port_number(causes, &port["containerPort"], join(&path, "containerPort")),
        }
        let host = &port["hostPort"];
        if host.as_i64().is_some_and(|number| number != 0) {
            port_number(causes, host, join(&path, "hostPort"));
            if around.host_network && *host != port["containerPort"] {
                causes.push(Cause::invalid(
                    join(&path, "hostPort"),
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
        }
        one_of(causes, port, "protocol", &path, &["SCTP", "TCP", "UDP"]);
    }
}

fn environment(causes: &mut Vec<Cause>, container: &Value, path: &str) {
    const SOURCES: [&str; 5] =
        ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    for (path, variable) in each(container, "env", path) {
        if required(causes, variable, "name", &path) {
            let reasons = names::env_name(text(variable, "name"));
            causes.extend(invalid_all(&join(&path, "name"), &variable["name"], reasons));
        }
        let (from, path) = (&variable["valueFrom"], join(&path, "valueFrom"));
        if !from.is_object() {
            continue;
        }
        let set = SOURCES.iter().filter(|source| from[**source].is_object()).count();
        if set == 0 {
            let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            causes.push(Cause::invalid(path.as_str(), &json!(""), why));
        } else if !text(variable, "value").is_empty() {
            causes.push(Cause::invalid(
                path.as_str(),
                &json!(""),
                "may not be specified when `value` is not empty",
            ));
        } else if set > 1 {
            causes.push(Cause::invalid(
                path.as_str(),
                &json!(""),
                "may not have more than one field specified at a time",
            ));
        }
        for source in
            ["configMapKeyRef", "secretKeyRef"].into_iter().filter(|source| from[*source].is_object())
        {
            required(causes, &from[source], "name", &join(&path, source));
            required(causes, &from[source], "key", &join(&path, source));
        }
        if from["fieldRef"].is_object() {
            required(causes, &from["fieldRef"], "fieldPath", &join(&path, "fieldRef"));
        }
    }
    for (path, from) in each(container, "envFrom", path) {
        match (from["configMapRef"].is_object(), from["secretRef"].is_object()) {
            (false, false) => {
                let why = "must specify one of: `configMapRef` or `secretRef`";
                causes.push(Cause::invalid(path, &json!(""), why));
            }
            (true, true) => {
                let why = "may not have more than one field specified at a time";
                causes.push(Cause::invalid(path, &json!(""), why));
            }
            _ => {}
        }
    }
}

fn mounts(causes: &mut Vec<Cause>, container: &Value, path: &str, volumes: &[String]) {
    let mut places = Vec::new();
    for (path, mount) in each(container, "volumeMounts", path) {
        if required(causes, mount, "name", &path)
            && !volumes.iter().any(|volume| volume == text(mount, "name"))
        {
            causes.push(not_found(join(&path, "name"), &mount["name"]));
        }
        if required(causes, mount, "mountPath", &path) {
            let place = text(mount, "mountPath");
            if places.contains(&place) {
                causes.push(Cause::invalid(join(&path, "mountPath"), &mount["mountPath"], "must be unique"));
            }
            places.push(place);
        }
        for field in ["subPath", "subPathExpr"] {
            let below = text(mount, field);
            if below.starts_with('/') {
                causes.push(Cause::invalid(join(&path, field), &mount[field], "must be a relative path"));
            }
            if below.split('/').any(|part| part == "..") {
                causes.push(Cause::invalid(join(&path, field), &mount[field], "must not contain '..'"));
            }
        }
    }
}

/// Amounts parse, are not negative, and no request is above its limit.
pub fn resources(causes: &mut Vec<Cause>, resources: &Value, path: &str) {
    for side in ["limits", "requests"] {
        for (name, amount) in resources[side].as_object().into_iter().flatten() {
            let field = format!("{path}.{side}[{name}]");
            let standard = ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str());
            if !standard && !name.contains('/') && !name.starts_with("hugepages-") {
                let why = "must be a standard resource type or fully qualified";
                causes.push(Cause::invalid(field.clone(), &json!(name), why));
                let why = "must be a standard resource for containers";
                causes.push(Cause::invalid(field.clone(), &json!(name), why));
            }
            match Quantity::parse(amount.as_str().unwrap_or_default()) {
                Err(error) => causes.push(Cause::invalid(field, amount, &error.to_string())),
                Ok(quantity) if quantity.is_negative() => {
                    causes.push(Cause::invalid(field, amount, "must be greater than or equal to 0"));
                }
                Ok(_) => {}
            }
        }
    }
    for (name, limit) in resources["limits"].as_object().into_iter().flatten() {
        let request = &resources["requests"][name];
        let parse = |amount: &Value| amount.as_str().and_then(|text| Quantity::parse(text).ok());
        if let (Some(most), Some(asked)) = (parse(limit), parse(request))
            && asked > most
        {
            let why = format!("must be less than or equal to {name} limit of {most}");
            causes.push(Cause::invalid(format!("{path}.requests"), request, &why));
        }
    }
}

const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];

fn probes(causes: &mut Vec<Cause>, container: &Value, path: &str) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let (probe, path) = (&container[name], join(path, name));
        if !probe.is_object() {
            continue;
        }
        handler(causes, probe, &path, &HANDLERS);
        for field in
            ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            not_negative(causes, probe, field, &path);
        }
        if name != "readinessProbe" && probe["successThreshold"].as_i64().is_some_and(|number| number > 1) {
            causes.push(Cause::invalid(
                join(&path, "successThreshold"),
                &probe["successThreshold"],
                "must be 1",
            ));
        }
        if probe["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds <= 0) {
            let field = join(&path, "terminationGracePeriodSeconds");
            causes.push(Cause::invalid(
                field,
                &probe["terminationGracePeriodSeconds"],
                "must be greater than 0",
            ));
        }
    }
    for hook in ["postStart", "preStop"] {
        let (hook_value, path) = (&container["lifecycle"][hook], format!("{path}.lifecycle.{hook}"));
        if hook_value.is_object() {
            handler(causes, hook_value, &path, &["exec", "httpGet", "tcpSocket", "sleep"]);
        }
    }
}

/// Exactly one way to ask.
fn handler(causes: &mut Vec<Cause>, of: &Value, path: &str, known: &[&str]) {
    let mut set = known.iter().filter(|name| of[**name].is_object());
    if set.next().is_none() {
        causes.push(Cause::required(path, "must specify a handler type"));
    }
    for extra in set {
        causes.push(Cause::forbidden(join(path, extra), "may not specify more than 1 handler type"));
    }
    if of["exec"].is_object() && of["exec"]["command"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required(format!("{path}.exec.command"), ""));
    }
    for action in ["httpGet", "tcpSocket"].into_iter().filter(|action| of[*action].is_object()) {
        port_number_or_name(causes, &of[action]["port"], format!("{path}.{action}.port"));
    }
    one_of(causes, &of["httpGet"], "scheme", &format!("{path}.httpGet"), &["HTTP", "HTTPS"]);
}

fn security(causes: &mut Vec<Cause>, context: &Value, path: &str) {
    ids(causes, context, path, &["runAsUser", "runAsGroup"]);
    if context["allowPrivilegeEscalation"] == false {
        if context["privileged"] == true {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            causes.push(Cause::invalid(path, context, why));
        }
        let added = context["capabilities"]["add"].as_array().into_iter().flatten();
        if added.into_iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            causes.push(Cause::invalid(path, context, why));
        }
    }
    one_of(causes, context, "procMount", path, &["Default", "Unmasked"]);
}

/// User and group ids.
pub fn ids(causes: &mut Vec<Cause>, context: &Value, path: &str, fields: &[&str]) {
    for field in fields {
        if context[*field].as_i64().is_some_and(|id| !(0..=i64::from(i32::MAX)).contains(&id)) {
            let why = "must be between 0 and 2147483647, inclusive";
            causes.push(Cause::invalid(join(path, field), &context[*field], why));
        }
    }
}
