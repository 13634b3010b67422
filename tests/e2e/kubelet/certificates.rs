//! Which certificate a kubelet shows × whether the API server has an authority to check it by: what a user
//! reads of it, word for word, from logs, exec and port-forward of two kubectls, passed on and translated.

use std::process::Command;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType};

use super::{put, reconfigure, replaced};
use crate::kit::clients::{self, Kubectl};
use crate::kit::{Lab, eventually};

/// What a kubelet serves with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// The default: signed by itself, for its host name alone.
    SelfSigned,
    /// `serverTLSBootstrap`, and nobody has approved.
    Pending,
    /// By the cluster's authority, for another address.
    WrongName,
    /// By the cluster's authority, for no address.
    NoAddress,
    /// By another authority of another name, for the right address.
    Stranger,
    Good,
}

const STATES: [State; 6] =
    [State::SelfSigned, State::Pending, State::WrongName, State::NoAddress, State::Stranger, State::Good];

impl State {
    /// What the API server has against it.
    fn complaint(self, verified: bool, address: &str) -> Option<String> {
        let x509 = |why: String| Some(format!("tls: failed to verify certificate: x509: {why}"));
        match self {
            Self::Pending => Some("remote error: tls: internal error".into()),
            _ if !verified => None,
            Self::SelfSigned | Self::NoAddress => x509(format!(
                "cannot validate certificate for {address} because it doesn't contain any IP SANs"
            )),
            Self::WrongName => x509(format!("certificate is valid for 192.0.2.99, not {address}")),
            Self::Stranger => x509("certificate signed by unknown authority".into()),
            Self::Good => None,
        }
    }

    /// Puts a node's kubelet into this state.
    fn set(self, lab: &Lab, node: &str, address: &str) {
        let blocks = ["tlsCertFile", "tlsPrivateKeyFile", "serverTLSBootstrap"];
        let files = "tlsCertFile: /etc/kubernetes/tls.crt\ntlsPrivateKeyFile: /etc/kubernetes/tls.key\n";
        let by = match self {
            Self::SelfSigned => "",
            Self::Pending => "serverTLSBootstrap: true\n",
            Self::WrongName => issue(lab, node, &Signer::Cluster, &["192.0.2.99"], files),
            Self::NoAddress => issue(lab, node, &Signer::Cluster, &[], files),
            Self::Stranger => issue(lab, node, &Signer::Stranger, &[address], files),
            Self::Good => issue(lab, node, &Signer::Cluster, &[address], files),
        };
        reconfigure(lab, node, |config| replaced(&config, &blocks, by));
    }
}

enum Signer {
    Cluster,
    Stranger,
}

/// Writes a pair where `files` says.
fn issue<'a>(lab: &Lab, node: &str, signer: &Signer, addresses: &[&str], files: &'a str) -> &'a str {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![node.to_owned()]).unwrap();
    params.subject_alt_names.extend(addresses.iter().map(|ip| SanType::IpAddress(ip.parse().unwrap())));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    let cert = match signer {
        Signer::Cluster => {
            let read = |what: &str| lab.on("control", &["cat", &format!("/etc/kubernetes/pki/ca.{what}")]);
            let authority = KeyPair::from_pem(&read("key")).unwrap();
            params.signed_by(&key, &Issuer::from_ca_cert_pem(&read("crt"), authority).unwrap()).unwrap()
        }
        Signer::Stranger => {
            let mut own = CertificateParams::default();
            own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            own.distinguished_name = DistinguishedName::new();
            own.distinguished_name.push(DnType::CommonName, "stranger");
            params.signed_by(&key, &Issuer::new(own, KeyPair::generate().unwrap())).unwrap()
        }
    };
    put(lab, node, "/etc/kubernetes/tls.crt", &cert.pem());
    put(lab, node, "/etc/kubernetes/tls.key", &key.serialize_pem());
    files
}

/// A node, its kubelet's address, and whether that kubelet reads WebSockets.
const NODES: [(&str, &str, bool); 2] = [("node-1", "192.0.2.11", true), ("node-2", "192.0.2.12", false)];

/// Runs for at most some seconds; what it printed on both outputs.
fn said(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

struct Cell<'a> {
    lab: &'a Lab,
    kubectl: &'a Kubectl,
    spdy: bool,
    pod: String,
    host: String,
    websockets: bool,
}

