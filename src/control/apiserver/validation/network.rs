//! Services, Endpoints, EndpointSlices.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::metadata::unique;
use super::{
    duplicate, each, immutable, invalid_all, join, metadata, one_of, port_number, port_number_or_name,
    required, text,
};
use crate::api::names;
use crate::api::status::Cause;

const ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

pub fn service(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1035_label);
    let spec = &object["spec"];
    let (kind, headless) = (text(spec, "type"), spec["clusterIP"] == "None");
    one_of(&mut causes, spec, "type", "spec", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    one_of(&mut causes, spec, "sessionAffinity", "spec", &["ClientIP", "None"]);
    for field in ["internalTrafficPolicy", "externalTrafficPolicy"] {
        one_of(&mut causes, spec, field, "spec", &["Cluster", "Local"]);
    }
    if kind == "ExternalName" {
        if required(&mut causes, spec, "externalName", "spec") {
            let name = text(spec, "externalName").trim_end_matches('.');
            let reasons = names::dns1123_subdomain(name);
            causes.extend(invalid_all("spec.externalName", &spec["externalName"], reasons));
        }
    } else if !headless && spec["ports"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required("spec.ports", ""));
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        let why = format!("may not be set to 'None' for {kind} services");
        causes.push(Cause::invalid("spec.clusterIPs[0]", &json!("None"), &why));
    }
    service_ports(&mut causes, spec, kind);
    metadata::labels(&mut causes, &spec["selector"], "spec.selector");
    for (path, address) in each(spec, "externalIPs", "spec") {
        ip(&mut causes, address, path);
    }
    affinity(&mut causes, spec);
    traffic(&mut causes, spec, kind);
    if let Some(old) = old {
        cluster_ip(&mut causes, spec, &old["spec"]);
    }
    causes
}

/// The longest a client may be remembered: a day.
const LONGEST_AFFINITY: i64 = 86_400;

fn affinity(causes: &mut Vec<Cause>, spec: &Value) {
    if spec["sessionAffinity"] != "ClientIP" {
        return;
    }
    let (path, seconds) = (
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"],
    );
    if !seconds.as_i64().is_some_and(|seconds| (1..=LONGEST_AFFINITY).contains(&seconds)) {
        let why = format!("must be greater than 0 and less than {LONGEST_AFFINITY}");
        causes.push(Cause::invalid(path, seconds, &why));
    }
}

/// Policies that only make sense for some types.
fn traffic(causes: &mut Vec<Cause>, spec: &Value, kind: &str) {
    let external = matches!(kind, "NodePort" | "LoadBalancer")
        || kind == "ClusterIP" && spec["externalIPs"].as_array().is_some_and(|list| !list.is_empty());
    if !external && !text(spec, "externalTrafficPolicy").is_empty() {
        let why = "may only be set for externally-accessible services";
        causes.push(Cause::invalid("spec.externalTrafficPolicy", &spec["externalTrafficPolicy"], why));
    }
    if kind != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if !spec[field].is_null() {
                causes.push(Cause::forbidden(
                    join("spec", field),
                    "may only be used when `type` is 'LoadBalancer'",
                ));
            }
        }
    }
    let distributions = &["PreferClose", "PreferSameNode", "PreferSameZone"];
    one_of(causes, spec, "trafficDistribution", "spec", distributions);
}

fn service_ports(causes: &mut Vec<Cause>, spec: &Value, kind: &str) {
    let several = spec["ports"].as_array().is_some_and(|ports| ports.len() > 1);
    let (mut taken, mut seen) = (Vec::new(), Vec::new());
    for (path, port) in each(spec, "ports", "spec") {
        if text(port, "name").is_empty() {
            if several {
                causes.push(Cause::required(join(&path, "name"), ""));
            }
        } else {
            let reasons = names::dns1123_label(text(port, "name"));
            causes.extend(invalid_all(&join(&path, "name"), &port["name"], reasons));
            unique(causes, &mut taken, &port["name"], join(&path, "name"));
        }
        port_number(causes, &port["port"], join(&path, "port"));
        one_of(causes, port, "protocol", &path, PROTOCOLS);
        port_number_or_name(causes, &port["targetPort"], join(&path, "targetPort"));
        let node_port = port["nodePort"].as_i64().is_some_and(|number| number != 0);
        if node_port && matches!(kind, "ClusterIP" | "ExternalName") {
            let why = format!("may not be used when `type` is '{kind}'");
            causes.push(Cause::forbidden(join(&path, "nodePort"), &why));
        }
        let identity = json!({"protocol": port["protocol"], "port": port["port"]});
        if seen.contains(&identity) {
            causes.push(duplicate(path, &identity));
        }
        seen.push(identity);
    }
}

