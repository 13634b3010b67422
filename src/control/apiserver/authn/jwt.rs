//! Tokens of OpenID providers (`apiserver/plugin/pkg/authenticator/token/oidc`): who issued it, by which key,
//! for whom, and what its claims make of its owner.
//!
//! A provider's keys come from its discovery document and are fetched again when a token names a key that
//! is not among them. Left out on purpose: CEL expressions and distributed claims, which the configuration
//! refuses by name.

use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Mutex;

use super::super::cel::Expression;
use super::super::lookup::text;
use super::super::remote::Remote;
use super::super::user::UserInfo;
use super::webhook::chain;
use super::{AuthnError, CREDENTIAL_ID};
use crate::net::{Dial, Direct, Egress, Roads, Verify};
use crate::pki::{self, JwkSet, JwsError};

/// A provider that cannot be reached is asked again after this.
const AGAIN: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(30);
/// Tokens naming unknown keys make us ask no more often than this.
const REFRESH_AT_MOST: Duration = Duration::from_secs(1);
/// Clocks may differ by this before `nbf` (go-oidc).
const LEEWAY: i64 = 300;

/// How one part of a user is made.
#[derive(Debug)]
pub(super) enum Mapping {
    Claim { claim: String, prefix: String },
    Expression(Expression),
}

/// A condition on claims or on the user, and what is said when it does not hold.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) expression: Expression,
    pub(super) message: String,
}

/// What is believed of one provider.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) issuer: String,
    /// How it is reached; nothing is directly.
    pub(super) egress: Option<Egress>,
    /// Where the configuration document is, if not below the issuer.
    pub(super) discovery: Option<String>,
    pub(super) audiences: Vec<String>,
    pub(super) algorithms: Vec<String>,
    pub(super) username: Mapping,
    pub(super) groups: Option<Mapping>,
    pub(super) uid: Option<Mapping>,
    pub(super) extra: Vec<(String, Expression)>,
    /// Claims that must have a value.
    pub(super) required: Vec<(String, String)>,
    pub(super) claim_rules: Vec<Condition>,
    pub(super) user_rules: Vec<Condition>,
}

/// One OpenID provider.
pub(super) struct Provider {
    rules: Rules,
    keys: Arc<Keys>,
}

/// A provider's keys as last fetched.
struct Keys {
    document: Remote,
    issuer: String,
    verify: Verify,
    road: Arc<dyn Dial>,
    current: RwLock<Option<JwkSet>>,
    /// When they were last asked for; held while asking.
    asked: Mutex<Option<Instant>>,
}

impl Provider {
    /// Prepares the way to a provider; its keys are fetched in the background.
    pub(super) fn new(rules: Rules, verify: Verify, roads: &Roads) -> Result<Self, AuthnError> {
        let road: Arc<dyn Dial> = match rules.egress {
            Some(egress) => roads.to(egress),
            None => Arc::new(Direct),
        };
        let configured = rules.discovery.clone();
        let url = configured.unwrap_or_else(|| {
            format!("{}/.well-known/openid-configuration", rules.issuer.trim_end_matches('/'))
        });
        let document =
            Remote::new(&url, &verify, None, TIMEOUT, Arc::clone(&road)).map_err(AuthnError::Remote)?;
        let keys = Arc::new(Keys {
            document,
            issuer: rules.issuer.clone(),
            verify,
            road,
            current: RwLock::default(),
            asked: Mutex::default(),
        });
        tokio::spawn(Keys::first(Arc::downgrade(&keys)));
        Ok(Self { rules, keys })
    }

    /// The token's owner; nothing when another issued it.
    pub(super) async fn user(&self, token: &str, now: i64) -> Result<Option<UserInfo>, String> {
        let Ok(unverified) = pki::claims_unverified(token) else { return Ok(None) };
        if text(&unverified, "/iss") != self.rules.issuer {
            return Ok(None);
        }
        let claims = self.claims(token).await?;
        self.rules.check(&claims, now)?;
        let user = self.rules.user(&claims)?;
        self.rules.judge(&claims, &user)?;
        Ok(Some(user))
    }

