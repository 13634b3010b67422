//! Service-account keys and the tokens made with them (`pkg/serviceaccount/jwt.go`): ES256 by P-256, RS256 by RSA.
//!
//! Keys are read as upstream's key files hold them: PKCS#8, PKCS#1 and SEC1 private keys, public keys, several to
//! a file. Left out: the curves P-384 and P-521.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey,
};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{PkiError, pem};

/// Everything of a P-256 SubjectPublicKeyInfo before the point itself.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The algorithm of an RSA SubjectPublicKeyInfo: rsaEncryption without parameters.
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// An uncompressed point: a tag and two coordinates.
const POINT: usize = 65;
/// A SEC1 key of P-256 as OpenSSL writes it: the scalar at 7, the point at the end.
const SEC1_LENGTH: usize = 121;
/// More keys than anybody keeps in a file.
const MOST_KEYS: usize = 64;

/// `sa.key`: signs tokens.
pub struct SigningKey {
    pair: Pair,
    random: SystemRandom,
    header: String,
    /// The key as it was read, for writing it out again.
    pem: String,
}

enum Pair {
    P256(EcdsaKeyPair),
    Rsa(rsa::KeyPair),
}

impl SigningKey {
    pub fn generate() -> Result<Self, PkiError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| PkiError::Random)?;
        Self::from_pem(&pem::encode("PRIVATE KEY", document.as_ref()))
    }

    /// Reads the first private key.
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        let blocks = [("PRIVATE KEY", Pair::from_pkcs8 as fn(&[u8]) -> Result<Pair, PkiError>)];
        let others = [("RSA PRIVATE KEY", Pair::from_pkcs1 as _), ("EC PRIVATE KEY", Pair::from_sec1 as _)];
        for (label, read) in blocks.into_iter().chain(others) {
            if let Some(der) = pem::decode(label, text) {
                return Self::new(read(&der)?, pem::encode(label, &der));
            }
        }
        Err(PkiError::Key)
    }

    fn new(pair: Pair, pem: String) -> Result<Self, PkiError> {
        let (algorithm, key) = match &pair {
            Pair::P256(_) => ("ES256", VerifyingKey::of(&pair)?),
            Pair::Rsa(_) => ("RS256", VerifyingKey::of(&pair)?),
        };
        let header = BASE64.encode(json!({"alg": algorithm, "kid": key.kid}).to_string());
        Ok(Self { pair, random: SystemRandom::new(), header, pem })
    }

    pub fn to_pem(&self) -> String {
        self.pem.clone()
    }

    /// `sa.pub`.
    pub fn public_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.pair.spki())
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> Result<String, PkiError> {
        let signed = format!("{}.{}", self.header, BASE64.encode(claims.to_string()));
        let signature = self.pair.sign(&self.random, signed.as_bytes())?;
        Ok(format!("{signed}.{}", BASE64.encode(signature)))
    }
}

impl Pair {
    fn from_pkcs8(der: &[u8]) -> Result<Self, PkiError> {
        let curve = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new());
        match curve {
            Ok(pair) => Ok(Self::P256(pair)),
            Err(_) => rsa::KeyPair::from_pkcs8(der).map(Self::Rsa).map_err(|_| PkiError::Key),
        }
    }

    fn from_pkcs1(der: &[u8]) -> Result<Self, PkiError> {
        rsa::KeyPair::from_der(der).map(Self::Rsa).map_err(|_| PkiError::Key)
    }

    fn from_sec1(der: &[u8]) -> Result<Self, PkiError> {
        if der.len() != SEC1_LENGTH || !der.starts_with(&[0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20]) {
            return Err(PkiError::Key);
        }
        let (scalar, point) = (&der[7..39], &der[SEC1_LENGTH - POINT..]);
        EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            scalar,
            point,
            &SystemRandom::new(),
        )
        .map(Self::P256)
        .map_err(|_| PkiError::Key)
    }

    fn sign(&self, random: &SystemRandom, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        match self {
            Self::P256(pair) => {
                let signature = pair.sign(random, message).map_err(|_| PkiError::Random)?;
                Ok(signature.as_ref().to_vec())
            }
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, random, message, &mut signature)
                    .map_err(|_| PkiError::Random)?;
                Ok(signature)
            }
        }
    }

    /// The public half, DER.
    fn spki(&self) -> Vec<u8> {
        match self {
            Self::P256(pair) => [&SPKI_PREFIX, pair.public_key().as_ref()].concat(),
            Self::Rsa(pair) => rsa_spki(pair.public().as_ref()),
        }
    }
}

