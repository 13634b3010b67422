//! Kubeconfigs: those inside the lab and the user's way in, rendered here; the user's own file in [`user`].

mod user;

use std::io;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::material::Material;
use super::plan::{Credential, Kubeconfig, Trust};
use crate::client;

pub use user::{UserFiles, remove_if_empty};

/// What can go wrong with a kubeconfig.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("the lab has no certificate {name:?}")]
    Material { name: String },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not a kubeconfig; it was left as it is")]
    Parse { path: PathBuf, source: Option<serde_yaml_ng::Error> },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} is there since another program edits the kubeconfig; if none does, remove it")]
    Locked { path: PathBuf },
    #[error("cannot tell where the kubeconfig is: set KUBECONFIG or HOME")]
    NoHome,
}

/// One cluster, user and context: what a kubeconfig is made of.
pub struct Entry<'a> {
    pub cluster: &'a str,
    pub user: &'a str,
    pub context: &'a str,
    cluster_body: Value,
    user_body: Value,
}

/// A kubeconfig as kubeadm writes it for a part of the lab.
pub fn inside(file: &Kubeconfig, material: &Material) -> Result<String, KubeconfigError> {
    let context = format!("{}@kubernetes", file.user);
    let entry = Entry {
        cluster: "kubernetes",
        user: &file.user,
        context: &context,
        cluster_body: cluster(&file.server, file.trust, material)?,
        user_body: user(&file.credential, material)?,
    };
    Ok(yaml(&entry.alone()))
}

/// The kubeconfig a kubelet writes for itself: the cluster it was told of, its certificate by a link.
pub fn own(
    server: &str,
    trust: Trust,
    certificate: &str,
    material: &Material,
) -> Result<String, KubeconfigError> {
    let ca = material.certificate("ca").ok_or_else(|| missing("ca"))?;
    let cluster = client::Cluster {
        certificate_authority_data: (trust == Trust::ClusterCa).then(|| BASE64_STANDARD.encode(ca)),
        insecure_skip_tls_verify: trust == Trust::Skipped,
        server: server.to_owned(),
        ..client::Cluster::default()
    };
    let link = Some(certificate.to_owned());
    let user = client::User { client_certificate: link.clone(), client_key: link, ..client::User::default() };
    let file =
        client::Kubeconfig::single("default-context", "default-cluster", "default-auth", cluster, user);
    Ok(file.to_yaml())
}

/// The user's way in: context `minilab-NAME` on the machine's loopback, as kubeadm's administrator.
pub fn outside<'a>(context: &'a str, port: u16, material: &Material) -> Result<Entry<'a>, KubeconfigError> {
    let server = format!("https://127.0.0.1:{port}");
    let (cluster, user) = (
        cluster(&server, Trust::ClusterCa, material)?,
        user(&Credential::Certificate("admin".into()), material)?,
    );
    Ok(Entry { cluster: context, user: context, context, cluster_body: cluster, user_body: user })
}

fn cluster(server: &str, trust: Trust, material: &Material) -> Result<Value, KubeconfigError> {
    Ok(match trust {
        Trust::Skipped => json!({"insecure-skip-tls-verify": true, "server": server}),
        Trust::ClusterCa => {
            let ca = material.certificate("ca").ok_or_else(|| missing("ca"))?;
            json!({"certificate-authority-data": BASE64_STANDARD.encode(ca), "server": server})
        }
    })
}

fn user(credential: &Credential, material: &Material) -> Result<Value, KubeconfigError> {
    Ok(match credential {
        Credential::BootstrapToken => json!({"token": material.bootstrap_token()}),
        Credential::StaticToken => json!({"token": material.static_token()}),
        Credential::Certificate(name) => {
            let (certificate, key) =
                material.certificate(name).zip(material.key(name)).ok_or_else(|| missing(name))?;
            json!({
                "client-certificate-data": BASE64_STANDARD.encode(certificate),
                "client-key-data": BASE64_STANDARD.encode(key),
            })
        }
    })
}

fn missing(name: &str) -> KubeconfigError {
    KubeconfigError::Material { name: name.to_owned() }
}

fn yaml(value: &Value) -> String {
    serde_yaml_ng::to_string(value).expect("a JSON tree has a YAML form")
}

impl Entry<'_> {
    /// A kubeconfig with nothing else in it.
    pub fn alone(&self) -> Value {
        let mut file = json!({"apiVersion": "v1", "kind": "Config", "preferences": {}});
        self.put_into(&mut file);
        file["current-context"] = json!(self.context);
        file
    }

    /// The text of [`Self::alone`].
    pub fn to_yaml(&self) -> String {
        yaml(&self.alone())
    }

    /// Adds or replaces the three stanzas of this entry.
    fn put_into(&self, file: &mut Value) {
        put(file, "clusters", self.cluster, "cluster", self.cluster_body.clone());
        put(file, "users", self.user, "user", self.user_body.clone());
        let mut context = json!({"cluster": self.cluster, "user": self.user});
        // The namespace is the user's own choice (`kubectl config set-context --current --namespace`).
        let mut there = file["contexts"].as_array().into_iter().flatten();
        if let Some(stanza) = there.find(|stanza| stanza["name"] == self.context)
            && let Some(namespace) = stanza["context"]["namespace"].as_str()
        {
            context["namespace"] = json!(namespace);
        }
        put(file, "contexts", self.context, "context", context);
    }
}

fn put(file: &mut Value, list: &str, name: &str, field: &str, body: Value) {
    if !file[list].is_array() {
        file[list] = json!([]);
    }
    let stanza = json!({"name": name, field: body});
    let Some(list) = file[list].as_array_mut() else { return };
    match list.iter_mut().find(|stanza| stanza["name"] == name) {
        Some(there) => *there = stanza,
        None => list.push(stanza),
    }
}
