//! One group version that another server answers for, and the way to that server.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::ClientConfig;
use serde_json::Value;

use crate::control::apiserver::callee::ServiceRoad;
use crate::control::apiserver::lookup::text;
use crate::control::apiserver::server::Api;
use crate::net::{Identity, Protocols, TlsDialer, Verify, client_config};

/// Who answers for a group version.
pub struct Remote {
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub service: String,
    pub port: u64,
    /// The order of groups; within one, its versions go by their names.
    pub priority: i64,
    pub available: bool,
    /// Its `APIResourceList`, as last seen.
    pub resources: Value,
    /// Where it has the OpenAPI document of this version, if it has one.
    pub described: Option<String>,
    /// How it is believed; an error is told to clients.
    tls: Result<Arc<ClientConfig>, String>,
}

impl Remote {
    /// What an APIService says of it.
    pub fn of(object: &Value, identity: Option<&Identity>, resources: Value) -> Self {
        let spec = &object["spec"];
        let own = |pointer: &str| text(spec, pointer).to_owned();
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        Self {
            group: own("/group"),
            version: own("/version"),
            namespace: own("/service/namespace"),
            service: own("/service/name"),
            port: spec["service"]["port"].as_u64().unwrap_or(443),
            priority: spec["groupPriorityMinimum"].as_i64().unwrap_or_default(),
            available: conditions
                .into_iter()
                .any(|one| one["type"] == "Available" && one["status"] == "True"),
            resources,
            described: None,
            tls: config(spec, identity),
        }
    }

    /// Its name in certificates, and its port.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// The way to it, over TLS as its APIService says.
    ///
    /// # Errors
    /// What is wrong with the authorities it names.
    pub fn dialer(&self, api: &Api) -> Result<TlsDialer, String> {
        let road = ServiceRoad::new(&api.store, &api.roads, &self.namespace, &self.service, self.port);
        Ok(TlsDialer { road: Arc::new(road), config: self.tls.clone()? })
    }
}

fn config(spec: &Value, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, String> {
    let verify = match spec["insecureSkipTLSVerify"] == true {
        true => Verify::Unverified,
        false => {
            let bundle = BASE64_STANDARD.decode(text(spec, "/caBundle"));
            Verify::Bundle(bundle.map_err(|error| format!("unable to load root certificates: {error}"))?)
        }
    };
    client_config(&verify, identity, Protocols::H1)
        .map_err(|error| format!("unable to load root certificates: {error}"))
}
