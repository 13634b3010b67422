//! Services (`ValidateService`, `ValidateServiceUpdate`). What a Service is given is checked where it is
//! given (`addresses/`).

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::metadata::unique;
use super::network::{ADDRESS, PROTOCOLS, ip};
use super::{
    duplicate, each, invalid_all, join, metadata, one_of, port_number, port_number_or_name, required, text,
};
use crate::api::names;
use crate::api::status::Cause;

const FOR_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";
const NO_CHANGE: &str = "may not change once set";
/// The longest a client may be remembered: a day.
const LONGEST_AFFINITY: i64 = 86_400;

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
        external_name(&mut causes, spec);
    } else if !headless && spec["ports"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required("spec.ports", ""));
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        let why = format!("may not be set to 'None' for {kind} services");
        causes.push(Cause::invalid("spec.clusterIPs[0]", &json!("None"), &why));
    }
    ports(&mut causes, spec, kind);
    metadata::labels(&mut causes, &spec["selector"], "spec.selector");
    for (path, address) in each(spec, "externalIPs", "spec") {
        ip(&mut causes, address, path);
    }
    affinity(&mut causes, spec);
    if kind != "ExternalName" {
        causes.extend(address_fields(spec));
    }
    traffic(&mut causes, spec, kind);
    balancer(&mut causes, object, old);
    if let Some(old) = old {
        fixed(&mut causes, spec, &old["spec"]);
    }
    causes
}

fn external_name(causes: &mut Vec<Cause>, spec: &Value) {
    for field in ["clusterIPs", "ipFamilies"] {
        let set = spec[field].as_array().is_some_and(|list| !list.is_empty());
        if set || field == "clusterIPs" && !text(spec, "clusterIP").is_empty() {
            causes.push(Cause::forbidden(join("spec", field), "may not be set for ExternalName services"));
        }
    }
    if !spec["ipFamilyPolicy"].is_null() {
        causes.push(Cause::forbidden("spec.ipFamilyPolicy", "may not be set for ExternalName services"));
    }
    if required(causes, spec, "externalName", "spec") {
        let name = text(spec, "externalName").trim_end_matches('.');
        let reasons = names::dns1123_subdomain(name);
        causes.extend(invalid_all("spec.externalName", &spec["externalName"], reasons));
    }
}

/// `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` among themselves
/// (`ValidateServiceClusterIPsRelatedFields`).
pub fn address_fields(spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let none = Vec::new();
    let list = |field: &str| spec[field].as_array().unwrap_or(&none);
    let (own, all) = (text(spec, "clusterIP"), list("clusterIPs"));
    let all_at = |why: &str| Cause::invalid("spec.clusterIPs", &json!(all), why);
    match (own.is_empty(), all.first()) {
        (false, None) => causes.push(Cause::required("spec.clusterIPs", "")),
        (false, Some(first)) if *first != own => causes.push(all_at("first value must match `clusterIP`")),
        (true, Some(_)) => causes.push(all_at("must be empty when `clusterIP` is not specified")),
        _ => {}
    }
    let mut seen = Vec::new();
    for (path, family) in each(spec, "ipFamilies", "spec") {
        if !matches!(family.as_str(), Some("IPv4" | "IPv6")) {
            causes.push(Cause::unsupported(path.as_str(), family, &["IPv4", "IPv6"]));
        }
        if seen.contains(&family) {
            causes.push(duplicate(path, family));
        }
        seen.push(family);
    }
    let policies = &["PreferDualStack", "RequireDualStack", "SingleStack"];
    one_of(&mut causes, spec, "ipFamilyPolicy", "spec", policies);
    let parsed = addresses(&mut causes, all);
    if all.len() > 2 {
        causes.push(all_at("may only hold up to 2 values"));
    }
    let Some(parsed) = parsed else { return causes };
    if parsed.len() > 1 && (parsed.len() > 2 || parsed[0].is_ipv4() == parsed[1].is_ipv4()) {
        causes.push(all_at("may specify no more than one IP for each IP family"));
    }
    for (index, (address, family)) in parsed.iter().zip(list("ipFamilies")).enumerate() {
        if matches!(family.as_str(), Some("IPv4" | "IPv6")) && address.is_ipv4() != (family == "IPv4") {
            let family = family.as_str().unwrap_or_default();
            let why = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            causes.push(Cause::invalid(format!("spec.clusterIPs[{index}]"), &all[index], &why));
        }
    }
    causes
}

