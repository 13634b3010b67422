//! `EgressSelectorConfiguration`, read strictly and checked in upstream's words (`egressselector/config.go`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::tunnel::konnectivity::TunnelError;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    egress_selections: Vec<Selection>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selection {
    name: String,
    connection: Connection,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Connection {
    proxy_protocol: Protocol,
    #[serde(default)]
    transport: Option<TransportFields>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    Direct,
    #[serde(rename = "GRPC")]
    Grpc,
    #[serde(rename = "HTTPConnect")]
    HttpConnect,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TransportFields {
    #[serde(default)]
    tcp: Option<Tcp>,
    #[serde(default)]
    uds: Option<Uds>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Uds {
    uds_name: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tcp {
    pub url: String,
    #[serde(default)]
    pub tls_config: Option<Tls>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    #[serde(default)]
    pub ca_bundle: Option<PathBuf>,
    #[serde(default)]
    pub client_key: Option<PathBuf>,
    #[serde(default)]
    pub client_cert: Option<PathBuf>,
    #[serde(default)]
    pub tls_server_name: Option<String>,
}

/// How the server is reached.
#[derive(Debug)]
pub enum Transport<'a> {
    Uds(&'a PathBuf),
    Tcp(&'a Tcp),
}

impl Configuration {
    pub fn read(path: &Path) -> Result<Self, TunnelError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TunnelError::Read { path: path.to_owned(), source })?;
        let own: Self = serde_yaml_ng::from_str(&text)
            .map_err(|source| TunnelError::Parse { path: path.to_owned(), source })?;
        own.check().map_err(TunnelError::Configuration)?;
        Ok(own)
    }

    /// The connection of a name.
    pub fn find(&self, name: &str) -> Option<(Protocol, Option<Transport<'_>>)> {
        let found = self.egress_selections.iter().find(|own| own.name.to_lowercase() == name)?;
        let transport = found.connection.transport.as_ref().and_then(|transport| match transport {
            TransportFields { uds: Some(uds), .. } => Some(Transport::Uds(&uds.uds_name)),
            TransportFields { tcp: Some(tcp), .. } => Some(Transport::Tcp(tcp)),
            _ => None,
        });
        Some((found.connection.proxy_protocol, transport))
    }

    fn check(&self) -> Result<(), String> {
        if self.kind != "EgressSelectorConfiguration"
            || !matches!(self.api_version.as_str(), "apiserver.k8s.io/v1beta1" | "apiserver.k8s.io/v1alpha1")
        {
            return Err(format!("{} {} is not an EgressSelectorConfiguration", self.api_version, self.kind));
        }
        let mut names = BTreeSet::new();
        for selection in &self.egress_selections {
            let name = selection.name.to_lowercase();
            if !matches!(name.as_str(), "controlplane" | "cluster" | "etcd") {
                return Err(format!(
                    "egressSelection.name: Unsupported value: {name:?}: supported values: \"controlplane\", \"cluster\", \"etcd\""
                ));
            }
            if !names.insert(name.clone()) {
                return Err(format!("egressSelection.name: Duplicate value: {name:?}"));
            }
            selection.connection.check()?;
        }
        Ok(())
    }
}

impl Connection {
    fn check(&self) -> Result<(), String> {
        let Some(transport) = &self.transport else {
            return match self.proxy_protocol {
                Protocol::Direct => Ok(()),
                Protocol::Grpc => {
                    Err("connection.transport: Required value: transport must be set for GRPC connection"
                        .into())
                }
                Protocol::HttpConnect => Err(
                    "connection.transport: Required value: transport must be set for HTTPConnect connection"
                        .into(),
                ),
            };
        };
        match (self.proxy_protocol, &transport.tcp, &transport.uds) {
            (Protocol::Direct, ..) => {
                Err("connection.transport: Invalid value: transport must not be set for direct connect"
                    .into())
            }
            (_, Some(_), Some(_)) => {
                Err("connection.transport: Invalid value: exactly one of tcp and uds must be specified"
                    .into())
            }
            (_, None, None) => {
                Err("connection.transport: Required value: one of tcp and uds must be set".into())
            }
            (Protocol::Grpc, Some(_), None) => {
                Err("connection.transport.tcp: Invalid value: tcp is not supported for GRPC connection"
                    .into())
            }
            (_, None, Some(uds)) if uds.uds_name.as_os_str().is_empty() => {
                Err("connection.transport.uds.udsName: Required value: udsName must be present".into())
            }
            (_, None, Some(_)) => Ok(()),
            (_, Some(tcp), None) => tcp.check(),
        }
    }
}

impl Tcp {
    fn check(&self) -> Result<(), String> {
        let plain = self.url.starts_with("http://");
        if !plain && !self.url.starts_with("https://") {
            return Err(format!(
                "connection.transport.tcp.url: Invalid value: {:?}: supported connection protocols are \"http://\" and \"https://\"",
                self.url
            ));
        }
        let field = "connection.transport.tcp.tlsConfig";
        match &self.tls_config {
            Some(_) if plain => {
                Err(format!("{field}: Invalid value: tlsConfig config should not be present when using HTTP"))
            }
            None if !plain => Err(format!("{field}: Required value: tlsConfig must be present for HTTPS")),
            Some(tls) if tls.client_cert.is_none() => {
                Err(format!("{field}.clientCert: Required value: using TLS requires clientCert"))
            }
            Some(tls) if tls.client_key.is_none() => {
                Err(format!("{field}.clientKey: Required value: using TLS requires clientKey"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(selection: &str) -> Result<Configuration, String> {
        let text = format!(
            "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections: [{selection}]"
        );
        let own: Configuration = serde_yaml_ng::from_str(&text).map_err(|error| error.to_string())?;
        own.check().map(|()| own)
    }

    #[test]
    fn the_tasks_file_is_read() {
        let own = read(
            "{name: cluster, connection: {proxyProtocol: GRPC, transport: {uds: {udsName: /k.socket}}}}",
        );
        let own = own.unwrap();
        assert!(matches!(own.find("cluster"), Some((Protocol::Grpc, Some(Transport::Uds(_))))));
        assert!(own.find("etcd").is_none());
    }

    #[test]
    fn what_upstream_refuses_is_refused() {
        for (wrong, why) in [
            ("{name: master, connection: {proxyProtocol: Direct}}", "Unsupported value: \"master\""),
            (
                "{name: etcd, connection: {proxyProtocol: Direct}}, {name: ETCD, connection: {proxyProtocol: Direct}}",
                "Duplicate",
            ),
            ("{name: cluster, connection: {proxyProtocol: GRPC}}", "transport must be set"),
            (
                "{name: cluster, connection: {proxyProtocol: Direct, transport: {uds: {udsName: /a}}}}",
                "must not be set",
            ),
            (
                "{name: cluster, connection: {proxyProtocol: GRPC, transport: {tcp: {url: 'http://a'}}}}",
                "not supported",
            ),
            (
                "{name: cluster, connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: 'https://a'}}}}",
                "must be present for HTTPS",
            ),
            (
                "{name: cluster, connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: 'https://a', tlsConfig: {clientCert: /c}}}}}",
                "requires clientKey",
            ),
            (
                "{name: cluster, connection: {proxyProtocol: HTTPConnect, transport: {}}}",
                "one of tcp and uds",
            ),
            ("{name: cluster, connection: {proxyProtocol: Sctp}}", "unknown variant"),
            ("{name: cluster, conection: {}}", "unknown field"),
        ] {
            let error = read(wrong).map(|_| ()).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
