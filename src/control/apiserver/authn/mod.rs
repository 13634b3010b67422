//! Authentication: who sends this request (`pkg/kubeapiserver/authenticator`).
//!
//! Client certificates first, then bearer tokens (service accounts, bootstrap tokens), anonymous last,
//! and only if nobody objected: a wrong credential is 401, never anonymous. Left out: front-proxy
//! headers, static token files, OIDC and webhooks.

mod accounts;
mod bearer;
mod bootstrap;
mod flags;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::HeaderMap;
use rustls_pki_types::CertificateDer;
use tracing::info;

pub use accounts::ServiceAccounts;
pub use flags::{AuthnError, AuthnFlags};

use super::user::UserInfo;
use crate::api::status::{Result, Status};
use crate::control::store::Store;
use crate::pki::ClientRoots;

/// A token found good stays good this long without a look (upstream's success cache).
const TOKEN_TTL: Duration = Duration::from_secs(10);
const CACHED_TOKENS: usize = 4096;

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
    store: Store,
    roots: Option<Arc<ClientRoots>>,
    accounts: Option<Arc<ServiceAccounts>>,
    bootstrap_tokens: bool,
    anonymous: Anonymous,
    tokens: Mutex<HashMap<String, (Instant, UserInfo)>>,
}

impl Authenticator {
    /// The caller, or 401.
    pub fn authenticate(&self, request: Credentials<'_>) -> Result<UserInfo> {
        match self.credential(request) {
            Ok(Some(user)) => Ok(authenticated(user)),
            Ok(None) if self.admits_anonymous(request.path) => Ok(anonymous()),
            Ok(None) => Err(Status::unauthorized()),
            Err(reason) => {
                info!(err = reason, "Unable to authenticate the request");
                Err(Status::unauthorized())
            }
        }
    }

    /// A TokenReview: the token's owner and the audiences it was found good for. No audience asked for
    /// means those of this API server.
    pub fn review(
        &self,
        token: &str,
        audiences: &[String],
    ) -> std::result::Result<(UserInfo, Vec<String>), String> {
        let own = self.accounts.as_ref().map(|accounts| accounts.audiences().to_vec()).unwrap_or_default();
        let found = match audiences.is_empty() {
            true => self.remembered(token)?.map(|user| (user, own)),
            false => self.token(token, audiences)?,
        };
        let (user, audiences) = found.ok_or("invalid bearer token")?;
        Ok((authenticated(user), audiences))
    }

    /// A token's owner, and which of the wanted audiences it is for.
    fn token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> std::result::Result<Option<(UserInfo, Vec<String>)>, String> {
        let now = jiff::Timestamp::now().as_second();
        if let Some(accounts) = &self.accounts
            && let Some((user, matching)) = accounts.verify(&self.store, token, audiences, now)?
        {
            return Ok(Some((user, matching)));
        }
        if self.bootstrap_tokens
            && let Some(user) = bootstrap::verify(&self.store, token, now)?
        {
            return Ok(Some((user, audiences.to_vec())));
        }
        Ok(None)
    }

    /// The same, but nothing is anonymous except on these paths: for the listener on the machine itself.
    pub fn anonymous_only_on(&self, paths: &[&str]) -> Self {
        Self {
            store: self.store.clone(),
            roots: self.roots.clone(),
            accounts: self.accounts.clone(),
            bootstrap_tokens: self.bootstrap_tokens,
            anonymous: Anonymous::OnPaths(paths.iter().map(|path| (*path).to_owned()).collect()),
            tokens: Mutex::default(),
        }
    }

    pub fn accounts(&self) -> Option<&Arc<ServiceAccounts>> {
        self.accounts.as_ref()
    }

    fn admits_anonymous(&self, path: &str) -> bool {
        match &self.anonymous {
            Anonymous::Refused => false,
            Anonymous::Allowed => true,
            Anonymous::OnPaths(paths) => paths.iter().any(|allowed| allowed == path),
        }
    }

    /// Nothing offered is `None`; something wrong is an error.
    fn credential(&self, request: Credentials<'_>) -> std::result::Result<Option<UserInfo>, String> {
        if let Some(user) = self.certificate(request.certificates)? {
            return Ok(Some(user));
        }
        match bearer::token(request.headers) {
            None => Ok(None),
            Some(token) => match self.remembered(&token)? {
                Some(user) => Ok(Some(user)),
                None => Err("invalid bearer token".into()),
            },
        }
    }

    fn certificate(
        &self,
        chain: &[CertificateDer<'static>],
    ) -> std::result::Result<Option<UserInfo>, String> {
        let (Some(roots), false) = (&self.roots, chain.is_empty()) else { return Ok(None) };
        let subject =
            roots.verify(chain).map_err(|error| format!("verifying certificate failed: {error}"))?;
        if subject.cn.is_empty() {
            return Ok(None);
        }
        let id = format!("X509SHA256={}", subject.fingerprint);
        Ok(Some(UserInfo {
            name: subject.cn.clone(),
            uid: String::new(),
            groups: subject.orgs.clone(),
            extra: BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![id])]),
        }))
    }

    fn remembered(&self, token: &str) -> std::result::Result<Option<UserInfo>, String> {
        let now = Instant::now();
        {
            let known = self.tokens.lock().expect("nothing panics while holding the lock");
            if let Some((until, user)) = known.get(token)
                && now < *until
            {
                return Ok(Some(user.clone()));
            }
        }
        let audiences =
            self.accounts.as_ref().map(|accounts| accounts.audiences().to_vec()).unwrap_or_default();
        let Some((user, _)) = self.token(token, &audiences)? else { return Ok(None) };
        let mut known = self.tokens.lock().expect("nothing panics while holding the lock");
        if known.len() >= CACHED_TOKENS {
            known.clear();
        }
        known.insert(token.to_owned(), (now + TOKEN_TTL, user.clone()));
        Ok(Some(user))
    }
}

/// Whoever was recognized is in this group as well.
fn authenticated(mut user: UserInfo) -> UserInfo {
    if !user.in_group(AUTHENTICATED) && !user.in_group(UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.into());
    }
    user
}

/// Nobody in particular.
pub fn anonymous() -> UserInfo {
    UserInfo { name: "system:anonymous".into(), groups: vec![UNAUTHENTICATED.into()], ..UserInfo::default() }
}

#[cfg(test)]
pub(super) mod tests;
