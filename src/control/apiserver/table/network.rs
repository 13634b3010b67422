//! Tables of Services, Endpoints, EndpointSlices and NetworkPolicies.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{self, AGE, NAME, at_most, items, number, string, text, wide};
use crate::control::apiserver::registry::Column;

pub const SERVICE: &[Column] = &[
    NAME,
    text("Type", "type determines how the Service is exposed. Defaults to ClusterIP."),
    text("Cluster-IP", "clusterIP is the IP address of the service and is usually assigned randomly."),
    text(
        "External-IP",
        "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.",
    ),
    text("Port(s)", "The list of ports that are exposed by this service."),
    AGE,
    wide("Selector", "Route service traffic to pods with label keys and values matching this selector."),
];

pub fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let cluster_ip = match string(object, "/spec/clusterIPs/0") {
        "" => cells::or_none(object, "/spec/clusterIP"),
        ip => ip.into(),
    };
    let ports: Vec<String> = items(object, "/spec/ports").iter().map(port).collect();
    vec![
        cells::name(object),
        string(object, "/spec/type").into(),
        cluster_ip,
        external_ip(object),
        cells::none_if_empty(&ports.join(",")),
        cells::age(object, now),
        cells::labels(object, "/spec/selector"),
    ]
}

fn port(port: &Value) -> String {
    let (number_of, protocol) = (number(port, "/port"), string(port, "/protocol"));
    match number(port, "/nodePort") {
        0 => format!("{number_of}/{protocol}"),
        node_port => format!("{number_of}:{node_port}/{protocol}"),
    }
}

fn external_ip(service: &Value) -> Value {
    let own: Vec<&str> = items(service, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match string(service, "/spec/type") {
        "ExternalName" => string(service, "/spec/externalName").into(),
        "LoadBalancer" => {
            let ingress = items(service, "/status/loadBalancer/ingress").iter();
            let mut all: Vec<&str> = ingress
                .map(|one| {
                    if string(one, "/ip").is_empty() { string(one, "/hostname") } else { string(one, "/ip") }
                })
                .collect();
            all.extend(own);
            if all.is_empty() { "<pending>".into() } else { all.join(",").into() }
        }
        _ => cells::none_if_empty(&own.join(",")),
    }
}

pub const ENDPOINTS: &[Column] =
    &[NAME, text("Endpoints", "The set of all endpoints is the union of all subsets."), AGE];

pub fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in items(object, "/subsets") {
        let ports = items(subset, "/ports");
        for address in items(subset, "/addresses") {
            let ip = string(address, "/ip");
            match ports {
                [] => all.push(ip.to_owned()),
                _ => all.extend(ports.iter().map(|port| host_port(ip, number(port, "/port")))),
            }
        }
    }
    vec![cells::name(object), at_most(&all, 3, "<none>"), cells::age(object, now)]
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    text("AddressType", "addressType specifies the type of address carried by this EndpointSlice."),
    text("Ports", "ports specifies the list of network ports exposed by each endpoint in this slice."),
    text("Endpoints", "endpoints is a list of unique endpoints in this slice."),
    AGE,
];

pub fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = items(object, "/ports")
        .iter()
        .map(|port| match (number(port, "/port"), string(port, "/name")) {
            (0, "") => "*".to_owned(),
            (0, name) => name.to_owned(),
            (number, _) => number.to_string(),
        })
        .collect();
    let addresses = items(object, "/endpoints").iter().flat_map(|endpoint| items(endpoint, "/addresses"));
    let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
    vec![
        cells::name(object),
        string(object, "/addressType").into(),
        at_most(&ports, 3, "<unset>"),
        at_most(&addresses, 3, "<unset>"),
        cells::age(object, now),
    ]
}

pub const NETWORK_POLICY: &[Column] = &[
    NAME,
    text(
        "Pod-Selector",
        "podSelector selects the pods to which this NetworkPolicy object applies. The array of rules is applied to any pods selected by this field. An empty selector matches all pods in the policy's namespace.",
    ),
    AGE,
];

pub fn network_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cells::name(object), cells::selector(object, "/spec/podSelector"), cells::age(object, now)]
}
