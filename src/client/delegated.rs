//! Delegated authentication and authorization: how a kubelet, controller manager or scheduler finds out who
//! calls its own port and whether they may, by asking the API server.
//!
//! `k8s.io/apiserver/pkg/authentication/authenticatorfactory` and its authorization sibling: client
//! certificates by a CA bundle first, then TokenReview; SubjectAccessReview with upstream's caches.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use http::{HeaderMap, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use rustls_pki_types::CertificateDer;
use tracing::warn;

use crate::pki::ClientRoots;

/// Upstream's defaults for a kubelet (`authentication.webhook.cacheTTL`, `authorization.webhook.cache*TTL`).
const TOKEN_TTL: Duration = Duration::from_secs(120);
const ALLOWED_TTL: Duration = Duration::from_secs(300);
const DENIED_TTL: Duration = Duration::from_secs(30);
/// Cached answers, before the oldest are thrown away all at once.
const CACHED: usize = 1024;

/// Who calls.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Caller {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
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
    roots: Option<ClientRoots>,
    /// Asks TokenReview, if bearer tokens are accepted at all.
    reviews: Option<Client>,
    anonymous: Anonymous,
    tokens: Cache<String, Option<Caller>>,
}

impl Authentication {
    pub fn new(roots: Option<ClientRoots>, reviews: Option<Client>, anonymous: Anonymous) -> Self {
        Self { roots, reviews, anonymous, tokens: Cache::default() }
    }

    /// The caller, or nothing: then the answer is 401 `Unauthorized`.
    ///
    /// A wrong credential is never downgraded to anonymous.
    pub async fn authenticate(&self, headers: &HeaderMap, peer: &[CertificateDer<'_>]) -> Option<Caller> {
        if let (Some(roots), false) = (&self.roots, peer.is_empty()) {
            match roots.verify(peer) {
                Ok(subject) => return Some(known(&subject.cn, &subject.orgs)),
                Err(error) => {
                    warn!(%error, "Unable to authenticate the request");
                    return None;
                }
            }
        }
        if let (Some(reviews), Some(token)) = (&self.reviews, bearer(headers)) {
            return self.review(reviews, token).await;
        }
        (self.anonymous == Anonymous::Allowed).then(Caller::anonymous)
    }

    async fn review(&self, client: &Client, token: &str) -> Option<Caller> {
        if let Some(known) = self.tokens.get(token) {
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
                self.tokens.put(token.into(), caller.clone(), TOKEN_TTL);
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
    answers: Cache<(String, Vec<String>, Asked), Answer>,
}

impl Authorization {
    pub fn new(client: Client) -> Self {
        Self { client, answers: Cache::default() }
    }

    pub async fn authorize(&self, caller: &Caller, asked: &Asked) -> Answer {
        let key = (caller.name.clone(), caller.groups.clone(), asked.clone());
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
            Answer::Allowed => self.answers.put(key, answer.clone(), ALLOWED_TTL),
            Answer::Denied { .. } => self.answers.put(key, answer.clone(), DENIED_TTL),
            Answer::Failed { .. } => {}
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

/// A verified certificate's caller.
fn known(cn: &str, orgs: &[String]) -> Caller {
    let mut groups = orgs.to_vec();
    groups.push("system:authenticated".into());
    Caller { name: cn.into(), groups, ..Caller::default() }
}

/// The token of an `Authorization: Bearer …` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
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
