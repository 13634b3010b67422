use serde_json::json;

use super::config::{Config, parse};
use super::ruleset::{HealthPort, Port, Ruleset, World};
use super::table;
use crate::sys::nft::{Protocol, ServiceKey, Table};

fn config() -> Config {
    let argv = ["--hostname-override=node-1", "--cluster-cidr=10.244.0.0/16"].map(String::from).to_vec();
    Config::load(&parse(argv).unwrap()).unwrap()
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
    let node = serde_json::from_value(json!({
        "metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": "a"}},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "192.0.2.11"}, {"type": "Hostname", "address": "node-1"}]},
    }))
    .unwrap();
    let world = World { services: vec![&service], slices: vec![&slice], node: Some(&node) };
    Ruleset::new(&config(), &world)
}

pub fn ruleset_of<const N: usize>(ports: [(&str, Port); N]) -> Ruleset {
    Ruleset {
        cluster_cidr: "10.244.0.0/16".parse().ok(),
        own_pods: "10.244.1.0/24".parse().ok(),
        masquerade_all: false,
        masquerade_mark: 1 << 14,
        node_addresses: [[192, 0, 2, 11].into()].into(),
        ports: ports.into_iter().map(|(name, port)| (name.to_owned(), port)).collect(),
        health: Default::default(),
    }
}

pub fn udp_port(endpoints: &[&str]) -> Port {
    let targets = endpoints.iter().map(|text| text.parse::<std::net::SocketAddrV4>().unwrap());
    Port {
        cluster: ServiceKey { address: [10, 96, 0, 10].into(), protocol: Protocol::Udp, port: 53 },
        since: Default::default(),
        node_port: None,
        external: Default::default(),
        balancer: Default::default(),
        sources: Vec::new(),
        affinity: None,
        internal_local: false,
        external_local: false,
        endpoints: targets.map(|target| (*target.ip(), target.port())).collect(),
        local: Default::default(),
    }
}

fn addresses(ruleset: &Ruleset) -> Vec<String> {
    ruleset.ports["default/web/tcp/http"].endpoints.iter().map(|(ip, port)| format!("{ip}:{port}")).collect()
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
    assert_eq!(addresses(&ruleset(service.clone(), json!([leaving, broken]))), ["10.244.1.3:8080"]);
    assert!(addresses(&ruleset(service, json!([broken]))).is_empty(), "then the port is refused");
}

#[test]
fn headless_services_have_no_rules_and_local_policy_keeps_to_the_node() {
    assert!(ruleset(json!({"clusterIP": "None", "ports": [{"port": 80}]}), json!([])).ports.is_empty());
    let local = json!({
        "clusterIP": "10.96.0.7", "internalTrafficPolicy": "Local", "externalIPs": ["203.0.113.7"],
        "externalTrafficPolicy": "Local", "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    });
    let endpoints = json!([
        {"addresses": ["10.244.1.2"], "nodeName": "node-1"}, {"addresses": ["10.244.2.2"], "nodeName": "node-2"},
    ]);
    let ruleset = ruleset(local, endpoints);
    let port = &ruleset.ports["default/web/tcp/http"];
    assert!(port.internal_local && port.external_local && port.node_port == Some(30080));
    assert_eq!(port.local.iter().next().unwrap().0, std::net::Ipv4Addr::new(10, 244, 1, 2));
    assert_eq!((port.local.len(), port.endpoints.len()), (1, 2));
    assert_eq!(ruleset.node_addresses.len(), 1);
}

#[test]
fn a_balancers_ranges_guard_its_address_and_its_port_counts_the_pods_here() {
    let service = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.7", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 31000, "loadBalancerSourceRanges": ["198.51.100.0/24"],
        "ports": [{"name": "http", "port": 80}],
    });
    let endpoints = json!([
        {"addresses": ["10.244.1.2"], "nodeName": "node-1"},
        {"addresses": ["10.244.1.3"], "nodeName": "node-1", "conditions": {"ready": false}},
        {"addresses": ["10.244.2.2"], "nodeName": "node-2"},
    ]);
    let mut all = ruleset(service, endpoints);
    let (name, asked) = all.health.first_key_value().unwrap();
    assert_eq!((name.1.as_str(), *asked), ("web", HealthPort { port: 31000, local: 1 }));
    let unguarded = table::of(&all);
    let port = all.ports.get_mut("default/web/tcp/http").unwrap();
    assert_eq!(port.sources.len(), 1);
    port.balancer = [[203, 0, 113, 7].into()].into();
    assert_eq!(table::of(&all).distance(&unguarded), 2, "one chain, and the address that leads to it");
}

#[test]
fn an_endpoints_port_is_the_services_only_with_the_same_protocol() {
    let service =
        json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80, "protocol": "UDP"}]});
    let all = ruleset(service, json!([{"addresses": ["10.244.1.2"]}]));
    assert!(all.ports["default/web/udp/http"].endpoints.is_empty(), "the slice's port is TCP");
}

