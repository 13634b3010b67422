//! PEM in and out, and nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::PkiError;

/// Every certificate of a bundle, in order; an empty bundle is an error.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err(PkiError::Pem("certificate")),
    }
}

/// The first private key (PKCS#8, SEC1 or PKCS#1).
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| PkiError::Pem("private key"))
}

/// One PEM block.
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().map(|byte| char::from(*byte)));
        out.push('\n');
    }
    out + "-----END " + label + "-----\n"
}

/// The bytes of the first block with this label.
pub(super) fn decode(label: &str, pem: &str) -> Option<Vec<u8>> {
    let body = pem.split_once(&format!("-----BEGIN {label}-----"))?.1;
    let body = body.split_once(&format!("-----END {label}-----"))?.0;
    let text: String = body.chars().filter(|char| !char.is_whitespace()).collect();
    STANDARD.decode(text).ok()
}
