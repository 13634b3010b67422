//! UDP conversations whose endpoint is gone: forgotten, so that the next packet meets the rules anew
//! (`pkg/proxy/conntrack/cleanup.go`).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::ruleset::{Port, Ruleset};
use crate::sys::conntrack::{self, Flow};
use crate::sys::nft::Protocol;

/// Forgets what no longer agrees with the rules, if UDP ports changed at all.
pub fn forget(before: Option<&Ruleset>, now: &Ruleset) {
    if before.is_some_and(|before| before.node_addresses == now.node_addresses && udp(before).eq(udp(now))) {
        return;
    }
    if before.is_none() && udp(now).next().is_none() {
        return;
    }
    let flows = match conntrack::flows() {
        Ok(flows) => flows,
        // A kernel without this interface; UDP clients then wait for the entry's own end.
        Err(error) => return tracing::warn!(%error, "cannot read the connection table"),
    };
    let served = Served::of(before, now);
    for flow in flows.iter().filter(|flow| served.is_stale(flow)) {
        if let Err(error) = conntrack::forget(flow) {
            tracing::warn!(%error, ?flow, "cannot forget a stale conversation");
        }
    }
}

fn udp(ruleset: &Ruleset) -> impl Iterator<Item = (&String, &Port)> {
    ruleset.ports.iter().filter(|(_, port)| port.protocol() == Protocol::Udp)
}

/// Which endpoints answer for each UDP destination; none for a service that is gone.
struct Served<'a>(BTreeMap<(Ipv4Addr, u16), Option<&'a Port>>);

impl<'a> Served<'a> {
    fn of(before: Option<&'a Ruleset>, now: &'a Ruleset) -> Self {
        let mut served = BTreeMap::new();
        for (ruleset, current) in before.map(|before| (before, false)).into_iter().chain([(now, true)]) {
            for (_, port) in udp(ruleset) {
                let mut keys = vec![(port.cluster.address, port.cluster.port)];
                keys.extend(port.external_keys().map(|key| (key.address, key.port)));
                let node_port = port.node_port.into_iter();
                keys.extend(
                    node_port.flat_map(|port| ruleset.node_addresses.iter().map(move |own| (*own, port))),
                );
                served.extend(keys.into_iter().map(|key| (key, current.then_some(port))));
            }
        }
        Self(served)
    }

    fn is_stale(&self, flow: &Flow) -> bool {
        if flow.original.protocol != Protocol::Udp as u8 {
            return false;
        }
        match self.0.get(&flow.original.destination) {
            None => false,
            Some(None) => true,
            Some(Some(port)) => {
                let answers = flow.reply.source;
                !port.endpoints.contains(&answers) && !port.local.contains(&answers)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::conntrack::Tuple;

    #[test]
    fn a_flow_is_stale_when_its_endpoint_or_its_service_is_gone() {
        let port = super::super::tests::udp_port(&["10.244.1.2:53"]);
        let ruleset = super::super::tests::ruleset_of([("kube-system/kube-dns/udp/dns", port)]);
        let empty = super::super::tests::ruleset_of([]);
        let flow = |answering: &str, protocol| {
            let source = ([10, 244, 2, 2].into(), 40000);
            let original = Tuple { source, destination: ([10, 96, 0, 10].into(), 53), protocol };
            let answers: std::net::SocketAddrV4 = answering.parse().unwrap();
            let reply = Tuple { source: (*answers.ip(), answers.port()), destination: source, protocol };
            Flow { original, reply }
        };
        let now = Served::of(None, &ruleset);
        assert!(!now.is_stale(&flow("10.244.1.2:53", 17)));
        assert!(now.is_stale(&flow("10.244.1.9:53", 17)), "another endpoint, gone by now");
        assert!(now.is_stale(&flow("10.96.0.10:53", 17)), "sent before there was an endpoint");
        assert!(!now.is_stale(&flow("10.244.1.9:53", 6)), "TCP ends by itself");
        assert!(Served::of(Some(&ruleset), &empty).is_stale(&flow("10.244.1.2:53", 17)));
        assert!(!Served::of(None, &empty).is_stale(&flow("10.244.1.2:53", 17)), "never ours");
    }
}
