//! Service-account keys and the ES256 tokens made with them (`pkg/serviceaccount/jwt.go`).
//!
//! P-256 only: RSA key files are refused with a clear error instead of being half supported.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde_json::{Value, json};

use super::{PkiError, pem};

/// Everything of a P-256 SubjectPublicKeyInfo before the point itself.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point: a tag and two coordinates.
const POINT: usize = 65;

/// `sa.key`: signs tokens.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    pkcs8: Vec<u8>,
    random: SystemRandom,
    header: String,
}

impl SigningKey {
    pub fn generate() -> Result<Self, PkiError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| PkiError::Random)?;
        Self::from_pkcs8(document.as_ref())
    }

    /// Reads a PKCS#8 `PRIVATE KEY` block.
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        Self::from_pkcs8(&pem::decode("PRIVATE KEY", text).ok_or(PkiError::Key)?)
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, PkiError> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)
            .map_err(|_| PkiError::Key)?;
        let kid = kid_of(pair.public_key().as_ref());
        let header = BASE64.encode(json!({"alg": "ES256", "kid": kid}).to_string());
        Ok(Self { pair, pkcs8: der.to_vec(), random, header })
    }

    pub fn to_pem(&self) -> String {
        pem::encode("PRIVATE KEY", &self.pkcs8)
    }

    /// `sa.pub`.
    pub fn public_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &spki(self.pair.public_key().as_ref()))
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> Result<String, PkiError> {
        let signed = format!("{}.{}", self.header, BASE64.encode(claims.to_string()));
        let signature = self.pair.sign(&self.random, signed.as_bytes()).map_err(|_| PkiError::Random)?;
        Ok(format!("{signed}.{}", BASE64.encode(signature.as_ref())))
    }
}

/// A key of `--service-account-key-file`: checks tokens.
#[derive(Debug, Clone)]
pub struct VerifyingKey {
    point: [u8; POINT],
    kid: String,
}

impl VerifyingKey {
    /// Reads a `PUBLIC KEY`, or a `PRIVATE KEY` whose public half is used, as upstream does.
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        if let Some(der) = pem::decode("PUBLIC KEY", text) {
            let point = der.strip_prefix(&SPKI_PREFIX).ok_or(PkiError::Key)?;
            return Self::from_point(point);
        }
        Self::from_point(SigningKey::from_pem(text)?.pair.public_key().as_ref())
    }

    fn from_point(point: &[u8]) -> Result<Self, PkiError> {
        Ok(Self { point: point.try_into().map_err(|_| PkiError::Key)?, kid: kid_of(point) })
    }

    /// The key as `/openid/v1/jwks` publishes it.
    pub fn to_jwk(&self) -> Value {
        let (x, y) = self.point[1..].split_at(32);
        json!({
            "use": "sig", "kty": "EC", "kid": self.kid, "crv": "P-256", "alg": "ES256",
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        })
    }

    /// A token's claims if this key signed it. Dates and audiences are the caller's to judge.
    pub fn verify(&self, token: &str) -> Result<Value, PkiError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(PkiError::Token("not three parts"))?;
        let header = signed.split_once('.').ok_or(PkiError::Token("not three parts"))?.0;
        let header = part(header)?;
        if header["alg"] != "ES256" {
            return Err(PkiError::Token("not signed by ES256"));
        }
        let signature = BASE64.decode(signature).map_err(|_| PkiError::Token("not base64url"))?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| PkiError::Token("the signature is wrong"))?;
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

fn spki(point: &[u8]) -> Vec<u8> {
    [&SPKI_PREFIX, point].concat()
}

/// base64url(SHA-256 of the public key): how a token's header names the key that signed it.
fn kid_of(point: &[u8]) -> String {
    BASE64.encode(ring::digest::digest(&ring::digest::SHA256, &spki(point)))
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
}
