//! What is on a node: the files `kubeadm join` leaves, kube-proxy's configuration, and the two roles.

use std::path::PathBuf;

use super::build::{
    CLUSTER_DOMAIN, DNS_SERVICE, NODE_GATEWAY, POD_CIDR, in_its_net, node_address, node_name,
};
use super::control::{template, text};
use super::{
    Command, Contents, Credential, HostKind, HostPlan, Kubeconfig, PlannedFile, RolePlan, Trust, ssh,
};
use crate::lab::paths::{Setting, Settings};

const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
const KUBELET_FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// How the node joined, or would.
const JOIN_CONFIG: &str = "/etc/kubernetes/kubeadm-join.yaml";
/// What a node joins with; gone once it has, as `kubeadm join` removes it.
pub const BOOTSTRAP: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
pub const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";
const PROXY_CONFIG: &str = "/var/lib/kube-proxy/config.conf";
const PROXY_CONF: &str = "/var/lib/kube-proxy/kubeconfig.conf";

/// A node that joins a running cluster as `kubeadm join` makes it, instead of being provisioned with it.
#[derive(Debug, Clone, Copy)]
pub struct Joining {
    /// It checks the cluster's CA against the digest it was told.
    pub pinned: bool,
}

/// The host of node `number`.
pub fn host(number: usize, settings: &Settings, joining: Option<Joining>) -> HostPlan {
    let name = node_name(number);
    let address = node_address(number);
    let pinned = joining.map_or(!settings.insecure(Setting::NodeJoin), |joining| joining.pinned);
    let flags = format!("KUBELET_KUBEADM_ARGS=\"--node-ip={address}\"\n");
    let ca = PlannedFile {
        path: PathBuf::from("/etc/kubernetes/pki/ca.crt"),
        mode: 0o644,
        contents: Contents::Certificate("ca".into()),
    };
    // What a joining node has to find out for itself, others are given.
    let provisioned =
        vec![ca, kubelet_credential(settings), text(KUBELET_CONFIG, 0o600, kubelet_config(settings))];
    let (mut files, mut grown) = match joining.is_some() {
        true => (Vec::new(), provisioned),
        false => (provisioned, Vec::new()),
    };
    if !settings.insecure(Setting::NodeCredential) {
        grown.push(own_kubeconfig(settings));
    }
    files.extend([
        template(JOIN_CONFIG, join_config(&name, address, pinned)),
        text(KUBELET_FLAGS, 0o644, flags),
        text(PROXY_CONFIG, 0o644, PROXY.replace("${pod-cidr}", POD_CIDR)),
        conf(PROXY_CONF, "system:kube-proxy", Credential::Certificate("kube-proxy".into()), settings),
    ]);
    files.extend(ssh::node_files(settings, &name));
    HostPlan {
        kind: HostKind::Node,
        addresses: vec![in_its_net(address)],
        gateway: Some(NODE_GATEWAY.into()),
        files,
        grown,
        roles: roles(&name, settings, joining.is_some()),
        name,
    }
}

/// Whom a node's kubeconfigs believe, as `node-to-apiserver.ca` says.
fn trust(settings: &Settings) -> Trust {
    if settings.insecure(Setting::NodeCa) { Trust::Skipped } else { Trust::ClusterCa }
}

/// What the kubelet makes of its bootstrap kubeconfig once it has a certificate.
fn own_kubeconfig(settings: &Settings) -> PlannedFile {
    let certificate = "/var/lib/kubelet/pki/kubelet-client-current.pem".into();
    let contents = Contents::OwnKubeconfig { server: super::endpoint(), trust: trust(settings), certificate };
    PlannedFile { path: PathBuf::from(KUBELET_CONF), mode: 0o600, contents }
}

/// A node's kubeconfig.
fn conf(path: &str, user: &str, credential: Credential, settings: &Settings) -> PlannedFile {
    let trust = trust(settings);
    let kubeconfig = Kubeconfig { server: super::endpoint(), user: user.into(), trust, credential };
    PlannedFile { path: PathBuf::from(path), mode: 0o600, contents: Contents::Kubeconfig(kubeconfig) }
}

/// What the kubelet starts with: a token to ask for its certificate, or a token for ever.
fn kubelet_credential(settings: &Settings) -> PlannedFile {
    match settings.insecure(Setting::NodeCredential) {
        true => conf(KUBELET_CONF, "kubelet", Credential::StaticToken, settings),
        false => conf(BOOTSTRAP, "tls-bootstrap-token-user", Credential::BootstrapToken, settings),
    }
}

