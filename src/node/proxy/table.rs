//! The ruleset as an nftables table, laid out as upstream's nftables proxy lays it out, with one
//! difference: a service without affinity needs no chain an endpoint, since one rule both picks and
//! translates (`dnat to numgen random mod 3 map {…}`). So the table of a big cluster still fits into one
//! netlink message of an unprivileged user, and a change of one service rewrites one chain.
//!
//! ```text
//!  nat-prerouting, nat-output ─▶ services ─vmap @service-ips, @service-nodeports─▶ service-…, external-…, local-…
//!  filter-prerouting ─new─▶ firewall-check ─vmap @firewall-ips─▶ firewall-…
//!  filter-input, -forward, -output ─new─▶ nodeport-endpoints-check, service-endpoints-check, cluster-ips-check
//!  nat-postrouting ─▶ masquerading
//! ```

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use ring::digest::{SHA256, digest};

use super::ruleset::{Port, Ruleset};
use crate::sys::nft::{
    Batch, ChainKind, Family, Hook, Key, KeyKind, NftError, Rule, ServiceKey, SetKind, Table, Verdict,
    priority,
};

const NAME: &str = "kube-proxy";
const MARK: &str = "mark-for-masquerade";
const REJECT: &str = "reject-chain";

/// Writes the table in one transaction, over whatever was there.
///
/// Returns how long the kernel had it.
pub fn replace(table: &Table) -> Result<Duration, NftError> {
    timed(table.replace(Family::Ip, NAME))
}

/// Brings the table from what it holds to what it should hold.
///
/// # Errors
/// The kernel refuses when somebody else changed the table; [`replace`] then helps.
pub fn change(from: &Table, to: &Table) -> Result<Duration, NftError> {
    timed(to.difference(from, Family::Ip, NAME))
}

fn timed(batch: Batch) -> Result<Duration, NftError> {
    let started = Instant::now();
    batch.commit()?;
    Ok(started.elapsed())
}

/// Removes every rule of kube-proxy's.
pub fn remove() -> Result<(), NftError> {
    Batch::remove(Family::Ip, NAME).commit()
}

/// The table a ruleset asks for.
pub fn of(ruleset: &Ruleset) -> Table {
    let mut table = Table::default();
    table.set("cluster-ips", SetKind::Set(KeyKind::Address));
    table.set("nodeport-ips", SetKind::Set(KeyKind::Address));
    table.set("hairpin-connections", SetKind::Set(KeyKind::Pair));
    for map in ["service-ips", "no-endpoint-services", "firewall-ips"] {
        table.set(map, SetKind::Verdicts(KeyKind::Service));
    }
    for map in ["service-nodeports", "no-endpoint-nodeports"] {
        table.set(map, SetKind::Verdicts(KeyKind::Port));
    }
    for address in &ruleset.node_addresses {
        table.element("nodeport-ips", Key::Address(*address));
    }
    table.rule(REJECT, Rule::new().reject());
    masquerading(&mut table, ruleset.masquerade_mark);
    checks(&mut table);
    hooks(&mut table);
    let mut services: Vec<Service<'_>> =
        ruleset.ports.iter().map(|(name, port)| Service { ruleset, name, port }).collect();
    // The first to claim an address has it: a cluster address before any other claim, then the older service.
    services.iter().for_each(|service| service.write_inside(&mut table));
    services.sort_by(|a, b| (&a.port.since, a.name).cmp(&(&b.port.since, b.name)));
    services.iter().for_each(|service| service.write_outside(&mut table));
    table
}

fn checks(table: &mut Table) {
    table.rule("services", Rule::new().verdict_by_service("service-ips"));
    let to_node = || Rule::new().destination_in("nodeport-ips");
    table.rule("services", to_node().verdict_by_port("service-nodeports"));
    table.rule("service-endpoints-check", Rule::new().verdict_by_service("no-endpoint-services"));
    table.rule("nodeport-endpoints-check", to_node().verdict_by_port("no-endpoint-nodeports"));
    table.rule("firewall-check", Rule::new().verdict_by_service("firewall-ips"));
    // A port that a service does not have.
    table.rule("cluster-ips-check", Rule::new().destination_in("cluster-ips").reject());
}

