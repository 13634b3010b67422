//! Policies as an nftables table: a pure function.
//!
//! ```text
//!  forward ─▶ egress  ─known: accept─ ip saddr vmap @egress-pods  ─▶ egress-POD ─▶ policies ─▶ accept, else drop
//!          ─▶ ingress ─known: accept─ ip daddr vmap @ingress-pods ─▶ ingress-POD ─▶ policies ─▶ accept, else drop
//! ```
//!
//! A pod can always reach itself, also by way of a Service. As long as there is any policy, an address of this
//! node's pods that nobody has told us of is a pod that just starts: it is isolated until it is known, for it
//! may be one that a policy means ("from the very first instant", as the documentation has it).
//!
//! Two base chains, because a packet needs both its sender's and its receiver's leave: an accept ends only
//! the chain it is in. Destinations are seen after the service proxy has translated them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ring::digest::{SHA256, digest};

use super::select::{Member, View, protocol};
use crate::sys::nft::{ChainKind, Hook, Key, KeyKind, Rule, ServiceKey, SetKind, Table, Verdict, priority};

/// Before the service proxy's own filters.
const BEFORE: i32 = priority::FILTER - 10;

/// This node's pods, each with itself, and by address.
const SELVES: &str = "selves";
const KNOWN: &str = "known-pods";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// The table for the pods of this node.
pub fn table<'a>(view: &View, policies: impl Iterator<Item = &'a NetworkPolicy>) -> Table {
    let mut table = Table::default();
    let mut policies: Vec<&NetworkPolicy> = policies.collect();
    policies.sort_by_key(|policy| (&policy.metadata.namespace, &policy.metadata.name));
    table.set(SELVES, SetKind::Set(KeyKind::Pair));
    table.set(KNOWN, SetKind::Set(KeyKind::Address));
    for pod in view.pods.iter().filter(|pod| pod.here) {
        table.element(SELVES, Key::Pair(pod.address, pod.address));
        table.element(KNOWN, Key::Address(pod.address));
    }
    for (at, direction) in (0..).zip([Direction::Egress, Direction::Ingress]) {
        let (word, map) = (direction.word(), format!("{}-pods", direction.word()));
        table.set(&map, SetKind::Verdicts(KeyKind::Address));
        table.base_chain(word, ChainKind::Filter, Hook::Forward, BEFORE + at);
        table.rule(word, Rule::new().known_connection().verdict(&Verdict::Accept));
        table.rule(word, Rule::new().both_ends_in(SELVES).verdict(&Verdict::Accept));
        table.rule(
            word,
            match direction {
                Direction::Ingress => Rule::new().verdict_by_destination(&map),
                Direction::Egress => Rule::new().verdict_by_source(&map),
            },
        );
        for net in view.net.iter().filter(|_| !policies.is_empty()) {
            let (known, of_here) = match direction {
                Direction::Ingress => (Rule::new().destination_in(KNOWN), Rule::new().destination(*net)),
                Direction::Egress => (Rule::new().source_in(KNOWN), Rule::new().source(*net)),
            };
            table.rule(word, known.verdict(&Verdict::Accept));
            table.rule(word, of_here.verdict(&Verdict::Drop));
        }
        for (pod, chains) in isolated(view, &policies, direction, &mut table) {
            let member = &view.pods[pod];
            let chain = name(&format!("{word}-pod"), &format!("{}/{}", member.namespace, member.name));
            chains.iter().for_each(|policy| table.rule(&chain, Rule::new().jump(policy)));
            table.rule(&chain, Rule::new().verdict(&Verdict::Drop));
            table.verdict(&map, Key::Address(member.address), Verdict::Goto(chain));
        }
    }
    table
}

