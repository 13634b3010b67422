//! The API server's authentication flags, and building the authenticator from them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use super::bundle::Bundle;
use super::front_proxy::{FrontProxy, HeaderNames};
use super::jwt::{Mapping, Provider, Rules};
use super::reload::Reload;
use super::static_tokens::StaticTokens;
use super::tokens::Tokens;
use super::webhook::TokenWebhook;
use super::{Anonymous, Authenticator, ServiceAccounts, config};
use crate::api::go_duration;
use crate::control::apiserver::remote::{Remote, RemoteError};
use crate::control::store::Store;
use crate::net::{Egress, Roads, Verify};
use crate::pki::{self, ClientRoots, PkiError, SigningKey, VerifyingKey};

/// Upstream's timeout of one call to a token webhook.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// `kube-apiserver`'s flags that say who is believed.
#[derive(Debug, Clone, clap::Args)]
pub struct AuthnFlags {
    /// How webhooks and providers are reached.
    #[arg(skip)]
    pub roads: Roads,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub anonymous_auth: Option<bool>,
    /// AuthenticationConfiguration: OpenID providers and what becomes of anonymous requests.
    #[arg(long)]
    pub authentication_config: Option<PathBuf>,
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub enable_bootstrap_token_auth: bool,
    #[arg(long)]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    #[arg(long, default_value = "v1beta1")]
    pub authentication_token_webhook_version: String,
    #[arg(long, default_value = "2m0s", value_parser = go_duration::parse)]
    pub authentication_token_webhook_cache_ttl: Duration,
    #[command(flatten)]
    pub requestheader: RequestHeaderFlags,
    #[command(flatten)]
    pub oidc: OidcFlags,
    #[arg(long)]
    pub service_account_issuer: Vec<String>,
    #[arg(long)]
    pub service_account_key_file: Vec<PathBuf>,
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    #[arg(long)]
    pub service_account_jwks_uri: Option<String>,
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

/// Who may speak for others, and in which headers.
#[derive(Debug, Clone, clap::Args)]
pub struct RequestHeaderFlags {
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "x-remote-user")]
    pub requestheader_username_headers: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "x-remote-group")]
    pub requestheader_group_headers: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "x-remote-extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
}

/// One OpenID provider by flags, as before there was a file for it.
#[derive(Debug, Clone, clap::Args)]
pub struct OidcFlags {
    #[arg(long)]
    pub oidc_issuer_url: Option<String>,
    #[arg(long)]
    pub oidc_client_id: Option<String>,
    #[arg(long)]
    pub oidc_ca_file: Option<PathBuf>,
    #[arg(long, default_value = "sub")]
    pub oidc_username_claim: String,
    /// `-` for none; otherwise the issuer's URL and `#`, but for an email none.
    #[arg(long, allow_hyphen_values = true)]
    pub oidc_username_prefix: Option<String>,
    #[arg(long)]
    pub oidc_groups_claim: Option<String>,
    #[arg(long)]
    pub oidc_groups_prefix: Option<String>,
    #[arg(long, value_delimiter = ',', default_value = "RS256")]
    pub oidc_signing_algs: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    pub oidc_required_claim: Vec<String>,
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
    #[error(
        "--requestheader-client-ca-file and --client-ca-file contain overlapping certificates; \
         --requestheader-allowed-names must be specified to ensure regular client certificates cannot set \
         authenticated proxy headers for arbitrary users"
    )]
    OverlappingAuthorities,
    #[error("{0}")]
    StaticTokens(String),
    #[error("use {path}: {why}")]
    Config { path: String, why: String },
    #[error("--{0} and --authentication-config are mutually exclusive")]
    Exclusive(&'static str),
    #[error(
        "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file"
    )]
    AnonymousTwice,
    #[error("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set")]
    OidcIncomplete,
    #[error("reach an OpenID provider")]
    Remote(#[source] RemoteError),
    #[error("use the token webhook's kubeconfig {path}")]
    Webhook { path: String, source: RemoteError },
}

/// What flags and file say of providers and anonymous requests.
struct Said {
    providers: Vec<Provider>,
    anonymous: Anonymous,
    reload: Option<Reload>,
}

