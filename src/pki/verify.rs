//! Checking a client's certificate chain against a bundle, after the handshake.
//!
//! Go's servers *request* a client certificate and never refuse the handshake over it; the chain, its
//! dates and the `client auth` usage are checked by the HTTP layer, which answers 401.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rustls::RootCertStore;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::complaint::complaint;
use super::{Facts, PkiError, certificates, unix_now};

/// A verified client's name and groups.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    pub cn: String,
    pub orgs: Vec<String>,
    /// Empty where the certificate names none.
    pub uid: String,
    /// SHA-256 of the certificate, hexadecimal (upstream's credential id).
    pub fingerprint: String,
}

/// A `--client-ca-file`: which authorities may vouch for clients.
pub struct ClientRoots {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Leaves already checked, with their end: a connection's certificate is the same at each request.
    known: Mutex<Known>,
}

/// A leaf's bytes; its end in seconds since 1970, and whose it is.
type Known = HashMap<Vec<u8>, (u64, Arc<Subject>)>;

/// Where a subject carries its user's uid (`AllowParsingUserUIDFromCertAuth`).
const UID: &str = "1.3.6.1.4.1.57683.2";

/// The uid a leaf's subject names; several are one too many, and an empty one is none.
fn uid(leaf: &CertificateDer<'_>) -> Result<String, PkiError> {
    let (_, cert) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| PkiError::Certificate(error.to_string()))?;
    let named = cert.subject().iter_attributes().filter(|one| one.attr_type().to_id_string() == UID);
    let uids: Vec<&str> = named.map(|one| one.as_str().unwrap_or_default()).collect();
    match uids.as_slice() {
        [] => Ok(String::new()),
        [""] => Err(PkiError::Chain("UID cannot be an empty string".into())),
        [uid] => Ok((*uid).to_owned()),
        many => Err(PkiError::Chain(format!("expected 1 UID, but found multiple: {many:?}"))),
    }
}

/// More different clients than a lab has; then the memory starts anew.
const KNOWN: usize = 512;

impl ClientRoots {
    pub fn from_pem(bundle: &[u8]) -> Result<Self, PkiError> {
        let mut roots = RootCertStore::empty();
        for cert in certificates(bundle)? {
            roots.add(cert).map_err(|error| PkiError::Certificate(error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| PkiError::Certificate(error.to_string()))?;
        Ok(Self { verifier, known: Mutex::default() })
    }

    /// Checks a chain as the peer sent it: signed by one of these roots, in date, for client use.
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<Arc<Subject>, PkiError> {
        let (leaf, intermediates) = chain.split_first().ok_or(PkiError::Pem("certificate"))?;
        let now = unix_now();
        let mut known = self.known.lock().expect("nothing panics while holding the lock");
        if let Some((end, subject)) = known.get(leaf.as_ref())
            && now < *end
        {
            return Ok(Arc::clone(subject));
        }
        self.verifier
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .map_err(|error| PkiError::Chain(complaint(leaf, &error)))?;
        let facts = Facts::from_der(leaf)?;
        let hash = ring::digest::digest(&ring::digest::SHA256, leaf);
        let fingerprint = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let subject = Arc::new(Subject { cn: facts.cn, orgs: facts.orgs, uid: uid(leaf)?, fingerprint });
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(leaf.to_vec(), (facts.not_after, Arc::clone(&subject)));
        Ok(subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, LeafSpec};

    fn verify(ca: &Authority, cert_pem: &str) -> Result<Arc<Subject>, PkiError> {
        ClientRoots::from_pem(ca.cert_pem().as_bytes())
            .unwrap()
            .verify(&certificates(cert_pem.as_bytes()).unwrap())
    }

    #[test]
    fn a_client_of_this_authority_is_known_and_a_strangers_is_not() {
        let (ca, other) = (Authority::new("kubernetes").unwrap(), Authority::new("kubernetes").unwrap());
        let spec = LeafSpec::client("alice", &["devs"]);
        assert_eq!(verify(&ca, &ca.issue(&spec).unwrap().cert_pem).unwrap().cn, "alice");
        assert!(verify(&ca, &other.issue(&spec).unwrap().cert_pem).is_err());
    }

    #[test]
    fn a_serving_certificate_is_no_client_certificate() {
        let ca = Authority::new("kubernetes").unwrap();
        let server = ca.issue(&LeafSpec::server("node-1", &["node-1"], &[])).unwrap();
        assert!(verify(&ca, &server.cert_pem).is_err());
    }
}
