//! ClusterIPs and node ports: handed out when a Service is written
//! (`pkg/registry/core/service/{ipallocator,portallocator}`).
//!
//! What is taken is read from the stored Services themselves; an address promised to a write that is
//! still on its way is held until that write is over. IPv4 only, as the lab is.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::registry::Resource;
use super::server::Api;
use crate::api::status::{Cause, Result, Status};

const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// What is promised to writes under way.
#[derive(Default)]
pub struct Addresses {
    promised: Mutex<Promised>,
}

#[derive(Default)]
struct Promised {
    addresses: HashSet<Ipv4Addr>,
    ports: HashSet<u16>,
}

/// Holds what one write was promised, until it is dropped.
pub struct Held {
    api: Arc<Api>,
    address: Option<Ipv4Addr>,
    ports: Vec<u16>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut promised = self.api.addresses.promised.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = self.address {
            promised.addresses.remove(&address);
        }
        for port in &self.ports {
            promised.ports.remove(port);
        }
    }
}

/// Gives a Service what it needs; other kinds need nothing. Keep the answer until the write is over.
pub fn allocate(
    api: &Arc<Api>,
    row: &Resource,
    service: &mut Value,
    old: Option<&Value>,
) -> Result<Option<Held>> {
    if row.kind != "Service" || !row.group.is_empty() {
        return Ok(None);
    }
    if service["spec"]["type"] == "ExternalName" {
        let spec = service["spec"].as_object_mut();
        spec.into_iter()
            .for_each(|spec| ["clusterIP", "clusterIPs"].iter().for_each(|field| drop(spec.remove(*field))));
        return Ok(None);
    }
    if let Some(old) = old {
        inherit(service, old);
    }
    let mut promised = api.addresses.promised.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = Taken::read(api, service, &promised);
    let mut held = Held { api: api.clone(), address: None, ports: Vec::new() };
    match cluster_ip(api.service_range, service, &taken) {
        Ok(Some(address)) => {
            promised.addresses.insert(address);
            held.address = Some(address);
        }
        Ok(None) => {}
        // Leaving drops `held`, which takes the same lock.
        Err(status) => {
            drop(promised);
            return Err(status);
        }
    }
    let outcome = node_ports(service, &taken);
    if let Ok(ports) = &outcome {
        promised.ports.extend(ports);
        held.ports.clone_from(ports);
    }
    drop(promised);
    outcome.map(|_| Some(held))
}

/// An update that leaves addresses and ports out keeps those it has.
fn inherit(service: &mut Value, old: &Value) {
    if old["spec"]["type"] == "ExternalName" {
        return;
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if is_blank(&service["spec"][field]) && !is_blank(&old["spec"][field]) {
            service["spec"][field] = old["spec"][field].clone();
        }
    }
    if !wants_node_ports(service) {
        return;
    }
    let before = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    for port in service["spec"]["ports"].as_array_mut().into_iter().flatten() {
        let same = |one: &&Value| one["port"] == port["port"] && protocol(one) == protocol(port);
        if is_blank(&port["nodePort"])
            && let Some(own) = before.iter().find(same).filter(|own| !is_blank(&own["nodePort"]))
        {
            port["nodePort"] = own["nodePort"].clone();
        }
    }
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        _ => false,
    }
}

fn protocol(port: &Value) -> &str {
    port["protocol"].as_str().unwrap_or("TCP")
}