/// An RSAPublicKey within its SubjectPublicKeyInfo.
fn rsa_spki(key: &[u8]) -> Vec<u8> {
    let bits = [&[0][..], key].concat();
    tagged(0x30, &[&RSA_ALGORITHM[..], &tagged(0x03, &bits)].concat())
}

/// A DER value.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..0x80 => out.push(length as u8),
        _ => {
            let bytes = length.to_be_bytes();
            let bytes: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | bytes.len() as u8);
            out.extend(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A key of `--service-account-key-file`: checks tokens.
#[derive(Debug, Clone)]
pub struct VerifyingKey {
    key: Public,
    kid: String,
}

#[derive(Debug, Clone)]
enum Public {
    P256([u8; POINT]),
    /// Modulus and exponent, and both as an RSAPublicKey.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
        der: Vec<u8>,
    },
}

impl VerifyingKey {
    /// The first key of a file.
    #[cfg(test)]
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        Self::all_from_pem(text)?.into_iter().next().ok_or(PkiError::Key)
    }

    /// Every key of a file: public ones, and private ones whose public half is used, as upstream does.
    pub fn all_from_pem(text: &str) -> Result<Vec<Self>, PkiError> {
        let mut keys = Vec::new();
        for block in text.split("-----BEGIN ").skip(1).take(MOST_KEYS) {
            let block = format!("-----BEGIN {block}");
            if let Some(der) = pem::decode("PUBLIC KEY", &block) {
                keys.push(Self::from_spki(&der)?);
            } else if block.contains("PRIVATE KEY-----") {
                keys.push(Self::of(&SigningKey::from_pem(&block)?.pair)?);
            }
        }
        if keys.is_empty() { Err(PkiError::Key) } else { Ok(keys) }
    }

    fn of(pair: &Pair) -> Result<Self, PkiError> {
        Self::from_spki(&pair.spki())
    }

    fn from_spki(der: &[u8]) -> Result<Self, PkiError> {
        let kid = BASE64.encode(ring::digest::digest(&ring::digest::SHA256, der));
        if let Some(point) = der.strip_prefix(&SPKI_PREFIX) {
            let point = point.try_into().map_err(|_| PkiError::Key)?;
            return Ok(Self { key: Public::P256(point), kid });
        }
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| PkiError::Key)?;
        let Ok(PublicKey::RSA(key)) = info.parsed() else { return Err(PkiError::Key) };
        let plain = |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
        let der = info.subject_public_key.data.to_vec();
        Ok(Self { key: Public::Rsa { n: plain(key.modulus), e: plain(key.exponent), der }, kid })
    }

    /// The key as `/openid/v1/jwks` publishes it.
    pub fn to_jwk(&self) -> Value {
        match &self.key {
            Public::P256(point) => {
                let (x, y) = point[1..].split_at(32);
                json!({
                    "use": "sig", "kty": "EC", "kid": self.kid, "crv": "P-256", "alg": "ES256",
                    "x": BASE64.encode(x), "y": BASE64.encode(y),
                })
            }
            Public::Rsa { n, e, .. } => json!({
                "use": "sig", "kty": "RSA", "kid": self.kid, "alg": "RS256",
                "n": BASE64.encode(n), "e": BASE64.encode(e),
            }),
        }
    }

    /// A token's claims if this key signed it. Dates and audiences are the caller's to judge.
    pub fn verify(&self, token: &str) -> Result<Value, PkiError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(PkiError::Token("not three parts"))?;
        let header = signed.split_once('.').ok_or(PkiError::Token("not three parts"))?.0;
        let header = part(header)?;
        if header.get("crit").is_some() {
            return Err(PkiError::Token("has critical headers nobody knows"));
        }
        let signature = BASE64.decode(signature).map_err(|_| PkiError::Token("not base64url"))?;
        let outcome = match (&self.key, header["alg"].as_str()) {
            (Public::P256(point), Some("ES256")) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed.as_bytes(), &signature)
            }
            (Public::Rsa { der, .. }, Some("RS256")) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).verify(signed.as_bytes(), &signature)
            }
            _ => return Err(PkiError::Token("not signed by this key's algorithm")),
        };
        outcome.map_err(|_| PkiError::Token("the signature is wrong"))?;
        claims_unverified(token)
    }
}

