//! Where `nodes/NAME/proxy`, `pods/NAME/proxy` and `services/NAME/proxy` lead (each kind's
//! `ResourceLocation`), read from `{[http:|https:]name[:port]}`.

use std::net::IpAddr;

use serde_json::Value;

use crate::api::status::{Result, Status};
use crate::control::apiserver::kubelet::{KubeletClient, Location, pod_of};
use crate::control::apiserver::lookup::{self, text};
use crate::control::apiserver::registry;
use crate::control::apiserver::request::ResourceRequest;

/// Whom a proxied request goes to, and what the wire has on the way.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// The kubelet's own port: TLS as the kubelet flags have it, with the API server's client certificate.
    Kubelet(Location),
    /// Plain HTTP: everybody on the way reads and writes along.
    Plaintext { host: String, port: String },
    /// TLS to whoever answers, offering no certificate.
    TlsUnverified { host: String, port: String },
}

/// A name as the path has it (`SplitSchemeNamePort`): the number of colons decides what each part is.
#[derive(Debug, PartialEq)]
pub struct Named<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Named<'a> {
    pub fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        (matches!(scheme, "" | "http" | "https") && !name.is_empty()).then_some(Self { scheme, name, port })
    }

    fn target(&self, host: String, port: &str) -> Target {
        let port = port.to_owned();
        match (self.scheme, port.as_str()) {
            ("https", "") => Target::TlsUnverified { host, port: "443".into() },
            ("https", _) => Target::TlsUnverified { host, port },
            (_, "") => Target::Plaintext { host, port: "80".into() },
            _ => Target::Plaintext { host, port },
        }
    }
}

/// Finds whom a request is for.
pub async fn find(kubelets: &KubeletClient, asked: &ResourceRequest) -> Result<Target> {
    let kind = asked.resource.trim_end_matches('s');
    let invalid = || Status::bad_request(format!("invalid {kind} request {:?}", asked.name));
    let named = Named::parse(&asked.name).ok_or_else(invalid)?;
    match kind {
        "node" => node(kubelets, &named).await,
        "pod" => pod(kubelets, &asked.namespace, &named),
        _ => service(kubelets, asked, &named),
    }
}

/// A node: its kubelet without a port or with the kubelet's, else any port of its address.
async fn node(kubelets: &KubeletClient, named: &Named<'_>) -> Result<Target> {
    let location = kubelets.locate(named.name)?;
    may_be_reached(&location.host).await?;
    if named.port.is_empty() || named.port == location.port.to_string() {
        return Ok(Target::Kubelet(location));
    }
    Ok(named.target(location.host, named.port))
}

fn pod(kubelets: &KubeletClient, namespace: &str, named: &Named<'_>) -> Result<Target> {
    let row = registry::by_name("", "pods").ok_or_else(Status::no_such_path)?;
    let pod = pod_of(kubelets.store(), row, namespace, named.name)?;
    let first = || {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let mut ports = containers.filter_map(|container| container["ports"].as_array()?.first());
        ports.next().and_then(|port| port["containerPort"].as_u64()).map(|port| port.to_string())
    };
    let port = match named.port {
        "" => first().unwrap_or_default(),
        port => port.to_owned(),
    };
    let address = text(&pod, "/status/podIPs/0/ip");
    match address.parse::<IpAddr>() {
        Ok(ip) if is_global_unicast(ip) => Ok(named.target(address.to_owned(), &port)),
        _ => Err(Status::bad_request("address not allowed")),
    }
}

