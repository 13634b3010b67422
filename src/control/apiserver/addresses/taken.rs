//! Which addresses and ports the stored Services have, brought up to date by what changed since.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::Value;

use crate::control::store::{Entry, Revision, Store};

/// One Service's share.
struct Share {
    revision: Revision,
    address: Option<Ipv4Addr>,
    ports: Vec<u16>,
}

/// Everybody's.
#[derive(Default)]
pub struct Taken {
    /// The bucket's last change that is counted here.
    seen: Revision,
    shares: HashMap<Arc<str>, Share>,
    addresses: HashMap<Ipv4Addr, Arc<str>>,
    ports: HashMap<u16, Arc<str>>,
}

impl Taken {
    /// Reads the Services that changed; a write costs what it changed, not what there is.
    pub fn refresh(&mut self, store: &Store, bucket: &str) {
        let now = store.bucket_revision(bucket);
        if now == self.seen {
            return;
        }
        let Ok(page) = store.list(bucket, "", None, None, None) else { return };
        self.seen = now;
        let mut before = std::mem::take(&mut self.shares);
        for entry in page.entries {
            let known = before.remove(&entry.key).filter(|share| share.revision == entry.mod_revision);
            let share = known.unwrap_or_else(|| Share::of(&entry));
            self.shares.insert(entry.key, share);
        }
        (self.addresses, self.ports) = (HashMap::new(), HashMap::new());
        for (key, share) in &self.shares {
            self.addresses.extend(share.address.map(|address| (address, key.clone())));
            self.ports.extend(share.ports.iter().map(|port| (*port, key.clone())));
        }
    }

    pub fn has_address(&self, address: Ipv4Addr, but: &str) -> bool {
        self.addresses.get(&address).is_some_and(|owner| **owner != *but)
    }

    pub fn has_port(&self, port: u16, but: &str) -> bool {
        self.ports.get(&port).is_some_and(|owner| **owner != *but)
    }
}

impl Share {
    fn of(entry: &Entry) -> Self {
        let service: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        let spec = &service["spec"];
        let listed = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
        let ports = listed.chain([&spec["healthCheckNodePort"]]);
        Self {
            revision: entry.mod_revision,
            address: spec["clusterIP"].as_str().and_then(|text| text.parse().ok()),
            ports: ports
                .filter_map(|port| u16::try_from(port.as_u64()?).ok())
                .filter(|port| *port != 0)
                .collect(),
        }
    }
}
