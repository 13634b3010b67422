//! What the cluster's names lead to: the `kubernetes` plugin's lookups, pure (the DNS specification of
//! Kubernetes, and CoreDNS' `plugin/kubernetes`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::corefile::{Kubernetes, Pods, is_below};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const REVERSE: &str = "in-addr.arpa";
/// The version of the specification, answered as TXT at `dns-version`.
const VERSION: &str = "1.1.0";

/// One record's contents; names without the trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    A(Ipv4Addr),
    Srv {
        port: u16,
        target: String,
        address: Ipv4Addr,
    },
    Ptr(String),
    Cname(String),
    Txt(&'static str),
    /// A server of the zone, with its address if it has one in the cluster.
    Ns {
        name: String,
        address: Option<Ipv4Addr>,
    },
}

/// What a question finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Records(Vec<Data>),
    /// The name is there and has no record of the type.
    NoData,
    NoName,
    /// Not in these zones, or left to the next plugin.
    Elsewhere,
}

/// The types that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    A,
    Srv,
    Ptr,
    Txt,
    Ns,
    Cname,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Cluster(Ipv4Addr),
    Headless,
    External(String),
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    ports: Vec<Port>,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    name: String,
    protocol: String,
    number: u16,
}

#[derive(Debug)]
struct Endpoint {
    label: String,
    address: Ipv4Addr,
    ports: Vec<Port>,
}

/// Everything names lead to, ready for questions.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: BTreeSet<String>,
    services: BTreeMap<(String, String), Entry>,
    cluster_addresses: BTreeMap<Ipv4Addr, (String, String)>,
    endpoint_addresses: BTreeMap<Ipv4Addr, BTreeSet<String>>,
    pods: BTreeSet<(String, Ipv4Addr)>,
}

