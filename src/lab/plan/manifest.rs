//! Static-pod manifests as kubeadm writes them, for the three parts of the control plane.
//!
//! Only `command` has an effect here (a role is started from it); the rest is what an administrator and
//! a CIS checker expect to find. There is no image to pull: the image names the lab's own binary.

use std::net::{Ipv4Addr, SocketAddr};

/// One part of the control plane.
pub struct StaticPod<'a> {
    pub name: &'a str,
    /// The flags after the component's name; kubeadm sorts them.
    pub flags: Vec<String>,
    pub cpu: &'a str,
    /// Nothing where it has no port.
    pub probe: Option<Probe<'a>>,
    /// Shown as kubeadm's annotation of that name.
    pub advertised: Option<SocketAddr>,
}

/// Where a component says how it is.
pub struct Probe<'a> {
    pub host: Ipv4Addr,
    pub port: u16,
    pub live: &'a str,
    pub ready: &'a str,
    /// Where nobody without a credential is answered a kubelet can only see that somebody listens.
    pub unanswered: bool,
    pub scheme: &'a str,
}

impl StaticPod<'_> {
    /// The manifest's YAML.
    pub fn to_yaml(&self) -> String {
        let image = format!("minilab/{}:{}", self.name, super::KUBERNETES_VERSION);
        self.to_yaml_of(&image, self.name)
    }

    /// The manifest of an image whose program has a name of its own.
    pub fn to_yaml_of(&self, image: &str, program: &str) -> String {
        let Self { name, cpu, probe, .. } = self;
        let mut flags = self.flags.clone();
        flags.sort();
        let command: String =
            std::iter::once(program.to_owned()).chain(flags).map(|word| format!("    - {word}\n")).collect();
        let annotation = self.advertised.map_or_else(String::new, |at| {
            format!("  annotations:\n    kubeadm.kubernetes.io/{name}.advertise-address.endpoint: {at}\n")
        });
        let probe = probe.as_ref();
        let live = probe.map_or_else(String::new, |probe| probe.check("livenessProbe", probe.live, 8, 10));
        let ready = probe.map_or_else(String::new, |probe| probe.ports() + &probe.readiness());
        let startup = probe.map_or_else(String::new, |probe| probe.check("startupProbe", probe.live, 24, 10));
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n{annotation}  labels:\n    component: {name}\n    \
             tier: control-plane\n  name: {name}\n  namespace: kube-system\nspec:\n  containers:\n  - command:\n\
             {command}    image: {image}\n    imagePullPolicy: IfNotPresent\n{live}    \
             name: {name}\n{ready}    resources:\n      requests:\n        cpu: {cpu}\n{startup}    \
             volumeMounts:\n    - mountPath: /etc/kubernetes\n      name: k8s-certs\n      readOnly: true\n  \
             hostNetwork: true\n  priority: 2000001000\n  priorityClassName: system-node-critical\n  \
             securityContext:\n    seccompProfile:\n      type: RuntimeDefault\n  volumes:\n  - hostPath:\n      \
             path: /etc/kubernetes\n      type: DirectoryOrCreate\n    name: k8s-certs\nstatus: {{}}\n",
        )
    }
}

impl Probe<'_> {
    fn ports(&self) -> String {
        let port = self.port;
        format!("    ports:\n    - containerPort: {port}\n      name: probe-port\n      protocol: TCP\n")
    }

    fn readiness(&self) -> String {
        self.check("readinessProbe", self.ready, 3, 1)
    }

    fn check(&self, field: &str, path: &str, failures: u8, period: u8) -> String {
        let delay = if field == "readinessProbe" { "" } else { "      initialDelaySeconds: 10\n" };
        let host = self.host;
        let (http, tcp) = match self.unanswered {
            true => {
                (String::new(), format!("      tcpSocket:\n        host: {host}\n        port: probe-port\n"))
            }
            false => (
                format!(
                    "      httpGet:\n        host: {host}\n        path: {path}\n        port: probe-port\n        \
                     scheme: {}\n",
                    self.scheme
                ),
                String::new(),
            ),
        };
        format!(
            "    {field}:\n      failureThreshold: {failures}\n{http}{delay}      periodSeconds: {period}\n{tcp}      \
             timeoutSeconds: 15\n"
        )
    }
}
