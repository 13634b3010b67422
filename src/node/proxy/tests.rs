use serde_json::json;

use super::config::{Config, parse};
use super::ruleset::Ruleset;
use crate::sys::nft::{Protocol, ServiceKey};

fn config() -> Config {
    let argv = ["--hostname-override=node-1", "--cluster-cidr=10.244.0.0/16"].map(String::from).to_vec();
    Config::load(&parse(argv)).unwrap()
}

fn ruleset(service: serde_json::Value, endpoints: serde_json::Value) -> Ruleset {
    let service = serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": "web"}, "spec": service,
    }))
    .unwrap();
    let slice = serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints,
    }))
    .unwrap();
    Ruleset::new(&config(), [&service].into_iter(), [&slice].into_iter())
}

fn web() -> ServiceKey {
    ServiceKey { address: [10, 96, 0, 7].into(), protocol: Protocol::Tcp, port: 80 }
}

fn addresses(ruleset: &Ruleset) -> Vec<String> {
    ruleset.ports[&web()].endpoints.iter().map(|(ip, port)| format!("{ip}:{port}")).collect()
}

#[test]
fn only_ready_endpoints_are_served_and_terminating_ones_when_nothing_else_is_left() {
    let service = json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]});
    let ready = json!({"addresses": ["10.244.1.2"], "conditions": {"ready": true}});
    let leaving = json!({
        "addresses": ["10.244.1.3"], "conditions": {"ready": false, "serving": true, "terminating": true},
    });
    let broken = json!({"addresses": ["10.244.1.4"], "conditions": {"ready": false, "serving": false}});
    let all = ruleset(service.clone(), json!([ready, leaving, broken]));
    assert_eq!(addresses(&all), ["10.244.1.2:8080"]);
    assert_eq!(all.ports[&web()].name, "default/web/tcp/http");
    assert_eq!(addresses(&ruleset(service.clone(), json!([leaving, broken]))), ["10.244.1.3:8080"]);
    assert!(addresses(&ruleset(service, json!([broken]))).is_empty(), "then the port is refused");
}

#[test]
fn headless_services_have_no_rules_and_local_policy_keeps_to_the_node() {
    assert!(ruleset(json!({"clusterIP": "None", "ports": [{"port": 80}]}), json!([])).ports.is_empty());
    let local = json!({
        "clusterIP": "10.96.0.7", "internalTrafficPolicy": "Local", "ports": [{"name": "http", "port": 80}],
    });
    let endpoints = json!([
        {"addresses": ["10.244.1.2"], "nodeName": "node-1"}, {"addresses": ["10.244.2.2"], "nodeName": "node-2"},
    ]);
    assert_eq!(addresses(&ruleset(local, endpoints)), ["10.244.1.2:8080"]);
}
