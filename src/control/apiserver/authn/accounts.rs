//! Service-account tokens: making them and believing them (`pkg/serviceaccount`).
//!
//! A bound token is good while it is in date *and* what it is bound to still exists: deleting the pod
//! revokes it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::lookup::{deleted_at, object, text};
use super::super::user::UserInfo;
use super::super::{encode, registry};
use super::{CREDENTIAL_ID, Owner};
use crate::api::go_list::quoted;
use crate::control::store::{Change, Expect, Store};
use crate::pki::{self, PkiError, SigningKey, VerifyingKey};

/// Issuer of the tokens in Secrets, which know neither audience nor end.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// Clocks may differ by this, and a deleted object counts for as long.
const LEEWAY: i64 = 60;
/// On a Secret whose token no longer counts.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// The day a Secret's token was last used.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

/// The key ring and the rules of `--service-account-*`.
pub struct ServiceAccounts {
    /// The first one signs new tokens; all are believed.
    pub(super) issuers: Vec<String>,
    pub(super) keys: Vec<VerifyingKey>,
    pub(super) signer: SigningKey,
    /// `--api-audiences`: what a token must be for to be good here.
    pub(super) audiences: Vec<String>,
    /// `--service-account-extend-token-expiration`.
    pub(super) extend: bool,
    /// `--service-account-lookup`.
    pub(super) lookup: bool,
    /// `--service-account-max-token-expiration` in seconds, 0 for none.
    pub(super) longest: i64,
    /// `--service-account-jwks-uri`: where the discovery document sends others for the keys.
    pub(super) jwks_uri: Option<String>,
}

impl ServiceAccounts {
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    pub fn issuer(&self) -> &str {
        self.issuers.first().map_or("", String::as_str)
    }

    pub fn extends(&self) -> bool {
        self.extend
    }

    pub fn longest(&self) -> i64 {
        self.longest
    }

    pub fn jwks_uri(&self) -> Option<&str> {
        self.jwks_uri.as_deref()
    }

    pub fn sign(&self, claims: &Value) -> Result<String, PkiError> {
        self.signer.sign(claims)
    }

    /// `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        json!({"keys": self.keys.iter().map(VerifyingKey::to_jwk).collect::<Vec<_>>()})
    }

    /// A token's user and the audiences both sides know; nothing when the token is not of our making.
    pub(super) fn verify(
        &self,
        store: &Store,
        token: &str,
        wanted: &[String],
        now: i64,
    ) -> Result<Option<Owner>, String> {
        let Ok(unverified) = pki::claims_unverified(token) else { return Ok(None) };
        let issuer = text(&unverified, "/iss");
        let legacy = issuer == LEGACY_ISSUER;
        if !legacy && !self.issuers.iter().any(|own| own == issuer) {
            return Ok(None);
        }
        let claims = self
            .keys
            .iter()
            .find_map(|key| key.verify(token).ok())
            .ok_or("failed to verify signature: no key of this server made it")?;
        if legacy {
            return self.legacy(store, &claims, token, wanted);
        }
        let audiences = matching(&claims, wanted)?;
        check_dates(&claims, now)?;
        let user = self.bound(store, &claims, now)?;
        let mut owner = Owner::new(user, audiences);
        if let Some(after) = claims["kubernetes.io"]["warnafter"].as_i64().filter(|after| now > *after) {
            let since = format!(
                "subject: {}, seconds after warning threshold: {}",
                text(&claims, "/sub"),
                now.saturating_sub(after)
            );
            owner.annotations.insert("authentication.k8s.io/stale-token".into(), since);
        }
        Ok(Some(owner))
    }

    /// Checks what a bound token names, and makes the user of it.
    fn bound(&self, store: &Store, claims: &Value, now: i64) -> Result<UserInfo, String> {
        let own = &claims["kubernetes.io"];
        let (namespace, account) = (text(own, "/namespace"), text(own, "/serviceaccount/name"));
        let uid = text(own, "/serviceaccount/uid");
        if text(claims, "/sub") != format!("system:serviceaccount:{namespace}:{account}") {
            return Err("the token's subject is not the account it names".into());
        }
        if self.lookup {
            let known = Bound { store, now, namespace };
            known.check("serviceaccounts", "service account", account, uid)?;
            for (plural, word, kind) in [("secrets", "secret", "secret"), ("pods", "pod", "pod")] {
                if let Some(reference) = own.get(kind) {
                    known.check(plural, word, text(reference, "/name"), text(reference, "/uid"))?;
                }
            }
            // A node beside a pod is information; alone it is what the token is bound to.
            if let (Some(node), None) = (own.get("node"), own.get("pod")) {
                known.check("nodes", "node", text(node, "/name"), text(node, "/uid"))?;
            }
        }
        let mut user = account_user(namespace, account, uid);
        user.extra = bound_extra(own, text(claims, "/jti"));
        Ok(user)
    }

    /// A token kept in a Secret: good as long as the Secret holds it.
    fn legacy(
        &self,
        store: &Store,
        claims: &Value,
        token: &str,
        wanted: &[String],
    ) -> Result<Option<Owner>, String> {
        // It knows no audience, so it is for the API server alone.
        let audiences: Vec<String> =
            self.audiences.iter().filter(|own| wanted.contains(own)).cloned().collect();
        if audiences.is_empty() {
            return Ok(None);
        }
        let claim =
            |name: &str| claims[format!("kubernetes.io/serviceaccount/{name}")].as_str().unwrap_or_default();
        let (namespace, account) = (claim("namespace"), claim("service-account.name"));
        let uid = claim("service-account.uid");
        if text(claims, "/sub") != format!("system:serviceaccount:{namespace}:{account}") {
            return Err("the token's subject is not the account it names".into());
        }
        if self.lookup {
            let secret = object(store, "", "secrets", namespace, claim("secret.name"))
                .filter(|secret| deleted_at(secret).is_none())
                .ok_or("service account token has been invalidated")?;
            if secret["data"]["token"].as_str() != Some(&STANDARD.encode(token)) {
                return Err("service account token does not match server's copy".into());
            }
            let known = Bound { store, now: i64::MAX, namespace };
            known.check("serviceaccounts", "service account", account, uid)?;
            if secret["metadata"]["labels"].get(INVALID_SINCE).is_some() {
                return Err(format!(
                    "the token in secret {namespace}/{} for service account {namespace}/{account} has been marked \
                     invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove \
                     the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token",
                    claim("secret.name")
                ));
            }
            note_use(store, secret);
        }
        let mut owner = Owner::new(account_user(namespace, account, uid), audiences);
        owner.annotations.insert("authentication.k8s.io/legacy-token".into(), owner.user.name.clone());
        Ok(Some(owner))
    }
}

