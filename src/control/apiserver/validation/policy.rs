//! NetworkPolicies (`pkg/apis/networking/validation`).

use ipnet::IpNet;
use serde_json::Value;

use super::{each, invalid_all, join, metadata, one_of, port_number, required, text};
use crate::api::names;
use crate::api::status::Cause;

const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

pub fn network_policy(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    metadata::selector(&mut causes, &spec["podSelector"], "spec.podSelector");
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for (path, rule) in each(spec, rules, "spec") {
            each(rule, "ports", &path).for_each(|(path, one)| port(&mut causes, one, &path));
            each(rule, peers, &path).for_each(|(path, one)| peer(&mut causes, one, &path));
        }
    }
    let types: Vec<_> = each(spec, "policyTypes", "spec").collect();
    if types.len() > 2 {
        let why = "may not specify more than two policyTypes";
        causes.push(Cause::invalid("spec.policyTypes", &spec["policyTypes"], why));
    }
    for (path, one) in types.iter().take(2) {
        if !matches!(one.as_str(), Some("Ingress" | "Egress")) {
            causes.push(Cause::unsupported(path.as_str(), one, &["Egress", "Ingress"]));
        }
    }
    causes
}

fn port(causes: &mut Vec<Cause>, port: &Value, path: &str) {
    one_of(causes, port, "protocol", path, &["SCTP", "TCP", "UDP"]);
    let (number, end) = (&port["port"], &port["endPort"]);
    let mut end_is = |why: &str| causes.push(Cause::invalid(join(path, "endPort"), end, why));
    match (number, end.is_null()) {
        (Value::Null, true) => {}
        (Value::Null, false) => end_is("may not be specified when `port` is not specified"),
        (Value::String(_), false) => end_is("may not be specified when `port` is non-numeric"),
        (Value::Number(first), false) if end.as_i64() < first.as_i64() => {
            end_is("must be greater than or equal to `port`");
        }
        _ => {}
    }
    match number.as_str() {
        Some(name) => causes.extend(invalid_all(&join(path, "port"), number, names::port_name(name))),
        None if !number.is_null() => {
            port_number(causes, number, join(path, "port"));
            if !end.is_null() {
                port_number(causes, end, join(path, "endPort"));
            }
        }
        None => {}
    }
}

fn peer(causes: &mut Vec<Cause>, peer: &Value, path: &str) {
    let (pods, namespaces, block) = (&peer["podSelector"], &peer["namespaceSelector"], &peer["ipBlock"]);
    let selects = !pods.is_null() || !namespaces.is_null();
    if !selects && block.is_null() {
        return causes.push(Cause::required(path, "must specify a peer"));
    }
    if selects && !block.is_null() {
        return causes.push(Cause::forbidden(path, "may not specify both ipBlock and another peer"));
    }
    metadata::selector(causes, pods, &join(path, "podSelector"));
    metadata::selector(causes, namespaces, &join(path, "namespaceSelector"));
    if !block.is_null() {
        ip_block(causes, block, &join(path, "ipBlock"));
    }
}

fn ip_block(causes: &mut Vec<Cause>, block: &Value, path: &str) {
    if !required(causes, block, "cidr", path) {
        return;
    }
    let Ok(outer) = text(block, "cidr").parse::<IpNet>() else {
        return causes.push(Cause::invalid(join(path, "cidr"), &block["cidr"], CIDR));
    };
    for (path, except) in each(block, "except", path) {
        match except.as_str().and_then(|text| text.parse::<IpNet>().ok()) {
            None => causes.push(Cause::invalid(path, except, CIDR)),
            Some(inner) if !outer.contains(&inner) || outer == inner => {
                causes.push(Cause::invalid(path, except, "must be a strict subset of `cidr`"));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_peers_and_ranges_are_refused_in_upstreams_words() {
        let rule = |rule: Value| {
            let object = json!({"metadata": {"name": "p", "namespace": "a"},
                "spec": {"podSelector": {}, "ingress": [rule], "policyTypes": ["Ingress"]}});
            network_policy(&object, None)
                .iter()
                .map(|one| format!("{}: {}", one.field, one.message))
                .collect::<String>()
        };
        assert_eq!(
            rule(
                json!({"ports": [{"port": 80, "endPort": 90, "protocol": "TCP"}], "from": [{"podSelector": {}}]})
            ),
            ""
        );
        for (bad, why) in [
            (json!({"from": [{}]}), "spec.ingress[0].from[0]: Required value: must specify a peer"),
            (
                json!({"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}),
                "may not specify both ipBlock and another peer",
            ),
            (json!({"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}), "must be a valid CIDR value"),
            (
                json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}),
                "must be a strict subset of `cidr`",
            ),
            (json!({"ports": [{"port": 80, "endPort": 70}]}), "must be greater than or equal to `port`"),
            (
                json!({"ports": [{"port": "web", "endPort": 70}]}),
                "may not be specified when `port` is non-numeric",
            ),
            (json!({"ports": [{"endPort": 70}]}), "may not be specified when `port` is not specified"),
        ] {
            assert!(rule(bad.clone()).contains(why), "{}", rule(bad));
        }
    }
}
