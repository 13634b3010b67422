//! What a Service is given when it is written: its address family, a ClusterIP, node ports
//! (`pkg/registry/core/service/storage/alloc.go`, `.../{ipallocator,portallocator}`).
//!
//! What is taken is read from the stored Services themselves; what is promised to a write that is still on
//! its way is held until that write is over. The cluster is single-stack IPv4, as the lab is: who asks for
//! IPv6 is told so in upstream's words.

mod cluster_ip;
mod families;
mod node_ports;
mod taken;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

pub use node_ports::PortRange;
use taken::Taken;

use super::handlers::meta;
use super::registry::Resource;
use super::server::Api;
use crate::api::status::{Result, Status};

/// What is taken and what is promised to writes under way.
#[derive(Default)]
pub struct Addresses {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: Taken,
    promised: Promised,
}

/// Each with the key of the Service it is for: two writes of one Service are not in each other's way.
#[derive(Default)]
struct Promised {
    addresses: HashMap<Ipv4Addr, String>,
    ports: HashMap<u16, String>,
}

impl Addresses {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one Service may not have, because others do.
struct Others<'a> {
    state: &'a State,
    /// The Service's own key.
    own: &'a str,
}

impl Others<'_> {
    fn have_address(&self, address: Ipv4Addr) -> bool {
        let promised = self.state.promised.addresses.get(&address).is_some_and(|owner| owner != self.own);
        promised || self.state.taken.has_address(address, self.own)
    }

    fn have_port(&self, port: u16) -> bool {
        let promised = self.state.promised.ports.get(&port).is_some_and(|owner| owner != self.own);
        promised || self.state.taken.has_port(port, self.own)
    }
}

/// Holds what one write was promised, until it is dropped.
pub struct Held {
    api: Arc<Api>,
    address: Option<Ipv4Addr>,
    ports: Vec<u16>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.api.addresses.lock();
        if let Some(address) = self.address {
            state.promised.addresses.remove(&address);
        }
        for port in &self.ports {
            state.promised.ports.remove(port);
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
    // One without an address that must not be given any: what it should not say is said by validation.
    if row.kind != "Service" || !row.group.is_empty() || service["spec"]["type"] == "ExternalName" {
        return Ok(None);
    }
    let name = meta::text(service, "name").to_owned();
    let invalid = |causes: Vec<_>| Status::invalid("", "Service", &name, &causes);
    if let Some(old) = old {
        inherit(service, old);
    }
    families::settle(service).map_err(invalid)?;
    let own = row.key(meta::text(service, "namespace"), &name);
    let mut state = api.addresses.lock();
    state.taken.refresh(&api.store, &row.bucket);
    let others = Others { state: &state, own: &own };
    let address = cluster_ip::allot(api.service_range, service, &others)?;
    let ports = node_ports::allot(api.node_ports, service, &others)?;
    state.promised.addresses.extend(address.map(|address| (address, own.clone())));
    state.promised.ports.extend(ports.iter().map(|port| (*port, own.clone())));
    drop(state);
    Ok(Some(Held { api: api.clone(), address, ports }))
}

/// An update that leaves addresses and ports out keeps those it has (`patchAllocatedValues`).
fn inherit(service: &mut Value, old: &Value) {
    if old["spec"]["type"] == "ExternalName" {
        return;
    }
    let (before, now) = (old["spec"]["clusterIP"].clone(), service["spec"]["clusterIP"].clone());
    let same_list = service["spec"]["clusterIPs"] == old["spec"]["clusterIPs"];
    // Of two fields that say the same the one that was changed is meant.
    if same_list && !is_blank(&now) && now != before {
        service["spec"]["clusterIPs"] = json!([now]);
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if is_blank(&service["spec"][field]) && !is_blank(&old["spec"][field]) {
            service["spec"][field] = old["spec"][field].clone();
        }
    }
    node_ports::inherit(service, old);
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

/// Any number.
fn random() -> u32 {
    let bytes = uuid::Uuid::new_v4();
    u32::from_be_bytes([bytes.as_bytes()[0], bytes.as_bytes()[1], bytes.as_bytes()[2], bytes.as_bytes()[3]])
}