impl Cell<'_> {
    fn kubectl(&self, words: &[&str]) -> Command {
        let mut command = self.lab.kubectl_command(self.kubectl);
        if self.spdy {
            command
                .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")
                .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
        }
        command.args(words);
        command
    }

    /// kubectl of 1.36 says what it was doing; older ones give the server's words.
    fn upgrading(&self, error: &str) -> String {
        match self.kubectl.version.starts_with("v1.36") {
            true => format!("error: unable to upgrade connection: error dialing backend: {error}\n"),
            false => format!("Error from server: error dialing backend: {error}\n"),
        }
    }

    fn logs(&self, complaint: Option<&str>) -> Result<(), String> {
        let got = said(self.kubectl(&["logs", &self.pod]));
        let want = match complaint {
            None => (Some(0), "here\n".to_owned(), String::new()),
            Some(why) => {
                let url = format!("https://{}/containerLogs/default/{}/{}", self.host, self.pod, self.pod);
                (Some(1), String::new(), format!("Error from server: Get \"{url}\": {why}\n"))
            }
        };
        same("logs", got, want)
    }

    fn exec(&self, complaint: Option<&str>) -> Result<(), String> {
        let got = said(self.kubectl(&["exec", &self.pod, "--", "echo", "done"]));
        let want = match complaint {
            None => (Some(0), "done\n".to_owned(), String::new()),
            Some(why) if self.websockets || self.spdy => (Some(1), String::new(), self.upgrading(why)),
            Some(why) => {
                let pod = &self.pod;
                let url = format!(
                    "https://{}/exec/default/{pod}/{pod}?command=echo&command=done&error=1&output=1",
                    self.host
                );
                let text =
                    format!("error: Internal error occurred: error sending request: Post \"{url}\": {why}\n");
                (Some(1), String::new(), text)
            }
        };
        same("exec", got, want)
    }

    fn port_forward(&self, complaint: Option<&str>) -> Result<(), String> {
        let pod = format!("pod/{}", self.pod);
        let first = first_line(self.kubectl(&["port-forward", &pod, ":8080"]));
        match complaint {
            None if first.starts_with("Forwarding from ") => Ok(()),
            Some(why) if first == self.forwarding(why) => Ok(()),
            _ => Err(format!("port-forward: {first:?} where {complaint:?} was expected")),
        }
    }

    fn forwarding(&self, error: &str) -> String {
        let upgrading =
            if self.kubectl.version.starts_with("v1.36") { "unable to upgrade connection: " } else { "" };
        format!("error: error upgrading connection: {upgrading}error dialing backend: {error}")
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{what}: got {got:?}, want {want:?}")) }
}

/// The first line on either output, and then its end.
fn first_line(mut command: Command) -> String {
    use std::io::{BufRead, BufReader, Read};
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line.is_empty() {
        child.stderr.take().unwrap().read_to_string(&mut line).unwrap();
    }
    let _ = child.kill();
    child.wait().unwrap();
    line.trim_end().to_owned()
}

#[test]
fn each_serving_certificate_gives_users_its_text_with_and_without_an_authority() {
    let lab = Lab::up();
    // What asks for a certificate stays unanswered, here.
    let gate = "featureGates: {ExtendWebSocketsToKubelet: false}\n";
    reconfigure(&lab, "node-2", |config| replaced(&config, &["featureGates"], gate));
    for (node, _, _) in NODES {
        lab.run_on(node, &format!("on-{node}"), "echo here; exec sleep 10000");
    }
    eventually(Duration::from_secs(60), "node-2 says that it reads no WebSockets", || {
        let features = lab.object(&["node", "node-2"])["status"]["declaredFeatures"].to_string();
        if features.contains("ExtendWebSockets") { Err(features) } else { Ok(()) }
    });
    let authority = "--kubelet-certificate-authority=/etc/kubernetes/pki/ca.crt";
    let mut wrong = Vec::new();
    for verified in [false, true] {
        lab.api_server_flags(&[if verified { authority } else { "--kubelet-certificate-authority=" }]);
        for state in STATES {
            for (node, address, websockets) in NODES {
                state.set(&lab, node, address);
                let complaint = state.complaint(verified, address);
                for kubectl in clients::both() {
                    for spdy in [false, true] {
                        let (pod, host) = (format!("on-{node}"), format!("{address}:10250"));
                        let cell = Cell { lab: &lab, kubectl, spdy, pod, host, websockets };
                        let text = complaint.as_deref();
                        let all = [cell.logs(text), cell.exec(text), cell.port_forward(text)];
                        let version = &kubectl.version;
                        wrong.extend(all.into_iter().filter_map(Result::err).map(|why| {
                            format!("{state:?}, authority {verified}, {node}, {version}, SPDY {spdy}: {why}")
                        }));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
