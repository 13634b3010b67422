//! `--authentication-config`: OpenID providers and anonymous requests from one file
//! (`apiserver/pkg/apis/apiserver/{v1,validation}`).
//!
//! What needs CEL (`expression`, `userValidationRules`, `extra`) is refused with the field's path instead
//! of being passed over.

use serde::Deserialize;

use super::Anonymous;
use super::jwt::{Mapping, Rules};
use crate::net::Verify;
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
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
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
    user_validation_rules: Vec<serde_json::Value>,
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
    #[serde(default)]
    #[expect(dead_code, reason = "accepted: there is one way out of this host")]
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
    #[expect(dead_code, reason = "said by an expression, which is refused")]
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
    extra: Vec<serde_json::Value>,
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
        let verify = self.verify(at, faults);
        let required = self.required(at, faults);
        let username = self.username(at, faults);
        self.refuse_expressions(at, faults);
        let groups = &self.claim_mappings.groups;
        let groups = (!groups.claim.is_empty()).then(|| Mapping {
            claim: groups.claim.clone(),
            prefix: groups.prefix.clone().unwrap_or_default(),
        });
        if groups.is_some() && self.claim_mappings.groups.prefix.is_none() {
            faults.push(format!("{at}.claimMappings.groups.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing"));
        }
        let uid = &self.claim_mappings.uid.claim;
        (faults.len() == before).then(|| {
            let rules = Rules {
                issuer: issuer.url.clone(),
                discovery: issuer.discovery_url.clone().filter(|url| !url.is_empty()),
                audiences: issuer.audiences.clone(),
                algorithms: ALGORITHMS.iter().map(|name| (*name).to_owned()).collect(),
                username,
                groups,
                uid: (!uid.is_empty()).then(|| uid.clone()),
                required,
            };
            (rules, verify)
        })
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

    fn required(&self, at: &str, faults: &mut Vec<String>) -> Vec<(String, String)> {
        let mut required = Vec::new();
        for (index, rule) in self.claim_validation_rules.iter().enumerate() {
            let field = format!("{at}.claimValidationRules[{index}]");
            if rule.claim.is_empty() && rule.expression.is_empty() {
                faults.push(format!("{field}: Required value: claim or expression is required"));
            } else if !rule.expression.is_empty() {
                faults.push(format!("{field}.expression: Forbidden: CEL expressions are not supported here"));
            } else {
                required.push((rule.claim.clone(), rule.required_value.clone()));
            }
        }
        required
    }

    fn username(&self, at: &str, faults: &mut Vec<String>) -> Mapping {
        let username = &self.claim_mappings.username;
        let field = format!("{at}.claimMappings.username");
        if username.claim.is_empty() && username.expression.is_empty() {
            faults.push(format!("{field}: Required value: claim or expression is required"));
        }
        if !username.claim.is_empty() && username.prefix.is_none() {
            faults.push(format!("{field}.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing"));
        }
        Mapping { claim: username.claim.clone(), prefix: username.prefix.clone().unwrap_or_default() }
    }

    fn refuse_expressions(&self, at: &str, faults: &mut Vec<String>) {
        let mappings = &self.claim_mappings;
        for (name, claim) in
            [("username", &mappings.username), ("groups", &mappings.groups), ("uid", &mappings.uid)]
        {
            if !claim.expression.is_empty() {
                faults.push(format!(
                    "{at}.claimMappings.{name}.expression: Forbidden: CEL expressions are not supported here"
                ));
            }
        }
        for (name, list) in
            [("claimMappings.extra", &mappings.extra), ("userValidationRules", &self.user_validation_rules)]
        {
            if !list.is_empty() {
                faults.push(format!("{at}.{name}: Forbidden: CEL expressions are not supported here"));
            }
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
            "{HEAD}jwt:\n- issuer:\n    url: http://issuer\n    audiences: [a]\n  claimMappings:\n    username:\n      expression: claims.sub\n"
        );
        let error = read(&text).err().unwrap();
        for part in ["URL scheme must be https", "jwt[0].claimMappings.username.expression: Forbidden"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(read(&format!("{HEAD}jwt2: []\n")).err().unwrap().starts_with("strict decoding error"));
        assert!(read("apiVersion: v1\nkind: Pod\n").err().unwrap().contains("no kind \"Pod\""));
    }
}