/// Once given, a cluster address stays while the service has one.
fn cluster_ip(causes: &mut Vec<Cause>, new: &Value, old: &Value) {
    let named = |spec: &Value| spec["type"] == "ExternalName";
    let before = text(old, "clusterIP");
    if named(new) || named(old) || before.is_empty() || text(new, "clusterIP") == before {
        return;
    }
    let sent =
        if new["clusterIPs"].is_array() { new["clusterIPs"].clone() } else { json!([new["clusterIP"]]) };
    causes.push(Cause::invalid("spec.clusterIPs[0]", &sent, "may not change once set"));
}

pub fn endpoints(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    for (path, subset) in each(object, "subsets", "") {
        let count = |field: &str| subset[field].as_array().map_or(0, Vec::len);
        if count("addresses") + count("notReadyAddresses") == 0 {
            causes.push(Cause::required(path.as_str(), "must specify `addresses` or `notReadyAddresses`"));
        }
        for list in ["addresses", "notReadyAddresses"] {
            for (path, address) in each(subset, list, &path) {
                ip(&mut causes, &address["ip"], join(&path, "ip"));
            }
        }
        let several = count("ports") > 1;
        for (path, port) in each(subset, "ports", &path) {
            if several && text(port, "name").is_empty() {
                causes.push(Cause::required(join(&path, "name"), ""));
            }
            port_number(&mut causes, &port["port"], join(&path, "port"));
            one_of(&mut causes, port, "protocol", &path, PROTOCOLS);
        }
    }
    causes
}

fn ip(causes: &mut Vec<Cause>, address: &Value, path: String) {
    match address.as_str().and_then(|text| text.parse::<IpAddr>().ok()) {
        None => causes.push(Cause::invalid(path, address, ADDRESS)),
        Some(ip) if ip.is_loopback() => {
            causes.push(Cause::invalid(
                path,
                address,
                "may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ));
        }
        Some(ip) if ip.is_unspecified() => {
            let why = format!("may not be unspecified ({ip})");
            causes.push(Cause::invalid(path, address, &why));
        }
        Some(IpAddr::V4(ip)) if ip.is_link_local() => {
            causes.push(Cause::invalid(
                path,
                address,
                "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
            ));
        }
        Some(IpAddr::V4(ip)) if ip.octets()[..3] == [224, 0, 0] => {
            let why = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
            causes.push(Cause::invalid(path, address, why));
        }
        Some(_) => {}
    }
}

pub fn endpoint_slice(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    if required(&mut causes, object, "addressType", "") {
        one_of(&mut causes, object, "addressType", "", &["FQDN", "IPv4", "IPv6"]);
    }
    for (path, endpoint) in each(object, "endpoints", "") {
        if endpoint["addresses"].as_array().is_none_or(Vec::is_empty) {
            causes.push(Cause::required(join(&path, "addresses"), "must contain at least 1 address"));
        }
        if object["addressType"] != "FQDN" {
            for (path, address) in each(endpoint, "addresses", &path) {
                ip(&mut causes, address, path);
            }
        }
    }
    let mut taken = Vec::new();
    for (path, port) in each(object, "ports", "") {
        unique(&mut causes, &mut taken, &port["name"], join(&path, "name"));
        if !port["port"].is_null() {
            port_number(&mut causes, &port["port"], join(&path, "port"));
        }
        one_of(&mut causes, port, "protocol", &path, PROTOCOLS);
    }
    if let Some(old) = old {
        immutable(&mut causes, object, old, "addressType", "");
    }
    causes
}
