//! ClusterIPs: the one asked for if it is free, else one of the range (`ipallocator`).

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::{Others, is_blank, random};
use crate::api::status::{Cause, Result, Status};
use crate::control::apiserver::handlers::meta;

/// Checks the address a Service asks for or picks one; returns what is to be held.
pub(super) fn allot(range: Ipv4Net, service: &mut Value, others: &Others<'_>) -> Result<Option<Ipv4Addr>> {
    let asked = service["spec"]["clusterIP"].as_str().filter(|text| !text.is_empty());
    let address = match asked {
        Some("None") => return Ok(None),
        Some(text) => check(range, text, others).map_err(|why| {
            let why = format!("failed to allocate IP {text}: {why}");
            let cause = Cause::invalid("spec.clusterIPs", &service["spec"]["clusterIPs"], &why);
            Status::invalid("", "Service", meta::text(service, "name"), &[cause])
        })?,
        None => pick(range, |address| others.have_address(address))
            .ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?,
    };
    let spec = &mut service["spec"];
    if is_blank(&spec["clusterIP"]) {
        spec["clusterIP"] = json!(address);
        spec["clusterIPs"] = json!([address]);
    }
    Ok(Some(address))
}

/// In the words of the allocator that works with ServiceCIDRs, on since 1.33 (`ipallocator.go`).
fn check(range: Ipv4Net, text: &str, others: &Others<'_>) -> std::result::Result<Ipv4Addr, &'static str> {
    // What is no address was refused before.
    let address: Ipv4Addr =
        text.parse().map_err(|_| "the provided network does not match the current range")?;
    if !range.contains(&address) || address == range.network() || address == range.broadcast() {
        return Err("the provided network does not match the current range");
    }
    if others.have_address(address) { Err("provided IP is already allocated") } else { Ok(address) }
}

/// A random free address, from the upper part of the range first: its beginning is kept for addresses
/// that are chosen by hand, such as the DNS server's (KEP-3070).
fn pick(range: Ipv4Net, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    let first = u32::from(range.network()) + 1;
    let count = u32::from(range.broadcast()).checked_sub(first)?;
    let by_hand = (count / 16).clamp(16, 256).min(count);
    let free = |offset: u32| Some(Ipv4Addr::from(first + offset)).filter(|address| !taken(*address));
    let upper = count - by_hand;
    let start = random() % upper.max(1);
    let upper = (0..upper).map(|step| by_hand + (start + step) % upper);
    upper.chain(0..by_hand).find_map(free)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::State;
    use super::*;

    #[test]
    fn addresses_are_picked_from_the_upper_part_until_it_is_full() {
        let range: Ipv4Net = "10.96.0.0/27".parse().unwrap();
        let (mut taken, mut seen) = (HashSet::new(), Vec::new());
        while let Some(address) = pick(range, |address| taken.contains(&address)) {
            assert!(range.contains(&address));
            seen.push(address);
            taken.insert(address);
        }
        assert_eq!(seen.len(), 30);
        assert!(seen[..14].iter().all(|address| address.octets()[3] > 16), "{seen:?}");
    }

    #[test]
    fn a_taken_or_foreign_address_is_refused() {
        let range: Ipv4Net = "10.96.0.0/12".parse().unwrap();
        let mut state = State::default();
        state.promised.addresses.insert([10, 96, 0, 10].into(), "default/b".into());
        let others = Others { state: &state, own: "default/a" };
        for (address, why) in [
            ("10.96.0.10", "failed to allocate IP 10.96.0.10: provided IP is already allocated"),
            (
                "1.2.3.4",
                "failed to allocate IP 1.2.3.4: the provided network does not match the current range",
            ),
        ] {
            let spec = json!({"clusterIP": address, "clusterIPs": [address]});
            let mut service = json!({"metadata": {"name": "a"}, "spec": spec});
            let status = allot(range, &mut service, &others).unwrap_err();
            let want =
                format!("Service \"a\" is invalid: spec.clusterIPs: Invalid value: [{address:?}]: {why}");
            assert_eq!((status.code, status.message), (422, want));
        }
    }
}