/// What a token's bound object is checked against.
struct Bound<'a> {
    store: &'a Store,
    now: i64,
    namespace: &'a str,
}

impl Bound<'_> {
    fn check(&self, plural: &str, word: &str, name: &str, uid: &str) -> Result<(), String> {
        let namespace = self.namespace;
        let Some(found) = object(self.store, "", plural, namespace, name) else {
            return Err(format!(
                "service account token has been invalidated: {word} {namespace}/{name} is gone"
            ));
        };
        if deleted_at(&found).is_some_and(|at| at < self.now - LEEWAY) {
            return Err(format!(
                "service account token has been invalidated: {word} {namespace}/{name} has been deleted"
            ));
        }
        if text(&found, "/metadata/uid") != uid {
            return Err(format!(
                "service account token has been invalidated: {word} {namespace}/{name} is another now"
            ));
        }
        Ok(())
    }
}

fn account_user(namespace: &str, account: &str, uid: &str) -> UserInfo {
    UserInfo {
        name: format!("system:serviceaccount:{namespace}:{account}"),
        uid: uid.into(),
        groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")],
        extra: BTreeMap::new(),
    }
}

/// Labels a legacy token's Secret with the day of its use; once a day is enough.
fn note_use(store: &Store, mut secret: Value) {
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let Some(row) = registry::by_name("", "secrets") else { return };
    if secret["metadata"]["labels"][LAST_USED] == today.as_str() {
        return;
    }
    let revision = text(&secret, "/metadata/resourceVersion").parse().unwrap_or_default();
    let key = row.key(text(&secret, "/metadata/namespace"), text(&secret, "/metadata/name"));
    secret["metadata"]["labels"][LAST_USED] = json!(today);
    let (store, change) = (store.clone(), Change::Put(encode::draft(&secret)));
    tokio::spawn(async move {
        // Whoever else writes the Secret now wins; the next use tries again.
        let _ = store.write(&row.bucket, &key, Some(Expect::Revision(revision)), change).await;
    });
}

/// What a bound token tells beside the account: credential id, pod and node.
fn bound_extra(own: &Value, jti: &str) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::new();
    if !jti.is_empty() {
        extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={jti}")]);
    }
    for kind in ["pod", "node"] {
        for field in ["name", "uid"] {
            let value = text(own, &format!("/{kind}/{field}"));
            if !value.is_empty() {
                extra.insert(format!("authentication.kubernetes.io/{kind}-{field}"), vec![value.to_owned()]);
            }
        }
    }
    extra
}

/// The audiences of the token that are wanted here.
fn matching(claims: &Value, wanted: &[String]) -> Result<Vec<String>, String> {
    let own: Vec<&str> = match &claims["aud"] {
        Value::String(one) => vec![one],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let both: Vec<String> =
        wanted.iter().filter(|audience| own.contains(&audience.as_str())).cloned().collect();
    match both.is_empty() {
        false => Ok(both),
        true => Err(format!(
            "token audiences {} is invalid for the target audiences {}",
            quoted(&own),
            quoted(wanted)
        )),
    }
}

fn check_dates(claims: &Value, now: i64) -> Result<(), String> {
    let date = |name: &str| claims[name].as_i64();
    if date("exp").is_none_or(|exp| now > exp.saturating_add(LEEWAY)) {
        return Err("service account token has expired".into());
    }
    if date("nbf").is_some_and(|nbf| now < nbf.saturating_sub(LEEWAY)) {
        return Err("service account token is not valid yet".into());
    }
    if date("iat").is_some_and(|iat| now < iat.saturating_sub(LEEWAY)) {
        return Err("service account token is issued in the future".into());
    }
    Ok(())
}
