//! Delegated authentication and authorization: how a kubelet, controller manager or scheduler finds out who
//! calls its own port and whether they may, by asking the API server.
//!
//! `k8s.io/apiserver/pkg/authentication/authenticatorfactory` and its authorization sibling: client
//! certificates by a CA bundle first, then TokenReview; SubjectAccessReview with upstream's caches.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use http::{HeaderMap, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use rustls_pki_types::CertificateDer;
use tracing::warn;

use super::front_proxy::FrontProxy;
use crate::pki::ClientRoots;

/// How long answers are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttls {
    /// `authentication.webhook.cacheTTL`: of a token, good or bad.
    pub token: Duration,
    /// `authorization.webhook.cacheAuthorizedTTL`
    pub allowed: Duration,
    /// `authorization.webhook.cacheUnauthorizedTTL`
    pub denied: Duration,
}

/// A kubelet's.
impl Default for Ttls {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { token: seconds(120), allowed: seconds(300), denied: seconds(30) }
    }
}

/// A longer question is not worth remembering (`shouldCache` of upstream's webhook authorizer).
const LONGEST_KEPT: usize = 10_000;
/// A token as a WebSocket subprotocol, for browsers, which cannot set a header.
const PROTOCOL_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";
/// Cached answers, before the oldest are thrown away all at once.
const CACHED: usize = 1024;

/// `authentication.kubernetes.io/pod-name` and the like.
type Extra = BTreeMap<String, Vec<String>>;

/// Who calls.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Caller {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: Extra,
}

impl Caller {
    pub fn anonymous() -> Self {
        let groups = vec!["system:unauthenticated".to_owned()];
        Self { name: "system:anonymous".into(), groups, ..Self::default() }
    }
}

/// What becomes of a request with no credential at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// 401.
    Refused,
    /// It is `system:anonymous`.
    ///
    /// # Warning
    ///
    /// With an authorizer that allows always, this opens the port to everybody (`--anonymous-auth=true`).
    Allowed,
}

/// Finds out who calls.
pub struct Authentication {
    /// `--client-ca-file`.
    roots: RwLock<Option<Arc<ClientRoots>>>,
    /// `--requestheader-client-ca-file`.
    proxy: RwLock<Option<Arc<FrontProxy>>>,
    /// Asks TokenReview, if bearer tokens are accepted at all.
    reviews: Option<Client>,
    anonymous: Anonymous,
    ttl: Duration,
    /// By the token's digest: no token is kept.
    tokens: Cache<Vec<u8>, Option<Caller>>,
}

impl Authentication {
    pub fn new(roots: Option<ClientRoots>, reviews: Option<Client>, anonymous: Anonymous) -> Self {
        let (roots, tokens) = (RwLock::new(roots.map(Arc::new)), Cache::default());
        Self { roots, proxy: RwLock::default(), reviews, anonymous, ttl: Ttls::default().token, tokens }
    }

    /// Believes TokenReview's answers for this long.
    pub fn believing(mut self, ttls: Ttls) -> Self {
        self.ttl = ttls.token;
        self
    }

    /// Takes other authorities from now on: the file changed.
    pub fn replace_roots(&self, roots: ClientRoots) {
        *self.roots.write().expect("nothing panics while holding the lock") = Some(Arc::new(roots));
    }

    /// Lets a front proxy name users from now on.
    pub fn replace_proxy(&self, proxy: FrontProxy) {
        *self.proxy.write().expect("nothing panics while holding the lock") = Some(Arc::new(proxy));
    }

