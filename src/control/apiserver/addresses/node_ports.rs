//! Node ports and the health check port of a Service (`portallocator`, `initNodePorts`).

use std::str::FromStr;

use serde_json::{Value, json};

use super::{Others, is_blank, random};
use crate::api::status::{Cause, Result, Status};
use crate::control::apiserver::handlers::meta;
use crate::control::apiserver::validation::service::needs_health_check;

/// `--service-node-port-range`, as `FIRST-LAST` or `FIRST+COUNT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| format!("unable to parse {text:?}"));
        let range = match (text.split_once('-'), text.split_once('+')) {
            (Some((first, last)), _) => Self { first: number(first)?, last: number(last)? },
            (_, Some((first, count))) => {
                let first = number(first)?;
                Self { first, last: first.saturating_add(number(count)?) }
            }
            _ => Self { first: number(text)?, last: number(text)? },
        };
        match range.first > 0 && range.first <= range.last {
            true => Ok(range),
            false => Err(format!("{text:?} is no range of ports")),
        }
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}-{}", self.first, self.last)
    }
}

/// A node port already given to this service.
struct Chosen {
    port: Value,
    protocol: String,
    node_port: u16,
}

/// Ports of one Service in the making.
struct Making<'a> {
    range: PortRange,
    others: &'a Others<'a>,
    chosen: Vec<Chosen>,
}

/// Checks and picks the ports of a Service; returns those to be held.
pub(super) fn allot(range: PortRange, service: &mut Value, others: &Others<'_>) -> Result<Vec<u16>> {
    let kind = service["spec"]["type"].as_str().unwrap_or_default();
    if !matches!(kind, "NodePort" | "LoadBalancer") {
        return Ok(Vec::new());
    }
    let name = meta::text(service, "name").to_owned();
    let pick_more = wants_node_ports(service);
    let mut making = Making { range, others, chosen: Vec::new() };
    for (index, port) in service["spec"]["ports"].as_array_mut().into_iter().flatten().enumerate() {
        let asked = port["nodePort"].as_i64().filter(|port| *port != 0);
        if asked.is_none() && !pick_more {
            continue;
        }
        let node_port = making.port(port, asked).map_err(|why| match why {
            Refused::Asked(why) => {
                let cause = Cause::invalid(format!("spec.ports[{index}].nodePort"), &json!(asked), &why);
                Status::invalid("", "Service", &name, &[cause])
            }
            Refused::Full => Status::internal("failed to allocate a nodePort: range is full"),
        })?;
        let (number, own) = (port["port"].clone(), protocol(port).to_owned());
        port["nodePort"] = json!(node_port);
        making.chosen.push(Chosen { port: number, protocol: own, node_port });
    }
    let mut ports: Vec<u16> = making.chosen.iter().map(|one| one.node_port).collect();
    if needs_health_check(&service["spec"]) {
        ports.push(making.health(&mut service["spec"])?);
    }
    Ok(ports)
}

/// Why a port is not given.
enum Refused {
    Asked(String),
    Full,
}

impl Making<'_> {
    fn port(&self, port: &Value, asked: Option<i64>) -> std::result::Result<u16, Refused> {
        let own = protocol(port);
        // TCP and UDP of one port may share a number.
        let mine =
            |candidate: u16| self.chosen.iter().any(|one| one.node_port == candidate && one.protocol == own);
        if let Some(asked) = asked {
            // The same one twice is validation's to say.
            return self.asked(asked).map_err(Refused::Asked);
        }
        let shared = self.chosen.iter().find(|one| one.port == port["port"] && !mine(one.node_port));
        shared.map(|one| one.node_port).or_else(|| self.any()).ok_or(Refused::Full)
    }

    fn asked(&self, port: i64) -> std::result::Result<u16, String> {
        match u16::try_from(port) {
            Ok(port) if (self.range.first..=self.range.last).contains(&port) => {
                match self.others.have_port(port) {
                    true => Err("provided port is already allocated".into()),
                    false => Ok(port),
                }
            }
            _ => Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}",
                self.range
            )),
        }
    }

    /// A port that nobody has, from the upper part first: the beginning is kept for those chosen by hand
    /// (KEP-3668).
    fn any(&self) -> Option<u16> {
        let count = u32::from(self.range.last - self.range.first) + 1;
        let by_hand = if count < 16 { 0 } else { (count / 32).clamp(16, 128).min(count) };
        let upper = count - by_hand;
        let start = random() % upper.max(1);
        let upper = (0..upper).map(|step| by_hand + (start + step) % upper);
        let port = |offset: u32| u16::try_from(u32::from(self.range.first) + offset).ok();
        let free = |port: &u16| {
            !self.others.have_port(*port) && !self.chosen.iter().any(|one| one.node_port == *port)
        };
        upper.chain(0..by_hand).filter_map(port).find(free)
    }

    fn health(&self, spec: &mut Value) -> Result<u16> {
        let asked = spec["healthCheckNodePort"].as_i64().filter(|port| *port != 0);
        let port = match asked {
            Some(port) => self.asked(port).map_err(|why| {
                Status::internal(format!("failed to allocate requested HealthCheck NodePort {port}: {why}"))
            })?,
            None => self.any().ok_or_else(|| {
                Status::internal("failed to allocate a HealthCheck NodePort 0: range is full")
            })?,
        };
        spec["healthCheckNodePort"] = json!(port);
        Ok(port)
    }
}

