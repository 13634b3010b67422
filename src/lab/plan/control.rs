//! What is on the control plane's host: kubeadm's certificates, kubeconfigs and manifests, and what the
//! settings make of their flags.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::Value;

use super::build::{
    API_PORT, BALANCER, CLUSTER_DOMAIN, CONTROL, KUBERNETES_VERSION, POD_CIDR, SERVICE_CIDR, in_its_net,
};
use super::manifest::{Probe, StaticPod};
use super::{
    Command, Contents, Credential, HostKind, HostPlan, Kubeconfig, ListenAt, Listener, PlannedFile, RolePlan,
    Trust, approver, konnectivity, node, ssh,
};
use crate::lab::paths::{Setting, Settings};

/// Where kubeadm keeps certificates.
const PKI: &str = "/etc/kubernetes/pki";
pub const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// What the kubeadm role reads.
pub const KUBEADM_CONFIG: &str = "/etc/kubernetes/kubeadm-config.yaml";
const AUTHENTICATION_CONFIG: &str = "/etc/kubernetes/authentication-config.yaml";
/// Objects the settings ask for; the kubeadm role applies what is in this directory.
const ADDONS: &str = "/etc/kubernetes/addons/minilab.yaml";
const STATIC_TOKENS: &str = "/etc/kubernetes/pki/tokens.csv";

/// The host `control`.
pub fn host(settings: &Settings, nodes: &[usize], objects: &[Value]) -> HostPlan {
    let mut files = certificates();
    files.extend(kubeconfigs(settings));
    files.extend(manifests(settings));
    files.extend(konnectivity::files(settings));
    files.extend(ssh::control_files(settings, nodes));
    files.push(template(KUBEADM_CONFIG, kubeadm_config(settings)));
    files.push(text(ADDONS, 0o600, documents(objects)));
    if settings.hardened(Setting::AccessAnonymous) {
        files.push(text(AUTHENTICATION_CONFIG, 0o600, ANONYMOUS_ONLY_WHERE_NEEDED.into()));
    }
    if settings.insecure(Setting::NodeCredential) {
        files.push(template(STATIC_TOKENS, "${static-token},kubelet,kubelet,\"system:masters\"\n".into()));
    }
    let mut roles = roles();
    roles.extend(konnectivity::role(settings));
    if approver::wanted(settings) {
        files.extend(approver::files(settings, nodes));
        // kubeadm's last act is to grant it what it needs.
        let needs = vec!["kubeadm".to_owned()];
        roles.push(RolePlan { needs, ..from_manifest(approver::NAME) });
    }
    HostPlan {
        name: "control".into(),
        kind: HostKind::Control,
        addresses: vec![in_its_net(CONTROL)],
        gateway: Some(BALANCER.into()),
        files,
        grown: Vec::new(),
        roles,
    }
}

/// A file of plain text.
pub fn text(path: &str, mode: u32, body: String) -> PlannedFile {
    PlannedFile { path: PathBuf::from(path), mode, contents: Contents::Text(body) }
}

/// A private file with the lab's tokens filled in.
pub fn template(path: &str, body: String) -> PlannedFile {
    PlannedFile { path: PathBuf::from(path), mode: 0o600, contents: Contents::Template(body) }
}

/// A YAML stream of these objects.
fn documents(objects: &[Value]) -> String {
    let document = |object| serde_yaml_ng::to_string(object).expect("a JSON tree has a YAML form");
    objects.iter().map(document).collect::<Vec<_>>().join("---\n")
}

fn certificates() -> Vec<PlannedFile> {
    let pairs = ["ca", "apiserver", "apiserver-kubelet-client", "front-proxy-ca", "front-proxy-client"];
    let file = |name: String, mode, contents| PlannedFile {
        path: PathBuf::from(format!("{PKI}/{name}")),
        mode,
        contents,
    };
    let mut files = Vec::new();
    for pair in pairs {
        files.push(file(format!("{pair}.crt"), 0o644, Contents::Certificate(pair.into())));
        files.push(file(format!("{pair}.key"), 0o600, Contents::Key(pair.into())));
    }
    files.push(file("sa.key".into(), 0o600, Contents::Key("sa".into())));
    files.push(file("sa.pub".into(), 0o600, Contents::PublicKey("sa".into())));
    files
}

fn kubeconfigs(settings: &Settings) -> Vec<PlannedFile> {
    let trust = match settings.insecure(Setting::ComponentsCa) {
        true => Trust::Skipped,
        false => Trust::ClusterCa,
    };
    let shared = settings.insecure(Setting::ComponentsIdentity);
    let component = |name: &'static str, user: &'static str| match shared {
        true => ("super-admin", "kubernetes-super-admin"),
        false => (name, user),
    };
    let file = |name: &str, (credential, user): (&str, &str), trust| PlannedFile {
        path: PathBuf::from(format!("/etc/kubernetes/{name}.conf")),
        mode: 0o600,
        contents: Contents::Kubeconfig(Kubeconfig {
            server: super::endpoint(),
            user: user.into(),
            trust,
            credential: Credential::Certificate(credential.into()),
        }),
    };
    let manager = component("controller-manager", "system:kube-controller-manager");
    vec![
        file("admin", ("admin", "kubernetes-admin"), Trust::ClusterCa),
        file("super-admin", ("super-admin", "kubernetes-super-admin"), Trust::ClusterCa),
        file("controller-manager", manager, trust),
        file("scheduler", component("scheduler", "system:kube-scheduler"), trust),
    ]
}