    /// The caller, or nothing: then the answer is 401 `Unauthorized`.
    ///
    /// Front proxy, client certificate and token are tried in this order and one of them is enough. A wrong credential is
    /// never downgraded to anonymous; one that nobody here looks at is none.
    pub async fn authenticate(&self, headers: &HeaderMap, peer: &[CertificateDer<'_>]) -> Option<Caller> {
        let roots = self.roots.read().expect("nothing panics while holding the lock").clone();
        let proxy = self.proxy.read().expect("nothing panics while holding the lock").clone();
        let mut refused = false;
        if let (Some(proxy), false) = (proxy, peer.is_empty()) {
            match proxy.caller(headers, peer) {
                Ok(Some(caller)) => return Some(authenticated(caller)),
                Ok(None) => {}
                Err(_) => refused = true,
            }
        }
        if let (Some(roots), false) = (roots, peer.is_empty()) {
            match roots.verify(peer) {
                Ok(subject) => return Some(known(&subject.cn, &subject.orgs)),
                Err(error) => {
                    warn!(%error, "Unable to authenticate the request");
                    refused = true;
                }
            }
        }
        if let (Some(reviews), Some(token)) = (&self.reviews, token(headers)) {
            return self.review(reviews, &token).await;
        }
        (self.anonymous == Anonymous::Allowed && !refused).then(Caller::anonymous)
    }

    async fn review(&self, client: &Client, token: &str) -> Option<Caller> {
        let key = ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref().to_vec();
        if let Some(known) = self.tokens.get(&key) {
            return known;
        }
        let spec = TokenReviewSpec { token: token.into(), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        match Api::all(client.clone()).create(&PostParams::default(), &review).await {
            Ok(TokenReview { status: Some(status), .. }) => {
                let caller = status.user.filter(|_| status.authenticated == Some(true)).map(|user| Caller {
                    name: user.username.unwrap_or_default(),
                    uid: user.uid.unwrap_or_default(),
                    groups: user.groups.unwrap_or_default(),
                    extra: user.extra.unwrap_or_default(),
                });
                self.tokens.put(key, caller.clone(), self.ttl);
                caller
            }
            Ok(_) => None,
            Err(error) => {
                warn!(%error, "Unable to authenticate the request");
                None
            }
        }
    }
}

/// A question to SubjectAccessReview.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Asked {
    Resource {
        verb: String,
        group: String,
        version: String,
        resource: String,
        subresource: String,
        namespace: String,
        name: String,
    },
    Path {
        verb: String,
        path: String,
    },
}

impl Asked {
    fn length(&self) -> usize {
        match self {
            Self::Resource { namespace, name, .. } => namespace.len() + name.len(),
            Self::Path { path, .. } => path.len(),
        }
    }
}

/// What the API server answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Allowed,
    Denied {
        reason: String,
    },
    /// Nobody could be asked: upstream answers 500 then.
    Failed {
        error: String,
    },
}

/// Finds out whether they may.
pub struct Authorization {
    client: Client,
    ttls: Ttls,
    /// By everything that is asked: two pods of one account differ in their extra fields.
    answers: Cache<(String, Vec<String>, Extra, Asked), Answer>,
}

impl Authorization {
    pub fn new(client: Client) -> Self {
        Self { client, ttls: Ttls::default(), answers: Cache::default() }
    }

    /// Believes SubjectAccessReview's answers for this long.
    pub fn believing(mut self, ttls: Ttls) -> Self {
        self.ttls = ttls;
        self
    }

    pub async fn authorize(&self, caller: &Caller, asked: &Asked) -> Answer {
        let key = (caller.name.clone(), caller.groups.clone(), caller.extra.clone(), asked.clone());
        if let Some(answer) = self.answers.get(&key) {
            return answer;
        }
        let review = SubjectAccessReview { spec: question(caller, asked), ..SubjectAccessReview::default() };
        let answer = match Api::all(self.client.clone()).create(&PostParams::default(), &review).await {
            Ok(SubjectAccessReview { status: Some(status), .. }) if status.allowed => Answer::Allowed,
            Ok(review) => {
                Answer::Denied { reason: review.status.and_then(|status| status.reason).unwrap_or_default() }
            }
            Err(error) => Answer::Failed { error: error.to_string() },
        };
        match answer {
            Answer::Failed { .. } => {}
            _ if asked.length() > LONGEST_KEPT => {}
            Answer::Allowed => self.answers.put(key, answer.clone(), self.ttls.allowed),
            Answer::Denied { .. } => self.answers.put(key, answer.clone(), self.ttls.denied),
        }
        answer
    }
}

