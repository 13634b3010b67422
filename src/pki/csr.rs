//! Certificate requests: making them (kubelet, kubeadm) and reading them (approver, signers).

use std::net::IpAddr;

use rcgen::{CertificateParams, KeyPair};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::authority::{names, one_organization, subject};
use super::inspect::{address, attributes};
use super::{PkiError, pem};

/// A new key and a request for it: `(request PEM, key PEM)`.
pub fn request(cn: &str, orgs: &[&str], dns: &[&str], ips: &[IpAddr]) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate().map_err(PkiError::Generate)?;
    let key_pem = key.serialize_pem();
    Ok((build(&key, cn, orgs, dns, ips)?, key_pem))
}

/// A request for a key that exists already (the kubelet keeps one across retries).
pub fn request_with_key(
    key_pem: &str,
    cn: &str,
    orgs: &[&str],
    dns: &[&str],
    ips: &[IpAddr],
) -> Result<String, PkiError> {
    build(&KeyPair::from_pem(key_pem).map_err(|_| PkiError::Key)?, cn, orgs, dns, ips)
}

fn build(key: &KeyPair, cn: &str, orgs: &[&str], dns: &[&str], ips: &[IpAddr]) -> Result<String, PkiError> {
    let owned = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
    one_organization(&owned(orgs))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(cn, &owned(orgs));
    params.subject_alt_names = names(&owned(dns), ips)?;
    params.serialize_request(key).and_then(|request| request.pem()).map_err(PkiError::Generate)
}

/// What a request asks for, read from its bytes; its signature has been checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    pub cn: String,
    pub orgs: Vec<String>,
    /// Both, as the request has them (a `Name` in DER).
    pub subject: Vec<u8>,
    pub dns: Vec<String>,
    pub ips: Vec<IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
    /// RSA keys may also ask for `key encipherment`.
    pub rsa: bool,
}

impl Request {
    /// Reads a `CERTIFICATE REQUEST` block.
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        let der = pem::decode("CERTIFICATE REQUEST", text)
            .ok_or_else(|| PkiError::Request("PEM block type must be CERTIFICATE REQUEST".into()))?;
        let unreadable = |error: &dyn std::fmt::Display| PkiError::Request(error.to_string());
        let (_, csr) = X509CertificationRequest::from_der(&der).map_err(|error| unreadable(&error))?;
        let info = &csr.certification_request_info;
        let (cn, orgs) = attributes(&info.subject);
        let rsa = info.subject_pki.algorithm.algorithm.to_id_string() == "1.2.840.113549.1.1.1";
        csr.verify_signature().map_err(|error| match (error, rsa) {
            // As Go's crypto/x509 says it.
            (X509Error::SignatureVerificationError, true) => {
                PkiError::Request("crypto/rsa: verification error".into())
            }
            (X509Error::SignatureVerificationError, false) => {
                PkiError::Request("x509: ECDSA verification failure".into())
            }
            (error, _) => unreadable(&error),
        })?;
        let mut request =
            Self { cn, orgs, subject: info.subject.as_raw().to_owned(), rsa, ..Self::default() };
        for extension in csr.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(san) = extension {
                san.general_names.iter().for_each(|name| request.add(name));
            }
        }
        Ok(request)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns.push((*name).into()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).into()),
            GeneralName::URI(name) => self.uris.push((*name).into()),
            GeneralName::IPAddress(bytes) => self.ips.extend(address(bytes)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_as_it_was_made() {
        let ip = "192.0.2.11".parse().unwrap();
        let (csr, key) = request("system:node:node-1", &["system:nodes"], &["node-1"], &[ip]).unwrap();
        let read = Request::from_pem(&csr).unwrap();
        assert_eq!(
            (read.cn.as_str(), read.orgs.as_slice()),
            ("system:node:node-1", &["system:nodes".to_owned()][..])
        );
        assert_eq!((read.dns, read.ips), (vec!["node-1".to_owned()], vec![ip]));
        let again = request_with_key(&key, "other", &[], &[], &[]).unwrap();
        assert_eq!(Request::from_pem(&again).unwrap().cn, "other");
    }

    #[test]
    fn garbage_is_refused_with_a_reason() {
        let error = Request::from_pem("hello").unwrap_err();
        assert!(error.to_string().contains("CERTIFICATE REQUEST"));
    }
}