/// The addresses a Service asks for, unless one of them is none; a headless one has none.
fn addresses(causes: &mut Vec<Cause>, all: &[Value]) -> Option<Vec<IpAddr>> {
    let before = causes.len();
    if all.first().is_some_and(|first| first == "None") {
        if all.len() > 1 {
            let why = "'None' must be the first and only value";
            causes.push(Cause::invalid("spec.clusterIPs", &json!(all), why));
            return None;
        }
        return Some(Vec::new());
    }
    let parsed: Vec<Option<IpAddr>> =
        all.iter().map(|address| address.as_str().and_then(|text| text.parse().ok())).collect();
    for (index, _) in parsed.iter().enumerate().filter(|(_, parsed)| parsed.is_none()) {
        causes.push(Cause::invalid(format!("spec.clusterIPs[{index}]"), &all[index], ADDRESS));
    }
    (causes.len() == before).then(|| parsed.into_iter().flatten().collect())
}

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

/// A load balancer has to ask each node whether it has pods of the Service (`NeedsHealthCheck`).
pub fn needs_health_check(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

/// Policies that only make sense for some types.
fn traffic(causes: &mut Vec<Cause>, spec: &Value, kind: &str) {
    let external = matches!(kind, "NodePort" | "LoadBalancer")
        || kind == "ClusterIP" && spec["externalIPs"].as_array().is_some_and(|list| !list.is_empty());
    if !external && !text(spec, "externalTrafficPolicy").is_empty() {
        let why = "may only be set for externally-accessible services";
        causes.push(Cause::invalid("spec.externalTrafficPolicy", &spec["externalTrafficPolicy"], why));
    }
    let health = &spec["healthCheckNodePort"];
    if health.as_i64().is_some_and(|port| port != 0) && !needs_health_check(spec) {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        causes.push(Cause::invalid("spec.healthCheckNodePort", health, why));
    }
    let distributions = &["PreferClose", "PreferSameNode", "PreferSameZone"];
    match &spec["trafficDistribution"] {
        Value::Null => {}
        word if distributions.iter().any(|known| word == known) => {}
        word => causes.push(Cause::unsupported("spec.trafficDistribution", word, distributions)),
    }
}

/// What only load balancers have.
fn balancer(causes: &mut Vec<Cause>, object: &Value, old: Option<&Value>) {
    let spec = &object["spec"];
    let is = |spec: &Value| spec["type"] == "LoadBalancer";
    if !is(spec) && !spec["allocateLoadBalancerNodePorts"].is_null() {
        causes.push(Cause::forbidden("spec.allocateLoadBalancerNodePorts", FOR_BALANCERS));
    }
    let class = &spec["loadBalancerClass"];
    if let Some(before) = old.map(|old| &old["spec"]).filter(|old| is(old) && is(spec))
        && before["loadBalancerClass"] != *class
    {
        causes.push(Cause::invalid("spec.loadBalancerClass", class, NO_CHANGE));
    }
    match class.as_str() {
        Some(name) if is(spec) => {
            causes.extend(invalid_all("spec.loadBalancerClass", class, names::qualified_name(name)));
        }
        Some(_) => causes.push(Cause::forbidden("spec.loadBalancerClass", FOR_BALANCERS)),
        None => {}
    }
    // Upstream's path is written as the Go field is.
    let ranges = "spec.LoadBalancerSourceRanges";
    let listed = spec["loadBalancerSourceRanges"].as_array().filter(|list| !list.is_empty());
    if listed.is_some() && !is(spec) {
        causes.push(Cause::forbidden(ranges, FOR_BALANCERS));
    }
    for (index, range) in listed.into_iter().flatten().enumerate().filter(|_| is(spec)) {
        let net = range.as_str().and_then(|text| text.trim().parse::<IpNet>().ok());
        if net.is_none() {
            let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            causes.push(Cause::invalid(format!("{ranges}[{index}]"), range, why));
        }
    }
    if let Some(old) = old
        && object["status"] != old["status"]
    {
        balancer_status(causes, object);
    }
}

/// What a load balancer reports of itself (`ValidateLoadBalancerStatus`).
fn balancer_status(causes: &mut Vec<Cause>, object: &Value) {
    let path = "status.loadBalancer";
    let status = &object["status"]["loadBalancer"];
    if object["spec"]["type"] != "LoadBalancer"
        && status["ingress"].as_array().is_some_and(|list| !list.is_empty())
    {
        let why = "may only be used when `spec.type` is \"LoadBalancer\"";
        causes.push(Cause::forbidden(join(path, "ingress"), why));
        return;
    }
    for (path, ingress) in each(status, "ingress", path) {
        let has_ip = !text(ingress, "ip").is_empty();
        if has_ip && text(ingress, "ip").parse::<IpAddr>().is_err() {
            causes.push(Cause::invalid(join(&path, "ip"), &ingress["ip"], ADDRESS));
        }
        if ingress["ipMode"].is_null() {
            if has_ip {
                causes.push(Cause::required(join(&path, "ipMode"), "must be specified when `ip` is set"));
            }
        } else if !has_ip {
            let why = "may not be specified when `ip` is not set";
            causes.push(Cause::forbidden(join(&path, "ipMode"), why));
        } else {
            one_of(causes, ingress, "ipMode", &path, &["Proxy", "VIP"]);
        }
        let name = text(ingress, "hostname");
        if !name.is_empty() {
            causes.extend(invalid_all(
                &join(&path, "hostname"),
                &ingress["hostname"],
                names::dns1123_subdomain(name),
            ));
            if name.parse::<IpAddr>().is_ok() {
                let why = "must be a DNS name, not an IP address";
                causes.push(Cause::invalid(join(&path, "hostname"), &ingress["hostname"], why));
            }
        }
    }
}

fn ports(causes: &mut Vec<Cause>, spec: &Value, kind: &str) {
    let several = spec["ports"].as_array().is_some_and(|ports| ports.len() > 1);
    let (mut taken, mut seen, mut node_ports) = (Vec::new(), Vec::new(), Vec::new());
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
        if let Some(protocol) = port["appProtocol"].as_str() {
            let reasons = names::qualified_name(protocol);
            causes.extend(invalid_all(&join(&path, "appProtocol"), &port["appProtocol"], reasons));
        }
        if port["nodePort"].as_i64().is_some_and(|number| number != 0) {
            node_port(causes, &mut node_ports, &path, port, kind);
        }
        let identity = json!({"protocol": port["protocol"], "port": port["port"]});
        if seen.contains(&identity) {
            causes.push(duplicate(path, &identity));
        }
        seen.push(identity);
    }
}

