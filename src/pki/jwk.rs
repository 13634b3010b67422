//! JSON Web Key sets (RFC 7517) and the tokens signed with them (RFC 7515): what an OpenID provider publishes.
//!
//! RSA (PKCS#1 v1.5 and PSS, 2048 bits and more) and the NIST curves P-256 and P-384. Left out on
//! purpose: symmetric keys, `none`, P-521 and EdDSA.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;

/// More keys than a provider rotates through; the rest of a set is not read.
const MOST_KEYS: usize = 64;

/// Why a token was not believed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum JwsError {
    #[error("malformed jwt: {0}")]
    Malformed(&'static str),
    #[error("id token signed with unsupported algorithm, expected {expected:?} got {got:?}")]
    Algorithm { expected: Vec<String>, got: String },
    /// The set has no key of that name: it may have been rotated.
    #[error("failed to verify id token signature")]
    UnknownKey,
    #[error("failed to verify signature: failed to verify id token signature")]
    Signature,
}

/// A provider's public keys.
#[derive(Debug, Clone, Default)]
pub struct JwkSet(Vec<Jwk>);

#[derive(Debug, Clone)]
struct Jwk {
    kid: String,
    key: Key,
}

#[derive(Debug, Clone)]
enum Key {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
}

impl JwkSet {
    /// Reads `{"keys": […]}`; keys of a kind this does not know are left out, as RFC 7517 asks.
    pub fn from_json(set: &Value) -> Self {
        let keys = set["keys"].as_array().into_iter().flatten().take(MOST_KEYS);
        Self(keys.filter_map(Jwk::read).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A token's claims if a key of this set signed it by one of `algorithms`. Dates, issuer and audience
    /// are the caller's to judge.
    pub fn verify(&self, token: &str, algorithms: &[String]) -> Result<Value, JwsError> {
        let parts = Parts::split(token)?;
        if parts.header.get("crit").is_some() {
            return Err(JwsError::Malformed("critical headers that nobody knows"));
        }
        let algorithm = parts.header["alg"].as_str().unwrap_or_default();
        if !algorithms.iter().any(|allowed| allowed == algorithm) {
            return Err(JwsError::Algorithm { expected: algorithms.to_vec(), got: algorithm.to_owned() });
        }
        let kid = parts.header["kid"].as_str().unwrap_or_default();
        let mut candidates = self.0.iter().filter(|key| kid.is_empty() || key.kid == kid).peekable();
        if candidates.peek().is_none() {
            return Err(JwsError::UnknownKey);
        }
        match candidates.any(|key| key.key.signed(algorithm, parts.signed.as_bytes(), &parts.signature)) {
            true => decode(parts.payload),
            false => Err(JwsError::Signature),
        }
    }
}

/// A token taken apart.
struct Parts<'a> {
    /// Header and payload as they were signed.
    signed: &'a str,
    header: Value,
    payload: &'a str,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, JwsError> {
        const PARTS: JwsError = JwsError::Malformed("not three parts");
        let (signed, signature) = token.rsplit_once('.').ok_or(PARTS)?;
        let (header, payload) = signed.split_once('.').ok_or(PARTS)?;
        if payload.contains('.') {
            return Err(PARTS);
        }
        let signature = BASE64.decode(signature).map_err(|_| JwsError::Malformed("not base64url"))?;
        Ok(Self { signed, header: decode(header)?, payload, signature })
    }
}

fn decode(part: &str) -> Result<Value, JwsError> {
    let bytes = BASE64.decode(part).map_err(|_| JwsError::Malformed("not base64url"))?;
    serde_json::from_slice(&bytes).map_err(|_| JwsError::Malformed("not JSON"))
}

impl Jwk {
    fn read(key: &Value) -> Option<Self> {
        if key["use"].as_str().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let bytes = |field: &str| BASE64.decode(key[field].as_str()?).ok();
        let point = |length: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == length && y.len() == length).then(|| [&[4], x.as_slice(), y.as_slice()].concat())
        };
        let read = match (key["kty"].as_str()?, key["crv"].as_str()) {
            ("RSA", _) => Key::Rsa { n: bytes("n")?, e: bytes("e")? },
            ("EC", Some("P-256")) => Key::P256(point(32)?),
            ("EC", Some("P-384")) => Key::P384(point(48)?),
            _ => return None,
        };
        Some(Self { kid: key["kid"].as_str().unwrap_or_default().to_owned(), key: read })
    }
}

impl Key {
    /// Whether this key made this signature by this algorithm. A key never checks another kind's algorithm.
    fn signed(&self, algorithm: &str, message: &[u8], by: &[u8]) -> bool {
        match self {
            Self::Rsa { n, e } => {
                let how: &signature::RsaParameters = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(how, message, by).is_ok()
            }
            Self::P256(point) if algorithm == "ES256" => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(message, by).is_ok()
            }
            Self::P384(point) if algorithm == "ES384" => {
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point).verify(message, by).is_ok()
            }
            Self::P256(_) | Self::P384(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{SigningKey, VerifyingKey};
    use serde_json::json;

    fn allowed(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The example of RFC 7515, appendix A.2, and its key.
    const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    const RSA_MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

    #[test]
    fn an_rsa_token_of_the_standard_is_believed_and_a_changed_one_is_not() {
        let set = JwkSet::from_json(&json!({"keys": [{"kty": "RSA", "n": RSA_MODULUS, "e": "AQAB"}]}));
        assert_eq!(set.verify(RSA_TOKEN, &allowed(&["RS256"])).unwrap()["iss"], "joe");
        let broken = RSA_TOKEN.replace("cC4hiUPoj9", "cC4hiUPoj8");
        assert_eq!(set.verify(&broken, &allowed(&["RS256"])), Err(JwsError::Signature));
        assert!(matches!(set.verify(RSA_TOKEN, &allowed(&["ES256"])), Err(JwsError::Algorithm { .. })));
    }

    #[test]
    fn a_curve_key_believes_only_its_own_algorithm_and_name() {
        let key = SigningKey::generate().unwrap();
        let jwk = VerifyingKey::from_pem(&key.public_pem()).unwrap().to_jwk();
        let set = JwkSet::from_json(&json!({"keys": [{"kty": "oct", "k": "AA"}, jwk]}));
        let token = key.sign(&json!({"sub": "jane"})).unwrap();
        assert_eq!(set.verify(&token, &allowed(&["RS256", "ES256"])).unwrap()["sub"], "jane");
        let other = SigningKey::generate().unwrap().sign(&json!({"sub": "jane"})).unwrap();
        assert_eq!(set.verify(&other, &allowed(&["ES256"])), Err(JwsError::UnknownKey));
    }

    #[test]
    fn an_unsigned_or_truncated_token_is_refused() {
        let set = JwkSet::from_json(&json!({"keys": [{"kty": "RSA", "n": RSA_MODULUS, "e": "AQAB"}]}));
        let all = allowed(&["RS256", "none"]);
        let none = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode("{}"));
        assert_eq!(set.verify(&none, &all), Err(JwsError::Signature));
        for junk in ["", ".", "..", "a.b", "a.b.c.d", &RSA_TOKEN[..200]] {
            assert!(set.verify(junk, &all).is_err(), "{junk}");
        }
    }
}
