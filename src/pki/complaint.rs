//! Why a client's certificate is not believed, in Go's words (`apiserver/pkg/authentication/request/x509`).

use jiff::Timestamp;
use rustls::{CertificateError, Error};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::X509Certificate;

/// The whole complaint about a leaf; nothing is known of one that cannot be read.
pub(super) fn complaint(leaf: &CertificateDer<'_>, error: &Error) -> String {
    match x509_parser::parse_x509_certificate(leaf) {
        Ok((_, cert)) => {
            format!("verifying certificate {} failed: {}", identifier(&cert), why(error, Some(&cert)))
        }
        Err(_) => format!("verifying certificate failed: {}", why(error, None)),
    }
}

/// `SN=…, SKID=…, AKID=…`
fn identifier(cert: &X509Certificate<'_>) -> String {
    let (mut own, mut issuer) = (String::new(), String::new());
    for extension in cert.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => own = hex(id.0),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                issuer = id.key_identifier.as_ref().map(|id| hex(id.0)).unwrap_or_default();
            }
            _ => {}
        }
    }
    format!("SN={}, SKID={own}, AKID={issuer}", cert.serial)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn why(error: &Error, cert: Option<&X509Certificate<'_>>) -> String {
    use CertificateError as C;
    let Error::InvalidCertificate(error) = error else { return format!("x509: {error}") };
    let dates = |late: bool| {
        let time = |seconds: i64| Timestamp::from_second(seconds).unwrap_or_default();
        let limit = cert.map(|cert| {
            let validity = cert.validity();
            time(if late { validity.not_after.timestamp() } else { validity.not_before.timestamp() })
        });
        let now = time(Timestamp::now().as_second());
        let relation = if late { "after" } else { "before" };
        let limit =
            limit.map(|limit| format!(": current time {now} is {relation} {limit}")).unwrap_or_default();
        format!("x509: certificate has expired or is not yet valid{limit}")
    };
    match error {
        C::UnknownIssuer | C::BadSignature => "x509: certificate signed by unknown authority".into(),
        C::Expired | C::ExpiredContext { .. } => dates(true),
        C::NotValidYet | C::NotValidYetContext { .. } => dates(false),
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            "x509: certificate specifies an incompatible key usage".into()
        }
        C::UnhandledCriticalExtension => "x509: unhandled critical extension".into(),
        other => format!("x509: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, LeafSpec, certificates};

    #[test]
    fn a_refused_certificate_is_named_and_told_why_as_in_go() {
        let ca = Authority::new("kubernetes").unwrap();
        let pem = ca.issue(&LeafSpec::client("alice", &[])).unwrap().cert_pem;
        let leaf = certificates(pem.as_bytes()).unwrap().remove(0);
        let said = |error: CertificateError| complaint(&leaf, &Error::InvalidCertificate(error));
        let text = said(CertificateError::UnknownIssuer);
        assert!(text.starts_with("verifying certificate SN="), "{text}");
        assert!(
            text.contains(", AKID=")
                && text.ends_with(" failed: x509: certificate signed by unknown authority")
        );
        let text = said(CertificateError::Expired);
        assert!(
            text.contains("x509: certificate has expired or is not yet valid: current time 20"),
            "{text}"
        );
        let text = said(CertificateError::InvalidPurpose);
        assert!(text.ends_with("x509: certificate specifies an incompatible key usage"), "{text}");
    }
}
