//! The files a kubelet writes for a pod: /etc/hosts and /etc/resolv.conf.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::PodError;

/// Linux' limit (`HOST_NAME_MAX`).
const MOST_OF_A_NAME: usize = 64;

/// The pod's host name, as upstream chooses it.
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let given = spec.and_then(|spec| spec.hostname_override.clone().or_else(|| spec.hostname.clone()));
    let name =
        given.filter(|name| !name.is_empty()).or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    // A Linux host name has at most 64 bytes; upstream cuts at 63 and never ends in a separator.
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// The pod's name with its domain, when it has one: an overridden name has none.
fn full_name(pod: &Pod, domain: &str) -> Option<String> {
    let spec = pod.spec.as_ref().filter(|spec| spec.hostname_override.is_none())?;
    let subdomain = spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!("{}.{subdomain}.{namespace}.svc.{domain}", hostname(pod)))
}

/// What the kernel of a pod's own host calls itself: with `setHostnameAsFQDN` the whole name, which must fit
/// (`GetNodenameForKernel`).
pub fn kernel_name(pod: &Pod, domain: &str) -> Result<String, PodError> {
    let whole = pod.spec.as_ref().is_some_and(|spec| spec.set_hostname_as_fqdn == Some(true));
    match full_name(pod, domain).filter(|_| whole) {
        None => Ok(hostname(pod)),
        Some(name) if name.len() <= MOST_OF_A_NAME => Ok(name),
        Some(name) => Err(PodError::Config(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long \
             ({MOST_OF_A_NAME} characters is the max, {} characters requested)",
            name.len()
        ))),
    }
}

/// /etc/hosts of a pod with an address of its own, or `node_hosts` with a remark for `hostNetwork`.
pub fn hosts(pod: &Pod, address: Option<&str>, domain: &str, node_hosts: &str) -> String {
    let spec = pod.spec.as_ref();
    let mut text = match address {
        None => format!("# Kubernetes-managed hosts file (host network).\n{node_hosts}"),
        Some(address) => {
            let name = hostname(pod);
            let names = match full_name(pod, domain) {
                Some(full) => format!("{full}\t{name}"),
                None => name,
            };
            format!(
                "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost \
                 ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\t\
                 ip6-allrouters\n{address}\t{names}\n"
            )
        }
    };
    let aliases = spec.and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

/// What resolv.conf is made from.
pub struct Dns<'a> {
    pub servers: &'a [String],
    pub domain: &'a str,
    /// The node's own file.
    pub node: &'a str,
}

/// /etc/resolv.conf by the pod's dnsPolicy and dnsConfig.
pub fn resolv_conf(spec: &PodSpec, namespace: &str, dns: &Dns<'_>) -> String {
    let host_network = spec.host_network == Some(true);
    let policy = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "ClusterFirst" if host_network => "Default",
        "ClusterFirstWithHostNet" => "ClusterFirst",
        policy => policy,
    };
    let (mut servers, mut searches, mut options) = (Vec::new(), Vec::new(), Vec::new());
    let (node_servers, node_searches, node_options) = parse(dns.node);
    match policy {
        "None" => {}
        "ClusterFirst" if !dns.servers.is_empty() => {
            servers = dns.servers.to_vec();
            if !dns.domain.is_empty() {
                let domain = dns.domain;
                searches =
                    vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
            }
            searches.extend(node_searches);
            options.push("ndots:5".to_owned());
        }
        _ => (servers, searches, options) = (node_servers, node_searches, node_options),
    }
    if let Some(own) = &spec.dns_config {
        servers.extend(own.nameservers.iter().flatten().cloned());
        searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            options.retain(|known| known.split(':').next() != Some(name.as_str()));
            options.push(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")));
        }
    }
    let mut text = String::new();
    for list in [&mut servers, &mut searches] {
        let mut seen = std::collections::BTreeSet::new();
        list.retain(|one| seen.insert(one.clone()));
    }
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    // Resolvers read three.
    servers.iter().take(3).for_each(|server| text.push_str(&format!("nameserver {server}\n")));
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

type Resolver = (Vec<String>, Vec<String>, Vec<String>);

fn parse(text: &str) -> Resolver {
    let (mut servers, mut searches, mut options) = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => servers.extend(words.next()),
            Some("search") => searches = words.collect(),
            Some("options") => options = words.collect(),
            _ => {}
        }
    }
    (servers, searches, options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cluster_first_pods_search_their_namespace() {
        let servers = ["10.96.0.10".to_owned()];
        let dns =
            Dns { servers: &servers, domain: "cluster.local", node: "nameserver 9.9.9.9\nsearch lab\n" };
        let spec: PodSpec =
            serde_json::from_value(json!({"containers": [], "dnsPolicy": "ClusterFirst"})).unwrap();
        assert_eq!(
            resolv_conf(&spec, "default", &dns),
            "search default.svc.cluster.local svc.cluster.local cluster.local lab\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
        let host = serde_json::from_value(json!({"containers": [], "hostNetwork": true})).unwrap();
        assert_eq!(resolv_conf(&host, "default", &dns), "search lab\nnameserver 9.9.9.9\n");
    }

    #[test]
    fn a_pods_own_settings_are_added_once_and_replace_options() {
        let servers = ["10.96.0.10".to_owned()];
        let dns = Dns { servers: &servers, domain: "cluster.local", node: "" };
        let spec: PodSpec = serde_json::from_value(json!({"containers": [], "dnsConfig": {
            "nameservers": ["10.96.0.10", "192.0.2.53"], "searches": ["svc.cluster.local", "lab"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}))
        .unwrap();
        assert_eq!(
            resolv_conf(&spec, "default", &dns),
            "search default.svc.cluster.local svc.cluster.local cluster.local lab\n\
             nameserver 10.96.0.10\nnameserver 192.0.2.53\noptions ndots:2 edns0\n"
        );
    }

    #[test]
    fn hosts_has_the_pods_own_line_and_its_aliases() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "a"},
            "spec": {"containers": [], "subdomain": "s", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x", "y"]}]},
        }))
        .unwrap();
        let text = hosts(&pod, Some("10.244.1.5"), "cluster.local", "");
        assert!(text.contains("\n10.244.1.5\tweb.s.a.svc.cluster.local\tweb\n"));
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\tx\ty\n"));
    }
}
