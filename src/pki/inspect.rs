//! Reading certificates: what `minilab certs`, rotation and the error texts need to know of one.

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::X509Name;

use super::{PkiError, certificates};

/// A certificate's content, as far as anybody here asks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    pub cn: String,
    pub orgs: Vec<String>,
    pub issuer_cn: String,
    pub dns: Vec<String>,
    pub ips: Vec<IpAddr>,
    /// Seconds since 1970.
    pub not_before: u64,
    pub not_after: u64,
    pub is_ca: bool,
    /// `client auth`, `server auth`; others are left out.
    pub extended_usages: Vec<&'static str>,
    /// Hexadecimal.
    pub serial: String,
    /// Whether the extension with other names exists at all.
    pub has_sans: bool,
}

impl Facts {
    /// Reads the first certificate of a PEM file.
    pub fn from_pem(pem: &[u8]) -> Result<Self, PkiError> {
        Self::from_der(certificates(pem)?.first().ok_or(PkiError::Pem("certificate"))?)
    }

    pub fn from_der(der: &CertificateDer<'_>) -> Result<Self, PkiError> {
        let (_, cert) = x509_parser::parse_x509_certificate(der)
            .map_err(|error| PkiError::Certificate(error.to_string()))?;
        let (cn, orgs) = attributes(cert.subject());
        let seconds = |time: i64| u64::try_from(time).unwrap_or_default();
        let mut facts = Self {
            cn,
            orgs,
            issuer_cn: attributes(cert.issuer()).0,
            not_before: seconds(cert.validity().not_before.timestamp()),
            not_after: seconds(cert.validity().not_after.timestamp()),
            is_ca: cert.is_ca(),
            serial: cert.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            ..Self::default()
        };
        if let Ok(Some(san)) = cert.subject_alternative_name() {
            facts.has_sans = true;
            for name in &san.value.general_names {
                match name {
                    GeneralName::DNSName(name) => facts.dns.push((*name).into()),
                    GeneralName::IPAddress(bytes) => facts.ips.extend(address(bytes)),
                    _ => {}
                }
            }
        }
        if let Ok(Some(usage)) = cert.extended_key_usage() {
            let flags = [(usage.value.client_auth, "client auth"), (usage.value.server_auth, "server auth")];
            facts.extended_usages = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        }
        Ok(facts)
    }
}

/// How kubeadm pins an authority: `sha256:` and the digest of the first certificate's SubjectPublicKeyInfo.
pub fn public_key_pin(pem: &[u8]) -> Result<String, PkiError> {
    let all = certificates(pem)?;
    let der = all.first().ok_or(PkiError::Pem("certificate"))?;
    let (_, cert) =
        x509_parser::parse_x509_certificate(der).map_err(|error| PkiError::Certificate(error.to_string()))?;
    let digest = ring::digest::digest(&ring::digest::SHA256, cert.public_key().raw);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

/// A certificate's SubjectPublicKeyInfo, of whatever version it is.
pub fn public_key_info(der: &CertificateDer<'_>) -> Result<Vec<u8>, PkiError> {
    let (_, cert) =
        x509_parser::parse_x509_certificate(der).map_err(|error| PkiError::Certificate(error.to_string()))?;
    Ok(cert.public_key().raw.to_vec())
}

/// Common name and organizations of a subject.
pub(super) fn attributes(name: &X509Name<'_>) -> (String, Vec<String>) {
    let cn = name.iter_common_name().last().and_then(|value| value.as_str().ok()).unwrap_or_default();
    let orgs = name.iter_organization().filter_map(|value| value.as_str().ok()).map(str::to_owned).collect();
    (cn.to_owned(), orgs)
}

/// An address as a SAN stores it.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}