fn manifests(settings: &Settings) -> Vec<PlannedFile> {
    let pods = [
        StaticPod {
            name: "kube-apiserver",
            flags: apiserver_flags(settings),
            cpu: "250m",
            probe: Some(Probe {
                host: CONTROL,
                port: API_PORT,
                live: "/livez",
                ready: "/readyz",
                // AlwaysAllow turns anonymous requests off, health checks among them.
                unanswered: settings.insecure(Setting::AccessAuthorization),
                scheme: "HTTPS",
            }),
            advertised: Some(SocketAddr::from((CONTROL, API_PORT))),
        },
        StaticPod {
            name: "kube-controller-manager",
            flags: manager_flags(settings),
            cpu: "200m",
            probe: Some(Probe {
                host: Ipv4Addr::LOCALHOST,
                port: 10257,
                live: "/healthz",
                ready: "/healthz",
                unanswered: false,
                scheme: "HTTPS",
            }),
            advertised: None,
        },
        StaticPod {
            name: "kube-scheduler",
            flags: scheduler_flags(settings),
            cpu: "100m",
            probe: Some(Probe {
                host: Ipv4Addr::LOCALHOST,
                port: 10259,
                live: "/livez",
                ready: "/readyz",
                unanswered: false,
                scheme: "HTTPS",
            }),
            advertised: None,
        },
    ];
    pods.iter().map(|pod| text(&format!("{MANIFESTS}/{}.yaml", pod.name), 0o600, pod.to_yaml())).collect()
}

fn apiserver_flags(settings: &Settings) -> Vec<String> {
    let mut flags: Vec<String> = [
        "--allow-privileged=true",
        "--client-ca-file=/etc/kubernetes/pki/ca.crt",
        "--enable-bootstrap-token-auth=true",
        "--kubelet-client-certificate=/etc/kubernetes/pki/apiserver-kubelet-client.crt",
        "--kubelet-client-key=/etc/kubernetes/pki/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
        "--minilab-store-dir=/var/lib/minilab/store",
        "--proxy-client-cert-file=/etc/kubernetes/pki/front-proxy-client.crt",
        "--proxy-client-key-file=/etc/kubernetes/pki/front-proxy-client.key",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-client-ca-file=/etc/kubernetes/pki/front-proxy-ca.crt",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        "--service-account-key-file=/etc/kubernetes/pki/sa.pub",
        "--service-account-signing-key-file=/etc/kubernetes/pki/sa.key",
        "--storage-backend=sled",
        "--tls-cert-file=/etc/kubernetes/pki/apiserver.crt",
        "--tls-private-key-file=/etc/kubernetes/pki/apiserver.key",
    ]
    .map(str::to_owned)
    .to_vec();
    flags.extend([
        format!("--advertise-address={CONTROL}"),
        format!("--secure-port={API_PORT}"),
        format!("--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}"),
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
    ]);
    flags.extend(apiserver_choices(settings));
    flags
}