fn node_port<'a>(
    causes: &mut Vec<Cause>,
    seen: &mut Vec<(&'a Value, &'a Value)>,
    path: &str,
    port: &'a Value,
    kind: &str,
) {
    let path = join(path, "nodePort");
    if matches!(kind, "ClusterIP" | "ExternalName") {
        let why = format!("may not be used when `type` is '{kind}'");
        causes.push(Cause::forbidden(path, &why));
        return;
    }
    let own = (&port["protocol"], &port["nodePort"]);
    if seen.contains(&own) {
        causes.push(duplicate(path, own.1));
    }
    seen.push(own);
}

/// Once given, an address, its family and a balancer's port stay while the service has them.
fn fixed(causes: &mut Vec<Cause>, new: &Value, old: &Value) {
    if needs_health_check(new) && needs_health_check(old) {
        super::immutable(causes, new, old, "healthCheckNodePort", "spec");
    }
    let named = |spec: &Value| spec["type"] == "ExternalName";
    let before = text(old, "clusterIP");
    if named(new) || named(old) || before.is_empty() {
        return;
    }
    if text(new, "clusterIP") != before {
        causes.push(Cause::invalid("spec.clusterIPs[0]", &new["clusterIPs"], NO_CHANGE));
    } else if before != "None" && new["ipFamilies"][0] != old["ipFamilies"][0] {
        causes.push(Cause::invalid("spec.ipFamilies[0]", &new["ipFamilies"], NO_CHANGE));
    }
}