/// An update that leaves ports out keeps those it has.
pub(super) fn inherit(service: &mut Value, old: &Value) {
    if needs_health_check(&service["spec"])
        && needs_health_check(&old["spec"])
        && is_blank(&service["spec"]["healthCheckNodePort"])
    {
        service["spec"]["healthCheckNodePort"] = old["spec"]["healthCheckNodePort"].clone();
    }
    if !wants_node_ports(service) || !wants_node_ports(old) {
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

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    const RANGE: PortRange = PortRange { first: 30000, last: 32767 };

    fn service(spec: Value) -> Value {
        json!({"metadata": {"name": "a"}, "spec": spec})
    }

    fn given(service: &mut Value, taken: &[u16]) -> std::result::Result<Vec<u16>, String> {
        let mut state = State::default();
        state.promised.ports.extend(taken.iter().map(|port| (*port, "default/b".to_owned())));
        let others = Others { state: &state, own: "default/a" };
        allot(RANGE, service, &others).map_err(|status| status.message)
    }

    #[test]
    fn node_ports_are_unique_and_one_number_serves_both_protocols() {
        let mut two = service(json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}));
        let ports = given(&mut two, &[]).unwrap();
        assert!(ports[0] != ports[1] && ports.iter().all(|port| *port >= 30086), "{ports:?}");
        let mut dns = service(json!({"type": "NodePort",
            "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}));
        let shared = given(&mut dns, &[]).unwrap();
        assert_eq!(shared[0], shared[1]);
    }

    #[test]
    fn a_port_asked_for_is_checked_whatever_the_type() {
        let range = "The range of valid ports is 30000-32767";
        for (spec, want) in [
            (json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30555}]}), "already allocated"),
            (json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": -1}]}), range),
            (
                json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                    "ports": [{"port": 1, "nodePort": 30555}]}),
                "already allocated",
            ),
            (
                json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                    "ports": [{"port": 1, "nodePort": 80}]}),
                range,
            ),
        ] {
            assert!(given(&mut service(spec.clone()), &[30555]).unwrap_err().ends_with(want), "{spec}");
        }
        let mut without = service(
            json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 1}]}),
        );
        assert_eq!(given(&mut without, &[]).unwrap(), Vec::<u16>::new());
    }

    #[test]
    fn a_balancer_that_must_find_the_pods_gets_a_port_to_ask_at() {
        let mut local = service(
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 1}]}),
        );
        let ports = given(&mut local, &[]).unwrap();
        assert_eq!(local["spec"]["healthCheckNodePort"], ports[1]);
        assert_ne!(ports[0], ports[1]);
        let mut asked = service(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30555, "ports": [{"port": 1}]}));
        assert!(given(&mut asked, &[30555]).unwrap_err().contains("HealthCheck NodePort 30555"));
    }

    #[test]
    fn ranges_are_read_as_upstream_reads_them() {
        assert_eq!("30000-32767".parse(), Ok(RANGE));
        assert_eq!("30000+2767".parse(), Ok(RANGE));
        assert!("5-4".parse::<PortRange>().is_err() && "x".parse::<PortRange>().is_err());
    }
}
