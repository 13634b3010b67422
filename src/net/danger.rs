//! Verifiers that accept anything: all of them are here, so that one search finds them.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Go's `InsecureSkipVerify`: encrypted, but to whom is anybody's guess.
///
/// # Warning
///
/// Whoever answers is believed. Upstream does this in three places a learner meets: a kubeconfig with
/// `insecure-skip-tls-verify`, an API server without `--kubelet-certificate-authority`, and the `https:`
/// prefix of the proxy subresource. The safe sibling is [`super::Verify::Bundle`].
#[derive(Debug)]
pub(super) struct AcceptAnyServer(pub(super) WebPkiSupportedAlgorithms);

/// Go reads certificates that webpki does not, those of version 1 among them. Where nobody is asked who they
/// are, one that cannot be read is as good as any; a signature that is wrong stays wrong.
fn any_version(outcome: Result<HandshakeSignatureValid, Error>) -> Result<HandshakeSignatureValid, Error> {
    match outcome {
        Err(Error::InvalidCertificate(error)) if error != CertificateError::BadSignature => {
            Ok(HandshakeSignatureValid::assertion())
        }
        outcome => outcome,
    }
}

impl ServerCertVerifier for AcceptAnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        any_version(rustls::crypto::verify_tls12_signature(message, cert, signature, &self.0))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        any_version(rustls::crypto::verify_tls13_signature(message, cert, signature, &self.0))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