impl AuthnFlags {
    /// Reads keys and bundles. With the authorizer `AlwaysAllow` (`always_allows`) anonymous requests are
    /// refused whatever the flag says, as upstream does.
    pub fn build(&self, store: Store, always_allows: bool) -> Result<Authenticator, AuthnError> {
        let accounts = self.accounts()?;
        let roots = match &self.client_ca_file {
            None => None,
            Some(path) => Some(Bundle::follow("client-ca-bundle", path)?),
        };
        let Said { providers, anonymous, reload } = self.configured(always_allows)?;
        let tokens = Tokens {
            store,
            fixed: self.static_tokens()?,
            accounts: Some(Arc::new(accounts)),
            bootstrap: self.enable_bootstrap_token_auth,
            providers: RwLock::new(Arc::new(providers)),
            webhook: self.webhook()?,
            known: Mutex::default(),
        };
        let tokens = Arc::new(tokens);
        if let Some(reload) = reload {
            tokio::spawn(reload.follow(Arc::downgrade(&tokens)));
        }
        Ok(Authenticator { front_proxy: self.front_proxy()?.map(Arc::new), roots, tokens, anonymous })
    }

    /// The OpenID providers, and what becomes of anonymous requests.
    fn configured(&self, always_allows: bool) -> Result<Said, AuthnError> {
        let mut anonymous = match self.anonymous_auth.unwrap_or(true) {
            true => Anonymous::Allowed,
            false => Anonymous::Refused,
        };
        let (mut providers, mut reload) = (Vec::new(), None);
        if let Some(path) = &self.authentication_config {
            if self.oidc.oidc_issuer_url.is_some() || self.oidc.oidc_client_id.is_some() {
                return Err(AuthnError::Exclusive("oidc-issuer-url"));
            }
            let text = String::from_utf8_lossy(&read(path)?).into_owned();
            let said = config::read(&text)
                .map_err(|why| AuthnError::Config { path: path.display().to_string(), why })?;
            reload = Some(Reload {
                path: path.clone(),
                anonymous: said.anonymous.clone(),
                roads: self.roads.clone(),
            });
            if let Some(section) = said.anonymous {
                if self.anonymous_auth.is_some() {
                    return Err(AuthnError::AnonymousTwice);
                }
                anonymous = section;
            }
            for (rules, verify) in said.providers {
                providers.push(Provider::new(rules, verify, &self.roads)?);
            }
        }
        if let Some((rules, verify)) = self.oidc.provider()? {
            providers.push(Provider::new(rules, verify, &self.roads)?);
        }
        if always_allows && anonymous != Anonymous::Refused {
            tracing::warn!(
                "AnonymousAuth is not allowed with the AlwaysAllow authorizer. Resetting AnonymousAuth to false. You should use a different authorizer"
            );
            anonymous = Anonymous::Refused;
        }
        Ok(Said { providers, anonymous, reload })
    }

    fn front_proxy(&self) -> Result<Option<FrontProxy>, AuthnError> {
        let flags = &self.requestheader;
        let Some(path) = &flags.requestheader_client_ca_file else { return Ok(None) };
        // As Go's string slices: an empty word is an empty list.
        let names = flags.requestheader_allowed_names.iter().filter(|name| !name.is_empty());
        let allowed: Vec<String> = names.cloned().collect();
        if allowed.is_empty()
            && let Some(clients) = &self.client_ca_file
            && overlap(path, clients)?
        {
            return Err(AuthnError::OverlappingAuthorities);
        }
        Ok(Some(FrontProxy {
            roots: Bundle::follow("request-header", path)?,
            allowed,
            headers: HeaderNames {
                user: flags.requestheader_username_headers.clone(),
                uid: flags.requestheader_uid_headers.clone(),
                group: flags.requestheader_group_headers.clone(),
                extra: flags.requestheader_extra_headers_prefix.clone(),
            },
        }))
    }

    fn static_tokens(&self) -> Result<Option<StaticTokens>, AuthnError> {
        let Some(path) = &self.token_auth_file else { return Ok(None) };
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        StaticTokens::from_csv(&text, &path.display().to_string()).map(Some).map_err(AuthnError::StaticTokens)
    }

