//! The lab's keys: certificates, the service-account key and the tokens, made once at the first `up`.
//!
//! kubeadm's certificate phase with its names, subjects and lifetimes, all on P-256. Kept in the lab's own
//! `pki/`; the hosts get copies. The nodes' certificates are not here: each kubelet asks for its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::plan::{BALANCER, CLUSTER_DOMAIN, CONTROL, KUBERNETES_SERVICE};
use super::state::{LabDir, StateError};
use crate::pki::{self, Authority, Issued, LeafSpec, PkiError, SigningKey, SshKey};

/// The groups of kubeadm's two administrators.
const CLUSTER_ADMINS: &str = "kubeadm:cluster-admins";
const MASTERS: &str = "system:masters";

/// What can go wrong while the lab's keys are made or read.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    #[error("make the certificate {name}")]
    Issue { name: &'static str, source: PkiError },
    #[error("the system gave no random bytes")]
    Random,
    #[error("{path} is not what was written there: remove the lab with `minilab delete` to start afresh")]
    Damaged { path: PathBuf, source: Option<serde_json::Error> },
    #[error(transparent)]
    State(#[from] StateError),
}

/// Every secret of a lab by its kubeadm name.
pub struct Material {
    pairs: BTreeMap<String, Pair>,
    tokens: Tokens,
}

/// One certificate, or for `sa` a public key, with its private key, in PEM.
#[derive(Clone)]
struct Pair {
    public: String,
    key: String,
}

/// The lab's shared secrets.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tokens {
    bootstrap: String,
    #[serde(rename = "static")]
    static_token: String,
    /// Every SSH key of the lab is derived from it; a lab of an older version has none.
    #[serde(default)]
    ssh: String,
}

impl Material {
    /// Reads the lab's keys, or makes them all when there are none.
    pub fn of(lab: &LabDir) -> Result<Self, MaterialError> {
        match lab.state.join("pki/tokens.json").exists() {
            true => Self::load(lab),
            false => {
                let made = Self::make()?;
                made.save(lab)?;
                Ok(made)
            }
        }
    }

    /// A certificate's PEM.
    pub fn certificate(&self, name: &str) -> Option<&str> {
        self.pairs.get(name).map(|pair| pair.public.as_str())
    }

    /// A private key's PEM.
    pub fn key(&self, name: &str) -> Option<&str> {
        self.pairs.get(name).map(|pair| pair.key.as_str())
    }

    /// The token nodes join with: `id.secret`.
    pub fn bootstrap_token(&self) -> &str {
        &self.tokens.bootstrap
    }

    /// The token all nodes share while `node-to-apiserver.credential` is insecure.
    pub fn static_token(&self) -> &str {
        &self.tokens.static_token
    }

    /// The SSH key of a host, or of the login on control.
    pub fn ssh_key(&self, name: &str) -> Result<SshKey, MaterialError> {
        let failed = |source| MaterialError::Issue { name: "SSH key", source };
        SshKey::derived(self.tokens.ssh.as_bytes(), name).map_err(failed)
    }

    /// What a joining node pins: `sha256:` and the digest of the cluster CA's public key.
    pub fn ca_cert_hash(&self) -> String {
        let ca = self.certificate("ca").unwrap_or_default();
        pki::public_key_pin(ca.as_bytes()).unwrap_or_default()
    }