fn hooks(table: &mut Table) {
    for (name, hook) in [("nat-prerouting", Hook::Prerouting), ("nat-output", Hook::Output)] {
        table.base_chain(name, ChainKind::Nat, hook, priority::DSTNAT);
        table.rule(name, Rule::new().jump("services"));
    }
    table.base_chain("nat-postrouting", ChainKind::Nat, Hook::Postrouting, priority::SRCNAT);
    table.rule("nat-postrouting", Rule::new().jump("masquerading"));
    // Before the address is translated: it is the load balancer's that is guarded.
    table.base_chain("filter-prerouting", ChainKind::Filter, Hook::Prerouting, priority::DSTNAT - 10);
    table.rule("filter-prerouting", Rule::new().new_connection().jump("firewall-check"));
    let checked: [(&str, Hook, &[&str]); 3] = [
        ("filter-input", Hook::Input, &["nodeport-endpoints-check", "service-endpoints-check"]),
        ("filter-forward", Hook::Forward, &["service-endpoints-check", "cluster-ips-check"]),
        ("filter-output", Hook::Output, &["service-endpoints-check", "cluster-ips-check"]),
    ];
    for (name, hook, checks) in checked {
        table.base_chain(name, ChainKind::Filter, hook, priority::FILTER);
        for check in checks {
            table.rule(name, Rule::new().new_connection().jump(check));
        }
    }
}

fn masquerading(table: &mut Table, mark: u32) {
    table.rule(MARK, Rule::new().mark_or(mark));
    // Hairpin: an endpoint that reaches itself through the service must see another's address.
    table.rule("masquerading", Rule::new().both_ends_in("hairpin-connections").masquerade());
    table.rule("masquerading", Rule::new().mark_clear(mark).verdict(&Verdict::Return));
    // Cleared, so that a packet routed again is not masqueraded twice.
    table.rule("masquerading", Rule::new().mark_xor(mark));
    table.rule("masquerading", Rule::new().masquerade());
}

/// One service port on its way into the table.
struct Service<'a> {
    ruleset: &'a Ruleset,
    name: &'a str,
    port: &'a Port,
}