/// The pods of this node that policies isolate in a direction, each with the chains of those policies,
/// which are written on the way.
fn isolated(
    view: &View,
    policies: &[&NetworkPolicy],
    direction: Direction,
    table: &mut Table,
) -> BTreeMap<usize, Vec<String>> {
    let mut found: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for policy in policies.iter().filter(|policy| applies(policy, direction)) {
        let Some(spec) = &policy.spec else { continue };
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        let meant: BTreeSet<&str> = view
            .selected(namespace, spec.pod_selector.as_ref())
            .filter(|pod| pod.here)
            .map(|pod| pod.name.as_str())
            .collect();
        let own: Vec<usize> = (0..view.pods.len())
            .filter(|at| {
                view.pods[*at].namespace == namespace && meant.contains(view.pods[*at].name.as_str())
            })
            .collect();
        if own.is_empty() {
            continue;
        }
        let full = format!("{namespace}/{}", policy.metadata.name.as_deref().unwrap_or_default());
        let chain = name(&format!("{}-policy", direction.word()), &full);
        table.chain(&chain);
        let selected: Vec<&Member> = own.iter().map(|at| &view.pods[*at]).collect();
        let rules: Vec<Allowed<'_>> = match direction {
            Direction::Ingress => spec
                .ingress
                .iter()
                .flatten()
                .map(|rule| (rule.from.as_deref(), rule.ports.as_deref()))
                .collect(),
            Direction::Egress => {
                spec.egress.iter().flatten().map(|rule| (rule.to.as_deref(), rule.ports.as_deref())).collect()
            }
        };
        for (at, (peers, ports)) in rules.into_iter().enumerate() {
            let writer = Writer {
                view,
                namespace,
                selected: &selected,
                direction,
                chain: &chain,
                label: format!("{full}/{at}"),
            };
            writer.write(table, peers.unwrap_or_default(), ports.unwrap_or_default());
        }
        own.into_iter().for_each(|at| found.entry(at).or_default().push(chain.clone()));
    }
    found
}

type Allowed<'a> = (Option<&'a [NetworkPolicyPeer]>, Option<&'a [NetworkPolicyPort]>);

fn applies(policy: &NetworkPolicy, direction: Direction) -> bool {
    let Some(spec) = &policy.spec else { return false };
    match (&spec.policy_types, direction) {
        (Some(types), Direction::Ingress) => types.iter().any(|one| one == "Ingress"),
        (Some(types), Direction::Egress) => types.iter().any(|one| one == "Egress"),
        (None, Direction::Ingress) => true,
        (None, Direction::Egress) => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
    }
}

/// One `from` or `to` with its ports, on its way into the policy's chain.
struct Writer<'a> {
    view: &'a View,
    namespace: &'a str,
    selected: &'a [&'a Member],
    direction: Direction,
    chain: &'a str,
    label: String,
}

