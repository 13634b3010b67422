//! Bearer tokens, whoever made them: the file, the API server's own, bootstrap tokens, OpenID providers, a webhook.
//!
//! All are asked in upstream's order until one knows the token; an error of one is no verdict, another may
//! still know it (`authentication/token/union`). A token found good stays good for ten seconds without a
//! look (`authentication/token/cache`).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use super::super::user::UserInfo;
use super::jwt::Provider;
use super::static_tokens::StaticTokens;
use super::webhook::TokenWebhook;
use super::{ServiceAccounts, bootstrap};
use crate::control::store::Store;

const TTL: Duration = Duration::from_secs(10);
const CACHED: usize = 4096;
/// What is longer is nobody's token.
const LONGEST: usize = 64 * 1024;

/// Whose token it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Owner {
    pub user: UserInfo,
    /// Those asked for that it is good for.
    pub audiences: Vec<String>,
    /// For the audit log (`authentication.k8s.io/stale-token`).
    pub annotations: BTreeMap<String, String>,
}

impl Owner {
    pub(super) fn new(user: UserInfo, audiences: Vec<String>) -> Self {
        Self { user, audiences, annotations: BTreeMap::new() }
    }
}

type Digest = [u8; 32];

/// Everybody who may know a token.
pub(super) struct Tokens {
    pub(super) store: Store,
    pub(super) fixed: Option<StaticTokens>,
    pub(super) accounts: Option<Arc<ServiceAccounts>>,
    pub(super) bootstrap: bool,
    /// Replaced as a whole when the file that names them changes.
    pub(super) providers: RwLock<Arc<Vec<Provider>>>,
    pub(super) webhook: Option<TokenWebhook>,
    pub(super) known: Mutex<HashMap<Digest, (Instant, Owner)>>,
}

impl Tokens {
    /// What a token must be for to be good here.
    pub(super) fn api_audiences(&self) -> &[String] {
        self.accounts.as_ref().map_or(&[], |accounts| accounts.audiences())
    }

    /// A token's owner and which of the wanted audiences it is for, remembered for a moment.
    pub(super) async fn owner(&self, token: &str, wanted: &[String]) -> Result<Option<Owner>, String> {
        if token.len() > LONGEST {
            return Ok(None);
        }
        let digest = digest(token, wanted);
        if let Some(owner) = self.remembered(&digest) {
            return Ok(Some(owner));
        }
        let found = self.find(token, wanted).await?;
        if let Some(owner) = &found {
            let mut known = self.known.lock().expect("nothing panics while holding the lock");
            if known.len() >= CACHED {
                known.clear();
            }
            known.insert(digest, (Instant::now() + TTL, owner.clone()));
        }
        Ok(found)
    }

    fn remembered(&self, digest: &Digest) -> Option<Owner> {
        let known = self.known.lock().expect("nothing panics while holding the lock");
        known.get(digest).filter(|(until, _)| Instant::now() < *until).map(|(_, owner)| owner.clone())
    }

    async fn find(&self, token: &str, wanted: &[String]) -> Result<Option<Owner>, String> {
        let now = jiff::Timestamp::now().as_second();
        let mut errors = Vec::new();
        for outcome in
            [Ok(self.fixed(token, wanted)), self.own(token, wanted, now), self.bootstrap(token, wanted, now)]
        {
            match outcome {
                Ok(Some(owner)) => return Ok(Some(owner)),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        let agnostic = self.agnostic(wanted);
        let providers = self.providers.read().expect("nothing panics while holding the lock").clone();
        for provider in providers.iter().filter(|_| !agnostic.is_empty()) {
            match provider.user(token, now).await {
                Ok(Some(user)) => return Ok(Some(Owner::new(user, agnostic))),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        if let Some(webhook) = &self.webhook {
            match webhook.owner(token, wanted, self.api_audiences()).await {
                Ok(Some(owner)) => return Ok(Some(owner)),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        match errors.is_empty() {
            true => Ok(None),
            // Go's list of errors begins with the bearer token authenticator's own.
            false => Err(format!("invalid bearer token, {}", errors.join(", "))),
        }
    }

    /// From now on these are believed, and nothing that was believed of others before.
    pub(super) fn replace_providers(&self, providers: Vec<Provider>) {
        *self.providers.write().expect("nothing panics while holding the lock") = Arc::new(providers);
        self.known.lock().expect("nothing panics while holding the lock").clear();
    }

    fn own(&self, token: &str, wanted: &[String], now: i64) -> Result<Option<Owner>, String> {
        self.accounts.as_ref().map_or(Ok(None), |accounts| accounts.verify(&self.store, token, wanted, now))
    }

    fn fixed(&self, token: &str, wanted: &[String]) -> Option<Owner> {
        let user = self.fixed.as_ref()?.owner(token)?;
        self.for_the_api(user.clone(), wanted)
    }

    fn bootstrap(&self, token: &str, wanted: &[String], now: i64) -> Result<Option<Owner>, String> {
        if !self.bootstrap {
            return Ok(None);
        }
        let user = bootstrap::verify(&self.store, token, now)?;
        Ok(user.and_then(|user| self.for_the_api(user, wanted)))
    }

    /// A token that knows no audience is one for the API server, and for nobody else.
    fn for_the_api(&self, user: UserInfo, wanted: &[String]) -> Option<Owner> {
        let audiences = self.agnostic(wanted);
        (!audiences.is_empty()).then(|| Owner::new(user, audiences))
    }

    fn agnostic(&self, wanted: &[String]) -> Vec<String> {
        self.api_audiences().iter().filter(|own| wanted.contains(own)).cloned().collect()
    }
}

/// The cache's key: it must not hold the tokens themselves.
fn digest(token: &str, wanted: &[String]) -> Digest {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in std::iter::once(token).chain(wanted.iter().map(String::as_str)) {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}
