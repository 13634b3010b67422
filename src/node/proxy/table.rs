//! The ruleset as an nftables table, laid out as upstream's nftables proxy lays it out.
//!
//! ```text
//!  nat-prerouting, nat-output ─▶ services ─vmap @service-ips─▶ service-HASH-… ─numgen vmap─▶ endpoint-HASH-…: dnat
//!  filter-forward, filter-output ─new─▶ service-endpoints-check ─vmap @no-endpoint-services─▶ reject-chain
//!  nat-postrouting ─▶ masquerading
//! ```

use ring::digest::{SHA256, digest};

use super::ruleset::{Backend, Ruleset};
use crate::sys::nft::{
    Batch, ChainKind, Family, Hook, NftError, Protocol, Rule, ServiceKey, Verdict, priority,
};

const TABLE: &str = "kube-proxy";
const MARK: &str = "mark-for-masquerade";

/// Writes the ruleset in one transaction, over whatever was there.
pub fn write(ruleset: &Ruleset) -> Result<(), NftError> {
    batch(ruleset).commit()
}

/// Removes every rule of kube-proxy's.
pub fn remove() -> Result<(), NftError> {
    Batch::remove(Family::Ip, TABLE).commit()
}

fn batch(ruleset: &Ruleset) -> Batch {
    let mut batch = Batch::replace(Family::Ip, TABLE);
    for chain in [MARK, "masquerading", "services", "service-endpoints-check", "reject-chain"] {
        batch.chain(chain);
    }
    masquerading(&mut batch, ruleset.masquerade_mark);
    batch.rule("reject-chain", &Rule::new().reject());
    let (mut served, mut empty) = (Vec::new(), Vec::new());
    for (key, backend) in &ruleset.ports {
        if backend.endpoints.is_empty() {
            empty.push((*key, Verdict::Goto("reject-chain".into())));
        } else {
            served.push((*key, Verdict::Goto(service(&mut batch, ruleset, *key, backend))));
        }
    }
    batch.service_map("service-ips", &served);
    batch.service_map("no-endpoint-services", &empty);
    batch.rule("services", &Rule::new().verdict_by_service("service-ips"));
    batch.rule("service-endpoints-check", &Rule::new().verdict_by_service("no-endpoint-services"));
    hooks(&mut batch);
    batch
}

fn hooks(batch: &mut Batch) {
    for (name, hook) in [("nat-prerouting", Hook::Prerouting), ("nat-output", Hook::Output)] {
        batch.base_chain(name, ChainKind::Nat, hook, priority::DSTNAT);
        batch.rule(name, &Rule::new().jump("services"));
    }
    batch.base_chain("nat-postrouting", ChainKind::Nat, Hook::Postrouting, priority::SRCNAT);
    batch.rule("nat-postrouting", &Rule::new().jump("masquerading"));
    for (name, hook) in [("filter-forward", Hook::Forward), ("filter-output", Hook::Output)] {
        batch.base_chain(name, ChainKind::Filter, hook, priority::FILTER);
        batch.rule(name, &Rule::new().new_connection().jump("service-endpoints-check"));
    }
}

fn masquerading(batch: &mut Batch, mark: u32) {
    batch.rule(MARK, &Rule::new().mark_or(mark));
    batch.rule("masquerading", &Rule::new().mark_clear(mark).verdict(&Verdict::Return));
    // Cleared, so that a packet routed again is not masqueraded twice.
    batch.rule("masquerading", &Rule::new().mark_xor(mark));
    batch.rule("masquerading", &Rule::new().masquerade());
}

/// Adds one service port's chain and its endpoints' chains; returns the chain's name.
fn service(batch: &mut Batch, ruleset: &Ruleset, key: ServiceKey, backend: &Backend) -> String {
    let chain = chain_name("service", &backend.name);
    batch.chain(&chain);
    let to_service = || Rule::new().destination(key.address.into()).destination_port(key.protocol, key.port);
    if ruleset.masquerade_all {
        batch.rule(&chain, &to_service().jump(MARK));
    } else if let Some(pods) = ruleset.cluster_cidr {
        batch.rule(&chain, &to_service().source_outside(pods).jump(MARK));
    }
    let mut chains = Vec::with_capacity(backend.endpoints.len());
    for (address, port) in &backend.endpoints {
        let endpoint = chain_name("endpoint", &format!("{}__{address}/{port}", backend.name));
        batch.chain(&endpoint);
        // Hairpin: an endpoint that reaches itself through the service must see another's address.
        batch.rule(&endpoint, &Rule::new().source((*address).into()).jump(MARK));
        batch.rule(&endpoint, &dnat(key.protocol, *address, *port));
        chains.push(endpoint);
    }
    batch.balance(&chain, &chains);
    chain
}

fn dnat(protocol: Protocol, address: std::net::Ipv4Addr, port: u16) -> Rule {
    Rule::new().protocol(protocol).dnat(address, port)
}

/// `KIND-HASH-NAME`, the hash being upstream's: eight characters of base32 of SHA-256.
fn chain_name(kind: &str, name: &str) -> String {
    let hash = digest(&SHA256, name.as_bytes());
    let full = format!("{kind}-{}-{name}", base32(&hash.as_ref()[..5]));
    // The kernel's limit on chain names is 128 with the zero; the hash keeps cut names apart.
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