impl Writer<'_> {
    fn write(&self, table: &mut Table, peers: &[NetworkPolicyPeer], ports: &[NetworkPolicyPort]) {
        let matches = self.peers(table, peers);
        for (at, port) in ports.iter().enumerate() {
            for matched in &matches {
                if let Some(rule) = self.port(table, matched.clone(), port, peers, at) {
                    table.rule(self.chain, rule.verdict(&Verdict::Accept));
                }
            }
        }
        if ports.is_empty() {
            matches.into_iter().for_each(|rule| table.rule(self.chain, rule.verdict(&Verdict::Accept)));
        }
    }

    /// One match a peer; all pods that peers mean are one set.
    fn peers(&self, table: &mut Table, peers: &[NetworkPolicyPeer]) -> Vec<Rule> {
        if peers.is_empty() {
            return vec![Rule::new()];
        }
        let mut rules: Vec<Rule> = peers
            .iter()
            .filter_map(|peer| peer.ip_block.as_ref())
            .filter_map(|block| self.block(block))
            .collect();
        if peers.iter().any(|peer| peer.ip_block.is_none()) {
            let set = name(&format!("{}-peers", self.direction.word()), &self.label);
            table.set(&set, SetKind::Set(KeyKind::Address));
            for pod in self.meant(peers) {
                table.element(&set, Key::Address(pod.address));
            }
            rules.push(match self.direction {
                Direction::Ingress => Rule::new().source_in(&set),
                Direction::Egress => Rule::new().destination_in(&set),
            });
        }
        rules
    }

    fn meant<'b>(&'b self, peers: &'b [NetworkPolicyPeer]) -> impl Iterator<Item = &'b Member> {
        peers
            .iter()
            .filter(|peer| peer.ip_block.is_none())
            .flat_map(|peer| self.view.peers(self.namespace, peer))
    }

    /// A range without its exceptions; one that is not IPv4 matches nothing here.
    fn block(&self, block: &IPBlock) -> Option<Rule> {
        let net: Ipv4Net = block.cidr.parse().ok()?;
        let except = block.except.iter().flatten().filter_map(|net| net.parse::<Ipv4Net>().ok());
        Some(match self.direction {
            Direction::Ingress => except.fold(Rule::new().source(net), Rule::source_outside),
            Direction::Egress => except.fold(Rule::new().destination(net), Rule::destination_outside),
        })
    }

    fn port(
        &self,
        table: &mut Table,
        matched: Rule,
        port: &NetworkPolicyPort,
        peers: &[NetworkPolicyPeer],
        at: usize,
    ) -> Option<Rule> {
        let protocol = protocol(port.protocol.as_deref())?;
        match &port.port {
            None => Some(matched.protocol(protocol)),
            Some(IntOrString::Int(number)) => {
                let first = u16::try_from(*number).ok()?;
                match port.end_port.and_then(|last| u16::try_from(last).ok()) {
                    Some(last) => Some(matched.destination_ports(protocol, first, last)),
                    None => Some(matched.destination_port(protocol, first)),
                }
            }
            Some(IntOrString::String(named)) => {
                let set = name(&format!("{}-ports", self.direction.word()), &format!("{}/{at}", self.label));
                table.set(&set, SetKind::Set(KeyKind::Service));
                for pod in self.receivers(peers) {
                    for number in pod.ports_named(named, protocol) {
                        let key = ServiceKey { address: pod.address, protocol, port: number };
                        table.element(&set, Key::Service(key));
                    }
                }
                Some(matched.service_in(&set))
            }
        }
    }

    /// Whose port a name means: the receiving pod's.
    fn receivers<'b>(&'b self, peers: &'b [NetworkPolicyPeer]) -> Vec<&'b Member> {
        match self.direction {
            Direction::Ingress => self.selected.to_vec(),
            Direction::Egress if peers.iter().all(|peer| peer.ip_block.is_some()) => {
                self.view.pods.iter().collect()
            }
            Direction::Egress => self.meant(peers).collect(),
        }
    }
}