    /// Whether its keys were fetched once.
    pub(super) fn is_ready(&self) -> bool {
        self.keys.now().is_some()
    }

    async fn claims(&self, token: &str) -> Result<Value, String> {
        let algorithms = &self.rules.algorithms;
        let not_there =
            || format!("oidc: authenticator for issuer {:?} is not initialized", self.rules.issuer);
        let keys = self.keys.now().ok_or_else(not_there)?;
        match keys.verify(token, algorithms) {
            Err(JwsError::UnknownKey) => {
                self.keys.refresh().await?;
                let keys = self.keys.now().ok_or_else(not_there)?;
                keys.verify(token, algorithms)
            }
            verdict => verdict,
        }
        .map_err(|error| format!("oidc: verify token: {error}"))
    }
}

impl Keys {
    fn now(&self) -> Option<JwkSet> {
        self.current.read().expect("nothing panics while holding the lock").clone()
    }

    /// Asks until there is an answer, as long as the authenticator lives.
    async fn first(keys: std::sync::Weak<Self>) {
        while let Some(keys) = keys.upgrade() {
            match keys.fetch().await {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(issuer = keys.issuer, error, "oidc authenticator: initializing plugin")
                }
            }
            drop(keys);
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn refresh(&self) -> Result<(), String> {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < REFRESH_AT_MOST) {
            return Ok(());
        }
        *asked = Some(Instant::now());
        self.fetch().await
    }

    async fn fetch(&self) -> Result<(), String> {
        let failed = |error: super::super::remote::RemoteError| chain(&error);
        let document = self.document.get().await.map_err(failed)?;
        let issuer = text(&document, "/issuer");
        if issuer != self.issuer {
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {:?} got {issuer:?}",
                self.issuer
            ));
        }
        let url = text(&document, "/jwks_uri");
        if !url.starts_with("https://") {
            return Err(format!("oidc: the provider's jwks_uri {url:?} is not an https URL"));
        }
        let keys = Remote::new(url, &self.verify, None, TIMEOUT, Arc::clone(&self.road)).map_err(failed)?;
        let keys = JwkSet::from_json(&keys.get().await.map_err(failed)?);
        if keys.is_empty() {
            return Err("oidc: the provider publishes no key that can be used".into());
        }
        *self.current.write().expect("nothing panics while holding the lock") = Some(keys);
        Ok(())
    }
}

impl Rules {
    /// Audience, dates and the claims that must be.
    fn check(&self, claims: &Value, now: i64) -> Result<(), String> {
        let said = strings(&claims["aud"]);
        if !self.audiences.iter().any(|audience| said.contains(audience)) {
            return Err(format!(
                "oidc: verify token: oidc: expected audience in {:?} got {said:?}",
                self.audiences
            ));
        }
        match number(&claims["exp"]) {
            Some(end) if now < end => {}
            _ => return Err("oidc: verify token: oidc: token is expired".into()),
        }
        if number(&claims["nbf"]).is_some_and(|begin| now.saturating_add(LEEWAY) < begin) {
            return Err("oidc: verify token: oidc: current time before the nbf (not before) time".into());
        }
        Ok(())
    }

    /// The claims that must have a value, and the conditions on claims and user.
    fn judge(&self, claims: &Value, user: &UserInfo) -> Result<(), String> {
        for (claim, wanted) in &self.required {
            match claims[claim.as_str()].as_str() {
                Some(value) if value == wanted => {}
                Some(value) => {
                    return Err(format!(
                        "oidc: required claim {claim} value does not match. Got = {value}, want = {wanted}"
                    ));
                }
                None => return Err(format!("oidc: required claim {claim} not present in ID token")),
            }
        }
        hold(&self.claim_rules, "claims", claims)
            .map_err(|error| format!("oidc: error evaluating claim validation expression: {error}"))?;
        let shown = serde_json::json!({
            "username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
        });
        hold(&self.user_rules, "user", &shown)
            .map_err(|error| format!("oidc: error evaluating user info validation rule: {error}"))
    }

