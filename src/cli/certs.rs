//! `minilab certs`: every certificate of the lab as its files have them now.
//!
//! k3s' `certificate check` gave the idea; beside file, subject, uses and end each row says who shows the
//! certificate to whom, which is what a person asks next.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::{Answer, Outcome, Output, Trouble, table};
use crate::lab::files::Tree;
use crate::lab::plan::{HostKind, Plan};
use crate::lab::state::LabDir;
use crate::pki::Facts;

#[derive(Args)]
pub struct Certs {
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    host: String,
    file: String,
    subject: String,
    sans: Vec<String>,
    usages: Vec<&'static str>,
    issuer: String,
    expires: String,
    presented: &'static str,
}

/// Where a certificate is, and who shows it to whom.
struct Place {
    file: &'static str,
    presented: &'static str,
}

const fn place(file: &'static str, presented: &'static str) -> Place {
    Place { file, presented }
}

const CONTROL: &[Place] = &[
    place("/etc/kubernetes/pki/ca.crt", "nobody: it signs"),
    place("/etc/kubernetes/pki/apiserver.crt", "kube-apiserver to its clients"),
    place("/etc/kubernetes/pki/apiserver-kubelet-client.crt", "kube-apiserver to kubelets"),
    place("/etc/kubernetes/pki/front-proxy-ca.crt", "nobody: it signs"),
    place("/etc/kubernetes/pki/front-proxy-client.crt", "kube-apiserver to aggregated API servers"),
    place("/etc/kubernetes/admin.conf", "kubectl to kube-apiserver"),
    place("/etc/kubernetes/super-admin.conf", "kubeadm to kube-apiserver"),
    place("/etc/kubernetes/controller-manager.conf", "kube-controller-manager to kube-apiserver"),
    place("/etc/kubernetes/scheduler.conf", "kube-scheduler to kube-apiserver"),
    place("/etc/kubernetes/csr-approver.conf", "csr-approver to kube-apiserver"),
];

const NODE: &[Place] = &[
    place("/etc/kubernetes/pki/ca.crt", "nobody: it is what the node trusts"),
    place("/var/lib/kubelet/pki/kubelet-client-current.pem", "kubelet to kube-apiserver"),
    place("/var/lib/kubelet/pki/kubelet-server-current.pem", "kubelet to kube-apiserver's logs and exec"),
    place("/var/lib/kubelet/pki/kubelet.crt", "kubelet to kube-apiserver's logs and exec"),
    place("/var/lib/kube-proxy/kubeconfig.conf", "kube-proxy to kube-apiserver"),
];

impl Certs {
    pub fn run(self, lab: &LabDir) -> Outcome {
        if !lab.exists() {
            return Err(Trouble::not_running(lab));
        }
        let plan: Plan = serde_json::from_slice(&std::fs::read(lab.plan_file())?)?;
        let mut rows = Vec::new();
        for host in &plan.hosts {
            let places = match host.kind {
                HostKind::Control => CONTROL,
                HostKind::Node => NODE,
                HostKind::Wire | HostKind::Switch => continue,
            };
            let tree = Tree::of(lab, &host.name)?;
            for place in places {
                if let Some(bytes) = tree.read(Path::new(place.file))? {
                    rows.extend(certificate(&bytes).map(|facts| row(&host.name, place, &facts)));
                }
            }
        }
        match self.output.json() {
            true => super::print_json(&rows)?,
            false => print(&rows)?,
        }
        Ok(Answer::Done)
    }
}

/// The first certificate of a PEM file, or the client certificate in a kubeconfig.
fn certificate(bytes: &[u8]) -> Option<Facts> {
    if let Ok(facts) = Facts::from_pem(bytes) {
        return Some(facts);
    }
    let file: serde_json::Value = serde_yaml_ng::from_slice(bytes).ok()?;
    let data = file["users"][0]["user"]["client-certificate-data"].as_str()?;
    Facts::from_pem(&BASE64_STANDARD.decode(data).ok()?).ok()
}

fn row(host: &str, place: &Place, facts: &Facts) -> Row {
    let organizations = facts.orgs.iter().map(|org| format!(",O={org}"));
    let ips = facts.ips.iter().map(ToString::to_string);
    let end = i64::try_from(facts.not_after).ok().and_then(|end| Timestamp::from_second(end).ok());
    Row {
        host: host.to_owned(),
        file: place.file.to_owned(),
        subject: format!("CN={}{}", facts.cn, organizations.collect::<String>()),
        sans: facts.dns.iter().cloned().chain(ips).collect(),
        usages: if facts.is_ca { vec!["cert sign"] } else { facts.extended_usages.clone() },
        issuer: facts.issuer_cn.clone(),
        expires: end.map(|end| end.to_string()).unwrap_or_default(),
        presented: place.presented,
    }
}

fn print(rows: &[Row]) -> std::io::Result<()> {
    let heads = ["HOST", "FILE", "SUBJECT", "ISSUER", "USAGES", "EXPIRES", "WHO SHOWS IT TO WHOM", "SANS"];
    table::print(
        &heads,
        rows.iter().map(|row| {
            let day = row.expires.split('T').next().unwrap_or_default().to_owned();
            vec![
                row.host.clone(),
                row.file.clone(),
                row.subject.clone(),
                row.issuer.clone(),
                row.usages.join(","),
                day,
                row.presented.to_owned(),
                row.sans.join(","),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, LeafSpec};

    #[test]
    fn a_kubeconfigs_client_certificate_is_found_as_a_files_is() {
        let authority = Authority::new("kubernetes").unwrap();
        let issued = authority.issue(&LeafSpec::client("me", &["ours"])).unwrap();
        let data = BASE64_STANDARD.encode(&issued.cert_pem);
        let conf = format!("users: [{{name: me, user: {{client-certificate-data: {data}}}}}]");
        for bytes in [issued.cert_pem.as_bytes(), conf.as_bytes()] {
            let row = row("control", &CONTROL[0], &certificate(bytes).unwrap());
            assert_eq!((row.subject.as_str(), row.issuer.as_str()), ("CN=me,O=ours", "kubernetes"));
        }
        assert!(certificate(b"nothing").is_none());
    }
}
