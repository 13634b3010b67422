//! Ingresses and their classes, ServiceCIDRs, IPAddresses (`pkg/apis/networking/validation`).

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::{each, immutable, invalid_all, join, metadata, port_number, required, text};
use crate::api::names;
use crate::api::status::Cause;

pub fn ingress(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    let rules = spec["rules"].as_array().is_some_and(|rules| !rules.is_empty());
    if !rules && spec["defaultBackend"].is_null() {
        let why = "either `defaultBackend` or `rules` must be specified";
        let none = Value::Array(Vec::new());
        causes.push(Cause::invalid("spec", &none, why));
    }
    if spec["defaultBackend"].is_object() {
        backend(&mut causes, &spec["defaultBackend"], "spec.defaultBackend");
    }
    for (path, rule) in each(spec, "rules", "spec") {
        host(&mut causes, rule, &path);
        if rule["http"].is_object() {
            paths(&mut causes, &rule["http"], &join(&path, "http"));
        }
    }
    for (path, one) in each(spec, "tls", "spec") {
        for (path, host) in each(one, "hosts", &path) {
            causes.extend(invalid_all(&path, host, dns_name(host.as_str().unwrap_or_default())));
        }
    }
    let class = text(spec, "ingressClassName");
    if !class.is_empty() {
        let reasons = names::dns1123_subdomain(class);
        causes.extend(invalid_all("spec.ingressClassName", &spec["ingressClassName"], reasons));
    }
    causes
}

fn dns_name(host: &str) -> Vec<String> {
    match host.strip_prefix("*.") {
        Some(rest) => names::dns1123_subdomain(rest),
        None => names::dns1123_subdomain(host),
    }
}

fn host(causes: &mut Vec<Cause>, rule: &Value, path: &str) {
    let (host, path) = (text(rule, "host"), join(path, "host"));
    if host.is_empty() {
        return;
    }
    if host.parse::<IpAddr>().is_ok() {
        causes.push(Cause::invalid(path.as_str(), &rule["host"], "must be a DNS name, not an IP address"));
    }
    causes.extend(invalid_all(&path, &rule["host"], dns_name(host)));
}

fn paths(causes: &mut Vec<Cause>, http: &Value, path: &str) {
    if http["paths"].as_array().is_none_or(Vec::is_empty) {
        return causes.push(Cause::required(join(path, "paths"), ""));
    }
    for (path, one) in each(http, "paths", path) {
        let own = text(one, "path");
        match text(one, "pathType") {
            "" => causes.push(Cause::required(join(&path, "pathType"), "pathType must be specified")),
            "Exact" | "Prefix" if !own.starts_with('/') => {
                causes.push(Cause::invalid(join(&path, "path"), &one["path"], "must be an absolute path"));
            }
            "Exact" | "Prefix" => bad_parts(causes, one, own, &path),
            "ImplementationSpecific" if !own.is_empty() && !own.starts_with('/') => {
                causes.push(Cause::invalid(join(&path, "path"), &one["path"], "must be an absolute path"));
            }
            "ImplementationSpecific" => {}
            _ => {
                let known = ["Exact", "ImplementationSpecific", "Prefix"];
                causes.push(Cause::unsupported(join(&path, "pathType"), &one["pathType"], &known));
            }
        }
        backend(causes, &one["backend"], &join(&path, "backend"));
    }
}

fn bad_parts(causes: &mut Vec<Cause>, one: &Value, own: &str, path: &str) {
    let field = join(path, "path");
    for part in ["//", "/./", "/../", "%2f", "%2F"] {
        if own.contains(part) {
            causes.push(Cause::invalid(field.as_str(), &one["path"], &format!("must not contain '{part}'")));
        }
    }
    for end in ["/..", "/."] {
        if own.ends_with(end) {
            causes.push(Cause::invalid(field.as_str(), &one["path"], &format!("cannot end with '{end}'")));
        }
    }
}

