//! `--authentication-config`: OpenID providers and anonymous requests from one file
//! (`apiserver/pkg/apis/apiserver/{v1,validation}`).

use serde::Deserialize;

use super::Anonymous;
use super::jwt::{Condition, Mapping, Rules};
use crate::api::names;
use crate::control::apiserver::cel::Expression;
use crate::net::{Egress, Verify};
use crate::pki;

/// The algorithms a provider may use when nothing else is said (go-oidc's, as far as ring has them).
pub(super) const ALGORITHMS: &[&str] =
    &["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512"];
const VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha1"];

/// What the file says.
pub(super) struct Configured {
    pub(super) providers: Vec<(Rules, Verify)>,
    /// Set when the file has its say about anonymous requests.
    pub(super) anonymous: Option<Anonymous>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<Jwt>,
    anonymous: Option<AnonymousSection>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AnonymousSection {
    #[serde(default)]
    enabled: bool,
    #[serde(default)]
    conditions: Vec<OnPath>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OnPath {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Jwt {
    issuer: Issuer,
    #[serde(default)]
    claim_validation_rules: Vec<ClaimRule>,
    claim_mappings: ClaimMappings,
    #[serde(default)]
    user_validation_rules: Vec<UserRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UserRule {
    #[serde(default)]
    expression: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Extra {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value_expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Issuer {
    url: String,
    #[serde(rename = "discoveryURL", default)]
    discovery_url: Option<String>,
    #[serde(default)]
    certificate_authority: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
    /// How the provider is reached; empty is directly.
    #[serde(default)]
    egress_selector_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClaimRule {
    #[serde(default)]
    claim: String,
    #[serde(default)]
    required_value: String,
    #[serde(default)]
    expression: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClaimMappings {
    username: Claim,
    #[serde(default)]
    groups: Claim,
    #[serde(default)]
    uid: Claim,
    #[serde(default)]
    extra: Vec<Extra>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Claim {
    #[serde(default)]
    claim: String,
    prefix: Option<String>,
    #[serde(default)]
    expression: String,
}

/// Reads the file.
///
/// # Errors
/// Every fault with its field's path, in upstream's words, on one line.
pub(super) fn read(text: &str) -> Result<Configured, String> {
    let file: File =
        serde_yaml_ng::from_str(text).map_err(|error| format!("strict decoding error: {error}"))?;
    let version = file.api_version.strip_prefix("apiserver.config.k8s.io/").unwrap_or_default();
    if file.kind != "AuthenticationConfiguration" || !VERSIONS.contains(&version) {
        return Err(format!("no kind {:?} is registered for version {:?}", file.kind, file.api_version));
    }
    let mut faults = Vec::new();
    let mut providers = Vec::new();
    for (at, jwt) in file.jwt.iter().enumerate() {
        let twin = file.jwt[..at].iter().any(|other| other.issuer.url == jwt.issuer.url);
        if twin {
            faults.push(format!("jwt[{at}].issuer.url: Duplicate value: {:?}", jwt.issuer.url));
        }
        providers.extend(jwt.rules(&format!("jwt[{at}]"), &mut faults));
    }
    let anonymous = file.anonymous.map(|section| section.read(&mut faults));
    match faults.as_slice() {
        [] => Ok(Configured { providers, anonymous }),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

impl AnonymousSection {
    fn read(self, faults: &mut Vec<String>) -> Anonymous {
        if !self.enabled && !self.conditions.is_empty() {
            faults.push("anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined".into());
        }
        match (self.enabled, self.conditions.is_empty()) {
            (false, _) => Anonymous::Refused,
            (true, true) => Anonymous::Allowed,
            (true, false) => Anonymous::OnPaths(self.conditions.into_iter().map(|one| one.path).collect()),
        }
    }
}

impl Jwt {
    fn rules(&self, at: &str, faults: &mut Vec<String>) -> Option<(Rules, Verify)> {
        let before = faults.len();
        let issuer = &self.issuer;
        url(&issuer.url, &format!("{at}.issuer.url"), faults);
        if let Some(discovery) = issuer.discovery_url.as_ref() {
            let field = format!("{at}.issuer.discoveryURL");
            url(discovery, &field, faults);
            if discovery.trim_end_matches('/') == issuer.url.trim_end_matches('/') {
                faults.push(format!(
                    "{field}: Invalid value: {discovery:?}: discoveryURL must be different from URL"
                ));
            }
        }
        if issuer.audiences.is_empty() {
            faults.push(format!(
                "{at}.issuer.audiences: Required value: at least one {at}.issuer.audiences is required"
            ));
        }
        if issuer.audiences.len() > 1 && issuer.audience_match_policy != "MatchAny" {
            faults.push(format!(
                "{at}.issuer.audienceMatchPolicy: Invalid value: {:?}: audienceMatchPolicy must be MatchAny for multiple audiences",
                issuer.audience_match_policy
            ));
        }
        if !matches!(issuer.egress_selector_type.as_str(), "" | "controlplane" | "cluster") {
            faults.push(format!(
                "{at}.issuer.egressSelectorType: Invalid value: {:?}: egress selector must be either controlplane or cluster",
                issuer.egress_selector_type
            ));
        }
        let verify = self.verify(at, faults);
        let (required, claim_rules) = self.claim_rules(at, faults);
        let mappings = &self.claim_mappings;
        let username = mappings.username.mapping(&format!("{at}.claimMappings.username"), true, faults);
        if username.is_none() && faults.len() == before {
            faults.push(format!(
                "{at}.claimMappings.username: Required value: claim or expression is required"
            ));
        }
        let groups = mappings.groups.mapping(&format!("{at}.claimMappings.groups"), true, faults);
        let uid = mappings.uid.mapping(&format!("{at}.claimMappings.uid"), false, faults);
        let extra = self.extra(at, faults);
        let user_rules = self.user_rules(at, faults);
        self.unverified_email(at, faults);
        let username = username.filter(|_| faults.len() == before)?;
        let rules = Rules {
            issuer: issuer.url.clone(),
            egress: match issuer.egress_selector_type.as_str() {
                "cluster" => Some(Egress::Cluster),
                "controlplane" => Some(Egress::ControlPlane),
                _ => None,
            },
            discovery: issuer.discovery_url.clone().filter(|url| !url.is_empty()),
            audiences: issuer.audiences.clone(),
            algorithms: ALGORITHMS.iter().map(|name| (*name).to_owned()).collect(),
            username,
            groups,
            uid,
            extra,
            required,
            claim_rules,
            user_rules,
        };
        Some((rules, verify))
    }

    fn verify(&self, at: &str, faults: &mut Vec<String>) -> Verify {
        let bundle = self.issuer.certificate_authority.as_bytes();
        if pki::certificates(bundle).is_err() {
            let why = match bundle {
                // The machine's trust store is no part of a lab's control plane.
                [] => "a certificate authority is required: this host has no other trust store",
                _ => "data does not contain any valid RSA or ECDSA certificates",
            };
            faults.push(format!("{at}.issuer.certificateAuthority: Invalid value: \"<omitted>\": {why}"));
        }
        Verify::Bundle(bundle.to_vec())
    }

    /// Claims that must have a value, and conditions on them.
    fn claim_rules(&self, at: &str, faults: &mut Vec<String>) -> (Vec<(String, String)>, Vec<Condition>) {
        let (mut required, mut conditions) = (Vec::new(), Vec::new());
        for (index, rule) in self.claim_validation_rules.iter().enumerate() {
            let field = format!("{at}.claimValidationRules[{index}]");
            match (rule.claim.is_empty(), rule.expression.is_empty()) {
                (true, true) => faults.push(format!("{field}: Required value: claim or expression is required")),
                (false, false) => faults.push(format!(
                    "{field}: Invalid value: {:?}: claim and expression can't both be set",
                    rule.claim
                )),
                (false, true) if !rule.message.is_empty() => faults.push(format!(
                    "{field}.message: Invalid value: {:?}: message can't be set when claim is set",
                    rule.message
                )),
                (false, true) => required.push((rule.claim.clone(), rule.required_value.clone())),
                (true, false) if !rule.required_value.is_empty() => faults.push(format!(
                    "{field}.requiredValue: Invalid value: {:?}: requiredValue can't be set when expression is set",
                    rule.required_value
                )),
                (true, false) => {
                    let compiled = compile(&rule.expression, "claims", &format!("{field}.expression"), faults);
                    let message = rule.message.clone();
                    conditions.extend(compiled.map(|expression| Condition { expression, message }));
                }
            }
        }
        (required, conditions)
    }

    fn user_rules(&self, at: &str, faults: &mut Vec<String>) -> Vec<Condition> {
        let mut conditions = Vec::new();
        for (index, rule) in self.user_validation_rules.iter().enumerate() {
            let field = format!("{at}.userValidationRules[{index}].expression");
            if rule.expression.is_empty() {
                faults.push(format!("{field}: Required value: expression is required"));
                continue;
            }
            let compiled = compile(&rule.expression, "user", &field, faults);
            let message = rule.message.clone();
            conditions.extend(compiled.map(|expression| Condition { expression, message }));
        }
        conditions
    }

    fn extra(&self, at: &str, faults: &mut Vec<String>) -> Vec<(String, Expression)> {
        let mut extra: Vec<(String, Expression)> = Vec::new();
        for (index, entry) in self.claim_mappings.extra.iter().enumerate() {
            let field = format!("{at}.claimMappings.extra[{index}]");
            let key = entry.key.as_str();
            let domain = key
                .split_once('/')
                .filter(|(domain, path)| !path.is_empty() && names::dns1123_subdomain(domain).is_empty());
            let reserved = |domain: &str| {
                ["k8s.io", "kubernetes.io"].iter().any(|own| {
                    domain.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                })
            };
            let mut fault = |why: &str| faults.push(format!("{field}.key: Invalid value: {key:?}: {why}"));
            match domain {
                _ if key.is_empty() => faults.push(format!("{field}.key: Required value: key is required")),
                _ if key.to_lowercase() != key => fault("key must be lowercase"),
                None => fault("must be a domain-prefixed path (such as \"acme.io/foo\")"),
                Some((domain, _)) if reserved(domain) => {
                    fault("k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
                }
                Some(_) if extra.iter().any(|(other, _)| other == key) => {
                    faults.push(format!("{field}.key: Duplicate value: {key:?}"));
                }
                Some(_) => {}
            }
            if entry.value_expression.is_empty() {
                faults.push(format!("{field}.valueExpression: Required value: valueExpression is required"));
                continue;
            }
            let compiled =
                compile(&entry.value_expression, "claims", &format!("{field}.valueExpression"), faults);
            extra.extend(compiled.map(|expression| (key.to_owned(), expression)));
        }
        extra
    }

    /// A user named by an address must be one whose address was proved.
    fn unverified_email(&self, at: &str, faults: &mut Vec<String>) {
        let username = &self.claim_mappings.username.expression;
        let extras = self.claim_mappings.extra.iter().map(|extra| &extra.value_expression);
        let rules = self.claim_validation_rules.iter().map(|rule| &rule.expression);
        let checked = std::iter::once(username).chain(extras).chain(rules);
        let speaks_of_email = username.replace("claims.email_verified", "").contains("claims.email");
        if speaks_of_email && !checked.into_iter().any(|text| text.contains("email_verified")) {
            faults.push(format!(
                "{at}.claimMappings.username.expression: Invalid value: {username:?}: claims.email_verified must be used in \
                 claimMappings.username.expression or claimMappings.extra[*].valueExpression or \
                 claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression"
            ));
        }
    }
}

impl Claim {
    fn mapping(&self, field: &str, prefixed: bool, faults: &mut Vec<String>) -> Option<Mapping> {
        if !self.claim.is_empty() && !self.expression.is_empty() {
            faults.push(format!("{field}: Invalid value: \"\": claim and expression can't both be set"));
            return None;
        }
        if !self.expression.is_empty() {
            if self.prefix.is_some() {
                faults.push(format!(
                    "{field}.prefix: Invalid value: prefix can't be set when expression is set"
                ));
            }
            let field = format!("{field}.expression");
            return compile(&self.expression, "claims", &field, faults).map(Mapping::Expression);
        }
        if self.claim.is_empty() {
            if self.prefix.as_ref().is_some_and(|prefix| !prefix.is_empty()) {
                faults.push(format!(
                    "{field}.claim: Required value: non-empty claim name is required when prefix is set"
                ));
            }
            return None;
        }
        if prefixed && self.prefix.is_none() {
            faults.push(format!("{field}.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing"));
        }
        Some(Mapping::Claim { claim: self.claim.clone(), prefix: self.prefix.clone().unwrap_or_default() })
    }
}

fn compile(source: &str, variable: &str, field: &str, faults: &mut Vec<String>) -> Option<Expression> {
    match Expression::compile(source, variable) {
        Ok(expression) => Some(expression),
        Err(why) => {
            faults.push(format!("{field}: Invalid value: {source:?}: {why}"));
            None
        }
    }
}

fn url(url: &str, field: &str, faults: &mut Vec<String>) {
    if url.is_empty() {
        return faults.push(format!("{field}: Required value: URL is required"));
    }
    if !url.starts_with("https://") {
        faults.push(format!("{field}: Invalid value: {url:?}: URL scheme must be https"));
    }
    for (sign, what) in [('@', "username or password"), ('?', "a query"), ('#', "a fragment")] {
        if url.contains(sign) {
            faults.push(format!("{field}: Invalid value: {url:?}: URL must not contain {what}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";

    #[test]
    fn anonymous_requests_can_be_limited_to_paths() {
        let text = format!("{HEAD}anonymous:\n  enabled: true\n  conditions:\n  - path: /livez\n");
        let read = read(&text).unwrap();
        assert_eq!(read.anonymous, Some(Anonymous::OnPaths(vec!["/livez".into()])));
    }

    #[test]
    fn faults_are_told_by_their_path() {
        let text = format!(
            "{HEAD}jwt:\n- issuer:\n    url: http://issuer\n    audiences: [a]\n  claimMappings:\n    username:\n      expression: claims.email\n"
        );
        let error = read(&text).err().unwrap();
        for part in [
            "URL scheme must be https",
            "jwt[0].claimMappings.username.expression: Invalid value: \"claims.email\": claims.email_verified must be used",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert!(read(&format!("{HEAD}jwt2: []\n")).err().unwrap().starts_with("strict decoding error"));
        assert!(read("apiVersion: v1\nkind: Pod\n").err().unwrap().contains("no kind \"Pod\""));
    }
}
