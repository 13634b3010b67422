//! Certificate authorities and the leaves they issue, as kubeadm and the certificate signers make them.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};

use super::{Facts, PkiError, pem, resubject, unix_now};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// kubeadm's authorities live ten years.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks differ; upstream starts every certificate this much in the past.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// The shortest life a request can ask for.
const SHORTEST: Duration = Duration::from_secs(600);
/// Below this the end is not moved back as well (`pkg/controller/certificates/authority/policies.go`).
const SHORT_LIFETIME: Duration = Duration::from_secs(8 * 3600);

/// A certificate with the key it was made for.
#[derive(Debug, Clone)]
pub struct Issued {
    pub cert_pem: String,
    pub key_pem: String,
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
}

/// A leaf certificate to be issued. An empty `cn` or list leaves that part out.
#[derive(Debug, Clone)]
pub struct LeafSpec {
    pub cn: String,
    pub orgs: Vec<String>,
    pub dns: Vec<String>,
    pub ips: Vec<IpAddr>,
    pub usage: Usage,
    /// kubeadm: one year.
    pub lifetime: Duration,
}

impl LeafSpec {
    /// A client certificate for one year: who it is and its groups.
    pub fn client(cn: &str, orgs: &[&str]) -> Self {
        Self {
            cn: cn.into(),
            orgs: orgs.iter().map(|org| (*org).into()).collect(),
            dns: Vec::new(),
            ips: Vec::new(),
            usage: Usage::Client,
            lifetime: DAY * 365,
        }
    }

    /// A serving certificate for one year.
    pub fn server(cn: &str, dns: &[&str], ips: &[IpAddr]) -> Self {
        let dns = dns.iter().map(|name| (*name).into()).collect();
        Self { dns, ips: ips.to_vec(), usage: Usage::Server, ..Self::client(cn, &[]) }
    }
}

/// A certificate authority: signs leaves and requests.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
    key_pem: String,
    /// Its own end, which nothing it signs outlives.
    not_after: u64,
}

impl Authority {
    /// A new authority as kubeadm makes one: ten years, certificate signing, its own name as a DNS SAN.
    pub fn new(cn: &str) -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(PkiError::Generate)?;
        let mut params = skeleton(cn, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyCertSign,
        ];
        // A name with other signs (the kubelet's `HOST-ca@UNIX`) stays a common name only.
        if cn.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.') {
            params.subject_alt_names = names(&[cn.to_owned()], &[])?;
        }
        let start = unix_now().saturating_sub(BACKDATE.as_secs());
        let not_after = start + AUTHORITY_LIFETIME.as_secs();
        set_validity(&mut params, start, not_after);
        let cert_pem = params.self_signed(&key).map_err(PkiError::Generate)?.pem();
        let key_pem = key.serialize_pem();
        Ok(Self { issuer: Issuer::new(params, key), cert_pem, key_pem, not_after })
    }

    /// An authority from `ca.crt` and `ca.key` (PKCS#8).
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem).map_err(PkiError::Authority)?;
        let facts = Facts::from_pem(cert_pem.as_bytes())?;
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key).map_err(PkiError::Authority)?;
        Ok(Self { issuer, cert_pem: cert_pem.into(), key_pem: key_pem.into(), not_after: facts.not_after })
    }

    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Makes a key and a certificate for it.
    pub fn issue(&self, spec: &LeafSpec) -> Result<Issued, PkiError> {
        let key = KeyPair::generate().map_err(PkiError::Generate)?;
        let mut params = skeleton(&spec.cn, &spec.orgs)?;
        params.subject_alt_names = names(&spec.dns, &spec.ips)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match spec.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let start = unix_now().saturating_sub(BACKDATE.as_secs());
        set_validity(&mut params, start, (start + spec.lifetime.as_secs()).min(self.not_after));
        let cert = params.signed_by(&key, &self.issuer).map_err(PkiError::Generate)?;
        Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }

    /// Signs a certificate request as the controller manager's signers do.
    ///
    /// Subject and all SANs are copied from the request; usages come from the CertificateSigningRequest
    /// object (`client auth`, `digital signature`, …), never from the request itself.
    pub fn sign_request(
        &self,
        csr_pem: &str,
        validity: Duration,
        usages: &[&str],
    ) -> Result<String, PkiError> {
        let asked = super::Request::from_pem(csr_pem)?;
        let mut csr = rcgen::CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|error| PkiError::Request(error.to_string()))?;
        let params = &mut csr.params;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        (params.key_usages, params.extended_key_usages) = (Vec::new(), Vec::new());
        for usage in usages {
            add_usage(params, usage)?;
        }
        let now = unix_now();
        // Shorter lives than can be asked for are for watching renewal; backdated like others, a certificate of
        // a minute would be due for it before it is there.
        let backdate = if validity < SHORTEST { validity / 10 } else { BACKDATE }.as_secs();
        let end = if validity < SHORT_LIFETIME { now } else { now - backdate } + validity.as_secs();
        set_validity(params, now - backdate, end.min(self.not_after));
        let cert = csr.signed_by(&self.issuer).map_err(PkiError::Generate)?;
        if asked.orgs.len() < 2 {
            return Ok(cert.pem());
        }
        let whole = resubject::with_subject(cert.der(), &asked.subject, self.issuer.key())?;
        Ok(pem::encode("CERTIFICATE", &whole))
    }
}