fn question(caller: &Caller, asked: &Asked) -> SubjectAccessReviewSpec {
    let set = |text: &String| (!text.is_empty()).then(|| text.clone());
    let mut spec = SubjectAccessReviewSpec {
        user: Some(caller.name.clone()),
        uid: set(&caller.uid),
        groups: Some(caller.groups.clone()),
        extra: (!caller.extra.is_empty()).then(|| caller.extra.clone()),
        ..SubjectAccessReviewSpec::default()
    };
    match asked {
        Asked::Resource { verb, group, version, resource, subresource, namespace, name } => {
            spec.resource_attributes = Some(ResourceAttributes {
                verb: set(verb),
                group: set(group),
                version: set(version),
                resource: set(resource),
                subresource: set(subresource),
                namespace: set(namespace),
                name: set(name),
                ..ResourceAttributes::default()
            });
        }
        Asked::Path { verb, path } => {
            spec.non_resource_attributes = Some(NonResourceAttributes { verb: set(verb), path: set(path) });
        }
    }
    spec
}

/// Whoever was recognized is in this group as well.
fn authenticated(mut caller: Caller) -> Caller {
    let known = ["system:authenticated", "system:unauthenticated"];
    if !caller.groups.iter().any(|group| known.contains(&group.as_str())) {
        caller.groups.push(known[0].into());
    }
    caller
}

/// A verified certificate's caller.
fn known(cn: &str, orgs: &[String]) -> Caller {
    let mut groups = orgs.to_vec();
    groups.push("system:authenticated".into());
    Caller { name: cn.into(), groups, ..Caller::default() }
}

/// The token of an `Authorization: Bearer …` header, or of a WebSocket's subprotocol.
fn token(headers: &HeaderMap) -> Option<String> {
    bearer(headers).map(str::to_owned).or_else(|| protocol_token(headers))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Only where the request is a WebSocket's (`authentication/request/websocket`).
fn protocol_token(headers: &HeaderMap) -> Option<String> {
    let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
    if !upgrade.eq_ignore_ascii_case("websocket") {
        return None;
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let encoded = offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|word| word.trim().strip_prefix(PROTOCOL_TOKEN))?;
    let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    String::from_utf8(bytes).ok().filter(|token| !token.is_empty())
}

/// Answers with an end.
struct Cache<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let map = self.0.lock().expect("nothing panics while holding the lock");
        map.get(key).filter(|(end, _)| Instant::now() < *end).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V, life: Duration) {
        let mut map = self.0.lock().expect("nothing panics while holding the lock");
        if map.len() >= CACHED {
            map.clear();
        }
        map.insert(key, (Instant::now() + life, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_read_whatever_the_case_of_its_scheme() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        headers.insert(header::AUTHORIZATION, "bearer abc".parse().unwrap());
        assert_eq!(bearer(&headers), Some("abc"));
        headers.insert(header::AUTHORIZATION, "Basic abc".parse().unwrap());
        assert_eq!(bearer(&headers), None);
        let offer = format!("v5.channel.k8s.io, {PROTOCOL_TOKEN}{}", URL_SAFE_NO_PAD.encode("t0k"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offer.parse().unwrap());
        assert_eq!(token(&headers), None, "no WebSocket, no token in its protocols");
        headers.insert(header::UPGRADE, "websocket".parse().unwrap());
        assert_eq!(token(&headers).as_deref(), Some("t0k"));
    }

    #[tokio::test]
    async fn a_stranger_is_nobody_unless_anonymous_is_allowed_and_a_bad_certificate_never_is() {
        let ca = crate::pki::Authority::new("kubernetes").unwrap();
        let other = crate::pki::Authority::new("other").unwrap();
        let leaf = other.issue(&crate::pki::LeafSpec::client("mallory", &[])).unwrap();
        let chain = crate::pki::certificates(leaf.cert_pem.as_bytes()).unwrap();
        let roots = || Some(ClientRoots::from_pem(ca.cert_pem().as_bytes()).unwrap());
        let open = Authentication::new(roots(), None, Anonymous::Allowed);
        assert_eq!(open.authenticate(&HeaderMap::new(), &[]).await, Some(Caller::anonymous()));
        assert_eq!(open.authenticate(&HeaderMap::new(), &chain).await, None);
        let closed = Authentication::new(roots(), None, Anonymous::Refused);
        assert_eq!(closed.authenticate(&HeaderMap::new(), &[]).await, None);
    }
}
