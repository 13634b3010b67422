//! The one table from what rustls and the kernel say to what Go says.
//!
//! Users compare what they read here with what they find on the web, and there it is Go's words.

use std::io;

use jiff::Timestamp;
use rustls::{AlertDescription, CertificateError, Error};

use super::ends::OpError;
use crate::pki::Facts;

/// A certificate refused, in Go's `crypto/x509` words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct X509Error(pub(super) String);

/// Any error whose chain of causes ends in a TLS or operating system error, in Go's words.
pub fn go_text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = Some(error);
    let mut last = error;
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<Error>() {
            return tls_text(tls);
        }
        if let Some(dial) = error.downcast_ref::<super::DialError>() {
            return dial.to_string();
        }
        if let Some(io) = error.downcast_ref::<io::Error>()
            && (io.raw_os_error().is_some() || io.get_ref().is_none_or(|inner| inner.is::<Error>()))
        {
            return io_text(io);
        }
        last = error;
        cause = error.source();
    }
    match last.to_string() {
        text if text.contains("close_notify") => "unexpected EOF".into(),
        text => text,
    }
}

/// An operating system error, or the TLS error that tokio-rustls wraps in one.
pub fn io_text(error: &io::Error) -> String {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        return tls_text(tls);
    }
    if let Some(named) = error.get_ref().and_then(|inner| inner.downcast_ref::<OpError>()) {
        return named.to_string();
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        io::ErrorKind::ConnectionReset => "read: connection reset by peer".into(),
        io::ErrorKind::BrokenPipe => "write: broken pipe".into(),
        io::ErrorKind::TimedOut => "i/o timeout".into(),
        // rustls has a sentence of its own for a peer that leaves without a word.
        io::ErrorKind::UnexpectedEof => match error.to_string().contains("close_notify") {
            true => "unexpected EOF".into(),
            false => "EOF".into(),
        },
        _ => error.to_string(),
    }
}

/// A TLS error.
pub fn tls_text(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => format!("remote error: tls: {}", alert_text(*alert)),
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            format!("tls: failed to verify certificate: {}", other.0)
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "tls: failed to verify certificate: x509: certificate signed by unknown authority".into()
        }
        Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            "tls: first record does not look like a TLS handshake".into()
        }
        Error::NoApplicationProtocol => "tls: no application protocol".into(),
        other => format!("tls: {other}"),
    }
}

/// Go's names of TLS alerts (`crypto/tls/alert.go`).
fn alert_text(alert: AlertDescription) -> String {
    use AlertDescription as A;
    match alert {
        A::CloseNotify => "close notify",
        A::UnexpectedMessage => "unexpected message",
        A::BadRecordMac => "bad record MAC",
        A::RecordOverflow => "record overflow",
        A::HandshakeFailure => "handshake failure",
        A::BadCertificate => "bad certificate",
        A::UnsupportedCertificate => "unsupported certificate",
        A::CertificateRevoked => "revoked certificate",
        A::CertificateExpired => "expired certificate",
        A::CertificateUnknown => "unknown certificate",
        A::IllegalParameter => "illegal parameter",
        A::UnknownCA => "unknown certificate authority",
        A::AccessDenied => "access denied",
        A::DecodeError => "error decoding message",
        A::DecryptError => "error decrypting message",
        A::ProtocolVersion => "protocol version not supported",
        A::InsufficientSecurity => "insufficient security level",
        A::InternalError => "internal error",
        A::UserCanceled => "user canceled",
        A::UnsupportedExtension => "unsupported extension",
        A::UnrecognisedName => "unrecognized name",
        A::CertificateRequired => "certificate required",
        A::NoApplicationProtocol => "no application protocol",
        other => return format!("alert({})", u8::from(other)),
    }
    .into()
}

/// The complaint about a certificate's dates, if there is one.
pub(super) fn expiry_text(facts: &Facts, now: u64) -> Option<String> {
    let (relation, limit) = match now {
        now if now > facts.not_after => ("after", facts.not_after),
        now if now < facts.not_before => ("before", facts.not_before),
        _ => return None,
    };
    let time = |seconds: u64| {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
    };
    let head = "x509: certificate has expired or is not yet valid: current time";
    Some(format!("{head} {} is {relation} {}", time(now), time(limit)))
}

/// Go's `HostnameError`.
pub(super) fn name_text(facts: &Facts, wanted: &str) -> String {
    if !facts.has_sans && facts.cn.eq_ignore_ascii_case(wanted) {
        return "x509: certificate relies on legacy Common Name field, use SANs instead".into();
    }
    let valid = if wanted.parse::<std::net::IpAddr>().is_ok() {
        if facts.ips.is_empty() {
            return format!(
                "x509: cannot validate certificate for {wanted} because it doesn't contain any IP SANs"
            );
        }
        facts.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    } else {
        facts.dns.join(", ")
    };
    match valid.is_empty() {
        true => format!("x509: certificate is not valid for any names, but wanted to match {wanted}"),
        false => format!("x509: certificate is valid for {valid}, not {wanted}"),
    }
}

/// Why no chain leads to a trusted authority; `names` are the trusted authorities'.
pub(super) fn chain_text(error: &Error, facts: &Facts, names: &[String]) -> String {
    let Error::InvalidCertificate(error) = error else { return format!("x509: {error}") };
    match error {
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "x509: certificate specifies an incompatible key usage".into()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            let mut text = "x509: certificate signed by unknown authority".to_owned();
            if names.contains(&facts.issuer_cn) {
                text += &format!(
                    " (possibly because of \"x509: ECDSA verification failure\" while trying to verify \
                     candidate authority certificate {:?})",
                    facts.issuer_cn
                );
            }
            text
        }
        other => format!("x509: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(dns: &[&str], ips: &[&str]) -> Facts {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let dns = dns.iter().map(|name| (*name).to_owned()).collect();
        Facts { dns, ips, has_sans: true, not_before: 100, not_after: 200, ..Facts::default() }
    }

    #[test]
    fn a_wrong_name_reads_as_in_go() {
        assert_eq!(
            name_text(&facts(&["node-1"], &[]), "192.0.2.11"),
            "x509: cannot validate certificate for 192.0.2.11 because it doesn't contain any IP SANs"
        );
        assert_eq!(
            name_text(&facts(&[], &["192.0.2.11", "192.0.2.12"]), "192.0.2.13"),
            "x509: certificate is valid for 192.0.2.11, 192.0.2.12, not 192.0.2.13"
        );
        assert_eq!(name_text(&facts(&["a", "b"], &[]), "c"), "x509: certificate is valid for a, b, not c");
        assert_eq!(
            name_text(&facts(&[], &[]), "c"),
            "x509: certificate is not valid for any names, but wanted to match c"
        );
    }

    #[test]
    fn dates_read_as_in_go() {
        assert_eq!(
            expiry_text(&facts(&[], &[]), 300).unwrap(),
            "x509: certificate has expired or is not yet valid: current time 1970-01-01T00:05:00Z \
             is after 1970-01-01T00:03:20Z"
        );
        assert!(expiry_text(&facts(&[], &[]), 150).is_none());
    }

    #[test]
    fn alerts_and_kernel_errors_read_as_in_go() {
        let alert = Error::AlertReceived(AlertDescription::InternalError);
        assert_eq!(tls_text(&alert), "remote error: tls: internal error");
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(io_text(&refused), "connect: connection refused");
        let wrapped = io::Error::other(alert);
        assert_eq!(go_text(&wrapped), "remote error: tls: internal error");
    }
}
