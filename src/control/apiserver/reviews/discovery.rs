//! OpenID discovery: how others can check our service-account tokens.

use serde_json::{Value, json};

use super::super::authn::ServiceAccounts;

pub const CONFIGURATION: &str = "/.well-known/openid-configuration";
pub const KEYS: &str = "/openid/v1/jwks";
pub const KEYS_CONTENT_TYPE: &str = "application/jwk-set+json";

/// The configuration document; `server` is where the keys are found (`198.51.100.2:6443`).
pub fn configuration(accounts: &ServiceAccounts, server: &str) -> Value {
    let keys = accounts.jwks_uri().map_or_else(|| format!("https://{server}{KEYS}"), str::to_owned);
    json!({
        "issuer": accounts.issuer(),
        "jwks_uri": keys,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}