    fn make() -> Result<Self, MaterialError> {
        let cluster = authority("ca", "kubernetes")?;
        let front = authority("front-proxy-ca", "front-proxy-ca")?;
        let mut pairs = BTreeMap::new();
        let mut keep = |name: &'static str, issued: Result<Issued, PkiError>| {
            let issued = issued.map_err(|source| MaterialError::Issue { name, source })?;
            pairs.insert(name.to_owned(), Pair { public: issued.cert_pem, key: issued.key_pem });
            Ok::<_, MaterialError>(())
        };
        keep("apiserver", cluster.issue(&apiserver()))?;
        for (name, cn, orgs) in CLIENTS {
            keep(name, cluster.issue(&LeafSpec::client(cn, orgs)))?;
        }
        keep("front-proxy-client", front.issue(&LeafSpec::client("front-proxy-client", &[])))?;
        for (name, authority) in [("ca", &cluster), ("front-proxy-ca", &front)] {
            let (public, key) = (authority.cert_pem().to_owned(), authority.key_pem().to_owned());
            pairs.insert(name.into(), Pair { public, key });
        }
        let accounts = SigningKey::generate()
            .map_err(|source| MaterialError::Issue { name: "service-account key", source })?;
        pairs.insert("sa".into(), Pair { public: accounts.public_pem(), key: accounts.to_pem() });
        let bootstrap = format!("{}.{}", random_word(6)?, random_word(16)?);
        let tokens = Tokens { bootstrap, static_token: random_word(32)?, ssh: random_word(32)? };
        Ok(Self { pairs, tokens })
    }

    /// The tokens go last: with them the set is whole.
    fn save(&self, lab: &LabDir) -> Result<(), MaterialError> {
        let dir = lab.state.join("pki");
        for (name, pair) in &self.pairs {
            let public = if name == "sa" { "sa.pub".to_owned() } else { format!("{name}.crt") };
            lab.write(&dir.join(public), 0o600, pair.public.as_bytes())?;
            lab.write(&dir.join(format!("{name}.key")), 0o600, pair.key.as_bytes())?;
        }
        self.tokens.save(lab)
    }

    fn load(lab: &LabDir) -> Result<Self, MaterialError> {
        let read = |file: &str| {
            let path = lab.state.join("pki").join(file);
            std::fs::read_to_string(&path).map_err(|source| StateError::Read { path, source })
        };
        let fixed = ["apiserver", "front-proxy-client", "ca", "front-proxy-ca"];
        let pair = |name: &str| {
            Ok::<_, MaterialError>(Pair {
                public: read(&format!("{name}.crt"))?,
                key: read(&format!("{name}.key"))?,
            })
        };
        let mut pairs = BTreeMap::new();
        for name in fixed {
            pairs.insert(name.to_owned(), pair(name)?);
        }
        for (name, cn, orgs) in CLIENTS {
            let kept = match lab.state.join("pki").join(format!("{name}.crt")).exists() {
                true => pair(name)?,
                // A lab of an older version: this client came later.
                false => late(lab, &pairs["ca"], name, &LeafSpec::client(cn, orgs))?,
            };
            pairs.insert((*name).to_owned(), kept);
        }
        pairs.insert("sa".into(), Pair { public: read("sa.pub")?, key: read("sa.key")? });
        let mut tokens: Tokens = serde_json::from_str(&read("tokens.json")?).map_err(|source| {
            MaterialError::Damaged { path: lab.state.join("pki/tokens.json"), source: Some(source) }
        })?;
        if tokens.ssh.is_empty() {
            tokens.ssh = random_word(32)?;
            tokens.save(lab)?;
        }
        Ok(Self { pairs, tokens })
    }
}

impl Tokens {
    fn save(&self, lab: &LabDir) -> Result<(), MaterialError> {
        let bytes = serde_json::to_vec(self).expect("plain strings have a JSON form");
        Ok(lab.write(&lab.state.join("pki/tokens.json"), 0o600, &bytes)?)
    }
}

/// Client certificates of the cluster CA: file, common name, organizations.
const CLIENTS: &[(&str, &str, &[&str])] = &[
    ("apiserver-kubelet-client", "kube-apiserver-kubelet-client", &[]),
    ("admin", "kubernetes-admin", &[CLUSTER_ADMINS]),
    ("super-admin", "kubernetes-super-admin", &[MASTERS]),
    ("controller-manager", "system:kube-controller-manager", &[]),
    ("scheduler", "system:kube-scheduler", &[]),
    ("kube-proxy", "system:kube-proxy", &[]),
    ("csr-approver", "minilab:csr-approver", &[]),
    ("konnectivity-server", "system:konnectivity-server", &[]),
];