impl Index {
    pub fn new<'a>(
        namespaces: impl Iterator<Item = &'a Namespace>,
        services: impl Iterator<Item = &'a Service>,
        slices: impl Iterator<Item = &'a EndpointSlice>,
        pods: impl Iterator<Item = &'a Pod>,
    ) -> Self {
        let mut index = Self::default();
        index.namespaces.extend(namespaces.filter_map(|one| one.metadata.name.clone()));
        for service in services {
            let (Some(namespace), Some(name)) = (&service.metadata.namespace, &service.metadata.name) else {
                continue;
            };
            if let Some(entry) = entry(service) {
                if let Kind::Cluster(address) = entry.kind {
                    index.cluster_addresses.insert(address, (namespace.clone(), name.clone()));
                }
                index.services.insert((namespace.clone(), name.clone()), entry);
            }
        }
        slices.for_each(|slice| index.take_slice(slice));
        index.pods.extend(pods.filter_map(|pod| {
            let address = pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()?;
            Some((pod.metadata.namespace.clone()?, address))
        }));
        index
    }

    fn take_slice(&mut self, slice: &EndpointSlice) {
        let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        let (Some(namespace), Some(name)) = (&slice.metadata.namespace, name) else { return };
        let key = (namespace.clone(), name.clone());
        let Some(entry) = self.services.get_mut(&key).filter(|_| slice.address_type == "IPv4") else {
            return;
        };
        let ports: Vec<Port> = slice
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                Some(Port {
                    name: port.name.clone().unwrap_or_default(),
                    protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
                    number: u16::try_from(port.port?).ok()?,
                })
            })
            .collect();
        for endpoint in slice.endpoints.iter().flatten() {
            if endpoint.conditions.as_ref().and_then(|is| is.ready) == Some(false) {
                continue;
            }
            for address in endpoint.addresses.iter().filter_map(|ip| ip.parse::<Ipv4Addr>().ok()) {
                let own = endpoint.hostname.clone().filter(|name| !name.is_empty());
                let label = own.unwrap_or_else(|| address.to_string().replace('.', "-"));
                let name = format!("{label}.{}.{}.svc", key.1, key.0);
                self.endpoint_addresses.entry(address).or_default().insert(name);
                entry.endpoints.push(Endpoint { label, address, ports: ports.clone() });
            }
        }
    }

    /// Answers one question about a lower-case name without its trailing dot.
    pub fn find(&self, plugin: &Kubernetes, name: &str, wanted: Wanted) -> Found {
        let matching = plugin.zones.iter().filter(|zone| is_below(name, zone));
        let Some(zone) = matching.max_by_key(|zone| zone.len()) else { return Found::Elsewhere };
        let found = match is_below(zone, REVERSE) || is_below(zone, "ip6.arpa") {
            true => self.reverse(plugin, name, wanted),
            false => self.forward(plugin, zone, name, wanted),
        };
        let passed_on = plugin
            .fallthrough
            .as_ref()
            .is_some_and(|zones| zones.is_empty() || zones.iter().any(|zone| is_below(name, zone)));
        match found {
            Found::NoName if passed_on => Found::Elsewhere,
            found => found,
        }
    }

    fn reverse(&self, plugin: &Kubernetes, name: &str, wanted: Wanted) -> Found {
        let primary = plugin.zones.iter().find(|zone| !zone.ends_with(".arpa"));
        let (Some(address), Some(zone)) = (reversed(name), primary) else { return Found::NoName };
        let names: Vec<Data> = match self.cluster_addresses.get(&address) {
            Some((namespace, service)) => vec![Data::Ptr(format!("{service}.{namespace}.svc.{zone}"))],
            None => {
                let names = self.endpoint_addresses.get(&address).into_iter().flatten();
                names.map(|name| Data::Ptr(format!("{name}.{zone}"))).collect()
            }
        };
        match (names.is_empty(), wanted) {
            (true, _) => Found::NoName,
            (false, Wanted::Ptr) => Found::Records(names),
            (false, _) => Found::NoData,
        }
    }

    fn forward(&self, plugin: &Kubernetes, zone: &str, name: &str, wanted: Wanted) -> Found {
        let front = name.strip_suffix(zone).unwrap_or_default().trim_end_matches('.');
        let labels: Vec<&str> = if front.is_empty() { Vec::new() } else { front.split('.').collect() };
        match labels.as_slice() {
            [] if wanted == Wanted::Ns => Found::Records(vec![self.own_server(zone)]),
            [] | ["svc" | "pod" | "dns"] => Found::NoData,
            ["dns-version"] if wanted == Wanted::Txt => Found::Records(vec![Data::Txt(VERSION)]),
            ["dns-version"] => Found::NoData,
            ["ns", "dns"] => self.name_server(wanted),
            [namespace, "svc" | "pod"] => {
                if self.namespaces.contains(*namespace) {
                    Found::NoData
                } else {
                    Found::NoName
                }
            }
            [address, namespace, "pod"] => self.pod(plugin, address, namespace, wanted),
            [rest @ .., service, namespace, "svc"] => {
                let host = format!("{service}.{namespace}.svc.{zone}");
                let key = ((*namespace).to_owned(), (*service).to_owned());
                match self.services.get(&key) {
                    Some(entry) if self.namespaces.contains(*namespace) => {
                        of_service(entry, rest, &host, wanted)
                    }
                    _ => Found::NoName,
                }
            }
            _ => Found::NoName,
        }
    }

    /// Who serves the zone: the Service in front of this server, as CoreDNS finds it (`nsAddrs`), or the
    /// name CoreDNS makes up where nobody put one there.
    fn own_server(&self, zone: &str) -> Data {
        let key = ("kube-system".to_owned(), "kube-dns".to_owned());
        match self.services.get(&key).map(|entry| &entry.kind) {
            Some(Kind::Cluster(address)) => {
                Data::Ns { name: format!("kube-dns.kube-system.svc.{zone}"), address: Some(*address) }
            }
            _ => Data::Ns { name: format!("ns.dns.{zone}"), address: None },
        }
    }

    /// This server's own name.
    fn name_server(&self, wanted: Wanted) -> Found {
        let key = ("kube-system".to_owned(), "kube-dns".to_owned());
        match self.services.get(&key).map(|entry| &entry.kind) {
            Some(Kind::Cluster(address)) if wanted == Wanted::A => Found::Records(vec![Data::A(*address)]),
            _ => Found::NoData,
        }
    }

    fn pod(&self, plugin: &Kubernetes, label: &str, namespace: &str, wanted: Wanted) -> Found {
        let address = label.replace('-', ".").parse::<Ipv4Addr>().ok();
        let known = |address: &Ipv4Addr| match plugin.pods {
            Pods::Disabled => false,
            Pods::Insecure => self.namespaces.contains(namespace),
            Pods::Verified => self.pods.contains(&(namespace.to_owned(), *address)),
        };
        match (address.filter(known), wanted) {
            (None, _) => Found::NoName,
            (Some(address), Wanted::A) => Found::Records(vec![Data::A(address)]),
            (Some(_), _) => Found::NoData,
        }
    }
}