fn wants_node_ports(service: &Value) -> bool {
    match service["spec"]["type"].as_str() {
        Some("NodePort") => true,
        Some("LoadBalancer") => service["spec"]["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

/// What every other Service has.
struct Taken {
    addresses: HashSet<Ipv4Addr>,
    ports: HashSet<u16>,
}

impl Taken {
    fn read(api: &Api, service: &Value, promised: &Promised) -> Self {
        let mut taken = Self { addresses: promised.addresses.clone(), ports: promised.ports.clone() };
        let own = format!(
            "{}/{}",
            super::handlers::meta::text(service, "namespace"),
            super::handlers::meta::text(service, "name")
        );
        let services =
            super::registry::find("", "v1", "services").map(|row| row.bucket.as_str()).unwrap_or_default();
        let Ok(page) = api.store.list(services, "", None, None, None) else { return taken };
        for entry in page.entries.iter().filter(|entry| *entry.key != *own) {
            let Ok(other) = serde_json::from_slice::<Value>(&entry.value) else { continue };
            taken
                .addresses
                .extend(other["spec"]["clusterIP"].as_str().and_then(|text| text.parse::<Ipv4Addr>().ok()));
            let ports = other["spec"]["ports"].as_array().into_iter().flatten();
            taken.ports.extend(ports.filter_map(|port| u16::try_from(port["nodePort"].as_u64()?).ok()));
        }
        taken
    }
}

/// Checks the address a Service has or picks one; returns one that is to be held.
fn cluster_ip(range: Ipv4Net, service: &mut Value, taken: &Taken) -> Result<Option<Ipv4Addr>> {
    let asked = [&service["spec"]["clusterIP"], &service["spec"]["clusterIPs"][0]]
        .into_iter()
        .find(|value| !is_blank(value))
        .and_then(Value::as_str)
        .map(str::to_owned);
    let address = match asked.as_deref() {
        Some("None") => {
            single_stack(service, "None");
            return Ok(None);
        }
        Some(text) => check(range, text, taken).map_err(|why| refuse(service, text, &why))?,
        None => pick(range, taken)
            .ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?,
    };
    single_stack(service, &address.to_string());
    Ok(Some(address))
}

fn single_stack(service: &mut Value, address: &str) {
    let spec = &mut service["spec"];
    spec["clusterIP"] = json!(address);
    spec["clusterIPs"] = json!([address]);
    if is_blank(&spec["ipFamilies"]) {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
    if is_blank(&spec["ipFamilyPolicy"]) {
        spec["ipFamilyPolicy"] = json!("SingleStack");
    }
}

fn check(range: Ipv4Net, text: &str, taken: &Taken) -> std::result::Result<Ipv4Addr, String> {
    let failed = |why: &str| format!("failed to allocate IP {text}: {why}");
    let address: Ipv4Addr = text
        .parse()
        .map_err(|_| "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned())?;
    if !range.contains(&address) || address == range.network() || address == range.broadcast() {
        return Err(failed(&format!(
            "the provided IP ({text}) is not in the valid range. The range of valid IPs is {range}"
        )));
    }
    match taken.addresses.contains(&address) {
        true => Err(failed("provided IP is already allocated")),
        false => Ok(address),
    }
}

/// A random free address, from the upper part of the range first: its beginning is kept for addresses
/// that are chosen by hand, such as the DNS server's (KEP-3070).
fn pick(range: Ipv4Net, taken: &Taken) -> Option<Ipv4Addr> {
    let first = u32::from(range.network()) + 1;
    let count = u32::from(range.broadcast()).checked_sub(first)?;
    let by_hand = (count / 16).clamp(16, 256).min(count);
    let free = |offset: u32| {
        Some(Ipv4Addr::from(first + offset)).filter(|address| !taken.addresses.contains(address))
    };
    let upper = count - by_hand;
    let start = random() % upper.max(1);
    let upper = (0..upper).map(|step| by_hand + (start + step) % upper);
    upper.chain(0..by_hand).find_map(free)
}

/// Checks and picks node ports; returns those to be held.
fn node_ports(service: &mut Value, taken: &Taken) -> Result<Vec<u16>> {
    if !wants_node_ports(service) {
        return Ok(Vec::new());
    }
    let name = super::handlers::meta::text(service, "name").to_owned();
    let mut chosen: Vec<Chosen> = Vec::new();
    for (index, port) in service["spec"]["ports"].as_array_mut().into_iter().flatten().enumerate() {
        let asked = port["nodePort"].as_u64().filter(|port| *port != 0);
        let (number, own_protocol) = (port["port"].clone(), protocol(port).to_owned());
        // TCP and UDP of one port may share a number.
        let free = |candidate: &u16| {
            let clash = |one: &&Chosen| one.node_port == *candidate && one.protocol == own_protocol;
            !taken.ports.contains(candidate) && !chosen.iter().any(|one| clash(&one))
        };
        let refuse = |why: &str| {
            let cause = Cause::invalid(format!("spec.ports[{index}].nodePort"), &json!(asked), why);
            Status::invalid("", "Service", &name, &[cause])
        };
        let own = match asked.map(u16::try_from) {
            Some(Ok(port)) if NODE_PORTS.contains(&port) && free(&port) => port,
            Some(Ok(port)) if NODE_PORTS.contains(&port) => {
                return Err(refuse("provided port is already allocated"));
            }
            Some(_) => {
                return Err(refuse(
                    "provided port is not in the valid range. The range of valid ports is 30000-32767",
                ));
            }
            None if let Some(other) =
                chosen.iter().find(|one| one.port == number && free(&one.node_port)) =>
            {
                other.node_port
            }
            None => {
                let start = (random() % NODE_PORTS.len() as u32) as u16;
                let mut ports =
                    (0..NODE_PORTS.len() as u16).map(|step| 30000 + (start + step) % NODE_PORTS.len() as u16);
                ports
                    .find(|port| free(port) && !chosen.iter().any(|one| one.node_port == *port))
                    .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?
            }
        };
        port["nodePort"] = json!(own);
        chosen.push(Chosen { port: number, protocol: own_protocol, node_port: own });
    }
    Ok(chosen.into_iter().map(|one| one.node_port).collect())
}

/// A node port already given to this service.
struct Chosen {
    port: Value,
    protocol: String,
    node_port: u16,
}

fn refuse(service: &Value, text: &str, why: &str) -> Status {
    let cause = Cause {
        field: "spec.clusterIPs".into(),
        reason: "FieldValueInvalid",
        message: format!("Invalid value: []string{{{text:?}}}: {why}"),
    };
    Status::invalid("", "Service", super::handlers::meta::text(service, "name"), &[cause])
}

fn random() -> u32 {
    let bytes = uuid::Uuid::new_v4();
    u32::from_be_bytes([bytes.as_bytes()[0], bytes.as_bytes()[1], bytes.as_bytes()[2], bytes.as_bytes()[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Taken {
        Taken { addresses: HashSet::new(), ports: HashSet::new() }
    }

    #[test]
    fn addresses_are_picked_from_the_upper_part_until_it_is_full() {
        let range: Ipv4Net = "10.96.0.0/27".parse().unwrap();
        let mut taken = nothing();
        let mut seen = Vec::new();
        while let Some(address) = pick(range, &taken) {
            assert!(range.contains(&address));
            seen.push(address);
            taken.addresses.insert(address);
        }
        assert_eq!(seen.len(), 30);
        assert!(seen[..14].iter().all(|address| address.octets()[3] > 16), "{seen:?}");
    }

    #[test]
    fn a_taken_or_foreign_address_is_refused() {
        let range: Ipv4Net = "10.96.0.0/12".parse().unwrap();
        let mut taken = nothing();
        taken.addresses.insert([10, 96, 0, 10].into());
        for (address, why) in
            [("10.96.0.10", "already allocated"), ("1.2.3.4", "is not in the valid range"), ("x", "valid IP")]
        {
            let mut service = json!({"metadata": {"name": "a"}, "spec": {"clusterIP": address}});
            let status = cluster_ip(range, &mut service, &taken).unwrap_err();
            assert!(status.code == 422 && status.message.contains(why), "{}", status.message);
        }
    }

    #[test]
    fn node_ports_are_unique() {
        let mut service = json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}});
        let ports = node_ports(&mut service, &nothing()).unwrap();
        assert_ne!(ports[0], ports[1]);
        let mut both = json!({"metadata": {"name": "dns"}, "spec": {"type": "NodePort",
            "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}});
        let shared = node_ports(&mut both, &nothing()).unwrap();
        assert_eq!(shared[0], shared[1], "one number for both protocols of a port");
        let taken = Taken { ports: ports.iter().copied().collect(), ..nothing() };
        let mut other = json!({"metadata": {"name": "b"}, "spec": {"type": "NodePort", "ports": [{"port": 1, "nodePort": ports[0]}]}});
        assert!(node_ports(&mut other, &taken).unwrap_err().message.contains("already allocated"));
    }
}