fn backend(causes: &mut Vec<Cause>, backend: &Value, path: &str) {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    match (service.is_object(), resource.is_object()) {
        (true, true) => {
            let why = "cannot set both resource and service backends";
            return causes.push(Cause::invalid(path, &Value::from(""), why));
        }
        (false, false) => {
            let why = "resource or service backend is required";
            return causes.push(Cause::required(path, why));
        }
        (false, true) => {
            for field in ["kind", "name"] {
                required(causes, resource, field, &join(path, "resource"));
            }
            return;
        }
        (true, false) => {}
    }
    let path = join(path, "service");
    if required(causes, service, "name", &path) {
        let reasons = names::dns1035_label(text(service, "name"));
        causes.extend(invalid_all(&join(&path, "name"), &service["name"], reasons));
    }
    let (port, path) = (&service["port"], join(&path, "port"));
    let (name, number) = (text(port, "name"), &port["number"]);
    let numbered = number.as_i64().is_some_and(|number| number != 0);
    match (name.is_empty(), numbered) {
        (false, true) => {
            causes.push(Cause::invalid(path, port, "cannot set both port name & port number"));
        }
        (true, false) => causes.push(Cause::required(path, "port name or number is required")),
        (false, false) => {
            causes.extend(invalid_all(&join(&path, "name"), &port["name"], names::port_name(name)));
        }
        (true, true) => port_number(causes, number, join(&path, "number")),
    }
}

pub fn class(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    let controller = text(spec, "controller");
    let prefixed = controller
        .split_once('/')
        .is_some_and(|(domain, path)| names::dns1123_subdomain(domain).is_empty() && !path.is_empty());
    if required(&mut causes, spec, "controller", "spec") && !prefixed {
        let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        causes.push(Cause::invalid("spec.controller", &spec["controller"], why));
    }
    if let Some(old) = old {
        immutable(&mut causes, spec, &old["spec"], "controller", "spec");
    }
    causes
}

pub fn service_cidr(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    let cidrs: Vec<_> = each(spec, "cidrs", "spec").collect();
    if cidrs.is_empty() {
        causes.push(Cause::required("spec.cidrs", "at least one CIDR required"));
    }
    if cidrs.len() > 2 {
        causes.push(Cause::invalid("spec.cidrs", &spec["cidrs"], "may only hold up to 2 values"));
    }
    for (path, one) in cidrs {
        let known = one.as_str().and_then(|text| text.parse::<IpNet>().ok());
        if known.is_none_or(|net| net.trunc() != net) {
            let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            causes.push(Cause::invalid(path, one, why));
        }
    }
    if let Some(old) = old {
        immutable(&mut causes, spec, &old["spec"], "cidrs", "spec");
    }
    causes
}

pub fn ip_address(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let canonical = |name: &str| match name.parse::<IpAddr>() {
        Ok(address) if address.to_string() == name => Vec::new(),
        _ => vec!["must be a valid IP address in canonical form (RFC 5952)".to_owned()],
    };
    let mut causes = metadata::check(object, old, canonical);
    let (spec, path) = (&object["spec"], "spec.parentRef");
    if spec["parentRef"].is_null() {
        causes.push(Cause::required(path, ""));
    } else {
        required(&mut causes, &spec["parentRef"], "resource", path);
        required(&mut causes, &spec["parentRef"], "name", path);
    }
    if let Some(old) = old {
        immutable(&mut causes, spec, &old["spec"], "parentRef", "spec");
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_ingress_says_where_to_and_how_paths_are_meant() {
        let wrong = |spec: Value| {
            let object = json!({"metadata": {"name": "web", "namespace": "a"}, "spec": spec});
            let causes = ingress(&object, None);
            causes.iter().map(|one| format!("{}: {}", one.field, one.message)).collect::<Vec<_>>()
        };
        let rule = |path: Value| json!({"rules": [{"host": "a.example", "http": {"paths": [path]}}]});
        let good = json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}});
        assert_eq!(wrong(rule(good)), [""; 0]);
        assert_eq!(
            wrong(rule(json!({"path": "x", "backend": {"service": {"name": "web"}}}))),
            [
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
                "spec.rules[0].http.paths[0].backend.service.port: Required value: port name or number is required",
            ]
        );
        assert!(wrong(json!({}))[0].ends_with("either `defaultBackend` or `rules` must be specified"));
    }
}