/// The pair a kubelet (or controller manager, or scheduler) serves with when it was given none.
///
/// `GenerateSelfSignedCertKey`: a throw-away authority `HOST-ca@UNIX` signs `HOST@UNIX`, whose only name
/// is the host's; both last a year. The certificate file holds leaf and authority.
pub fn self_signed_serving(hostname: &str) -> Result<Issued, PkiError> {
    let now = unix_now();
    let authority = Authority::new(&format!("{hostname}-ca@{now}"))?;
    let leaf = authority.issue(&LeafSpec::server(&format!("{hostname}@{now}"), &[hostname], &[]))?;
    Ok(Issued { cert_pem: leaf.cert_pem + authority.cert_pem(), key_pem: leaf.key_pem })
}

/// What every certificate of ours has: a subject, a random serial, the authority's key identifier.
fn skeleton(cn: &str, orgs: &[String]) -> Result<CertificateParams, PkiError> {
    one_organization(orgs)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(cn, orgs);
    params.serial_number = Some(serial()?);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// rcgen's names hold one value a type; a second organization would silently be lost, and with it a group.
pub(super) fn one_organization(orgs: &[String]) -> Result<(), PkiError> {
    match orgs.len() {
        0 | 1 => Ok(()),
        _ => Err(PkiError::Request("more than one organization in a subject is not supported".into())),
    }
}

/// The organization first, then the common name, as Go writes a subject.
pub(super) fn subject(cn: &str, orgs: &[String]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for org in orgs {
        name.push(DnType::OrganizationName, org.as_str());
    }
    if !cn.is_empty() {
        name.push(DnType::CommonName, cn);
    }
    name
}

pub(super) fn names(dns: &[String], ips: &[IpAddr]) -> Result<Vec<SanType>, PkiError> {
    let mut list = Vec::with_capacity(dns.len() + ips.len());
    for name in dns {
        list.push(SanType::DnsName(name.as_str().try_into().map_err(|_| PkiError::Name(name.clone()))?));
    }
    list.extend(ips.iter().copied().map(SanType::IpAddress));
    Ok(list)
}

fn serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0u8; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| PkiError::Random)?;
    // A serial is positive and its first byte is not zero.
    bytes[0] = (bytes[0] & 0x7f) | 0x01;
    Ok(SerialNumber::from_slice(&bytes))
}

