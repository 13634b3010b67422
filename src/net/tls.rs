//! TLS as Go's servers and clients do it: who is asked for a certificate, who is verified, in which order.

use std::sync::{Arc, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};

use super::NetError;
use super::danger::AcceptAnyServer;
use super::go_text::{X509Error, chain_text, expiry_text, name_text};
use super::keylog::WhileAsked;
use crate::pki::{self, Facts};

/// Whom a client believes.
#[derive(Debug, Clone)]
pub enum Verify {
    /// Only servers that one of these authorities (a PEM bundle) vouches for, under the name dialled.
    Bundle(Vec<u8>),
    /// Anybody.
    ///
    /// # Warning
    ///
    /// See `AcceptAnyServer`: the attacker on the wire becomes the server.
    Unverified,
}

/// A client's or server's certificate chain and key, in PEM.
#[derive(Clone, PartialEq)]
pub struct Identity {
    pub cert_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Identity(..)")
    }
}

/// What ALPN offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/2 and HTTP/1.1.
    H2AndH1,
    /// HTTP/1.1 only: everything that upgrades a connection.
    H1,
    /// HTTP/2 only.
    H2,
}

impl Protocols {
    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::H2AndH1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Self::H1 => vec![b"http/1.1".to_vec()],
            Self::H2 => vec![b"h2".to_vec()],
        }
    }
}

/// The one TLS provider of this program.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

/// A TLS client's configuration.
pub fn client_config(
    verify: &Verify,
    identity: Option<&Identity>,
    protocols: Protocols,
) -> Result<Arc<ClientConfig>, NetError> {
    let algorithms = provider().signature_verification_algorithms;
    let verifier: Arc<dyn ServerCertVerifier> = match verify {
        Verify::Bundle(pem) => Arc::new(GoOrder::new(pem, algorithms)?),
        Verify::Unverified => Arc::new(AcceptAnyServer(algorithms)),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified(identity)?)))
        }
    };
    config.alpn_protocols = protocols.alpn();
    // Every connection verifies anew: a resumed one would skip the very check that is being taught.
    config.resumption = rustls::client::Resumption::disabled();
    config.key_log = Arc::new(WhileAsked);
    Ok(Arc::new(config))
}

/// A certificate with the key that belongs to it.
fn certified(identity: &Identity) -> Result<CertifiedKey, NetError> {
    let chain = pki::certificates(&identity.cert_pem)?;
    let key = provider().key_provider.load_private_key(pki::private_key(&identity.key_pem)?)?;
    let certified = CertifiedKey::new(chain, key);
    match (certified.keys_match(), certified.key.public_key(), certified.cert.first()) {
        // One of version 1, as `openssl x509 -req` makes them: Go shows it like any other, webpki reads it not.
        (Err(Error::InvalidCertificate(_)), Some(own), Some(leaf)) => {
            if pki::public_key_info(leaf)?.as_slice() != &*own {
                return Err(Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch).into());
            }
        }
        (outcome, ..) => outcome?,
    }
    Ok(certified)
}

/// What a server asks of its clients in the handshake.
#[derive(Debug, Clone)]
pub enum Clients {
    /// Nothing: who they are is said, if at all, above TLS.
    Anonymous,
    /// A certificate, if they have one; the HTTP layer judges it.
    Requested,
    /// A certificate of one of these authorities (a PEM bundle): Go's `tls.RequireAndVerifyClientCert`.
    Verified(Vec<u8>),
}

impl Clients {
    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, NetError> {
        let bundle = match self {
            Self::Anonymous => return Ok(WebPkiClientVerifier::no_client_auth()),
            Self::Requested => {
                return Ok(Arc::new(RequestOnly(provider().signature_verification_algorithms)));
            }
            Self::Verified(bundle) => bundle,
        };
        let mut roots = RootCertStore::empty();
        for cert in pki::certificates(bundle)? {
            roots.add(cert)?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        builder.build().map_err(|error| NetError::Tls(Error::General(error.to_string())))
    }
}

/// A serving certificate that can be replaced while connections come in.
#[derive(Debug, Clone, Default)]
pub struct ServingCert {
    current: Arc<RwLock<Option<Arc<CertifiedKey>>>>,
}

impl ServingCert {
    /// Serves nothing yet: clients are told `remote error: tls: internal error`, as by a kubelet whose
    /// serving request is still pending.
    pub fn pending() -> Self {
        Self::default()
    }