/// A name the kernel takes, told apart by a hash when it is long.
fn name(kind: &str, of: &str) -> String {
    let hash = digest(&SHA256, of.as_bytes());
    let short: String = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{kind}-{short}-{of}").chars().take(127).collect()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Duration;

    use k8s_openapi::api::core::v1::{Namespace, Pod};
    use serde_json::{Value, json};

    use super::*;
    use crate::sys::namespace::{Network, in_private_namespaces};
    use crate::sys::netlink::{Netlink, Route, sysctl};
    use crate::sys::nft::Family;

    const ADDRESSES: [(&str, &str, [u8; 4]); 3] = [
        ("a", "server", [10, 244, 1, 2]),
        ("a", "friend", [10, 244, 1, 3]),
        ("b", "stranger", [10, 244, 1, 4]),
    ];

    fn view() -> View {
        let pods: Vec<Pod> = ADDRESSES
            .iter()
            .map(|(namespace, name, address)| {
                let value = json!({
                    "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
                    "spec": {"nodeName": "node-1", "containers": [
                        {"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
                    "status": {"phase": "Running", "podIP": Ipv4Addr::from(*address)},
                });
                serde_json::from_value(value).unwrap()
            })
            .collect();
        let namespaces: Vec<Namespace> = ["a", "b"]
            .map(|name| {
                serde_json::from_value(json!({"metadata": {"name": name, "labels": {"name": name}}})).unwrap()
            })
            .to_vec();
        View::new("node-1", pods.iter(), namespaces.iter(), None)
    }

    fn policy(name: &str, spec: Value) -> NetworkPolicy {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec})).unwrap()
    }

    /// Three pods around one node; returns their networks.
    fn pods() -> Vec<Network> {
        sysctl("net/ipv4/ip_forward", "1").unwrap();
        let mut node = Netlink::open().unwrap();
        let gateway = Ipv4Addr::new(169, 254, 1, 1);
        ADDRESSES
            .iter()
            .map(|(_, name, address)| {
                let (network, host) = (Network::fresh().unwrap(), Ipv4Net::from(Ipv4Addr::from(*address)));
                node.add_veth(name, "eth0", network.as_fd()).unwrap();
                network
                    .enter(|| {
                        let mut inside = Netlink::open().unwrap();
                        let eth0 = inside.index("eth0").unwrap();
                        inside.add_address(eth0, host).unwrap();
                        inside.set_up(eth0).unwrap();
                        let destination = Ipv4Net::default();
                        inside
                            .replace_route(Route { destination, via: Some(gateway), link: Some(eth0) })
                            .unwrap();
                    })
                    .unwrap();
                let veth = node.index(name).unwrap();
                node.add_silent_address(veth, gateway).unwrap();
                node.set_up(veth).unwrap();
                node.replace_route(Route::on(host, veth)).unwrap();
                network
            })
            .collect()
    }

    #[test]
    fn only_what_a_policy_allows_reaches_the_pod() {
        in_private_namespaces(|| {
            let networks = pods();
            let listen = |port| move || TcpListener::bind(("0.0.0.0", port)).unwrap();
            let _servers = [8080, 9090].map(|port| networks[0].enter(listen(port)).unwrap());
            let reaches = |from: usize, port: u16| {
                let target = (Ipv4Addr::from(ADDRESSES[0].2), port).into();
                let dial = || TcpStream::connect_timeout(&target, Duration::from_millis(250));
                match networks[from].enter(dial).unwrap() {
                    Ok(_) => true,
                    Err(error) if error.kind() == ErrorKind::TimedOut => false,
                    Err(error) => panic!("{error}"),
                }
            };
            let mut last = Table::default();
            let mut put = |policies: &[NetworkPolicy]| {
                let next = table(&view(), policies.iter());
                match last == Table::default() {
                    true => next.replace(Family::Ip, "policies").commit().unwrap(),
                    false => next.difference(&last, Family::Ip, "policies").commit().unwrap(),
                }
                last = next;
            };
            put(&[]);
            assert!(reaches(1, 8080) && reaches(2, 9090), "nothing is isolated without a policy");
            let deny = policy("deny", json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
            put(std::slice::from_ref(&deny));
            assert!(!reaches(1, 8080) && !reaches(2, 8080), "isolated");
            let server = json!({"matchLabels": {"app": "server"}});
            let friends = policy(
                "friends",
                json!({"podSelector": server, "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": "web"}]}]}),
            );
            put(&[deny.clone(), friends]);
            assert!(reaches(1, 8080), "the friend at the named port");
            assert!(!reaches(1, 9090) && !reaches(2, 8080), "no other port, nobody else");
            let space = policy(
                "space",
                json!({"podSelector": server, "ingress": [
                {"from": [{"namespaceSelector": {"matchLabels": {"name": "b"}}}], "ports": [{"port": 9000, "endPort": 9100}]},
                {"from": [{"ipBlock": {"cidr": "10.244.1.0/24", "except": ["10.244.1.4/32"]}}], "ports": [{"port": 8080}]}]}),
            );
            put(&[deny, space]);
            assert!(reaches(2, 9090) && !reaches(2, 8080), "a namespace and a range of ports; the exception");
            assert!(reaches(1, 8080) && !reaches(1, 9090), "the block");
            let egress = policy(
                "out",
                json!({"podSelector": {"matchLabels": {"app": "friend"}}, "policyTypes": ["Egress"],
                "egress": [{"to": [{"podSelector": server}], "ports": [{"port": 9090}]}]}),
            );
            put(std::slice::from_ref(&egress));
            assert!(reaches(1, 9090) && !reaches(1, 8080) && reaches(2, 8080));
            // The stranger is a pod of this node's range that nobody has told of yet.
            let mut early = view();
            early.net = "10.244.1.0/24".parse().ok();
            early.pods.retain(|pod| pod.name != "stranger");
            let starting = table(&early, std::iter::once(&egress));
            starting.replace(Family::Ip, "policies").commit().unwrap();
            assert!(!reaches(2, 8080) && reaches(1, 9090), "isolated until it is known");
            table(&early, std::iter::empty()).replace(Family::Ip, "policies").commit().unwrap();
            assert!(reaches(2, 8080), "without any policy nobody is isolated");
            table(&view(), std::iter::empty()).replace(Family::Ip, "policies").commit().unwrap();
            assert!(reaches(1, 8080) && reaches(2, 9090));
        });
    }
}