    fn user(&self, claims: &Value) -> Result<UserInfo, String> {
        let mut user = UserInfo { name: self.username(claims)?, ..UserInfo::default() };
        match &self.groups {
            None => {}
            Some(Mapping::Claim { claim, prefix }) => {
                let named = list_of(&claims[claim.as_str()]).ok_or_else(|| {
                    format!("oidc: parse groups claim {claim:?}: neither string nor array of strings")
                })?;
                user.groups = named.iter().map(|group| format!("{prefix}{group}")).collect();
            }
            Some(Mapping::Expression(expression)) => {
                let value = evaluated(expression, "group", claims)?;
                user.groups = list_of(&value).ok_or_else(|| {
                    "oidc: error evaluating group claim expression: expression must return a string or a list of strings"
                        .to_owned()
                })?;
            }
        }
        match &self.uid {
            None => {}
            Some(Mapping::Claim { claim, .. }) => {
                let uid = claims[claim.as_str()].as_str();
                user.uid =
                    uid.ok_or_else(|| format!("oidc: parse uid claim {claim:?}: claim not present"))?.into();
            }
            Some(Mapping::Expression(expression)) => {
                let value = evaluated(expression, "uid", claims)?;
                let uid = value
                    .as_str()
                    .ok_or("oidc: error evaluating uid claim expression: it must return a string");
                user.uid = uid?.into();
            }
        }
        for (key, expression) in &self.extra {
            let value = evaluated(expression, "extra", claims)?;
            let values = list_of(&value).ok_or_else(|| {
                format!("oidc: error evaluating extra claim expression for {key:?}: neither string nor list of strings")
            })?;
            let values: Vec<String> = values.into_iter().filter(|value| !value.is_empty()).collect();
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        if let Some(id) = claims["jti"].as_str().filter(|id| !id.is_empty()) {
            user.extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
        }
        Ok(user)
    }

    fn username(&self, claims: &Value) -> Result<String, String> {
        let (claim, prefix) = match &self.username {
            Mapping::Claim { claim, prefix } => (claim.as_str(), prefix),
            Mapping::Expression(expression) => {
                let value = evaluated(expression, "username", claims)?;
                let name = value.as_str().unwrap_or_default();
                return match name.is_empty() {
                    true => Err("oidc: error evaluating username claim expression: it must return a string that is not empty".into()),
                    false => Ok(name.to_owned()),
                };
            }
        };
        let name = claims[claim]
            .as_str()
            .ok_or_else(|| format!("oidc: parse username claims {claim:?}: claim not present"))?;
        // An address nobody has proved to be theirs names nobody.
        if claim == "email" && claims.get("email_verified").is_some_and(|verified| verified != true) {
            return Err("oidc: email not verified".into());
        }
        match name.is_empty() {
            true => Err(format!("oidc: the claim {claim:?} is empty")),
            false => Ok(format!("{prefix}{name}")),
        }
    }
}

fn evaluated(expression: &Expression, what: &str, claims: &Value) -> Result<Value, String> {
    let failed = |error| format!("oidc: error evaluating {what} claim expression: {error}");
    expression.evaluate("claims", claims).map_err(failed)
}

/// Whether all conditions hold; the first that does not is told.
fn hold(conditions: &[Condition], variable: &str, value: &Value) -> Result<(), String> {
    for condition in conditions {
        if !condition.expression.holds(variable, value)? {
            let said = &condition.message;
            return Err(format!("validation expression '{}' failed: {said}", condition.expression.source()));
        }
    }
    Ok(())
}

/// A string, or a list of nothing but strings; nothing at all is an empty list.
fn list_of(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(list) => list.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// A string, or a list of them.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// Seconds since 1970; some providers write a fraction.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
