//! Service environment variables: `KUBERNETES_SERVICE_HOST` and what enableServiceLinks adds.
//!
//! `pkg/kubelet/envvars` and `getServiceEnvVarMap`: the `kubernetes` service of namespace `default` is told
//! in every namespace, the others in their own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tracing::warn;

use crate::client::Backoff;
use crate::net::go_text;

/// The variables of every service, by namespace and name.
#[derive(Clone)]
pub struct Services {
    known: Known,
    synced: watch::Receiver<bool>,
}

impl Services {
    /// Starts watching.
    pub fn watch(client: Client) -> Self {
        let known = Arc::default();
        let (sender, synced) = watch::channel(false);
        tokio::spawn(follow(client, Arc::clone(&known), sender));
        Self { known, synced }
    }

    /// Waits until the services have been read once: before that no environment can be made.
    pub async fn ready(&self) {
        // The watcher lives as long as the process.
        let _ = self.synced.clone().wait_for(|synced| *synced).await;
    }

    /// What a pod of this namespace is told.
    pub fn variables(&self, namespace: &str, links: bool) -> BTreeMap<String, String> {
        let known = self.known.lock().expect("nothing panics while holding the lock");
        let told = known.iter().filter(|((place, name), _)| {
            (place == "default" && name == "kubernetes") || (links && place == namespace)
        });
        told.flat_map(|(_, variables)| variables.iter().cloned()).collect()
    }
}

type Known = Arc<Mutex<BTreeMap<(String, String), Vec<(String, String)>>>>;

async fn follow(client: Client, known: Known, synced: watch::Sender<bool>) {
    let api: Api<Service> = Api::all(client);
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).backoff(Backoff::new()));
    let mut fresh = BTreeMap::new();
    while let Some(event) = events.next().await {
        let mut known = known.lock().expect("nothing panics while holding the lock");
        match event {
            Ok(watcher::Event::Init) => fresh = BTreeMap::new(),
            Ok(watcher::Event::InitApply(service)) => {
                fresh.insert(key(&service), variables(&service));
            }
            Ok(watcher::Event::InitDone) => {
                *known = std::mem::take(&mut fresh);
                synced.send_replace(true);
            }
            Ok(watcher::Event::Apply(service)) => {
                known.insert(key(&service), variables(&service));
            }
            Ok(watcher::Event::Delete(service)) => {
                known.remove(&key(&service));
            }
            Err(error) => warn!(error = go_text(&error), "Watching services failed"),
        }
    }
}

fn key(service: &Service) -> (String, String) {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    (text(&service.metadata.namespace), text(&service.metadata.name))
}

/// One service's variables, `{SVCNAME}_SERVICE_HOST` to Docker's links.
fn variables(service: &Service) -> Vec<(String, String)> {
    let name = upper(service.metadata.name.as_deref().unwrap_or_default());
    let Some(spec) = &service.spec else { return Vec::new() };
    let (Some(address), Some(ports)) = (&spec.cluster_ip, &spec.ports) else { return Vec::new() };
    let Some(first) = ports.first().filter(|_| !address.is_empty() && address != "None") else {
        return Vec::new();
    };
    let mut all = vec![
        (format!("{name}_SERVICE_HOST"), address.clone()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            all.push((format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string()));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let (protocol, url) = link(address, port);
        if index == 0 {
            all.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        all.push((prefix.clone(), url));
        all.push((format!("{prefix}_PROTO"), protocol));
        all.push((format!("{prefix}_PORT"), port.port.to_string()));
        all.push((format!("{prefix}_ADDR"), address.clone()));
    }
    all
}

fn link(address: &str, port: &ServicePort) -> (String, String) {
    let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
    let url = format!("{protocol}://{address}:{}", port.port);
    (protocol, url)
}

fn upper(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_kubernetes_service_gives_upstreams_eight_variables() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]},
        }))
        .unwrap();
        let lines: Vec<String> =
            variables(&service).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            lines,
            [
                "KUBERNETES_SERVICE_HOST=10.96.0.1",
                "KUBERNETES_SERVICE_PORT=443",
                "KUBERNETES_SERVICE_PORT_HTTPS=443",
                "KUBERNETES_PORT=tcp://10.96.0.1:443",
                "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
                "KUBERNETES_PORT_443_TCP_PROTO=tcp",
                "KUBERNETES_PORT_443_TCP_PORT=443",
                "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1",
            ]
        );
        let headless =
            json!({"metadata": {"name": "x"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}});
        assert!(variables(&serde_json::from_value(headless).unwrap()).is_empty());
    }
}
