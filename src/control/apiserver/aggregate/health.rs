//! Whether another server answers for its group version (`controllers/status/remote/remote_available_controller.go`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Remote;
use crate::control::apiserver::lookup::{self, text};
use crate::control::apiserver::proxy;
use crate::control::apiserver::server::Api;
use crate::control::store::Store;
use crate::net::{Identity, TlsDialer, Verify, client_config};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Who asks, and as whom: may see everything.
const ASKER: (&str, &str) = ("system:kube-aggregator", "system:masters");

/// What was found out about a server.
pub struct Found {
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
    /// Its resources, when it told them.
    pub resources: Option<Value>,
    pub described: Option<String>,
}

fn unavailable(reason: &'static str, message: String) -> Found {
    Found { status: "False", reason, message, resources: None, described: None }
}

/// Looks at the service, at its endpoints, and asks for its discovery document.
pub async fn look(api: &Api, remote: &Remote, identity: Option<&Identity>) -> Found {
    if let Some(found) = routed(&api.store, remote) {
        return found;
    }
    let path = format!("/apis/{}/{}", remote.group, remote.version);
    let place = format!("https://{}:{}{path}", remote.host(), remote.port);
    let failed = |why: String| {
        unavailable("FailedDiscoveryCheck", format!("failing or missing response from {place}: {why}"))
    };
    let resources = match get(api, remote, identity, &path).await {
        Ok((200..300, body)) => body,
        Ok((code, _)) => return failed(format!("bad status from {place}: {code}")),
        Err(why) => return failed(why),
    };
    let described = match get(api, remote, identity, "/openapi/v3").await {
        Ok((200, index)) => {
            let own = &index["paths"][path.trim_start_matches('/')]["serverRelativeURL"];
            own.as_str().map(str::to_owned)
        }
        _ => None,
    };
    let message = "all checks passed".to_owned();
    Found { status: "True", reason: "Passed", message, resources: Some(resources), described }
}

/// What is wrong with the service before anybody is asked.
fn routed(store: &Store, remote: &Remote) -> Option<Found> {
    let (name, namespace) = (&remote.service, &remote.namespace);
    let place = format!("service/{name} in {namespace:?}");
    let Some(service) = lookup::object(store, "", "services", namespace, name) else {
        return Some(unavailable("ServiceNotFound", format!("{place} is not present")));
    };
    if service["spec"]["type"] != "ClusterIP" {
        return None;
    }
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let Some(port) = ports.find(|port| port["port"].as_u64() == Some(remote.port)) else {
        let why = format!("{place} is not listening on port {}", remote.port);
        return Some(unavailable("ServicePortError", why));
    };
    let Some(endpoints) = lookup::object(store, "", "endpoints", namespace, name) else {
        return Some(unavailable("EndpointsNotFound", format!("cannot find endpointslices for {place}")));
    };
    let own = text(port, "/name");
    let mut subsets = endpoints["subsets"].as_array().into_iter().flatten();
    let ready = subsets.any(|subset| {
        let mut ports = subset["ports"].as_array().into_iter().flatten();
        subset["addresses"].as_array().is_some_and(|list| !list.is_empty())
            && ports.any(|port| text(port, "/name") == own)
    });
    let why = || format!("endpointslices for {place} have no addresses with port name {own:?}");
    (!ready).then(|| unavailable("MissingEndpoints", why()))
}

/// Asks for a document, whoever answers: what comes of it is shown and never trusted.
async fn get(
    api: &Api,
    remote: &Remote,
    identity: Option<&Identity>,
    path: &str,
) -> Result<(u16, Value), String> {
    let config = client_config(&Verify::Unverified, identity, crate::net::Protocols::H1);
    let config = config.map_err(|error| error.to_string())?;
    let dialer = TlsDialer { config: Arc::clone(&config), ..remote.dialer(api)? };
    let asking = proxy::aggregated::get(&dialer, remote, path, ASKER);
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "Get \"https://{}:{}{path}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            remote.host(),
            remote.port
        )),
    }
}