fn entry(service: &Service) -> Option<Entry> {
    let spec = service.spec.as_ref()?;
    let kind = match (spec.type_.as_deref(), spec.cluster_ip.as_deref()) {
        (Some("ExternalName"), _) => {
            Kind::External(spec.external_name.clone()?.trim_end_matches('.').to_ascii_lowercase())
        }
        (_, Some("None")) => Kind::Headless,
        (_, Some(address)) => Kind::Cluster(address.parse().ok()?),
        (_, None) => return None,
    };
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
            number: u16::try_from(port.port).ok()?,
        })
    });
    Some(Entry { kind, ports: ports.collect(), endpoints: Vec::new() })
}

/// What stands before a service's name: nothing, an endpoint, or `_port._protocol`.
enum Front<'a> {
    Nothing,
    Endpoint(&'a str),
    Port(&'a str, &'a str),
}

fn of_service(entry: &Entry, rest: &[&str], host: &str, wanted: Wanted) -> Found {
    let front = match rest {
        [] => Front::Nothing,
        [endpoint] => Front::Endpoint(endpoint),
        [port, protocol] => Front::Port(port.trim_start_matches('_'), protocol.trim_start_matches('_')),
        _ => return Found::NoName,
    };
    let fits = |port: &&Port| match front {
        Front::Port(name, protocol) => port.name.eq_ignore_ascii_case(name) && port.protocol == protocol,
        _ => true,
    };
    // What the name means: addresses, each with its ports and its own name.
    let mut meant: Vec<(Ipv4Addr, Vec<&Port>, String)> = Vec::new();
    match (&entry.kind, &front) {
        (Kind::External(target), Front::Nothing) => {
            return match wanted {
                Wanted::A | Wanted::Cname | Wanted::Other => {
                    Found::Records(vec![Data::Cname(target.clone())])
                }
                _ => Found::NoData,
            };
        }
        (Kind::Cluster(address), Front::Nothing | Front::Port(..)) => {
            let ports: Vec<&Port> = entry.ports.iter().filter(fits).collect();
            if !ports.is_empty() || matches!(front, Front::Nothing) {
                meant.push((*address, ports, host.to_owned()));
            }
        }
        _ => {
            for endpoint in &entry.endpoints {
                let named = !matches!(front, Front::Endpoint(label) if label != endpoint.label);
                let ports: Vec<&Port> = endpoint.ports.iter().filter(fits).collect();
                if named && (!ports.is_empty() || !matches!(front, Front::Port(..))) {
                    meant.push((endpoint.address, ports, format!("{}.{host}", endpoint.label)));
                }
            }
        }
    }
    if meant.is_empty() {
        return Found::NoName;
    }
    let mut records: Vec<Data> = match wanted {
        Wanted::A => meant.iter().map(|(address, ..)| Data::A(*address)).collect(),
        Wanted::Srv => meant
            .iter()
            .flat_map(|(address, ports, name)| {
                ports.iter().map(|port| Data::Srv {
                    port: port.number,
                    target: name.clone(),
                    address: *address,
                })
            })
            .collect(),
        _ => Vec::new(),
    };
    records.sort();
    records.dedup();
    if records.is_empty() { Found::NoData } else { Found::Records(records) }
}