    pub fn new(identity: &Identity) -> Result<Self, NetError> {
        let cert = Self::default();
        cert.replace(identity)?;
        Ok(cert)
    }

    /// New connections get this certificate from now on.
    pub fn replace(&self, identity: &Identity) -> Result<(), NetError> {
        let certified = certified(identity)?;
        *self.current.write().expect("nothing panics while holding the lock") = Some(Arc::new(certified));
        Ok(())
    }

    /// Serves nothing from now on, as before the first certificate.
    pub fn withdraw(&self) {
        *self.current.write().expect("nothing panics while holding the lock") = None;
    }

    /// What is served now.
    #[cfg(test)]
    pub fn leaf(&self) -> Option<CertificateDer<'static>> {
        self.get()?.cert.first().cloned()
    }

    pub fn is_pending(&self) -> bool {
        self.get().is_none()
    }

    fn get(&self) -> Option<Arc<CertifiedKey>> {
        self.current.read().expect("nothing panics while holding the lock").clone()
    }

    /// A server's configuration: a client certificate is requested, never required.
    pub fn server_config(&self, protocols: Protocols) -> Result<Arc<ServerConfig>, NetError> {
        self.server_config_for(protocols, &Clients::Requested)
    }

    /// A server's configuration for these clients.
    pub fn server_config_for(
        &self,
        protocols: Protocols,
        clients: &Clients,
    ) -> Result<Arc<ServerConfig>, NetError> {
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let mut config =
            builder.with_client_cert_verifier(clients.verifier()?).with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = protocols.alpn();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.key_log = Arc::new(WhileAsked);
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for ServingCert {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.get()
    }
}

/// Go's `tls.RequestClientCert`: any certificate, or none, passes the handshake.
///
/// Only possession of its key is checked here; chain, dates and usage are the HTTP layer's, which
/// answers 401 where a TLS alert would leave the learner guessing.
#[derive(Debug)]
struct RequestOnly(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for RequestOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match rustls::crypto::verify_tls13_signature(message, cert, signature, &self.0) {
            // Of version 1, which webpki does not read: the same check by the key alone.
            Err(Error::InvalidCertificate(error)) if error != CertificateError::BadSignature => {
                let key = pki::public_key_info(cert).map_err(|_| Error::InvalidCertificate(error))?;
                let key = SubjectPublicKeyInfoDer::from(key);
                rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, signature, &self.0)
            }
            outcome => outcome,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Verification in Go's order: dates, then the name, then the chain, so that a learner reads the same
/// complaint first.
#[derive(Debug)]
struct GoOrder {
    roots: RootCertStore,
    /// The authorities' names, to say "a candidate of that name exists, but its key is another".
    names: Vec<String>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl GoOrder {
    fn new(bundle: &[u8], algorithms: WebPkiSupportedAlgorithms) -> Result<Self, NetError> {
        let (mut roots, mut names) = (RootCertStore::empty(), Vec::new());
        for cert in pki::certificates(bundle)? {
            names.push(Facts::from_der(&cert)?.cn);
            roots.add(cert)?;
        }
        Ok(Self { roots, names, algorithms })
    }
}

impl ServerCertVerifier for GoOrder {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let facts = Facts::from_der(leaf).map_err(|error| refusal(format!("x509: {error}")))?;
        if let Some(text) = expiry_text(&facts, now.as_secs()) {
            return Err(refusal(text));
        }
        let parsed = rustls::server::ParsedCertificate::try_from(leaf)?;
        if rustls::client::verify_server_name(&parsed, name).is_err() {
            return Err(refusal(name_text(&facts, &name.to_str())));
        }
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )
        .map_err(|error| refusal(chain_text(&error, &facts, &self.names)))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A refusal that carries Go's words through rustls.
fn refusal(text: String) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(X509Error(text)))))
}