fn set_validity(params: &mut CertificateParams, from: u64, until: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from);
    params.not_after = epoch + Duration::from_secs(until);
}

/// One of `certificates.k8s.io/v1`'s usages.
fn add_usage(params: &mut CertificateParams, usage: &str) -> Result<(), PkiError> {
    use {ExtendedKeyUsagePurpose as Extended, KeyUsagePurpose as Key};
    match usage {
        "signing" | "digital signature" => params.key_usages.push(Key::DigitalSignature),
        "content commitment" => params.key_usages.push(Key::ContentCommitment),
        "key encipherment" => params.key_usages.push(Key::KeyEncipherment),
        "key agreement" => params.key_usages.push(Key::KeyAgreement),
        "data encipherment" => params.key_usages.push(Key::DataEncipherment),
        "cert sign" => params.key_usages.push(Key::KeyCertSign),
        "crl sign" => params.key_usages.push(Key::CrlSign),
        "any" => params.extended_key_usages.push(Extended::Any),
        "server auth" => params.extended_key_usages.push(Extended::ServerAuth),
        "client auth" => params.extended_key_usages.push(Extended::ClientAuth),
        "code signing" => params.extended_key_usages.push(Extended::CodeSigning),
        "email protection" | "s/mime" => params.extended_key_usages.push(Extended::EmailProtection),
        "timestamping" => params.extended_key_usages.push(Extended::TimeStamping),
        "ocsp signing" => params.extended_key_usages.push(Extended::OcspSigning),
        other => return Err(PkiError::Usage(other.into())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::request;

    const CLIENT: &[&str] = &["digital signature", "client auth"];

    #[test]
    fn a_leaf_carries_its_names_and_never_outlives_its_authority() {
        let ca = Authority::new("kubernetes").unwrap();
        let mut spec = LeafSpec::server("kube-apiserver", &["kubernetes"], &["10.96.0.1".parse().unwrap()]);
        spec.lifetime = AUTHORITY_LIFETIME * 2;
        let facts = Facts::from_pem(ca.issue(&spec).unwrap().cert_pem.as_bytes()).unwrap();
        assert_eq!((facts.cn.as_str(), facts.issuer_cn.as_str()), ("kube-apiserver", "kubernetes"));
        assert_eq!(facts.dns, ["kubernetes"]);
        assert_eq!(facts.ips, ["10.96.0.1".parse::<IpAddr>().unwrap()]);
        assert!(!facts.is_ca && facts.not_after == ca.not_after);
        assert_eq!(facts.extended_usages, ["server auth"]);
    }

    #[test]
    fn an_authority_read_back_signs_for_the_same_clients() {
        let ca = Authority::new("kubernetes").unwrap();
        let again = Authority::from_pem(ca.cert_pem(), ca.key_pem()).unwrap();
        let leaf = again.issue(&LeafSpec::client("someone", &["devs"])).unwrap();
        let roots = crate::pki::ClientRoots::from_pem(ca.cert_pem().as_bytes()).unwrap();
        let subject = roots.verify(&crate::pki::certificates(leaf.cert_pem.as_bytes()).unwrap()).unwrap();
        assert_eq!((subject.cn.as_str(), subject.orgs.join(",")), ("someone", "devs".to_owned()));
    }

    #[test]
    fn a_signed_request_keeps_subject_and_names_but_not_its_own_usages() {
        let ca = Authority::new("kubernetes").unwrap();
        let ip = "192.0.2.11".parse().unwrap();
        let (csr, _) = request("system:node:node-1", &["system:nodes"], &["node-1"], &[ip]).unwrap();
        let cert = ca.sign_request(&csr, DAY * 365, CLIENT).unwrap();
        let facts = Facts::from_pem(cert.as_bytes()).unwrap();
        assert_eq!(
            (facts.cn.as_str(), facts.orgs.as_slice()),
            ("system:node:node-1", &["system:nodes".to_owned()][..])
        );
        assert_eq!((facts.dns.as_slice(), facts.ips.as_slice()), (&["node-1".to_owned()][..], &[ip][..]));
        assert_eq!(facts.extended_usages, ["client auth"]);
        assert_eq!(facts.not_after - facts.not_before, DAY.as_secs() * 365);
    }

    #[test]
    fn a_second_organization_is_refused_rather_than_lost() {
        let ca = Authority::new("kubernetes").unwrap();
        assert!(ca.issue(&LeafSpec::client("someone", &["a", "b"])).is_err());
    }

    /// `openssl req -new -subj /O=dev/O=ops/CN=jane`.
    const OF_TWO_GROUPS: &str = "\
-----BEGIN CERTIFICATE REQUEST-----
MIHmMIGNAgEAMCsxDDAKBgNVBAoMA2RldjEMMAoGA1UECgwDb3BzMQ0wCwYDVQQD
DARqYW5lMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEwudoNHBUti85qtLIifeB
sgTttaIKhWJlgjMpH/alCDeGZ39ctx9s+uy168lfCNYzYxmm2WDDFudSzIbgcB0r
H6AAMAoGCCqGSM49BAMCA0gAMEUCIAU1MA1XwkZnqUWGPAnjFCvy+oXCRfG/xSM4
2Q4W/908AiEAln4wgXYaiCHF3vvgWv5IPiyspuN805poAqDRInksGxo=
-----END CERTIFICATE REQUEST-----
";

    #[test]
    fn whoever_belongs_to_two_groups_still_does_in_the_signed_certificate() {
        let ca = Authority::new("kubernetes").unwrap();
        let cert = ca.sign_request(OF_TWO_GROUPS, DAY, CLIENT).unwrap();
        let roots = crate::pki::ClientRoots::from_pem(ca.cert_pem().as_bytes()).unwrap();
        let subject = roots.verify(&crate::pki::certificates(cert.as_bytes()).unwrap()).unwrap();
        assert_eq!((subject.cn.as_str(), subject.orgs.join(",")), ("jane", "dev,ops".to_owned()));
        let other = Authority::new("kubernetes").unwrap();
        let roots = crate::pki::ClientRoots::from_pem(other.cert_pem().as_bytes()).unwrap();
        assert!(roots.verify(&crate::pki::certificates(cert.as_bytes()).unwrap()).is_err());
    }

    #[test]
    fn a_short_certificate_keeps_its_whole_life_before_it() {
        let ca = Authority::new("kubernetes").unwrap();
        let (csr, _) = request("x", &[], &[], &[]).unwrap();
        let cert = ca.sign_request(&csr, Duration::from_secs(600), CLIENT).unwrap();
        let facts = Facts::from_pem(cert.as_bytes()).unwrap();
        assert_eq!(facts.not_after - facts.not_before, 600 + BACKDATE.as_secs());
    }

    #[test]
    fn a_request_with_a_broken_signature_is_not_signed() {
        let ca = Authority::new("kubernetes").unwrap();
        let (csr, _) = request("x", &[], &[], &[]).unwrap();
        let mut der = super::super::pem::decode("CERTIFICATE REQUEST", &csr).unwrap();
        let last = der.len() - 1;
        der[last] ^= 1;
        let csr = super::super::pem::encode("CERTIFICATE REQUEST", &der);
        assert!(ca.sign_request(&csr, DAY, CLIENT).is_err());
    }

    #[test]
    fn the_kubelets_own_pair_names_only_its_host() {
        let pair = self_signed_serving("node-1").unwrap();
        let facts = Facts::from_pem(pair.cert_pem.as_bytes()).unwrap();
        assert!(facts.cn.starts_with("node-1@") && facts.issuer_cn.starts_with("node-1-ca@"));
        assert_eq!((facts.dns.len(), facts.ips.len()), (1, 0));
    }
}