impl Service<'_> {
    fn is_served_outside(&self) -> bool {
        self.port.is_external() && !self.port.endpoints.is_empty()
    }

    fn write_inside(&self, table: &mut Table) {
        let port = self.port;
        table.element("cluster-ips", Key::Address(port.cluster.address));
        for (address, _) in &port.endpoints {
            table.element("hairpin-connections", Key::Pair(*address, *address));
        }
        let external = self.is_served_outside();
        let inside = if port.internal_local { "local" } else { "service" };
        let cluster = chain_name("service", self.name);
        let wanted =
            |chain: &str| inside == chain || (external && (chain == "service" || port.external_local));
        if wanted("service") && !port.endpoints.is_empty() {
            self.balance(table, &cluster, &port.endpoints, inside == "service");
        }
        if wanted("local") && !port.local.is_empty() {
            self.balance(table, &chain_name("local", self.name), &port.local, inside == "local");
        }
        self.serve_inside(table, inside);
    }

    fn write_outside(&self, table: &mut Table) {
        if self.is_served_outside() {
            self.serve_outside(table, &chain_name("service", self.name));
        }
        self.refuse_outside(table);
        self.guard(table);
    }

    /// `loadBalancerSourceRanges`: whoever comes from elsewhere gets no answer. A request of this node's own
    /// loops back with the balancer's address for its source, so that is let in where the node is.
    fn guard(&self, table: &mut Table) {
        let port = self.port;
        if port.sources.is_empty() || port.balancer.is_empty() {
            return;
        }
        let chain = chain_name("firewall", self.name);
        let own =
            self.ruleset.node_addresses.iter().any(|own| port.sources.iter().any(|net| net.contains(own)));
        let itself = port.balancer.iter().filter(|_| own).map(|address| Ipv4Net::from(*address));
        for net in port.sources.iter().copied().chain(itself) {
            table.rule(&chain, Rule::new().source(net).verdict(&Verdict::Return));
        }
        table.rule(&chain, Rule::new().verdict(&Verdict::Drop));
        for address in &port.balancer {
            let key = Key::Service(ServiceKey { address: *address, ..port.cluster });
            table.verdict("firewall-ips", key, Verdict::Goto(chain.clone()));
        }
    }

    /// The cluster address: to a chain, or to nobody.
    fn serve_inside(&self, table: &mut Table, inside: &str) {
        let port = self.port;
        let targets = if port.internal_local { &port.local } else { &port.endpoints };
        let key = Key::Service(port.cluster);
        match targets.is_empty() {
            false => table.verdict("service-ips", key, Verdict::Goto(chain_name(inside, self.name))),
            true => table.verdict("no-endpoint-services", key, self.refusal()),
        }
    }

    /// Endpoints that are elsewhere only must not be told apart from a network that loses packets, as
    /// upstream has it; with none at all the connection is refused.
    fn refusal(&self) -> Verdict {
        match self.port.endpoints.is_empty() {
            true => Verdict::Goto(REJECT.into()),
            false => Verdict::Drop,
        }
    }

    /// Node port and external addresses.
    fn serve_outside(&self, table: &mut Table, cluster: &str) {
        let port = self.port;
        let chain = chain_name("external", self.name);
        if port.external_local {
            // A short cut for this node's own pods. One of another node's would be answered past this node
            // if its endpoint were picked elsewhere, and would not know the answer: it is as any client.
            if let Some(pods) = self.ruleset.own_pods.or(self.ruleset.cluster_cidr) {
                table.rule(&chain, Rule::new().source(pods).goto(cluster));
            }
            table.rule(&chain, Rule::new().source_is_this_machine().jump(MARK));
            table.rule(&chain, Rule::new().source_is_this_machine().goto(cluster));
            if !port.local.is_empty() {
                table.rule(&chain, Rule::new().goto(&chain_name("local", self.name)));
            }
        } else {
            table.rule(&chain, Rule::new().jump(MARK));
            table.rule(&chain, Rule::new().goto(cluster));
        }
        for key in port.external_keys() {
            table.verdict("service-ips", Key::Service(key), Verdict::Goto(chain.clone()));
        }
        if let Some(number) = port.node_port {
            table.verdict("service-nodeports", Key::Port(port.protocol(), number), Verdict::Goto(chain));
        }
    }

    fn refuse_outside(&self, table: &mut Table) {
        let port = self.port;
        if !(if port.external_local { &port.local } else { &port.endpoints }).is_empty() {
            return;
        }
        for key in port.external_keys() {
            table.verdict("no-endpoint-services", Key::Service(key), self.refusal());
        }
        if let Some(number) = port.node_port {
            table.verdict("no-endpoint-nodeports", Key::Port(port.protocol(), number), self.refusal());
        }
    }

    /// A chain that sends each new connection to one of the targets, or a known client to its own.
    fn balance(&self, table: &mut Table, chain: &str, targets: &BTreeSet<(Ipv4Addr, u16)>, inside: bool) {
        let port = self.port;
        if inside {
            let to_service = || {
                Rule::new()
                    .destination(port.cluster.address.into())
                    .destination_port(port.protocol(), port.cluster.port)
            };
            if self.ruleset.masquerade_all {
                table.rule(chain, to_service().jump(MARK));
            } else if let Some(pods) = self.ruleset.cluster_cidr {
                table.rule(chain, to_service().source_outside(pods).jump(MARK));
            }
        }
        let targets: Vec<(Ipv4Addr, u16)> = targets.iter().copied().collect();
        let Some(time) = port.affinity else {
            table.rule(chain, Rule::new().balance_endpoints(port.protocol(), &targets));
            return;
        };
        let endpoints: Vec<String> = targets
            .iter()
            .map(|(address, number)| {
                let name = format!("{}__{address}/{number}", self.name);
                let (endpoint, memory) = (chain_name("endpoint", &name), chain_name("affinity", &name));
                if !table.has_set(&memory) {
                    table.set(&memory, SetKind::Remembered(time));
                    table.rule(&endpoint, Rule::new().remember_source(&memory));
                    table.rule(&endpoint, Rule::new().protocol(port.protocol()).dnat(*address, *number));
                }
                table.rule(chain, Rule::new().source_in(&memory).goto(&endpoint));
                endpoint
            })
            .collect();
        table.rule(chain, Rule::new().balance_chains(&endpoints));
    }
}

/// `KIND-HASH-NAME`, the hash being upstream's: eight characters of base32 of SHA-256.
fn chain_name(kind: &str, name: &str) -> String {
    let hash = digest(&SHA256, name.as_bytes());
    let full = format!("{kind}-{}-{name}", base32(&hash.as_ref()[..5]));
    // The kernel's limit on names is 128 with the zero; the hash keeps cut names apart.
    full.chars().take(127).collect()
}

/// Five bytes as eight base32 characters (RFC 4648).
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let number = bytes.iter().take(5).fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    (0..8).rev().map(|at| char::from(ALPHABET[(number >> (5 * at)) as usize & 31])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_named_as_upstream_names_them() {
        assert_eq!(chain_name("service", "ns1/svc1/tcp/p80"), "service-ULMVA6XW-ns1/svc1/tcp/p80");
        assert_eq!(
            chain_name("service", "default/kubernetes/tcp/https"),
            "service-2QRHZV4L-default/kubernetes/tcp/https"
        );
        assert_eq!(chain_name("endpoint", &"x".repeat(300)).len(), 127);
    }
}