/// The flags of the API server that a setting owns.
fn apiserver_choices(settings: &Settings) -> Vec<String> {
    let modes = if settings.insecure(Setting::AccessAuthorization) { "AlwaysAllow" } else { "Node,RBAC" };
    let mut flags = vec![format!("--authorization-mode={modes}")];
    let plugins: Vec<&str> = [
        settings.hardened(Setting::NodeRestriction).then_some("NodeRestriction"),
        settings.hardened(Setting::PodExternalIps).then_some("DenyServiceExternalIPs"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !plugins.is_empty() {
        flags.push(format!("--enable-admission-plugins={}", plugins.join(",")));
    }
    if settings.hardened(Setting::PodToken) {
        flags.push("--service-account-extend-token-expiration=false".into());
    }
    if settings.hardened(Setting::AccessAnonymous) {
        flags.push(format!("--authentication-config={AUTHENTICATION_CONFIG}"));
    }
    if settings.hardened(Setting::ToKubeletCa) {
        flags.push("--kubelet-certificate-authority=/etc/kubernetes/pki/ca.crt".into());
    }
    if konnectivity::wanted(settings) {
        flags.push(format!("--egress-selector-config-file={}", konnectivity::EGRESS));
    }
    flags.extend(ssh::flags(settings));
    if settings.insecure(Setting::NodeCredential) {
        flags.push(format!("--token-auth-file={STATIC_TOKENS}"));
    }
    flags
}

fn manager_flags(settings: &Settings) -> Vec<String> {
    let own_accounts = !settings.insecure(Setting::ComponentsIdentity);
    let mut flags: Vec<String> = [
        "--allocate-node-cidrs=true",
        "--client-ca-file=/etc/kubernetes/pki/ca.crt",
        "--cluster-name=kubernetes",
        "--cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt",
        "--cluster-signing-key-file=/etc/kubernetes/pki/ca.key",
        "--configure-cloud-routes=true",
        "--controllers=*,bootstrapsigner,tokencleaner",
        "--requestheader-client-ca-file=/etc/kubernetes/pki/front-proxy-ca.crt",
        "--root-ca-file=/etc/kubernetes/pki/ca.crt",
        "--service-account-private-key-file=/etc/kubernetes/pki/sa.key",
    ]
    .map(str::to_owned)
    .to_vec();
    flags.push(format!("--cluster-cidr={POD_CIDR}"));
    flags.push(format!("--service-cluster-ip-range={SERVICE_CIDR}"));
    flags.push(format!("--use-service-account-credentials={own_accounts}"));
    flags.extend(component_flags("controller-manager", settings));
    flags
}

fn scheduler_flags(settings: &Settings) -> Vec<String> {
    component_flags("scheduler", settings)
}

/// What scheduler and controller manager have in common: their kubeconfig and their own HTTPS port.
fn component_flags(conf: &str, settings: &Settings) -> Vec<String> {
    let open = settings.insecure(Setting::ComponentsPorts);
    let mut flags: Vec<String> = ["authentication-kubeconfig", "authorization-kubeconfig", "kubeconfig"]
        .map(|flag| format!("--{flag}=/etc/kubernetes/{conf}.conf"))
        .to_vec();
    flags.push("--leader-elect=true".into());
    flags.push(format!("--bind-address={}", if open { "0.0.0.0" } else { "127.0.0.1" }));
    if open {
        let paths = "/healthz,/readyz,/livez,/metrics,/configz,/debug/*";
        flags.push(format!("--authorization-always-allow-paths={paths}"));
        flags.push("--profiling=true".into());
    }
    if settings.hardened(Setting::ComponentsPorts) {
        flags.push("--profiling=false".into());
    }
    flags
}

/// A part of the control plane that a manifest starts.
pub fn from_manifest(name: &str) -> RolePlan {
    RolePlan {
        name: name.into(),
        host: "control".into(),
        command: Command::Manifest(format!("{MANIFESTS}/{name}.yaml").into()),
        listeners: Vec::new(),
        cloud: false,
        needs: Vec::new(),
        one_shot: false,
    }
}

fn roles() -> Vec<RolePlan> {
    let inside = SocketAddr::from((Ipv4Addr::UNSPECIFIED, API_PORT));
    let listeners = vec![
        Listener { name: "secure".into(), at: ListenAt::Inside(inside) },
        Listener { name: "host".into(), at: ListenAt::Machine },
    ];
    let argv = ["kubeadm".to_owned(), "init".into(), format!("--config={KUBEADM_CONFIG}")].to_vec();
    vec![
        RolePlan { listeners, ..from_manifest("kube-apiserver") },
        RolePlan { cloud: true, ..from_manifest("kube-controller-manager") },
        from_manifest("kube-scheduler"),
        RolePlan {
            command: Command::Argv { argv, flags_from: None },
            needs: vec!["kube-apiserver".into()],
            one_shot: true,
            ..from_manifest("kubeadm")
        },
    ]
}

/// Anonymous requests may read health, and cluster-info while nodes join by token.
const ANONYMOUS_ONLY_WHERE_NEEDED: &str = "apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
  - path: /livez
  - path: /readyz
  - path: /healthz
  - path: /api/v1/namespaces/kube-public/configmaps/cluster-info
";

/// The ConfigMap in which kubeadm keeps, for nodes that join, the kubelet's part of such a file.
pub fn kubelet_defaults(kubeadm_config: &str) -> Option<Value> {
    let (_, kubelet) = kubeadm_config.rsplit_once("\n---\n")?;
    let tree: Value = serde_yaml_ng::from_str(kubelet).ok()?;
    Some(serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kubelet-config", "namespace": "kube-system"},
        "data": {"kubelet": serde_yaml_ng::to_string(&tree).ok()?},
    }))
}

/// What `kubeadm init --config` was given, and so what it writes into the cluster.
fn kubeadm_config(settings: &Settings) -> String {
    let kubelet = node::kubelet_config(settings);
    format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens:
- token: ${{bootstrap-token}}
  ttl: 24h0m0s
  usages:
  - signing
  - authentication
  groups:
  - system:bootstrappers:kubeadm:default-node-token
localAPIEndpoint:
  advertiseAddress: {CONTROL}
  bindPort: {API_PORT}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
caCertificateValidityPeriod: 87600h0m0s
certificateValidityPeriod: 8760h0m0s
certificatesDir: {PKI}
clusterName: kubernetes
controlPlaneEndpoint: {BALANCER}:{API_PORT}
encryptionAlgorithm: ECDSA-P256
kubernetesVersion: {KUBERNETES_VERSION}
networking:
  dnsDomain: {CLUSTER_DOMAIN}
  podSubnet: {POD_CIDR}
  serviceSubnet: {SERVICE_CIDR}
---
{kubelet}"
    )
}