/// Issues a client's certificate in a lab that has its authority already.
fn late(lab: &LabDir, ca: &Pair, name: &'static str, spec: &LeafSpec) -> Result<Pair, MaterialError> {
    let failed = |source| MaterialError::Issue { name, source };
    let authority = Authority::from_pem(&ca.public, &ca.key).map_err(failed)?;
    let issued = authority.issue(spec).map_err(failed)?;
    let pair = Pair { public: issued.cert_pem, key: issued.key_pem };
    let dir = lab.state.join("pki");
    lab.write(&dir.join(format!("{name}.crt")), 0o644, pair.public.as_bytes())?;
    lab.write(&dir.join(format!("{name}.key")), 0o600, pair.key.as_bytes())?;
    Ok(pair)
}

fn authority(name: &'static str, cn: &str) -> Result<Authority, MaterialError> {
    Authority::new(cn).map_err(|source| MaterialError::Issue { name, source })
}

/// The API server's serving certificate, with every name and address it is reached by.
fn apiserver() -> LeafSpec {
    let service = format!("kubernetes.default.svc.{CLUSTER_DOMAIN}");
    let dns =
        ["control", "kubernetes", "kubernetes.default", "kubernetes.default.svc", &service, "localhost"];
    let ips: [IpAddr; 4] =
        [KUBERNETES_SERVICE.into(), CONTROL.into(), BALANCER.into(), Ipv4Addr::LOCALHOST.into()];
    LeafSpec::server("kube-apiserver", &dns, &ips)
}

/// A random word of a-z and 0-9, every letter equally likely.
fn random_word(length: usize) -> Result<String, MaterialError> {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let random = SystemRandom::new();
    let mut word = String::with_capacity(length);
    while word.len() < length {
        let mut byte = [0];
        random.fill(&mut byte).map_err(|_| MaterialError::Random)?;
        // 252 is the last multiple of 36 in a byte; what is above would favour some letters.
        if byte[0] < 252 {
            word.push(char::from(LETTERS[usize::from(byte[0] % 36)]));
        }
    }
    Ok(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Facts;

    #[test]
    fn the_apiserver_answers_to_kubeadms_names_and_the_labs_addresses() {
        let material = Material::make().unwrap();
        let facts = Facts::from_pem(material.certificate("apiserver").unwrap().as_bytes()).unwrap();
        assert_eq!(facts.issuer_cn, "kubernetes");
        assert!(facts.dns.contains(&"kubernetes.default.svc.cluster.local".to_owned()));
        let ips: Vec<String> = facts.ips.iter().map(ToString::to_string).collect();
        assert_eq!(ips, ["10.96.0.1", "198.51.100.2", "198.51.100.1", "127.0.0.1"]);
    }

    #[test]
    fn keys_are_made_once_and_read_again() {
        let temp = tempfile::tempdir().unwrap();
        let lab = LabDir::new("one", Some(temp.path())).unwrap();
        let _lock = lab.lock().unwrap();
        let (first, second) = (Material::of(&lab).unwrap(), Material::of(&lab).unwrap());
        assert_eq!(first.bootstrap_token(), second.bootstrap_token());
        assert!(first.pairs.iter().all(|(name, pair)| second.key(name) == Some(&pair.key)));
        assert_eq!(first.pairs.len(), second.pairs.len());
        std::fs::remove_file(lab.state.join("pki/csr-approver.crt")).unwrap();
        let (third, fourth) = (Material::of(&lab).unwrap(), Material::of(&lab).unwrap());
        assert_eq!(third.key("csr-approver"), fourth.key("csr-approver"), "made once, also when made late");
        let ssh = |material: &Material| material.ssh_key("node-1").unwrap().public;
        assert_eq!(ssh(&first), ssh(&fourth));
        let old = format!("{{\"bootstrap\":{:?},\"static\":\"s\"}}", first.bootstrap_token());
        lab.write(&lab.state.join("pki/tokens.json"), 0o600, old.as_bytes()).unwrap();
        let (fifth, sixth) = (Material::of(&lab).unwrap(), Material::of(&lab).unwrap());
        assert!(ssh(&fifth) == ssh(&sixth) && ssh(&fifth) != ssh(&first));
    }

    #[test]
    fn the_bootstrap_token_has_upstreams_form() {
        let material = Material::make().unwrap();
        let (id, secret) = material.bootstrap_token().split_once('.').unwrap();
        assert_eq!((id.len(), secret.len()), (6, 16));
    }
}