fn roles(host: &str, settings: &Settings, joins: bool) -> Vec<RolePlan> {
    let mut kubelet = vec!["kubelet".to_owned()];
    if !settings.insecure(Setting::NodeCredential) {
        kubelet.push(format!("--bootstrap-kubeconfig={BOOTSTRAP}"));
    }
    kubelet.push(format!("--kubeconfig={KUBELET_CONF}"));
    kubelet.push(format!("--config={KUBELET_CONFIG}"));
    let proxy =
        vec!["kube-proxy".into(), format!("--config={PROXY_CONFIG}"), format!("--hostname-override={host}")];
    let role = |name: &str, command, needs: &[&str]| RolePlan {
        name: name.into(),
        host: host.into(),
        command,
        listeners: Vec::new(),
        cloud: false,
        needs: needs.iter().map(|&need| need.to_owned()).collect(),
        one_shot: false,
    };
    let own = format!("kubeadm@{host}");
    let first = if joins { own.as_str() } else { "kubeadm" };
    let kubelet = Command::Argv { argv: kubelet, flags_from: Some(KUBELET_FLAGS.into()) };
    let proxy = Command::Argv { argv: proxy, flags_from: None };
    let mut all = vec![role("kubelet", kubelet, &[first]), role("kube-proxy", proxy, &["kube-apiserver"])];
    if joins {
        let argv = vec!["kubeadm".into(), "join".into(), format!("--config={JOIN_CONFIG}")];
        let join = role("kubeadm", Command::Argv { argv, flags_from: None }, &["kube-apiserver"]);
        all.push(RolePlan { one_shot: true, ..join });
    }
    all.extend(ssh::role(settings, host));
    all
}

/// What `kubeadm join --config` reads: where the cluster is, the token, and whom to believe.
fn join_config(name: &str, address: std::net::Ipv4Addr, pinned: bool) -> String {
    let trust = match pinned {
        true => "caCertHashes:\n    - ${ca-cert-hash}",
        false => "unsafeSkipCAVerification: true",
    };
    let endpoint = super::endpoint();
    let endpoint = endpoint.trim_start_matches("https://");
    format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
caCertPath: /etc/kubernetes/pki/ca.crt
discovery:
  bootstrapToken:
    apiServerEndpoint: {endpoint}
    token: ${{bootstrap-token}}
    {trust}
  tlsBootstrapToken: ${{bootstrap-token}}
nodeRegistration:
  kubeletExtraArgs:
  - name: node-ip
    value: {address}
  name: {name}
"
    )
}

/// kubeadm's `KubeletConfiguration`; a zero duration means the kubelet's own default.
pub fn kubelet_config(settings: &Settings) -> String {
    let anonymous = settings.insecure(Setting::KubeletAuthentication);
    let mode = if settings.insecure(Setting::KubeletAuthorization) { "AlwaysAllow" } else { "Webhook" };
    let read_only = match settings.insecure(Setting::KubeletReadOnlyPort) {
        true => "readOnlyPort: 10255\n",
        false => "",
    };
    let serving = match settings.hardened(Setting::ToKubeletServing) {
        true => "serverTLSBootstrap: true\n",
        false => "",
    };
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: {anonymous}
  webhook:
    cacheTTL: 0s
    enabled: {webhook}
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: {mode}
  webhook:
    cacheAuthorizedTTL: 0s
    cacheUnauthorizedTTL: 0s
cgroupDriver: cgroupfs
clusterDNS:
- {DNS_SERVICE}
clusterDomain: {CLUSTER_DOMAIN}
containerRuntimeEndpoint: \"\"
healthzBindAddress: 127.0.0.1
healthzPort: 10248
kind: KubeletConfiguration
{read_only}rotateCertificates: true
{serving}staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
",
        webhook = !anonymous,
    )
}

/// kube-proxy's configuration as kubeadm writes it, with the nftables mode.
const PROXY: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: \"\"
  burst: 0
  contentType: \"\"
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: ${pod-cidr}
configSyncPeriod: 0s
detectLocalMode: \"\"
enableProfiling: false
healthzBindAddress: \"\"
hostnameOverride: \"\"
kind: KubeProxyConfiguration
metricsBindAddress: \"\"
mode: nftables
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
";