/// A service: an endpoint of it that is a pod of the same namespace with that address.
fn service(kubelets: &KubeletClient, asked: &ResourceRequest, named: &Named<'_>) -> Result<Target> {
    let object =
        |plural: &str, name: &str| lookup::object(kubelets.store(), "", plural, &asked.namespace, name);
    let unavailable =
        |name: &str| service_unavailable(format!("no endpoints available for service {name:?}"));
    let missing = |plural: &str| Status::not_found("", plural, named.name);
    let mut wanted = named.port.to_owned();
    if let Ok(number) = named.port.parse::<i64>() {
        let service = object("services", named.name).ok_or_else(|| missing("services"))?;
        let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let found = ports.find(|port| port["port"].as_i64() == Some(number)).ok_or_else(|| {
            service_unavailable(format!("no service port {number} found for service {:?}", named.name))
        })?;
        // Endpoints have the port's name, not its number.
        wanted = text(found, "/name").to_owned();
    }
    let endpoints = object("endpoints", named.name).ok_or_else(|| missing("endpoints"))?;
    let subsets = endpoints["subsets"].as_array().filter(|subsets| !subsets.is_empty());
    let subsets = subsets.ok_or_else(|| unavailable(named.name))?;
    let mut found = Vec::new();
    for subset in subsets {
        let ports = subset["ports"].as_array().into_iter().flatten();
        let Some(port) = ports.into_iter().find(|port| text(port, "/name") == wanted) else { continue };
        let addresses = subset["addresses"].as_array().into_iter().flatten();
        let addresses = addresses.filter(|address| is_pod(kubelets, &asked.namespace, address));
        found.extend(addresses.map(|address| (text(address, "/ip").to_owned(), port["port"].to_string())));
    }
    // Any of them, as upstream picks one at random; the clock's last digits are random enough.
    let at = jiff::Timestamp::now().subsec_nanosecond().unsigned_abs() as usize;
    let (host, port) = found.get(at % found.len().max(1)).ok_or_else(|| unavailable(&asked.name))?.clone();
    Ok(named.target(host, &port))
}

/// Whether an endpoint's address is the address of the pod it names: otherwise whoever may write Endpoints
/// could send the API server anywhere.
fn is_pod(kubelets: &KubeletClient, namespace: &str, address: &Value) -> bool {
    let (own, name) = (text(address, "/targetRef/namespace"), text(address, "/targetRef/name"));
    if own != namespace || text(address, "/targetRef/kind") != "Pod" {
        return false;
    }
    let pod = lookup::object(kubelets.store(), "", "pods", namespace, name).unwrap_or_default();
    let mut ips = pod["status"]["podIPs"].as_array().into_iter().flatten();
    ips.any(|ip| text(ip, "/ip") == text(address, "/ip"))
}

/// Every address a node's name has must be one of the cluster's side of the world
/// (`proxyutil.IsProxyableHostname`, CVE-2022-3294). The name is resolved again for dialling, and may then
/// have another (CVE-2020-8562, unfixed upstream too).
async fn may_be_reached(host: &str) -> Result<()> {
    let addresses: Vec<IpAddr> = match host.parse() {
        Ok(ip) => vec![ip],
        Err(_) => {
            let found = tokio::net::lookup_host((host, 0)).await;
            let found = found.map_err(|_| Status::bad_request(format!("lookup {host}: no such host")))?;
            found.map(|address| address.ip()).collect()
        }
    };
    match addresses.iter().all(|ip| is_global_unicast(*ip)) {
        true => Ok(()),
        false => Err(Status::bad_request("address not allowed")),
    }
}

/// Go's `IP.IsGlobalUnicast`: private addresses are, the machine's own and its link's are not.
fn is_global_unicast(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !local && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

pub fn service_unavailable(message: String) -> Status {
    Status::new(503, "ServiceUnavailable", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_by_counting_colons() {
        let read = |text| Named::parse(text).map(|named| (named.scheme, named.name, named.port));
        assert_eq!(read("web"), Some(("", "web", "")));
        assert_eq!(read("web:80"), Some(("", "web", "80")));
        assert_eq!(read("https:web:"), Some(("https", "web", "")));
        assert_eq!(read("https:web:8443"), Some(("https", "web", "8443")));
        assert_eq!(read("https:web"), Some(("", "https", "web")), "two parts are a name and a port");
        for wrong in ["ftp:web:1", "a:b:c:d", "", ":80", "HTTP:web:"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_port_left_out_is_the_schemes() {
        let target =
            |text| Named::parse(text).unwrap().target("10.0.0.1".into(), Named::parse(text).unwrap().port);
        assert_eq!(target("web"), Target::Plaintext { host: "10.0.0.1".into(), port: "80".into() });
        assert_eq!(
            target("https:web:"),
            Target::TlsUnverified { host: "10.0.0.1".into(), port: "443".into() }
        );
    }

    #[test]
    fn only_addresses_of_the_network_are_allowed() {
        for (ip, allowed) in [
            ("10.244.1.5", true),
            ("192.0.2.11", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("::ffff:127.0.0.1", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
        ] {
            assert_eq!(is_global_unicast(ip.parse().unwrap()), allowed, "{ip}");
        }
    }
}
