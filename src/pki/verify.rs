//! Checking a client's certificate chain against a bundle, after the handshake.
//!
//! Go's servers *request* a client certificate and never refuse the handshake over it; the chain, its
//! dates and the `client auth` usage are checked by the HTTP layer, which answers 401.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rustls::RootCertStore;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Version;

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
    authorities: Vec<CertificateDer<'static>>,
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
        let authorities = certificates(bundle)?;
        for cert in authorities.iter().cloned() {
            roots.add(cert).map_err(|error| PkiError::Certificate(error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| PkiError::Certificate(error.to_string()))?;
        Ok(Self { verifier, authorities, known: Mutex::default() })
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
        let outcome = self.verifier.verify_client_cert(leaf, intermediates, UnixTime::now());
        if let Err(error) = outcome
            && !self.vouch_for_version_1(leaf, now)
        {
            return Err(PkiError::Chain(complaint(leaf, &error)));
        }
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

    /// Whether an authority itself signed this certificate of version 1, which `openssl x509 -req` makes when
    /// no extensions are asked for. Go takes it, as one without named usages; webpki reads none of them.
    fn vouch_for_version_1(&self, leaf: &CertificateDer<'_>, now: u64) -> bool {
        let Ok((_, leaf)) = parse_x509_certificate(leaf) else { return false };
        let in_date = |cert: &X509Certificate<'_>| {
            i64::try_from(now)
                .ok()
                .and_then(|now| ASN1Time::from_timestamp(now).ok())
                .is_some_and(|now| cert.validity().is_valid_at(now))
        };
        let signed = |der: &CertificateDer<'_>| {
            let Ok((_, authority)) = parse_x509_certificate(der) else { return false };
            authority.subject().as_raw() == leaf.issuer().as_raw()
                && authority.is_ca()
                && in_date(&authority)
                && leaf.verify_signature(Some(authority.public_key())).is_ok()
        };
        leaf.version() == X509Version::V1 && in_date(&leaf) && self.authorities.iter().any(signed)
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

    #[test]
    fn a_certificate_of_version_1_is_taken_from_its_own_authority_alone() {
        // `openssl x509 -req` without extensions; the authority, the leaf and its key.
        let all = certificates(include_bytes!("testdata/version-1.pem")).unwrap();
        let of = |leaf: &CertificateDer<'static>, ca: &str| {
            ClientRoots::from_pem(ca.as_bytes()).unwrap().verify(std::slice::from_ref(leaf))
        };
        let text = include_str!("testdata/version-1.pem");
        let text = text.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
        let known = of(&all[1], text).unwrap();
        assert_eq!((known.cn.as_str(), known.orgs.as_slice()), ("alice", ["devs".to_owned()].as_slice()));
        let stranger = Authority::new("kubernetes").unwrap();
        assert!(of(&all[1], stranger.cert_pem()).is_err());
        let mut forged = all[1].to_vec();
        let at = forged.windows(5).position(|part| part == b"alice").unwrap();
        forged[at] = b'm';
        assert!(of(&CertificateDer::from(forged), text).is_err());
    }
}
