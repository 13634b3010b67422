//! Authentication: who sends a request (`pkg/kubeapiserver/authenticator`).
//!
//! In upstream's order: the front proxy's headers, a client certificate, a bearer token, a token among a
//! WebSocket's subprotocols. An error of one does not keep another from succeeding; but when none knows
//! the caller and anything was wrong, the answer is 401, never anonymous.

mod accounts;
mod bearer;
mod bootstrap;
mod bundle;
mod config;
mod flags;
mod front_proxy;
mod jwt;
mod reload;
mod static_tokens;
mod tokens;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use rustls_pki_types::CertificateDer;
use tracing::info;

pub use accounts::ServiceAccounts;
pub use flags::{AuthnError, AuthnFlags};
pub use tokens::Owner;
pub use webhook::chain;

use super::user::UserInfo;
use crate::api::status::{Result, Status};
use bundle::Bundle;
use front_proxy::FrontProxy;
use tokens::Tokens;

pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// How a credential is named in audit logs and `kubectl auth whoami`.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// What a request offers to be known by.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    pub headers: &'a HeaderMap,
    /// The client's certificate chain, leaf first, unverified but for its key.
    pub certificates: &'a [CertificateDer<'static>],
    pub path: &'a str,
}

/// What becomes of a request that offers nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Anonymous {
    /// 401.
    Refused,
    /// It is `system:anonymous`, everywhere.
    Allowed,
    /// It is `system:anonymous` on these paths, and 401 elsewhere (AuthenticationConfiguration's conditions).
    OnPaths(Vec<String>),
}

/// Finds out who sends a request.
pub struct Authenticator {
    front_proxy: Option<Arc<FrontProxy>>,
    roots: Option<Arc<Bundle>>,
    tokens: Arc<Tokens>,
    anonymous: Anonymous,
}

/// A verdict of one kind of credential: nothing offered is `None`, something wrong is an error.
type Found = std::result::Result<Option<Owner>, String>;

impl Authenticator {
    /// The caller, or 401.
    pub async fn authenticate(&self, request: Credentials<'_>) -> Result<Owner> {
        let mut errors = Vec::new();
        for found in [self.front_proxy(request), self.certificate(request.certificates)] {
            match found {
                Ok(Some(owner)) => return Ok(authenticated(owner)),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        for token in [Ok(bearer::from_header(request.headers)), bearer::from_subprotocol(request.headers)] {
            let found = match token {
                Ok(Some(token)) => self.token(&token).await,
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            match found {
                Ok(Some(owner)) => return Ok(authenticated(owner)),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            info!(err = listed(&errors), "Unable to authenticate the request");
            return Err(Status::unauthorized());
        }
        match self.admits_anonymous(request.path) {
            true => Ok(Owner::new(anonymous(), Vec::new())),
            false => Err(Status::unauthorized()),
        }
    }

    /// Takes every credential off a request: nobody behind the door may see or pass them on.
    pub fn strip(&self, headers: &mut HeaderMap) {
        bearer::strip(headers);
        match &self.front_proxy {
            Some(proxy) => proxy.headers.strip(headers),
            None => front_proxy::HeaderNames::default().strip(headers),
        }
    }

    /// A TokenReview: the token's owner and the audiences it was found good for. No audience asked for
    /// means those of this API server.
    pub async fn review(&self, token: &str, audiences: &[String]) -> std::result::Result<Owner, String> {
        let wanted = if audiences.is_empty() { self.tokens.api_audiences() } else { audiences };
        let found = self.tokens.owner(token, wanted).await.map_err(|error| listed(&[error]))?;
        found.map(authenticated).ok_or_else(|| "invalid bearer token".into())
    }

    /// The same, but nothing is anonymous except on these paths: for the listener on the machine itself.
    pub fn anonymous_only_on(&self, paths: &[&str]) -> Self {
        Self {
            front_proxy: self.front_proxy.clone(),
            roots: self.roots.clone(),
            tokens: self.tokens.clone(),
            anonymous: Anonymous::OnPaths(paths.iter().map(|path| (*path).to_owned()).collect()),
        }
    }

    pub fn accounts(&self) -> Option<&Arc<ServiceAccounts>> {
        self.tokens.accounts.as_ref()
    }

    fn admits_anonymous(&self, path: &str) -> bool {
        match &self.anonymous {
            Anonymous::Refused => false,
            Anonymous::Allowed => true,
            Anonymous::OnPaths(paths) => paths.iter().any(|allowed| allowed == path),
        }
    }

    async fn token(&self, token: &str) -> Found {
        match self.tokens.owner(token, self.tokens.api_audiences()).await? {
            Some(owner) => Ok(Some(owner)),
            None => Err("invalid bearer token".into()),
        }
    }

    fn front_proxy(&self, request: Credentials<'_>) -> Found {
        let Some(proxy) = &self.front_proxy else { return Ok(None) };
        let user = proxy.user(request.headers, request.certificates)?;
        Ok(user.map(|user| Owner::new(user, Vec::new())))
    }

    fn certificate(&self, chain: &[CertificateDer<'static>]) -> Found {
        let (Some(roots), false) = (&self.roots, chain.is_empty()) else { return Ok(None) };
        let subject = roots.verify(chain).map_err(|error| error.to_string())?;
        if subject.cn.is_empty() {
            return Ok(None);
        }
        let id = format!("X509SHA256={}", subject.fingerprint);
        let user = UserInfo {
            name: subject.cn.clone(),
            uid: subject.uid.clone(),
            groups: subject.orgs.clone(),
            extra: BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![id])]),
        };
        Ok(Some(Owner::new(user, Vec::new())))
    }
}

/// Go's way of writing several errors as one: each once, and a single one alone.
fn listed(errors: &[String]) -> String {
    let mut different: Vec<&str> = Vec::new();
    for error in errors {
        if !different.contains(&error.as_str()) {
            different.push(error);
        }
    }
    match different.as_slice() {
        [one] if !one.starts_with("invalid bearer token, ") => (*one).to_owned(),
        all => format!("[{}]", all.join(", ")),
    }
}

/// Whoever was recognized is in this group as well.
fn authenticated(mut owner: Owner) -> Owner {
    let user = &mut owner.user;
    if user.name != "system:anonymous" && !user.in_group(AUTHENTICATED) && !user.in_group(UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.into());
    }
    owner
}

/// Nobody in particular.
pub fn anonymous() -> UserInfo {
    UserInfo { name: "system:anonymous".into(), groups: vec![UNAUTHENTICATED.into()], ..UserInfo::default() }
}

#[cfg(test)]
pub(super) mod tests;