/// The address a reverse name asks about.
fn reversed(name: &str) -> Option<Ipv4Addr> {
    let front = name.strip_suffix(REVERSE)?.strip_suffix('.')?;
    let mut octets: Vec<&str> = front.split('.').collect();
    octets.reverse();
    octets.join(".").parse().ok()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub fn plugin() -> Kubernetes {
        let zones = ["cluster.local", "in-addr.arpa"].map(String::from).to_vec();
        Kubernetes { zones, ttl: 30, pods: Pods::Insecure, fallthrough: Some(vec![REVERSE.into()]) }
    }

    fn typed<T: serde::de::DeserializeOwned>(values: &[Value]) -> Vec<T> {
        values.iter().map(|value| serde_json::from_value(value.clone()).unwrap()).collect()
    }

    pub fn index() -> Index {
        let services = [
            json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.7",
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}}),
            json!({"metadata": {"name": "db", "namespace": "default"}, "spec": {"clusterIP": "None",
                "ports": [{"name": "sql", "port": 5432}]}}),
            json!({"metadata": {"name": "idle", "namespace": "default"}, "spec": {"clusterIP": "None"}}),
            json!({"metadata": {"name": "out", "namespace": "default"}, "spec": {"type": "ExternalName",
                "externalName": "Web.default.svc.cluster.local."}}),
        ];
        let slice = json!({
            "metadata": {"name": "db-1", "namespace": "default", "labels": {SERVICE_NAME: "db"}},
            "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.244.1.2"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.244.2.3"], "conditions": {"ready": true}},
                {"addresses": ["10.244.2.4"], "conditions": {"ready": false}},
            ],
        });
        let namespaces: Vec<Namespace> = typed(&[json!({"metadata": {"name": "default"}})]);
        let (services, slices) = (typed::<Service>(&services), typed::<EndpointSlice>(&[slice]));
        Index::new(namespaces.iter(), services.iter(), slices.iter(), [].iter())
    }

    fn find(name: &str, wanted: Wanted) -> Found {
        index().find(&plugin(), name, wanted)
    }

    #[test]
    fn services_endpoints_and_pods_have_addresses() {
        let a = |texts: &[&str]| {
            Found::Records(texts.iter().map(|text| Data::A(text.parse().unwrap())).collect())
        };
        assert_eq!(find("web.default.svc.cluster.local", Wanted::A), a(&["10.96.0.7"]));
        assert_eq!(find("_http._tcp.web.default.svc.cluster.local", Wanted::A), a(&["10.96.0.7"]));
        assert_eq!(find("db.default.svc.cluster.local", Wanted::A), a(&["10.244.1.2", "10.244.2.3"]));
        assert_eq!(find("db-0.db.default.svc.cluster.local", Wanted::A), a(&["10.244.1.2"]));
        assert_eq!(find("10-244-2-3.db.default.svc.cluster.local", Wanted::A), a(&["10.244.2.3"]));
        assert_eq!(find("10-1-2-3.default.pod.cluster.local", Wanted::A), a(&["10.1.2.3"]));
        let cname = Found::Records(vec![Data::Cname("web.default.svc.cluster.local".into())]);
        assert_eq!(find("out.default.svc.cluster.local", Wanted::A), cname);
    }

    #[test]
    fn no_data_no_name_and_elsewhere_are_told_apart() {
        for (name, wanted, found) in [
            ("web.default.svc.cluster.local", Wanted::Other, Found::NoData),
            ("default.svc.cluster.local", Wanted::A, Found::NoData),
            ("svc.cluster.local", Wanted::A, Found::NoData),
            ("nosuch.svc.cluster.local", Wanted::A, Found::NoName),
            ("nosuch.default.svc.cluster.local", Wanted::A, Found::NoName),
            ("idle.default.svc.cluster.local", Wanted::A, Found::NoName),
            ("_nosuch._tcp.web.default.svc.cluster.local", Wanted::Srv, Found::NoName),
            ("a.b.c.web.default.svc.cluster.local", Wanted::A, Found::NoName),
            ("x.default.pod.cluster.local", Wanted::A, Found::NoName),
            ("10-244-2-4.db.default.svc.cluster.local", Wanted::A, Found::NoName),
            ("example.com", Wanted::A, Found::Elsewhere),
            ("1.2.3.4.in-addr.arpa", Wanted::Ptr, Found::Elsewhere),
        ] {
            assert_eq!(find(name, wanted), found, "{name}");
        }
    }

    #[test]
    fn ports_are_found_by_srv_and_addresses_by_ptr() {
        let Found::Records(ports) = find("_sql._tcp.db.default.svc.cluster.local", Wanted::Srv) else {
            panic!()
        };
        let first = Data::Srv {
            port: 5432,
            target: "10-244-2-3.db.default.svc.cluster.local".into(),
            address: [10, 244, 2, 3].into(),
        };
        assert!(ports.len() == 2 && ports.contains(&first), "{ports:?}");
        let ptr = |name: &str| Found::Records(vec![Data::Ptr(name.into())]);
        assert_eq!(find("7.0.96.10.in-addr.arpa", Wanted::Ptr), ptr("web.default.svc.cluster.local"));
        assert_eq!(find("2.1.244.10.in-addr.arpa", Wanted::Ptr), ptr("db-0.db.default.svc.cluster.local"));
        assert_eq!(find("dns-version.cluster.local", Wanted::Txt), Found::Records(vec![Data::Txt(VERSION)]));
    }
}