/// A token's claims, believed by nobody: to see whose token it may be (`iss`) or to print it.
pub fn claims_unverified(token: &str) -> Result<Value, PkiError> {
    part(token.split('.').nth(1).ok_or(PkiError::Token("not three parts"))?)
}

fn part(text: &str) -> Result<Value, PkiError> {
    let bytes = BASE64.decode(text).map_err(|_| PkiError::Token("not base64url"))?;
    serde_json::from_slice(&bytes).map_err(|_| PkiError::Token("not JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_by_the_public_key_and_by_no_other() {
        let key = SigningKey::from_pem(&SigningKey::generate().unwrap().to_pem()).unwrap();
        let token = key.sign(&json!({"sub": "system:serviceaccount:default:default"})).unwrap();
        let public = VerifyingKey::from_pem(&key.public_pem()).unwrap();
        assert_eq!(public.verify(&token).unwrap()["sub"], "system:serviceaccount:default:default");
        let other = VerifyingKey::from_pem(&SigningKey::generate().unwrap().to_pem()).unwrap();
        assert!(other.verify(&token).is_err());
    }

    #[test]
    fn a_changed_claim_or_algorithm_breaks_the_token() {
        let key = SigningKey::generate().unwrap();
        let public = VerifyingKey::from_pem(&key.public_pem()).unwrap();
        let token = key.sign(&json!({"sub": "a"})).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let forged = format!("{}.{}.{}", parts[0], BASE64.encode(r#"{"sub":"b"}"#), parts[2]);
        assert!(public.verify(&forged).is_err());
        let none = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), parts[1]);
        assert!(public.verify(&none).is_err());
        assert!(public.verify("junk").is_err());
    }

    #[test]
    fn a_public_key_is_published_with_its_coordinates() {
        let key = SigningKey::generate().unwrap();
        let jwk = VerifyingKey::from_pem(&key.public_pem()).unwrap().to_jwk();
        let header = part(key.sign(&json!({})).unwrap().split('.').next().unwrap()).unwrap();
        assert_eq!((&jwk["kid"], jwk["x"].as_str().map(str::len)), (&header["kid"], Some(43)));
    }

    /// A key made for this test: `openssl genrsa -traditional 2048`.
    const RSA: &str = include_str!("testdata/rsa.pem");

    #[test]
    fn rsa_keys_sign_and_verify_beside_curves() {
        let curve = SigningKey::generate().unwrap();
        let rsa = SigningKey::from_pem(RSA).unwrap();
        let both = VerifyingKey::all_from_pem(&(curve.public_pem() + &rsa.public_pem())).unwrap();
        assert_eq!(both.len(), 2);
        let token = rsa.sign(&json!({"sub": "a"})).unwrap();
        assert_eq!(part(token.split('.').next().unwrap()).unwrap()["alg"], "RS256");
        assert!(both[0].verify(&token).is_err());
        assert_eq!(both[1].verify(&token).unwrap()["sub"], "a");
        let jwk = both[1].to_jwk();
        assert_eq!(
            (&jwk["kty"], &jwk["e"], jwk["n"].as_str().map(str::len)),
            (&json!("RSA"), &json!("AQAB"), Some(342))
        );
        let set = crate::pki::JwkSet::from_json(&json!({"keys": [jwk]}));
        assert_eq!(set.verify(&token, &["RS256".into()]).unwrap()["sub"], "a");
    }
}