#[test]
fn of_two_that_claim_an_address_the_cluster_address_wins_and_then_the_older_one() {
    let claim = |cluster: u8, second: i64, external: [u8; 4]| {
        let mut port = udp_port(&["10.244.1.2:53"]);
        port.cluster.address = [10, 96, 0, cluster].into();
        port.since.0 = k8s_openapi::jiff::Timestamp::from_second(second).ok();
        port.external = [external.into()].into();
        port
    };
    let contested = [203, 0, 113, 7];
    let (young, old) = (claim(21, 2, contested), claim(22, 1, contested));
    let thief = claim(23, 3, [10, 96, 0, 10]);
    let all =
        ruleset_of([("a/young/udp/", young), ("b/old/udp/", old.clone()), ("a/thief/udp/", thief.clone())]);
    let with = |name: &str, port: &Port| {
        let mut only = all.clone();
        only.ports.insert(name.into(), port.clone());
        table::of(&only)
    };
    let mut unclaimed = all.clone();
    unclaimed.ports.get_mut("a/young/udp/").unwrap().external.clear();
    let served = table::of(&all);
    assert_eq!(
        table::of(&unclaimed).distance(&served),
        1,
        "only the chain of the one that has nothing of it"
    );
    let dns = udp_port(&["10.244.1.9:53"]);
    let mut harmless = thief.clone();
    harmless.external.clear();
    let (robbed, left_alone) = (with("z/dns/udp/", &dns), {
        let mut other = all.clone();
        other.ports.insert("z/dns/udp/".into(), dns.clone());
        other.ports.insert("a/thief/udp/".into(), harmless);
        table::of(&other)
    });
    assert_eq!(left_alone.distance(&robbed), 1, "only the chain of the thief, that nothing leads to");
}

#[test]
fn hints_keep_traffic_in_the_zone_only_when_every_endpoint_has_one() {
    let service = json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]});
    let near = json!({"addresses": ["10.244.1.2"], "hints": {"forZones": [{"name": "a"}]}});
    let far = json!({"addresses": ["10.244.2.2"], "hints": {"forZones": [{"name": "b"}]}});
    let silent = json!({"addresses": ["10.244.2.3"]});
    assert_eq!(addresses(&ruleset(service.clone(), json!([near, far]))), ["10.244.1.2:8080"]);
    assert_eq!(addresses(&ruleset(service.clone(), json!([near, silent]))).len(), 2);
    assert_eq!(addresses(&ruleset(service, json!([far]))).len(), 1, "nothing near: all of it");
}

fn many(changed: bool) -> Ruleset {
    let mut all = ruleset_of([]);
    for service in 0..200u8 {
        let targets: Vec<String> = (0..10).map(|at| format!("10.244.{service}.{}:80", at + 2)).collect();
        let mut port = udp_port(&targets.iter().map(String::as_str).collect::<Vec<_>>());
        port.cluster.address = [10, 97, 0, service].into();
        if changed && service == 7 {
            port.endpoints.pop_first();
        }
        all.ports.insert(format!("default/s{service}/udp/"), port);
    }
    all
}

#[test]
fn one_change_among_two_hundred_services_touches_one_chain_and_the_pairs() {
    let (before, after) = (table::of(&many(false)), table::of(&many(true)));
    assert_eq!(after.distance(&before), 2, "its chain, and the hairpin element of the endpoint that went");
    assert_eq!(before.distance(&before), 0);
}

#[test]
fn the_kernel_takes_every_kind_of_service_and_every_way_between_them() {
    crate::sys::namespace::in_private_namespaces(|| {
        let mut all = ruleset_of([]);
        let mut tables = vec![Table::default()];
        for case in 0..32u8 {
            let endpoints: &[&str] = if case & 1 == 0 { &["10.244.1.2:53", "10.244.2.2:53"] } else { &[] };
            let mut port = udp_port(endpoints);
            port.cluster.address = [10, 96, 1, case].into();
            port.local = port.endpoints.iter().take(usize::from(case >> 1 & 1)).copied().collect();
            port.affinity = (case & 4 != 0).then(|| std::time::Duration::from_secs(60));
            (port.internal_local, port.external_local) = (case & 8 != 0, case & 16 != 0);
            port.node_port = Some(30000 + u16::from(case));
            port.external = [[203, 0, 113, case].into()].into();
            if case & 2 != 0 {
                port.balancer = port.external.clone();
                port.sources = vec!["198.51.100.0/24".parse().unwrap(), "192.0.2.0/24".parse().unwrap()];
            }
            all.ports.insert(format!("default/s{case}/udp/dns"), port);
            tables.push(table::of(&all));
        }
        tables.push(table::of(&many(false)));
        tables.push(table::of(&many(true)));
        table::replace(&tables[0]).unwrap();
        for (from, to) in
            (0..tables.len()).zip(1..tables.len()).chain((1..tables.len()).zip(0..tables.len()).rev())
        {
            table::change(&tables[from], &tables[to])
                .unwrap_or_else(|error| panic!("{from} to {to}: {error:?}"));
        }
        table::remove().unwrap();
    });
}