    fn webhook(&self) -> Result<Option<TokenWebhook>, AuthnError> {
        let Some(path) = &self.authentication_token_webhook_config_file else { return Ok(None) };
        let remote = Remote::from_kubeconfig(path, WEBHOOK_TIMEOUT, self.roads.to(Egress::ControlPlane))
            .map_err(|source| AuthnError::Webhook { path: path.display().to_string(), source })?;
        let version = &self.authentication_token_webhook_version;
        Ok(Some(TokenWebhook::new(remote, version, self.authentication_token_webhook_cache_ttl)))
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
            let found = VerifyingKey::all_from_pem(&String::from_utf8_lossy(&read(path)?));
            keys.extend(
                found.map_err(|source| AuthnError::Use { path: path.display().to_string(), source })?,
            );
        }
        let audiences = match self.api_audiences.is_empty() {
            true => self.service_account_issuer[..1].to_vec(),
            false => self.api_audiences.clone(),
        };
        let longest = go_duration::parse(&self.service_account_max_token_expiration).map_err(|_| {
            AuthnError::Duration {
                flag: "service-account-max-token-expiration",
                value: self.service_account_max_token_expiration.clone(),
            }
        })?;
        Ok(ServiceAccounts {
            issuers: self.service_account_issuer.clone(),
            keys,
            signer,
            audiences,
            extend: self.service_account_extend_token_expiration,
            lookup: self.service_account_lookup,
            longest: i64::try_from(longest.as_secs()).unwrap_or(i64::MAX),
            jwks_uri: self.service_account_jwks_uri.clone(),
        })
    }
}

impl OidcFlags {
    fn provider(&self) -> Result<Option<(Rules, Verify)>, AuthnError> {
        let (issuer, client) = match (&self.oidc_issuer_url, &self.oidc_client_id) {
            (None, None) => return Ok(None),
            (Some(issuer), Some(client)) => (issuer, client),
            _ => return Err(AuthnError::OidcIncomplete),
        };
        let path = self.oidc_ca_file.as_ref().ok_or(AuthnError::Required("oidc-ca-file"))?;
        let prefix = match self.oidc_username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) => prefix.to_owned(),
            None if self.oidc_username_claim == "email" => String::new(),
            None => format!("{issuer}#"),
        };
        let required = self.oidc_required_claim.iter().filter_map(|pair| pair.split_once('='));
        let rules = Rules {
            issuer: issuer.clone(),
            egress: None,
            discovery: None,
            audiences: vec![client.clone()],
            algorithms: self.oidc_signing_algs.clone(),
            username: Mapping::Claim { claim: self.oidc_username_claim.clone(), prefix },
            groups: self.oidc_groups_claim.as_ref().map(|claim| Mapping::Claim {
                claim: claim.clone(),
                prefix: self.oidc_groups_prefix.clone().unwrap_or_default(),
            }),
            uid: None,
            extra: Vec::new(),
            required: required.map(|(claim, value)| (claim.to_owned(), value.to_owned())).collect(),
            claim_rules: Vec::new(),
            user_rules: Vec::new(),
        };
        Ok(Some((rules, Verify::Bundle(read(path)?))))
    }
}

pub(super) fn roots(path: &Path) -> Result<ClientRoots, AuthnError> {
    let used = |source| AuthnError::Use { path: path.display().to_string(), source };
    ClientRoots::from_pem(&read(path)?).map_err(used)
}

/// Whether two bundles have a certificate in common.
fn overlap(one: &Path, other: &Path) -> Result<bool, AuthnError> {
    let all = |path: &Path| {
        let used = |source| AuthnError::Use { path: path.display().to_string(), source };
        pki::certificates(&read(path)?).map_err(used)
    };
    let others = all(other)?;
    Ok(all(one)?.iter().any(|cert| others.contains(cert)))
}

fn read(path: &Path) -> Result<Vec<u8>, AuthnError> {
    std::fs::read(path).map_err(|source| AuthnError::Read { path: path.display().to_string(), source })
}
