//! Endpoints and EndpointSlices.

use std::net::IpAddr;

use serde_json::Value;

use super::metadata::unique;
use super::{each, immutable, invalid_all, join, metadata, one_of, port_number, required, text, too_many};
use crate::api::names;
use crate::api::status::Cause;

pub const ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

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
                named(&mut causes, address, "hostname", &path, names::dns1123_label);
                named(&mut causes, address, "nodeName", &path, names::dns1123_subdomain);
            }
        }
        let several = count("ports") > 1;
        for (path, port) in each(subset, "ports", &path) {
            if several && text(port, "name").is_empty() {
                causes.push(Cause::required(join(&path, "name"), ""));
            }
            named(&mut causes, port, "name", &path, names::dns1123_label);
            port_number(&mut causes, &port["port"], join(&path, "port"));
            one_of(&mut causes, port, "protocol", &path, PROTOCOLS);
            named(&mut causes, port, "appProtocol", &path, names::qualified_name);
        }
    }
    causes
}

/// Checks a field's text, if it has one.
fn named(causes: &mut Vec<Cause>, of: &Value, field: &str, path: &str, rule: fn(&str) -> Vec<String>) {
    if !text(of, field).is_empty() {
        causes.extend(invalid_all(&join(path, field), &of[field], rule(text(of, field))));
    }
}

pub fn ip(causes: &mut Vec<Cause>, address: &Value, path: String) {
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

/// How much one slice may hold (`pkg/apis/discovery/validation`).
const MOST_ENDPOINTS: usize = 1000;
const MOST_ADDRESSES: usize = 100;
const MOST_PORTS: usize = 100;
const MOST_HINTS: usize = 8;

pub fn endpoint_slice(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    if required(&mut causes, object, "addressType", "") {
        one_of(&mut causes, object, "addressType", "", &["FQDN", "IPv4", "IPv6"]);
    }
    too_many(&mut causes, object, "endpoints", "", MOST_ENDPOINTS);
    for (path, endpoint) in each(object, "endpoints", "") {
        slice_endpoint(&mut causes, text(object, "addressType"), endpoint, &path);
    }
    too_many(&mut causes, object, "ports", "", MOST_PORTS);
    let mut taken = Vec::new();
    for (path, port) in each(object, "ports", "") {
        unique(&mut causes, &mut taken, &port["name"], join(&path, "name"));
        named(&mut causes, port, "name", &path, names::dns1123_label);
        if !port["port"].is_null() {
            port_number(&mut causes, &port["port"], join(&path, "port"));
        }
        one_of(&mut causes, port, "protocol", &path, PROTOCOLS);
        named(&mut causes, port, "appProtocol", &path, names::qualified_name);
    }
    if let Some(old) = old {
        immutable(&mut causes, object, old, "addressType", "");
    }
    causes
}

fn slice_endpoint(causes: &mut Vec<Cause>, kind: &str, endpoint: &Value, path: &str) {
    if endpoint["addresses"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required(join(path, "addresses"), "must contain at least 1 address"));
    }
    too_many(causes, endpoint, "addresses", path, MOST_ADDRESSES);
    for (path, address) in each(endpoint, "addresses", path) {
        let parsed = address.as_str().and_then(|text| text.parse::<IpAddr>().ok());
        match (kind, parsed) {
            ("IPv4", parsed) if !parsed.is_some_and(|ip| ip.is_ipv4()) => {
                causes.push(Cause::invalid(path, address, "must be a valid IPv4 address"));
            }
            ("IPv6", parsed) if !parsed.is_some_and(|ip| ip.is_ipv6()) => {
                causes.push(Cause::invalid(path, address, "must be a valid IPv6 address"));
            }
            ("IPv4" | "IPv6", _) => ip(causes, address, path),
            ("FQDN", _) => {
                let name = address.as_str().unwrap_or_default();
                causes.extend(invalid_all(&path, address, names::dns1123_subdomain(name)));
            }
            _ => {}
        }
    }
    named(causes, endpoint, "hostname", path, names::dns1123_label);
    named(causes, endpoint, "nodeName", path, names::dns1123_subdomain);
    let hints = (&endpoint["hints"], join(path, "hints"));
    for field in ["forZones", "forNodes"] {
        too_many(causes, hints.0, field, &hints.1, MOST_HINTS);
        let mut taken = Vec::new();
        for (path, hint) in each(hints.0, field, &hints.1) {
            unique(causes, &mut taken, &hint["name"], join(&path, "name"));
        }
    }
}
