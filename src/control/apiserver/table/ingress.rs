//! Tables of Ingresses, their classes, ServiceCIDRs and IPAddresses.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{self, AGE, NAME, items, none_if_empty, or_none, string, text};
use crate::control::apiserver::registry::Column;

pub const INGRESS: &[Column] = &[
    NAME,
    text("Class", "The name of the IngressClass resource that should be used for additional configuration"),
    text("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
    text("Address", "Address is a list containing ingress points for the load-balancer"),
    text("Ports", "Ports of TLS configurations that open"),
    AGE,
];

pub fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let hosts: Vec<String> = items(object, "/spec/rules")
        .iter()
        .map(|rule| string(rule, "/host").to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    let points =
        items(object, "/status/loadBalancer/ingress").iter().map(|point| match string(point, "/ip") {
            "" => string(point, "/hostname"),
            ip => ip,
        });
    let ports = if items(object, "/spec/tls").is_empty() { "80" } else { "80, 443" };
    vec![
        cells::name(object),
        or_none(object, "/spec/ingressClassName"),
        cells::at_most(&hosts, 3, "*"),
        points.filter(|point| !point.is_empty()).collect::<Vec<_>>().join(",").into(),
        ports.into(),
        cells::age(object, now),
    ]
}

pub const CLASS: &[Column] = &[
    NAME,
    text("Controller", "Controller that is responsible for handling this class"),
    text("Parameters", "A reference to a resource with additional parameters"),
    AGE,
];

pub fn class(object: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = match &object["spec"]["parameters"] {
        Value::Object(_) => {
            let of = |field: &str| string(object, &format!("/spec/parameters/{field}"));
            let kind = match of("apiGroup") {
                "" => of("kind").to_owned(),
                group => format!("{}.{group}", of("kind")),
            };
            format!("{kind}/{}", of("name"))
        }
        _ => String::new(),
    };
    vec![
        cells::name(object),
        string(object, "/spec/controller").into(),
        none_if_empty(&parameters),
        cells::age(object, now),
    ]
}

pub const SERVICE_CIDR: &[Column] =
    &[NAME, text("CIDRs", "The list of CIDRs from which Service ClusterIPs are assigned."), AGE];

pub fn service_cidr(object: &Value, now: Timestamp) -> Vec<Value> {
    let cidrs: Vec<&str> = items(object, "/spec/cidrs").iter().filter_map(Value::as_str).collect();
    vec![cells::name(object), cidrs.join(",").into(), cells::age(object, now)]
}

pub const IP_ADDRESS: &[Column] = &[NAME, text("ParentRef", "The object that has the IP address."), AGE];

pub fn ip_address(object: &Value, now: Timestamp) -> Vec<Value> {
    let of = |field: &str| string(object, &format!("/spec/parentRef/{field}"));
    let resource = match of("group") {
        "" => of("resource").to_owned(),
        group => format!("{}.{group}", of("resource")),
    };
    let name = match of("namespace") {
        "" => of("name").to_owned(),
        namespace => format!("{namespace}/{}", of("name")),
    };
    vec![cells::name(object), format!("{resource}/{name}").into(), cells::age(object, now)]
}
