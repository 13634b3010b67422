//! The API server's authentication flags, and building the authenticator from them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::{Anonymous, Authenticator, ServiceAccounts};
use crate::control::store::Store;
use crate::pki::{ClientRoots, PkiError, SigningKey, VerifyingKey};

/// `kube-apiserver`'s flags that say who is believed.
#[derive(Debug, Clone, clap::Args)]
pub struct AuthnFlags {
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub anonymous_auth: bool,
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub enable_bootstrap_token_auth: bool,
    #[arg(long)]
    pub service_account_issuer: Vec<String>,
    #[arg(long)]
    pub service_account_key_file: Vec<PathBuf>,
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    #[arg(long, value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub service_account_lookup: bool,
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub service_account_extend_token_expiration: bool,
    /// A Go duration; 0 sets no limit.
    #[arg(long, default_value = "0s")]
    pub service_account_max_token_expiration: String,
}

/// Why the API server cannot start with these flags.
#[derive(Debug, thiserror::Error)]
pub enum AuthnError {
    #[error("{0} is a required flag")]
    Required(&'static str),
    #[error("read {path}")]
    Read { path: String, source: std::io::Error },
    #[error("use {path}")]
    Use { path: String, source: PkiError },
    #[error("invalid argument {value:?} for \"--{flag}\" flag")]
    Duration { flag: &'static str, value: String },
}

impl AuthnFlags {
    /// Reads keys and bundles. With the authorizer `AlwaysAllow` (`always_allows`) anonymous requests are
    /// refused whatever the flag says, as upstream does.
    pub fn build(&self, store: Store, always_allows: bool) -> Result<Authenticator, AuthnError> {
        let accounts = self.accounts()?;
        let roots = match &self.client_ca_file {
            None => None,
            Some(path) => {
                let bundle = read(path)?;
                let used = |source| AuthnError::Use { path: path.display().to_string(), source };
                Some(Arc::new(ClientRoots::from_pem(&bundle).map_err(used)?))
            }
        };
        if self.anonymous_auth && always_allows {
            tracing::warn!(
                "AnonymousAuth is not allowed with the AlwaysAllow authorizer. Resetting AnonymousAuth to false. You should use a different authorizer"
            );
        }
        let anonymous = match self.anonymous_auth && !always_allows {
            true => Anonymous::Allowed,
            false => Anonymous::Refused,
        };
        Ok(Authenticator {
            store,
            roots,
            accounts: Some(Arc::new(accounts)),
            bootstrap_tokens: self.enable_bootstrap_token_auth,
            anonymous,
            tokens: Mutex::default(),
        })
    }

    fn accounts(&self) -> Result<ServiceAccounts, AuthnError> {
        if self.service_account_issuer.is_empty() {
            return Err(AuthnError::Required("service-account-issuer"));
        }
        let signing = self.service_account_signing_key_file.as_ref();
        let signing = signing.ok_or(AuthnError::Required("service-account-signing-key-file"))?;
        let signer = SigningKey::from_pem(&String::from_utf8_lossy(&read(signing)?))
            .map_err(|source| AuthnError::Use { path: signing.display().to_string(), source })?;
        if self.service_account_key_file.is_empty() {
            return Err(AuthnError::Required("service-account-key-file"));
        }
        let mut keys = Vec::new();
        for path in &self.service_account_key_file {
            let key = VerifyingKey::from_pem(&String::from_utf8_lossy(&read(path)?));
            keys.push(key.map_err(|source| AuthnError::Use { path: path.display().to_string(), source })?);
        }
        let audiences = match self.api_audiences.is_empty() {
            true => self.service_account_issuer[..1].to_vec(),
            false => self.api_audiences.clone(),
        };
        let longest =
            go_seconds(&self.service_account_max_token_expiration).ok_or_else(|| AuthnError::Duration {
                flag: "service-account-max-token-expiration",
                value: self.service_account_max_token_expiration.clone(),
            })?;
        Ok(ServiceAccounts {
            issuers: self.service_account_issuer.clone(),
            keys,
            signer,
            audiences,
            extend: self.service_account_extend_token_expiration,
            lookup: self.service_account_lookup,
            longest,
        })
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, AuthnError> {
    std::fs::read(path).map_err(|source| AuthnError::Read { path: path.display().to_string(), source })
}

/// The whole seconds of a Go duration such as `1h30m` or `0`.
fn go_seconds(text: &str) -> Option<i64> {
    let mut total = 0i64;
    let mut number = String::new();
    for char in text.chars() {
        if char.is_ascii_digit() {
            number.push(char);
            continue;
        }
        let unit = match char {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total += number.parse::<i64>().ok()? * unit;
        number.clear();
    }
    match number.as_str() {
        "" => Some(total),
        "0" if total == 0 => Some(0),
        _ => None,
    }
}
